"""Explains what git and ssh print when they fail: as an error of ours, with a hint what to do."""

from __future__ import annotations

import base64
import binascii
import codecs
import os
import re
from pathlib import Path

from kapso_sync.dataclass import dataclass
from kapso_sync.errors import KapsoSyncError, SourceDenied, SourceMissing, SourceUnavailable, StateUnusable
from kapso_sync.files import read_small
from kapso_sync.network import AUTHORITY_HINT, PROXY_HINT
from kapso_sync.permissions import describe_owner, hint_for_owner

MAX_KEY_BYTES = 64 * 1024

_NETWORK = re.compile(
    r"unable to access|could not read from remote|the remote end hung up|early eof|rpc failed|unexpected disconnect"
    r"|connection (reset|refused|closed|timed out)|broken pipe|could not resolve host|remote: |kex_exchange"
    r"|couldn't find remote ref",
    re.IGNORECASE,
)
"""What git says when the connection failed, or the server; the mirror is as good as before then."""

_DENIED = re.compile(
    r"authentication failed|could not read (username|password)|permission denied|access denied|\b40[13]\b"
    r"|terminal prompts disabled|too many authentication failures",
    re.IGNORECASE,
)
_MISSING = re.compile(
    r"repository .*not found|does not appear to be a git repository|not found: did you run|is this a git repository|\b404\b",
    re.IGNORECASE,
)
_DISK = re.compile(r"no space left on device|disk quota exceeded|read-only file system", re.IGNORECASE)
_PROXY = re.compile(r"from proxy|resolve proxy|CONNECT tunnel|proxy CONNECT|SOCKS", re.IGNORECASE)
_UNVERIFIED = re.compile(
    r"certificate verification failed|SSL certificate problem|self[- ]signed certificate|unable to get local issuer"
    r"|certificate verify locations|verify the legitimacy",
    re.IGNORECASE,
)
_URL = re.compile(r"\S+://\S+")
_HOST_CHANGED = "REMOTE HOST IDENTIFICATION HAS CHANGED"
_HOST_REVOKED = "REVOKED HOST KEY DETECTED"
_HOST_UNKNOWN = "Host key verification failed"
_NAMELESS = "No user exists for uid"
"""What ssh says, and ends, when its user has no line in /etc/passwd."""
_REDIRECTED = re.compile(r"returned error: 3\d\d\b")
_DUMB = "dumb http transport"
_MEMORY = re.compile(r"out of memory|cannot allocate memory|mmap failed", re.IGNORECASE)
_FSCK = "fsck error"
_DAMAGED = "repository corruption on the remote"


@dataclass(frozen=True, slots=True)
class RemoteContext:
    """The remote that git talked to: its address, the mirror of it, and for ssh the private key and the known hosts, if set."""

    location: str
    mirror: Path
    ssh_key_file: Path | None = None
    known_hosts_file: Path | None = None


def is_network_failure(text: str) -> bool:
    """Return whether a fetch failed on its way or at the server, so that the mirror need not be suspected."""
    return _NETWORK.search(text) is not None and "File exists" not in text


def is_out_of_memory(text: str) -> bool:
    """Return whether git failed because it may take no more memory: then the mirror need not be suspected either."""
    return _MEMORY.search(_URL.sub("", text)) is not None


