"""Defines the emulator's clock, which is read and never waited on, so a test may turn it by hand."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """``monotonic`` is for the rate limit's windows; ``now`` dates records and ends deployments, also after a restart."""

    def monotonic(self) -> float:
        """Return seconds that never jump."""
        ...

    def now(self) -> datetime:
        """Return the wall clock's time, aware, in UTC."""
        ...


class SystemClock:
    """The machine's own clock."""

    def monotonic(self) -> float:
        """Return the machine's monotonic seconds."""
        return time.monotonic()

    def now(self) -> datetime:
        """Return the machine's time in UTC."""
        return datetime.now(UTC)


def rfc3339(moment: datetime) -> str:
    """Return ``2026-01-31T12:00:00.000000Z``: RFC 3339 in UTC, always with microseconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
