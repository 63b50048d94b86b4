"""Decides who may read and who may act, and sets the headers of every answer."""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Callable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kapso_sync.errors import KapsoSyncError
from kapso_sync.server.forms import render_problem
from kapso_sync.server.markup import SIGN_IN
from kapso_sync.server.sessions import COOKIE, STRANGER, Sessions, Viewer
from kapso_sync.urls import is_loopback

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # with `no-referrer` a browser sends our own forms with `Origin: null`
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
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


def is_https(headers: Headers) -> bool:
    """Return whether the browser's connection is encrypted, as the proxy that ends it says: we ourselves never do that."""
    first = headers.get("x-forwarded-proto", "").partition(",")[0].strip().lower()
    return first == "https" or "proto=https" in headers.get("forwarded", "").partition(",")[0].lower().replace('"', "")


def is_from_elsewhere(headers: Headers) -> bool:
    """Return whether a page of another origin makes a browser send this request.

    No page can set these headers, and what is not a browser sends none of them. ``Sec-Fetch-Site`` comes with https and to
    loopback, and holds whatever a proxy does with names.
    """
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None or origin is None:
        return site not in (None, "same-origin")
    try:
        asked_from = urlsplit(origin).netloc
    except ValueError:
        return True
    ours = (headers.get("host", ""), headers.get("x-forwarded-host", "").partition(",")[0].strip())
    return not asked_from or _without_port(asked_from) not in map(_without_port, ours)


def _without_port(host: str) -> str:
    """Return a host without the ports that browsers leave out."""
    return host.lower().removesuffix(":443").removesuffix(":80")


class Access:
    """Decides who may read and who may act. ``token`` returns the admin token, and may raise `KapsoSyncError`.

    ``public``: the server listens on other addresses than loopback, so that reading needs the token.
    """

    def __init__(self, token: Callable[[], str], sessions: Sessions, *, public: bool) -> None:
        self.token = token
        self.sessions = sessions
        self._public = public

    def viewer(self, request: Request) -> Viewer:
        """Return who asks. HTTP Basic is not enough to be trusted: browsers send it by themselves, from any page."""
        try:
            session = self.sessions.find(request.cookies.get(COOKIE), self.token)
            return Viewer(session, session is not None or can_act(request, self.token))
        except KapsoSyncError:
            return STRANGER

    def closed(self, request: Request) -> Response | None:
        """Refuse callers that may not read; on loopback everybody may who does not come through a proxy."""
        if not self._public and not is_proxied(request.headers):
            return None
        if self.viewer(request).trusted:
            return None
        return self._refused(can_read, request, 'Basic realm="kapso-sync", charset="UTF-8"')

    def admin(self, request: Request) -> Response | None:
        """Refuse callers that may not act: that takes a header which no browser sends by itself."""
        return self._refused(can_act, request, "Bearer")

    def _refused(self, may: Callable[[Request, Callable[[], str]], bool], request: Request, scheme: str) -> Response | None:
        try:
            allowed = may(request, self.token)
        except KapsoSyncError:
            return error(503, "the admin token cannot be read at the moment")
        return None if allowed else unauthorised(request, scheme)


def unauthorised(request: Request, scheme: str) -> Response:
    """Return 401, as a page with a way in for a person who did not want to fill in the browser's own form."""
    headers = {"WWW-Authenticate": scheme}
    if scheme == "Bearer" or "text/html" not in request.headers.get("accept", ""):
        return error(401, "the admin token is needed", **headers)
    text = "Your browser asked for a user and a password: the password is the admin token, the user does not matter."
    return HTMLResponse(render_problem("The admin token is needed", text, SIGN_IN, "Sign in with a form"), 401, headers)


def can_act(request: Request, token: Callable[[], str]) -> bool:
    """Return whether the request carries the admin token as bearer."""
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    # Starlette reads headers as Latin-1: this gives back the bytes that were sent.
    return scheme.lower() == "bearer" and same_token(given.strip().encode("latin-1"), token())


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
    return same_token(password, token())


def same_token(given: bytes, wanted: str) -> bool:
    """Compare in constant time, as bytes: the library refuses text beyond ASCII. An empty token matches nothing."""
    return bool(given) and bool(wanted) and hmac.compare_digest(given, wanted.encode("utf-8"))
