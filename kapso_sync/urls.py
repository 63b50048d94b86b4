"""Parses the addresses of hosts and repositories: one rule for every spelling of the same remote."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit


def is_loopback(host: str) -> bool:
    """Return whether a host name or an address, with or without brackets, means this machine."""
    name = host.removeprefix("[").removesuffix("]").lower()
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class RemoteAddress:
    """Where a repository is: ``host`` is in lower case, ``path`` has no slash at its ends and no ``.git``.

    On this machine ``host`` is empty. ``scheme`` is ``ssh`` for ``git@host:path``, and ``file`` for a path on this machine.
    """

    scheme: str
    host: str
    port: int | None
    path: str


def parse_remote(address: str) -> RemoteAddress:
    """Return the parts of a repository's address. Raises ValueError for a URL that is malformed.

    >>> parse_remote("git@GitHub.com:acme/flows.git")
    RemoteAddress(scheme='ssh', host='github.com', port=None, path='acme/flows')
    """
    if "://" in address:
        parts = urlsplit(address)
        return RemoteAddress(parts.scheme, (parts.hostname or "").lower(), parts.port, _repository(unquote(parts.path)))
    if ":" in address.partition("/")[0]:
        host, _, path = address.partition(":")
        host = host.rpartition("@")[2]
        return RemoteAddress("ssh", host.lower(), None, _repository(path))
    return RemoteAddress("file", "", None, _repository(address))


def _repository(path: str) -> str:
    return path.strip("/").removesuffix(".git").rstrip("/")
