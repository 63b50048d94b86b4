"""Looking now and then which of our functions no workflow uses: for people only, nothing follows from it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from kapso_sync.errors import ApiError
from kapso_sync.model.clock import Clock
from kapso_sync.telemetry import StatusBoard

Look = Callable[[], Awaitable[tuple[str, ...] | None]]

FIRST_LOOK, PERIOD = 300.0, 3600.0
"""Seconds after the start, and between two looks: each costs one call and one more for every workflow."""


async def watch_usage(look: Look, board: StatusBoard, clock: Clock) -> None:
    """Keep the board's list up to date until cancelled; after a look that fails nobody knows, and nothing is shown."""
    await clock.sleep(FIRST_LOOK)
    while True:
        try:
            board.unused = await look()
        except ApiError:
            board.unused = None
        await clock.sleep(PERIOD)
