"""Restarts background tasks that fail: each failure is logged, and the delay before a restart grows."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Self

from kapso_sync.model import events
from kapso_sync.model.clock import Clock
from kapso_sync.retry import Backoff

BACKOFF = Backoff(initial=1.0, maximum=60.0)
"""Seconds before a restart."""

STEADY_AFTER = 300.0
"""Seconds; if a task ran this long before it failed, its restart delay is the shortest again."""


class Supervisor:
    """Restarts tasks that fail; an async context manager that cancels all of them when it exits."""

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
        """Start a task, and restart it whenever it fails; if it returns, it has ended."""
        self._tasks[name] = asyncio.create_task(self._keep(name, run), name=name)

    @property
    def alive(self) -> Mapping[str, bool]:
        """Names of the tasks that still run."""
        return {name: not task.done() for name, task in self._tasks.items()}

    async def _keep(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        failures = 0
        while True:
            started = self._clock.monotonic()
            try:
                return await run()
            except Exception as error:  # noqa: BLE001 - whatever ends a task, the daemon continues
                failures = 1 if self._clock.monotonic() - started >= STEADY_AFTER else failures + 1
                delay = BACKOFF.delay(failures)
                text = " ".join(str(error).split()) or type(error).__name__
                self._emit(
                    events.TaskFailed(task=name, error=text, error_type=type(error).__name__, restart_in_s=round(delay, 1))
                )
            await self._clock.sleep(delay)
