"""Limits the number of requests in each fixed window."""

from __future__ import annotations

import math
from dataclasses import dataclass

from kapso_sync.emulator.clock import Clock


@dataclass(frozen=True, slots=True)
class Allowance:
    """The limit's answer to one request, for the headers of its answer."""

    allowed: bool
    limit: int
    remaining: int
    retry_after: int

    def headers(self) -> dict[str, str]:
        """Return the headers that every answer carries, and ``Retry-After`` where the request is refused.

        Source: Kapso's public documentation. ``Retry-After`` is the length of a whole window there too, not what is left of it.
        """
        headers = {"X-RateLimit-Limit": str(self.limit), "X-RateLimit-Remaining": str(self.remaining)}
        return headers if self.allowed else headers | {"Retry-After": str(self.retry_after)}


class FixedWindow:
    """Counts requests; windows begin at multiples of ``seconds`` since the limiter was made."""

    def __init__(self, limit: int, seconds: float, clock: Clock) -> None:
        self.limit = limit
        self.seconds = seconds
        self._clock = clock
        self.reset()

    def reset(self) -> None:
        """Start a new window now."""
        self._start = self._clock.monotonic()
        self._window = 0
        self._used = 0

    def take(self) -> Allowance:
        """Count one request and return whether it is allowed; a refused one does not count."""
        self._turn()
        allowed = self._used < self.limit
        self._used += allowed
        return self._allowance(allowed=allowed)

    def look(self) -> Allowance:
        """Return the present state without counting anything."""
        self._turn()
        return self._allowance(allowed=True)

    def _turn(self) -> None:
        window = math.floor((self._clock.monotonic() - self._start) / self.seconds)
        if window != self._window:
            self._window, self._used = window, 0

    def _allowance(self, *, allowed: bool) -> Allowance:
        return Allowance(allowed, self.limit, max(self.limit - self._used, 0), math.ceil(self.seconds))
