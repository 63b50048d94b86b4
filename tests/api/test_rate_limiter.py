"""The rate limiter against a model of the server: we cause no 429, and use almost all of our share."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field

from hypothesis import example, given, settings
from hypothesis import strategies as st

from kapso_sync.api.rate_limiter import RateLimiter
from tests.clock import VirtualClock

WINDOW = 60.0


@dataclass
class Server:
    """Counts calls in fixed windows that begin at ``offset``; ``others`` calls of each window go to somebody else at once."""

    clock: VirtualClock
    limit: int
    offset: float
    others: int = 0
    served: dict[int, int] = field(default_factory=dict)
    refused: int = 0

    def call(self) -> int | None:
        """Take one call; return what remains, or None for a 429."""
        window = math.floor((self.clock.monotonic() + self.offset) / WINDOW)
        used = self.served.setdefault(window, self.others)
        if used >= self.limit:
            self.refused += 1
            return None
        self.served[window] = used + 1
        return self.limit - used - 1


async def spend(server: Server, pacer: RateLimiter, calls: int, concurrency: int, latencies: list[float]) -> None:
    """Make so many calls, so many at once; a request reaches the server after half of its latency."""
    left = iter(range(calls))

    async def worker() -> None:
        for number in left:
            ticket = await pacer.ticket()
            latency = latencies[number % len(latencies)]
            await server.clock.sleep(latency / 2)
            remaining = server.call()
            await server.clock.sleep(latency / 2)
            await pacer.answered(ticket, server.limit, remaining or 0)

    await asyncio.gather(*(worker() for _ in range(concurrency)))


def pacer_of(clock: VirtualClock, share: float, waits: list[tuple[float, int, int]] | None = None) -> RateLimiter:
    return RateLimiter(
        clock,
        share=share,
        window=WINDOW,
        on_wait=lambda seconds, limit, remaining: None if waits is None else waits.append((seconds, limit, remaining)),
    )


@given(
    limit=st.integers(5, 60),
    offset=st.floats(0, WINDOW - 0.001),
    share=st.sampled_from([0.5, 0.8, 1.0]),
    concurrency=st.integers(1, 8),
    latencies=st.lists(st.floats(0.01, 3.0), min_size=1, max_size=5),
)
@example(limit=5, offset=56.0, share=0.8, concurrency=3, latencies=[3.0])
@settings(max_examples=60)
def test_the_rate_limiter_causes_no_429_and_uses_its_share(
    limit: int, offset: float, share: float, concurrency: int, latencies: list[float]
) -> None:
    """Whatever the latency and wherever the window begins; once a beginning was seen, 95 % of the share and more is used.

    Less those calls that were under way when the window began, since they may have been counted in it. Where the share is the
    whole limit, not earning a 429 comes first.
    """

    async def scenario() -> None:
        clock = VirtualClock()
        server = Server(clock, limit, offset)
        allowed = max(1, math.floor(limit * share))
        await spend(server, pacer_of(clock, share), allowed * 5, concurrency, latencies)
        assert server.refused == 0
        assert all(used <= limit for used in server.served.values())
        possible = concurrency * (WINDOW - 2 * max(latencies)) / max(latencies)
        settled = list(server.served.values())[2:-1]
        for used in settled:
            assert share == 1.0 or used >= min(0.95 * allowed, possible) - concurrency

    asyncio.run(scenario())


@given(limit=st.integers(10, 60), others=st.integers(1, 9), offset=st.floats(0, WINDOW - 0.001))
@settings(max_examples=30)
def test_the_rate_limiter_respects_calls_of_other_clients(limit: int, others: int, offset: float) -> None:
    """The server's count of remaining calls is used, not ours: only the first calls in flight of each window may get a 429."""

    async def scenario() -> None:
        clock = VirtualClock()
        server = Server(clock, limit, offset, others=others)
        await spend(server, pacer_of(clock, 0.8), limit * 2, 4, [0.1])
        assert server.refused <= 4 * len(server.served)
        roomy = limit - others - 4 > limit - math.floor(limit * 0.8)
        assert not (roomy and server.refused)

    asyncio.run(scenario())


async def test_a_wait_for_the_rate_limit_is_logged_once_per_window() -> None:
    """Not once per call: the log stays short."""
    clock, waits = VirtualClock(), list[tuple[float, int, int]]()
    server = Server(clock, 10, 30.0)
    await spend(server, pacer_of(clock, 0.5, waits), 25, 4, [0.01])
    assert 3 <= len(waits) <= 6
    assert all(0 < seconds <= WINDOW and limit == 10 and remaining <= 5 for seconds, limit, remaining in waits)


async def test_without_rate_limit_headers_no_request_waits() -> None:
    """No headers, no pacing."""
    clock = VirtualClock()
    pacer = pacer_of(clock, 0.8)
    for _ in range(500):
        await pacer.answered(await pacer.ticket(), None, None)
    assert clock.monotonic() == 0


async def test_requests_without_an_answer_count_against_the_rate_limit() -> None:
    """The server may have counted them: ten lost requests use up a window of ten."""
    clock = VirtualClock()
    pacer = pacer_of(clock, 1.0)
    await pacer.answered(await pacer.ticket(), 10, 9)
    for _ in range(9):
        await pacer.lost(await pacer.ticket())
    assert clock.monotonic() == 0
    await pacer.lost(await pacer.ticket())
    assert clock.monotonic() > 0


async def test_until_the_rate_limit_is_known_only_one_request_is_sent() -> None:
    """Its answer shows the limit; other requests wait until then."""
    clock = VirtualClock()
    pacer = pacer_of(clock, 0.8)
    first = await pacer.ticket()
    second = asyncio.create_task(pacer.ticket())
    await asyncio.sleep(0)
    assert not second.done()
    await pacer.answered(first, 100, 99)
    await second


async def test_a_rate_limit_of_one_allows_one_call_per_window() -> None:
    """However small the share is, one call per window is allowed."""
    clock = VirtualClock()
    server = Server(clock, 1, 0.0)
    await spend(server, pacer_of(clock, 0.1), 3, 1, [0.01])
    assert server.refused == 0
    assert clock.monotonic() <= 4 * WINDOW
