"""Hostile repositories: no configuration makes git run a program or read other files."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import git as _  # noqa: F401 - its import runs `git version` in this process's own environment, which a test makes hostile
import pytest

from kapso_sync.errors import ConfigError, StateUnusable
from kapso_sync.network import Network
from kapso_sync.sources.command import Git, GitCredentials, GitFailed
from kapso_sync.sources.identity import find_work_tree
from tests.sources.repositories import CODE, Reader, Repository, children, contents


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    """A program that writes a file when it is run."""
    script = tmp_path / "trap"
    script.write_text(f"#!/bin/sh\ntouch {tmp_path / 'trap_was_run'}\n")
    script.chmod(0o755)
    return script


@pytest.fixture
def trap_was_run(tmp_path: Path) -> Callable[[], bool]:
    """Return whether the trap was run."""
    return (tmp_path / "trap_was_run").exists


def test_the_trap_records_that_it_was_run(trap: Path, trap_was_run: Callable[[], bool]) -> None:
    """A control for the tests below: a run of the trap is noticed."""
    assert not trap_was_run()
    subprocess.run([str(trap)], check=True)
    assert trap_was_run()


def _lay(repository: Repository, trap: Path) -> None:
    """Name a program wherever a repository's configuration may name one."""
    for key in (
        "core.fsmonitor",
        "core.sshCommand",
        "core.askPass",
        "core.gitProxy",
        "core.alternateRefsCommand",
        "credential.helper",
        "uploadpack.packObjectsHook",
        "filter.evil.smudge",
        "filter.evil.clean",
        "filter.evil.process",
        "diff.external",
        "remote.origin.uploadpack",
    ):
        repository.git("config", key, str(trap))
    hooks = repository.folder / ".git/hooks"
    hooks.mkdir(exist_ok=True)
    for name in ("post-checkout", "pre-receive", "post-index-change", "reference-transaction", "pre-auto-gc", "post-update"):
        (hooks / name).write_text(trap.read_text())
        (hooks / name).chmod(0o755)


@pytest.mark.parametrize("spelling", ["work tree", "url"])
async def test_git_configuration_of_a_repository_runs_no_program(
    spelling: str, upstream: Repository, reader: Reader, trap: Path, trap_was_run: Callable[[], bool]
) -> None:
    """Hooks, filters, monitors and helpers of a repository are never run."""
    upstream.commit({".gitattributes": "* filter=evil diff=evil\n"})
    _lay(upstream, trap)
    text = upstream.folder if spelling == "work tree" else upstream.url
    assert contents(await reader.open(text, branch="main").fetch())["a.ts"] == CODE.encode()
    assert find_work_tree(upstream.folder) is not None
    await reader.open_folder(upstream.folder, work_tree=True).fetch()
    assert not trap_was_run()


async def test_hooks_and_configuration_in_the_mirror_run_no_program(
    upstream: Repository, reader: Reader, trap: Path, trap_was_run: Callable[[], bool]
) -> None:
    """Write access to the state folder does not run programs."""
    await reader.open(upstream.url).fetch()
    hook = reader.mirror / "hooks/reference-transaction"
    hook.parent.mkdir(exist_ok=True)
    hook.symlink_to(trap)
    with (reader.mirror / "config").open("a") as config:
        config.write(f"[core]\n\tfsmonitor = {trap}\n\thooksPath = {hook.parent}\n[credential]\n\thelper = {trap}\n")
    upstream.commit({"a.ts": "new"})
    assert contents(await reader.open(upstream.url).fetch())["a.ts"] == b"new"
    assert not trap_was_run()


async def test_git_does_not_inherit_environment_variables(
    upstream: Repository,
    reader: Reader,
    trap: Path,
    tmp_path: Path,
    trap_was_run: Callable[[], bool],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """GIT_DIR and similar, configuration from variables and files, and helpers have no effect."""
    decoy = Repository(tmp_path / "decoy")
    decoy.commit({"a.ts": "decoy"})
    git_dir = str(decoy.folder / ".git")
    (tmp_path / "evil").write_text(f'[url "{decoy.url}"]\n\tinsteadOf = "{upstream.url}"\n[core]\n\tfsmonitor = {trap}\n')
    hostile = {
        "GIT_DIR": git_dir,
        "GIT_COMMON_DIR": git_dir,
        "GIT_OBJECT_DIRECTORY": f"{git_dir}/objects",
        "GIT_ALTERNATE_OBJECT_DIRECTORIES": f"{git_dir}/objects",
        "GIT_WORK_TREE": str(decoy.folder),
        "GIT_INDEX_FILE": f"{git_dir}/index",
        "GIT_NAMESPACE": "elsewhere",
        "GIT_SHALLOW_FILE": "/dev/null",
        "GIT_REPLACE_REF_BASE": "refs/heads/",
        "GIT_CEILING_DIRECTORIES": "/",
        "GIT_CONFIG_GLOBAL": str(tmp_path / "evil"),
        "GIT_CONFIG_SYSTEM": str(tmp_path / "evil"),
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "core.fsmonitor",
        "GIT_CONFIG_VALUE_0": str(trap),
        "GIT_CONFIG_PARAMETERS": f"'core.fsmonitor={trap}'",
        "GIT_SSH_COMMAND": str(trap),
        "GIT_ASKPASS": str(trap),
        "GIT_EXTERNAL_DIFF": str(trap),
        "GIT_TRACE": str(tmp_path / "trace"),
        "GIT_EXEC_PATH": str(tmp_path),
    }
    commit = upstream.commit({"b.ts": "new"})
    for name, value in hostile.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "home-of-tests/.gitconfig").write_text((tmp_path / "evil").read_text())
    snapshot = await reader.open(upstream.url).fetch()
    assert (snapshot.revision.id, snapshot.files["a.ts"].content) == (commit, CODE.encode())
    assert not trap_was_run()
    assert not (tmp_path / "trace").exists()


