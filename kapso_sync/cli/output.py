"""Makes the process's own streams safe to print to: what cannot be shown is replaced, and a lost output ends the command."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import TextIO

_STDIN, _STDOUT, _STDERR = 0, 1, 2


class OutputLost(Exception):
    """Standard output cannot be written; ``reason`` is the operating system's.

    It is neither a `KapsoSyncError` nor an `OSError`, so that nobody on the way takes it for a failure of the work itself.
    """

    def __init__(self, reason: OSError) -> None:
        super().__init__(str(reason))
        self.reason = reason

    @property
    def reader_is_gone(self) -> bool:
        """Return whether somebody stopped reading on purpose, such as ``| head``."""
        return isinstance(self.reason, BrokenPipeError)


class _Stdout(io.FileIO):
    """Standard output. The first failure raises `OutputLost`; after it, nothing is written any more."""

    _lost = False

    def write(self, data: bytes, /) -> int:  # type: ignore[override]
        if self._lost:
            return len(data)
        try:
            return super().write(data) or 0
        except OSError as error:
            self._lost = True
            raise OutputLost(error) from error


class _Stderr(io.FileIO):
    """Standard error: what cannot be written is lost, because there is nobody to tell."""

    def write(self, data: bytes, /) -> int:  # type: ignore[override]
        with contextlib.suppress(OSError):
            return super().write(data) or 0
        return len(data)


def use_safe_streams() -> None:
    """Replace the process's standard streams. Characters that their encoding lacks are replaced."""
    _open_missing_descriptors()
    sys.stdin = sys.stdin or _text(io.FileIO(_STDIN, "rb", closefd=False), None)
    sys.stdout = _text(_Stdout(_STDOUT, "wb", closefd=False), sys.stdout)
    sys.stderr = _text(_Stderr(_STDERR, "wb", closefd=False), sys.stderr, always_line_buffered=True)


def _open_missing_descriptors() -> None:
    """Open a file for each standard descriptor that the caller closed; else the next file, maybe the journal, would get it.

    Standard output becomes one that cannot be written, as it is for whoever closed it.
    """
    for number, flags in ((_STDIN, os.O_RDONLY), (_STDOUT, os.O_RDONLY), (_STDERR, os.O_RDWR)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, flags)


def _text(raw: io.FileIO, before: TextIO | None, *, always_line_buffered: bool = False) -> TextIO:
    """Return a text stream with the encoding of the one before, which Python took from the locale."""
    if before is not None:
        with contextlib.suppress(OSError, ValueError):
            before.flush()
    encoding = before.encoding if before is not None else "utf-8"
    buffered = io.BufferedReader(raw) if raw.readable() else io.BufferedWriter(raw)
    line_buffering = always_line_buffered or (raw.writable() and raw.isatty())
    return io.TextIOWrapper(buffered, encoding=encoding, errors="replace", line_buffering=line_buffering)
