"""Time as a trigger: APScheduler rings the bell; no work ever runs inside a job."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from apscheduler.schedulers.asyncio import AsyncIOScheduler  # type: ignore[import-untyped]

JITTER = 0.1
"""Each interval varies by so much of itself, so that many daemons do not call in step."""


@dataclass(frozen=True, slots=True)
class Every:
    """A trigger by this name, every so many seconds."""

    name: str
    seconds: float


class Schedule:
    """Rings at intervals; a context manager in a running loop."""

    def __init__(self, ring: Callable[[str], None], intervals: Iterable[Every]) -> None:
        self._ring = ring
        self._intervals = tuple(intervals)
        self._scheduler = AsyncIOScheduler(timezone="UTC")

    def __enter__(self) -> Self:
        for every in self._intervals:
            self._scheduler.add_job(
                self._ring,
                "interval",
                args=(every.name,),
                id=every.name,
                seconds=every.seconds,
                jitter=every.seconds * JITTER,
                misfire_grace_time=None,
                coalesce=True,
                max_instances=1,
            )
        self._scheduler.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._scheduler.shutdown(wait=False)

    def next(self, name: str) -> datetime | None:
        """Return when this trigger rings next."""
        job = self._scheduler.get_job(name)
        moment: datetime | None = job.next_run_time if job is not None else None
        return moment
