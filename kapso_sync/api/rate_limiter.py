"""Client-side rate limiter for a fixed-window limit: spend a share of each window, then wait for the next window.

Kapso counts requests per API key and fixed minute. The headers of every answer say how many calls the window allows and how
many remain. No header says when a window starts: the limiter sees a new window when the number of remaining calls goes up.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable

from kapso_sync.dataclass import dataclass
from kapso_sync.model.clock import Clock

MAX_WAIT = 10_000
"""The limiter remembers at most this many calls; it is more than any documented limit."""


@dataclass(frozen=True, slots=True)
class Permit:
    """Permission for one request: the time and window in which it was given, and the calls known to remain at that time."""

    at: float
    window: int
    remaining: int | None


class RateLimiter:
    """Gives out permits; the caller must return every permit through `answered`, `refused` or `lost`.

    ``share`` is the part of the window's limit that may be spent, from 0 to 1; ``window`` is in seconds. ``on_wait`` is called
    at most once per window, with the wait in seconds, the limit, and the number of remaining calls. ``not_before`` is a time of
    the monotonic clock before which nothing may be sent, or None: another limiter was refused.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        share: float,
        window: float,
        on_wait: Callable[[float, int, int], None],
        not_before: float | None = None,
    ) -> None:
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
        if not_before is not None:
            self._hold_until(not_before)

    @property
    def calls_per_second(self) -> float | None:
        """The share of the limit that may be spent, spread over the window; None while no limit is known."""
        return None if self._limit is None else self._spendable(self._limit) / self._length

    async def ticket(self) -> Permit:
        """Wait until a request may be sent, and return its permit."""
        async with self._changed:
            while not self._may_send():
                await self._wait()
            self._in_flight += 1
            return Permit(self._clock.monotonic(), self._window, None if self._limit is None else self._remaining)

    async def answered(self, ticket: Permit, limit: int | None, remaining: int | None) -> None:
        """Return a permit with the numbers from the answer's headers (None: no such header)."""
        async with self._changed:
            self._over()
            if limit is None or remaining is None or limit < 1:
                self._unlimited = self._limit is None
            else:
                self._learn(ticket, limit, max(remaining, 0))
            self._changed.notify_all()

    async def refused(self, _ticket: Permit, retry_after: float) -> None:
        """Return a permit whose answer was 429: no call is sent in the next ``retry_after`` seconds.

        The server knows its window best, so ``retry_after`` replaces the client's count, even if it is shorter.
        """
        async with self._changed:
            self._in_flight -= 1
            self._hold_until(self._clock.monotonic() + retry_after)
            self._changed.notify_all()

    async def lost(self, _ticket: Permit) -> None:
        """Return a permit whose request got no answer; the server may have counted the request."""
        async with self._changed:
            self._over()
            self._remaining = max(self._remaining - 1, 0)
            self._changed.notify_all()

    def _hold_until(self, moment: float) -> None:
        self._ended.clear()
        self._remaining = 0
        self._latest_start = moment - self._length
        self._limit = self._limit or 1
        self._unlimited = False

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
        # The start of a window is a guess. This rule needs no guess: a period of one window's length never has more calls than
        # the limit.
        while self._ended and self._clock.monotonic() >= self._ended[0] + self._length:
            self._ended.popleft()
        return len(self._ended) + self._in_flight < self._limit

    def _reserve(self, limit: int) -> int:
        return limit - self._spendable(limit)

    def _spendable(self, limit: int) -> int:
        return max(1, math.floor(limit * self._share))

    def _roll(self, limit: int) -> None:
        """Start a new window when the latest possible end of the old window has passed."""
        late = self._clock.monotonic() - (self._latest_start + self._length)
        if late >= 0:
            self._latest_start += self._length * (1 + late // self._length)
            self._window += 1
            self._remaining = limit

    def _learn(self, ticket: Permit, limit: int, remaining: int) -> None:
        """Update the count and the window from one answer's headers.

        An example with a limit of 60 and a window of 60 s. ``permit.remaining`` is the count when the permit was given:

            sent at 10 s   permit.remaining=41   header 40   same window: 40 calls remain
            sent at 11 s   permit.remaining=40   header 38   same window: another client of the key made a call, 38 remain
            sent at 50 s   permit.remaining=38   header 59   more than before: a new window started, 59 remain
            sent at 49 s, answered after that    header 37   permit of the old window: subtract one call, 58 remain

        The new window started after the call at 11 s and before the answer to the call at 50 s. So its latest possible start is
        the time of that answer, or one window length after the latest start of the old window, if that is earlier.
        """
        now = self._clock.monotonic()
        if self._limit is None:
            self._limit, self._remaining, self._latest_start, self._last_sent = limit, remaining, now, ticket.at
            return
        self._limit = limit
        if ticket.window == self._window and ticket.remaining is not None and remaining >= ticket.remaining:
            # In one window the remaining calls only go down, and this call itself used one. So a new window has started.
            one_step = now < self._last_sent + self._length
            self._latest_start = min(now, self._latest_start + self._length) if one_step else now
            self._window += 1
            self._remaining = remaining
        elif ticket.window == self._window:
            self._remaining = min(self._remaining, remaining)
        else:
            # Sent before the window started, answered after: the server may have counted it in either window.
            self._remaining = max(self._remaining - 1, 0)
        self._last_sent = max(self._last_sent, ticket.at)

    async def _wait(self) -> None:
        """Wait for the next answer, or for the next window; the lock is released during the wait."""
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
