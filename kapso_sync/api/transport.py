"""HTTP transport with deadlines, rate limiting, retries and a size limit; maps httpx exceptions to `kapso_sync.errors`."""

from __future__ import annotations

import asyncio
import json
import ssl
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import field
from types import TracebackType
from typing import TYPE_CHECKING, Self

import httpx

from kapso_sync import __version__
from kapso_sync.api.base_url import other_base
from kapso_sync.api.envelope import decode, error_text, is_json_error, is_name_taken, without_request
from kapso_sync.api.json_answers import quickly_read
from kapso_sync.api.rate_limiter import Permit, RateLimiter
from kapso_sync.dataclass import dataclass
from kapso_sync.errors import (
    AnswerTooLarge,
    ApiConflict,
    ApiError,
    ApiForbidden,
    ApiGarbled,
    ApiNotFound,
    ApiPaymentRequired,
    ApiRateLimited,
    ApiRejected,
    ApiUnauthorized,
    ApiUnavailable,
    ApiUnsupported,
    Call,
    NotLeading,
    SecretNameTaken,
    SecretRoutesUnavailable,
)
from kapso_sync.http_client import failure_reason, open_client
from kapso_sync.model import events
from kapso_sync.model.clock import Clock
from kapso_sync.model.json_values import Json
from kapso_sync.network import AUTHORITY_HINT, PROXY_HINT, Network, is_unverified
from kapso_sync.retry import Backoff, retry_after

if TYPE_CHECKING:
    from kapso_sync.model.functions import InvokeRequest  # a list alone needs no records

MAX_RETRY_AFTER = 120.0
MAX_ERROR_BYTES = 64 * 1024
"""Bytes that are read of an error answer or a redirect, at most."""

_INFLATED = 64 * 1024
"""Bytes that are decompressed at once: a few bytes of gzip may hold a thousand times as many."""

DEFAULT_RETRY_AFTER = 60.0
"""Seconds to wait after a 429 without a usable ``Retry-After``, as Kapso documents it."""


_BEFORE_BYTES = ("http11.send_request_headers.started", "http11.send_request_body.started")
"""The steps of a request at which bytes are about to leave. Source: https://www.encode.io/httpcore/extensions/#trace"""

RETRY_BACKOFF = Backoff(initial=0.5, maximum=20.0)


@dataclass(frozen=True, slots=True)
class TransportSettings:
    """Limits of one request; times are in seconds.

    ``attempts`` includes the first attempt. ``patience`` is the timeout for all attempts together. ``max_bytes`` limits every
    answer, decompressed; most requests have a smaller limit of their own. ``network`` says which proxy to go through, and which
    authorities to trust.
    """

    deadline: float = 30.0
    attempts: int = 5
    patience: float = 300.0
    backoff: Backoff = RETRY_BACKOFF
    max_bytes: int = 256 * 1024 * 1024
    concurrency: int = 8
    user_agent: str = f"kapso-sync/{__version__}"
    key_source: str = "KAPSO_API_KEY"
    network: Network = field(default_factory=Network)


@dataclass(frozen=True, slots=True)
class ApiRequest:
    """One request.

    ``repeatable``: sending the request twice does no harm, so it may be sent again when its answer is lost. ``deadline`` (in
    seconds) and ``base_url`` replace the transport's own. ``max_bytes`` limits the answer, decompressed. ``quotes`` False: no
    text of an error answer is shown, because it may contain a secret's value. ``cut``: the answer is a list, in which a record
    that is nested too deeply is cut, and noticed by `wire.parse_list`, instead of making the answer unreadable. ``raw`` is sent
    in place of the JSON ``body``, with its headers, which never replace the key.
    """

    call: Call
    path: str
    body: Json = field(default=None, repr=False)
    query: Mapping[str, str] | None = None
    repeatable: bool = True
    deadline: float | None = None
    base_url: str | None = None
    quotes: bool = True
    max_bytes: int | None = None
    cut: bool = False
    raw: InvokeRequest | None = None

    def encoded(self) -> bytes | None:
        """Return the body as bytes, or None; JSON is ASCII only, so that every text can be encoded."""
        if self.raw is not None:
            return self.raw.body or None
        return None if self.body is None else json.dumps(self.body).encode("ascii")


