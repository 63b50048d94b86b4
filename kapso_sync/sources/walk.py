"""Bounds the walk through a source: whoever pushes can make a tree of a few kilobytes that has no end."""

from __future__ import annotations

from collections.abc import Callable

from kapso_sync.dataclass import dataclass
from kapso_sync.errors import InvalidSource
from kapso_sync.model.source import FILE_COUNT_LIMIT


@dataclass(frozen=True, slots=True)
class WalkLimits:
    """Most files and folders that are read, entries that are looked at, and folders inside each other; bytes and seconds.

    ``folder`` is the size of one folder's list, ``size`` that of all contents. Ten levels of ten equal folders are ten git
    objects, and ten thousand million folders.
    """

    files: int = FILE_COUNT_LIMIT
    folders: int = 10_000
    entries: int = 200_000
    depth: int = 64
    folder: int = 16 * 1024 * 1024
    size: int = 64 * 1024 * 1024
    seconds: float = 60.0


class WalkBudget:
    """What is left for one walk; every method raises `InvalidSource` when it is used up. ``where`` names the source.

    ``monotonic`` returns seconds, and is asked once for every entry.
    """

    def __init__(self, where: str, monotonic: Callable[[], float], limits: WalkLimits | None = None) -> None:
        self._where = where
        self._monotonic = monotonic
        self._limits = limits or WalkLimits()
        self._ends = monotonic() + self._limits.seconds
        self._entries = self._files = self._folders = self._size = 0

    def look(self) -> None:
        """Count an entry of a folder, whatever it is."""
        self._entries += 1
        if self._entries > self._limits.entries:
            raise self._refusal(f"holds more than {self._limits.entries:,} files and folders")
        if self._monotonic() > self._ends:
            raise self._refusal(f"could not be read within {self._limits.seconds:g} s")

    def enter(self, path: str, size: int = 0) -> None:
        """Count a folder, and judge it by its path, and by the size of its list, in bytes."""
        self._folders += 1
        if self._folders > self._limits.folders:
            raise self._refusal(f"holds more than {self._limits.folders:,} folders")
        if path.count("/") >= self._limits.depth:
            raise self._refusal(f"has folders more than {self._limits.depth} deep")
        if size > self._limits.folder:
            raise self._refusal(f"has a folder whose list is longer than {self._limits.folder // 1024**2} MiB")

    def take_file(self) -> None:
        """Count a file that is read."""
        self._files += 1
        if self._files > self._limits.files:
            raise self._refusal(f"holds more than {self._limits.files:,} files of code and text")

    def take_content(self, size: int) -> None:
        """Count content that is kept in memory, in bytes."""
        self._size += size
        if self._size > self._limits.size:
            raise self._refusal(f"holds more than {self._limits.size // 1024**2} MiB of code and text")

    def _refusal(self, what: str) -> InvalidSource:
        hint = "name the functions folder with --path; node_modules and hidden folders are not counted"
        return InvalidSource(f"{self._where} {what}", hint=hint)
