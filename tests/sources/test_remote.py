"""A remote over the network: credentials stay secret, deadlines hold, and nothing is left behind."""

from __future__ import annotations

import asyncio
import base64
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from kapso_sync.errors import KapsoSyncError, SourceMissing, SourceUnavailable
from kapso_sync.sources import GitCredentials
from tests.sources.repositories import CODE, SECRET, Reader, Repository, command_lines, contents
from tests.sources.servers import GitServer, serving, silence


@pytest.fixture
def server(upstream: Repository, tmp_path: Path) -> Iterator[GitServer]:
    """A server of the upstream repository that asks for a token."""
    with serving(GitServer(tmp_path, password=SECRET)) as seen:
        yield seen


def _with_token(reader: Reader, password: str | None = SECRET, username: str | None = None) -> Reader:
    return replace(reader, credentials=GitCredentials(lambda: password, username))


def _spellings() -> list[bytes]:
    """The token as people and as HTTP write it."""
    pair = f"x-access-token:{SECRET}".encode()
    return [SECRET.encode(), base64.b64encode(pair)]


def _told(error: KapsoSyncError) -> bytes:
    """All that an error says, and what it came from."""
    chain: list[str] = []
    cause: BaseException | None = error
    while cause is not None:
        chain.append(f"{cause!r} {cause} {getattr(cause, 'text', '')} {getattr(cause, 'hint', '')}")
        cause = cause.__cause__ or cause.__context__
    return " ".join(chain).encode()


async def test_the_token_reaches_the_server_and_nothing_else(server: GitServer, reader: Reader) -> None:
    """It is in no command line of any process, in no file of the mirror, and in no snapshot."""
    source = _with_token(reader).open(f"{server.url}/upstream/.git")
    snapshot = await source.fetch()
    assert contents(snapshot)["a.ts"] == CODE.encode()
    assert any(b"git\0" in line and b"fetch" in line for line in server.processes)
    written = [path.read_bytes() for path in reader.folder.rglob("*") if path.is_file()]
    shown = [*server.processes, *written, repr(snapshot).encode(), repr(source).encode(), repr(reader.seen).encode()]
    for secret in _spellings():
        assert not [text for text in shown if secret in text]


async def test_a_changed_git_token_is_used_by_the_next_fetch(server: GitServer, reader: Reader) -> None:
    """A mounted token that is rotated needs no restart; the wrong one is refused with a hint."""
    current = ["old"]
    source = replace(reader, credentials=GitCredentials(lambda: current[0])).open(f"{server.url}/upstream/.git")
    with pytest.raises(SourceUnavailable, match="refuses us") as caught:
        await source.fetch()
    assert "KAPSO_SYNC_GIT_TOKEN" in str(caught.value.hint)
    current[0] = SECRET
    assert contents(await source.fetch())["a.ts"] == CODE.encode()


async def test_a_user_name_goes_with_the_token(server: GitServer, reader: Reader) -> None:
    """Some servers want the name that belongs to the token."""
    server.username = "deploy"
    snapshot = await _with_token(reader, username="deploy").open(f"{server.url}/upstream/.git").fetch()
    assert contents(snapshot)["a.ts"] == CODE.encode()


async def test_git_never_prompts_for_credentials(server: GitServer, reader: Reader) -> None:
    """No prompt, no helper: a server that wants credentials refuses us at once."""
    with pytest.raises(SourceUnavailable, match="refuses us"):
        await reader.open(f"{server.url}/upstream/.git").fetch()
    assert set(server.authorizations) == {None}


async def test_a_repository_that_is_not_there_is_missing(server: GitServer, reader: Reader) -> None:
    """404 is no outage: the URL or the token's rights are wrong."""
    with pytest.raises(SourceMissing, match="is not a repository that we can read"):
        await _with_token(reader).open(f"{server.url}/absent.git").fetch()


async def test_a_redirect_is_not_followed(server: GitServer, reader: Reader, tmp_path: Path) -> None:
    """The token is for the host that was configured, and for no other."""
    with serving(GitServer(tmp_path, redirect=server.url)) as other:
        with pytest.raises(SourceUnavailable):
            await _with_token(reader).open(f"{other.url}/upstream/.git").fetch()
        assert other.authorizations
    assert server.authorizations == []


