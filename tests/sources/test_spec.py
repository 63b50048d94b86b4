"""What a SOURCE means, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from kapso_sync.errors import ConfigError, SourceMissing, SourceRefused
from kapso_sync.sources.spec import SourceKind, parse_source
from tests.sources.repositories import SECRET, Repository


@pytest.mark.parametrize(
    ("text", "protocol"),
    [
        ("https://github.com/acme/flows", "https"),
        ("https://github.com:8443/acme/flows.git", "https"),
        ("ssh://git@example.com:2222/acme/flows.git", "ssh"),
        ("ssh://example.com/acme/flows", "ssh"),
        ("git@example.com:acme/flows.git", "ssh"),
        ("example.com:acme/flows.git", "ssh"),
        ("git@[2001:db8::1]:acme/flows.git", "ssh"),
        ("ssh://git@[2001:db8::1]:2222/acme/flows.git", "ssh"),
        ("http://127.0.0.1:8080/flows.git", "http"),
        ("http://localhost/flows.git", "http"),
        ("http://[::1]:80/flows.git", "http"),
    ],
)
def test_every_git_remote_spelling_is_a_git_source(text: str, protocol: str, tmp_path: Path) -> None:
    """It is kept as written, and git may use only its transport."""
    spec = parse_source(text, branch="main", path="functions/", cwd=tmp_path)
    assert (spec.kind, spec.location, spec.protocol) == (SourceKind.GIT, text, protocol)
    assert (spec.branch, spec.ref, spec.path) == ("main", None, "functions")


def test_a_local_path_is_a_folder_or_a_bare_repository(tmp_path: Path) -> None:
    """A work tree is a folder too; relative paths are allowed."""
    bare = Repository(tmp_path / "bare.git", bare=True)
    tree = Repository(tmp_path / "tree")
    (tmp_path / "plain").mkdir()
    kinds = {name: parse_source(name, cwd=tmp_path) for name in ("bare.git", "tree", "plain", ".")}
    assert {name: spec.kind for name, spec in kinds.items() if spec.kind is SourceKind.GIT} == {"bare.git": SourceKind.GIT}
    assert kinds["bare.git"].location == str(bare.folder)
    assert kinds["bare.git"].protocol == "file"
    assert Path(kinds["tree"].location) == tree.folder


def test_a_path_with_dots_is_the_same_source_as_without(tmp_path: Path) -> None:
    """`../flows.git` and its whole path have one owner; behind a symlink `..` is another folder, and stays as it was given."""
    (tmp_path / "here" / "deep").mkdir(parents=True)
    (tmp_path / "flows").mkdir()
    assert parse_source("../flows", cwd=tmp_path / "here").location == str(tmp_path / "flows")
    (tmp_path / "here" / "flows").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "here" / "deep")
    assert parse_source("link/../flows", cwd=tmp_path).location == str(tmp_path / "link" / ".." / "flows")


@pytest.mark.parametrize("scheme", ["git+ssh", "ssh+git"])
def test_other_names_of_ssh_are_the_same_source(scheme: str, tmp_path: Path) -> None:
    """Git takes them too, and package managers write them."""
    spec = parse_source(f"{scheme}://git@example.com/acme/flows.git", cwd=tmp_path)
    assert (spec.location, spec.protocol) == ("ssh://git@example.com/acme/flows.git", "ssh")


def test_a_folder_with_a_colon_is_a_folder(tmp_path: Path) -> None:
    """What exists here is meant, not a host of that name."""
    (tmp_path / "flows:prod").mkdir()
    assert parse_source("flows:prod", cwd=tmp_path).kind is SourceKind.FOLDER
    assert parse_source("flows:test", cwd=tmp_path).protocol == "ssh"


def test_a_branch_of_a_sub_folder_reads_that_folder_of_its_repository(tmp_path: Path) -> None:
    """As git would, from wherever somebody stands; a folder in no repository has no branch."""
    Repository(tmp_path / "tree").write({"apps/one/a.ts": "a"})
    spec = parse_source("tree/apps", branch="main", path="one", cwd=tmp_path)
    assert (spec.location, spec.path) == (str(tmp_path / "tree"), "apps/one")
    (tmp_path / "plain").mkdir()
    with pytest.raises(SourceMissing, match="is in no git repository"):
        parse_source("plain", branch="main", cwd=tmp_path)


@pytest.mark.parametrize(("branch", "ref"), [("main", None), (None, "v1.0")])
def test_a_branch_or_ref_reads_the_repository_of_a_work_tree(branch: str | None, ref: str | None, tmp_path: Path) -> None:
    """A revision names committed files, not the files in the folder."""
    Repository(tmp_path / "tree")
    spec = parse_source("tree", branch=branch, ref=ref, cwd=tmp_path)
    assert (spec.kind, spec.branch, spec.ref) == (SourceKind.GIT, branch, ref)


def test_a_file_url_names_an_existing_folder(tmp_path: Path) -> None:
    """file:// is git, percent-escapes included; a missing folder is an error."""
    repository = Repository(tmp_path / "with space")
    assert parse_source(repository.url, cwd=tmp_path).location == repository.url
    with pytest.raises(SourceMissing, match="nowhere does not exist"):
        parse_source((tmp_path / "nowhere").as_uri(), cwd=tmp_path)


