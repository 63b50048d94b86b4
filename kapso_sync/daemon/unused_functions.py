"""Checks at intervals which of our functions nothing uses; people see the result, and no function is deleted because of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from kapso_sync.errors import ApiError
from kapso_sync.model.clock import Clock

INITIAL_DELAY, INTERVAL = 300.0, 3600.0
"""Seconds before the first check, and between two checks: each one costs one list call, and one call for each kind of user."""


async def track_unused_functions(
    find_unused: Callable[[], Awaitable[tuple[str, ...] | None]],
    show: Callable[[tuple[str, ...] | None], None],
    clock: Clock,
) -> None:
    """Call ``show`` with the slugs of unused functions, or with None if Kapso cannot be asked; runs until cancelled."""
    await clock.sleep(INITIAL_DELAY)
    while True:
        try:
            show(await find_unused())
        except ApiError:
            show(None)
        await clock.sleep(INTERVAL)
