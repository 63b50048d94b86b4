"""Reads files that somebody else may have made: regular files only, bounded, and without ever waiting for one."""

from __future__ import annotations

import errno
import os
import select
import stat
import time
from pathlib import Path, PurePath

_NEVER_WAIT = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
_NO_LINK = _NEVER_WAIT | os.O_NOFOLLOW


def read_small(path: Path, limit: int, *, follow: bool = False) -> bytes:
    """Return the content of a regular file of at most ``limit`` bytes; ``follow`` a link as its last part.

    Raises `OSError`: besides the usual reasons ``ELOOP`` for a link, ``EINVAL`` for what is no regular file, such as a pipe,
    and ``EFBIG`` for a larger one. What is read may have grown since it was looked at, and is bounded all the same.
    """
    return _read(os.open(path, _NEVER_WAIT if follow else _NO_LINK), limit)


def read_stream(path: Path, limit: int, patience: float) -> bytes:
    """Return the content of a file of at most ``limit`` bytes, which may be a pipe that ends within ``patience`` seconds.

    Raises `OSError` like `read_small`, and `TimeoutError`, which is one, for a pipe that nobody writes to or closes.
    """
    descriptor = os.open(path, _NEVER_WAIT)
    try:
        if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            return _bounded(descriptor, limit)
        content, waiting, until = b"", select.poll(), time.monotonic() + patience
        waiting.register(descriptor, select.POLLIN)
        while (left := until - time.monotonic()) > 0 and waiting.poll(left * 1000):
            chunk = os.read(descriptor, limit + 1)
            content += chunk
            if not chunk or len(content) > limit:
                return _checked(content, limit)
        raise TimeoutError(errno.ETIMEDOUT, f"it is a pipe, and did not end within {patience:g} s")
    finally:
        os.close(descriptor)


def read_beneath(folder: Path, path: PurePath, limit: int) -> bytes:
    """Return the content of a regular file at ``path`` below ``folder``; raises like `read_small`.

    Each folder on the way is opened below the one before it, and none may be a link: what is swapped for a link after somebody
    has looked at it leads nowhere. ``folder`` itself is trusted.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in path.parent.parts:
            if part == "..":
                raise OSError(errno.EXDEV, "it leads out of the folder", str(path))
            inner = os.open(part, _NO_LINK | os.O_DIRECTORY, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
        return _read(os.open(path.name, _NO_LINK, dir_fd=descriptor), limit)
    finally:
        os.close(descriptor)


def _read(descriptor: int, limit: int) -> bytes:
    """Return the content of an open file, and close it."""
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        return _bounded(descriptor, limit)
    finally:
        os.close(descriptor)


def _bounded(descriptor: int, limit: int) -> bytes:
    with os.fdopen(descriptor, "rb", closefd=False) as file:
        return _checked(file.read(limit + 1), limit)


def _checked(content: bytes, limit: int) -> bytes:
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"it is larger than {limit} bytes")
    return content
