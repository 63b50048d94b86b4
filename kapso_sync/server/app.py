"""Defines the HTTP application: its routes, their access rules, and their answers."""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
import uuid
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from starlette.applications import Starlette
from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from kapso_sync.aio import first_of
from kapso_sync.dataclass import dataclass
from kapso_sync.errors import KapsoSyncError
from kapso_sync.model.clock import Clock
from kapso_sync.model.events import WebhookRefusal, WebhookRefused
from kapso_sync.model.policies import PassOverrides
from kapso_sync.model.status import Role
from kapso_sync.server.access import HEADERS, Access, FramingCheck, HostCheck, Json, SafeHeaders, encode_json, error
from kapso_sync.server.bodies import BodyReader
from kapso_sync.server.control import DaemonControl, ServerLimits
from kapso_sync.server.forms import suspension_reason
from kapso_sync.server.hooks import Ignored, Ping, Refused, concerns, read_hook
from kapso_sync.server.rendering import StatusRenderer
from kapso_sync.server.sessions import Guesses, Sessions
from kapso_sync.server.views import PageViews

MAX_SUSPENSION = 365 * 86400
_YES, _NO = ("1", "true"), ("", "0", "false")
_LISTS, _FLAGS = ("retry", "overwrite", "take_from", "delete"), ("allow_recreate", "reset_secrets", "wait")
"""Parameters of a request for a pass: those that name slugs or owners, and those that are on or off."""

_REFUSAL_HINTS = {
    WebhookRefusal.NO_SIGNATURE: "set the secret of KAPSO_SYNC_WEBHOOK_SECRET at the git host's webhook",
    WebhookRefusal.WRONG_SIGNATURE: "the git host's webhook must have the secret of KAPSO_SYNC_WEBHOOK_SECRET",
    WebhookRefusal.WRONG_TIME: "set the clock of this machine",
    WebhookRefusal.UNUSABLE_SECRET: "set KAPSO_SYNC_WEBHOOK_SECRET to the secret of the git host's webhook",
}

STATIC = Path(__file__).with_name("static")


def make_app(
    control: DaemonControl,
    clock: Clock,
    *,
    public: bool,
    limits: ServerLimits,
    random: Callable[[int], bytes] = secrets.token_bytes,
) -> Starlette:
    """Return the application. ``public``: it listens on other addresses than loopback, so page and status need the token.

    ``random`` returns that many bytes which nobody can guess.
    """
    replays = Replays(clock, limits.replay_window, limits.deliveries)
    access = Access(control.admin_token, Sessions(clock, limits, random), public=public)
    bodies, renderer = BodyReader(limits), StatusRenderer()
    server = _Server(control, clock, limits, replays, access, bodies, renderer)
    views = PageViews(control, access, bodies, renderer, limits, Guesses(clock, limits))
    routes = [
        *views.routes(),
        Route("/healthz", server.healthz),
        Route("/readyz", server.readyz),
        Route("/metrics", server.metrics),
        Route("/api/status", server.status),
        Route("/events", server.events),
        Route("/static/{name}", server.static),
        Route("/hooks/git", server.hook, methods=["POST"]),
        Route("/api/reconcile", server.reconcile, methods=["POST"]),
        Route("/api/suspend", server.suspend, methods=["POST"]),
        Route("/api/resume", server.resume, methods=["POST"]),
    ]
    app = Starlette(
        routes=routes,
        middleware=[Middleware(SafeHeaders), Middleware(FramingCheck), Middleware(HostCheck, public=public)],
        exception_handlers={HTTPException: _http_error, KapsoSyncError: _told_error, Exception: _internal_error},
    )
    # A redirect would be built from the Host header, which anybody can choose.
    app.router.redirect_slashes = False
    return app


class Replays:
    """The pushes that were taken within the last ``window`` seconds, at most ``limit``, by what was signed.

    Whoever has captured a push can send it again under another delivery id: the signature holds for the body alone. After the
    window it counts once more, so that *Redeliver* works.
    """

    def __init__(self, clock: Clock, window: float, limit: int) -> None:
        self._clock = clock
        self._window = window
        self._limit = limit
        self._taken: OrderedDict[bytes, float] = OrderedDict()

    def taken(self, body: bytes) -> bool:
        """Return whether this body was taken within the window; if it was not, it is now."""
        now, key = self._clock.monotonic(), hashlib.sha256(body).digest()
        while self._taken and next(iter(self._taken.values())) + self._window <= now:
            self._taken.popitem(last=False)
        if key in self._taken:
            return True
        self._taken[key] = now
        while len(self._taken) > self._limit:
            self._taken.popitem(last=False)
        return False

    def forget(self, body: bytes) -> None:
        """Let the body be taken again."""
        self._taken.pop(hashlib.sha256(body).digest(), None)


@dataclass(frozen=True, slots=True)
class _Rendered:
    """Metrics as they were at a time: they take some ms, and everybody may ask for them."""

    at: float
    content: bytes
    kind: str


