"""Defines the files that a pull would write into a functions folder, and its result for each function."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import field

from kapso_sync.dataclass import dataclass
from kapso_sync.errors import Notice
from kapso_sync.model.functions import RemoteFunction
from kapso_sync.model.source import FUNCTION_FILE, SourceFile


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
class MappedFunction:
    """A function that is on Kapso as these files say, whose paths are relative to the functions folder."""

    remote: RemoteFunction
    files: Mapping[str, bytes] = field(repr=False)


def files_of(code: str, files: Mapping[str, SourceFile]) -> Mapping[str, bytes]:
    """Return the files that make a function of the Kapso CLI: its code at this path, and the ``function.yaml`` beside it."""
    folder = code.rpartition("/")[0]
    paths = (code, f"{folder}/{FUNCTION_FILE}") if folder else (code,)
    return {path: body for path in paths if path in files and (body := files[path].content) is not None}


@dataclass(frozen=True, slots=True)
class PullPlan:
    """Everything a pull would do, sorted by path and by slug; the files are to be written in order, the manifest last.

    ``mapped`` are the functions that the folder then has as Kapso has them.
    """

    changes: tuple[FileChange, ...]
    functions: tuple[Pulled, ...]
    notices: tuple[Notice, ...] = ()
    mapped: tuple[MappedFunction, ...] = field(default=(), repr=False)

    @property
    def incomplete(self) -> bool:
        """Return whether anything that was requested could not be written."""
        return any(function.incomplete for function in self.functions)
