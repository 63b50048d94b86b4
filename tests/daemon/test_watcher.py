"""The file watcher: an event means "look again", and changes that the library misses are found all the same."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import watchfiles

from kapso_sync.clock import SystemClock
from kapso_sync.daemon import watcher as watching
from kapso_sync.daemon.watcher import FileWatcher

pytestmark = pytest.mark.e2e
DEBOUNCE = 0.1


@dataclass
class TriggerCounter:
    """Counts triggers and keeps the watcher's errors."""

    count: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    troubles: list[str] = field(default_factory=list)

    def trigger(self) -> None:
        self.count += 1
        self.changed.set()

    async def next(self, seconds: float = 4.0) -> None:
        """Wait for a trigger that comes after now."""
        self.changed.clear()
        async with asyncio.timeout(seconds):
            await self.changed.wait()

    async def quiet(self, seconds: float = 0.6) -> None:
        """Wait until no more triggers come."""
        while True:
            self.changed.clear()
            try:
                async with asyncio.timeout(seconds):
                    await self.changed.wait()
            except TimeoutError:
                return


@contextlib.asynccontextmanager
async def watched(root: Path) -> AsyncIterator[TriggerCounter]:
    """Watch a folder; the watch is known to work when the block begins."""
    triggers = TriggerCounter()
    watcher = FileWatcher(root, triggers.trigger, debounce=DEBOUNCE, clock=SystemClock(), on_trouble=triggers.troubles.append)
    task = asyncio.create_task(watcher.run())
    try:
        if root.is_dir():
            probe = Path(os.path.realpath(root)) / "probe.js"
            async with asyncio.timeout(20):
                while not triggers.count:
                    probe.write_text("x")
                    probe.unlink()
                    with contextlib.suppress(TimeoutError):
                        await triggers.next(0.3)
            await triggers.quiet(0.4)
        else:
            await asyncio.sleep(0.2)
        triggers.count = 0
        yield triggers
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def after(triggers: TriggerCounter, act: object) -> None:
    """Do something, and wait until it triggers."""
    assert callable(act)
    waiting = asyncio.create_task(triggers.next())
    await asyncio.sleep(0)
    act()
    await waiting


def save_by_rename(path: Path, text: str) -> None:
    part = path.with_suffix(".part")
    part.write_text(text)
    part.rename(path)


async def test_every_save_is_noticed_even_by_rename(folder: Path) -> None:
    """Editors write a new file and rename it: once, twice, three times, each is noticed."""
    async with watched(folder) as triggers:
        for text in ("2", "3", "4"):
            await after(triggers, lambda text=text: save_by_rename(folder / "greet.js", text))
        await after(triggers, (folder / "greet.js").unlink)


async def test_a_save_while_the_watch_begins_is_noticed(folder: Path) -> None:
    """The first pass may have read the folder before the watch began: once it has, the folder is looked at again."""
    triggers = TriggerCounter()
    watcher = FileWatcher(folder, triggers.trigger, debounce=DEBOUNCE, clock=SystemClock(), on_trouble=triggers.troubles.append)
    task = asyncio.create_task(watcher.run())
    try:
        await triggers.next()
        await triggers.quiet()
        assert triggers.count == 1
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_burst_of_saves_triggers_once(folder: Path) -> None:
    """Twenty files saved at once trigger once."""
    async with watched(folder) as triggers:

        def save_all() -> None:
            for number in range(20):
                (folder / f"f{number}.js").write_text("x")

        await after(triggers, save_all)
        await triggers.quiet()
        assert triggers.count == 1


async def test_constant_writes_do_not_suppress_the_trigger(folder: Path) -> None:
    """Somebody writes all the time: after ten quiet periods it triggers anyway."""
    async with watched(folder) as triggers:
        for number in range(60):
            (folder / "busy.js").write_text(str(number))
            await asyncio.sleep(DEBOUNCE / 4)
        assert triggers.count >= 1


async def test_ignored_files_trigger_nothing(folder: Path) -> None:
    """Swap files, .git and node_modules are ignored; without events nothing is triggered."""
    (folder / ".git").mkdir()
    (folder / "node_modules").mkdir()
    async with watched(folder) as triggers:
        (folder / ".git" / "index").write_text("x")
        (folder / "node_modules" / "x.js").write_text("x")
        (folder / "greet.js.swp").write_text("x")
        (folder / ".#greet.js").symlink_to("nowhere")
        (folder.parent / "beside.js").write_text("x")
        await triggers.quiet()
        assert triggers.count == 0


