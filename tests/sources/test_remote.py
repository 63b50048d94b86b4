"""A remote over the network: credentials stay secret, timeouts hold, and no process is left."""

from __future__ import annotations

import asyncio
import base64
import itertools
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from kapso_sync.errors import KapsoSyncError, SourceDenied, SourceMissing, SourceUnavailable
from kapso_sync.model.events import SourceMoved
from kapso_sync.sources.command import GitCredentials
from kapso_sync.sources.git import DENIED_BACKOFF
from kapso_sync.sources.redirects import MAX_REDIRECTS
from tests.sources.repositories import CODE, SECRET, Reader, Repository, command_lines, contents
from tests.sources.servers import GitServer, serving, unresponsive_server


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


async def test_the_git_token_is_sent_to_the_server_only(server: GitServer, reader: Reader) -> None:
    """It is in no command line of any process, in no file of the mirror, and in no snapshot."""
    source = _with_token(reader).open(f"{server.url}/upstream/.git")
    snapshot = await source.fetch()
    assert contents(snapshot)["a.ts"] == CODE.encode()
    assert any(b"git\0" in line and b"fetch" in line for line in server.processes)
    written = [path.read_bytes() for path in reader.folder.rglob("*") if path.is_file()]
    shown = [*server.processes, *written, repr(snapshot).encode(), repr(source).encode(), repr(reader.seen).encode()]
    for secret in _spellings():
        assert not [text for text in shown if secret in text]
    received = " ".join(value or "" for value in server.authorizations).encode()
    assert [secret for secret in _spellings() if secret in received]


async def test_a_rotated_git_token_is_used_by_the_next_fetch(server: GitServer, reader: Reader) -> None:
    """A mounted token needs no restart; a wrong one is refused with a hint."""
    current = ["old"]
    source = replace(reader, credentials=GitCredentials(lambda: current[0])).open(f"{server.url}/upstream/.git")
    with pytest.raises(SourceUnavailable, match="refuses us") as caught:
        await source.fetch()
    assert "KAPSO_SYNC_GIT_TOKEN" in str(caught.value.hint)
    current[0] = SECRET
    assert contents(await source.fetch())["a.ts"] == CODE.encode()


async def test_a_configured_user_name_is_sent_with_the_git_token(server: GitServer, reader: Reader) -> None:
    """Some servers need the name that belongs to the token."""
    server.username = "deploy"
    snapshot = await _with_token(reader, username="deploy").open(f"{server.url}/upstream/.git").fetch()
    assert contents(snapshot)["a.ts"] == CODE.encode()


async def test_without_a_git_token_there_is_no_prompt(server: GitServer, reader: Reader) -> None:
    """And no credential helper: a server that wants credentials refuses the fetch at once."""
    with pytest.raises(SourceUnavailable, match="refuses us"):
        await reader.open(f"{server.url}/upstream/.git").fetch()
    assert set(server.authorizations) == {None}


async def test_a_404_of_a_git_server_is_a_missing_repository(server: GitServer, reader: Reader) -> None:
    """It is not an outage: the URL or the token's rights are wrong."""
    with pytest.raises(SourceMissing, match="is not a repository that we can read"):
        await _with_token(reader).open(f"{server.url}/absent.git").fetch()


@pytest.mark.parametrize(
    ("listing", "error", "message", "hint"),
    [
        ("<html>\nSign in\n</html>\n", SourceMissing, "is not a repository that we can read", "page to sign in"),
        (None, SourceUnavailable, "is served as plain files", "git http-backend"),
    ],
    ids=["page", "dumb"],
)
async def test_what_answers_and_is_no_git_server_is_named_as_what_it_is(
    listing: str | None, error: type[KapsoSyncError], message: str, hint: str, upstream: Repository, reader: Reader
) -> None:
    """A page with status 200, and a repository on a web server without git; neither is worth another try."""
    folder = upstream.folder / ".git"
    upstream.git("update-server-info")
    if listing is not None:
        (folder / "info" / "refs").write_text(listing)
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as plain:
        thread = threading.Thread(target=partial(plain.serve_forever, poll_interval=0.01))
        thread.start()
        try:
            with pytest.raises(error, match=message) as caught:
                await reader.open(f"http://127.0.0.1:{plain.server_port}").fetch()
        finally:
            plain.shutdown()
            thread.join()
    assert hint in str(caught.value.hint)
    assert "again" not in str(caught.value.hint)


