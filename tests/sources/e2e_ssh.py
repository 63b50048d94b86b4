"""Sources over a real sshd on loopback, with real keys and a real ssh-agent: `make network-test`, no part of `make check`."""

from __future__ import annotations

import contextlib
import getpass
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from kapso_sync.errors import SourceDenied
from kapso_sync.network import Network
from kapso_sync.sources.command import GitCredentials
from tests.sources.repositories import CODE, MANIFEST, Reader, Repository, contents

PASSPHRASE = "correct horse battery"
SSHD = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")


def keygen(path: Path, passphrase: str = "") -> Path:
    """Make a key pair, and return the private one."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-f", path], check=True, capture_output=True)
    return path


@dataclass
class SshServer:
    """An sshd of the test's own for the user that runs it."""

    folder: Path
    port: int

    @property
    def url(self) -> str:
        """The repository upstream."""
        return f"ssh://{getpass.getuser()}@127.0.0.1:{self.port}{self.folder}/upstream"

    @property
    def known_hosts(self) -> Path:
        return self.folder / "known_hosts"

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def authorize(self, *keys: Path) -> None:
        """Let these keys in, and no other."""
        (self.folder / "authorized").write_text("".join(key.with_suffix(".pub").read_text() for key in keys))

    def know(self, key: Path) -> None:
        """Have this key in the known hosts, as the server's."""
        kind, body = key.with_suffix(".pub").read_text().split()[:2]
        self.known_hosts.write_text(f"[127.0.0.1]:{self.port} {kind} {body}\n")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[SshServer]:
    if SSHD is None:
        pytest.skip("sshd is not installed: apt-get install openssh-server")
    folder = tmp_path / "sshd"
    folder.mkdir()
    Repository(folder / "upstream").commit({"manifest.yaml": MANIFEST, "a.ts": CODE}, "First")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    made = SshServer(folder, port)
    made.know(keygen(folder / "host"))
    made.authorize(keygen(folder / "client"))
    options = {
        "Port": port,
        "ListenAddress": "127.0.0.1",
        "HostKey": folder / "host",
        "AuthorizedKeysFile": folder / "authorized",
        "PidFile": folder / "pid",
        "StrictModes": "no",
        "UsePAM": "no",
        "PasswordAuthentication": "no",
        "KbdInteractiveAuthentication": "no",
        "LogLevel": "VERBOSE",
        "PermitRootLogin": "prohibit-password",
    }
    (folder / "config").write_text("".join(f"{name} {value}\n" for name, value in options.items()))
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # its privilege separation wants the folder, which a container lacks
    process = subprocess.Popen([SSHD, "-D", "-f", folder / "config", "-E", folder / "log"])
    try:
        until = time.monotonic() + 10
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            assert process.poll() is None, made.log
            assert time.monotonic() < until, made.log
            time.sleep(0.02)
        yield made
    finally:
        process.terminate()
        process.wait(20)


def reading(reader: Reader, server: SshServer, key: Path | None, agent: str | None = None) -> Reader:
    """A reader with this key and this agent."""
    credentials = GitCredentials(ssh_key_file=key, known_hosts_file=server.known_hosts)
    return replace(reader, credentials=credentials, network=Network(ssh_agent=agent))


async def denial(reader: Reader, server: SshServer, key: Path | None) -> SourceDenied:
    """The error of a fetch that the key does not allow."""
    with pytest.raises(SourceDenied) as caught:
        await reading(reader, server, key).open(server.url).fetch()
    return caught.value


@contextlib.contextmanager
def agent_with(key: Path, folder: Path, passphrase: str = "") -> Iterator[str]:
    """Run an ssh-agent that holds a key; yields its socket."""
    path = str(folder / "agent")
    process = subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL)
    ask = folder / "askpass"
    ask.write_text(f"#!/bin/sh\necho '{passphrase}'\n")
    ask.chmod(0o700)
    environment = {**os.environ, "SSH_AUTH_SOCK": path, "SSH_ASKPASS": str(ask), "SSH_ASKPASS_REQUIRE": "force", "DISPLAY": ":"}
    try:
        until = time.monotonic() + 10
        while not Path(path).exists():
            assert time.monotonic() < until
            time.sleep(0.02)
        subprocess.run(["ssh-add", "-q", key], env=environment, check=True, capture_output=True)
        yield path
    finally:
        process.terminate()
        process.wait(20)


@pytest.mark.parametrize("scheme", ["ssh", "git+ssh", "ssh+git"])
async def test_a_key_file_reads_a_repository_over_ssh(scheme: str, server: SshServer, reader: Reader) -> None:
    """Under each name of the transport."""
    source = reading(reader, server, server.folder / "client").open(server.url.replace("ssh://", f"{scheme}://"))
    assert contents(await source.fetch())["a.ts"] == CODE.encode()


async def test_an_agent_reads_a_repository_over_ssh(server: SshServer, reader: Reader, tmp_path: Path) -> None:
    """Without a key file; and without the agent nobody gets in."""
    key = server.folder / "client"
    with agent_with(key, tmp_path) as agent:
        key.unlink()
        assert contents(await reading(reader, server, None, agent).open(server.url).fetch())["a.ts"] == CODE.encode()
    assert "refuses us" in (await denial(reader, server, None)).message


