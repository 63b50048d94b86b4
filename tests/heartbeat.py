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
    """The longest time, in s, between two beats, without what this process waited for a processor."""

    longest: float = 0.0


@contextlib.asynccontextmanager
async def beating() -> AsyncIterator[Heartbeat]:
    """Beat every 5 ms until the block ends."""
    heart = Heartbeat()

    async def beat() -> None:
        while True:
            began, before = time.monotonic(), _delay()
            await asyncio.sleep(0.005)
            took = time.monotonic() - began
            heart.longest = max(heart.longest, took - max(0.0, _delay() - before))

    task = asyncio.create_task(beat())
    await asyncio.sleep(0.01)
    try:
        yield heart
        await asyncio.sleep(0.01)
    finally:
        task.cancel()


def _delay() -> float:
    """Return how long this process's threads have waited for a processor, in s; 0 where the kernel does not say.

    One of them may hold what the loop's thread waits for. Source: Linux, Documentation/scheduler/sched-stats.rst.
    """
    total = 0
    for thread in Path("/proc/self/task").glob("*/schedstat"):
        with contextlib.suppress(OSError):  # it has ended
            total += int(thread.read_text(encoding="ascii").split()[1])
    return total / 1e9
