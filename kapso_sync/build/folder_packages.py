"""The packages of a folder source: those in ``node_modules``, copied for builds, since nobody vouches for what is there.

The copy has regular files only. It has every package that a file of another one imports, declared or not, as Node finds it.
Links are followed as long as they stay below the source's root, as those of pnpm and of workspaces do.
"""

from __future__ import annotations

import asyncio
import enum
import errno
import json
import os
import posixpath
import re
import shutil
import tempfile
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import field
from operator import itemgetter
from pathlib import Path, PurePath, PurePosixPath

from kapso_sync.aio import until_end
from kapso_sync.build.graph import RESOLVED, TEXT_LOADED
from kapso_sync.build.packages import (
    MAX_FILE_BYTES,
    MODULES,
    UNUSED,
    Installed,
    Packages,
    Refusal,
    package_name,
)
from kapso_sync.build.space import NoSpace, Space
from kapso_sync.build.subpaths import PACKAGE
from kapso_sync.dataclass import dataclass
from kapso_sync.files import opened_beneath, read_beneath, resolve_beneath
from kapso_sync.model.builds import Built
from kapso_sync.visible import visible

MAX_PATH_BYTES = 1024
"""Most bytes in the path of a copied folder, below the root."""

MAX_DEPTH = 64
"""Most folders inside each other, below the root: each file is opened through all of them."""

MAX_LOOKUPS = 50_000
"""Most imports of packages that are looked up for one build."""

_LOADED = frozenset({*RESOLVED, *TEXT_LOADED, ""})
"""Suffixes of files that esbuild reads; others are copied as empty files, so that it says that it does not load them."""

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
_HINT = "import something smaller, or put its code into the functions folder"


class FolderPackages:
    """The packages below a source's root, as a `kapso_sync.build.packages.PackageSource`; see there.

    ``new_space`` returns what all packages that are copied together may take. ``copies`` keeps the copy for the next build.
    """

    def __init__(
        self, home: Path, root: Path, new_space: Callable[[], Space] = Space, copies: PackageCopies | None = None
    ) -> None:
        self._packages = Packages(home, root)
        self._new_space = new_space
        self._copies = copies or PackageCopies()

    @property
    def on_disk(self) -> Packages:
        """The packages themselves: builds compare their files."""
        return self._packages

    def find(self, folder: str, specifier: str) -> str | None:
        """Return the path, relative to the root, of the package that a file in ``folder`` imports, or None."""
        return self._packages.find(folder, specifier)

    def explain_missing(self, folder: str, specifier: str) -> Refusal:  # noqa: ARG002 - the same for every folder
        """Return what to do about a package that is not installed, or only above the root."""
        name, root = package_name(specifier), self._packages.root
        above = next((level for level in root.parents if (level / MODULES / name).is_dir()), None)
        if above is not None:
            hint = f"`npm install {name}` in it; or make {above} the repository (`git init`), which is searched up to its root"
            text = f"the npm package `{name}` is in {above / MODULES}, and nothing above {root} is read"
            return Refusal(text, hint, "package-missing")
        hint = f"`npm install {name}` in the repository; for an alias, `paths` in a tsconfig.json of the functions folder"
        return Refusal(f"the npm package `{name}` is not installed", hint, "package-missing")

    def pins(self, packages: Iterable[str]) -> tuple[str, ...]:  # noqa: ARG002 - nothing pins what is in a folder
        """Return nothing: each build compares the files that it used."""
        return ()

    @asynccontextmanager
    async def installed(self, packages: Iterable[str]) -> AsyncIterator[Installed]:
        """Copy these packages, and all that they import, into a folder of our own."""
        wanted = list(packages)
        try:
            # Nothing must be written into the folder after this was cancelled.
            copying, refused = await until_end(asyncio.to_thread(self._copy, wanted))
        except OSError as error:
            text = f"packages cannot be copied for the build: {error.strerror or error}"
            yield Installed(None, dict.fromkeys(wanted, Refusal(text, "is the disk of temporary files full?")))
            return
        try:
            yield Installed(Packages(copying.folder / self._packages.inside, copying.folder, copying.withheld), refused)
        finally:
            await asyncio.shield(asyncio.to_thread(self._copies.keep, copying))

    def _copy(self, wanted: Sequence[str]) -> tuple[_Copying, dict[str, Refusal]]:
        """Add what is missing to the kept copy; where that is refused, make a new copy."""
        kept = self._copies.take(self._packages)
        if kept is not None:
            refused = kept.copy(wanted)
            if not refused:
                return kept, refused
            kept.remove()
        folder = Path(os.path.realpath(tempfile.mkdtemp(prefix="kapso-sync-packages-")))
        fresh = _Copying(self._packages, folder, self._new_space())
        return fresh, fresh.copy(wanted)

    def checked(self, packages: Iterable[str], built: Built) -> Built:  # noqa: ARG002 - whatever was found may be used
        """Return the build."""
        return built


