"""People who sign commits and tags: with keys of OpenSSH, and of GnuPG where it is installed."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.sources.repositories import Repository

HAS_GPG = shutil.which("gpg") is not None and shutil.which("gpgv") is not None


def run(*command: str | Path, stdin: bytes | None = None, environment: dict[str, str] | None = None) -> bytes:
    done = subprocess.run(
        [str(word) for word in command], check=True, capture_output=True, input=stdin, env={**os.environ, **(environment or {})}
    )
    return done.stdout


@dataclass(frozen=True)
class SshSigner:
    """A person with an ssh key, and what git's configuration has to say so that they sign by it."""

    name: str
    key: Path

    @classmethod
    def make(cls, folder: Path, name: str, kind: str = "ed25519") -> SshSigner:
        folder.mkdir(parents=True, exist_ok=True)
        key = folder / name
        run("ssh-keygen", "-q", "-t", kind, "-N", "", "-C", name, "-f", key)
        return cls(name, key)

    @property
    def public(self) -> str:
        """Kind and key, as they stand in allowed signers."""
        return " ".join(self.key.with_suffix(".pub").read_text().split()[:2])

    @property
    def fingerprint(self) -> str:
        return run("ssh-keygen", "-l", "-f", self.key.with_suffix(".pub")).decode().split()[1]

    def line(self, options: str = "") -> str:
        """A line of allowed signers."""
        return f"{self.name}@example.com {options} {self.public}\n"

    def sign(self, content: bytes, namespace: str = "git", key: Path | None = None) -> bytes:
        return run("ssh-keygen", "-q", "-Y", "sign", "-n", namespace, "-f", key or self.key, stdin=content)

    def certificate(self, authority: SshSigner, validity: str = "+1d") -> SshSigner:
        """The same key with a certificate, by which it signs from now on."""
        public = self.key.with_suffix(".pub")
        run("ssh-keygen", "-q", "-s", authority.key, "-I", "id", "-n", f"{self.name}@example.com", "-V", validity, public)
        return SshSigner(self.name, self.key.with_name(f"{self.name}-cert.pub"))

    @property
    def settings(self) -> tuple[str, ...]:
        """Arguments of git, before the command."""
        return ("-c", "gpg.format=ssh", "-c", f"user.signingKey={self.key}")


@dataclass(frozen=True)
class GpgHome:
    """A home of GnuPG, and who has keys in it."""

    folder: Path

    def gpg(self, *arguments: str, stdin: bytes | None = None) -> bytes:
        quiet = ("--batch", "--quiet", "--no-tty", "--pinentry-mode", "loopback", "--passphrase", "")
        return run("gpg", "--homedir", self.folder, *quiet, *arguments, stdin=stdin)

    def make(self, name: str, *, usage: str = "sign", expires: str = "never") -> str:
        """Make a key, and return its fingerprint."""
        self.gpg("--quick-generate-key", f"{name} <{name}@example.com>", "ed25519", usage, expires)
        return self.fingerprints(name)[0]

    def fingerprints(self, name: str) -> list[str]:
        """Of the key, then of its subkeys."""
        lines = self.gpg("--list-keys", "--with-colons", name).decode().splitlines()
        return [line.split(":")[9] for line in lines if line.startswith("fpr")]

    def add_subkey(self, fingerprint: str, expires: str = "never") -> None:
        self.gpg("--quick-add-key", fingerprint, "ed25519", "sign", expires)

    def revoke(self, fingerprint: str) -> None:
        certificate = (self.folder / "openpgp-revocs.d" / f"{fingerprint}.rev").read_bytes()
        self.gpg("--import", stdin=certificate.replace(b":-----", b"-----"))

    def export(self, *names: str, armor: bool = True) -> bytes:
        return self.gpg(*(["--armor"] if armor else []), "--export", *names)

    def sign(self, name: str, content: bytes, *options: str) -> bytes:
        return self.gpg("--local-user", name, *options, "--detach-sign", "--armor", stdin=content)

    @property
    def environment(self) -> dict[str, str]:
        return {"GNUPGHOME": str(self.folder)}


@contextlib.contextmanager
def gpg_home() -> Iterator[GpgHome]:
    """A home with a short path, since the agent's socket lies in it; the agent has ended when the block ends."""
    with tempfile.TemporaryDirectory(prefix="gpg", ignore_cleanup_errors=True) as name:
        home = GpgHome(Path(name))
        try:
            yield home
        finally:
            run("gpgconf", "--homedir", home.folder, "--kill", "all")


def store(repository: Repository, kind: str, raw: bytes) -> str:
    """Store an object of any content, and return its id."""
    return repository.git("hash-object", "-t", kind, "-w", "--literally", "--stdin", stdin=raw)


def raw_object(repository: Repository, kind: str, object_id: str) -> bytes:
    return run("git", "-C", repository.folder, "cat-file", kind, object_id)


def with_signature(commit: bytes, signature: bytes, header: bytes = b"gpgsig") -> bytes:
    """Return a commit object with a signature in its header, as git writes it."""
    head, _, message = commit.partition(b"\n\n")
    return head + b"\n" + header + b" " + signature.strip().replace(b"\n", b"\n ") + b"\n\n" + message
