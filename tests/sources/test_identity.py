"""The owner that a source has, and what is checked out in a work tree."""

from __future__ import annotations

from pathlib import Path

import pytest

from kapso_sync.errors import ConfigError
from kapso_sync.sources.identity import WorkTree, find_origin, find_work_tree, folder_identity, origin_identity, remote_identity
from tests.sources.repositories import Repository


@pytest.mark.parametrize(
    "location",
    [
        "https://example.com/acme/flows",
        "https://EXAMPLE.com/acme/flows.git",
        "https://example.com/acme/flows.git/",
        "https://example.com:8443/acme/flows",
        "ssh://git@example.com:2222/acme/flows.git",
        "git@example.com:acme/flows.git",
        "deploy@Example.com:/acme/flows",
        "example.com:acme/flows.git",
        "https://example.com./acme//flows/",
    ],
)
def test_one_remote_has_one_owner_in_every_url_spelling(location: str) -> None:
    """A change from https to ssh keeps the functions."""
    assert remote_identity(location, "") == "example.com/acme/flows"
    assert remote_identity(location, "apps/one") == "example.com/acme/flows//apps/one"


@pytest.mark.parametrize(
    "location",
    [
        "https://github.com/Acme/Flows",
        "git@github.com:acme/flows.git",
        "ssh://git@ssh.github.com:443/ACME/flows",
        "https://ada@GITHUB.com/acme/flows/",
        "https://www.github.com/acme/flows",
    ],
)
def test_the_big_forges_take_any_case_and_their_ssh_host_on_port_443(location: str) -> None:
    """The folder inside the repository keeps its case: git tells one from the other."""
    assert remote_identity(location, "Apps") == "github.com/acme/flows//Apps"
    assert remote_identity("https://git.acme.example/Acme/flows", "") == "git.acme.example/Acme/flows"


@pytest.mark.parametrize(
    "location",
    [
        "https://dev.azure.com/acme/My%20Shop/_git/flows",
        "https://acme@dev.azure.com/Acme/My%20Shop/_git/Flows",
        "git@ssh.dev.azure.com:v3/acme/My%20Shop/flows",
        "https://acme.visualstudio.com/My%20Shop/_git/flows",
        "https://acme.visualstudio.com/DefaultCollection/My%20Shop/_git/flows",
        "acme@vs-ssh.visualstudio.com:v3/acme/My%20Shop/flows",
    ],
)
def test_a_repository_of_azure_has_one_owner_under_all_its_names(location: str) -> None:
    """SSH has a host and a path of its own there, and organizations had a host."""
    assert remote_identity(location, "") == "dev.azure.com/acme/my%20shop/_git/flows"
    assert remote_identity("https://dev.azure.com/acme/_git/flows", "") == "dev.azure.com/acme/flows/_git/flows"
    assert remote_identity("https://dev.azure.com/acme", "") == "dev.azure.com/acme"


def test_a_hosts_address_has_one_spelling() -> None:
    """IPv6 in long and in short, and names beyond ASCII."""
    short = remote_identity("git@[2001:db8::1]:acme/flows", "")
    assert short == remote_identity("ssh://git@[2001:DB8:0:0::0001]:22/acme/flows.git", "")
    assert remote_identity("https://bücher.example/a/b", "") == "xn--bcher-kva.example/a/b"


@pytest.mark.parametrize(
    ("location", "owner"),
    [
        ("/srv/git/flows.git", "file/srv/git/flows"),
        ("file:///srv/git/flows.git", "file/srv/git/flows"),
        ("/srv/my flows [old]", "file/srv/my%20flows%20%5Bold%5D"),
        ("file:///srv/my%20flows", "file/srv/my%20flows"),
    ],
)
def test_a_local_repository_is_named_by_its_path(location: str, owner: str) -> None:
    """White space and brackets would break the owner's mark, so they are encoded."""
    assert remote_identity(location, "") == owner


def test_a_folder_without_remote_is_owned_by_its_path() -> None:
    """Two folders of one name are two owners."""
    one, two = folder_identity(Path("/a/flows")), folder_identity(Path("/b/flows"))
    assert one != two
    assert one.startswith("folder/flows-")
    assert folder_identity(Path("/")).startswith("folder/root-")


