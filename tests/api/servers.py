"""A server that answers with exactly the bytes a test gives it, and a client of it on the virtual clock."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from kapso_sync.api.client import KapsoClient
from kapso_sync.api.rate_limiter import RateLimiter
from kapso_sync.api.transport import Transport, TransportSettings
from kapso_sync.model import events
from tests.clock import VirtualClock

KEY = "the-secret-key-0123456789"
Reply = bytes | Callable[[asyncio.StreamWriter], Awaitable[None]]


def answer(status: int, body: object = None, raw: bytes | None = None, headers: Mapping[str, str] | None = None) -> bytes:
    """An HTTP answer; ``raw`` is a body as it is, else ``body`` goes out as JSON."""
    content = raw if raw is not None else b"" if body is None else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(content)}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


def record(slug: str = "greet", **more: object) -> dict[str, object]:
    return {"id": f"id-{slug}", "slug": slug, "name": slug, "status": "deployed", "code": "x", **more}


def listing(*slugs: str, **meta: object) -> bytes:
    body: dict[str, object] = {"data": [record(slug) for slug in slugs]}
    return answer(200, {**body, "meta": meta} if meta else body)


async def hang(_writer: asyncio.StreamWriter) -> None:
    """Never answer; the client's timeout ends the request."""
    await asyncio.Event().wait()


@dataclass
class ScriptedServer:
    """The requests, and the replies: one after another, the last one for ever."""

    replies: Sequence[Reply]
    requests: list[bytes] = field(default_factory=list)
    tasks: list[asyncio.Task[None] | None] = field(default_factory=list)

    @property
    def lines(self) -> list[str]:
        """The request lines, such as ``GET /functions``, without their query."""
        return [request.split(b"\r\n")[0].rpartition(b" ")[0].partition(b"?")[0].decode() for request in self.requests]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.tasks.append(asyncio.current_task())
        try:
            await self._reply(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            writer.transport.abort()
        else:
            writer.close()

    async def end(self) -> None:
        """Close every connection that is still open."""
        tasks = [task for task in self.tasks if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _reply(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            (int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")), 0
        )
        self.requests.append(head + await reader.readexactly(length))
        reply = self.replies[min(len(self.requests), len(self.replies)) - 1]
        if isinstance(reply, bytes):
            writer.write(reply)
            await writer.drain()
        else:
            await reply(writer)


@dataclass
class ClientHarness:
    """A client, its clock, the events that it reported, and its server."""

    api: KapsoClient
    transport: Transport
    clock: VirtualClock
    server: ScriptedServer
    told: list[events.Event]

    def names(self) -> list[str]:
        return [event.name for event in self.told]


@contextlib.asynccontextmanager
async def connected_client(
    *replies: Reply,
    settings: TransportSettings | None = None,
    scrub: Callable[[str], str] = str,
    may_call: Callable[[], None] | None = None,
) -> AsyncIterator[ClientHarness]:
    """A client and a server that answers it with ``replies``, in order."""
    scripted = ScriptedServer(replies)
    server = await asyncio.start_server(scripted.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    clock, told = VirtualClock(), list[events.Event]()
    pacer = RateLimiter(clock, share=0.8, window=60.0, on_wait=lambda *_: None)
    transport = Transport(
        f"http://127.0.0.1:{port}",
        lambda: KEY,
        clock=clock,
        emit=told.append,
        random=lambda: 0.5,
        pacer=pacer,
        settings=settings or TransportSettings(deadline=2.0),
        scrub=scrub,
        may_call=may_call,
    )
    async with server, transport:
        try:
            yield ClientHarness(KapsoClient(transport), transport, clock, scripted, told)
        finally:
            await scripted.end()
