"""Rounds: looking again after each change, and whenever it is time; no change is missed, however busy the rest is."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from kapso_sync.model.clock import Clock

SETTLE_DELAY = 0.2
"""Seconds after a change before the next look: what belongs together is seen together, and a storm of events costs little."""


class Worker(Protocol):
    """What is done in rounds."""

    woken: asyncio.Event

    def look(self) -> float | None:
        """Look at how things stand; return in how many seconds to look again even if nothing changes. Never waits."""
        ...

    async def close(self) -> None:
        """Bring to an end what is in flight, soon."""
        ...


async def run_worker(what: Worker, changed: Callable[[], Awaitable[None]], clock: Clock) -> None:
    """Look until cancelled; ``changed`` waits for the next change."""

    async def pump() -> None:
        while True:
            await changed()
            what.woken.set()

    pumping = asyncio.create_task(pump(), name="rounds")
    try:
        while True:
            what.woken.clear()
            await _woken(what.woken, clock, what.look())
            await clock.sleep(SETTLE_DELAY)
    finally:
        pumping.cancel()
        await asyncio.gather(pumping, return_exceptions=True)
        await what.close()


async def _woken(event: asyncio.Event, clock: Clock, seconds: float | None) -> None:
    waits: set[asyncio.Task[object]] = {asyncio.create_task(_set(event))}
    if seconds is not None:
        waits.add(asyncio.create_task(_slept(clock, seconds)))
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waits:
            task.cancel()
        await asyncio.gather(*waits, return_exceptions=True)


async def _set(event: asyncio.Event) -> object:
    return await event.wait()


async def _slept(clock: Clock, seconds: float) -> object:
    await clock.sleep(seconds)
    return None
