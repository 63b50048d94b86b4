"""Measures how long other tasks of an event loop had to wait, whatever other processes of the machine do."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Heartbeat:
    """The longest time, in s, between two beats, without what the loop's thread waited for a processor."""

    longest: float = 0.0


@contextlib.asynccontextmanager
async def beating() -> AsyncIterator[Heartbeat]:
    """Beat every 5 ms until the block ends."""
    heart = Heartbeat()

    async def beat() -> None:
        while True:
            began = time.monotonic() - _delay()
            await asyncio.sleep(0.005)
            heart.longest = max(heart.longest, time.monotonic() - _delay() - began)

    task = asyncio.create_task(beat())
    await asyncio.sleep(0.01)
    try:
        yield heart
        await asyncio.sleep(0.01)
    finally:
        task.cancel()


def _delay() -> float:
    """Return how long this thread has waited for a processor, in s; 0 where the kernel does not say (Linux: sched-stats)."""
    try:
        return int(Path("/proc/thread-self/schedstat").read_text(encoding="ascii").split()[1]) / 1e9
    except FileNotFoundError:
        return 0.0
