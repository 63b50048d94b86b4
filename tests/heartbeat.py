"""Measures how much the process worked while other tasks of an event loop had to wait, whatever the machine does meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass


@dataclass
class Heartbeat:
    """Processor time, in s: the most between two beats, and all of it. A slow machine makes both longer; compare them."""

    longest: float = 0.0
    total: float = 0.0


@contextlib.asynccontextmanager
async def beating() -> AsyncIterator[Heartbeat]:
    """Beat every 5 ms until the block ends.

    What counts is the time of all threads: one that holds the interpreter's lock stops the loop as well, and beside one that
    does not, the loop goes on beating.
    """
    heart = Heartbeat()
    began = time.process_time()

    async def beat() -> None:
        while True:
            before = time.process_time()
            await asyncio.sleep(0.005)
            heart.longest = max(heart.longest, time.process_time() - before)

    task = asyncio.create_task(beat())
    await asyncio.sleep(0.01)
    try:
        yield heart
        await asyncio.sleep(0.01)
    finally:
        heart.total = time.process_time() - began
        task.cancel()
