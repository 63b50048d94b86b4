"""Sends answers and faults: whole, in pieces, late, or not at all."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Iterator, Mapping
from http import HTTPStatus
from typing import Any

from starlette.types import Receive, Scope, Send

from kapso_sync.emulator.answers import Answer, json_answer
from kapso_sync.emulator.faults import Rule

NO_BODY = (204, 304)
_PAGE = "<html><head><title>{title}</title></head><body>{title}</body></html>"
GARBAGE = b'{"data": \x00\xff\xfe\x1b[2J'
TRANSPORT = "transport"
"""Key of the connection's transport in the ASGI scope's ``state``."""


class Hangs:
    """The hanging requests, and a way to release them."""

    def __init__(self) -> None:
        self._released = asyncio.Event()
        self.waiting = 0

    def release(self) -> int:
        """Close the connections of all requests that hang now; return how many there were."""
        self._released.set()
        self._released = asyncio.Event()
        return self.waiting

    @contextlib.contextmanager
    def held(self) -> Iterator[asyncio.Event]:
        """Count a request as hanging; the returned event is set when it is released."""
        self.waiting += 1
        try:
            yield self._released
        finally:
            self.waiting -= 1


class Exchange:
    """One request's connection, and the headers of any answer to it."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, hangs: Hangs) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._hangs = hangs
        self.headers: Mapping[str, str] = {}

    async def answer(self, answer: Answer) -> None:
        """Send an answer whole."""
        await self._start(answer)
        await self._send({"type": "http.response.body", "body": _body(answer)})

    async def drop(self) -> None:
        """Close the connection at once."""
        self._scope["state"][TRANSPORT].abort()
        await self._gone()

    async def hang(self) -> None:
        """Never answer."""
        with self._hangs.held() as released:
            await _any_done(self._gone(), released.wait())
        await self.drop()

    async def drip(self, answer: Answer, seconds: float) -> None:
        """Send an answer byte by byte, with ``seconds`` between them, while the client listens."""
        await self._start(answer)
        body = _body(answer)
        with self._hangs.held() as released:
            for index in range(len(body)):
                await self._send({"type": "http.response.body", "body": body[index : index + 1], "more_body": True})
                if await _any_done(self._gone(), released.wait(), seconds=seconds):
                    await self.drop()
                    return
        await self._send({"type": "http.response.body"})

    async def truncate(self, answer: Answer) -> None:
        """Send the first half of an answer and close the connection."""
        await self._start(answer)
        body = _body(answer)
        await self._send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
        self._scope["state"][TRANSPORT].close()
        await self._gone()

    async def _gone(self) -> None:
        """Wait until the client disconnects: the body was read to its end, so nothing else is left to receive."""
        await self._receive()

    async def _start(self, answer: Answer) -> None:
        content = {"Content-Length": str(len(answer.body))} | (
            {"Content-Type": answer.content_type} if answer.content_type else {}
        )
        headers = {
            name.lower().encode("ascii"): value.encode("ascii")
            for part in ({} if answer.status in NO_BODY else content, self.headers, answer.headers)
            for name, value in part.items()
        }
        await self._send({"type": "http.response.start", "status": answer.status, "headers": list(headers.items())})


def stand_in(rule: Rule, path: str) -> Answer | None:
    """Return the answer of a fault in place of the real one, or None if it has none."""
    match rule.what:
        case "status":
            status = rule.status or 500
            if isinstance(rule.body, str):
                return Answer(status, rule.body.encode("utf-8", "replace"), "text/plain; charset=utf-8", rule.headers)
            return json_answer(status, {"error": _phrase(status)} if rule.body is None else rule.body, rule.headers)
        case "html":
            status = rule.status or 502
            page = rule.body if isinstance(rule.body, str) else _PAGE.format(title=f"{status} {_phrase(status)}")
            return Answer(status, page.encode("utf-8", "replace"), "text/html; charset=utf-8")
        case "redirect":
            return Answer(rule.status or 307, headers={"Location": rule.location or f"https://elsewhere.invalid{path}"})
        case "garbage":
            return Answer(200, GARBAGE)
        case _:
            return None


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown status"


def _body(answer: Answer) -> bytes:
    return b"" if answer.status in NO_BODY else answer.body


async def _any_done(*waits: Coroutine[Any, Any, object], seconds: float | None = None) -> bool:
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        done, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        return bool(done)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
