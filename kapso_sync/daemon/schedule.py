"""Time as a trigger: APScheduler rings the bell; no work ever runs inside a job."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Self

from apscheduler.schedulers.asyncio import AsyncIOScheduler  # type: ignore[import-untyped]

from kapso_sync.model.clock import Clock

CLOCK_CHECK_INTERVAL = 30.0
"""How often the wall clock is held against the one that never jumps."""

MIN_CLOCK_JUMP = timedelta(seconds=5)
"""A wall clock that went so much further, or less far, was set."""

JITTER = 0.1
"""Each interval varies by so much of itself, up and down, so that many daemons do not call in step."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A trigger by this name, every so many seconds."""

    name: str
    seconds: float


class Schedule:
    """Rings at intervals; a context manager in a running loop."""

    def __init__(self, ring: Callable[[str], None], intervals: Iterable[Interval], clock: Clock) -> None:
        self._ring = ring
        self._clock = clock
        self._intervals = tuple(intervals)
        self._scheduler = AsyncIOScheduler(timezone="UTC")

    def __enter__(self) -> Self:
        for every in self._intervals:
            self._scheduler.add_job(
                self._tick,
                "interval",
                args=(every.name,),
                id=every.name,
                seconds=every.seconds * (1 - JITTER),
                jitter=every.seconds * 2 * JITTER,  # the library only ever adds it
                misfire_grace_time=None,
                coalesce=True,
                max_instances=1,
            )
        self._scheduler.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._scheduler.shutdown(wait=False)

    async def _tick(self, name: str) -> None:
        # The library runs plain functions in a thread, where nobody may ring.
        self._ring(name)

    async def mind_the_clock(self) -> None:
        """Begin every interval anew when the wall clock was set: the library goes by it, and set back it would be silent."""
        while True:
            wall, steady = self._clock.now(), self._clock.monotonic()
            await self._clock.sleep(CLOCK_CHECK_INTERVAL)
            passed = timedelta(seconds=self._clock.monotonic() - steady)
            if abs(self._clock.now() - wall - passed) > MIN_CLOCK_JUMP:
                for every in self._intervals:
                    self._scheduler.modify_job(every.name, next_run_time=self._clock.now() + timedelta(seconds=every.seconds))

    def next(self, name: str) -> datetime | None:
        """Return when this trigger rings next."""
        job = self._scheduler.get_job(name)
        moment: datetime | None = job.next_run_time if job is not None else None
        return moment
