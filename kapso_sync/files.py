"""Reads files that somebody else may have made: regular files only, bounded, and without ever waiting for one."""

from __future__ import annotations

import errno
import os
import select
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePath
from typing import Self

_NEVER_WAIT = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
_NO_LINK = _NEVER_WAIT | os.O_NOFOLLOW


def read_small(path: str | Path, limit: int, *, follow: bool = False) -> bytes:
    """Return the content of a regular file of at most ``limit`` bytes; ``follow`` a link as its last part.

    Raises `OSError`: besides the usual reasons ``ELOOP`` for a link, ``EINVAL`` for what is no regular file, such as a pipe,
    and ``EFBIG`` for a larger one. What is read may have grown since it was looked at, and is bounded all the same.
    """
    return _read(os.open(path, _NEVER_WAIT if follow else _NO_LINK), limit)


def require_regular(path: Path) -> None:
    """Raise `OSError`, ``EINVAL``, if something is there that is no regular file: SQLite would wait for a pipe for ever."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode):
        raise _not_regular()


def read_beneath(folder: Path, path: PurePath, limit: int) -> bytes:
    """Return the content of a regular file at ``path`` below ``folder``; raises like `read_small` and `opened_beneath`."""
    with opened_beneath(folder, path.parent) as descriptor:
        return read_at(descriptor, path.name, limit)


@contextmanager
def opened_beneath(folder: Path, path: PurePath) -> Iterator[int]:
    """Yield the descriptor of the folder at ``path`` below ``folder``; raises `OSError`.

    Each folder on the way is opened below the one before it, and none may be a link: what is swapped for a link after somebody
    has looked at it leads nowhere. ``folder`` itself is trusted.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in path.parts:
            if part == "..":
                raise OSError(errno.EXDEV, "it leads out of the folder", str(path))
            inner = os.open(part, _NO_LINK | os.O_DIRECTORY, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
        yield descriptor
    finally:
        os.close(descriptor)


class FilesBeneath:
    """Reads files below a folder like `read_beneath`, one after the other; a context manager.

    The folder of the last file stays open for the next one: a folder of a thousand files is opened once.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._opened = ExitStack()
        self._parent: str | None = None
        self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def read(self, path: str, limit: int) -> bytes:
        """Return the content of a regular file at ``path`` below the folder; raises like `read_beneath`."""
        parent, _, name = path.rpartition("/")  # a PurePath takes longer than to read a small file
        if parent != self._parent:
            self._parent = None
            self._opened.close()
            self._descriptor = self._opened.enter_context(opened_beneath(self.folder, PurePath(parent)))
            self._parent = parent
        return read_at(self._descriptor, name, limit)


def read_at(descriptor: int, name: str, limit: int) -> bytes:
    """Return the content of a regular file in an open folder; raises like `read_small`."""
    return _read(os.open(name, _NO_LINK, dir_fd=descriptor), limit)


def real_path(path: str | PurePath) -> str:
    """Return the path without links; one that is taken away meanwhile counts as no link.

    `os.path.realpath` finds a link first and then reads it, and raises `OSError` if it is gone in between.
    """
    try:
        return os.path.realpath(path)
    except OSError:
        return os.path.abspath(path)  # noqa: PTH100 - `Path.absolute` keeps ``..``


def resolve_beneath(root: Path, path: PurePath) -> PurePath | None:
    """Return where ``path`` below ``root`` really is, relative to the root; None if links lead out of it.

    ``root`` is a real path. What is found may be swapped at any time, so open it with `opened_beneath` or `read_beneath`.
    """
    real = Path(real_path(root / path))
    return real.relative_to(root) if real.is_relative_to(root) else None


def read_stream(path: Path, limit: int, patience: float) -> bytes:
    """Return the content of what may also be a pipe, at most ``limit`` bytes; raises like `read_small`.

    Raises ``ETIMEDOUT`` if nothing is written into it for ``patience`` seconds: opening a pipe that nobody writes into would
    otherwise wait for ever.
    """
    descriptor = os.open(path, _NEVER_WAIT)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return _read(descriptor, limit)
    content = b""
    try:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        ready = select.poll()
        ready.register(descriptor, select.POLLIN)
        while True:
            if not ready.poll(patience * 1000):
                raise OSError(errno.ETIMEDOUT, f"nobody wrote into it for {patience:g} s")
            part = os.read(descriptor, limit + 1 - len(content))
            content += part
            if not part:
                return content
            if len(content) > limit:
                raise _too_large(limit)
    finally:
        os.close(descriptor)


_CHUNK = 64 * 1024
"""Bytes to read at once of what has no true size, such as files of /proc, or grows while it is read."""


def _not_regular() -> OSError:
    return OSError(errno.EINVAL, "it is not a regular file")


def _too_large(limit: int) -> OSError:
    return OSError(errno.EFBIG, f"it is larger than {limit} bytes")


def _read(descriptor: int, limit: int) -> bytes:
    """Return the content of an open file, and close it."""
    try:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            raise _not_regular()
        if about.st_size > limit:
            raise _too_large(limit)
        content = os.read(descriptor, about.st_size + 1)  # a buffer of the limit's size would cost more than most files
        while len(content) <= limit and (part := os.read(descriptor, min(_CHUNK, limit + 1 - len(content)))):
            content += part
    finally:
        os.close(descriptor)
    if len(content) > limit:
        raise _too_large(limit)
    return content
