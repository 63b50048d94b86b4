"""Explains what git and ssh print when they fail: as an error of ours, with a hint what to do."""

from __future__ import annotations

import base64
import binascii
import codecs
import os
import re
from dataclasses import dataclass
from pathlib import Path

from kapso_sync.errors import KapsoSyncError, SourceDenied, SourceMissing, SourceUnavailable, StateUnusable
from kapso_sync.files import read_small
from kapso_sync.network import AUTHORITY_HINT, PROXY_HINT
from kapso_sync.permissions import describe_owner, hint_for_owner

MAX_KEY_BYTES = 64 * 1024

_NETWORK = re.compile(
    r"unable to access|could not read from remote|the remote end hung up|early eof|rpc failed|unexpected disconnect"
    r"|connection (reset|refused|closed|timed out)|broken pipe|could not resolve host|remote: |kex_exchange",
    re.IGNORECASE,
)
"""What git says when the connection failed, or the server; the mirror is as good as before then."""

_DENIED = re.compile(
    r"authentication failed|could not read (username|password)|permission denied|access denied|\b40[13]\b"
    r"|terminal prompts disabled|too many authentication failures",
    re.IGNORECASE,
)
_MISSING = re.compile(
    r"repository .*not found|does not appear to be a git repository|not found: did you run|\b404\b", re.IGNORECASE
)
_DISK = re.compile(r"no space left on device|disk quota exceeded|read-only file system", re.IGNORECASE)
_PROXY = re.compile(r"from proxy|resolve proxy|CONNECT tunnel|proxy CONNECT|SOCKS", re.IGNORECASE)
_UNVERIFIED = re.compile(
    r"certificate verification failed|SSL certificate problem|self[- ]signed certificate|unable to get local issuer"
    r"|certificate verify locations|verify the legitimacy",
    re.IGNORECASE,
)
_HOST_CHANGED = "REMOTE HOST IDENTIFICATION HAS CHANGED"
_HOST_UNKNOWN = "Host key verification failed"
_NAMELESS = "No user exists for uid"
"""What ssh says, and ends, when its user has no line in /etc/passwd."""
_FSCK = "fsck error"


@dataclass(frozen=True, slots=True)
class RemoteContext:
    """The remote that git talked to: its address, the mirror of it, and the private key for ssh, if one is set."""

    location: str
    mirror: Path
    ssh_key_file: Path | None = None


def is_network_failure(text: str) -> bool:
    """Return whether a fetch failed on its way or at the server, so that the mirror need not be suspected."""
    return _NETWORK.search(text) is not None and "File exists" not in text


def explain(text: str, remote: RemoteContext) -> KapsoSyncError:
    """Return the error for what git printed while it talked to a remote."""
    where = remote.location
    # What the server says about its own disk comes as `remote: …`.
    if _DISK.search(text) and "remote:" not in text:
        return StateUnusable(
            f"{remote.mirror} cannot be written: {text}",
            hint=f"free space for the mirror of the source: `df -h {remote.mirror.parent}` shows its disk",
        )
    if _NAMELESS in text:
        return SourceUnavailable(
            f"{where} cannot be fetched, since ssh wants a name for the user: {text}",
            hint="run as a user that /etc/passwd lists (in the image: 10001), mount an /etc/passwd that does, or use https",
        )
    if _PROXY.search(text):
        return SourceUnavailable(f"{where} cannot be reached through the proxy: {text}", hint=PROXY_HINT)
    if _UNVERIFIED.search(text):
        return SourceUnavailable(f"{where} cannot be trusted: {text}", hint=AUTHORITY_HINT)
    if _HOST_CHANGED in text:
        return SourceDenied(
            f"{where} shows another host key than the known one: {text}",
            hint="somebody may be in between: compare the fingerprint with the one that the host's owner publishes, and only "
            "then replace the line in KAPSO_SYNC_GIT_KNOWN_HOSTS_FILE by what `ssh-keyscan HOST` prints",
        )
    if _HOST_UNKNOWN in text:
        return SourceDenied(
            f"{where} shows a host key that is not known: {text}",
            hint="compare what `ssh-keyscan HOST` prints with the fingerprint that the host's owner publishes, and put it into "
            "the file of KAPSO_SYNC_GIT_KNOWN_HOSTS_FILE",
        )
    if _DENIED.search(text) or "Load key" in text:
        return _denied(text, remote)
    if _MISSING.search(text):
        return SourceMissing(
            f"{where} is not a repository that we can read: {text}", hint="is the URL right, and the token allowed?"
        )
    if _FSCK in text:
        return SourceUnavailable(
            f"{where} holds an object that git refuses: {text}",
            hint="`git fsck` in that repository names it too; a commit or a tree like that has to be written again",
        )
    return SourceUnavailable(f"{where} cannot be fetched: {text}", hint="try again; a daemon does so by itself")