async def test_a_redirect_of_a_git_server_is_not_followed(server: GitServer, reader: Reader, tmp_path: Path) -> None:
    """The token is for the configured host and port only; the error says where it would go, and does not promise a retry."""
    with serving(GitServer(tmp_path, redirect=server.url)) as other:
        with pytest.raises(
            SourceUnavailable, match=f"redirects to another port or scheme, {server.url}/upstream/.git"
        ) as caught:
            await _with_token(reader).open(f"{other.url}/upstream/.git").fetch()
        assert other.authorizations
    assert server.authorizations == []
    assert "again" not in str(caught.value.hint)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_on_the_same_host_is_followed_and_reported_once(
    status: int, server: GitServer, upstream: Repository, reader: Reader
) -> None:
    """A renamed repository, or one that is named without .git; credentials go along, since the host is the same."""
    server.moved, server.moved_status = {"/acme/before": "/acme/between", "/acme/between": "/upstream/.git"}, status
    source = _with_token(reader).open(f"{server.url}/acme/before")
    assert contents(await source.fetch())["a.ts"] == CODE.encode()
    upstream.commit({"a.ts": "new"})
    server.paths.clear()
    snapshot = await source.fetch()
    assert (contents(snapshot)["a.ts"], snapshot.source) == (b"new", f"{server.url}/acme/before")
    moved = [event for event in reader.seen if isinstance(event, SourceMoved)]
    assert [(event.source, event.moved_to) for event in moved] == [(f"{server.url}/acme/before", f"{server.url}/upstream/.git")]
    assert {path.partition("/.git")[0] for path in server.paths} == {"/upstream"}


async def test_an_absolute_redirect_to_ourselves_is_followed(server: GitServer, reader: Reader) -> None:
    """Servers write the whole URL, or the path alone."""
    server.moved = {"/acme/flows": f"{server.url}/upstream/.git"}
    assert contents(await _with_token(reader).open(f"{server.url}/acme/flows").fetch())["a.ts"] == CODE.encode()


async def test_a_repository_that_moves_back_is_found_again(server: GitServer, reader: Reader) -> None:
    """Where the new address fails, the next fetch asks at the configured one."""
    server.moved = {"/upstream/.git": "/gone"}
    source = _with_token(reader).open(f"{server.url}/upstream/.git")
    with pytest.raises(SourceMissing):
        await source.fetch()
    server.moved = {}
    with pytest.raises(SourceMissing):
        await source.fetch()
    assert contents(await source.fetch())["a.ts"] == CODE.encode()


@pytest.mark.parametrize(
    ("moved", "message"),
    [
        ({"/a": "/a/a"}, "redirects more than 5 times"),
        ({"/a": "http://[::1"}, "redirects, and not to a repository"),
        ({"/a": "http://127.0.0.1:99999"}, "redirects, and not to a repository"),
        ({"/a": "/b\x1b[31m"}, "redirects, and not to a repository"),
        ({"/a": "/users/sign_in?from="}, "redirects to a page, /users/sign_in, and not to a repository"),
        ({"/a": "https://127.0.0.1:1"}, "redirects to another port or scheme, https://127.0.0.1:1"),
        ({"/a": "https://user:hunter22@git.acme.example"}, "redirects to another host, https://git.acme.example"),
    ],
)
async def test_a_redirect_that_leads_nowhere_is_an_error(
    moved: dict[str, str], message: str, server: GitServer, reader: Reader
) -> None:
    """A loop, no address, a page to sign in, another scheme, another host; what the address holds beside is not shown.

    Nothing of that ends by itself, and the hint does not say so.
    """
    server.moved = moved
    with pytest.raises(SourceUnavailable) as caught:
        await _with_token(reader).open(f"{server.url}/a").fetch()
    assert message in caught.value.message
    assert "again" not in str(caught.value.hint)
    assert b"hunter22" not in _told(caught.value)


async def test_as_many_redirects_as_are_allowed_are_followed(server: GitServer, reader: Reader) -> None:
    """And not one more."""
    steps = [*(f"/{number}" for number in range(MAX_REDIRECTS)), "/upstream/.git"]
    server.moved = dict(itertools.pairwise(steps))
    assert contents(await _with_token(reader).open(f"{server.url}/0").fetch())["a.ts"] == CODE.encode()
    server.moved["/one-more"] = "/0"
    with pytest.raises(SourceUnavailable, match=f"redirects more than {MAX_REDIRECTS} times"):
        await _with_token(reader).open(f"{server.url}/one-more").fetch()


