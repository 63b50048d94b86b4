"""File events as a trigger: an event only requests a pass, and the rescan interval finds changes that caused no event.

Measured with watchfiles 1.x: if a symbolic link above the watched folder changes, there is no event. If the watched folder is
removed and made again, there are no more events. Files in new nested folders are missed. One file name that is not UTF-8 ends
the watch. Therefore the target of the path is checked twice a second, and the watch starts again whenever the target changes
or the watch ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

from watchfiles import Change, awatch

from kapso_sync.model.clock import Clock
from kapso_sync.retry import Backoff

STEP_MS = 100
"""Milliseconds between two polls of the library for events; it delivers them after a step without any."""

CHECK_SECONDS = 0.5
"""Seconds between two checks of the path's target."""

NESTED_SECONDS = 0.25
"""Seconds until another pass is requested after a folder was made, because the events of its files may have been missed."""

POLL_MS = 1000
FIRST_BURST_DELAY = 10
"""If changes do not end, a pass is requested after this many times ``debounce``."""

RESTART_BACKOFF = Backoff(initial=0.2, maximum=10.0)
"""Seconds before a failed watch starts again."""

_SKIPPED = frozenset({".git", "node_modules", "__pycache__", ".venv"})
_PASSING = (".swp", ".swx", ".tmp", "~", ".part")


class FileWatcher:
    """Calls ``on_change`` once after each burst of changes below ``root``; ``debounce`` is the quiet time, in seconds.

    ``on_trouble`` is called, once for each reason, with why changes are noticed late.
    """

    def __init__(
        self,
        root: Path,
        on_change: Callable[[], None],
        *,
        debounce: float,
        clock: Clock,
        on_trouble: Callable[[str], None],
    ) -> None:
        self._root = Path(os.path.abspath(root))  # noqa: PTH100 - links on the way must stay visible
        self._on_change = on_change
        self._debounce = debounce
        self._clock = clock
        self._on_trouble = on_trouble
        self._dirty = asyncio.Event()
        self._last = 0.0
        self._polling = False
        self._told: set[str] = set()

    async def run(self) -> None:
        """Watch until cancelled; no error ends it."""
        ringer = asyncio.create_task(self._ring(), name="debounce")
        failures = 0
        try:
            while True:
                started = self._clock.monotonic()
                try:
                    await self._watch()
                except Exception as error:  # noqa: BLE001 - whatever ends the watch, it starts again
                    self._trouble(error)
                    self._touch()
                    failures = 1 if self._clock.monotonic() - started > RESTART_BACKOFF.maximum else failures + 1
                    await self._clock.sleep(RESTART_BACKOFF.delay(failures))
        finally:
            ringer.cancel()
            await asyncio.gather(ringer, return_exceptions=True)

    async def _watch(self) -> None:
        """Watch the path's current target; return when the target changes."""
        identity = self._identity()
        async with asyncio.TaskGroup() as group:
            following = None if identity is None else group.create_task(self._follow(identity[0]))
            while self._identity() == identity:
                await self._clock.sleep(CHECK_SECONDS)
            if following is not None:
                following.cancel()
        self._touch()

    def _identity(self) -> tuple[str, int, int] | None:
        """Return the identity of the path's target, which changes when the target does; None if the target does not exist."""
        try:
            real = os.path.realpath(self._root)
            found = os.stat(real)  # noqa: PTH116 - beside realpath
        except OSError:
            return None
        return real, found.st_dev, found.st_ino

    async def _follow(self, folder: str) -> None:
        events: AsyncGenerator[set[tuple[Change, str]], None] = awatch(
            folder,
            watch_filter=_matters,
            debounce=STEP_MS * 2,
            step=STEP_MS,
            rust_timeout=5000,
            recursive=True,
            force_polling=self._polling,
            poll_delay_ms=POLL_MS,
            ignore_permission_denied=True,
        )
        async with contextlib.aclosing(events) as changes:
            async for batch in changes:
                self._touch(STEP_MS / 1000)
                if any(change is Change.added and _is_folder(path) for change, path in batch):
                    asyncio.get_running_loop().call_later(NESTED_SECONDS, self._touch)

    def _touch(self, ago: float = 0.0) -> None:
        self._last = self._clock.monotonic() - ago
        self._dirty.set()

    async def _ring(self) -> None:
        while True:
            await self._dirty.wait()
            first = self._clock.monotonic()
            while True:
                now = self._clock.monotonic()
                until = min(self._last + self._debounce, first + FIRST_BURST_DELAY * self._debounce)
                if now >= until:
                    break
                await self._clock.sleep(until - now)
            self._dirty.clear()
            self._on_change()

    def _trouble(self, error: BaseException) -> None:
        reasons = _leaves(error)
        if any(isinstance(reason, OSError) or "inotify" in str(reason) or "space left" in str(reason) for reason in reasons):
            self._polling = True
        reason = "; ".join(dict.fromkeys(" ".join(str(item).split()) or type(item).__name__ for item in reasons))
        if reason not in self._told and len(self._told) < 100:
            self._told.add(reason)
            how = "files are polled every second from now on" if self._polling else "the watch starts again"
            self._on_trouble(f"watching files failed: {reason}; {how}")


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]


def _matters(_change: Change, path: str) -> bool:
    parts = Path(path).parts
    return not _SKIPPED.intersection(parts) and not parts[-1].endswith(_PASSING) and not parts[-1].startswith(".#")


def _is_folder(path: str) -> bool:
    return Path(path).is_dir()