@dataclass
class _Server:
    """The endpoints."""

    control: DaemonControl
    clock: Clock
    limits: ServerLimits
    replays: Replays
    access: Access
    bodies: BodyReader
    renderer: StatusRenderer
    streams: int = 0
    rendered: _Rendered | None = None

    async def healthz(self, _: Request) -> Response:
        """Return whether the daemon itself is healthy."""
        problem = self.control.unhealthy()
        return PlainTextResponse("ok\n") if problem is None else PlainTextResponse(f"{problem}\n", 503)

    async def readyz(self, _: Request) -> Response:
        """Return whether the source was read once, with any result."""
        return PlainTextResponse("ok\n") if self.control.started() else PlainTextResponse("starting\n", 503)

    async def metrics(self, _: Request) -> Response:
        """Return metrics in Prometheus' format, for a moment the same to all who ask."""
        now = self.clock.monotonic()
        if self.rendered is None or now - self.rendered.at >= self.limits.metrics_age:
            self.rendered = _Rendered(now, *self.control.metrics())
        return Response(self.rendered.content, headers={"Content-Type": self.rendered.kind})

    async def status(self, request: Request) -> Response:
        """Return the status as JSON."""
        if (closed := self.access.closed(request)) is not None:
            return closed
        trusted = self.access.viewer(request).trusted
        return Response(self.renderer.document(self.control.status(), trusted=trusted), media_type="application/json")

    async def static(self, request: Request) -> Response:
        """Return the page's style sheet or script."""
        kinds = {"page.css": "text/css", "page.js": "text/javascript"}
        name = request.path_params["name"]
        if name not in kinds:
            return error(404, "not found")
        return FileResponse(STATIC / name, media_type=kinds[name])

    async def events(self, request: Request) -> Response:
        """Return server-sent events: one for each change of the status."""
        if (closed := self.access.closed(request)) is not None:
            return closed
        if self.streams >= self.limits.streams:
            return error(503, "too many clients are connected", **{"Retry-After": "10"})
        if request.method == "HEAD":
            return Response(media_type="text/event-stream")
        return _EventStream(self)

    async def changes(self) -> AsyncIterator[str]:
        """Yield an event for each change of the status, and now and then a sign of life."""
        waiting = asyncio.ensure_future(self.control.changed())
        try:
            yield "retry: 3000\n\n"
            while True:
                done, _ = await asyncio.wait({waiting}, timeout=self.limits.heartbeat)
                if not done:
                    yield ": still here\n\n"
                    continue
                # The next change is waited for before this one is told: none can fall in between.
                waiting = asyncio.ensure_future(self.control.changed())
                await self.clock.sleep(self.limits.gather)
                yield "event: changed\ndata: {}\n\n"
        finally:
            waiting.cancel()

    async def hook(self, request: Request) -> Response:
        """Handle a push: request a pass, and answer before any work is done."""
        try:
            secret = self.control.webhook_secret()
        except KapsoSyncError as problem:
            answer = Refused(503, "the webhook's secret cannot be read at the moment", WebhookRefusal.UNUSABLE_SECRET)
            return self._refuse_push(request, answer, problem)
        if not secret:
            return error(404, "no webhook is configured")
        body = await self.bodies.read(request)
        if isinstance(body, Response):
            if body.status_code == 413:
                self._refuse_push(request, Refused(413, "the body is larger than 1 MiB", WebhookRefusal.TOO_LARGE))
            return body
        headers = {name.lower(): value for name, value in request.headers.items()}
        verdict = read_hook(headers, body, secret, self.clock.now().timestamp())
        if isinstance(verdict, Refused):
            return self._refuse_push(request, verdict)
        if isinstance(verdict, Ping):
            return Json({"pong": True})
        delivery = verdict.delivery or uuid.uuid4().hex
        if isinstance(verdict, Ignored):
            ignored: str | None = verdict.reason
        else:
            ignored = concerns(verdict, *self.control.watched(), self.control.moved_to())
        if ignored is None and self.replays.taken(body):
            # A script may send the same body for each push: what is new is found all the same, and nothing else is done.
            self.control.look_for_changes()
            ignored = "the same push was taken less than a minute ago"
        if ignored is not None:
            return Json({"delivery": delivery, "ignored": ignored}, 202)
        try:
            await self.control.request_after_push()
        except KapsoSyncError:
            self.replays.forget(body)  # The leader was not told: the same push, sent again, is no replay.
            raise
        return Json({"delivery": delivery}, 202)

    def _refuse_push(self, request: Request, refused: Refused, problem: KapsoSyncError | None = None) -> Response:
        """Report a push that is refused, for this problem of ours if there is one, and return the answer to it."""
        peer = request.client.host if request.client is not None else None
        told, hint = (refused.reason, _REFUSAL_HINTS.get(refused.kind)) if problem is None else (problem.message, problem.hint)
        self.control.push_refused(WebhookRefused(reason=str(refused.kind), error=told, peer=peer, hint=hint))
        return error(refused.status, refused.reason)

    async def reconcile(self, request: Request) -> Response:
        """Request a pass; ``?retry=SLUG`` and its like are `PassOverrides`, and ``?wait=1`` answers when the pass has ended.

        While suspended there is nothing to wait for, and a standby hands the request to the leader.
        """
        if (closed := self.access.admin(request)) is not None:
            return closed
        if (problem := _query_problem(request.query_params)) is not None:
            return error(400, problem)
        overrides = _overrides(request.query_params)
        status = self.control.status()
        unknown = overrides.slugs - {function.slug for function in status.functions}
        if unknown and status.role is Role.LEADER:
            return error(404, f"no function {', '.join(sorted(unknown))}")
        if status.suspension is not None:
            await self.control.request_reconcile(overrides)
            return Json({"accepted": True, "suspended": status.suspension.reason}, 202)
        if status.role is Role.STANDBY:
            await self.control.request_reconcile(overrides)
            return Json({"accepted": True, "leader": status.replica.leader if status.replica is not None else None}, 202)
        if request.query_params.get("wait") not in _YES:
            await self.control.request_reconcile(overrides)
            return Json({"accepted": True}, 202)
        code = await _while_connected(request, self._pass_from_now(overrides))
        status_json = self.renderer.document(self.control.status(), trusted=True)
        content = b'{"exit_code":%b,"status":%b}' % (encode_json(code).encode(), status_json)
        return Response(content, 202, media_type="application/json")

    async def _pass_from_now(self, overrides: PassOverrides) -> int:
        """Request a pass and wait for its end; a pass that runs already may have read the source before, and does not count."""
        running = self.control.status().reconciling
        passed = asyncio.ensure_future(self.control.passed())
        try:
            await self.control.request_reconcile(overrides)
            code = await passed
        finally:
            passed.cancel()
        return await self.control.passed() if running else code

    async def suspend(self, request: Request) -> Response:
        """Stop writing: ``{"reason": "…", "for_seconds": 7200}``."""
        if (closed := self.access.admin(request)) is not None:
            return closed
        body = await self.bodies.read(request)
        if isinstance(body, Response):
            return body
        try:
            asked = json.loads(body or b"{}")
            reason, seconds = asked["reason"], asked.get("for_seconds")
        except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
            return error(400, "expected a JSON object with a reason")
        reason = suspension_reason(reason)
        if reason is None:
            return error(400, "reason: expected some text, of at most 500 characters")
        number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
        if seconds is not None and not (number and 0 < seconds <= MAX_SUSPENSION):
            return error(400, "for_seconds: expected a number above 0, at most a year, or null for until somebody resumes")
        await self.control.suspend(reason, seconds)
        return Json({"suspended": True}, 202)

    async def resume(self, request: Request) -> Response:
        """Write again."""
        if (closed := self.access.admin(request)) is not None:
            return closed
        await self.control.resume()
        return Json({"suspended": False}, 202)


