"""A clock that tests turn by hand: sleeping costs no time, it moves the clock."""

from __future__ import annotations

import asyncio
import math
from datetime import UTC, datetime, timedelta


class VirtualClock:
    """Time stands still unless somebody sleeps; sleepers wake in order of their deadlines.

    A sleeper lets the loop settle (a few turns without anyone else wanting to run), then time jumps to the earliest deadline.
    """

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._start = start
        self._elapsed = 0.0
        self._deadlines: list[float] = []

    def monotonic(self) -> float:
        return self._elapsed

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self._elapsed)

    async def sleep(self, seconds: float) -> None:
        # As on a real clock, time passes in every sleep: what is too short to add would otherwise be slept for ever.
        least = math.nextafter(self._elapsed, math.inf) if seconds > 0 else self._elapsed
        deadline = max(self._elapsed + seconds, least)
        self._deadlines.append(deadline)
        try:
            while self._elapsed < deadline:
                for _ in range(20):
                    await asyncio.sleep(0)
                if self._elapsed < deadline and min(self._deadlines) == deadline:
                    self._elapsed = deadline
        finally:
            self._deadlines.remove(deadline)
        await asyncio.sleep(0)