async def test_a_work_tree_is_found_from_its_sub_folders(upstream: Repository) -> None:
    """Root, origin and checked out commit are known in every folder of it, without running git."""
    (upstream.folder / "deep/er").mkdir(parents=True)
    upstream.git("remote", "add", "other", "https://example.com/not/this")
    upstream.git("remote", "add", "origin", "git@example.com:acme/flows.git")
    commit = upstream.git("rev-parse", "HEAD")
    found = find_work_tree(upstream.folder / "deep/er")
    assert found is not None
    assert (found.root, found.head) == (upstream.folder, f"main@{commit[:12]}")
    assert await find_origin(found) == "git@example.com:acme/flows.git"


async def test_a_packed_branch_and_a_detached_head_are_described(upstream: Repository) -> None:
    """The description survives git gc and checkouts of a commit."""
    commit = upstream.git("rev-parse", "HEAD")
    upstream.git("pack-refs", "--all")
    packed = find_work_tree(upstream.folder)
    upstream.git("checkout", "--quiet", "--detach")
    detached = find_work_tree(upstream.folder)
    assert packed is not None
    assert detached is not None
    assert (packed.head, detached.head) == (f"main@{commit[:12]}", commit[:12])
    assert await find_origin(packed) is None


async def test_a_linked_work_tree_has_its_repositorys_origin(upstream: Repository, tmp_path: Path) -> None:
    """It belongs to the same remote, on a branch of its own."""
    upstream.git("remote", "add", "origin", "https://example.com/acme/flows")
    upstream.git("worktree", "add", "--quiet", "-b", "side", str(tmp_path / "linked"))
    found = find_work_tree(tmp_path / "linked")
    assert found is not None
    assert await find_origin(found) == "https://example.com/acme/flows"
    assert found.head is not None
    assert found.head.startswith("side@")


def test_a_work_tree_before_its_first_commit_is_on_its_branch(tmp_path: Path) -> None:
    """There is no commit yet."""
    found = find_work_tree(Repository(tmp_path / "new").folder)
    assert found is not None
    assert found.head == "main"


async def test_a_damaged_git_folder_is_a_work_tree_without_commit_and_origin(tmp_path: Path) -> None:
    """Missing or binary files cause no error: the folder is still readable."""
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git/config").write_bytes(b"\xff\xfe")
    found = find_work_tree(tmp_path)
    assert found is not None
    assert (await find_origin(found), found.head) == (None, None)


def _in(folder: Path) -> WorkTree:
    found = find_work_tree(folder)
    assert found is not None
    return found


@pytest.mark.parametrize(
    "config",
    [
        '[remote "origin"]\n\turl = https://example.com/acme/flows ; the one at the office\n',
        '[remote "origin"]\n\turl = https://example.com/acme/flows # moved in May\n',
        '[remote "origin"] url = https://example.com/acme/flows\n',
        '[Remote "origin"]\n\tURL = "https://example.com/acme/flows"\n',
        '[remote "origin"]\n\turl = https://example.com/\\\nacme/flows\n',
        '[remote "origin"]\n\tpushurl = git@else.example:a/b\n\turl = https://example.com/acme/flows\n\turl = https://mirror.example/x\n',
        '[remote "other"]\n\turl = https://else.example/a/b\n[include]\n\tpath = shared\n',
        "[include]\n\tpath = ../outside-of-git\n",
        '[includeIf "gitdir:**/.git"]\n\tpath = shared\n',
        '[includeIf "onbranch:main"]\n\tpath = shared\n',
    ],
    ids=[
        "comment",
        "hash",
        "one line",
        "case",
        "continued",
        "two URLs",
        "included",
        "outside",
        "of the folder",
        "of the branch",
    ],
)
async def test_the_origin_is_what_git_reads_in_its_configuration(config: str, upstream: Repository) -> None:
    """Comments, quotes, case, continued lines and included files: all are one owner."""
    included = '[remote "origin"]\n\turl = https://example.com/acme/flows\n'
    (upstream.folder / ".git/shared").write_text(included)
    (upstream.folder / "outside-of-git").write_text(included)
    with (upstream.folder / ".git/config").open("a") as file:
        file.write(config)
    assert upstream.git("remote", "get-url", "origin") == "https://example.com/acme/flows"
    assert await find_origin(_in(upstream.folder)) == "https://example.com/acme/flows"


