"""Writes the map of the Kapso CLI, so that its `push` and `pull` know what a pass or a pull of ours has done."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path

from kapso_sync.errors import KapsoSyncError
from kapso_sync.files import read_small
from kapso_sync.manifest.remote_map import edited_remote_map
from kapso_sync.model.pull import FileChange, MappedFunction
from kapso_sync.model.source import CODE_LIMIT, PROJECT_FILE, REMOTE_MAP
from kapso_sync.sources.identity import find_work_tree
from kapso_sync.sources.writing import write_file

KAPSO_FILE = "kapso.yaml"
"""The file of the Kapso CLI that marks a project's root."""


def write_remote_map(source: Path, path: str, functions: Sequence[MappedFunction], gone: Collection[str]) -> Path | None:
    """Write the entries of these functions into the map, and return the file; None if it says so already.

    ``path`` is the functions folder below the folder ``source``. ``gone`` are ids of functions that were deleted. The map is
    the nearest one from there up to the root of the repository, or of the source. A new one goes where the CLI's other files
    are, else to that root. Raises `KapsoSyncError`, and then nothing is written.
    """
    tree = find_work_tree(source)
    top = Path(os.path.realpath(source if tree is None else tree.root))
    home = Path(os.path.realpath(source / path))
    folder = _find_folder(home, top)
    old = _read(folder / REMOTE_MAP)
    new = edited_remote_map(old, functions, gone, "" if home == folder else home.relative_to(folder).as_posix())
    if new is None:
        return None
    write_file(folder, FileChange(REMOTE_MAP, old, new))
    return folder / REMOTE_MAP


def _find_folder(home: Path, top: Path) -> Path:
    inside = [folder for folder in (home, *home.parents) if folder.is_relative_to(top)]
    for names in ((REMOTE_MAP,), (PROJECT_FILE, KAPSO_FILE)):
        for folder in inside:
            if any(os.path.lexists(folder / name) for name in names):
                return folder
    return top


def _read(path: Path) -> bytes | None:
    try:
        return read_small(path, CODE_LIMIT)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise KapsoSyncError(
            f"{path} cannot be read: {error.strerror}", hint="make it a regular file of this user's"
        ) from error
