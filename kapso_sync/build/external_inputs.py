"""Compare what a cached build took from packages of a folder with what is there now: the files, and what each lookup finds."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping
from pathlib import PurePosixPath

from kapso_sync.build.package_tree import PackageTree, Stamp, are_settled, read_outline, read_stamp
from kapso_sync.build.packages import MAX_FILE_BYTES, Packages
from kapso_sync.dataclass import dataclass
from kapso_sync.files import read_beneath, resolve_beneath
from kapso_sync.model.builds import Built


@dataclass(frozen=True, slots=True)
class _Outline:
    """The outline of a package, which holds while all that was read for it has the same stamps."""

    real: str
    stamps: Mapping[str, Stamp]
    digest: str

    def holds(self, real: str) -> bool:
        try:
            return real == self.real and all(read_stamp(path) == stamp for path, stamp in self.stamps.items())
        except OSError:
            return False


class ExternalInputs:
    """Remembers hashes of files and outlines of packages: what has the same times, size and inode is not read again.

    ``settled`` is for how many seconds they must be unchanged, because the times of some file systems are that coarse.
    """

    def __init__(self, settled: float = 2.0) -> None:
        self._settled = settled
        self._hashes: dict[str, tuple[Stamp, str]] = {}
        self._outlines: dict[str, _Outline] = {}

    def check(self, packages: Packages | None) -> InputCheck:
        """Return a check of builds against the packages as they are now; None: the source has none that change."""
        return InputCheck(packages, self._hashes, self._outlines, self._settled)


class InputCheck:
    """Compares builds with packages at one time: what many builds have in common is looked at once."""

    def __init__(
        self,
        packages: Packages | None,
        hashes: dict[str, tuple[Stamp, str]],
        outlines: dict[str, _Outline],
        settled: float,
    ) -> None:
        self._packages = packages
        self._known_hashes = hashes
        self._known_outlines = outlines
        self._settled = settled
        self._hashes: dict[str, str | None] = {}
        self._outlines: dict[str, str | None] = {}
        self._places: dict[tuple[str, str], str | None] = {}

    def holds(self, built: Built) -> bool:
        """Return whether a new build would have the same inputs, with the same content."""
        if self._packages is None:
            return not built.inputs
        packages, resolution = self._packages, built.resolution
        return (
            all(self._hash(packages, path) == digest for path, digest in built.inputs)
            and all(self._place(packages, folder, name) == place for folder, name, place in resolution.lookups)
            and all(self._outline(packages, location) == digest for location, digest in resolution.outlines)
        )

    def _place(self, packages: Packages, folder: str, name: str) -> str | None:
        if (folder, name) not in self._places:
            self._places[folder, name] = PackageTree(packages).look(folder, name)
        return self._places[folder, name]

    def _outline(self, packages: Packages, location: str) -> str | None:
        if location not in self._outlines:
            self._outlines[location] = self._read_outline(packages, location)
        return self._outlines[location]

    def _read_outline(self, packages: Packages, location: str) -> str | None:
        path, real = f"{packages.root}/{location}", resolve_beneath(packages.root, PurePosixPath(location))
        known = self._known_outlines.pop(path, None)
        if known is None or not known.holds(str(real)):
            tree, began = PackageTree(packages), time.time()
            digest = read_outline(tree, location)
            settled = are_settled(tree.stamps.values(), began, self._settled)
            # What a link leads to is not always in a folder that was read.
            if digest is None or tree.has_links or not settled:
                return digest
            stamps = {f"{packages.root}/{place}": stamp for place, stamp in tree.stamps.items()}
            known = _Outline(str(real), stamps, digest)
        self._known_outlines[path] = known
        return known.digest

    def _hash(self, packages: Packages, inside: str) -> str | None:
        if inside not in self._hashes:
            self._hashes[inside] = self._read_hash(packages, inside)
        return self._hashes[inside]

    def _read_hash(self, packages: Packages, inside: str) -> str | None:
        path = f"{packages.root}/{inside}"  # a path object takes longer than to ask for the times
        now = time.time()
        try:
            found = os.stat(path)  # noqa: PTH116 - as above
            stamp = (found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino)
            known = self._known_hashes.get(path)
            if known is None or known[0] != stamp:
                real = resolve_beneath(packages.root, PurePosixPath(inside))
                if real is None or packages.private(real):
                    return None
                known = stamp, hashlib.sha256(read_beneath(packages.root, real, MAX_FILE_BYTES)).hexdigest()
                if are_settled([stamp], now, self._settled):
                    self._known_hashes[path] = known
        except OSError:
            return None
        return known[1]