@dataclass(frozen=True, slots=True)
class ApiResponse:
    """One complete answer, not yet parsed."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


class Transport:
    """A connection pool to one base URL; an async context manager.

    ``key`` is called before each request and returns the API key, so a mounted key file may change. ``calls`` counts the
    requests that were sent. ``scrub`` removes secrets from the API's error texts before they are shortened or shown.

    ``may_call`` is asked as late as possible before each request, after every wait; it raises `NotLeading` to hold it back.
    """

    def __init__(  # noqa: PLR0913 - the seams of the program meet here; each is a parameter so that tests need no patches
        self,
        base_url: str,
        key: Callable[[], str],
        *,
        clock: Clock,
        emit: events.Listener,
        random: Callable[[], float],
        pacer: RateLimiter,
        settings: TransportSettings,
        scrub: Callable[[str], str] = str,
        may_call: Callable[[], None] | None = None,
    ) -> None:
        self.base_url = base_url
        self.calls = 0
        self._key = key
        self._clock = clock
        self._emit = emit
        self._random = random
        self._pacer = pacer
        self._settings = settings
        self._scrub = scrub
        self._may_call = may_call
        self._slots = asyncio.Semaphore(settings.concurrency)
        self._patient_slots = asyncio.Semaphore(settings.concurrency)
        self._client = self._new_client()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    def _new_client(self) -> httpx.AsyncClient:
        # A cancelled request never releases its pool slot (measured with httpx 0.28.1), so the pool has extra slots.
        return open_client(
            self._settings.network,
            timeout=httpx.Timeout(self._settings.deadline, pool=5.0),
            limits=httpx.Limits(
                max_connections=self._settings.concurrency * 4, max_keepalive_connections=self._settings.concurrency
            ),
            secure=self.base_url.startswith("https:"),
        )

    @property
    def calls_per_second(self) -> float | None:
        """Our share of the rate limit, in calls per second; None while no limit is known."""
        return self._pacer.calls_per_second

    async def send(self, request: ApiRequest) -> Json:
        """Send a request until it is acknowledged by a success with an empty body or with JSON; repeat it if that is allowed.

        Return the JSON, or None. A success with any other body comes from a proxy, and counts as a lost answer. Raises
        `ApiError`.
        """
        _, value = await self._until_good(request, or_nothing=True)
        return value

    async def json(self, request: ApiRequest) -> Json:
        """Send like `send` and return the answer's JSON; an answer that is not JSON counts as lost."""
        _, value = await self._until_good(request)
        return value

    async def json_and_bytes(self, request: ApiRequest) -> tuple[Json, bytes]:
        """Send like `json` and return the answer's JSON, and the bytes that it was decoded from."""
        answer, value = await self._until_good(request)
        return value, answer.body

    async def _until_good(self, request: ApiRequest, *, or_nothing: bool = False) -> tuple[ApiResponse, Json]:
        """Return the first success and its JSON; ``or_nothing``: an empty body is None."""
        started = self._clock.monotonic()
        attempt = 0
        while True:
            attempt += 1
            try:
                answer = await self._attempt(request, self._slots, whole=False)
                self._raise_for_status(request, answer)
                nothing = or_nothing and not answer.body.strip()
                return answer, None if nothing else await self._decoded(request, answer)
            except ApiError as error:
                wait = self._wait_before_retry(request, error, attempt)
                if wait is None or self._clock.monotonic() - started + wait > self._settings.patience:
                    raise
                self._emit(_retry_event(request, error, attempt, wait))
            await self._clock.sleep(wait)

    async def _decoded(self, request: ApiRequest, answer: ApiResponse) -> Json:
        try:
            if quickly_read(answer.body):
                return decode(answer.body, request.call, answer.status, cut=request.cut)
            return await asyncio.to_thread(decode, answer.body, request.call, answer.status, cut=request.cut)
        except ApiGarbled as error:
            error.hint = self._other_base_hint()
            raise

    async def once(self, request: ApiRequest) -> ApiResponse:
        """Send a request once and return its answer with any status; raises `ApiError` only if there is no answer.

        The answer may be slow, because a user's function makes it. So these requests do not use the slots of other requests.
        """
        return await self._attempt(request, self._patient_slots, whole=True)

    async def _attempt(self, request: ApiRequest, slots: asyncio.Semaphore, *, whole: bool) -> ApiResponse:
        async with slots:
            ticket = await self._pacer.ticket()
            if self._may_call is not None:
                try:
                    self._may_call()
                except NotLeading:
                    await self._pacer.lost(ticket)
                    raise
            answer = None
            started = self._clock.monotonic()
            try:
                self.calls += 1
                answer = await self._exchange(request, whole=whole)
            finally:
                await asyncio.shield(self._give_back(ticket, answer))
                self._tell(request, answer, self._clock.monotonic() - started)
            return answer

    async def _exchange(self, request: ApiRequest, *, whole: bool) -> ApiResponse:
        deadline = request.deadline or self._settings.deadline
        headers = httpx.Headers({"Accept": "application/json", "User-Agent": self._settings.user_agent})
        headers.update(request.raw.headers if request.raw is not None else {})
        headers.update({"X-API-Key": self._key(), "Accept-Encoding": "gzip"})
        content = request.encoded()
        if content is not None:
            headers["Content-Type"] = "application/json" if request.raw is None else request.raw.content_type
        url = f"{request.base_url or self.base_url}{request.path}"
        try:
            async with (
                asyncio.timeout(deadline),
                self._client.stream(
                    request.call.method,
                    url,
                    params=request.query,
                    content=content,
                    headers=headers,
                    extensions={} if self._may_call is None else {"trace": self._before_bytes},
                ) as response,
            ):
                return ApiResponse(response.status_code, response.headers, await self._read(request, response, whole=whole))
        except TimeoutError as error:
            raise ApiUnavailable(
                f"{request.call} got no answer within {deadline:g} s", call=request.call, hint=_LOOK
            ) from error
        except httpx.PoolTimeout as error:
            self._client = self._new_client()
            raise ApiUnavailable(f"{request.call}: no free connection", call=request.call, sent=False) from error
        except httpx.ProxyError as error:
            raise ApiUnavailable(
                f"no connection to {self._host()}: the proxy refuses it: {failure_reason(error)}",
                call=request.call,
                hint=PROXY_HINT,
                sent=False,
            ) from error
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.UnsupportedProtocol) as error:
            raise ApiUnavailable(
                f"no connection to {self._host()}: {failure_reason(error)}",
                call=request.call,
                hint=self._connection_hint(error),
                sent=False,
            ) from error
        except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError, OSError) as error:
            raise ApiUnavailable(f"{request.call}: the connection broke: {failure_reason(error)}", call=request.call) from error

    async def _before_bytes(self, step: str, _: Mapping[str, object]) -> None:
        """Ask once more when the connection is there, which may have taken long, and between the head and the body.

        Without its body a write is incomplete, and the server drops it. httpcore calls this at each step of a request.
        """
        if self._may_call is not None and step in _BEFORE_BYTES:
            self._may_call()

    async def _read(self, request: ApiRequest, response: httpx.Response, *, whole: bool) -> bytes:
        """Return the decompressed body. Of an error only the beginning is read, unless the ``whole`` body is asked for.

        It is decompressed here, piece by piece: httpx would decompress each piece as a whole, through any number of layers.
        """
        body = bytearray()
        most = min(request.max_bytes or self._settings.max_bytes, self._settings.max_bytes)
        failed = not whole and not 200 <= response.status_code < 300
        encoding = response.headers.get("content-encoding", "").strip().lower()
        if encoding not in ("", "identity", "gzip", "x-gzip"):
            if failed:
                return b""
            text = f"{request.call} answered with a compression that was not asked for"
            raise ApiGarbled(text, call=request.call, status=response.status_code)
        inflate = None if encoding in ("", "identity") else _Inflate()
        async for received in response.aiter_raw():
            for part in (received,) if inflate is None else inflate.parts(received, request.call):
                body += part
                if failed and len(body) > MAX_ERROR_BYTES:
                    return bytes(body[:MAX_ERROR_BYTES])
                if len(body) > most:
                    raise AnswerTooLarge(f"{request.call} answered with more than {_size(most)}", call=request.call)
        if inflate is not None and not inflate.complete and not failed:
            raise ApiGarbled(f"{request.call} answered with broken compression", call=request.call)
        return bytes(body)

    async def _give_back(self, ticket: Permit, answer: ApiResponse | None) -> None:
        if answer is None:
            await self._pacer.lost(ticket)
        elif answer.status == 429:
            await self._pacer.refused(ticket, _retry_after(answer))
        else:
            await self._pacer.answered(ticket, _number(answer, "x-ratelimit-limit"), _number(answer, "x-ratelimit-remaining"))

    def _tell(self, request: ApiRequest, answer: ApiResponse | None, seconds: float) -> None:
        self._emit(
            events.ApiCalled(
                method=request.call.method,
                route=request.call.route,
                status=answer.status if answer else None,
                duration_ms=round(seconds * 1000),
                rate_limit=_number(answer, "x-ratelimit-limit") if answer else None,
                rate_remaining=_number(answer, "x-ratelimit-remaining") if answer else None,
            )
        )

    def _wait_before_retry(self, request: ApiRequest, error: ApiError, attempt: int) -> float | None:
        if attempt >= self._settings.attempts or isinstance(error, AnswerTooLarge):
            return None
        if isinstance(error, ApiRateLimited):
            return error.retry_after
        certainly_unsent = isinstance(error, ApiUnavailable) and not error.sent
        if certainly_unsent or (request.repeatable and isinstance(error, ApiUnavailable | ApiGarbled)):
            return self._settings.backoff.jittered(attempt, self._random(), least=0.1)
        return None

    def _raise_for_status(self, request: ApiRequest, answer: ApiResponse) -> None:
        status, call = answer.status, request.call
        if 200 <= status < 300:
            return
        said = self._said(request, answer)
        message = f"{call} answered {status}" + (f": {said}" if said else "")
        if 300 <= status < 400:
            target = httpx.URL(answer.headers.get("location", "")).host or "elsewhere"
            raise ApiGarbled(
                f"{call} answered {status}, a redirect to {target}; the key is not sent there",
                call=call,
                status=status,
                hint=f"KAPSO_API_BASE_URL may be wrong: it is {self.base_url}",
            )
        if status == 404:
            hint = None if request.path.count("/") > 1 else self._other_base_hint()
            raise ApiNotFound(message, call=call, status=status, hint=hint)
        if status == 429:
            wait = _retry_after(answer)
            raise ApiRateLimited(
                message, call=call, status=status, hint="a smaller KAPSO_SYNC_RATE_SHARE helps", retry_after=wait
            )
        raise self._refusal(request, answer, message)

    def _refusal(self, request: ApiRequest, answer: ApiResponse, message: str) -> ApiError:
        """Return the error for a status that is not a success, a redirect, 404 or 429."""
        status, call = answer.status, request.call
        if status == 401:
            hint = f"look at {self._settings.key_source}: is it this project's key?"
            return ApiUnauthorized(message, call=call, status=status, hint=hint)
        if status == 403 and not is_json_error(answer.body):
            return ApiUnavailable(message, call=call, status=status, hint=_REFUSED_STATUSES)
        if status in (502, 503, 504) and not request.quotes:
            return SecretRoutesUnavailable(
                message, call=call, status=status, hint="Kapso's secrets are at Cloudflare: try later"
            )
        if status >= 500 or status == 408:
            return ApiUnavailable(message, call=call, status=status, hint=_LOOK)
        if not request.quotes and status == 422 and is_name_taken(answer.body):
            return SecretNameTaken(f"{message}: its name is taken", call=call, status=status)
        kinds: Mapping[int, type[ApiError]] = {
            402: ApiPaymentRequired,
            403: ApiForbidden,
            405: ApiUnsupported,
            409: ApiConflict,
        }
        return kinds.get(status, ApiRejected)(message, call=call, status=status)

    def _said(self, request: ApiRequest, answer: ApiResponse) -> str | None:
        return (
            error_text(answer.body, lambda text: without_request(self._scrub(text), request.body)) if request.quotes else None
        )

    def _other_base_hint(self) -> str:
        return f"KAPSO_API_BASE_URL is {self.base_url}; Kapso also answers at {other_base(self.base_url)}"

    def _connection_hint(self, error: BaseException) -> str:
        if is_unverified(error):
            return AUTHORITY_HINT
        return _LOOK if self._settings.network.proxy_for(self.base_url) is None else f"{_LOOK}. {PROXY_HINT}"

    def _host(self) -> str:
        return httpx.URL(self.base_url).netloc.decode("ascii")


