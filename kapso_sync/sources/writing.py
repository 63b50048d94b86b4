"""Writes files into a functions folder: each as a whole, never through a link, and never over a changed file."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from pathlib import Path, PurePosixPath

from kapso_sync.errors import KapsoSyncError, SourceUnstable
from kapso_sync.model.pull import FileChange


class FileRefused(KapsoSyncError):
    """A file that cannot be written: it leads out of the folder, is a link, or the file system refuses it."""


def write_file(home: Path, change: FileChange) -> None:
    """Write one file below the functions folder ``home``, which is created if it is missing.

    Raises `FileRefused`, and `SourceUnstable` when the file has changed since the plan was made.
    """
    path = _inside(home, change.path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        mode = _regular(path)
        if (path.read_bytes() if mode is not None else None) != change.old:
            raise SourceUnstable(f"{change.path} changed meanwhile", hint="nothing of it was overwritten; pull again")
        _replace(path, change.new, mode)
    except OSError as error:
        raise FileRefused(f"{path} cannot be written: {error.strerror}", hint="make the folder writable") from error


def _inside(home: Path, relative: str) -> Path:
    pure = PurePosixPath(relative)
    if pure.is_absolute() or ".." in pure.parts or "\\" in relative or not pure.parts or not relative.isprintable():
        raise FileRefused(f"{relative!r} leads out of the folder", hint="nothing was written")
    path = home
    for part in pure.parts:
        path = path / part
        if path.is_symlink():
            raise FileRefused(f"{relative} is, or lies behind, a link", hint="files are only written to the folder itself")
    return path


def _regular(path: Path) -> int | None:
    """Return a file's permissions, or None if it is missing; raises `FileRefused` if it is not a regular file."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(found.st_mode):
        raise FileRefused(f"{path} is not a regular file", hint="move it away")
    return stat.S_IMODE(found.st_mode)


def _replace(path: Path, content: bytes, mode: int | None) -> None:
    part = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)
        with os.fdopen(descriptor, "wb") as file:
            if mode is not None:
                os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise
