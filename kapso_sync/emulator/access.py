"""Decides who may talk to the emulator.

Loopback is no authentication: other users of the machine reach it, and so does every web page in a browser on it. A page that
rebinds its own name to 127.0.0.1 sends that name as ``Host``, and one that posts across origins sends its ``Origin``.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
from collections.abc import Collection

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from kapso_sync.emulator.values import dump_json

TOKEN_HEADER = "X-Emulator-Token"  # noqa: S105 - a header's name

_AUTHORITY = re.compile(r"(?:\[(?P<address>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9.-]+))(?::[0-9]{1,5})?")
_ORIGIN = re.compile(r"https?://(?P<authority>[^/?#@]+)")
_BODYLESS = ("GET", "HEAD", "DELETE")


def is_own_name(authority: str, names: Collection[str]) -> bool:
    """Return whether a ``Host`` such as ``localhost:8787`` is localhost, a loopback address, or one of ``names``.

    Any port is ours, since a tunnel such as ``ssh -L`` may listen on another one.
    """
    match = _AUTHORITY.fullmatch(authority)
    if match is None:
        return False
    name = (match["address"] or match["name"]).lower()
    return name in {"localhost", *map(str.lower, names)} or _is_loopback(name)


class NameCheck:
    """An ASGI application that answers only requests for this machine's own names, and from pages of this machine.

    ``names`` are its names besides localhost and loopback addresses.
    """

    def __init__(self, app: ASGIApp, names: Collection[str]) -> None:
        self._app = app
        self._names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or refuse it with 403."""
        headers = Headers(scope=scope)
        if not is_own_name(headers.get("host", ""), self._names):
            refusal = _refusal(403, "The request is for another host", "ask for localhost, or for 127.0.0.1")
        elif not all(self._is_own_origin(origin) for origin in headers.getlist("origin")):
            refusal = _refusal(
                403, "Web pages of other origins are refused", "call it from a program, or from a page on localhost"
            )
        else:
            await self._app(scope, receive, send)
            return
        await refusal(scope, receive, send)

    def _is_own_origin(self, origin: str) -> bool:
        match = _ORIGIN.fullmatch(origin)
        return match is not None and is_own_name(match["authority"], self._names)


class ControlCheck:
    """An ASGI application in front of the control API, which demands the token and refuses every web page."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._token = token.encode("ascii")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or refuse it with 401, 403 or 415."""
        await (self._refused(scope) or self._app)(scope, receive, send)

    def _refused(self, scope: Scope) -> Response | None:
        headers, client = Headers(scope=scope), scope["client"]
        if client is None or not _is_loopback(client[0]):
            return _refusal(403, "The control API answers loopback addresses only", "call it on the machine that it runs on")
        if "origin" in headers:
            return _refusal(403, "The control API answers no web page", "call it from a program, which sends no Origin")
        # Starlette reads headers as Latin-1: this gives back the bytes that were sent.
        if not hmac.compare_digest(headers.get(TOKEN_HEADER, "").encode("latin-1"), self._token):
            hint = f"send {TOKEN_HEADER}: the emulator prints it when it starts, and --control-token sets it"
            return _refusal(401, f"Invalid or missing {TOKEN_HEADER}", hint)
        if scope["method"] not in _BODYLESS and _has_body(headers) and not _is_json(headers):
            return _refusal(415, "The body is not declared as JSON", "send Content-Type: application/json")
        return None


def _is_loopback(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).is_loopback
    except ValueError:
        return False


def _has_body(headers: Headers) -> bool:
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"


def _is_json(headers: Headers) -> bool:
    return headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json"


def _refusal(status: int, error: str, hint: str) -> Response:
    return Response(dump_json({"error": error, "hint": hint}), status, media_type="application/json")
