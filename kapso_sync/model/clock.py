"""Defines the clock: everything in the program that waits or reads the time gets one as a parameter."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    """Deadlines and graces run on ``monotonic``; ``now`` only dates what people read."""

    def monotonic(self) -> float:
        """Return seconds that never jump."""
        ...

    def now(self) -> datetime:
        """Return the wall clock's time, aware, in UTC."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait; cancelling the task ends the wait."""
        ...
