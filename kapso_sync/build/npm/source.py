"""The packages of a git source: found in its lock files, fetched when a build needs them, and unpacked for that build only."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath

from kapso_sync.aio import until_end
from kapso_sync.build.npm.cache import TarballCache
from kapso_sync.build.npm.lock import MAX_PACKAGES, LockedPackage, LockedTree, LockFile, read_lock_file
from kapso_sync.build.npm.registry import Registry
from kapso_sync.build.npm.tarball import UnusableTarball, unpack
from kapso_sync.build.packages import MODULES, NOT_CACHED, Installed, Packages, Refusal, package_name
from kapso_sync.build.space import NoSpace, Space
from kapso_sync.model.builds import Built
from kapso_sync.model.source import LOCK_FILE, Snapshot, SourceFile
from kapso_sync.visible import visible


class NpmPackages:
    """Returns the packages of each snapshot; the lock files that did not change are read once.

    ``online`` False: nothing is fetched, and what the cache lacks is refused with the code `NOT_CACHED`. ``new_space`` returns
    what all packages that are unpacked together may take.
    """

    def __init__(
        self, registry: Registry, cache: TarballCache, *, online: bool = True, new_space: Callable[[], Space] = Space
    ) -> None:
        self._registry = registry
        self._cache = cache
        self._online = online
        self._new_space = new_space
        self._known: dict[str, tuple[SourceFile, LockFile]] = {}

    def __call__(self, snapshot: Snapshot) -> LockedPackages:
        """Return the packages that the lock files of a snapshot pin."""
        files = {**snapshot.lock_files, **_inside(snapshot)}
        self._known = {folder: (file, self._read(folder, file)) for folder, file in files.items()}
        tree = LockedTree((lock for _, lock in self._known.values()), self._registry.url)
        registry = self._registry if self._online else None
        return LockedPackages(snapshot.path, tree, registry, self._cache, self._new_space)

    def _read(self, folder: str, file: SourceFile) -> LockFile:
        known = self._known.get(folder)
        return known[1] if known is not None and known[0] == file else read_lock_file(folder, file)


def _inside(snapshot: Snapshot) -> dict[str, SourceFile]:
    """Return the lock files of the functions folder and of the folders in it, by their folders below the repository's root."""
    home = PurePosixPath(snapshot.path)
    found = {}
    for path, file in snapshot.files.items():
        if path.rpartition("/")[2] == LOCK_FILE:
            folder = (home / path).parent.as_posix()
            found["" if folder == "." else folder] = file
    return found


