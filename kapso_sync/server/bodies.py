"""Reads the bodies of requests, each bounded in size and time, and all together in memory."""

from __future__ import annotations

import asyncio

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from kapso_sync.dataclass import dataclass
from kapso_sync.server.access import error
from kapso_sync.server.control import ServerLimits

MAX_BYTES = 1024 * 1024
"""Maximum size of a body, in bytes."""

DISCARDED = 8 * MAX_BYTES
"""Number of bytes that are read and discarded, so that the sender of a large body gets our answer, not a broken connection."""


@dataclass(eq=False, slots=True)
class _Arriving:
    """A body of which ``size`` bytes are in memory, and the deadline of its arrival."""

    deadline: asyncio.Timeout
    size: int = 0
    dropped: bool = False


class BodyReader:
    """Reads bodies. When those that are arriving need too much memory together, the oldest is dropped.

    A git host sends its body at once, so the oldest is one that somebody holds open.
    """

    def __init__(self, limits: ServerLimits) -> None:
        self._timeout = limits.body_timeout
        self._memory = limits.bodies
        self._arriving: dict[_Arriving, None] = {}

    async def read(self, request: Request) -> bytes | Response:
        """Return the whole body.

        Return an answer instead: 413 above the size limit, announced or not, 408 if it does not arrive in time, 503 if it was
        dropped, and 400 if the client has gone.
        """
        # h11 has checked that it is a number; with Expect the body has not been sent yet, and never needs to be.
        announced = int(request.headers.get("content-length", "0"))
        if announced > DISCARDED or (announced > MAX_BYTES and "expect" in request.headers):
            return _too_large()
        parts, size = list[bytes](), 0
        body = _Arriving(asyncio.timeout(self._timeout))
        self._arriving[body] = None
        try:
            async with body.deadline:
                async for part in request.stream():
                    size += len(part)
                    if size > DISCARDED:
                        break
                    if size > MAX_BYTES:
                        parts.clear()
                        body.size = 0
                    else:
                        parts.append(part)
                        body.size = size
                        self._drop_the_oldest(body)
        except TimeoutError:
            if body.dropped:
                return error(503, "too many requests are arriving", **{"Retry-After": "10", "Connection": "close"})
            return _too_large() if size > MAX_BYTES else error(408, "the body did not arrive in time", Connection="close")
        except ClientDisconnect:
            return error(400, "the connection was closed")  # never delivered; it replaces a traceback in the log
        finally:
            del self._arriving[body]
        return _too_large() if size > MAX_BYTES else b"".join(parts)

    def _drop_the_oldest(self, newest: _Arriving) -> None:
        """Drop bodies, oldest first and never this one, until those that are arriving fit into the memory."""
        rest = sum(body.size for body in self._arriving if not body.dropped)
        for body in self._arriving:
            if rest <= self._memory:
                return
            if body is not newest and not body.dropped:
                body.dropped = True
                body.deadline.reschedule(0.0)
                rest -= body.size


def _too_large() -> Response:
    return error(413, "the body is larger than 1 MiB", Connection="close")
