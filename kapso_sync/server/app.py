"""The application: what is asked, who may ask it, and what is answered."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from kapso_sync.model.clock import Clock
from kapso_sync.model.status import Status, status_document
from kapso_sync.server.access import SafeHeaders, error, foreign_host, may_act, may_look
from kapso_sync.server.hooks import Ping, Refused, concerns, read_hook
from kapso_sync.server.page import render_page

LARGEST_BODY = 1024 * 1024
BODY_SECONDS = 10.0
HEARTBEAT = 15.0
REMEMBERED = 1000
"""So many delivery ids are kept, to answer a replay without another look."""

STATIC = Path(__file__).with_name("static")


@dataclass(frozen=True, slots=True)
class ServerDeps:
    """What the server asks of the daemon. ``public``: it listens off loopback, so that page and status need the token.

    ``unhealthy`` returns what is wrong with the daemon itself; ``watched`` the source's address and, where one is configured,
    the branch or tag. ``changed`` ends when the status changes, ``passed`` with the next pass, returning its exit code.
    """

    status: Callable[[], Status]
    unhealthy: Callable[[], str | None]
    ready: Callable[[], bool]
    metrics: Callable[[], tuple[bytes, str]]
    changed: Callable[[], Awaitable[None]]
    passed: Callable[[], Awaitable[int]]
    webhook_secret: Callable[[], str | None]
    admin_token: Callable[[], str]
    trigger: Callable[[str], None]
    suspend: Callable[[str, float | None], None]
    resume: Callable[[], None]
    watched: Callable[[], tuple[str, str | None]]
    clock: Clock
    public: bool = False


def make_app(deps: ServerDeps) -> Starlette:
    """Return the application."""
    server = _Server(deps)
    routes = [
        Route("/healthz", server.healthz),
        Route("/readyz", server.readyz),
        Route("/metrics", server.metrics),
        Route("/api/status", server.status),
        Route("/", server.page),
        Route("/events", server.events),
        Route("/static/{name}", server.static),
        Route("/hooks/git", server.hook, methods=["POST"]),
        Route("/api/reconcile", server.reconcile, methods=["POST"]),
        Route("/api/suspend", server.suspend, methods=["POST"]),
        Route("/api/resume", server.resume, methods=["POST"]),
    ]
    return Starlette(
        routes=routes,
        middleware=[Middleware(SafeHeaders)],
        exception_handlers={HTTPException: _http_error, Exception: _internal_error},
    )


@dataclass
class _Server:
    """The endpoints."""

    deps: ServerDeps
    seen: OrderedDict[str, None] = field(default_factory=OrderedDict)

    async def healthz(self, _: Request) -> Response:
        """Tell whether the daemon itself is well."""
        problem = self.deps.unhealthy()
        return PlainTextResponse("ok\n") if problem is None else PlainTextResponse(f"{problem}\n", 503)

    async def readyz(self, _: Request) -> Response:
        """Tell whether the first look was taken, whatever it showed."""
        return PlainTextResponse("ok\n") if self.deps.ready() else PlainTextResponse("starting\n", 503)

    async def metrics(self, _: Request) -> Response:
        """Return metrics in Prometheus' format."""
        content, kind = self.deps.metrics()
        return Response(content, headers={"Content-Type": kind})

    async def status(self, request: Request) -> Response:
        """Return the status as JSON."""
        return self._closed(request) or JSONResponse(status_document(self.deps.status()))

    async def page(self, request: Request) -> Response:
        """Return the status page."""
        return self._closed(request) or HTMLResponse(render_page(self.deps.status()))

    async def static(self, request: Request) -> Response:
        """Return the page's style sheet or script."""
        kinds = {"page.css": "text/css", "page.js": "text/javascript"}
        name = request.path_params["name"]
        if name not in kinds:
            return error(404, "not found")
        return FileResponse(STATIC / name, media_type=kinds[name])

    async def events(self, request: Request) -> Response:
        """Return server-sent events: one for each change of the status."""
        return self._closed(request) or StreamingResponse(self._changes(), media_type="text/event-stream")

    async def _changes(self) -> AsyncIterator[str]:
        yield "retry: 3000\n\n"
        while True:
            try:
                async with asyncio.timeout(HEARTBEAT):
                    await self.deps.changed()
            except TimeoutError:
                yield ": still here\n\n"
            else:
                yield "event: changed\ndata: {}\n\n"
                # Many changes in a moment are one for who looks.
                await self.deps.clock.sleep(0.2)

    async def hook(self, request: Request) -> Response:
        """Take a push; it only rings the bell, and is answered before any work."""
        secret = self.deps.webhook_secret()
        if secret is None:
            return error(404, "no webhook is configured")
        body = await _body(request)
        if isinstance(body, Response):
            return body
        headers = {name.lower(): value for name, value in request.headers.items()}
        verdict = read_hook(headers, body, secret, self.deps.clock.now().timestamp())
        if isinstance(verdict, Refused):
            return error(verdict.status, verdict.reason)
        if isinstance(verdict, Ping):
            return JSONResponse({"pong": True})
        delivery = verdict.delivery or uuid.uuid4().hex
        if self._replayed(verdict.delivery):
            return JSONResponse({"delivery": delivery, "ignored": "this delivery was taken before"}, 202)
        ignored = concerns(verdict, *self.deps.watched())
        if ignored is not None:
            return JSONResponse({"delivery": delivery, "ignored": ignored}, 202)
        self.deps.trigger("webhook")
        return JSONResponse({"delivery": delivery}, 202)

    def _replayed(self, delivery: str | None) -> bool:
        if delivery is None:
            return False
        known = delivery in self.seen
        self.seen[delivery] = None
        while len(self.seen) > REMEMBERED:
            self.seen.popitem(last=False)
        return known

    async def reconcile(self, request: Request) -> Response:
        """Ask for a pass; with ``?wait=1`` answer when it has ended."""
        if (closed := self._admin(request)) is not None:
            return closed
        if request.query_params.get("wait") not in ("1", "true"):
            self.deps.trigger("reconcile")
            return JSONResponse({"accepted": True}, 202)
        # A pass that runs already may have read the source before this request: the one after it is awaited.
        running = self.deps.status().reconciling
        passed = asyncio.ensure_future(self.deps.passed())
        self.deps.trigger("reconcile")
        code = await passed
        if running:
            code = await self.deps.passed()
        return JSONResponse({"exit_code": code, "status": status_document(self.deps.status())}, 202)

    async def suspend(self, request: Request) -> Response:
        """Stop writing: ``{"reason": "…", "for_seconds": 7200}``."""
        if (closed := self._admin(request)) is not None:
            return closed
        body = await _body(request)
        if isinstance(body, Response):
            return body
        try:
            asked = json.loads(body or b"{}")
            reason, seconds = asked["reason"], asked.get("for_seconds")
        except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
            return error(400, "expected a JSON object with a reason")
        if not isinstance(reason, str) or not reason.strip() or len(reason) > 500:
            return error(400, "reason: expected some text, of at most 500 characters")
        number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
        if seconds is not None and not (number and 0 < seconds <= 365 * 86400):
            return error(400, "for_seconds: expected a number above 0, or null")
        self.deps.suspend(" ".join(reason.split()), seconds)
        return JSONResponse({"suspended": True}, 202)

    async def resume(self, request: Request) -> Response:
        """Write again."""
        if (closed := self._admin(request)) is not None:
            return closed
        self.deps.resume()
        return JSONResponse({"suspended": False}, 202)

    def _closed(self, request: Request) -> Response | None:
        if foreign_host(request, public=self.deps.public):
            return error(403, "ask for this server by its own name")
        if self.deps.public and not may_look(request, self.deps.admin_token):
            return error(401, "the admin token is needed", **{"WWW-Authenticate": 'Basic realm="kapso-sync", charset="UTF-8"'})
        return None

    def _admin(self, request: Request) -> Response | None:
        if foreign_host(request, public=self.deps.public):
            return error(403, "ask for this server by its own name")
        if not may_act(request, self.deps.admin_token):
            return error(401, "the admin token is needed", **{"WWW-Authenticate": "Bearer"})
        return None


async def _body(request: Request) -> bytes | Response:
    """Return the whole body; 413 beyond the limit, announced or not, and 408 for one that does not arrive in time."""
    announced = request.headers.get("content-length", "0")
    if announced.isdigit() and int(announced) > LARGEST_BODY:
        return error(413, "the body is larger than 1 MiB", Connection="close")
    parts, size = [], 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for part in request.stream():
                size += len(part)
                if size > LARGEST_BODY:
                    return error(413, "the body is larger than 1 MiB", Connection="close")
                parts.append(part)
    except TimeoutError:
        return error(408, "the body did not arrive in time", Connection="close")
    return b"".join(parts)


async def _http_error(_: Request, problem: Exception) -> Response:
    status = problem.status_code if isinstance(problem, HTTPException) else 500
    headers = dict(problem.headers or {}) if isinstance(problem, HTTPException) else {}
    return error(status, {404: "not found", 405: "method not allowed"}.get(status, "the request cannot be served"), **headers)


async def _internal_error(_: Request, __: Exception) -> Response:
    return error(500, "something went wrong here; the log may say more")