def explain(text: str, remote: RemoteContext) -> KapsoSyncError:
    """Return the error for what git printed while it talked to a remote."""
    where = remote.location
    said = _URL.sub("", text)  # a repository may be called socks, or 404
    # What the server says about its own disk comes as `remote: …`.
    if _DISK.search(said) and "remote:" not in said:
        return StateUnusable(
            f"{remote.mirror} cannot be written: {text}",
            hint=f"free space for the mirror of the source: `df -h {remote.mirror.parent}` shows its disk",
        )
    if _NAMELESS in text:
        return SourceUnavailable(
            f"{where} cannot be fetched, since ssh wants a name for the user: {text}",
            hint="run as a user that /etc/passwd lists (in the image: 10001), mount an /etc/passwd that does, or use https",
        )
    if _PROXY.search(said):
        return SourceUnavailable(f"{where} cannot be reached through the proxy: {text}", hint=PROXY_HINT)
    if _UNVERIFIED.search(said):
        return SourceUnavailable(f"{where} cannot be trusted: {text}", hint=AUTHORITY_HINT)
    if (host_key := _host_key_problem(text, remote)) is not None:
        return host_key
    if _DENIED.search(said) or "Load key" in text:
        return _denied(text, remote)
    if _MISSING.search(said):
        return SourceMissing(
            f"{where} is not a repository that we can read: {text}",
            hint="is the URL right, and the token allowed? A page to sign in is another usual answer",
        )
    if _REDIRECTED.search(said):
        return SourceUnavailable(
            f"{where} redirects, and not to a repository: {text}",
            hint="is the URL right? Open it in a browser to see what it is",
        )
    if _DUMB in said:
        return SourceUnavailable(
            f"{where} is served as plain files, and no git answers there: {text}",
            hint="have the server run `git http-backend`, or read the repository over ssh",
        )
    if is_out_of_memory(text):
        return SourceUnavailable(
            f"{where} takes more memory than there is: {text}",
            hint="is there a commit or a folder of many megabytes? `git cat-file -s` says an object's size; or raise the limit",
        )
    if _FSCK in said:
        return SourceUnavailable(
            f"{where} holds an object that git refuses: {text}",
            hint="`git fsck` in that repository names it too; a commit or a tree like that has to be written again",
        )
    again = (
        "`git fsck` in that repository names what is missing" if _DAMAGED in said else "try again; a daemon does so by itself"
    )
    return SourceUnavailable(f"{where} cannot be fetched: {text}", hint=again)


def _host_key_problem(text: str, remote: RemoteContext) -> SourceDenied | None:
    """Return the error for a host key that ssh does not accept, or None."""
    where, hosts = remote.location, remote.known_hosts_file
    if _HOST_CHANGED in text:
        return SourceDenied(
            f"{where} shows another host key than the known one: {text}",
            hint="somebody may be in between: compare the fingerprint with the one that the host's owner publishes, and only "
            "then replace the line in KAPSO_SYNC_GIT_KNOWN_HOSTS_FILE by what `ssh-keyscan HOST` prints",
        )
    if _HOST_REVOKED in text:
        return SourceDenied(
            f"{where} shows a host key that is marked as revoked: {text}",
            hint="somebody who has a stolen key may be in between: ask the host's owner before you take the line away",
        )
    if _HOST_UNKNOWN in text:
        if hosts is not None and not os.access(hosts, os.R_OK):
            return SourceDenied(
                f"{where} shows a host key that is not known, and KAPSO_SYNC_GIT_KNOWN_HOSTS_FILE {hosts} cannot be read: "
                f"{text}",
                hint="mount the file there, and let this user read it",
            )
        return SourceDenied(
            f"{where} shows a host key that is not known: {text}",
            hint="compare what `ssh-keyscan HOST` prints with the fingerprint that the host's owner publishes, and put it into "
            "the file of KAPSO_SYNC_GIT_KNOWN_HOSTS_FILE",
        )
    return None


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
    try:
        content = read_small(key, MAX_KEY_BYTES, follow=True)
    except PermissionError:
        return f"cannot be read: {describe_owner(key)}", hint_for_owner(key)
    except OSError as error:
        return f"cannot be read: {error.strerror or error}", "mount the private key there"
    if content.startswith(b"PuTTY"):
        return "is a key of PuTTY, which ssh does not read", f"`puttygen {key.name} -O private-openssh -o KEY` converts it"
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "is saved as UTF-16, which ssh does not read", "save it as plain text"
    if b"PRIVATE KEY" not in content:
        return "is not a private key", "name the file without .pub, which `ssh-keygen` wrote beside it"
    if re.search(r"bad permissions|UNPROTECTED PRIVATE KEY", text):
        return "may be read by others, so that ssh refuses it", f"`chmod 600 {key.name}` where it comes from"
    if content.startswith(codecs.BOM_UTF8):
        return (
            "begins with a byte order mark, and ssh does not read it so",
            f"`sed -i '1s/^\\xEF\\xBB\\xBF//' {key.name}` where it comes from",
        )
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
