"""Decides whether a commit or a tag is signed by one of the keys in ``KAPSO_SYNC_VERIFY_FILE``.

The raw object is split here, and ssh-keygen or gpgv judges the signature over the rest: ``git verify-commit`` is not asked.

- It judges keys with ``valid-before`` at the committer's date, which whoever signs can choose: an expired key would be good for
  ever. Here the clock of this machine counts, at the moment of reading.
- It takes programs and formats from a configuration, and its answer depends on the version. Here nothing is configured.
- gpgv needs no home, no agent and no trust database, and reads no other keyring. Its exit status is 0 for keys that expired or
  were revoked, so that its status lines decide: one ``GOODSIG`` and one ``VALIDSIG``, and nothing bad beside them.
- ssh-keygen gets only those lines of allowed signers, unchanged, whose key made the signature (for a certificate: those of
  authorities), one after the other. ``find-principals`` of a whole file would stop at the first line of the key, even if only
  a later one allows the namespace ``git``.

What git itself would read, and what is signed, must be the same bytes: an object with more than one signature, or one that is
not where git writes it, is refused. The caller has checked that the object's bytes are those that its id stands for.

Sources: gpg's doc/DETAILS for the status lines, PROTOCOL.sshsig, git's commit.c and gpg-interface.c for where signatures are.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import itertools
import os
import pwd
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from kapso_sync.dataclass import dataclass
from kapso_sync.errors import ConfigError, SourceUnavailable
from kapso_sync.process import Ended, run_process
from kapso_sync.sources.armor import SIGNATURE_PACKET, packet_tags, remove_armor, ssh_strings
from kapso_sync.sources.trusted_keys import AllowedSigner, TrustedKeys, read_trusted_keys
from kapso_sync.visible import visible

NAMESPACE = "git"
"""The namespace of git's signatures by ssh keys: a signature that was made for files, or for e-mail, is none for a commit."""

PROGRAM_TIMEOUT = 20.0
"""Seconds that one run of ssh-keygen or gpgv may take."""

MAX_SIGNATURE_BYTES = 64 * 1024
MAX_PRINCIPALS = 32
MAX_NAME = 256
"""Maximum size of a signature, maximum number of names of one signer that are tried, and maximum length of a tag's name."""

_COMMIT = re.compile(rb"tree [0-9a-f]{40}\n(?:parent [0-9a-f]{40}\n)*author [^\n]*\ncommitter [^\n]*(?:\n|$)")
_TAG = re.compile(rb"object (?P<id>[0-9a-f]{40})\ntype (?P<kind>[a-z]+)\ntag (?P<name>[^\n]+)\n")
_HEADER = b"gpgsig"
_SSH, _PGP, _X509 = "SSH SIGNATURE", "PGP SIGNATURE", "SIGNED MESSAGE"
_BEGINNING = re.compile(rb"^-----BEGIN (?:PGP SIGNATURE|PGP MESSAGE|SSH SIGNATURE|SIGNED MESSAGE)-----", re.MULTILINE)

_FIX = (
    "push a commit on top of it that a key in KAPSO_SYNC_VERIFY_FILE signed (`git commit --gpg-sign`): only the tip is judged"
)
_LIST = "if this signer may push, add the key to the file: the next pass reads it; otherwise find out who pushed it"
_RENEW = "sign with a key that is good now, or renew this one and its line or export in the file"
_FORGED = "it was changed after it was signed, or the signature was made for something else: find out who pushed it"
_BAD_STATUSES = frozenset({"BADSIG", "ERRSIG", "EXPSIG", "EXPKEYSIG", "REVKEYSIG", "NODATA", "UNEXPECTED", "FAILURE"})
_WEAK_DIGESTS = {"1": "MD5", "2": "SHA-1", "3": "RIPEMD-160"}


