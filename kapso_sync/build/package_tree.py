"""Find packages in ``node_modules`` as Node does, and walk through their files, but only below the source's root.

Nobody vouches for what is there. Links are followed as long as they stay below the root, as those of pnpm and of workspaces do.
"""

from __future__ import annotations

import enum
import errno
import hashlib
import json
import os
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import field
from operator import itemgetter
from pathlib import PurePath, PurePosixPath

from kapso_sync.build.packages import MAX_FILE_BYTES, MODULES, UNUSED, Packages, package_name
from kapso_sync.build.space import NoSpace, Space
from kapso_sync.build.subpaths import PACKAGE
from kapso_sync.dataclass import dataclass
from kapso_sync.files import opened_beneath, read_beneath, resolve_beneath

MAX_PATH_BYTES = 1024
"""Most bytes in the path of a package's folder, below the root."""

MAX_DEPTH = 64
"""Most folders inside each other, below the root: each file is opened through all of them."""

_IMPORTS = re.compile(
    rb"""(?:\bfrom|\bimport|\brequire)\s*+(?:\(\s*+)?(?:/\*[^*]{0,200}+\*/\s*+)?["'`]([^"'`\\\s]{1,300})["'`]"""
)
"""No white space is looked at twice: a file of nothing else would take the square of its 16 MiB, and hold every thread."""

_RELATIVE = ("./", "../")
_LEADS_OUT = "is a link that leads out of the source"
_CIRCULAR = "is a link to a folder that it is in itself"
_REASONS = {
    errno.EFBIG: f"is larger than {MAX_FILE_BYTES // 1024**2} MiB, the limit for a file of a package",
    errno.EINVAL: "is not a regular file",
    errno.ENXIO: "is not a regular file",
    errno.ELOOP: "was swapped for a link while it was read",
    errno.ENOTDIR: "was swapped for a link while it was read",
}

Lookup = tuple[str, str]
"""A folder below the root, and what a file in it imports: the name of a package, or a path that starts with a dot."""

Stamp = tuple[int, int, int, int]
"""Times, size and inode of a file or folder."""


def read_stamp(path: str | PurePath) -> Stamp:
    """Return the stamp of a file, a folder or a link; raises `OSError`."""
    found = os.lstat(path)
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino


def are_settled(stamps: Iterable[Stamp], began: float, seconds: float) -> bool:
    """Return whether each further change is sure to give another stamp.

    ``began`` is when the first stamp was read, as `time.time` tells it. The times of some file systems are coarse: what changed
    less than ``seconds`` before that may change again, and have the same times.
    """
    return all(max(stamp[:2]) < (began - seconds) * 1e9 for stamp in stamps)


class UnusablePackage(Exception):
    """A package cannot be used; the text finishes a sentence that starts with it."""


class _Kind(enum.Enum):
    """What an entry of a folder is, before any link is followed."""

    LINK = enum.auto()
    FOLDER = enum.auto()
    FILE = enum.auto()


@dataclass(frozen=True, slots=True)
class Found:
    """A folder or file of a package: ``path`` is how Node sees it below the root, and ``real`` where a file really is.

    ``real`` is None for a folder, and for a link that leads nowhere that may be read.
    """

    path: str
    real: PurePosixPath | None = None
    is_folder: bool = False


