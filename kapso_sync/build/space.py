"""Bounds what all packages of a build together may take on the disk, which is a Pod's small volume."""

from __future__ import annotations

from kapso_sync.dataclass import dataclass


class NoSpace(Exception):
    """A package does not fit beside the others. The text continues a sentence that starts with the package."""


@dataclass(slots=True)
class Space:
    """What is left for the packages of a build: files and folders, and bytes."""

    files: int = 50_000
    bytes: int = 128 * 1024 * 1024

    def take(self, size: int) -> None:
        """Count one file of this many bytes; raises `NoSpace` when there is none for it."""
        self.files -= 1
        self.bytes -= size
        if self.files < 0 or self.bytes < 0:
            raise NoSpace("does not fit beside the others: together they have too many files, or too many bytes")
