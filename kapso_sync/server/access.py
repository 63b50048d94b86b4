"""Decides who may read and who may act, and sets the headers of every answer."""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kapso_sync.urls import is_loopback

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
}

_ANY_HOST = frozenset({"/healthz", "/readyz", "/metrics", "/hooks/git"})
"""Paths that kubelets, scrapers and git hosts request, under any name of this host."""


_BY_PROXIES = frozenset({"forwarded", "via", "x-real-ip"})
"""Headers that proxies add, besides ``X-Forwarded-*``."""


class SafeHeaders:
    """Middleware that puts the headers on every answer of the application."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
            await send(message)

        await self._app(scope, receive, with_headers if scope["type"] == "http" else send)


class HostCheck:
    """Middleware against DNS rebinding: on loopback only requests for our own names are answered.

    Otherwise a foreign page with a name that resolves to loopback could read ours through a browser on this machine.
    """

    def __init__(self, app: ASGIApp, *, public: bool) -> None:
        self._app = app
        self._public = public

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or refuse it."""
        if scope["type"] != "http" or self._public or scope["path"] in _ANY_HOST or _is_ours(Headers(scope=scope)):
            await self._app(scope, receive, send)
        else:
            await error(403, "ask for this server by its own name: localhost")(scope, receive, send)


class FramingCheck:
    """Middleware against request smuggling: a body whose length two headers give is refused, as RFC 9112 section 6.3 allows."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or refuse it."""
        names = {name for name, _ in scope["headers"]} if scope["type"] == "http" else set()
        if names >= {b"content-length", b"transfer-encoding"}:
            refusal = error(400, "send either Content-Length or Transfer-Encoding", Connection="close")
            await refusal(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def encode_json(value: object) -> str:
    """Return JSON on one line; not all of it can be encoded, since texts may hold lone surrogates."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


class Json(JSONResponse):
    """JSON of any text, lone surrogates included: no text that people wrote may prevent the status from being shown."""

    def render(self, content: object) -> bytes:
        """Return the body."""
        return encode_json(content).encode("utf-8", "replace")


def error(status: int, text: str, **headers: str) -> Response:
    """Return an error as JSON."""
    return Json({"error": text}, status, headers=headers)


def _is_ours(headers: Headers) -> bool:
    host = headers.get("host", "")
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    return is_loopback(name)


def is_proxied(headers: Headers) -> bool:
    """Return whether a request came through a proxy, whose clients may be anybody, though it itself is on this machine."""
    return any(name in _BY_PROXIES or name.startswith("x-forwarded-") for name in headers)


def can_act(request: Request, token: Callable[[], str]) -> bool:
    """Return whether the request carries the admin token as bearer."""
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    # Starlette reads headers as Latin-1: this gives back the bytes that were sent.
    return scheme.lower() == "bearer" and _same(given.strip().encode("latin-1"), token())


def can_read(request: Request, token: Callable[[], str]) -> bool:
    """Return whether the request carries the admin token, as bearer or as the password of HTTP Basic."""
    if can_act(request, token):
        return True
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return False
    try:
        _, _, password = base64.b64decode(given, validate=True).partition(b":")
    except ValueError:
        return False
    return _same(password, token())


def _same(given: bytes, wanted: str) -> bool:
    """Compare in constant time, as bytes: the library refuses text beyond ASCII. An empty token matches nothing."""
    return bool(given) and bool(wanted) and hmac.compare_digest(given, wanted.encode("utf-8"))