@dataclass(slots=True)
class PackageTree:
    """Looks at the packages below a root; ``space`` bounds the files of all walks together.

    ``withheld`` are files and folders that may not be read or cannot be, and why. ``stamps`` are those of all folders and files
    that were read, and ``real`` is where each package really is; ``has_links``: a link was in a package.
    """

    packages: Packages
    space: Space = field(default_factory=Space)
    withheld: dict[str, str] = field(default_factory=dict)
    stamps: dict[PurePosixPath, Stamp] = field(default_factory=dict)
    real: dict[str, PurePath | None] = field(default_factory=dict)
    has_links: bool = False

    def walk(self, location: str) -> Iterator[Found]:
        """Yield the folders and files of a package but for its ``node_modules``; raises `UnusablePackage` and `NoSpace`."""
        real = self.real[location] = resolve_beneath(self.packages.root, PurePosixPath(location))
        pending = [(PurePosixPath(real), location)] if real is not None and not self.packages.private(real) else []
        while pending:
            here, seen = pending.pop()
            if len(os.fsencode(seen)) > MAX_PATH_BYTES:
                raise UnusablePackage(f"has paths of more than {MAX_PATH_BYTES} bytes")
            if max(len(here.parts), seen.count("/")) > MAX_DEPTH:
                raise UnusablePackage(f"has folders more than {MAX_DEPTH} deep")
            yield Found(seen, is_folder=True)
            for name, kind in self._list(here, seen):
                path, at = f"{seen}/{name}", here / name
                target = self._follow(path, at, here) if kind is _Kind.LINK else at
                if target is None:
                    yield Found(path)
                elif kind is _Kind.FOLDER or (kind is _Kind.LINK and (self.packages.root / target).is_dir()):
                    pending.append((target, path))
                elif UNUSED.search(path) is None:
                    yield Found(path, target)

    def _list(self, here: PurePosixPath, seen: str) -> list[tuple[str, _Kind]]:
        """Return the names in a folder of a package, and what each is; none if the folder cannot be read.

        A ``node_modules`` beside a package.json has other packages, which are found where they are imported; any other one is a
        part of the package.
        """
        found = []
        try:
            self.stamps[here] = read_stamp(self.packages.root / here)
            with opened_beneath(self.packages.root, here) as descriptor, os.scandir(descriptor) as entries:
                for entry in entries:
                    self.space.take(0)
                    kind = _Kind.LINK if entry.is_symlink() else _Kind.FOLDER if entry.is_dir() else _Kind.FILE
                    unwanted = entry.name == ".git" or not entry.name.isprintable()
                    if not unwanted and not (entry.name.startswith(".") and self.packages.private(here / entry.name)):
                        found.append((entry.name, kind))
        except OSError as error:
            self.withheld[seen] = _reason(error)
        installs = PACKAGE in dict(found) or package_location(f"{seen}/{PACKAGE}") == seen
        return sorted((each for each in found if not installs or each[0] != MODULES), key=itemgetter(0))

    def _follow(self, path: str, at: PurePosixPath, here: PurePosixPath) -> PurePosixPath | None:
        """Return where a link leads below the root; None, and withhold it, if it leads elsewhere."""
        self.has_links = True
        target = resolve_beneath(self.packages.root, at)
        if target is None or self.packages.private(target):
            self.withheld[path] = _LEADS_OUT
        elif here.is_relative_to(target):
            self.withheld[path] = _CIRCULAR
        else:
            return PurePosixPath(target)
        return None

    def read(self, found: Found) -> bytes | None:
        """Return the content of a file; None if it is gone. One that cannot be read, or may not be, is withheld, and empty."""
        if found.real is None:
            return b""
        try:
            self.stamps[found.real] = read_stamp(self.packages.root / found.real)
            return read_beneath(self.packages.root, found.real, MAX_FILE_BYTES)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return None
            self.withheld[found.path] = _reason(error)
            return b""

    def look(self, folder: str, name: str) -> str | None:
        """Return the location of the package that a file in ``folder`` imports, or None; see `Lookup`."""
        if not name.startswith(_RELATIVE):
            return self._nearest(folder, name)
        other = package_location(posixpath.normpath(f"{folder}/{name}"))
        return other if other is not None and self._usable(other) is not None else None

    def _nearest(self, folder: str, name: str) -> str | None:
        """Return the location that Node would take, or the highest one in a row that is the same package.

        In a workspace, a package that links to another one, which links back, would otherwise never end:

            node_modules/a/node_modules/b/node_modules/a    is node_modules/a
        """
        chosen: str | None = None
        real: PurePosixPath | None = None
        for place in self._candidates(folder, name):
            found = self._usable(place)
            if found is not None and real is not None and found != real:
                break
            if found is not None:
                chosen, real = place, found
        return chosen

    def _candidates(self, folder: str, name: str) -> Iterator[str]:
        for level in _levels(folder):
            if not f"/{level}".endswith(f"/{MODULES}/"):
                yield f"{level}{MODULES}/{name}"
        inside = self.packages.inside
        for level in _levels("" if inside == "." else inside):
            yield f"{level}{MODULES}/.pnpm/{MODULES}/{name}"

    def _usable(self, place: str) -> PurePosixPath | None:
        """Return where the package at a location really is, or None if there is none that may be read."""
        if not os.path.isdir(f"{self.packages.root}/{place}"):  # noqa: PTH112 - a hit asks this thousands of times
            return None
        real = resolve_beneath(self.packages.root, PurePosixPath(place))
        return PurePosixPath(real) if real is not None and not self.packages.private(real) else None


