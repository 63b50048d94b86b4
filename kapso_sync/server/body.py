"""Reads request bodies, with a limit in bytes and in time."""

from __future__ import annotations

import asyncio

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from kapso_sync.server.access import error

MAX_BYTES = 1024 * 1024
"""Bytes that a body may have."""

DISCARDED = 8 * MAX_BYTES
"""Bytes that are taken in, and thrown away, so that who sent too much reads our answer rather than a broken connection."""


async def read_body(request: Request, limit: float) -> bytes | Response:
    """Return the whole body; 413 above the size limit, announced or not, and 408 if it takes longer than ``limit`` seconds."""
    # h11 has checked that it is a number; with Expect the body has not been sent yet, and never needs to be.
    announced = int(request.headers.get("content-length", "0"))
    if announced > DISCARDED or (announced > MAX_BYTES and "expect" in request.headers):
        return _too_large()
    parts, size = list[bytes](), 0
    try:
        async with asyncio.timeout(limit):
            async for part in request.stream():
                size += len(part)
                if size > DISCARDED:
                    break
                if size > MAX_BYTES:
                    parts.clear()
                else:
                    parts.append(part)
    except TimeoutError:
        return _too_large() if size > MAX_BYTES else error(408, "the body did not arrive in time", Connection="close")
    except ClientDisconnect:
        return error(400, "the connection was closed")  # nobody reads it, and nobody needs a traceback
    return _too_large() if size > MAX_BYTES else b"".join(parts)


def _too_large() -> Response:
    return error(413, "the body is larger than 1 MiB", Connection="close")