async def test_files_in_new_nested_folders_are_noticed(folder: Path) -> None:
    """Their own events are often missed: the folder's are not, and a second look follows."""
    async with watched(folder) as triggers:

        def make() -> None:
            (folder / "a" / "b").mkdir(parents=True)
            (folder / "a" / "b" / "inner.js").write_text("x")

        await after(triggers, make)
        await triggers.quiet(0.8)
        triggers.count = 0
        await after(triggers, lambda: (folder / "a" / "b" / "inner.js").write_text("y"))


async def test_a_flipped_symlink_is_noticed(tmp_path: Path) -> None:
    """git-sync publishes by one link that moves to another tree; saves in the new tree trigger as well."""
    for name in ("one", "two"):
        (tmp_path / name / "functions").mkdir(parents=True)
        (tmp_path / name / "functions" / "greet.js").write_text(name)
    (tmp_path / "current").symlink_to("one")

    def flip() -> None:
        (tmp_path / "next").symlink_to("two")
        (tmp_path / "next").rename(tmp_path / "current")

    async with watched(tmp_path / "current" / "functions") as triggers:
        await after(triggers, flip)
        await triggers.quiet(1.5)
        await after(triggers, lambda: (tmp_path / "two" / "functions" / "greet.js").write_text("new"))


async def test_a_config_map_swap_is_noticed(tmp_path: Path) -> None:
    """Kubernetes swaps ``..data``; the files themselves are links that never change."""
    mount = tmp_path / "mount"
    for name in ("..one", "..two"):
        (mount / name).mkdir(parents=True)
        (mount / name / "greet.js").write_text(name)
    (mount / "..data").symlink_to("..one")
    (mount / "greet.js").symlink_to("..data/greet.js")

    def swap() -> None:
        (mount / "..tmp").symlink_to("..two")
        (mount / "..tmp").rename(mount / "..data")
        shutil.rmtree(mount / "..one")

    async with watched(mount) as triggers:
        await after(triggers, swap)


async def test_a_deleted_and_recreated_folder_is_watched_again(folder: Path) -> None:
    """Together with its parent, too; the library alone would report nothing any more."""
    parent = folder.parent / "deep"
    parent.mkdir()
    inner = parent / "functions"
    inner.mkdir()
    async with watched(inner) as triggers:
        for gone in (inner, parent):
            await after(triggers, lambda gone=gone: shutil.rmtree(gone))
            await triggers.quiet(1.5)
            await after(triggers, lambda: inner.mkdir(parents=True))
            await triggers.quiet(1.5)
            await after(triggers, lambda: (inner / "greet.js").write_text("x"))
            await triggers.quiet(0.5)


@pytest.mark.parametrize("name", [".", "lib", "lib.tmp"])
async def test_a_folder_that_is_removed_and_made_again_at_once_is_watched(folder: Path, name: str) -> None:
    """As `rm -rf dist && tsc` does. Some file systems, such as ext4, give the new folder the inode of the old one.

    Files of some names do not matter, since editors leave them behind; folders of these names do.
    """
    place = folder / name

    def replace() -> None:
        shutil.rmtree(place)
        place.mkdir()
        (place / "greet.js").write_text("again")

    place.mkdir(exist_ok=True)
    (place / "greet.js").write_text("x")
    async with watched(folder) as triggers:
        folder.with_name("other").touch()  # takes the inode of the file with which the watch was tried
        for text in ("one", "two"):
            await after(triggers, replace)
            await triggers.quiet(1.0)
            await after(triggers, lambda text=text: (place / "greet.js").write_text(text))
            await triggers.quiet(0.5)


async def test_a_link_that_cannot_be_followed_does_not_keep_folders_from_being_watched(folder: Path) -> None:
    """Such as one in a circle, or one into a folder that may not be entered; of whatever name."""
    (folder / "lib").mkdir()
    for name in (".hidden", "visible"):
        (folder / f"{name}.a").symlink_to(f"{name}.b")
        (folder / f"{name}.b").symlink_to(f"{name}.a")
        (folder / f"{name}.long").symlink_to("x" * 300)
    async with watched(folder) as triggers:
        await after(triggers, lambda: (folder / "lib" / "a.js").write_text("1"))


