"""The system clock, as an implementation of `kapso_sync.model.clock.Clock`."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime


class SystemClock:
    """The machine's own time; see `kapso_sync.model.clock.Clock`."""

    def monotonic(self) -> float:
        """Return the monotonic time in seconds, which never jumps."""
        return time.monotonic()

    def now(self) -> datetime:
        """Return the wall clock's time, in UTC."""
        return datetime.now(UTC)

    async def sleep(self, seconds: float) -> None:
        """Wait for this number of seconds."""
        await asyncio.sleep(seconds)
