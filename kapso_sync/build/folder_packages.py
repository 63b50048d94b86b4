"""The packages of a folder source: those in ``node_modules``, copied for builds, since nobody vouches for what is there.

The copy has regular files only. It has every package that a file of another one imports, declared or not, as Node finds it.
Links are followed as long as they stay below the source's root, as those of pnpm and of workspaces do.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import field
from pathlib import Path, PurePosixPath

from kapso_sync.aio import until_end
from kapso_sync.build.graph import RESOLVED, TEXT_LOADED
from kapso_sync.build.package_tree import (
    Found,
    Lookup,
    Outline,
    PackageTree,
    UnusablePackage,
    are_settled,
    find_lookups,
    is_package_file,
    leads_inside,
    package_location,
    read_stamp,
)
from kapso_sync.build.packages import MODULES, Installed, Packages, Refusal, package_name
from kapso_sync.build.space import NoSpace, Space
from kapso_sync.dataclass import dataclass
from kapso_sync.files import resolve_beneath
from kapso_sync.model.builds import Built, Resolution
from kapso_sync.visible import visible

MAX_LOOKUPS = 50_000
"""Most imports of packages that are looked up for one build."""

_LOADED = frozenset({*RESOLVED, *TEXT_LOADED, ""})
"""Suffixes of files that esbuild reads; others are copied as empty files, so that it says that it does not load them."""

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
            home, folder = copying.folder / self._packages.inside, copying.folder
            yield Installed(Packages(home, folder, copying.tree.withheld, copying.resolution), refused)
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
        fresh = _Copying(PackageTree(self._packages, self._new_space()), folder)
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


@dataclass(slots=True, weakref_slot=True, eq=False)
class _Copying:
    """One copy: ``folder`` becomes the image of the tree's root, where files that are withheld are empty.

    The folder is removed with this object, at the latest.

    ``location`` is always the path below the root under which Node sees a package, whatever links are on it.
    """

    tree: PackageTree
    folder: Path
    _needs: dict[str, frozenset[str] | Refusal] = field(default_factory=dict)
    _places: dict[Lookup, str | None] = field(default_factory=dict)
    _outlines: dict[str, str] = field(default_factory=dict)
    _described: dict[str, frozenset[Lookup]] = field(default_factory=dict)
    _began: float = field(default_factory=time.time)
    _removal: weakref.finalize[..., _Copying] = field(init=False)

    def __post_init__(self) -> None:
        self._removal = weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)

    def is_settled(self, seconds: float) -> bool:
        """Return whether all that was read had been unchanged for a while: what changes later has other times."""
        return are_settled(self.tree.stamps.values(), self._began, seconds)

    def is_of(self, packages: Packages) -> bool:
        """Return whether this is what a new copy would be: the same files, and the same ones found for each import."""
        before = self.tree
        if (packages.home, packages.root) != (before.packages.home, before.packages.root):
            return False
        try:
            same = all(read_stamp(packages.root / path) == stamp for path, stamp in before.stamps.items())
        except OSError:
            return False
        return (
            same
            and all(resolve_beneath(packages.root, PurePosixPath(place)) == real for place, real in before.real.items())
            and all(before.look(*lookup) == place for lookup, place in self._places.items())
        )

    def remove(self) -> None:
        """Remove the folder."""
        self._removal()

    def copy(self, wanted: Iterable[str]) -> dict[str, Refusal]:
        """Copy these packages and all that they need; return why some are not there, by location."""
        (self.folder / self.tree.packages.inside).mkdir(parents=True, exist_ok=True)
        refused = {}
        for start in wanted:
            reason = self._copy_closure(start)
            if reason is not None:
                refused[start] = reason
        return refused

    def resolution(self, wanted: Iterable[str], inputs: Iterable[str]) -> Resolution:
        """Return what decided that a build of these packages has these inputs: see `Resolution`.

        Lookups of files that are no inputs decide nothing, so a large package of which a build uses a little has few.
        """
        pending = set(wanted)
        found: dict[Lookup, str | None] = {}
        for path in inputs:
            pending |= {location} if (location := package_location(path)) is not None else set()
            pending |= self._take_lookups(find_lookups(path, (self.folder / path).read_bytes()), found)
        outlines: dict[str, str] = {}
        # A package that another one ships in a folder `node_modules` may be a part of that one's outline.
        while pending := (pending & self._outlines.keys()) - outlines.keys():
            location = pending.pop()
            outlines[location] = self._outlines[location]
            pending |= self._take_lookups(self._described[location], found)
        lookups = sorted((*lookup, place) for lookup, place in found.items())
        return Resolution(tuple(sorted(outlines.items())), tuple(lookups))

    def _take_lookups(self, lookups: Iterable[Lookup], found: dict[Lookup, str | None]) -> set[str]:
        """Add what these lookups found, and return the packages."""
        known = {lookup: self._places[lookup] for lookup in lookups if lookup in self._places}
        found |= {lookup: place for lookup, place in known.items() if not leads_inside(lookup, place)}
        return {place for place in known.values() if place is not None}

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
        described: set[Lookup] = set()
        try:
            for path, content in self._copy_files(location):
                lookups = find_lookups(path, content)
                needs |= {place for lookup in lookups if (place := self._find(lookup)) is not None}
                described |= lookups if is_package_file(path) else set()
        except (UnusablePackage, NoSpace) as error:
            text = f"the npm package `{visible(_package_of(location))}` {error}"
            return Refusal(text, _HINT, crowded=isinstance(error, NoSpace))
        self._described[location] = frozenset(described)
        return frozenset(needs)

    def _copy_files(self, location: str) -> Iterator[tuple[str, bytes]]:
        """Copy the files of a package but for its ``node_modules``; yield path and content of each that may import others."""
        outline = Outline(location)
        for found in self.tree.walk(location):
            content = None
            if found.is_folder:
                (self.folder / found.path).mkdir(parents=True, exist_ok=True)
            else:
                content = self._take(found)
            outline.add(found, content)
            if content and PurePosixPath(found.path).suffix not in TEXT_LOADED:
                yield found.path, content
        self._outlines[location] = outline.digest

    def _take(self, found: Found) -> bytes | None:
        """Copy a file, and return its content; a file that esbuild does not load becomes an empty one. None: it is gone."""
        content = self.tree.read(found) if PurePosixPath(found.path).suffix in _LOADED else b""
        if content:
            self.tree.space.take(len(content))
        if content is not None:
            (self.folder / found.path).write_bytes(content)
        return content

    def _find(self, lookup: Lookup) -> str | None:
        """Return the location of the package that a lookup finds, or None."""
        if lookup not in self._places:
            if len(self._places) >= MAX_LOOKUPS:
                raise UnusablePackage(f"and those beside it import more than {MAX_LOOKUPS:,} packages")
            self._places[lookup] = self.tree.look(*lookup)
        return self._places[lookup]


def _package_of(location: str) -> str:
    return location.rpartition(f"{MODULES}/")[2]