@pytest.mark.parametrize("status", [300, 304, 302])
async def test_a_redirect_without_an_address_is_said_as_such(status: int, server: GitServer, reader: Reader) -> None:
    """Asking again does not help, and the hint does not say so."""
    server.status = status
    with pytest.raises(SourceUnavailable, match="redirects") as caught:
        await _with_token(reader).open(f"{server.url}/upstream/.git").fetch()
    assert "again" not in str(caught.value.hint)


async def test_a_remote_that_refuses_us_is_asked_again_after_a_growing_delay(server: GitServer, reader: Reader) -> None:
    """A forge locks out an address that knocks each minute with a revoked key; the error stays the same meanwhile."""
    now, password = [0.0], ["revoked"]
    source = replace(reader, credentials=GitCredentials(lambda: password[0]), monotonic=lambda: now[0]).open(
        f"{server.url}/upstream/.git"
    )
    asked = []
    for now[0] in range(0, 3600, 5):
        before = len(server.authorizations)
        with pytest.raises(SourceDenied, match="refuses us"):
            await source.moved()
        if len(server.authorizations) > before:
            asked.append(now[0])
    assert asked == [0, 30, 90, 210, 450, 930, 1530, 2130, 2730, 3330]
    password[0] = SECRET
    assert contents(await source.fetch())["a.ts"] == CODE.encode()
    password[0] = "revoked again"
    with pytest.raises(SourceDenied):
        await source.moved()
    now[0] += DENIED_BACKOFF.initial
    password[0] = SECRET
    assert await source.moved() is False


async def test_a_token_that_is_replaced_while_the_remote_refuses_the_old_one_is_tried_at_once(
    server: GitServer, reader: Reader
) -> None:
    """What was refused is what was offered, and not what the file holds when the answer comes."""
    tokens = iter(("revoked", "revoked"))
    credentials = GitCredentials(lambda: next(tokens, SECRET))
    source = replace(reader, credentials=credentials, monotonic=lambda: 0.0).open(f"{server.url}/upstream/.git")
    with pytest.raises(SourceDenied):
        await source.moved()
    assert contents(await source.fetch())["a.ts"] == CODE.encode()


async def test_a_slow_transfer_ends_at_the_git_timeout_and_names_it(server: GitServer, reader: Reader) -> None:
    """What ends it is `git fetch`, and a setting gives it more time."""
    assert contents(await _with_token(reader).open(f"{server.url}/upstream/.git").fetch())
    server.stalls.clear()
    try:
        slow = replace(_with_token(reader), deadline=2.0, folder=reader.folder / "slow")
        with pytest.raises(SourceUnavailable, match=r"git fetch did not end within 2 s") as caught:
            await slow.open(f"{server.url}/upstream/.git").fetch()
    finally:
        server.stalls.set()
    assert "KAPSO_SYNC_GIT_TIMEOUT" in str(caught.value.hint)


async def test_a_git_token_quoted_in_an_error_is_redacted(server: GitServer, reader: Reader) -> None:
    """Whatever a server or git prints."""
    server.status = 500
    with pytest.raises(SourceUnavailable, match="cannot be fetched") as caught:
        await _with_token(reader).open(f"{server.url}/{SECRET}.git").fetch()
    assert b"[redacted]" in _told(caught.value)
    told = _told(caught.value).replace(f"{server.url}/{SECRET}.git".encode(), b"")  # the location is no secret
    assert not [secret for secret in _spellings() if secret in told]


async def test_a_git_server_that_is_down_is_unavailable(reader: Reader) -> None:
    """The error names the remote."""
    with unresponsive_server() as (host, port):
        pass
    with pytest.raises(SourceUnavailable, match=f"127.0.0.1:{port}/flows cannot be fetched"):
        await reader.open(f"http://{host}:{port}/flows").fetch()


@pytest.mark.parametrize("name", ["socks-shop", "404", "403", "access denied", "no%20space%20left%20on%20device"])
async def test_the_name_of_a_repository_is_no_reason_of_a_failure(name: str, reader: Reader) -> None:
    """What git says is judged, and not the address that it repeats."""
    with unresponsive_server() as (host, port):
        pass
    with pytest.raises(SourceUnavailable, match="cannot be fetched") as caught:
        await reader.open(f"http://{host}:{port}/acme/{name}").fetch()
    assert not isinstance(caught.value, SourceDenied)
    assert "again" in str(caught.value.hint)