class SignatureRefused(Exception):
    """The object is not signed as wanted. ``reason`` finishes a sentence that begins with what was not read."""

    def __init__(self, reason: str, *, signer: str | None = None, hint: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.signer = signer
        self.hint = hint


@dataclass(frozen=True, slots=True)
class SignedContent:
    """What was signed, and the signature with its armor."""

    content: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class TagTarget:
    """What a tag object says: its own name, and the id and type of the object that it names."""

    name: str
    id: str
    kind: str


def split_commit(raw: bytes) -> SignedContent:
    """Return what of a commit object is signed, and its signature; raises `SignatureRefused`."""
    head, gap, message = raw.partition(b"\n\n")
    lines = head.split(b"\n")
    if not gap or _COMMIT.match(head) is None:
        raise SignatureRefused("it is not written as git writes a commit")
    names = [line.partition(b" ")[0] for line in lines]
    starts = [number for number, name in enumerate(names) if name.startswith(_HEADER)]
    if not starts:
        raise SignatureRefused("it is not signed", hint=_FIX)
    if len(starts) > 1 or names[starts[0]] != _HEADER:
        raise SignatureRefused("it has more than one signature, or one of a kind that is not read")
    start = starts[0]
    end = start + 1
    while end < len(lines) and lines[end].startswith(b" "):
        end += 1
    signature = b"\n".join([lines[start][len(_HEADER) + 1 :], *(line[1:] for line in lines[start + 1 : end])])
    return SignedContent(b"\n".join([*lines[:start], *lines[end:]]) + gap + message, signature)


def split_tag(raw: bytes) -> SignedContent:
    """Return what of a tag object is signed, and its signature; raises `SignatureRefused`."""
    begins = [found.start() for found in _BEGINNING.finditer(raw)]
    if not begins:
        raise SignatureRefused("it is not signed", hint="sign it: `git tag --force --sign NAME`, and push it with --force")
    return SignedContent(raw[: begins[-1]], raw[begins[-1] :])


def tag_target(raw: bytes) -> TagTarget:
    """Return what a tag object names; raises `SignatureRefused` if it is not written as git writes it."""
    found = _TAG.match(raw)
    if found is None:
        raise SignatureRefused("it is not written as git writes a tag")
    name = visible(found["name"].decode("utf-8", "replace"))
    return TagTarget(name if len(name) <= MAX_NAME else f"{name[:MAX_NAME]}…", found["id"].decode(), found["kind"].decode())


class SignatureVerifier:
    """Judges signatures by the keys in ``file``, which is read again each time.

    ``scratch`` is a folder of its own for one verification at a time, made and removed again. ``path`` is where ssh-keygen and
    gpgv are looked for, as PATH. ``deadline`` is for one run of either, in seconds.
    """

    def __init__(self, file: Path, scratch: Path, *, path: str, deadline: float = PROGRAM_TIMEOUT) -> None:
        self._file = file
        self._scratch = scratch
        self._path = path
        self._deadline = deadline

    def check(self) -> TrustedKeys:
        """Return the keys; raises `ConfigError` if the file lists none, or if the program for one kind of them is missing."""
        keys = read_trusted_keys(self._file)
        if keys.signers:
            self._ssh_keygen()
        if keys.keyring:
            self._gpgv()
        return keys

    async def verify(self, signed: SignedContent) -> str:
        """Return the fingerprint of the key that signed it.

        Raises `SignatureRefused`, `ConfigError` like `check`, and `SourceUnavailable` if a program does not end in time.
        """
        keys = await asyncio.to_thread(read_trusted_keys, self._file)
        text = signed.signature
        if len(text) > MAX_SIGNATURE_BYTES:
            raise SignatureRefused(f"its signature is larger than {MAX_SIGNATURE_BYTES // 1024} KiB")
        begins = {label for label in (_SSH, _PGP, _X509) if text.startswith(f"-----BEGIN {label}-----".encode())}
        try:
            if begins == {_SSH}:
                return await self._verify_ssh(keys, signed.content, text)
            if begins == {_PGP}:
                return await self._verify_openpgp(keys, signed.content, text)
        except ValueError as error:
            raise SignatureRefused(f"its signature is damaged: {error}") from error
        finally:
            await asyncio.to_thread(shutil.rmtree, self._scratch, ignore_errors=True)
        kind = "by X.509, which is not read" if begins else "in a way that is not known"
        raise SignatureRefused(f"it is signed {kind}", hint="sign with ssh (`gpg.format=ssh`) or OpenPGP")

    # ssh

    async def _verify_ssh(self, keys: TrustedKeys, content: bytes, signature: bytes) -> str:
        key, namespace = _parse_ssh_signature(remove_armor(signature, _SSH))
        signer = ssh_fingerprint(key)
        if namespace != NAMESPACE.encode():
            raise SignatureRefused(
                f"the signature by {signer} was made for something else than git", signer=signer, hint=_FORGED
            )
        is_certificate = _CERTIFICATE in next(ssh_strings(key))
        lines = [each for each in keys.signers if (each.is_authority if is_certificate else each.key == key)]
        said = []
        for line in lines:
            failure = await self._verify_by_line(line, content, signature)
            if failure is None:
                return signer
            said.append(failure)
        if is_certificate:
            unknown = f"by a certificate that is not valid now, or that no authority in {self._file} issued"
        elif lines:
            unknown = f"which {self._file} lists, and ssh-keygen does not accept the signature"
        else:
            unknown = f"which {self._file} does not list"
        raise _ssh_refusal(signer, "\n".join(said), unknown, is_listed=bool(lines))

    async def _verify_by_line(self, line: AllowedSigner, content: bytes, signature: bytes) -> str | None:
        """Return None if the signer that one line allows made the signature, else what ssh-keygen says."""
        await asyncio.to_thread(self._write, {"keys": line.line + b"\n", "signature": signature})
        common = ["-f", "keys", "-s", "signature"]
        found = await self._run([self._ssh_keygen(), "-Y", "find-principals", *common])
        said = found.errors.decode("utf-8", "replace") or "no principal matched"
        names = found.output.splitlines() if found.status == 0 else []
        for name in names[:MAX_PRINCIPALS]:
            command = [self._ssh_keygen(), "-Y", "verify", "-n", NAMESPACE, "-I", os.fsdecode(name), *common]
            ended = await self._run(command, stdin=content)
            if ended.status == 0:
                return None
            said += ended.errors.decode("utf-8", "replace") or "not verified"
        return said

    def _ssh_keygen(self) -> str:
        try:
            pwd.getpwuid(os.getuid())
        except KeyError:
            raise ConfigError(
                f"KAPSO_SYNC_VERIFY_FILE lists ssh keys, and ssh-keygen wants a name for the user {os.getuid()}",
                hint="run as a user that /etc/passwd lists (in the image: 10001), mount one that does, or use a keyring",
            ) from None
        return self._find(
            "ssh-keygen",
            "KAPSO_SYNC_VERIFY_FILE lists ssh keys, and there is no ssh-keygen",
            "install OpenSSH's client (Debian: openssh-client), version 8.8 or later",
        )

    # OpenPGP

    async def _verify_openpgp(self, keys: TrustedKeys, content: bytes, signature: bytes) -> str:
        packets = remove_armor(signature, _PGP)
        if tuple(packet_tags(packets)) != (SIGNATURE_PACKET,):
            raise ValueError("it is not exactly one signature")
        if not keys.keyring and shutil.which("gpgv", path=self._path) is None:
            # Only gpgv could say by whom.
            raise SignatureRefused(f"it is signed by OpenPGP, and {self._file} lists no OpenPGP key", hint=_LIST)
        await asyncio.to_thread(self._write, {"keys": keys.keyring, "signature": packets, "content": content})
        keyring = self._scratch / "keys"
        command = [self._gpgv(), "--homedir", str(self._scratch), "--status-fd", "1", "--keyring", str(keyring)]
        ended = await self._run([*command, "--", "signature", "content"])
        return self._judge_statuses(ended)

    def _judge_statuses(self, ended: Ended) -> str:
        """Return the fingerprint of the key that made a good signature; raises `SignatureRefused`."""
        lines = [line.split() for line in ended.output.decode("utf-8", "replace").splitlines()]
        statuses = [(words[1], words[2:]) for words in lines if len(words) > 1 and words[0] == "[GNUPG:]"]
        found = dict(statuses)
        valid = found.get("VALIDSIG", [])
        signer = valid[-1] if valid else None
        for status, (reason, hint) in _PGP_REASONS.items():
            if status in found:
                named = signer or (found[status] or ["a key without a name"])[0]
                raise SignatureRefused(f"it is signed by {named}, {reason}", signer=named, hint=hint)
        if "ERRSIG" in found or "NO_PUBKEY" in found:
            # ERRSIG: key id, algorithms of key and hash, class, time, code, and from GnuPG 2.2.7 on the fingerprint.
            words = found.get("ERRSIG", [])
            named = next((word for word in reversed(words) if len(word) >= 16 and word != "-"), "a key without a name")
            if "NO_PUBKEY" in found:
                raise SignatureRefused(f"it is signed by {named}, which {self._file} does not list", signer=named, hint=_LIST)
            raise SignatureRefused(f"the signature by {named} cannot be checked by this gpgv", signer=named)
        names = [name for name, _ in statuses]
        if (
            ended.status
            or names.count("GOODSIG") != 1
            or names.count("VALIDSIG") != 1
            or _BAD_STATUSES & found.keys()
            or signer is None
            or len(valid) < 10
        ):
            raise SignatureRefused("gpgv does not accept its signature", signer=signer, hint=_LIST)
        # VALIDSIG: fingerprint, date, time, expiry, version, reserved, algorithms of key and hash, class, primary fingerprint.
        if valid[7] in _WEAK_DIGESTS:
            weak = _WEAK_DIGESTS[valid[7]]
            raise SignatureRefused(f"the signature by {signer} is over {weak}, which can be forged", signer=signer)
        if valid[8] != "00":
            raise SignatureRefused(f"the signature by {signer} is not one over exact bytes", signer=signer)
        return signer

    def _gpgv(self) -> str:
        return self._find(
            "gpgv",
            "KAPSO_SYNC_VERIFY_FILE holds OpenPGP keys, and there is no gpgv",
            "install gpgv (Debian: gpgv; elsewhere it comes with GnuPG), or sign with ssh keys, which need none",
        )

    # Both

    def _find(self, program: str, missing: str, hint: str) -> str:
        found = shutil.which(program, path=self._path)
        if found is None or not Path(found).is_absolute():
            raise ConfigError(f"{missing} on PATH", hint=hint)
        return found

    def _write(self, files: dict[str, bytes]) -> None:
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._scratch.mkdir(mode=0o700, parents=True)
        for name, content in files.items():
            (self._scratch / name).write_bytes(content)

    async def _run(self, command: Sequence[str], *, stdin: bytes = b"") -> Ended:
        await asyncio.to_thread(self._scratch.mkdir, mode=0o700, parents=True, exist_ok=True)
        environment = {"PATH": self._path, "HOME": str(self._scratch), "LC_ALL": "C"}
        try:
            return await run_process(command, environment=environment, cwd=self._scratch, deadline=self._deadline, stdin=stdin)
        except TimeoutError:
            raise SourceUnavailable(
                f"{Path(command[0]).name} did not end within {self._deadline:g} s, so that no signature can be judged",
                hint="is the machine overloaded? Try again; a daemon does so by itself",
            ) from None


_SSH_REASONS = {
    "key has expired": "whose time by valid-before is over",
    "key is not yet valid": "whose time by valid-after has not come",
    "not permitted for use in signature namespace": "which may not sign for git: its line names other namespaces",
    "bad options": "whose line has options that this ssh-keygen does not know",
}
"""What ssh-keygen says, in lower case, and what it means; its own words hold times, which would make each failure a new one."""


def _ssh_refusal(signer: str, said: str, unknown: str, *, is_listed: bool) -> SignatureRefused:
    """Return why ssh-keygen accepts no signature of a signer, by what it said; ``unknown`` if that says nothing."""
    if "incorrect signature" in said:
        return SignatureRefused(f"the signature by {signer} does not match its content", signer=signer, hint=_FORGED)
    reason = next((reason for phrase, reason in _SSH_REASONS.items() if phrase in said.lower()), None)
    return SignatureRefused(
        f"it is signed by {signer}, {reason or unknown}", signer=signer, hint=_RENEW if reason or is_listed else _LIST
    )


_PGP_REASONS = {
    "BADSIG": ("and the signature does not match its content", _FORGED),
    "REVKEYSIG": ("a key that is revoked", _RENEW),
    "EXPKEYSIG": ("a key that is expired", _RENEW),
    "EXPSIG": ("and the signature is expired", _RENEW),
}


_CERTIFICATE = b"-cert-v01"
_KEY_FIELDS = {b"ssh-ed25519": 1, b"ssh-rsa": 2, b"ecdsa-sha2-": 2, b"sk-ssh-ed25519": 2, b"sk-ecdsa-sha2-": 3}
"""How many strings a public key has after its kind, by how its kind begins; a certificate has them after a nonce."""


def ssh_fingerprint(key: bytes) -> str:
    """Return the fingerprint of a public key as ssh-keygen prints it, of a certificate that of its key; raises ValueError."""
    kind = next(ssh_strings(key))
    if _CERTIFICATE in kind:
        count = next((number for name, number in _KEY_FIELDS.items() if kind.startswith(name)), None)
        if count is None:
            raise ValueError("it is a certificate of a kind that is not known")
        parts = tuple(itertools.islice(ssh_strings(key), 2 + count))
        fields = (kind.replace(_CERTIFICATE, b"") if kind.startswith(b"sk-") else kind.partition(b"-cert-")[0], *parts[2:])
        key = b"".join(len(field).to_bytes(4, "big") + field for field in fields)
    return f"SHA256:{base64.b64encode(hashlib.sha256(key).digest()).decode('ascii').rstrip('=')}"


def _parse_ssh_signature(blob: bytes) -> tuple[bytes, bytes]:
    """Return the public key and the namespace of a signature; raises ValueError."""
    magic, version, rest = blob[:6], blob[6:10], blob[10:]
    if magic != b"SSHSIG" or version != b"\0\0\0\1":
        raise ValueError("it is not of a version that is known")
    parts = tuple(ssh_strings(rest))
    if len(parts) != 5 or not any(True for _ in ssh_strings(parts[0])):
        raise ValueError("it does not have the parts of a signature")
    return parts[0], parts[1]
