"""A long computation in slices: others have their turn, and the result is the same."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator

from kapso_sync.aio import SLICE, in_slices


def computing(seconds: float, slices: int) -> Generator[None, None, str]:
    """Compute for a while, and pause now and then."""
    for _ in range(slices):
        ends = time.perf_counter() + seconds / slices
        while time.perf_counter() < ends:
            pass
        yield
    return "computed"


async def test_other_tasks_have_their_turn_while_something_long_is_computed() -> None:
    """About once in each slice; without pauses of its own, the computation would hold the loop until its end."""
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    counting = asyncio.create_task(count())
    assert await in_slices(computing(20 * SLICE, 200)) == "computed"
    counting.cancel()
    assert turns >= 5
    turns = 0
    assert await in_slices(computing(SLICE / 100, 1)) == "computed"
    assert turns == 0, "something short is done at once"
