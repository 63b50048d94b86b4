"""An event loop whose time is virtual: when nothing can run, time jumps to the next timer. Everything of asyncio's obeys it."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, ParamSpec

P = ParamSpec("P")


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop that never waits for a timer. Nothing outside of the process may be waited for."""

    def __init__(self) -> None:
        self._virtual = 0.0
        super().__init__()
        really_select = self._selector.select  # type: ignore[attr-defined]

        def select(timeout: float | None) -> object:
            ready = really_select(0)
            if not ready:
                assert timeout is not None, "everything waits, and nothing will ever happen"
                self._virtual += timeout
            return ready

        self._selector.select = select  # type: ignore[attr-defined]

    def time(self) -> float:
        return self._virtual


class LoopClock:
    """The clock of such a loop, as `kapso_sync.model.clock.Clock`."""

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.monotonic())

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def run_virtually(work: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine to its end in virtual time."""
    loop = VirtualLoop()
    try:
        loop.run_until_complete(work)
    finally:
        loop.close()


def in_virtual_time(test: Callable[P, Awaitable[None]]) -> Callable[P, None]:
    """Make a test of an asynchronous function, run in virtual time."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        async def work() -> None:
            await test(*args, **kwargs)

        run_virtually(work())

    return run