async def test_a_key_with_a_passphrase_is_named_as_such_and_works_from_an_agent(
    server: SshServer, reader: Reader, tmp_path: Path
) -> None:
    """Nobody is there to type it."""
    key = keygen(server.folder / "locked", PASSPHRASE)
    server.authorize(key)
    error = await denial(reader, server, key)
    assert f"{key} has a passphrase" in error.message
    assert "ssh-agent" in str(error.hint)
    with agent_with(key, tmp_path, PASSPHRASE) as agent:
        assert contents(await reading(reader, server, key, agent).open(server.url).fetch())["a.ts"] == CODE.encode()


@pytest.mark.parametrize(
    ("damage", "message", "hint"),
    [
        ("no final newline", "has no line break at its end", "echo >>"),
        ("mark", "begins with a byte order mark", "save it"),
        ("windows", "has Windows line ends", "sed -i"),
        ("public", "is not a private key", "without .pub"),
        ("mode", "may be read by others", "chmod 600"),
        ("torn", "cannot be read by ssh", "ssh-keygen -y"),
        ("byte order mark", "begins with a byte order mark", "sed -i"),
        ("PuTTY", "is a key of PuTTY", "puttygen"),
        ("missing", "cannot be read: No such file or directory", "mount"),
    ],
)
async def test_a_key_file_that_ssh_cannot_use_is_an_error_of_its_own(
    damage: str, message: str, hint: str, server: SshServer, reader: Reader
) -> None:
    """What is wrong with the file is said, and what to do; the file as it was is let in."""
    key = server.folder / "client"
    whole = key.read_text()
    assert (await reading(reader, server, key).open(server.url).fetch()).files
    lines = whole.splitlines(keepends=True)
    match damage:
        case "no final newline":
            key.write_text(whole.removesuffix("\n"))
        case "mark":
            key.write_text(f"\ufeff{whole}")
        case "windows":
            key.write_bytes(whole.replace("\n", "\r\n").encode())
        case "public":
            key.write_text(key.with_suffix(".pub").read_text())
        case "torn":
            key.write_text("".join(lines[:2] + lines[3:]))
        case "byte order mark":
            key.write_bytes(b"\xef\xbb\xbf" + whole.encode())
        case "PuTTY":
            key.write_text("PuTTY-User-Key-File-3: ssh-ed25519\n")
        case "missing":
            key.unlink()
        case _:
            key.chmod(0o644)
    error = await denial(replace(reader, folder=reader.folder / "again"), server, key)
    assert message in error.message
    assert hint in str(error.hint)
    assert not any(line.strip() in error.message for line in lines[1:-1])


async def test_a_changed_host_key_is_said_in_whole_words(server: SshServer, reader: Reader) -> None:
    """Somebody may be in between: the first line of ssh's warning, without its frame, and a hint of its own."""
    server.know(keygen(server.folder / "former"))
    error = await denial(reader, server, server.folder / "client")
    assert "shows another host key than the known one: WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!" in error.message
    assert "@@" not in error.message
    assert re.search(r"(\w+|[.!?])$", error.message)
    assert "ssh-keyscan" in str(error.hint)
    assert "Accepted publickey" not in server.log


async def test_an_unknown_host_key_has_a_hint_of_its_own(server: SshServer, reader: Reader) -> None:
    """No host is trusted because it answers first."""
    server.known_hosts.write_text("")
    error = await denial(reader, server, server.folder / "client")
    assert "shows a host key that is not known" in error.message
    assert "KAPSO_SYNC_GIT_KNOWN_HOSTS_FILE" in str(error.hint)


async def test_a_revoked_host_key_is_not_called_unknown(server: SshServer, reader: Reader) -> None:
    """The hint does not lead anybody to trust it again."""
    server.known_hosts.write_text(f"@revoked {server.known_hosts.read_text()}")
    error = await denial(reader, server, server.folder / "client")
    assert "shows a host key that is marked as revoked" in error.message
    assert "ssh-keyscan" not in str(error.hint)


async def test_known_hosts_that_are_not_there_are_said_as_such(server: SshServer, reader: Reader) -> None:
    """To ssh a missing file is an empty one."""
    server.known_hosts.unlink()
    error = await denial(reader, server, server.folder / "client")
    assert f"KAPSO_SYNC_GIT_KNOWN_HOSTS_FILE {server.known_hosts} cannot be read" in error.message


async def test_odd_paths_of_key_and_known_hosts_work(
    server: SshServer, reader: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Relative ones, with blanks, quotes and what ssh replaces by the host's name."""
    odd = tmp_path / 'my "keys" 100%h'
    server.folder.rename(odd)
    server.folder.symlink_to(odd)
    for name, folder in (("relative", Path()), ("absolute", odd)):
        monkeypatch.chdir(odd)
        credentials = GitCredentials(ssh_key_file=folder / "client", known_hosts_file=folder / "known_hosts")
        source = replace(reader, credentials=credentials, folder=reader.folder / name).open(server.url)
        assert contents(await source.fetch())["a.ts"] == CODE.encode()


async def test_a_revoked_key_knocks_less_and_less(server: SshServer, reader: Reader) -> None:
    """Sshd locks out who fails too often; a new key file is tried at once."""
    now = [0.0]
    key = server.folder / "client"
    source = replace(reading(reader, server, key), monotonic=lambda: now[0]).open(server.url)
    await source.fetch()
    server.authorize()
    before = server.log.count("Connection from")
    for now[0] in range(0, 600, 20):
        with pytest.raises(SourceDenied):
            await source.moved()
    assert server.log.count("Connection from") - before == 5
    fresh = keygen(server.folder / "fresh")
    server.authorize(fresh)
    key.with_suffix(".pub").unlink()  # ssh would offer this one, whatever the private key is
    shutil.copy(fresh, key)
    assert await source.moved() is False