def _denied(text: str, remote: RemoteContext) -> SourceDenied:
    key = remote.ssh_key_file
    problem = None if key is None else _key_problem(key, text)
    if problem is not None:
        what, hint = problem
        return SourceDenied(
            f"{remote.location} cannot be fetched, since KAPSO_SYNC_GIT_SSH_KEY_FILE {key} {what}: {text}", hint=hint
        )
    return SourceDenied(
        f"{remote.location} refuses us: {text}",
        hint="look at KAPSO_SYNC_GIT_TOKEN(_FILE), KAPSO_SYNC_GIT_SSH_KEY_FILE and KAPSO_SYNC_GIT_KNOWN_HOSTS_FILE",
    )


def _key_problem(key: Path, text: str) -> tuple[str, str] | None:
    """Return why ssh cannot use a private key, and a hint; None: it can, or nothing is known."""
    if not os.access(key, os.R_OK):
        return f"cannot be read: {describe_owner(key)}", hint_for_owner(key)
    if re.search(r"bad permissions|UNPROTECTED PRIVATE KEY", text):
        return "may be read by others, so that ssh refuses it", f"`chmod 600 {key.name}` where it comes from"
    try:
        content = read_small(key, MAX_KEY_BYTES, follow=True)
    except OSError:
        return None
    if content.startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "begins with a byte order mark, which ssh does not read", "save it as plain text without one"
    if b"PRIVATE KEY" not in content:
        return "is not a private key", "name the file without .pub, which `ssh-keygen` wrote beside it"
    if b"\r\n" in content:
        return "has Windows line ends, which ssh does not read", f"`sed -i 's/\\r$//' {key.name}` where it comes from"
    if not content.endswith(b"\n"):
        return "has no line break at its end, and ssh does not read it so", f"`echo >> {key.name}` where it comes from"
    if _has_passphrase(content):
        return (
            "has a passphrase, and nobody is there to type it",
            f"`ssh-keygen -p -N '' -f {key.name}` takes it away; or load the key into an ssh-agent that SSH_AUTH_SOCK names",
        )
    if "Load key" in text:
        return "cannot be read by ssh", f"`ssh-keygen -y -f {key.name}` says whether it is whole"
    return None


def _has_passphrase(content: bytes) -> bool:
    """Return whether a private key is encrypted. Source: OpenSSH's PROTOCOL.key, and RFC 1421 for the older format."""
    if b"ENCRYPTED" in content:
        return True
    body = re.search(rb"-----BEGIN OPENSSH PRIVATE KEY-----(.*?)-----END", content, re.DOTALL)
    try:
        blob = base64.b64decode(b"".join(body[1].split())) if body is not None else b""
    except binascii.Error:
        return False
    magic = b"openssh-key-v1\0"
    length = int.from_bytes(blob[len(magic) : len(magic) + 4], "big")
    cipher = blob[len(magic) + 4 : len(magic) + 4 + length]
    return blob.startswith(magic) and cipher != b"none"