async def test_the_target_of_a_file_link_is_watched_where_it_lies(folder: Path) -> None:
    """Also in a hidden folder, which is not read otherwise; a link that leads out of the folder is not followed."""
    hidden, outside = folder / ".store", folder.with_name("outside")
    for place in (hidden, outside):
        place.mkdir()
        (place / "real.js").write_text("1")
    (folder / "linked.js").symlink_to(".store/real.js")
    (folder / "out.js").symlink_to(outside / "real.js")
    (folder / "dangling.js").symlink_to("absent/real.js")
    async with watched(folder) as triggers:
        await after(triggers, lambda: (hidden / "real.js").write_text("2"))
        await triggers.quiet(0.5)
        (outside / "real.js").write_text("2")
        await triggers.quiet(1.0)


async def test_a_folder_that_was_moved_away_is_not_followed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That it was moved is an event: what is in its place is watched at once, and not only when the path is checked again."""
    monkeypatch.setattr(watching, "CHECK_SECONDS", 3600.0)

    def replace() -> None:
        folder.rename(folder.with_name("moved"))
        folder.mkdir()

    async with watched(folder) as triggers:
        await after(triggers, replace)
        await triggers.quiet(1.0)
        await after(triggers, lambda: (folder / "greet.js").write_text("new"))


async def test_a_folder_that_does_not_exist_yet_is_waited_for(tmp_path: Path) -> None:
    """The volume may be filled later."""
    async with watched(tmp_path / "later" / "functions") as triggers:
        await after(triggers, lambda: (tmp_path / "later" / "functions").mkdir(parents=True))


async def test_a_file_name_that_is_not_utf8_does_not_end_the_watch(folder: Path) -> None:
    """Such a name kills the library's watch: it is restarted, and reported once."""
    async with watched(folder) as triggers:
        bad = os.fsencode(folder) + b"/bad-\xff.js"

        def touch() -> None:
            with open(bad, "wb") as file:  # noqa: PTH123 - a path in bytes
                file.write(b"x")

        await after(triggers, touch)
        await triggers.quiet(1.5)
        os.unlink(bad)  # noqa: PTH108 - a path in bytes
        await triggers.quiet(1.5)
        await after(triggers, lambda: (folder / "greet.js").write_text("2"))
        assert len(triggers.troubles) <= 1


async def test_files_are_polled_when_inotify_is_exhausted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's limit is used up: changes are noticed later, and the reason is logged once."""
    real = watchfiles.awatch

    def limited(*paths: Path, force_polling: bool, **options: object) -> object:
        if not force_polling:
            raise OSError(28, "No space left on device (inotify watch limit)")
        return real(*paths, force_polling=True, **{**options, "poll_delay_ms": 50})  # type: ignore[arg-type]

    monkeypatch.setattr(watching, "awatch", limited)
    async with watched(folder) as triggers:
        await after(triggers, lambda: (folder / "another.js").write_text("a new file"))
        assert len(triggers.troubles) == 1
        assert "polled every second" in triggers.troubles[0]


@pytest.mark.parametrize(("debounce", "step"), [(0.3, 400), (0.1, 100), (0.0, 50), (5.0, 400)])
async def test_an_idle_watcher_wakes_rarely_unless_the_debounce_is_short(
    debounce: float, step: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each look of the library for events wakes the process; with a long debounce, a watch still ends soon."""
    real, steps = watchfiles.awatch, asyncio.Queue[object]()

    def recorded(*paths: Path, **options: object) -> object:
        steps.put_nowait(options["step"])
        return real(*paths, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(watching, "awatch", recorded)
    watcher = FileWatcher(folder, lambda: None, debounce=debounce, clock=SystemClock(), on_trouble=pytest.fail)
    task = asyncio.create_task(watcher.run())
    try:
        async with asyncio.timeout(20):
            assert await steps.get() == step
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_cancelled_watcher_leaks_no_handles_or_threads(folder: Path) -> None:
    """However often it is restarted, the number of threads and handles stays small."""
    async with watched(folder):
        pass
    handles, threads = _handles(), threading.active_count()
    for _ in range(5):
        async with watched(folder):
            pass
    async with asyncio.timeout(20):
        while _handles() > handles:  # noqa: ASYNC110 - handles end by themselves
            await asyncio.sleep(0.05)
    assert threading.active_count() <= threads + 4


def _handles() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a count
