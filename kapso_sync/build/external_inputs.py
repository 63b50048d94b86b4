"""Whether files outside the snapshot are still those that a build was made of: packages change without git."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from kapso_sync.build.packages import Packages

_Stamp = tuple[int, int, int, int]


class ExternalInputs:
    """Compares files by hash; one that shows no change since it was hashed is not read again."""

    def __init__(self) -> None:
        self._hashes: dict[Path, tuple[_Stamp, str]] = {}

    def unchanged(self, inputs: Sequence[tuple[str, str]], packages: Packages | None) -> bool:
        """Tell whether these files below the source's root still have these hashes."""
        if packages is None:
            return not inputs
        return all(self._hash(packages.root / path) == wanted for path, wanted in inputs)

    def _hash(self, path: Path) -> str | None:
        try:
            found = path.stat()
            stamp = (found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino)
            known = self._hashes.get(path)
            if known is None or known[0] != stamp:
                self._hashes[path] = known = (stamp, hashlib.sha256(path.read_bytes()).hexdigest())
        except OSError:
            return None
        return known[1]