async def test_an_error_that_quotes_the_token_is_redacted(server: GitServer, reader: Reader) -> None:
    """Whatever a server or git says, the token is not repeated."""
    server.status = 500
    with pytest.raises(SourceUnavailable, match="cannot be fetched") as caught:
        await _with_token(reader).open(f"{server.url}/{SECRET}.git").fetch()
    assert b"[redacted]" in _told(caught.value)
    told = _told(caught.value).replace(f"{server.url}/{SECRET}.git".encode(), b"")  # the location is no secret
    assert not [secret for secret in _spellings() if secret in told]


async def test_a_server_that_is_down_is_unavailable(reader: Reader) -> None:
    """Nobody listens: the error names the remote."""
    with silence() as (host, port):
        pass
    with pytest.raises(SourceUnavailable, match=f"127.0.0.1:{port}/flows cannot be fetched"):
        await reader.open(f"http://{host}:{port}/flows").fetch()


async def test_a_silent_git_server_times_out(reader: Reader) -> None:
    """Git and its helpers are gone when the error is raised."""
    with silence() as (host, port):
        start = time.monotonic()
        with pytest.raises(SourceUnavailable, match=r"did not end within 0\.3 s"):
            await replace(reader, deadline=0.3).open(f"http://{host}:{port}/flows").fetch()
        assert time.monotonic() - start < 5
        assert not [line for line in command_lines() if str(port).encode() in line]


async def test_a_cancelled_fetch_leaves_no_process(reader: Reader) -> None:
    """SIGTERM during a fetch ends git, too."""
    with silence() as (host, port):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.open(f"http://{host}:{port}/flows").fetch(), 0.3)
        assert not [line for line in command_lines() if str(port).encode() in line]


def _program(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


async def test_a_helper_that_outlives_git_is_ended(reader: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A git that is gone while its helper hangs on is no end: the deadline takes the whole group."""
    mark = f"4711.{os.getpid()}"
    _program(tmp_path / "bin", "git", f"sleep {mark} &\nexit 0")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    with pytest.raises(SourceUnavailable, match="did not end"):
        await replace(reader, deadline=0.3).git("https://example.com/a/b").run(["version"])
    assert not [line for line in command_lines() if mark.encode() in line]


@pytest.mark.parametrize("location", ["git@git.example.com:{path}", "ssh://git@git.example.com:2222{path}"])
async def test_ssh_is_strict_and_uses_our_key_only(
    location: str, upstream: Repository, reader: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No question, no unknown host, no configuration of the machine, no other key; both spellings read."""
    log = tmp_path / "ssh.log"
    _program(tmp_path / "bin", "ssh", f'echo "$@" >> {log}\nfor last; do :; done\nunset GIT_CONFIG_COUNT\neval "$last"')
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    keys = GitCredentials(ssh_key_file=tmp_path / "the key", known_hosts_file=tmp_path / "known_hosts")
    source = replace(reader, credentials=keys).open(location.format(path=upstream.folder))
    assert contents(await source.fetch())["a.ts"] == CODE.encode()
    said = log.read_text()
    for option in ("-F /dev/null", "BatchMode=yes", "StrictHostKeyChecking=yes", "IdentitiesOnly=yes"):
        assert option in said
    assert f"-i {tmp_path / 'the key'}" in said
    assert f"UserKnownHostsFile={tmp_path / 'known_hosts'}" in said


async def test_a_refused_ssh_key_is_an_error(reader: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hint names the settings; no token is offered to ssh."""
    _program(tmp_path / "bin", "ssh", 'echo "git@git.example.com: Permission denied (publickey)." >&2\nexit 255')
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    with pytest.raises(SourceUnavailable, match="refuses us") as caught:
        await _with_token(reader).open("git@git.example.com:acme/flows.git").fetch()
    assert "KAPSO_SYNC_GIT_SSH_KEY_FILE" in str(caught.value.hint)
    environment = _with_token(reader).git("git@git.example.com:acme/flows.git", "ssh").environment(network=True)
    assert not [value for value in environment.values() if "Authorization" in value]
