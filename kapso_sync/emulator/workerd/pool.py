"""Has a workerd process ready: started when it is first needed, again when it ended, and anew when it holds too much."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from kapso_sync.emulator.workerd.process import Gone, Process

INITIAL_DELAY = 0.1
MAX_DELAY = 5.0

Start = Callable[[Path], Awaitable[Process]]
"""Starts a process that listens on the socket it is given; raises Gone."""


class ProcessPool:
    """Keeps one process. After ``most`` isolates another takes its place, for isolates are never unloaded.

    They listen at the path ``sockets``, with a number each. Processes that end one after the other are started with longer and
    longer pauses; when one does not even start, nobody waits for the next: callers hear at once what it said.
    """

    def __init__(self, start: Start, sockets: Path, *, most: int) -> None:
        self._start = start
        self._sockets = sockets
        self._most = most
        self._numbers = itertools.count(1)
        self._current: Process | None = None
        self._all: set[Process] = set()
        self._starting = asyncio.Lock()
        self._deaths = 0
        self._refusal = ""
        self._not_before = 0.0
        self._closing = asyncio.Event()

    @property
    def current(self) -> Process | None:
        """The process that the next caller gets, unless it has ended meanwhile; None before the first."""
        return self._current

    @contextlib.asynccontextmanager
    async def held(self, isolate: str) -> AsyncIterator[Process]:
        """Give the caller a process to ask about one isolate; raises Gone when none starts."""
        process = await self._ready(isolate)
        process.isolates.add(isolate)
        process.busy += 1
        try:
            yield process
            self._deaths = 0
        except Gone:
            self._died(process)
            raise
        finally:
            process.busy -= 1
            await self._leave(process)

    async def close(self) -> None:
        """End all processes, for good; whoever asks or waits meets Gone."""
        self._closing.set()
        async with self._starting:
            await asyncio.gather(*(process.kill() for process in self._all))

    async def _ready(self, isolate: str) -> Process:
        async with self._starting:
            process = self._current
            if process and process.alive and (isolate in process.isolates or len(process.isolates) < self._most):
                return process
            if process and not process.alive:
                self._died(process)
            self._current = None
            if process:
                await self._leave(process)
            await self._wait()
            try:
                self._current = await self._start(self._sockets.with_name(f"{self._sockets.name}-{next(self._numbers)}"))
            except Gone as gone:
                self._refusal = gone.message
                self._pause()
                raise
            self._refusal = ""
            self._all.add(self._current)
            return self._current

    async def _wait(self) -> None:
        """Return when another process may be started; raises Gone where there is nothing to wait for."""
        pause = self._not_before - asyncio.get_running_loop().time()
        if pause > 0 and self._refusal:
            raise Gone(self._refusal)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._closing.wait(), max(pause, 0.0))
        if self._closing.is_set():
            raise Gone("the emulator ends")

    def _died(self, process: Process) -> None:
        if process is self._current:
            self._current = None
            self._pause()

    def _pause(self) -> None:
        pause = min(INITIAL_DELAY * 2**self._deaths, MAX_DELAY)
        self._deaths += 1
        self._not_before = asyncio.get_running_loop().time() + pause

    async def _leave(self, process: Process) -> None:
        if process is not self._current and not process.busy and process in self._all:
            self._all.discard(process)
            await process.kill()