class _Inflate:
    """Decompresses gzip in pieces of a limited size."""

    def __init__(self) -> None:
        self._decoder = zlib.decompressobj(zlib.MAX_WBITS | 16)
        self._begun = False

    @property
    def complete(self) -> bool:
        """Whether the compressed data ended where it should; nothing at all is complete as well."""
        return self._decoder.eof or not self._begun

    def parts(self, received: bytes, call: Call) -> Iterator[bytes]:
        """Yield what was received, decompressed; raises `ApiGarbled` when it cannot be."""
        self._begun = self._begun or bool(received)
        more = bool(received)
        while more:
            try:
                part = self._decoder.decompress(received, _INFLATED)
            except zlib.error as error:
                raise ApiGarbled(f"{call} answered with broken compression", call=call) from error
            yield part
            received = self._decoder.unconsumed_tail
            # Where the piece is full, the decoder may hold more of the same data.
            more = not self._decoder.eof and (bool(received) or len(part) == _INFLATED)


_REFUSED_STATUSES = (
    "a proxy or Kapso's firewall turned the client away: look at proxies in between, and try another KAPSO_SYNC_USER_AGENT"
)
_LOOK = "is Kapso up, and KAPSO_API_BASE_URL right? Try again; a daemon does so by itself"


def _retry_event(request: ApiRequest, error: ApiError, attempt: int, wait: float) -> events.ApiRetry:
    return events.ApiRetry(
        method=request.call.method,
        route=request.call.route,
        status=error.status,
        attempt=attempt,
        wait_s=round(wait, 3),
        error=error.message,
    )


def _retry_after(answer: ApiResponse) -> float:
    """Return the seconds to wait after a 429, within limits; a header that says nothing counts as the documented minute."""
    seconds = retry_after(answer.headers)
    return DEFAULT_RETRY_AFTER if seconds is None else min(max(seconds, 1.0), MAX_RETRY_AFTER)


def _number(answer: ApiResponse, header: str) -> int | None:
    text = answer.headers.get(header, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def _size(count: int) -> str:
    return f"{count // (1024 * 1024)} MiB" if count >= 1024 * 1024 else f"{count:,} bytes"
