"""Runs the application in the daemon's own event loop: without signal handlers, and no request outlives the daemon."""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterator
from typing import ClassVar, cast

import h11
import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

from kapso_sync.server.access import HEADERS
from kapso_sync.server.control import ServerLimits

CLOSE_TIMEOUT = 1.0
"""Seconds that requests in flight may take when the server stops."""

MAX_HEAD_BYTES = 16 * 1024
"""Maximum size of a request's head. Git hosts send about 1 KiB."""

MAX_HEAD_LINES = 100
"""Maximum number of lines of a request's head. Behind a proxy, git hosts and browsers send about 40."""

MIN_PIECE_BYTES = 256
"""Fewest bytes of a piece of a body, on average: HTTP lets a body come in chunks of a byte, each as dear as a request.
What sends bodies in chunks at all, such as a proxy, fills some KiB before it sends one."""

FREE_PIECES = 100
"""Pieces of a body that may be smaller."""

_BAD_REQUEST = b'{"error":"this is not an HTTP request"}'


class Connections:
    """The open connections, oldest first. Beyond a limit another one is closed, never the one that has just come.

    It is one of an address that has the most: so whoever fills the server with connections loses them, and a probe, which
    comes from elsewhere, is answered even if hundreds come in the same moment.
    """

    def __init__(self, total: int, each: int) -> None:
        self._total = total
        self._each = each
        self._open: dict[_Impatient, str] = {}
        self._of: Counter[str] = Counter()

    def add(self, connection: _Impatient, address: str) -> None:
        """Add a connection, and close one for it where there are too many, of this address or in all."""
        self._open[connection] = address
        self._of[address] += 1
        if self._of[address] > self._each:
            self._close_one({address})
        elif len(self._open) > self._total:
            most = max(self._of.values())
            self._close_one({its for its, count in self._of.items() if count == most})

    def remove(self, connection: _Impatient) -> None:
        """Forget a connection that is closed."""
        address = self._open.pop(connection, None)
        if address is not None:
            self._of[address] -= 1
            if not self._of[address]:
                del self._of[address]

    def _close_one(self, addresses: Collection[str]) -> None:
        """Close the oldest of these addresses that has no request in flight, or else the oldest; the newest of all stays."""
        others = [other for other, its in list(self._open.items())[:-1] if its in addresses]
        victim = next((other for other in others if not other.is_busy), others[0] if others else None)
        if victim is not None:
            self.remove(victim)
            victim.transport.abort()


class _Connection(h11.Connection):
    """A connection on which a head of too many lines, or a body in too many small pieces, is not HTTP any more."""

    _pieces = 0
    _bytes = 0

    def next_event(self) -> type[h11.NEED_DATA | h11.PAUSED] | h11.Event:
        """Return what was received next; raises `h11.RemoteProtocolError`."""
        if self.their_state is h11.IDLE and self.trailing_data[0].partition(b"\r\n\r\n")[0].count(b"\n") > MAX_HEAD_LINES:
            raise h11.RemoteProtocolError("the head has too many lines")
        event = super().next_event()
        if isinstance(event, h11.Data):
            self._pieces += 1
            self._bytes += len(event.data)
            if self._pieces > FREE_PIECES + self._bytes // MIN_PIECE_BYTES:
                raise h11.RemoteProtocolError("the body comes in too many small pieces")
        elif isinstance(event, h11.Request):
            self._pieces = self._bytes = 0
        return event


