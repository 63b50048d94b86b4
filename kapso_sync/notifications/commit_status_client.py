"""Sets a commit's status at a forge: one POST with a timeout, no redirects, and the token only in a header."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import field

import httpx

from kapso_sync.dataclass import dataclass
from kapso_sync.errors import ConfigError
from kapso_sync.http_client import open_client
from kapso_sync.network import AUTHORITY_HINT, PROXY_HINT, Network, is_unverified
from kapso_sync.notifications.commit_status import CommitStatus
from kapso_sync.notifications.forges import Repository, StatusRequest, is_settled, status_request
from kapso_sync.retry import retry_after

REQUEST_TIMEOUT = 20.0
"""Seconds for one request, its answer included."""

MAX_ANSWER_BYTES = 64 * 1024
"""Maximum number of bytes of an answer that are read."""

_TRANSIENT_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class PostResult:
    """The result of a request.

    ``error`` None means success; ``again``: a retry may help, after ``retry_after`` seconds if known.
    """

    error: str | None = None
    hint: str | None = None
    again: bool = False
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class CommitStatusClient:
    """Sets statuses in one repository.

    ``token`` is called before each request; ``page`` is the status page's URL; ``network`` says how to reach the forge.
    """

    repository: Repository
    context: str
    token: Callable[[], str]
    page: str | None = None
    deadline: float = REQUEST_TIMEOUT
    network: Network = field(default_factory=Network)

    async def post(self, status: CommitStatus) -> PostResult:
        """Set a commit's status; never raises."""
        try:
            token = self.token()
            request = status_request(self.repository, self.context, status, token, self.page)
            async with asyncio.timeout(self.deadline):
                return await self._send(request)
        except ConfigError as error:
            return PostResult(error.message, error.hint)
        except TimeoutError:
            return PostResult(f"no answer within {self.deadline:.0f} s", again=True)
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            return PostResult(f"no connection: {type(error).__name__}", _connection_hint(error), again=True)

    async def _send(self, request: StatusRequest) -> PostResult:
        headers = {"User-Agent": "kapso-sync", **request.headers}
        async with (
            open_client(
                self.network,
                timeout=httpx.Timeout(self.deadline),
                limits=httpx.Limits(max_connections=1),
                secure=request.url.startswith("https:"),
            ) as client,
            client.stream("POST", request.url, headers=headers, json=dict(request.body)) as answer,
        ):
            text = await _first_bytes(answer)
        if is_settled(self.repository.forge, answer.status_code, text):
            return PostResult()
        again = answer.status_code in _TRANSIENT_STATUSES
        return PostResult(
            f"{self.repository.forge} answered {answer.status_code}",
            _HINTS.get(answer.status_code),
            again,
            retry_after(answer.headers) if again else None,
        )


def _connection_hint(error: Exception) -> str | None:
    if is_unverified(error):
        return AUTHORITY_HINT
    return PROXY_HINT if isinstance(error, httpx.ProxyError) else None


async def _first_bytes(answer: httpx.Response) -> str:
    """Return the first part of an answer; a compressed one is not opened."""
    found = b""
    async for chunk in answer.aiter_raw():
        found += chunk
        if len(found) >= MAX_ANSWER_BYTES:
            break
    return found[:MAX_ANSWER_BYTES].decode("utf-8", "replace")


_HINTS = {
    401: "is KAPSO_SYNC_COMMIT_STATUS_TOKEN valid?",
    403: "the token may not set commit statuses: GitHub calls the right `Commit statuses: write`, GitLab `api`, Gitea "
    "`write:repository`",
    404: "the token does not see the repository, or KAPSO_SYNC_COMMIT_STATUS_URL is not the API's base",
    422: "the commit is not in that repository",
}
