"""What a SOURCE means, and what is never read."""

from __future__ import annotations

from pathlib import Path

import pytest

from kapso_sync.errors import ConfigError, SourceMissing, SourceRefused
from kapso_sync.sources import SourceKind, parse_source
from tests.sources.repositories import SECRET, Repository


@pytest.mark.parametrize(
    ("text", "protocol"),
    [
        ("https://github.com/acme/flows", "https"),
        ("https://github.com:8443/acme/flows.git", "https"),
        ("ssh://git@example.com:2222/acme/flows.git", "ssh"),
        ("ssh://example.com/acme/flows", "ssh"),
        ("git@example.com:acme/flows.git", "ssh"),
        ("http://127.0.0.1:8080/flows.git", "http"),
        ("http://localhost/flows.git", "http"),
        ("http://[::1]:80/flows.git", "http"),
    ],
)
def test_remote_spellings_are_git_and_kept_as_written(text: str, protocol: str, tmp_path: Path) -> None:
    """Every usual way to write a remote is taken, and git may use its one transport only."""
    spec = parse_source(text, branch="main", path="functions/", cwd=tmp_path)
    assert (spec.kind, spec.location, spec.protocol) == (SourceKind.GIT, text, protocol)
    assert (spec.branch, spec.ref, spec.path) == ("main", None, "functions")


def test_a_local_path_is_a_folder_or_a_repository(tmp_path: Path) -> None:
    """A bare repository is git; a work tree and any other folder are folders, relative paths included."""
    bare = Repository(tmp_path / "bare.git", bare=True)
    tree = Repository(tmp_path / "tree")
    (tmp_path / "plain").mkdir()
    kinds = {name: parse_source(name, cwd=tmp_path) for name in ("bare.git", "tree", "plain", ".")}
    assert {name: spec.kind for name, spec in kinds.items() if spec.kind is SourceKind.GIT} == {"bare.git": SourceKind.GIT}
    assert kinds["bare.git"].location == str(bare.folder)
    assert kinds["bare.git"].protocol == "file"
    assert Path(kinds["tree"].location) == tree.folder


@pytest.mark.parametrize(("branch", "ref"), [("main", None), (None, "v1.0")])
def test_a_branch_or_ref_makes_a_work_tree_its_repository(branch: str | None, ref: str | None, tmp_path: Path) -> None:
    """Whoever names a revision wants what is committed, not what lies about."""
    Repository(tmp_path / "tree")
    spec = parse_source("tree", branch=branch, ref=ref, cwd=tmp_path)
    assert (spec.kind, spec.branch, spec.ref) == (SourceKind.GIT, branch, ref)


def test_a_file_url_names_an_existing_folder(tmp_path: Path) -> None:
    """file:// is git, escapes and all; where nothing is, it says so."""
    repository = Repository(tmp_path / "with space")
    assert parse_source(repository.url, cwd=tmp_path).location == repository.url
    with pytest.raises(SourceMissing, match="is not a folder"):
        parse_source((tmp_path / "nowhere").as_uri(), cwd=tmp_path)


def test_a_folder_that_is_not_there_is_missing(tmp_path: Path) -> None:
    """A misspelt folder is no empty folder."""
    with pytest.raises(SourceMissing, match="flowz is not a folder"):
        parse_source("flowz", cwd=tmp_path)


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
    """Options, remote helpers, control characters and transports without protection never reach git."""
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
    ],
)
def test_credentials_in_a_url_are_refused_unread(text: str, tmp_path: Path) -> None:
    """The error names the setting to use, and does not repeat the secret."""
    with pytest.raises(SourceRefused) as caught:
        parse_source(text, cwd=tmp_path)
    assert SECRET not in f"{caught.value.message} {caught.value.hint}"
    assert "KAPSO_SYNC_GIT_TOKEN" in str(caught.value.hint)


@pytest.mark.parametrize(
    "name",
    ["", "-d", "a..b", "a b", "a~1", "a^", "a:b", "a?", "a*", "a[b", "a\\b", "a@{1}", "/a", "a/", "a.", "a.lock", "a//b", ".a"],
)
def test_names_that_git_would_not_take_are_refused(name: str, tmp_path: Path) -> None:
    """A branch or ref can neither be an option nor a revision expression."""
    with pytest.raises(SourceRefused, match="branch"):
        parse_source("https://example.com/a/b", branch=name, cwd=tmp_path)
    with pytest.raises(SourceRefused, match="ref"):
        parse_source("https://example.com/a/b", ref=name, cwd=tmp_path)


def test_a_branch_and_a_ref_contradict_each_other(tmp_path: Path) -> None:
    """One follows, the other pins: both together mean nothing."""
    with pytest.raises(ConfigError, match="both a branch and a ref"):
        parse_source("https://example.com/a/b", branch="main", ref="v1", cwd=tmp_path)


@pytest.mark.parametrize("path", ["/etc", "../up", "a/../../b", "a\\b", "a\0b"])
def test_a_path_that_leaves_the_source_is_refused(path: str, tmp_path: Path) -> None:
    """--path lies inside."""
    with pytest.raises(ConfigError, match="must lie inside"):
        parse_source(".", path=path, cwd=tmp_path)


@pytest.mark.parametrize(("path", "meant"), [(None, None), (".", ""), ("./a/b/", "a/b")])
def test_a_path_has_one_spelling(path: str | None, meant: str | None, tmp_path: Path) -> None:
    """Dots and slashes that mean nothing make no difference."""
    assert parse_source(".", path=path, cwd=tmp_path).path == meant
