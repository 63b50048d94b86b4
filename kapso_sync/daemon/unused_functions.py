"""Asks from time to time which of our functions nothing uses; the answer is shown to people, and nothing is deleted for it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from kapso_sync.errors import ApiError
from kapso_sync.model.clock import Clock

INITIAL_DELAY, INTERVAL = 300.0, 3600.0
"""Seconds after the start, and between two look-ups: each costs one list call and one call for every kind of user."""


async def track_unused_functions(
    find_unused: Callable[[], Awaitable[tuple[str, ...] | None]],
    show: Callable[[tuple[str, ...] | None], None],
    clock: Clock,
) -> None:
    """Call ``show`` with the slugs of unused functions until cancelled; with None where Kapso could not be asked."""
    await clock.sleep(INITIAL_DELAY)
    while True:
        try:
            show(await find_unused())
        except ApiError:
            show(None)
        await clock.sleep(INTERVAL)
