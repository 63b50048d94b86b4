"""Handles every request to the emulated API first: logs it, counts it against the rate limit, and applies faults."""

from __future__ import annotations

import hmac

from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope, Send

from kapso_sync.emulator.answers import Answer, error_answer, json_answer, positive
from kapso_sync.emulator.deps import EmulatorDeps
from kapso_sync.emulator.faults import Asked, Rule
from kapso_sync.emulator.limiter import Allowance
from kapso_sync.emulator.requestlog import Entry
from kapso_sync.emulator.routes import Asking, FunctionsApi, find_route
from kapso_sync.emulator.wire import Exchange, stand_in
from kapso_sync.emulator.world import NoSuch

BODY_LIMIT = 16 * 1024 * 1024


class ApiMiddleware:
    """An ASGI application around the Functions API; ``api_key`` is the valid key."""

    def __init__(self, parts: EmulatorDeps, api: FunctionsApi, api_key: str) -> None:
        self._world = parts.world
        self._faults = parts.faults
        self._limiter = parts.limiter
        self._log = parts.log
        self._hangs = parts.hangs
        self._clock = parts.clock
        self._api = api
        self._key = api_key.encode("utf-8")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        request = Request(scope, receive)
        try:
            body = await _read(request)
        except ClientDisconnect:
            return
        asking = self._asking(request, body or b"")
        entry = self._enter(asking, scope["path"])
        fault = self._faults.strike(self._asked(asking))
        entry.fault = fault.what if fault else None
        allowance = self._limiter.take() if asking.key_ok else self._limiter.look()
        exchange = Exchange(scope, receive, send, self._hangs)
        exchange.headers = allowance.headers()
        if body is None:
            await self._send(exchange, entry, error_answer(413, "Request body is too large"))
        elif fault is None:
            await self._send(exchange, entry, await self._act(asking, allowance, None))
        elif fault.acts_first:
            await self._strike(exchange, entry, fault, await self._act(asking, allowance, fault))
        else:
            await self._strike(exchange, entry, fault, None)

    async def _act(self, asking: Asking, allowance: Allowance, fault: Rule | None) -> Answer:
        if not allowance.allowed:
            message = f"You have made more than {allowance.limit} requests. Try again in {allowance.retry_after} seconds."
            return json_answer(429, {"error": "Rate limit exceeded", "message": message})
        return await self._api.answer(asking, fault)

    async def _send(self, exchange: Exchange, entry: Entry, answer: Answer) -> None:
        entry.status = answer.status
        entry.console = [list(line) for line in answer.console]
        await exchange.answer(answer)

    async def _strike(self, exchange: Exchange, entry: Entry, fault: Rule, answer: Answer | None) -> None:
        if fault.what in ("drop_before", "drop_after"):
            await exchange.drop()
        elif fault.what in ("hang_before", "hang_after"):
            await exchange.hang()
        else:
            answer = stand_in(fault, entry.path) or answer
            assert answer is not None  # noqa: S101 - a fault without an answer of its own acts first
            entry.status = answer.status
            if fault.what == "drip":
                await exchange.drip(answer, fault.seconds)
            elif fault.what == "truncate":
                await exchange.truncate(answer)
            else:
                await exchange.answer(answer)

    def _asking(self, request: Request, body: bytes) -> Asking:
        key = request.headers.get("x-api-key", "").encode("latin-1")
        return Asking(
            method=request.method,
            route=find_route(request.scope["path"]),
            query=dict(request.query_params),
            body=body,
            headers=dict(request.headers),
            key_ok=hmac.compare_digest(key, self._key),
            url=str(request.url),
            origin=f"{request.url.scheme}://{request.url.netloc}",
        )

    def _enter(self, asking: Asking, path: str) -> Entry:
        entry = Entry(
            seq=self._log.next_seq(),
            time=self._clock.now(),
            method=asking.method,
            path=path,
            base=asking.route.base,
            route=asking.route.template,
            query=dict(asking.query),
            key_ok=asking.key_ok,
            size=len(asking.body),
            body=asking.json,
            user_agent=asking.headers.get("user-agent"),
        )
        self._log.add(entry)
        return entry

    def _asked(self, asking: Asking) -> Asked:
        return Asked(
            method=asking.method,
            route=asking.route.template,
            slug=self._slug(asking) if self._faults.wants_slug else None,
            page=positive(asking.query.get("page")) or 1,
        )

    def _slug(self, asking: Asking) -> str | None:
        function_id = asking.route.params.get("id")
        if function_id is not None:
            try:
                return self._world.by_id(function_id).slug
            except NoSuch:
                return None
        body = asking.json
        attributes = body.get("function") if isinstance(body, dict) else None
        slug = attributes.get("slug") if isinstance(attributes, dict) else None
        return slug if isinstance(slug, str) else None


async def _read(request: Request) -> bytes | None:
    """Return the body, or None if it is too large; it is read to its end in any case."""
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size <= BODY_LIMIT:
            parts.append(part)
    return b"".join(parts) if size <= BODY_LIMIT else None