class PackageCopies:
    """Keeps the last copy of packages: while nothing of them changes, a build copies nothing.

    ``settled`` is for how many seconds files must be unchanged, because the times of some file systems are that coarse.
    """

    def __init__(self, settled: float = 2.0) -> None:
        self._settled = settled
        self._kept: _Copying | None = None

    def take(self, packages: Packages) -> _Copying | None:
        """Return the copy, if it is one of these packages as they are now; nobody else gets it until it is kept again."""
        kept, self._kept = self._kept, None
        if kept is None or kept.is_of(packages):
            return kept
        kept.remove()
        return None

    def keep(self, copying: _Copying) -> None:
        """Keep a copy, unless what it was made of may have changed since without a sign of it."""
        if self._kept is None and copying.is_settled(self._settled):
            self._kept = copying
        else:
            copying.remove()


class _Kind(enum.Enum):
    """What an entry of a folder is, before any link is followed."""

    LINK = enum.auto()
    FOLDER = enum.auto()
    FILE = enum.auto()


_Stamp = tuple[int, int, int, int]


def _stamp(path: Path) -> _Stamp:
    found = os.lstat(path)
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino


class _Refused(Exception):
    """A package is not copied; the text finishes a sentence that starts with it."""


@dataclass(slots=True, weakref_slot=True, eq=False)
class _Copying:
    """One copy: ``folder`` becomes the image of the root, and ``withheld`` what stands there empty, and why.

    The folder is removed with this object, at the latest.

    ``location`` is always the path below the root under which Node sees a package, whatever links are on it.
    """

    packages: Packages
    folder: Path
    space: Space
    withheld: dict[str, str] = field(default_factory=dict)
    _needs: dict[str, frozenset[str] | Refusal] = field(default_factory=dict)
    _places: dict[tuple[str, str], str | None] = field(default_factory=dict)
    _real: dict[str, PurePath | None] = field(default_factory=dict)
    _stamps: dict[PurePosixPath, _Stamp] = field(default_factory=dict)
    _begun: float = field(default_factory=time.time)
    _removal: weakref.finalize[..., _Copying] = field(init=False)

    def __post_init__(self) -> None:
        self._removal = weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)

    def is_settled(self, seconds: float) -> bool:
        """Return whether all that was read had been unchanged for a while: what changes later has other times."""
        return all(max(stamp[:2]) < (self._begun - seconds) * 1e9 for stamp in self._stamps.values())

    def is_of(self, packages: Packages) -> bool:
        """Return whether this is what a new copy would be: the same files, and the same ones found for each import."""
        if (packages.home, packages.root) != (self.packages.home, self.packages.root):
            return False
        try:
            same = all(_stamp(packages.root / path) == stamp for path, stamp in self._stamps.items())
        except OSError:
            return False
        return (
            same
            and all(resolve_beneath(packages.root, PurePosixPath(place)) == real for place, real in self._real.items())
            and all(self._look(*key) == place for key, place in self._places.items())
        )

    def remove(self) -> None:
        """Remove the folder."""
        self._removal()

    def copy(self, wanted: Iterable[str]) -> dict[str, Refusal]:
        """Copy these packages and all that they need; return why some are not there, by location."""
        (self.folder / self.packages.inside).mkdir(parents=True, exist_ok=True)
        refused = {}
        for start in wanted:
            reason = self._copy_closure(start)
            if reason is not None:
                refused[start] = reason
        return refused

    def _copy_closure(self, start: str) -> Refusal | None:
        reached, pending = {start}, [start]
        while pending:
            location = pending.pop()
            if location not in self._needs:
                self._needs[location] = self._copy_package(location)
            needs = self._needs[location]
            if isinstance(needs, Refusal):
                return needs
            pending += sorted(needs - reached)
            reached |= needs
        return None

    def _copy_package(self, location: str) -> frozenset[str] | Refusal:
        """Copy one package, and return the locations of those that its files import."""
        needs: set[str] = set()
        try:
            for path, content in self._copy_files(location):
                for name in _imported(path, content):
                    place = self._find(path.rpartition("/")[0], name)
                    if place is not None:
                        needs.add(place)
        except (_Refused, NoSpace) as error:
            text = f"the npm package `{visible(_package_of(location))}` {error}"
            return Refusal(text, _HINT, crowded=isinstance(error, NoSpace))
        return frozenset(needs)

    def _copy_files(self, location: str) -> Iterator[tuple[str, bytes]]:
        """Copy the files of a package but for its ``node_modules``; yield path and content of each that may import others."""
        real = self._real[location] = resolve_beneath(self.packages.root, PurePosixPath(location))
        pending = [(PurePosixPath(real), location)] if real is not None and not self.packages.private(real) else []
        while pending:
            here, seen = pending.pop()
            if len(os.fsencode(seen)) > MAX_PATH_BYTES:
                raise _Refused(f"has paths of more than {MAX_PATH_BYTES} bytes")
            if max(len(here.parts), seen.count("/")) > MAX_DEPTH:
                raise _Refused(f"has folders more than {MAX_DEPTH} deep")
            (self.folder / seen).mkdir(parents=True, exist_ok=True)
            for name, kind in self._list(here, seen):
                path, at = f"{seen}/{name}", here / name
                target = self._follow(path, at, here) if kind is _Kind.LINK else at
                if target is None:
                    continue
                if kind is _Kind.FOLDER or (kind is _Kind.LINK and (self.packages.root / target).is_dir()):
                    pending.append((target, path))
                elif (content := self._take(path, target)) is not None:
                    yield path, content

    def _list(self, here: PurePosixPath, seen: str) -> list[tuple[str, _Kind]]:
        """Return the names in a folder of a package, and what each is; none if the folder cannot be read.

        A ``node_modules`` beside a package.json has other packages, which are copied where they are imported; any other one is
        a part of the package.
        """
        found = []
        try:
            self._stamps[here] = _stamp(self.packages.root / here)
            with opened_beneath(self.packages.root, here) as descriptor, os.scandir(descriptor) as entries:
                for entry in entries:
                    self.space.take(0)
                    kind = _Kind.LINK if entry.is_symlink() else _Kind.FOLDER if entry.is_dir() else _Kind.FILE
                    unwanted = entry.name == ".git" or not entry.name.isprintable()
                    if not unwanted and not (entry.name.startswith(".") and self.packages.private(here / entry.name)):
                        found.append((entry.name, kind))
        except OSError as error:
            self.withheld[seen] = _reason(error)
        installs = PACKAGE in dict(found) or _package_location(f"{seen}/{PACKAGE}") == seen
        return sorted((each for each in found if not installs or each[0] != MODULES), key=itemgetter(0))

    def _follow(self, path: str, at: PurePosixPath, here: PurePosixPath) -> PurePosixPath | None:
        """Return where a link leads below the root; None, and withhold it, if it leads elsewhere."""
        target = resolve_beneath(self.packages.root, at)
        if target is None or self.packages.private(target):
            self._withhold(path, _LEADS_OUT)
        elif here.is_relative_to(target):
            self._withhold(path, _CIRCULAR)
        else:
            return PurePosixPath(target)
        return None

    def _take(self, path: str, real: PurePosixPath) -> bytes | None:
        """Copy a file that is really at ``real``, and return its content if it may import others."""
        suffix = PurePosixPath(path).suffix
        if UNUSED.search(path) is not None:
            return None
        if suffix not in _LOADED:
            self._write(path, b"")
            return None
        try:
            self._stamps[real] = _stamp(self.packages.root / real)
            content = read_beneath(self.packages.root, real, MAX_FILE_BYTES)
        except OSError as error:
            if error.errno != errno.ENOENT:
                self._withhold(path, _reason(error))
            return None
        self.space.take(len(content))
        self._write(path, content)
        return content if suffix not in TEXT_LOADED else None

    def _withhold(self, path: str, reason: str) -> None:
        self.withheld[path] = reason
        self._write(path, b"")

    def _write(self, path: str, content: bytes) -> None:
        (self.folder / path).write_bytes(content)

    def _find(self, folder: str, specifier: str) -> str | None:
        """Return the location of the package that a file in ``folder``, below the root, imports, or None."""
        key = folder, specifier if specifier.startswith(_RELATIVE) else package_name(specifier)
        if key not in self._places:
            if len(self._places) >= MAX_LOOKUPS:
                raise _Refused(f"and those beside it import more than {MAX_LOOKUPS:,} packages")
            self._places[key] = self._look(*key)
        return self._places[key]

    def _look(self, folder: str, name: str) -> str | None:
        if not name.startswith(_RELATIVE):
            return self._nearest(folder, name)
        other = _package_location(posixpath.normpath(f"{folder}/{name}"))
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
        for level in (PurePosixPath(folder), *PurePosixPath(folder).parents):
            if level.name != MODULES:
                yield (level / MODULES / name).as_posix()
        inside = PurePosixPath(self.packages.inside)
        for level in (inside, *inside.parents):
            yield (level / MODULES / ".pnpm" / MODULES / name).as_posix()

    def _usable(self, place: str) -> PurePosixPath | None:
        """Return where the package at a location really is, or None if there is none that may be read."""
        path = self.packages.root / place
        try:
            if not path.is_dir():
                return None
        except OSError:
            return None
        real = resolve_beneath(self.packages.root, PurePosixPath(place))
        return PurePosixPath(real) if real is not None and not self.packages.private(real) else None


def _imported(path: str, content: bytes) -> set[str]:
    """Return the specifiers in a file that may lead to other packages; more than there are does no harm."""
    if path.endswith(".json"):
        found = _mapped(content) if path.rpartition("/")[2] == PACKAGE else set()
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


def _package_location(path: str) -> str | None:
    """Return the location of the package that a path is in, or None."""
    before, inside, after = path.rpartition(f"{MODULES}/")
    return f"{before}{inside}{package_name(after)}" if inside and after and not path.startswith("..") else None


def _package_of(location: str) -> str:
    return location.rpartition(f"{MODULES}/")[2]


def _reason(error: OSError) -> str:
    return _REASONS.get(error.errno or 0) or f"cannot be read: {error.strerror}"
