"""Runs a worker after each change of the status, and whenever the worker asks for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from kapso_sync.aio import first_of
from kapso_sync.model.clock import Clock

SETTLE_DELAY = 0.2
"""Seconds between two updates: changes that belong together are seen together, and a burst of events costs little."""


class Worker(Protocol):
    """Something that follows the status. ``woken`` is set when it must be updated."""

    woken: asyncio.Event

    def update(self) -> float | None:
        """Start the requests that the status needs, without waiting; return the seconds until the next call."""
        ...

    async def close(self) -> None:
        """Wait a moment for requests in flight, then cancel them."""
        ...


def always() -> bool:
    """Return True."""
    return True


async def run_worker(
    worker: Worker, changed: Callable[[], Awaitable[None]], clock: Clock, active: Callable[[], bool] = always
) -> None:
    """Update the worker until cancelled, then close it; ``changed`` waits for the next change of the status.

    While it is not ``active``, the worker rests: of several replicas, only the leader tells people.
    """

    async def wake_on_change() -> None:
        while True:
            await changed()
            worker.woken.set()

    waking = asyncio.create_task(wake_on_change(), name="status-changes")
    try:
        while True:
            worker.woken.clear()
            seconds = worker.update() if active() else None
            await first_of(worker.woken.wait(), *([] if seconds is None else [clock.sleep(seconds)]))
            await clock.sleep(SETTLE_DELAY)
    finally:
        waking.cancel()
        await asyncio.gather(waking, return_exceptions=True)
        await worker.close()
