"""Defines the files that a pull would write into a functions folder, and its result for each function."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from kapso_sync.model.desired import Notice


class FolderLayout(enum.StrEnum):
    """How new functions are written: into the manifest, or as folders of the Kapso CLI."""

    MANIFEST = "manifest"
    KAPSO = "kapso"


@dataclass(frozen=True, slots=True)
class FileChange:
    """A file to write. ``path`` is relative to the functions folder; ``old`` is None where there is no such file yet."""

    path: str
    old: bytes | None = field(repr=False)
    new: bytes = field(repr=False)


class Taken(enum.StrEnum):
    """The result of a pull for one function."""

    NEW = "new"
    CHANGED = "changed"
    SAME = "same"
    LEFT = "left"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Pulled:
    """The result for one function on Kapso: the files that hold it, and remarks for people.

    ``incomplete``: a part of it was requested and could not be written.
    """

    slug: str
    function_id: str
    taken: Taken
    files: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    incomplete: bool = False


@dataclass(frozen=True, slots=True)
class PullPlan:
    """Everything a pull would do, sorted by path and by slug; the files are to be written in order, the manifest last."""

    changes: tuple[FileChange, ...]
    functions: tuple[Pulled, ...]
    notices: tuple[Notice, ...] = ()

    @property
    def incomplete(self) -> bool:
        """Return whether anything that was requested could not be written."""
        return any(function.incomplete for function in self.functions)
