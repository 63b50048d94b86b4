"""File events as a trigger: an event only requests a pass, and the rescan interval finds changes that caused no event.

Measured with watchfiles 1.x: if a symbolic link above the watched folder changes, there is no event. If the watched folder is
removed and made again, there are no more events. Files in new nested folders are missed. One file name that is not UTF-8 ends
the watch. Therefore the target of the path is checked all the time, and the watch starts again whenever the target changes or
the watch ends.

Watching recursively takes an inotify watch for each folder of ``node_modules``, ``.git`` and ``.venv``, and
``ignore_permission_denied`` hides that the kernel's limit is reached. So only the folders that a source reads are watched, each
by itself, and no error is ignored.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import stat
from collections.abc import AsyncGenerator, Callable, Collection
from pathlib import Path, PurePosixPath

from watchfiles import Change, awatch

from kapso_sync.errors import KapsoSyncError
from kapso_sync.model.clock import Clock
from kapso_sync.model.source import NOT_FOLLOWED
from kapso_sync.retry import Backoff
from kapso_sync.sources.file_rules import is_entered

STEP, MIN_STEP = 0.4, 0.05
SHORT_DEBOUNCE = 0.3
"""Seconds between two looks of the library for events: a shorter debounce than this is also the step, down to its minimum.

The library delivers events after a step without any, which is one to two steps after the last event. Each look wakes this
process, and an idle daemon does little else. The end of a watch waits for the next look.
"""

LINK_CHECK_SECONDS = 2.0
CHECK_SECONDS = 10.0
"""Seconds between two checks of the path's target: where a link leads to it, which causes no event when it is turned, and
elsewhere. There the end of a folder is an event; that of a folder above it need not be one. Each check wakes the process, too.
"""

NESTED_SECONDS = 0.25
"""Seconds until another pass is requested after a folder was made, because the events of its files may have been missed."""

RELIST_SECONDS = 30.0
"""Seconds between two looks for folders that were made without an event."""

MAX_FOLDERS = 10_000
"""Maximum number of folders that are watched."""

POLL_MS = 1000
NO_TIMEOUT = 0
"""As the library spells it: its thread returns with events, or at the end of the watch."""

FIRST_BURST_DELAY = 10
"""If changes do not end, a pass is requested after this many times ``debounce``."""

RESTART_BACKOFF = Backoff(initial=0.2, maximum=10.0)
"""Seconds before a failed watch starts again."""

_SKIPPED = NOT_FOLLOWED | {".git", ".venv"}
_LIMIT = re.compile(r"inotify|space left|too many open files|watch limit", re.IGNORECASE)
"""How the library spells the limits of the kernel: on watches, on watchers, and on open files."""

_PASSING = (".swp", ".swx", ".tmp", "~", ".part")


class FileWatcher:
    """Calls ``on_change`` once after each burst of changes below ``root``; ``debounce`` is the quiet time, in seconds.

    ``on_trouble`` is called, once for each reason, with why changes are noticed late. ``inside`` returns the folder in ``root``
    that is read, empty for ``root`` itself; of the rest only the folders on the way are watched.
    """

    def __init__(
        self,
        root: Path,
        on_change: Callable[[], None],
        *,
        debounce: float,
        clock: Clock,
        on_trouble: Callable[[str], None],
        inside: Callable[[], str] = lambda: "",
    ) -> None:
        self._inside = inside
        self._root = Path(os.path.abspath(root))  # noqa: PTH100 - links on the way must stay visible
        self._on_change = on_change
        self._debounce = debounce
        self._step = max(debounce, MIN_STEP) if debounce < SHORT_DEBOUNCE else STEP
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
        """Watch the path's current target; return when the target changes, or the folders below it."""
        identity = self._identity()
        folders = {} if identity is None else await asyncio.to_thread(self._folders, identity[0])
        async with asyncio.TaskGroup() as group:
            following = group.create_task(self._follow(folders, identity)) if folders else None
            looked = self._clock.monotonic()
            linked = identity is None or identity[0] != str(self._root)
            while self._is_still(identity) and not (following is not None and following.done()):
                await self._rest(LINK_CHECK_SECONDS if linked else CHECK_SECONDS, following)
                if self._clock.monotonic() - looked >= RELIST_SECONDS and identity is not None:
                    looked = self._clock.monotonic()
                    if await asyncio.to_thread(self._folders, identity[0]) != folders:
                        break
            if following is not None:
                following.cancel()
        self._touch()

    async def _rest(self, seconds: float, following: asyncio.Task[None] | None) -> None:
        """Wait for so long, or until what follows the folders has ended: then there may be another folder to watch."""
        if following is None:
            await self._clock.sleep(seconds)
        else:
            await asyncio.wait({following}, timeout=seconds)

    def _identity(self) -> tuple[str, int, int] | None:
        """Return the identity of the path's target, which changes when the target does; None if the target does not exist."""
        try:
            real = os.path.realpath(self._root)
            found = os.stat(real)  # noqa: PTH116 - beside realpath
        except OSError:
            return None
        return real, found.st_dev, found.st_ino

    def _is_still(self, identity: tuple[str, int, int] | None) -> bool:
        """Return whether the path's target is still this one. It is asked all the time, so the links are not spelled out."""
        try:
            found = os.stat(self._root)  # noqa: PTH116 - as above
        except OSError:
            return identity is None
        return identity is not None and identity[1:] == (found.st_dev, found.st_ino)

    def _folders(self, root: str) -> dict[str, tuple[int, int]]:
        """Return the folders to watch, those on the way to what is read and those of it: inodes by real path."""
        try:
            inside = self._inside()
        except KapsoSyncError:  # the functions folder is missing: it may appear in one of these
            inside = ""
        way = [root]
        for name in PurePosixPath(inside).parts:
            way.append(os.path.realpath(f"{way[-1]}{os.sep}{name}"))
        return {path: inode for path in [*way[:-1], *_folders_below(way[-1])] if (inode := _folder_inode(path)) is not None}

    async def _follow(self, folders: Collection[str], identity: tuple[str, int, int] | None) -> None:
        """Watch these folders; return when there may be another one, or the path has another target."""
        events: AsyncGenerator[set[tuple[Change, str]], None] = awatch(
            *folders,
            watch_filter=lambda _change, path: path in folders or _matters(path),
            debounce=round(1000 * FIRST_BURST_DELAY * max(self._debounce, self._step)),
            step=round(1000 * self._step),
            rust_timeout=NO_TIMEOUT,
            recursive=False,
            force_polling=self._polling,
            poll_delay_ms=POLL_MS,
            ignore_permission_denied=False,
        )
        # The library starts to watch within its first step, which ends before this is called: what was written before that
        # caused no event, maybe after a pass has read it.
        asyncio.get_running_loop().call_soon(self._touch, self._debounce)
        try:
            async with contextlib.aclosing(events) as changes:
                async for batch in changes:
                    self._touch(self._step)
                    if not self._is_still(identity) or any(
                        change is Change.deleted and path in folders for change, path in batch
                    ):
                        return  # what was made again in its place may have the same inode, and causes no event
                    if any(change is Change.added and _is_folder(path) for change, path in batch):
                        # Files in it have caused no event; once it is watched as well, everything is read again.
                        await self._clock.sleep(NESTED_SECONDS)
                        return
        except FileNotFoundError:
            return  # a folder was removed before its watch began

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
        if any(isinstance(reason, OSError) or _LIMIT.search(str(reason)) for reason in reasons):
            self._polling = True
        # The library appends the path at which it happened, which says nothing and differs from time to time.
        texts = (" ".join(str(item).partition(" about [")[0].split()) or type(item).__name__ for item in reasons)
        reason = "; ".join(dict.fromkeys(texts)).removesuffix(".")
        if reason not in self._told and len(self._told) < 100:
            self._told.add(reason)
            how = "files are polled every second from now on" if self._polling else "the watch starts again"
            self._on_trouble(f"watching files failed: {reason}; {how}")


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]


