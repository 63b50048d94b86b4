"""The file watcher in trouble: symlink chains, a failing library, bursts of events, and cancellation at any time."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from kapso_sync.clock import SystemClock
from kapso_sync.daemon import watcher as watching
from kapso_sync.daemon.watcher import FileWatcher

pytestmark = pytest.mark.e2e
DEBOUNCE = 0.1
PATIENCE = 20.0
"""Seconds an awaited trigger may take: generous, for a machine that is busy."""


@dataclass
class TriggerRecorder:
    """Records triggers, the files that were there at the last one, and what was reported."""

    folder: Path
    count: int = 0
    seen: int = 0
    troubles: list[str] = field(default_factory=list)
    triggered: asyncio.Event = field(default_factory=asyncio.Event)

    def trigger(self) -> None:
        self.count += 1
        with contextlib.suppress(OSError):
            self.seen = len(os.listdir(self.folder))  # noqa: PTH208 - a count
        self.triggered.set()

    async def wait(self, seconds: float = PATIENCE) -> None:
        async with asyncio.timeout(seconds):
            await self.triggered.wait()

    async def settle(self, seconds: float = 0.4) -> None:
        """Wait until no trigger came for that long."""
        with contextlib.suppress(TimeoutError):
            while True:
                self.triggered.clear()
                await self.wait(seconds)
        self.triggered.clear()


class FastClock:
    """Whoever sleeps moves time at once, and a little further: no rounding may keep a deadline out of reach."""

    def __init__(self) -> None:
        self.elapsed = 0.0

    def monotonic(self) -> float:
        return self.elapsed

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.elapsed, UTC)

    async def sleep(self, seconds: float) -> None:
        self.elapsed += seconds + 0.001
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def watched_folder(root: Path) -> AsyncIterator[TriggerRecorder]:
    """Watch; the watcher triggers when the block begins."""
    recorder = TriggerRecorder(root)
    task = asyncio.create_task(
        FileWatcher(root, recorder.trigger, debounce=DEBOUNCE, clock=SystemClock(), on_trouble=recorder.troubles.append).run()
    )
    try:
        await save_until_triggered(recorder, root / "probe.js")
        yield recorder
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def save_until_triggered(recorder: TriggerRecorder, path: Path) -> None:
    """Save until it triggers, as a person would: a watch that is restarting may miss the first save."""
    async with asyncio.timeout(PATIENCE):
        while True:
            path.write_text(str(time.monotonic()))
            with contextlib.suppress(TimeoutError):
                await recorder.wait(0.3)
                break
    await recorder.settle()


def flip(link: Path, target: str) -> None:
    """Let a link lead elsewhere in one step."""
    following = link.with_name("following")
    following.symlink_to(target)
    following.rename(link)


async def test_a_flipped_symlink_in_the_middle_of_a_chain_is_noticed(tmp_path: Path) -> None:
    """The path and its first link stay: the flip triggers once, and saves in the new tree trigger."""
    for name in ("one", "two"):
        (tmp_path / "trees" / name / "functions").mkdir(parents=True)
    (tmp_path / "current").symlink_to("trees/one")
    (tmp_path / "app").symlink_to("current")
    root = tmp_path / "app" / "functions"
    async with watched_folder(root) as recorder:
        flip(tmp_path / "current", "trees/two")
        shutil.rmtree(tmp_path / "trees" / "one")
        await recorder.wait()
        await recorder.settle()
        await save_until_triggered(recorder, root / "greet.js")


async def test_a_replaced_folder_is_noticed(folder: Path) -> None:
    """Renamed away, and another one renamed in: events of the old folder no longer count."""
    other = folder.with_name("other")
    other.mkdir()
    async with watched_folder(folder) as recorder:
        folder.rename(folder.with_name("old"))
        other.rename(folder)
        await recorder.wait()
        await recorder.settle()
        await save_until_triggered(recorder, folder / "greet.js")


async def test_the_last_trigger_follows_the_last_save_of_a_burst(folder: Path) -> None:
    """Thousands of files may overflow the kernel's queue: a trigger follows the last save all the same."""
    async with watched_folder(folder) as recorder:
        before = len(os.listdir(folder))  # noqa: PTH208 - a count
        for number in range(3000):
            (folder / f"f{number}.js").touch()
        async with asyncio.timeout(PATIENCE):
            while recorder.seen < before + 3000:
                recorder.triggered.clear()
                await recorder.wait()


async def test_a_failing_watch_library_is_retried_with_backoff(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No busy loop: ten minutes of failure are some sixty attempts, and one message."""
    attempts = 0

    def broken(*_paths: object, **_options: object) -> object:
        nonlocal attempts
        attempts += 1
        raise RuntimeError("the library is broken")

    monkeypatch.setattr(watching, "awatch", broken)
    clock, recorder = FastClock(), TriggerRecorder(folder)
    watcher = FileWatcher(folder, recorder.trigger, debounce=DEBOUNCE, clock=clock, on_trouble=recorder.troubles.append)
    task = asyncio.create_task(watcher.run())
    async with asyncio.timeout(PATIENCE):
        while clock.elapsed < 600:  # noqa: ASYNC110 - this clock tells nobody
            await asyncio.sleep(0)
    assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert 10 < attempts < 80
    assert recorder.troubles == ["watching files failed: the library is broken; the watch starts again"]


@pytest.mark.parametrize("state", ["watching", "missing", "failing"])
async def test_cancellation_ends_the_watcher_at_once_and_leaks_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    """In any state: no inotify handle and no thread of the library stays."""

    def broken(*_paths: object, **_options: object) -> object:
        raise RuntimeError("the library is broken")

    if state == "failing":
        monkeypatch.setattr(watching, "awatch", broken)
    root = folder / "missing" if state == "missing" else folder
    recorder = TriggerRecorder(root)
    watcher = FileWatcher(root, recorder.trigger, debounce=DEBOUNCE, clock=SystemClock(), on_trouble=recorder.troubles.append)
    task = asyncio.create_task(watcher.run())
    async with asyncio.timeout(PATIENCE):
        while state == "watching" and not _left_behind():  # noqa: ASYNC110 - the kernel tells nobody
            await asyncio.sleep(0.01)
        while state == "failing" and not recorder.troubles:  # noqa: ASYNC110 - it is told before the wait begins
            await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait({task}, timeout=1)
    assert task.cancelled()
    async with asyncio.timeout(PATIENCE):
        while _left_behind():  # noqa: ASYNC110 - they end by themselves, within a step of the library
            await asyncio.sleep(0.01)


def _left_behind() -> list[str]:
    """Return this process's inotify handles and the library's threads."""
    found = []
    for handle in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found.append(str(handle.readlink()))
    for thread in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            found.append((thread / "comm").read_text().strip())
    return [name for name in found if "inotify" in name or name.startswith("notify-rs")]
