"""Kapso's emulator behind a server that changes its answers as an input says, and notes every path that is asked for.

A rule is a JSON object: ``on`` is a method and a route, ``nth`` the number of the request on it (0: each one). ``status``,
``headers``, ``body`` (JSON) and ``raw`` (text) replace those of the answer; ``to`` is put ``at`` a path inside the JSON body.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from kapso_sync.api.client import KapsoClient
from kapso_sync.api.rate_limiter import RateLimiter
from kapso_sync.api.transport import Transport, TransportSettings
from kapso_sync.emulator.deps import Deployer, EmulatorDeps
from kapso_sync.emulator.faults import Faults
from kapso_sync.emulator.limiter import FixedWindow
from kapso_sync.emulator.middleware import ApiMiddleware
from kapso_sync.emulator.options import DEFAULT_KEY
from kapso_sync.emulator.requestlog import RequestLog
from kapso_sync.emulator.routes import FunctionsApi
from kapso_sync.emulator.wire import Hangs
from kapso_sync.emulator.world import EmulatedProject
from kapso_sync.model import events
from kapso_sync.telemetry.redact import Redactor
from tests.clock import VirtualClock
from tests.fuzz.promises import BrokenPromise
from tests.world import new_world

BASE = "/api/v1"
MAX_REQUESTS = 600
"""More requests than this for one pass are a loop."""

_ID = r"[A-Za-z0-9_-]{1,100}"
_ALLOWED = re.compile(
    rf"(?:GET|POST) {BASE}/functions"
    rf"|(?:GET|PATCH|PUT|DELETE) {BASE}/functions/{_ID}"
    rf"|POST {BASE}/functions/{_ID}/(?:deploy|invoke|secrets)"
    rf"|GET {BASE}/functions/{_ID}/(?:secrets|invocations)"
    rf"|DELETE {BASE}/functions/{_ID}/secrets/[^/?#]+"
    r"|GET /(?:api|platform)/v1/(?:workflows|flows|whatsapp/flows|whatsapp/webhooks)"
    r"|GET /(?:api|platform)/v1/(?:workflows|flows)/[^/?#]+/definition"
)
_ROUTES = ((re.compile(rf"{BASE}/functions/[^/]+"), "/functions/{id}"), (re.compile(r"/secrets/[^/]+"), "/secrets/{name}"))


@dataclass
class LyingKapso:
    """The server. ``rules`` are in order: the first one that fits an answer changes it."""

    world: EmulatedProject
    inner: httpx.AsyncClient
    rules: Sequence[Mapping[str, Any]] = ()
    honest: bool = False
    asked: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection's requests."""
        task = asyncio.current_task()
        if task is not None:
            self.tasks.add(task)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError, TimeoutError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
                body = await reader.readexactly(int(length[1])) if length is not None else b""
                writer.write(await self._answer(head, body))
                await writer.drain()
        writer.close()

    async def _answer(self, head: bytes, body: bytes) -> bytes:
        line, *lines = head.decode("latin-1").split("\r\n")
        method, _, rest = line.partition(" ")
        target = rest.rpartition(" ")[0]
        path = target.partition("?")[0]
        self.asked.append(f"{method} {path}")
        if _ALLOWED.fullmatch(self.asked[-1]) is None or {".", ".."} & set(path.lower().replace("%2e", ".").split("/")):
            self.wrong.append(self.asked[-1])
        headers = dict(each.split(": ", 1) for each in lines if ": " in each)
        answer = await self.inner.request(method, target, content=body, headers=headers)
        return self._changed(f"{method} {_route(path)}", answer)

    def _changed(self, on: str, answer: httpx.Response) -> bytes:
        self.counts[on] += 1
        rule = None if self.honest else next((rule for rule in self.rules if self._fits(rule, on)), None)
        status, content, headers = answer.status_code, answer.content, {"Content-Type": answer.headers.get("content-type", "")}
        if rule is not None:
            status = rule["status"] if isinstance(rule.get("status"), int) and 200 <= rule["status"] < 600 else status
            content = _body(rule, content)
            headers |= rule["headers"] if isinstance(rule.get("headers"), dict) else {}
        lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(content)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return "\r\n".join(lines).encode("utf-8", "replace") + b"\r\n\r\n" + content

    def _fits(self, rule: Mapping[str, Any], on: str) -> bool:
        return rule.get("on") in (on, "*") and rule.get("nth", 0) in (0, self.counts[on])

    def check(self) -> None:
        """Raise `BrokenPromise` if anything was asked for that is not a route of a function, or too often."""
        if self.wrong:
            raise BrokenPromise(f"asks for {self.wrong[:5]}")
        if len(self.asked) > MAX_REQUESTS:
            raise BrokenPromise(f"asks {len(self.asked)} times: {Counter(self.asked).most_common(3)}")


