"""Requests passes at intervals with APScheduler; its jobs do no other work."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Self

from apscheduler.executors.debug import DebugExecutor  # type: ignore[import-untyped]
from apscheduler.schedulers.asyncio import AsyncIOScheduler  # type: ignore[import-untyped]

from kapso_sync.daemon.triggers import Trigger
from kapso_sync.dataclass import dataclass
from kapso_sync.model.clock import Clock

CLOCK_CHECK_INTERVAL = 30.0
"""Seconds between two comparisons of the wall clock with the monotonic clock."""

MIN_CLOCK_JUMP = timedelta(seconds=5)
"""If the wall clock differs from the monotonic clock by more than this, somebody has set it."""

JITTER = 0.1
"""Fraction by which each interval varies up and down, so that many daemons do not call at the same moment."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A trigger that is requested at this interval, in seconds."""

    trigger: Trigger
    seconds: float


class Schedule:
    """Requests triggers at intervals; a context manager in a running event loop."""

    def __init__(self, request: Callable[[Trigger], None], intervals: Iterable[Interval], clock: Clock) -> None:
        self._request = request
        self._clock = clock
        self._intervals = tuple(intervals)
        # It calls the function at once, in the loop. The other executors of the library would use a thread, which the queue is
        # not safe for, or a task, which leaves a traceback when it is cancelled by a shutdown.
        self._scheduler = AsyncIOScheduler(timezone="UTC", executors={"default": DebugExecutor()})

    def __enter__(self) -> Self:
        for every in self._intervals:
            self._scheduler.add_job(
                self._request,
                "interval",
                args=(every.trigger,),
                id=every.trigger,
                seconds=every.seconds * (1 - JITTER),
                jitter=every.seconds * 2 * JITTER,  # The library only ever adds the jitter.
                misfire_grace_time=None,
                coalesce=True,
                max_instances=1,
            )
        self._scheduler.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._scheduler.shutdown(wait=False)

    async def restart_when_clock_is_set(self) -> None:
        """Restart all intervals when the wall clock was set; the library uses it, and would run no job if it were set back."""
        while True:
            wall, steady = self._clock.now(), self._clock.monotonic()
            await self._clock.sleep(CLOCK_CHECK_INTERVAL)
            passed = timedelta(seconds=self._clock.monotonic() - steady)
            if abs(self._clock.now() - wall - passed) > MIN_CLOCK_JUMP:
                for every in self._intervals:
                    self._scheduler.modify_job(
                        every.trigger, next_run_time=self._clock.now() + timedelta(seconds=every.seconds)
                    )

    def next(self, trigger: Trigger) -> datetime | None:
        """Return when this trigger is requested the next time."""
        job = self._scheduler.get_job(trigger)
        moment: datetime | None = job.next_run_time if job is not None else None
        return moment
