"""Who may see and do what, and the headers that every answer carries."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Callable

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

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

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})
_ANY_HOST = frozenset({"/healthz", "/readyz", "/metrics", "/hooks/git"})


class SafeHeaders:
    """Middleware that puts the headers on every answer, errors included."""

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


def error(status: int, text: str, **headers: str) -> Response:
    """Return an error as JSON."""
    return JSONResponse({"error": text}, status, headers=headers)


def foreign_host(request: Request, *, public: bool) -> bool:
    """Tell whether a page elsewhere makes a browser here talk to us: on loopback only our own names are answered."""
    host = request.headers.get("host", "")
    name = host if host.startswith("[") and host.endswith("]") else host.rpartition(":")[0] or host
    return not public and request.url.path not in _ANY_HOST and name.lower() not in _LOOPBACK


def may_act(request: Request, token: Callable[[], str]) -> bool:
    """Tell whether the request carries the admin token as bearer."""
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    return scheme.lower() == "bearer" and _same(given.strip(), token())


def may_look(request: Request, token: Callable[[], str]) -> bool:
    """Tell whether the request carries the admin token, as bearer or as the password of HTTP Basic."""
    if may_act(request, token):
        return True
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return False
    try:
        _, _, password = base64.b64decode(given, validate=True).decode("utf-8").partition(":")
    except ValueError:
        return False
    return _same(password, token())


def _same(given: str, wanted: str) -> bool:
    return bool(given) and hmac.compare_digest(given.encode("utf-8", "surrogateescape"), wanted.encode("utf-8"))