def test_gits_environment_has_network_settings_and_no_secrets(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    """Authorities, proxy and agent are passed for network access only, and only to the transport that they are for."""
    for name in ("KAPSO_API_KEY", "AWS_SECRET_ACCESS_KEY", "SSH_AUTH_SOCK", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "of the machine")
    network = Network({"https": "http://proxy.example:3128"}, (), "/etc/ours.pem", "/etc/ours", None, "/run/agent")
    git = replace(reader, network=network).git("https://example.com/a/b", "https")
    offline, online = git.environment(), git.environment(network=True)
    over_ssh = replace(reader, network=network).git("git@example.com:a/b", "ssh").environment(network=True)
    assert {name for name in offline if not name.startswith("GIT_")} == {"PATH", "HOME", "LC_ALL"}
    assert (offline["GIT_ALLOW_PROTOCOL"], offline["GIT_TERMINAL_PROMPT"]) == ("https", "0")
    assert offline["HOME"] == str(reader.folder)
    assert (online["GIT_SSL_CAINFO"], online["GIT_SSL_CAPATH"]) == ("/etc/ours.pem", "/etc/ours")
    assert "http://proxy.example:3128" in online.values()
    assert over_ssh["SSH_AUTH_SOCK"] == "/run/agent"
    assert not {"GIT_SSL_CAINFO", "GIT_SSL_CAPATH", "SSH_AUTH_SOCK"} & offline.keys()
    assert "http://proxy.example:3128" not in [*offline.values(), *over_ssh.values()]
    assert not {"SSH_AUTH_SOCK", "HTTPS_PROXY"} & online.keys()
    assert "of the machine" not in [*online.values(), *over_ssh.values()]


async def test_git_may_use_the_sources_transport_only(upstream: Repository, reader: Reader) -> None:
    """A remote that speaks https cannot lead git to a file, an ssh host or a helper."""
    git = reader.git("https://example.com/a/b", "https")
    for other in (upstream.url, "git@example.com:a/b", "ext::sh -c true", "git://127.0.0.1/a"):
        with pytest.raises(GitFailed) as caught:
            await git.run(["ls-remote", "--", other], network=True)
        assert "not allowed" in caught.value.text


async def test_reading_a_repository_leaves_no_process(upstream: Repository, reader: Reader) -> None:
    """Neither running nor as a zombie."""
    source = reader.open(upstream.url)
    before = children()
    for number in range(3):
        upstream.commit({"a.ts": str(number)})
        await source.fetch()
    assert children() <= before


async def test_without_git_the_error_says_what_to_install(
    upstream: Repository, reader: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a slim image without git; there is no traceback."""
    source = reader.open(upstream.url)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="git is not installed") as caught:
        await source.fetch()
    assert "install git" in str(caught.value.hint)


async def test_credentials_in_urls_of_git_output_are_redacted(reader: Reader, tmp_path: Path) -> None:
    """Even where git repeats a URL with a password in it."""
    git = reader.git("https://example.com/a/b", "https")
    with pytest.raises(GitFailed) as caught:
        await git.run(["ls-remote", "https://user:hunter2@example.com/a/b"], network=True)
    assert "example.com" in f"{caught.value!r}"
    assert "hunter2" not in f"{caught.value!r}"


async def test_an_unwritable_state_folder_is_an_error_with_a_hint(upstream: Repository, tmp_path: Path) -> None:
    """For a full or read-only disk; there is no traceback."""
    (tmp_path / "taken").write_text("a file where the folder should be")
    with pytest.raises(StateUnusable, match="taken cannot be written"):
        await Reader(tmp_path / "taken").open(upstream.url).fetch()


async def test_a_mirror_that_cannot_be_created_is_an_error(upstream: Repository, reader: Reader) -> None:
    """The error names the file that is in the way, and nothing that is not ours is removed."""
    reader.folder.mkdir()
    reader.mirror.write_text("a file where the mirror should be")
    with pytest.raises(StateUnusable, match="mirror cannot be used: File exists"):
        await reader.open(upstream.url).fetch()
    assert reader.mirror.is_file()


async def test_a_long_message_of_git_is_scrubbed_before_it_is_shortened(tmp_path: Path) -> None:
    """The middle of a long text is cut out; wherever a password of several words stands, no half of it stays at the cut."""
    password = " ".join(["hunter2"] * 8)
    fake = tmp_path / "bin" / "git"
    fake.parent.mkdir()
    fake.write_text('#!/bin/sh\ncat "$HOME/said" >&2\nexit 128\n', encoding="utf-8")
    fake.chmod(0o755)
    git = Git(
        protocol="https",
        location="https://git.test/flows",
        home=tmp_path,
        credentials=GitCredentials(lambda: password),
        deadline=20,
    )
    seen = set()
    for before, behind in ((0, 2000), (250, 2000), (290, 2000), (1000, 1000), (2000, 250), (2000, 290), (2000, 0)):
        said = f"fatal: {'x ' * (before // 2)}{password} is wrong {'x ' * (behind // 2)}"
        (tmp_path / "said").write_text(said, encoding="utf-8")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PATH", f"{fake.parent}{os.pathsep}{os.environ['PATH']}")
            with pytest.raises(GitFailed) as caught:
                await git.run(["fetch"])
        assert "unter2" not in caught.value.text
        seen.add("[redacted]" in caught.value.text)
    assert seen == {True, False}, "the control: the cut goes through the message as well"
