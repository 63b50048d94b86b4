"""Named tasks that must not die: one that does is logged with its reason and started again, later each time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Self

from kapso_sync.model import events
from kapso_sync.model.clock import Clock

INITIAL_DELAY = 1.0
MAX_DELAY = 60.0
STEADY_AFTER = 300.0
"""Seconds before a restart, at first and at most; a task that lived this long begins anew."""


class Supervisor:
    """Keeps tasks alive; an async context manager that cancels them all at its end."""

    def __init__(self, clock: Clock, emit: events.Listener) -> None:
        self._clock = clock
        self._emit = emit
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def start(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        """Start a task and keep it alive; one that returns is done."""
        self._tasks[name] = asyncio.create_task(self._keep(name, run), name=name)

    @property
    def alive(self) -> Mapping[str, bool]:
        """Which tasks still run."""
        return {name: not task.done() for name, task in self._tasks.items()}

    async def _keep(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        pause = INITIAL_DELAY
        while True:
            started = self._clock.monotonic()
            try:
                return await run()
            except Exception as error:  # noqa: BLE001 - whatever kills a task, the daemon goes on
                if self._clock.monotonic() - started >= STEADY_AFTER:
                    pause = INITIAL_DELAY
                text = " ".join(str(error).split()) or type(error).__name__
                self._emit(
                    events.TaskFailed(task=name, error=text, error_type=type(error).__name__, restart_in_s=round(pause, 1))
                )
            await self._clock.sleep(pause)
            pause = min(pause * 2, MAX_DELAY)
