"""Parses the addresses of hosts and repositories: one rule for every spelling of the same remote."""

from __future__ import annotations

import contextlib
import ipaddress
import re
from urllib.parse import SplitResult, unquote, urlsplit

from kapso_sync.dataclass import dataclass

_HOST_ALIASES = {
    "www.github.com": "github.com",
    "ssh.github.com": "github.com",
    "altssh.gitlab.com": "gitlab.com",
    "altssh.bitbucket.org": "bitbucket.org",
}
"""Other names of the forges, such as those that answer SSH on port 443. Source: their own pages on SSH over the HTTPS port."""

_AZURE = "dev.azure.com"
_AZURE_SSH = frozenset({"ssh.dev.azure.com", "vs-ssh.visualstudio.com"})
_AZURE_ORGANIZATION = re.compile(r"([a-z0-9-]+)\.visualstudio\.com")
"""Azure's hosts for SSH, and those of organizations before 2018. Source: https://learn.microsoft.com/azure/devops/repos/git"""

_CASELESS_HOSTS = frozenset({"github.com", "gitlab.com", "bitbucket.org", "codeberg.org", _AZURE})
"""Hosts that take a repository's path in any case for the same repository; other servers may not."""


_SCP_LIKE = re.compile(
    r"(?:(?P<user>[A-Za-z0-9._~+-]+)@)?(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9][A-Za-z0-9._-]*):(?P<path>[^\s:][^\s]*)"
)


def is_loopback(host: str) -> bool:
    """Return whether a host name or an address, with or without brackets, means this machine."""
    name = host.removeprefix("[").removesuffix("]").lower()
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def parse_listen(text: str) -> tuple[str, int]:
    """Return host and port of ``HOST:PORT``, ``:PORT`` or ``[V6]:PORT``; raises ValueError."""
    host, colon, port = text.rpartition(":")
    if not colon or not re.fullmatch("[0-9]{1,5}", port) or int(port) > 65535:
        raise ValueError("expected HOST:PORT, such as 127.0.0.1:8321")
    return host.removeprefix("[").removesuffix("]") or "0.0.0.0", int(port)  # noqa: S104 - asked for, and then the token is needed


class CarriesPassword(ValueError):
    """A URL has a user name or a password, so that it must not be shown."""


def split_http_url(text: str) -> SplitResult:
    """Return the parts of an http(s) URL that names a host, and has no query and no fragment.

    Raises `CarriesPassword`, and for everything else ValueError with a text that says what is wrong.
    """
    # This goes first: the text of every other error may be shown beside the URL.
    authority = text.partition("//")[2] if "//" in text else text
    if "@" in authority.partition("/")[0]:
        raise CarriesPassword("it carries a user name or password")
    try:
        return _http_parts(text.strip())
    except ValueError:
        if "@" in text:  # such as a password with a slash, whose first part is read as the port, and quoted
            raise CarriesPassword("it carries a user name or password") from None
        raise


def without_query(text: str) -> str:
    """Return a URL as a message may show it: up to its query or fragment, in which tokens travel."""
    return re.split("[?#]", text, maxsplit=1)[0]


def _http_parts(text: str) -> SplitResult:
    parts = urlsplit(text)
    host, _ = parts.hostname, parts.port
    if parts.scheme not in ("http", "https") or not host:
        raise ValueError("it is not an http(s) URL")
    if parts.query or parts.fragment:
        raise ValueError("it has a query or a fragment")
    return parts


@dataclass(frozen=True, slots=True)
class RemoteAddress:
    """Where a repository is: ``host`` is in lower case, ``path`` has no slash at its ends and no ``.git``.

    For the SSH hosts of the big forges, ``host`` is the one of their web pages.

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
        return _remote(parts.scheme, parts.hostname or "", parts.port, unquote(parts.path))
    scp = _SCP_LIKE.fullmatch(address)
    if scp is not None:
        return _remote("ssh", scp["host"].strip("[]"), None, scp["path"])
    return RemoteAddress("file", "", None, _repository(address))


def is_scp_like(address: str) -> bool:
    """Return whether an address is ``[USER@]HOST:PATH``, as ssh and git take it; an IPv6 address stands in brackets."""
    return "://" not in address and _SCP_LIKE.fullmatch(address) is not None


def is_same_path(left: str, right: str) -> bool:
    """Return whether two repositories' paths name the same one on servers with different names or below different prefixes.

    Case is ignored. Of a path with a prefix, such as the folder of a web server, the last parts count, at least two of them.

    >>> is_same_path("acme/flows", "gitea/Acme/Flows")
    True
    """
    shorter, longer = sorted((left.lower().split("/"), right.lower().split("/")), key=len)
    return shorter == longer or (len(shorter) > 1 and longer[-len(shorter) :] == shorter)


def comparable_path(host: str, path: str) -> str:
    """Return a repository's path in the case in which it is compared on this host."""
    return path.lower() if host in _CASELESS_HOSTS else path


def _remote(scheme: str, host: str, port: int | None, path: str) -> RemoteAddress:
    name = host.lower().removesuffix(".")
    with contextlib.suppress(ValueError):
        name = ipaddress.ip_address(name).compressed
    with contextlib.suppress(UnicodeError):  # a name beyond ASCII, by which DNS knows it
        name = name.encode("idna").decode()
    name, path = _azure(_HOST_ALIASES.get(name, name), _repository(path))
    return RemoteAddress(scheme, name, port, path)


def _azure(host: str, path: str) -> tuple[str, str]:
    """Return the address that Azure's web pages show for one of its other hosts and paths; any other one as it is.

    >>> _azure("ssh.dev.azure.com", "v3/acme/shop/flows")
    ('dev.azure.com', 'acme/shop/_git/flows')
    """
    parts = unquote(path).split("/")
    if host in _AZURE_SSH and len(parts) == 4:
        return _AZURE, f"{parts[1]}/{parts[2]}/_git/{parts[3]}"
    if host not in _AZURE_SSH and (old := _AZURE_ORGANIZATION.fullmatch(host)) is not None:
        host, parts = _AZURE, [old[1], *(part for part in parts if part != "DefaultCollection")]
    if host != _AZURE:
        return host, path
    if len(parts) == 3 and parts[1] == "_git":  # the project has the name of the repository
        parts.insert(1, parts[2])
    return host, "/".join(parts)


def _repository(path: str) -> str:
    return re.sub("/{2,}", "/", path).strip("/").removesuffix(".git").rstrip("/")