def _route(path: str) -> str:
    for pattern, route in _ROUTES:
        path = pattern.sub(route, path)
    return path.removeprefix(BASE)


def _body(rule: Mapping[str, Any], content: bytes) -> bytes:
    if isinstance(rule.get("raw"), str):
        return str(rule["raw"]).encode("utf-8", "surrogatepass")
    if "body" in rule:
        return json.dumps(rule["body"]).encode()
    if isinstance(rule.get("at"), list):
        try:
            value = json.loads(content)
        except ValueError:
            return content
        return json.dumps(_with(value, rule["at"], rule.get("to"))).encode()
    return content


def _with(value: Any, path: Sequence[Any], new: Any) -> Any:
    """Return the value with ``new`` at a path; ``*`` is every item of a list."""
    if not path:
        return new
    first, rest = path[0], path[1:]
    if isinstance(value, dict):
        return {**value, str(first): _with(value.get(str(first)), rest, new)}
    if isinstance(value, list):
        return [_with(item, rest, new) if first in ("*", number) else item for number, item in enumerate(value)]
    return value


@dataclass
class Connected:
    """A client of a server that lies, on a clock that jumps."""

    api: KapsoClient
    kapso: LyingKapso
    clock: VirtualClock
    told: list[events.Event]
    redactor: Redactor


@contextlib.asynccontextmanager
async def lying_kapso(rules: Sequence[Mapping[str, Any]] = ()) -> AsyncIterator[Connected]:
    """Serve Kapso with these lies, and connect a client to it."""
    clock, told = VirtualClock(), list[events.Event]()
    world = new_world(clock)
    deployer = Deployer(world, None)
    parts = EmulatorDeps(
        world=world,
        faults=Faults(()),
        limiter=FixedWindow(1_000_000, 60.0, clock),
        log=RequestLog(),
        hangs=Hangs(),
        clock=clock,
        deployer=deployer,
    )
    gate = ApiMiddleware(parts, FunctionsApi(world, deployer), DEFAULT_KEY)
    inner = httpx.AsyncClient(transport=httpx.ASGITransport(gate), base_url="http://kapso.test")
    kapso = LyingKapso(world, inner, rules)
    server = await asyncio.start_server(kapso.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    redactor = Redactor()
    redactor.add(DEFAULT_KEY)
    transport = Transport(
        f"http://127.0.0.1:{port}{BASE}",
        lambda: DEFAULT_KEY,
        clock=clock,
        emit=told.append,
        random=lambda: 0.5,
        pacer=RateLimiter(clock, share=1.0, window=60.0, on_wait=lambda *_: None),
        settings=TransportSettings(deadline=10.0, attempts=2),
        scrub=redactor.text,
    )
    async with inner, server, transport:
        try:
            yield Connected(KapsoClient(transport), kapso, clock, told, redactor)
        finally:
            tasks = [task for task in kapso.tasks if not task.done()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def rules_in(text: bytes) -> list[Mapping[str, Any]]:
    """Return the rules of an input: one JSON object a line."""
    found: list[Mapping[str, Any]] = []
    for line in text.split(b"\n")[:12]:
        try:
            rule = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(rule, dict):
            found.append(rule)
    return found
