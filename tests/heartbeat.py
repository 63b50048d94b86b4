"""Measures how long other tasks of an event loop had to wait."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass


@dataclass
class Heartbeat:
    """The longest time, in s, between two beats."""

    longest: float = 0.0


@contextlib.asynccontextmanager
async def beating() -> AsyncIterator[Heartbeat]:
    """Beat every 5 ms until the block ends."""
    heart = Heartbeat()

    async def beat() -> None:
        last = time.monotonic()
        while True:
            await asyncio.sleep(0.005)
            heart.longest = max(heart.longest, time.monotonic() - last)
            last = time.monotonic()

    task = asyncio.create_task(beat())
    await asyncio.sleep(0.01)
    try:
        yield heart
        await asyncio.sleep(0.01)
    finally:
        task.cancel()