def _folders_below(root: str) -> list[str]:
    """Return the real paths of a folder and of those below it that a source reads, links inside followed.

    A link to a file may lead to a folder that is not entered otherwise, such as a hidden one, as those of a ConfigMap do.
    """
    pending, found, linked = [root], dict.fromkeys([root]), set[str]()
    while pending and len(found) < MAX_FOLDERS:
        folder = pending.pop()
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError:
            continue  # it is gone, or may not be read: then the source says so
        linked |= {_folder_of_target(entry.path) for entry in entries if entry.is_symlink() and not _leads_to_folder(entry)}
        for real in (os.path.realpath(entry.path) for entry in entries if is_entered(entry.name) and _leads_to_folder(entry)):
            if real not in found and _is_below(real, root):
                found[real] = None
                pending.append(real)
    found |= dict.fromkeys(real for real in map(os.path.realpath, sorted(linked)) if _is_below(real, root))
    return list(found)[:MAX_FOLDERS]


def _leads_to_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a folder or a link to one; a link that cannot be followed, as in a circle, is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _folder_of_target(link: str) -> str:
    """Return the folder in which the target of a link lies, links on the way not followed; that of the link if it is gone."""
    folder, _, _ = link.rpartition(os.sep)
    with contextlib.suppress(OSError):
        return os.path.join(folder, os.readlink(link).rpartition(os.sep)[0])  # noqa: PTH115, PTH118 - there may be many
    return folder


def _is_below(path: str, root: str) -> bool:
    return path.startswith(f"{root}{os.sep}")


def _matters(path: str) -> bool:
    """Return whether a change of this path may be one of a source; editors leave other files behind for a moment."""
    name = Path(path).name
    return name not in _SKIPPED and not name.endswith(_PASSING) and not name.startswith(".#")


def _is_folder(path: str) -> bool:
    return _folder_inode(path) is not None


def _folder_inode(path: str) -> tuple[int, int] | None:
    """Return device and inode of a folder, or None if it is none."""
    try:
        found = os.stat(path)  # noqa: PTH116 - asked for many folders
    except (OSError, ValueError):
        return None
    return (found.st_dev, found.st_ino) if stat.S_ISDIR(found.st_mode) else None