@pytest.mark.parametrize(
    ("origin", "spelled_out"),
    [
        ("gh:acme/flows", "https://github.com/acme/flows"),
        ("gh:team/flows", "ssh://git@git.example.com/team/flows"),
        ("here/flows", "https://git.example.com/here/flows"),
        ("hub:acme/flows", "hub:acme/flows"),
        ("git@example.com:acme/flows", "git@example.com:acme/flows"),
        ("https://example.com/acme/flows", "https://example.com/acme/flows"),
    ],
)
async def test_an_abbreviated_origin_is_spelled_out_and_a_whole_one_is_kept(
    origin: str, spelled_out: str, upstream: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the longest rule, of the repository or of the user; where a machine fetches a whole address from names nothing."""
    configuration = tmp_path / "gitconfig"
    configuration.write_text(
        '[url "https://github.com/"]\n\tinsteadOf = gh:\n[url "ssh://git@git.example.com/team/"]\n\tinsteadOf = gh:team/\n'
        '[url "https://mirror.example/"]\n\tinsteadOf = https://\n\tinsteadOf = git@example.com:\n'
    )
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(configuration))
    upstream.git("config", "url.https://git.example.com/here/.insteadOf", "here/")
    upstream.git("config", "remote.origin.url", origin)
    assert await find_origin(_in(upstream.folder)) == spelled_out


async def test_the_only_remote_counts_whatever_its_name(upstream: Repository) -> None:
    """As with `git clone --origin NAME`; of several without an origin nobody can tell which one is meant."""
    upstream.git("remote", "add", "company.git", "https://example.com/acme/flows")
    assert await find_origin(_in(upstream.folder)) == "https://example.com/acme/flows"
    upstream.git("remote", "add", "other", "https://example.com/other/flows")
    assert await find_origin(_in(upstream.folder)) is None
    upstream.git("remote", "add", "origin", "https://example.com/origin/flows")
    assert await find_origin(_in(upstream.folder)) == "https://example.com/origin/flows"


async def test_reading_the_origin_runs_no_program(upstream: Repository, tmp_path: Path) -> None:
    """The configuration of a work tree names programs wherever git takes one; git reads it as data."""
    script, ran = tmp_path / "trap", tmp_path / "ran"
    script.write_text(f"#!/bin/sh\ntouch {ran}\n")
    script.chmod(0o755)
    for key in (
        "core.fsmonitor",
        "core.pager",
        "pager.config",
        "core.sshCommand",
        "core.editor",
        "alias.config",
        "credential.helper",
    ):
        upstream.git("config", key, f"!{script}" if key.startswith("alias") else str(script))
    for origin in ("https://example.com/acme/flows", "abbreviated:acme/flows"):
        upstream.git("config", "remote.origin.url", origin)
        assert await find_origin(_in(upstream.folder)) == origin
    assert not ran.exists()


async def test_without_git_the_owner_of_a_work_tree_is_an_error(
    upstream: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another owner than the one that a machine with git finds would be worse; a setting names it as well."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="git is not installed") as caught:
        await find_origin(_in(upstream.folder))
    assert "KAPSO_SYNC_OWNER" in str(caught.value.hint)


def test_a_relative_origin_is_a_path_from_its_work_tree(upstream: Repository) -> None:
    """Two folders with the same words in their configuration are two owners."""
    owner = origin_identity(_in(upstream.folder), "../other.git", "")
    assert owner == remote_identity(str(upstream.folder.parent / "other.git"), "")
    with pytest.raises(ConfigError, match="is not an address"):
        origin_identity(_in(upstream.folder), "https://[::1/acme/flows", "")


def test_a_folder_outside_of_git_is_not_a_work_tree() -> None:
    """The search ends at the root."""
    assert find_work_tree(Path("/")) is None
