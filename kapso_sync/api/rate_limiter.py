"""Keeping to a fixed-window rate limit, fed by the answers' own headers: spend a share, then wait for the next window.

Kapso counts per API key and fixed minute, and says in every answer how many calls the window allows and how many remain. When a
window starts is not said: it shows when the remaining calls jump up.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from kapso_sync.model.clock import Clock

MAX_WAIT = 10_000
"""So many calls are remembered at most: more than any documented limit."""


@dataclass(frozen=True, slots=True)
class Permit:
    """Permission for one request: when it was given, in which window, and how many calls were known to remain then."""

    at: float
    window: int
    remaining: int | None


class RateLimiter:
    """Hands out tickets; every ticket must come back through `answered` or `lost`.

    ``share`` is the part of the window's limit that is spent; ``window`` is in seconds. ``on_wait`` is told once per window how
    long the wait is, the limit, and what remains.
    """

    def __init__(self, clock: Clock, *, share: float, window: float, on_wait: Callable[[float, int, int], None]) -> None:
        self._clock = clock
        self._share = share
        self._length = window
        self._on_wait = on_wait
        self._changed = asyncio.Condition()
        self._limit: int | None = None
        self._unlimited = False
        self._remaining = 0
        self._in_flight = 0
        self._window = 0
        self._latest_start = 0.0
        self._last_sent = 0.0
        self._told = -1
        self._ended: deque[float] = deque(maxlen=MAX_WAIT)

    async def ticket(self) -> Permit:
        """Wait until a request may be sent."""
        async with self._changed:
            while not self._may_send():
                await self._wait()
            self._in_flight += 1
            return Permit(self._clock.monotonic(), self._window, None if self._limit is None else self._remaining)

    async def answered(self, ticket: Permit, limit: int | None, remaining: int | None) -> None:
        """Give a ticket back with what the answer's headers said (None: no such header)."""
        async with self._changed:
            self._over()
            if limit is None or remaining is None or limit < 1:
                self._unlimited = self._limit is None
            else:
                self._learn(ticket, limit, max(remaining, 0))
            self._changed.notify_all()

    async def refused(self, _ticket: Permit, retry_after: float) -> None:
        """Give a ticket back that met a 429: the next call goes out ``retry_after`` seconds from now, and none before.

        The server knows its window better than we do, so its word replaces our count, whether it is shorter or longer.
        """
        async with self._changed:
            self._in_flight -= 1
            self._ended.clear()
            self._remaining = 0
            self._latest_start = self._clock.monotonic() + retry_after - self._length
            self._limit = self._limit or 1
            self._unlimited = False
            self._changed.notify_all()

    async def lost(self, _ticket: Permit) -> None:
        """Give a ticket back whose request got no answer; the server may have counted it."""
        async with self._changed:
            self._over()
            self._remaining = max(self._remaining - 1, 0)
            self._changed.notify_all()

    def _over(self) -> None:
        self._in_flight -= 1
        self._ended.append(self._clock.monotonic())

    def _may_send(self) -> bool:
        if self._unlimited:
            return True
        if self._limit is None:
            return self._in_flight == 0
        self._roll(self._limit)
        if self._remaining - self._in_flight <= self._reserve(self._limit):
            return False
        # Where windows begin is a guess; that no stretch of a window's length may see more calls than the limit is not.
        while self._ended and self._clock.monotonic() >= self._ended[0] + self._length:
            self._ended.popleft()
        return len(self._ended) + self._in_flight < self._limit

    def _reserve(self, limit: int) -> int:
        return limit - max(1, math.floor(limit * self._share))

    def _roll(self, limit: int) -> None:
        """Begin a new window once the latest possible end of the old one has passed."""
        late = self._clock.monotonic() - (self._latest_start + self._length)
        if late >= 0:
            self._latest_start += self._length * (1 + late // self._length)
            self._window += 1
            self._remaining = limit

    def _learn(self, ticket: Permit, limit: int, remaining: int) -> None:
        now = self._clock.monotonic()
        if self._limit is None:
            self._limit, self._remaining, self._latest_start, self._last_sent = limit, remaining, now, ticket.at
            return
        self._limit = limit
        if ticket.window == self._window and ticket.remaining is not None and remaining >= ticket.remaining:
            # Within one window what remains only falls, and this call itself has taken one: a new window has begun.
            one_step = now < self._last_sent + self._length
            self._latest_start = min(now, self._latest_start + self._length) if one_step else now
            self._window += 1
            self._remaining = remaining
        elif ticket.window == self._window:
            self._remaining = min(self._remaining, remaining)
        else:
            # Sent before the window began, answered after: it may have been counted in either.
            self._remaining = max(self._remaining - 1, 0)
        self._last_sent = max(self._last_sent, ticket.at)

    async def _wait(self) -> None:
        """Wait for an answer that tells more, or for the next window; the lock is free meanwhile."""
        if self._limit is None or self._in_flight:
            await self._changed.wait()
            return
        spent = self._remaining <= self._reserve(self._limit)
        pause = (self._latest_start if spent else self._ended[0]) + self._length - self._clock.monotonic()
        if self._told != self._window:
            self._told = self._window
            self._on_wait(pause, self._limit, self._remaining)
        self._changed.release()
        try:
            await self._clock.sleep(pause)
        finally:
            await self._changed.acquire()
