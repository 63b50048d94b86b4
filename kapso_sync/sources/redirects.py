"""Finds out where a git server redirects to. Credentials never leave the host: git itself would follow to others as well."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from urllib.parse import SplitResult, urljoin, urlsplit

import httpx

from kapso_sync.errors import SourceUnavailable
from kapso_sync.http_client import open_client
from kapso_sync.network import Network

MAX_REDIRECTS = 5

_REFS = "/info/refs"
_QUERY = "service=git-upload-pack"
"""The first request of a fetch. Source: https://git-scm.com/docs/gitprotocol-http"""

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_DEFAULT_PORTS = {"http": 80, "https": 443}


async def find_redirect(location: str, headers: Mapping[str, str], network: Network, timeout: float) -> str | None:
    """Return the address to which a git server redirects the first request for ``location``, or None if it does not.

    ``headers`` may hold credentials; they are sent to the host and port of ``location`` alone. ``timeout`` is in seconds.
    Raises `SourceUnavailable` for a redirect to another host, to a page that is no repository, and for a loop.
    """
    url = f"{location.rstrip('/')}{_REFS}?{_QUERY}"
    ours = _origin(urlsplit(url))
    limits = httpx.Limits(max_connections=1)
    try:
        async with (
            asyncio.timeout(timeout),
            open_client(network, timeout=httpx.Timeout(timeout), limits=limits, secure=ours[0] == "https") as client,
        ):
            for _ in range(MAX_REDIRECTS + 1):
                async with client.stream("GET", url, headers={"User-Agent": "git/kapso-sync", **headers}) as answer:
                    status, target = answer.status_code, answer.headers.get("Location", "")
                if status not in _REDIRECTS or not target:
                    address = _repository(urlsplit(url))
                    return None if address == location.rstrip("/") else address
                url = urljoin(url, target)
                _check(location, urlsplit(url), ours)
    except (TimeoutError, httpx.HTTPError, httpx.InvalidURL, OSError, ValueError):
        return None
    raise SourceUnavailable(f"{location} redirects more than {MAX_REDIRECTS} times", hint="is the URL right?")


def _check(location: str, target: SplitResult, ours: tuple[str, str, int | None]) -> None:
    origin = _origin(target)
    if origin != ours:
        what = "host" if origin[1] != ours[1] else "port or scheme"
        raise SourceUnavailable(
            f"{location} redirects to another {what}, {_repository(target)}, and no credentials are sent there",
            hint="if the repository has moved there, let the source be the new address; it stays unread until then",
        )
    if not target.path.endswith(_REFS):
        raise SourceUnavailable(
            f"{location} redirects to a page, {target.path}, and not to a repository",
            hint="is the URL right, and may KAPSO_SYNC_GIT_TOKEN read the repository? A page to sign in is a usual answer",
        )


def _origin(url: SplitResult) -> tuple[str, str, int | None]:
    return url.scheme, (url.hostname or "").lower(), url.port or _DEFAULT_PORTS.get(url.scheme)


def _repository(url: SplitResult) -> str:
    """Return the address of the repository whose refs a URL lists, without user, password and query."""
    host = url.netloc.rpartition("@")[2]
    return f"{url.scheme}://{host}{url.path.removesuffix(_REFS)}"