class Outline:
    """A digest of what decides which file of a package an import finds: their names, and the content of each package.json."""

    def __init__(self, location: str) -> None:
        self._location = location
        self._hash = hashlib.sha256()

    def add(self, found: Found, content: bytes | None) -> None:
        """Add what a walk yields; ``content`` is that of a package.json."""
        line = found.path.removeprefix(self._location) + ("/" if found.is_folder else "")
        self._hash.update(os.fsencode(line) + b"\0")
        if is_package_file(found.path):
            self._hash.update(hashlib.sha256(content or b"").digest())

    @property
    def digest(self) -> str:
        """The digest (hex) of all that was added."""
        return self._hash.hexdigest()


def read_outline(tree: PackageTree, location: str) -> str | None:
    """Return the digest of a package's outline as it is now; None if the package is too large, or lies too deep."""
    outline = Outline(location)
    try:
        for found in tree.walk(location):
            content = tree.read(found) if is_package_file(found.path) and not found.is_folder else None
            outline.add(found, content)
    except (UnusablePackage, NoSpace):
        return None
    return outline.digest


def is_package_file(path: str) -> bool:
    """Return whether a path is that of a package.json."""
    return path.rpartition("/")[2] == PACKAGE


def leads_inside(lookup: Lookup, place: str | None) -> bool:
    """Return whether a lookup is a path into the very package whose file has it, as ``../lib`` mostly is."""
    folder, name = lookup
    return name.startswith(_RELATIVE) and place == package_location(folder)


def find_lookups(path: str, content: bytes) -> set[Lookup]:
    """Return what a file's imports may look for outside of its package; more than there is does no harm."""
    folder = path.rpartition("/")[0]
    return {(folder, name if name.startswith(_RELATIVE) else package_name(name)) for name in _imported(path, content)}


def _imported(path: str, content: bytes) -> set[str]:
    """Return the specifiers in a file that may lead to other packages."""
    if path.endswith(".json"):
        found = _mapped(content) if is_package_file(path) else set()
    else:
        found = {name.decode("utf-8", "replace") for name in _IMPORTS.findall(content)}
    return {name for name in found if name.startswith("../") or MODULES in name or _is_bare(name)}


def _is_bare(specifier: str) -> bool:
    """Return whether a specifier names a package, as ``.prisma/client`` does, and no path."""
    return specifier[0] not in "/#" and not specifier.startswith("./") and not {".", ".."} & set(specifier.split("/"))


def _mapped(content: bytes) -> set[str]:
    """Return all texts in the fields of a package.json that may name other packages."""
    try:
        about = json.loads(content)
    except (ValueError, RecursionError):
        return set()
    pending = [about.get("browser"), about.get("imports")] if isinstance(about, dict) else []
    found = set()
    while pending:
        value = pending.pop()
        if isinstance(value, str) and value:
            found.add(value)
        elif isinstance(value, Mapping):
            pending += value.values()
        elif isinstance(value, list):
            pending += value
    return found


def _levels(folder: str) -> Iterator[str]:
    """Yield a folder and all above it, nearest first, as beginnings of paths: ``a/b/``, ``a/``, and nothing."""
    while folder:
        yield f"{folder}/"
        folder = folder.rpartition("/")[0]
    yield ""


def package_location(path: str) -> str | None:
    """Return the location of the package that a path is in, or None."""
    before, inside, after = path.rpartition(f"{MODULES}/")
    return f"{before}{inside}{package_name(after)}" if inside and after and not path.startswith("..") else None


def _reason(error: OSError) -> str:
    return _REASONS.get(error.errno or 0) or f"cannot be read: {error.strerror}"
