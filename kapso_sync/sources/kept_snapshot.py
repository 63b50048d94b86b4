"""Keeps the last snapshot of a repository in a file, so that the contents of its files take no memory between two passes."""

from __future__ import annotations

import hashlib
import os
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import IO

import msgspec

from kapso_sync.dataclass import dataclass
from kapso_sync.model.source import Snapshot


class KeptSnapshot:
    """One snapshot, in a file without a name in ``folder``: no other process finds it, and it ends with this one.

    Where no file can be written, such as on a full disk, the snapshot stays in memory.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._commit: str | None = None
        self._in_memory: Snapshot | None = None
        self._file: _File | None = None
        self._close: Callable[[], object] = lambda: None

    def keep(self, snapshot: Snapshot) -> None:
        """Keep a snapshot in place of the last one."""
        self._commit, self._in_memory, self._file = snapshot.revision.id, snapshot, None
        self._close()
        try:
            content = msgspec.msgpack.encode(snapshot)
            # Without a buffer: one that cannot be written to a full disk would fail when it is closed, too.
            file = tempfile.TemporaryFile(dir=self._folder, buffering=0)  # noqa: SIM115 - it stays open
            self._close = weakref.finalize(self, file.close)
            if file.write(content) == len(content):
                self._file, self._in_memory = _File(file, len(content), hashlib.sha256(content).digest()), None
        except (OSError, UnicodeError):  # UnicodeError: msgspec writes no path that is not UTF-8
            return

    def load(self, commit: str) -> Snapshot | None:
        """Return the snapshot of this commit; None if it is not kept, or cannot be read any more."""
        if commit != self._commit:
            return None
        file = self._file
        if file is None:
            return self._in_memory
        content = file.read()
        return None if content is None else msgspec.msgpack.decode(content, type=Snapshot)


@dataclass(frozen=True, slots=True)
class _File:
    """A file that is only read from now on, what was written to it, and the digest of that."""

    opened: IO[bytes]
    size: int
    digest: bytes

    def read(self) -> bytes | None:
        """Return the content; None if it is not what was written: a bad disk would deploy garbage."""
        try:
            content = os.pread(self.opened.fileno(), self.size, 0)  # two threads may read
        except (OSError, ValueError):  # ValueError: it was closed, since another snapshot is kept
            return None
        return content if hashlib.sha256(content).digest() == self.digest else None