async def test_an_unresponsive_git_server_reaches_the_fetch_timeout(reader: Reader) -> None:
    """Git and its helpers have ended when the error is raised."""
    with unresponsive_server() as (host, port):
        start = time.monotonic()
        with pytest.raises(SourceUnavailable, match=r"did not end within 0\.3 s"):
            await replace(reader, deadline=0.3).open(f"http://{host}:{port}/flows").fetch()
        assert time.monotonic() - start < 5
        assert not [line for line in command_lines() if str(port).encode() in line]


async def test_a_cancelled_fetch_leaves_no_process(reader: Reader) -> None:
    """SIGTERM during a fetch ends git, too."""
    with unresponsive_server() as (host, port):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.open(f"http://{host}:{port}/flows").fetch(), 0.3)
        assert not [line for line in command_lines() if str(port).encode() in line]


def _program(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


async def test_a_git_helper_that_outlives_git_is_killed_at_the_timeout(
    reader: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The timeout kills the whole process group, with those that ignore that git has ended."""
    mark = f"4711.{os.getpid()}"
    _program(tmp_path / "bin", "git", f"trap '' TERM\nsleep {mark} &\nexit 0")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    with pytest.raises(SourceUnavailable, match="did not end"):
        await replace(reader, deadline=0.3).git("https://example.com/a/b").run(["version"])
    assert not [line for line in command_lines() if mark.encode() in line]


@pytest.mark.parametrize("location", ["git@git.example.com:{path}", "ssh://git@git.example.com:2222{path}"])
async def test_ssh_checks_the_host_key_and_uses_our_key_only(
    location: str, upstream: Repository, reader: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No prompt, no unknown host, no configuration of the machine, no other key; for both URL spellings."""
    log = tmp_path / "ssh.log"
    _program(tmp_path / "bin", "ssh", f'echo "$@" >> {log}\nfor last; do :; done\nunset GIT_CONFIG_COUNT\neval "$last"')
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)  # ssh runs in another folder, splits options at blanks, and reads `%h` as the host
    keys = GitCredentials(ssh_key_file=Path("the key"), known_hosts_file=Path("100%h"))
    source = replace(reader, credentials=keys).open(location.format(path=upstream.folder))
    assert contents(await source.fetch())["a.ts"] == CODE.encode()
    said = log.read_text()
    for option in ("-F /dev/null", "BatchMode=yes", "StrictHostKeyChecking=yes", "IdentitiesOnly=yes"):
        assert option in said
    assert f'IdentityFile="{tmp_path}/the key"' in said
    assert f'UserKnownHostsFile="{tmp_path}/100%%h"' in said


async def test_a_failure_that_lasts_has_the_same_words_each_time(
    reader: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a log has a new error each minute: how long it took, and how many bytes came, differ from one time to the next."""
    said = (
        "Failed to connect to git.example.com port 443 after $$ ms: Couldn't connect to server",
        "Operation timed out after $$ milliseconds with $$ out of $$$$ bytes received",
        "transfer closed with $$ bytes remaining to read",
        "error: $$ bytes of body are still expected",
    )
    _program(tmp_path / "bin", "ssh", "".join(f'echo "{line}" >&2\n' for line in said) + "exit 255")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    messages = set()
    for _ in range(2):
        with pytest.raises(SourceUnavailable) as caught:
            await reader.open("git@git.example.com:acme/flows.git").fetch()
        messages.add(caught.value.message)
    (message,) = messages
    for kept in ("port 443: Couldn't connect to server", "Operation timed out", "transfer closed"):
        assert kept in message


async def test_a_refused_ssh_key_is_an_error_with_a_hint(
    reader: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hint names the settings; the token is not used with ssh."""
    _program(tmp_path / "bin", "ssh", 'echo "git@git.example.com: Permission denied (publickey)." >&2\nexit 255')
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    with pytest.raises(SourceUnavailable, match="refuses us") as caught:
        await _with_token(reader).open("git@git.example.com:acme/flows.git").fetch()
    assert "KAPSO_SYNC_GIT_SSH_KEY_FILE" in str(caught.value.hint)
    environment = _with_token(reader).git("git@git.example.com:acme/flows.git", "ssh").environment(network=True)
    assert not [value for value in environment.values() if "Authorization" in value]