def test_a_missing_source_folder_is_an_error(tmp_path: Path) -> None:
    """It is not an empty folder."""
    with pytest.raises(SourceMissing, match="flowz does not exist"):
        parse_source("flowz", cwd=tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(SourceMissing, match="file is not a folder"):
        parse_source("file", cwd=tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "--upload-pack=touch /tmp/x",
        "-ufoo",
        "ext::sh -c touch% /tmp/x",
        "fd::7",
        "https://example.com/a\nb",
        "https://example.com/a\x7f",
        "http://example.com/acme/flows",
        "git://example.com/acme/flows",
        "ftp://example.com/acme/flows",
        "https://example.com",
        "https:///acme/flows",
        "ssh://-oProxyCommand=x/acme/flows",
        "https://[::1/acme/flows",
    ],
)
def test_unsafe_sources_are_refused(text: str, tmp_path: Path) -> None:
    """Options, remote helpers, control characters and insecure transports never reach git."""
    with pytest.raises(SourceRefused):
        parse_source(text, cwd=tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        f"https://user:{SECRET}@example.com/acme/flows",
        f"https://{SECRET}@example.com/acme/flows",
        f"ssh://git:{SECRET}@example.com/acme/flows",
        f"http://x:{SECRET}@127.0.0.1/acme/flows",
        f"https://example.com/acme/flows?private_token={SECRET}",
        f"https://example.com/acme/flows#{SECRET}",
        f"user:{SECRET}@example.com/acme/flows.git",
        f"user:{SECRET}@example.com:acme/flows.git",
        f":{SECRET}@127.0.0.1:1/flows.git",
    ],
)
def test_credentials_in_a_source_url_are_refused(text: str, tmp_path: Path) -> None:
    """The error names the setting to use, and does not repeat the secret."""
    with pytest.raises(SourceRefused) as caught:
        parse_source(text, cwd=tmp_path)
    assert SECRET not in f"{caught.value.message} {caught.value.hint}"
    assert "KAPSO_SYNC_GIT_TOKEN" in str(caught.value.hint)


@pytest.mark.parametrize(
    "name",
    ["", "-d", "a..b", "a b", "a~1", "a^", "a:b", "a?", "a*", "a[b", "a\\b", "a@{1}", "/a", "a/", "a.", "a.lock", "a//b", ".a"],
)
def test_invalid_branch_and_ref_names_are_refused(name: str, tmp_path: Path) -> None:
    """They can be neither an option nor a revision expression."""
    with pytest.raises(SourceRefused, match="branch"):
        parse_source("https://example.com/a/b", branch=name, cwd=tmp_path)
    with pytest.raises(SourceRefused, match="ref"):
        parse_source("https://example.com/a/b", ref=name, cwd=tmp_path)


def test_a_branch_and_a_ref_together_are_refused(tmp_path: Path) -> None:
    """A branch is followed, a ref is fixed."""
    with pytest.raises(ConfigError, match="both a branch and a ref"):
        parse_source("https://example.com/a/b", branch="main", ref="v1", cwd=tmp_path)


@pytest.mark.parametrize("path", ["/etc", "../up", "a/../../b", "a\\b", "a\0b"])
def test_a_path_that_leaves_the_source_is_refused(path: str, tmp_path: Path) -> None:
    """--path must lie inside."""
    with pytest.raises(ConfigError, match="must lie inside"):
        parse_source(".", path=path, cwd=tmp_path)


@pytest.mark.parametrize(("path", "meant"), [(None, None), (".", ""), ("./a/b/", "a/b")])
def test_a_source_path_is_normalised(path: str | None, meant: str | None, tmp_path: Path) -> None:
    """Redundant dots and slashes make no difference."""
    assert parse_source(".", path=path, cwd=tmp_path).path == meant


@pytest.mark.parametrize("text", ["x" * 5000, "file:///" + "x" * 5000, "file:///a%00b"])
def test_a_name_that_no_file_system_takes_is_not_a_folder(text: str, tmp_path: Path) -> None:
    """Too long, or with a NUL character."""
    with pytest.raises(SourceMissing, match="does not exist"):
        parse_source(text, cwd=tmp_path)
