"""Keep downloaded tarballs in the state folder, by the sha512 of their content, limited in age and size."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import BinaryIO

MAX_AGE = timedelta(days=60)
"""How long an unused tarball is kept."""

MAX_BYTES = 256 * 1024 * 1024
"""Most bytes of all tarballs, since a Pod's volume is small; the least recently used ones are dropped first."""

_CHUNK = 1024 * 1024
_TREE = "tree-"


class TarballCache:
    """Tarballs in ``folder``, which is written to; those in ``shared``, if there is one, are read and never changed.

    A file appears under its name only when it is complete, and is compared with its name each time that it is used.
    """

    def __init__(self, folder: Path, shared: Path | None = None, max_bytes: int = MAX_BYTES) -> None:
        self._folder = folder
        self._shared = shared
        self._max_bytes = max_bytes

    def open(self, digests: Sequence[str]) -> BinaryIO | None:
        """Return a tarball with one of these digests (sha512, hex), opened at its start, or None. A damaged file is dropped."""
        for folder in (self._folder, *([self._shared] if self._shared is not None else [])):
            for digest in digests:
                path = folder / f"{digest}.tgz"
                try:
                    file = path.open("rb")
                except OSError:
                    continue
                if _sha512(file) == digest:
                    file.seek(0)
                    if folder == self._folder:
                        with contextlib.suppress(OSError):
                            os.utime(path)
                    return file
                file.close()
                if folder == self._folder:
                    path.unlink(missing_ok=True)
        return None

    @contextmanager
    def new(self) -> Iterator[BinaryIO]:
        """Yield a file to write a tarball to; without `keep` it is gone afterwards. Raises `OSError`."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.NamedTemporaryFile(dir=self._folder, suffix=".part", delete=False) as file:
            try:
                yield file  # type: ignore[misc]
            finally:
                Path(file.name).unlink(missing_ok=True)

    def keep(self, file: BinaryIO, digest: str) -> None:
        """Keep a complete file under the digest of its content, and drop others if they are too much; raises `OSError`."""
        file.flush()
        os.fsync(file.fileno())
        Path(file.name).rename(self._folder / f"{digest}.tgz")
        total = 0
        for _, size, path in self._kept():
            total += size
            if total > self._max_bytes and path.stem != digest:
                path.unlink(missing_ok=True)

    def _kept(self) -> list[tuple[float, int, Path]]:
        """Return when each tarball was last used, and its size and path, the latest first."""
        found = []
        for path in self._folder.glob("*.tgz"):
            with contextlib.suppress(FileNotFoundError):
                about = path.stat()
                found.append((about.st_mtime, about.st_size, path))
        return sorted(found, reverse=True)

    @contextmanager
    def tree(self) -> Iterator[Path]:
        """Yield a new folder to unpack into, without links in its path; it is removed afterwards. Raises `OSError`."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder = Path(os.path.realpath(tempfile.mkdtemp(prefix=_TREE, dir=self._folder)))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def drop_old(self, now: datetime) -> None:
        """Drop what was unused for long, and what a process that died left behind; never raises.

        Only the process that holds the state folder may call this.
        """
        with contextlib.suppress(OSError):
            for left in self._folder.glob("*.part"):
                left.unlink(missing_ok=True)
            for tree in self._folder.glob(f"{_TREE}*"):
                shutil.rmtree(tree, ignore_errors=True)
            for used, _, path in self._kept():
                if used < (now - MAX_AGE).timestamp():
                    path.unlink(missing_ok=True)


def _sha512(file: BinaryIO) -> str:
    digest = hashlib.sha512()
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
    return digest.hexdigest()