class LockedPackages:
    """The packages that lock files pin, as a `kapso_sync.build.packages.PackageSource`; see there.

    ``home`` is the functions folder below the repository's root. Without ``registry`` nothing is fetched.
    """

    on_disk = None

    def __init__(
        self, home: str, tree: LockedTree, registry: Registry | None, cache: TarballCache, new_space: Callable[[], Space]
    ) -> None:
        self._new_space = new_space
        self._home = home
        self._tree = tree
        self._registry = registry
        self._cache = cache
        self._closures: dict[tuple[str, ...], tuple[LockedPackage, ...]] = {}

    def find(self, folder: str, specifier: str) -> str | None:
        """Return the folder, below the repository's root, that npm would give to a package; None if no lock file has it."""
        found = self._find(folder, specifier)
        return found.location if isinstance(found, LockedPackage) else None

    def explain_missing(self, folder: str, specifier: str) -> Refusal:
        """Return what is wrong with the lock file, or that it does not have the package."""
        found = self._find(folder, specifier)
        if isinstance(found, Refusal):
            return found
        name = package_name(specifier)
        alias = "for an alias, `paths` in a tsconfig.json of the functions folder"
        hint = f"`npm install {name}` in the repository, and commit {LOCK_FILE}; {alias}"
        return Refusal(visible(f"no {LOCK_FILE} above the file has the npm package `{name}`"), hint)

    def _find(self, folder: str, specifier: str) -> LockedPackage | Refusal | None:
        return self._tree.find(f"{self._home}/{folder}".strip("/"), package_name(specifier))

    def pins(self, packages: Iterable[str]) -> tuple[str, ...]:
        """Return folder and digests of each package that these need, and where the functions folder is."""
        return (self._home, *(f"{one.location} {' '.join(one.digests)}" for one in self._closure(packages)))

    def _closure(self, packages: Iterable[str]) -> tuple[LockedPackage, ...]:
        key = tuple(packages)
        if key not in self._closures:
            starts = (found for path in key if (found := self._tree.read(path)) is not None)
            self._closures[key] = self._tree.closure(starts)
        return self._closures[key]

    @asynccontextmanager
    async def installed(self, packages: Iterable[str]) -> AsyncIterator[Installed]:
        """Fetch what is missing in the cache, and unpack everything into a new folder, which is removed afterwards."""
        needs = await until_end(asyncio.to_thread(lambda: {path: self._closure([path]) for path in packages}))
        wanted = {package.location: package for closure in needs.values() for package in closure}
        with ExitStack() as stack:
            try:
                folder = stack.enter_context(self._cache.tree())
                refused = await self._install(tuple(wanted[location] for location in sorted(wanted)), folder)
                (folder / self._home).mkdir(parents=True, exist_ok=True)
                found = Installed(Packages(folder / self._home, folder), _refused_starts(needs, refused))
            except OSError as error:
                text = f"packages cannot be unpacked in the state folder: {error.strerror or error}"
                found = Installed(None, dict.fromkeys(needs, Refusal(text, "is its disk full?")))
            yield found

    async def _install(self, wanted: Sequence[LockedPackage], folder: Path) -> dict[str, Refusal]:
        """Unpack packages into a folder, and return why some are not there, by location."""
        refused = {one.location: one.refusal for one in wanted if one.refusal is not None}
        refused = {location: _about(self._tree.read(location), refusal) for location, refusal in refused.items()}
        own = [one for one in wanted if one.refusal is None and one.carrier is None]
        missing = [one for one in own if not await asyncio.to_thread(self._is_cached, one)]
        downloads = list({one.download: one for one in missing}.values())
        if self._registry is None:
            refused |= {one.location: Refusal(f"{one.shown} is not in the cache", _NOT_FETCHED, NOT_CACHED) for one in missing}
        elif downloads:
            failed = await self._registry.fetch(downloads, self._cache)
            reasons = {one.download: failed[one.location] for one in downloads if one.location in failed}
            refused |= {one.location: reasons[one.download] for one in missing if one.download in reasons}
        present = [one for one in own if one.location not in refused]
        # The folder is removed when this is cancelled, and nothing must be written into it then.
        return refused | await until_end(asyncio.to_thread(self._unpack, present, folder))

    def _is_cached(self, package: LockedPackage) -> bool:
        file = self._cache.open(package.digests)
        if file is None:
            return False
        file.close()
        return True

    def _unpack(self, packages: Sequence[LockedPackage], folder: Path) -> dict[str, Refusal]:
        """Unpack packages in the order of their folders: one in the folder of another replaces what the other's tarball has."""
        refused, space = {}, self._new_space()
        for package in packages:
            place = folder / package.location
            file = self._cache.open(package.digests)
            if file is None:
                refused[package.location] = Refusal(f"{package.shown} is gone from the cache", "the next pass fetches it again")
                continue
            with file:
                shutil.rmtree(place, ignore_errors=True)
                try:
                    unpack(file, place, space, carries=self._tree.carries(package.location))
                except (UnusableTarball, NoSpace) as error:
                    shutil.rmtree(place, ignore_errors=True)
                    crowded = isinstance(error, NoSpace)
                    hint = _SMALLER if crowded else "take another version of it: what the lock file pins cannot be used"
                    text = f"the tarball of {package.shown} {error}"
                    refused[package.location] = Refusal(text, hint, crowded=crowded)
        return refused

    def checked(self, packages: Iterable[str], built: Built) -> Built | Refusal:
        """Return the build without its inputs, which its key pins; a refusal if it has a package that nobody declared.

        Such a package is only there by chance, for another function of the same run, and not in the build's key.
        """
        allowed = {package.location for package in self._closure(packages)}
        for path, _ in built.inputs:
            location = self._location_of(path)
            if location is not None and location not in allowed:
                text = visible(f"a package imports `{location.rpartition(f'{MODULES}/')[2]}`, which it does not declare")
                return Refusal(text, "take a version of it that lists what it imports, or sync from a checkout")
        return replace(built, inputs=())

    def _location_of(self, path: str) -> str | None:
        """Return the innermost package of the lock files that a file is in."""
        parts = path.split("/")
        for end in range(len(parts) - 1, 1, -1):
            location = "/".join(parts[:end])
            if MODULES in (parts[end - 2], parts[max(end - 3, 0)]) and self._tree.read(location) is not None:
                return location
        return None


_SMALLER = "import something smaller, or sync from a checkout"
_NOT_FETCHED = "nothing is fetched here; plan and sync fetch what they need"


def _about(package: LockedPackage | None, refusal: Refusal) -> Refusal:
    return replace(refusal, reason=f"the npm package {package.shown}: {refusal.reason}") if package is not None else refusal


def _refused_starts(needs: Mapping[str, Sequence[LockedPackage]], refused: Mapping[str, Refusal]) -> dict[str, Refusal]:
    """Return why the packages that code imports are not there: they, or one that they need, were refused."""
    found = {}
    for path, closure in needs.items():
        name = visible(path.rpartition(f"{MODULES}/")[2])
        if len(closure) > MAX_PACKAGES:
            text = f"the npm package `{name}` needs more than {MAX_PACKAGES} others"
            found[path] = Refusal(text, _SMALLER)
        elif path in refused:
            found[path] = refused[path]
        else:
            lacking = next((refused[package.location] for package in closure if package.location in refused), None)
            if lacking is not None:
                found[path] = replace(lacking, reason=f"{lacking.reason} (`{name}` needs it)")
    return found
