"""The bell: whoever wants a look rings it. Rings fold into one until somebody answers, and none is ever lost."""

from __future__ import annotations

import asyncio

from kapso_sync.model.clock import Clock

FILES = "files"
POLL = "poll"
RESCAN = "rescan"
INTERVAL = "interval"
WEBHOOK = "webhook"
RETRY = "retry"
SECRETS = "secrets"
START = "start"
PERSON = "reconcile"
RESUME = "resume"

ONLY_IF_SOURCE_MOVED = frozenset({FILES, POLL, RESCAN})
"""Triggers that ask for a pass only where the source really moved."""

MAY_MEAN_NEW_REVISION = ONLY_IF_SOURCE_MOVED | {WEBHOOK, PERSON}
"""Triggers that may mean a new revision."""

ASKED_BY_PEOPLE = frozenset({PERSON, RESUME})
"""Triggers that mean: try everything again, whatever failed before."""


class TriggerQueue:
    """A mailbox of one: it holds the names of those who rang since the last answer."""

    def __init__(self) -> None:
        self._names: dict[str, None] = {}
        self._rung = asyncio.Event()
        self._rings = 0

    def ring(self, name: str) -> None:
        """Ask for a look."""
        self._names[name] = None
        self._rings += 1
        self._rung.set()

    @property
    def rings(self) -> int:
        """How often it was rung so far."""
        return self._rings

    @property
    def waiting(self) -> frozenset[str]:
        """Who rang and was not answered yet."""
        return frozenset(self._names)

    def take(self) -> tuple[str, ...]:
        """Answer: return everyone who rang, in order, and begin anew."""
        names, self._names = tuple(self._names), {}
        return names

    async def wait(self, clock: Clock, seconds: float, *, fresh: bool = False) -> None:
        """Wait until somebody rings, or so many seconds; who rang before and was not answered counts unless ``fresh``."""
        if self._names and not fresh:
            return
        self._rung.clear()
        either = {asyncio.create_task(self._rung.wait()), asyncio.create_task(clock.sleep(seconds))}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in either:
                task.cancel()
            await asyncio.gather(*either, return_exceptions=True)

    async def another(self, rings: int) -> None:
        """Wait until it was rung more often than ``rings`` times, answered or not."""
        while self._rings <= rings:
            self._rung.clear()
            await self._rung.wait()
