"""Defines the clock: every part of the program that waits or reads the time gets one as a parameter."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    """Deadlines and grace periods use ``monotonic``; ``now`` is for times that people read."""

    def monotonic(self) -> float:
        """Return seconds that never jump."""
        ...

    def now(self) -> datetime:
        """Return the wall clock's time, aware, in UTC."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait; cancelling the task ends the wait."""
        ...