class _EventStream(StreamingResponse):
    """Counts itself from its first step on: nothing else runs between the look at the number and that step."""

    def __init__(self, server: _Server) -> None:
        super().__init__(server.changes(), media_type="text/event-stream")
        self._server = server

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._server.streams += 1
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._server.streams -= 1


def _query_problem(query: QueryParams) -> str | None:
    """Return what is wrong with the parameters of a request for a pass, or None; none is ignored."""
    for name, value in query.multi_items():
        if name in _LISTS and not value.strip():
            return f"{name}: expected a name"
        if name in _FLAGS and value not in (*_YES, *_NO):
            return f"{name}: expected 1 or 0"
        if name not in (*_LISTS, *_FLAGS):
            return f"unknown parameter; known are {', '.join((*_LISTS, *_FLAGS))}"
    return None


def _overrides(query: QueryParams) -> PassOverrides:
    return PassOverrides(
        retry=frozenset(query.getlist("retry")),
        overwrite=frozenset(query.getlist("overwrite")),
        take_from=frozenset(query.getlist("take_from")),
        delete=frozenset(query.getlist("delete")),
        allow_recreate=query.get("allow_recreate") in _YES,
        reset_secrets=query.get("reset_secrets") in _YES,
    )


async def _while_connected(request: Request, work: Awaitable[int]) -> int | None:
    """Return the result of the work, or None once the client has disconnected."""
    result: list[int] = []

    async def keep() -> None:
        result.append(await work)

    await first_of(keep(), _gone(request))
    return result[0] if result else None


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _http_error(_: Request, problem: Exception) -> Response:
    status = problem.status_code if isinstance(problem, HTTPException) else 500
    headers = dict(problem.headers or {}) if isinstance(problem, HTTPException) else {}
    return error(status, {404: "not found", 405: "method not allowed"}.get(status, "the request cannot be served"), **headers)


async def _told_error(_: Request, problem: Exception) -> Response:
    """Answer with the daemon's error; only authorised callers get this far."""
    return error(503, problem.message if isinstance(problem, KapsoSyncError) else str(problem))


async def _internal_error(_: Request, __: Exception) -> Response:
    """Starlette answers these outside of all middleware."""
    return error(500, "something went wrong here; the log may say more", **HEADERS)