class _Impatient(H11Protocol):
    """Closes connections when a request does not arrive in time; uvicorn itself waits for the first byte without end.

    The same for an answer that nobody reads.
    """

    limits: ClassVar[ServerLimits]
    open: ClassVar[Connections]
    _timer: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the timer for a request."""
        super().connection_made(cast("asyncio.Transport", transport))
        self.conn = _Connection(h11.SERVER, MAX_HEAD_BYTES)
        self.open.add(self, self.client[0] if self.client else "")
        self._timer = self.loop.call_later(self.limits.head_timeout, self.transport.abort)

    def data_received(self, data: bytes) -> None:
        """Receive data; a complete request head stops the timer, and the next request starts it again."""
        super().data_received(data)
        busy = self.is_busy
        if busy and self._timer is not None:
            self._timer.cancel()
            self._timer = None
        elif not busy and self._timer is None:
            self._timer = self.loop.call_later(self.limits.head_timeout, self.transport.abort)

    def pause_writing(self) -> None:
        """Start the timer for a client that does not read: the transport's buffer is full."""
        super().pause_writing()
        self._unread = self.loop.call_later(self.limits.unread_timeout, self.transport.abort)

    def resume_writing(self) -> None:
        """Cancel that timer: the client has read."""
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the timers."""
        for timer in (self._timer, self._unread):
            if timer is not None:
                timer.cancel()
        self.open.remove(self)
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """Wait for the next request, or close the connection if it was sent before this one was answered.

        Neither git hosts nor probes nor browsers do that, and what is not pipelined has to be sent anew for each answer.
        """
        # HTTP lets a server close after any answer: a client sends again what was not answered.
        if self.conn.trailing_data[0]:
            self.transport.close()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's words
        """Answer data that is not HTTP, unless it comes in the middle of an answer; then the connection is closed."""
        if self.cycle is not None:
            self.cycle.disconnected = True  # whoever serves the request may have an answer too, which is too late
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            named = {
                **HEADERS,
                "Content-Type": "application/json",
                "Content-Length": str(len(_BAD_REQUEST)),
                "Connection": "close",
            }
            response = h11.Response(status_code=400, headers=list(named.items()), reason=b"Bad Request")
            for event in (response, h11.Data(data=_BAD_REQUEST), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def hang_up(self) -> None:
        """Close connections that would never close by themselves: idle ones, and endless answers such as events."""
        self.shutdown()
        if self.is_busy and self.cycle.response_started:
            self.transport.close()

    @property
    def is_busy(self) -> bool:
        """Whether a request is in flight."""
        # uvicorn declares the attribute as always set; before the first request it is None.
        return bool(self.cycle) and not self.cycle.response_complete


class _Server(uvicorn.Server):
    """A uvicorn of which only `startup` and `shutdown` are called: no signal handlers, and no loop that polls for the end."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: ARG002 - the caller closes them
        """Let requests in flight end, at most for the grace period, then close all connections."""
        for server in self.servers:
            server.close()
        connections = [cast("_Impatient", connection) for connection in self.server_state.connections]
        for connection in connections:
            connection.hang_up()
        late = await _ended(list(self.server_state.tasks), CLOSE_TIMEOUT)
        for connection in connections:
            connection.transport.abort()
        # Tasks that wait on the connection end when it is aborted. The others are cancelled.
        for task in await _ended(late, CLOSE_TIMEOUT):
            task.cancel()


async def _ended(tasks: list[asyncio.Task[None]], seconds: float) -> list[asyncio.Task[None]]:
    """Wait for tasks and return those that have not ended."""
    return list((await asyncio.wait(tasks, timeout=seconds))[1]) if tasks else []


@contextlib.asynccontextmanager
async def serving(app: Starlette, host: str, port: int, *, limits: ServerLimits) -> AsyncIterator[str]:
    """Serve the application until the block ends and yield its URL; raises OSError if the address is not available."""
    connections = Connections(limits.connections, limits.connections_each)
    with _listen(host, port) as listener:
        config = uvicorn.Config(
            app,
            http=type("_Protocol", (_Impatient,), {"limits": limits, "open": connections}),
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="error",  # not every stranger's nonsense
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            timeout_keep_alive=math.ceil(limits.head_timeout),
        )
        config.load()
        server = _Server(config)
        server.lifespan = config.lifespan_class(config)
        await server.startup(sockets=[listener])
        try:
            yield _url(listener)
        finally:
            await server.shutdown()


@contextlib.contextmanager
def _listen(host: str, port: int) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns Nagle's algorithm off only where the protocol is named; with it, each answer takes 40 ms.
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(1024)
        listener.setblocking(False)  # noqa: FBT003 - the standard library has it so
        yield listener


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    name = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    return f"http://{name}:{port}"
