"""Reads ``package-lock.json``, and finds packages in it as Node would find them in the folders that npm makes of it.

The format: https://docs.npmjs.com/cli/v11/configuring-npm/package-lock-json. Pure: bytes in, values out.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import field
from typing import Any
from urllib.parse import SplitResult, quote, unquote, urlsplit

from kapso_sync.build.packages import MODULES, Refusal
from kapso_sync.dataclass import dataclass
from kapso_sync.model.source import LOCK_FILE, SourceFile
from kapso_sync.visible import visible

VERSIONS = (2, 3)
"""The values of ``lockfileVersion`` that list packages by their folders; npm 7 and newer write them."""

MAX_PACKAGES = 1000
"""Most packages that one function may need, with everything that they need themselves."""

MAX_NEEDS = 200
"""Most packages that one package may name as its dependencies."""

MAX_LOCATION = 400
"""Most characters in the path of a package's folder; about 25 packages inside each other."""

MAX_TARBALL_PATH = 1000
"""Most characters in the path of a tarball below the registry's URL."""

_NAME = re.compile(r"(?:@[^/\\@:\s.][^/\\@:\s]*/)?[^/\\@:\s.][^/\\@:\s]*")
"""What a package may be called here: old packages have names that npm would not take today, but none is a path."""

_SHA512_BYTES = 64


@dataclass(frozen=True, slots=True)
class LockedPackage:
    """A package in a lock file, and the folder below the repository's root in which npm would put it.

    ``tarball`` is its path below the registry's URL. ``digests`` are sha512 in hex: its content must have one of them.
    ``carrier`` is the package whose tarball holds this one (``bundleDependencies``), which then has no tarball of its own.
    ``refusal`` says why it cannot be used. ``needs`` are the names of the packages that it imports, ``optional`` those of them
    that it can do without. ``native``: npm installs it on some machines only.
    """

    location: str
    name: str
    version: str = ""
    tarball: str = ""
    digests: tuple[str, ...] = ()
    carrier: str | None = None
    refusal: Refusal | None = None
    needs: tuple[str, ...] = ()
    optional: frozenset[str] = frozenset()
    native: bool = False

    @property
    def download(self) -> tuple[str, tuple[str, ...]]:
        """What is fetched for it: packages with the same are fetched once."""
        return self.tarball, self.digests

    @property
    def shown(self) -> str:
        """Name and version, for people."""
        return visible(f"`{self.name}` {self.version}".rstrip())


@dataclass(frozen=True, slots=True)
class LockFile:
    """One lock file in ``folder``, a path below the repository's root; ``problem`` says why it cannot be used at all."""

    folder: str
    entries: Mapping[str, Any] = field(default_factory=dict, repr=False)
    problem: Refusal | None = None

    @property
    def path(self) -> str:
        """The file's own path below the repository's root."""
        return _joined(self.folder, LOCK_FILE)


def read_lock_file(folder: str, file: SourceFile) -> LockFile:
    """Return a lock file; nothing of it is trusted, and a broken one has a ``problem``."""
    name = _joined(folder, LOCK_FILE)
    if file.content is None:
        return LockFile(folder, problem=Refusal(f"{name} {file.problem}", "packages cannot be fetched without it"))
    try:
        document = json.loads(file.content)
    except (ValueError, RecursionError):
        return LockFile(folder, problem=Refusal(f"{name} is not JSON", "`npm install --package-lock-only` writes it"))
    version = document.get("lockfileVersion") if isinstance(document, dict) else None
    known = isinstance(version, int) and not isinstance(version, bool)
    if not known or version not in VERSIONS:
        said = f"has lockfileVersion {version}" if known else "has no lockfileVersion"
        hint = "`npm install --package-lock-only --lockfile-version 3` writes one that is"
        return LockFile(folder, problem=Refusal(f"{name} {said}, and 2 or 3 is read", hint))
    packages = document.get("packages")
    if not isinstance(packages, dict):
        hint = "`npm install --package-lock-only` writes it"
        return LockFile(folder, problem=Refusal(f"{name} lists no `packages`", hint))
    return LockFile(folder, packages)


class LockedTree:
    """The packages of all lock files of a source; ``registry`` is the URL of the registry that they are fetched from."""

    def __init__(self, locks: Iterable[LockFile], registry: str) -> None:
        self._locks = {lock.folder: lock for lock in locks}
        self._registry = urlsplit(registry)
        self._has_problem = any(lock.problem is not None for lock in self._locks.values())
        self._folders = _folders(self._locks.values())
        self._read: dict[str, LockedPackage] = {}
        self._needed: dict[str, tuple[LockedPackage, ...]] = {}
        self._carriers = frozenset(
            around
            for lock in self._locks.values()
            for key, entry in lock.entries.items()
            if isinstance(entry, dict) and entry.get("inBundle") is True and len(key) <= MAX_LOCATION
            for around in _around(_joined(lock.folder, key))
        )

    def find(self, folder: str, name: str) -> LockedPackage | Refusal | None:
        """Return the package that a file in a folder means by a name; None if no lock file has it.

        The folders are searched upwards, as Node does. A lock file on the way that cannot be read ends the search: it may have
        the package.
        """
        if not _is_name(name):
            return None
        folders = self._folders.get(name, frozenset())
        if not folders and not self._has_problem:
            return None
        for level in _upwards(folder):
            lock = self._locks.get(level)
            if lock is not None and lock.problem is not None:
                return lock.problem
            found = self.read(_joined(level, MODULES, name)) if level in folders else None
            if found is not None:
                return found
        return None

    def closure(self, starts: Iterable[LockedPackage]) -> tuple[LockedPackage, ...]:
        """Return these packages and all that they need, sorted by their folders; at most one more than `MAX_PACKAGES`.

        Peer dependencies count, as far as a lock file has them. What only some machines install is left out where it is not
        required: a Worker is none of them. So is an optional package that is refused, which npm would do without as well.
        """
        reached: dict[str, LockedPackage] = {}
        carriers: dict[str, LockedPackage] = {}
        pending = list(starts)
        while pending and len(reached) <= MAX_PACKAGES:
            package = pending.pop()
            if package.location in reached:
                continue
            reached[package.location] = package
            if package.carrier is not None and (carrier := self.read(package.carrier)) is not None:
                carriers[carrier.location] = carrier
            pending += self._needs_of(package)
        reached = {**carriers, **reached}
        return tuple(reached[location] for location in sorted(reached))

    def _needs_of(self, package: LockedPackage) -> tuple[LockedPackage, ...]:
        """Return the packages that a package itself needs; each package is looked at once."""
        if package.location not in self._needed:
            found = [(name, self.find(package.location, name)) for name in package.needs if package.refusal is None]
            self._needed[package.location] = tuple(
                one
                for name, one in found
                if isinstance(one, LockedPackage) and not (name in package.optional and (one.native or one.refusal is not None))
            )
        return self._needed[package.location]

    def carries(self, location: str) -> bool:
        """Return whether a package's tarball holds other packages, as its lock file says."""
        return location in self._carriers

    def read(self, location: str) -> LockedPackage | None:
        """Return the package in a folder below the repository's root, by the nearest lock file above it, or None."""
        found = self._read.get(location)
        if found is None:
            found = self._find_entry(location)
            if found is not None:
                self._read[location] = found
        return found

    def _find_entry(self, location: str) -> LockedPackage | None:
        if len(location) > MAX_LOCATION:
            return None
        parts = location.split("/")
        for level in _upwards("/".join(parts[: parts.index(MODULES)])):
            lock = self._locks.get(level)
            key = location.removeprefix(f"{level}/") if level else location
            if lock is not None and key in lock.entries:
                return self._package(lock, location, lock.entries[key])
        return None

    def _package(self, lock: LockFile, location: str, entry: Any) -> LockedPackage:
        name = location.rpartition(f"{MODULES}/")[2]
        if not isinstance(entry, dict):
            return LockedPackage(location, name, refusal=Refusal(f"its entry in {lock.path} is not one of npm", _WRITE_ANEW))
        real = entry.get("name", name)
        version = entry.get("version", "")
        if not (isinstance(real, str) and _is_name(real) and isinstance(version, str)):
            return LockedPackage(location, name, refusal=Refusal(f"its entry in {lock.path} is not one of npm", _WRITE_ANEW))
        about_peers = entry.get("peerDependenciesMeta")
        optional_peers = [name for name, about in about_peers.items() if about] if isinstance(about_peers, dict) else []
        optional = frozenset([*_names(entry, "optionalDependencies"), *optional_peers])
        needs = dict.fromkeys(
            [*_names(entry, "dependencies"), *_names(entry, "optionalDependencies"), *_names(entry, "peerDependencies")]
        )
        if len(needs) > MAX_NEEDS:
            return LockedPackage(location, name, refusal=Refusal(f"it needs more than {MAX_NEEDS} packages itself", _SMALLER))
        carrier, digests, tarball, refusal = None, tuple[str, ...](), "", None
        if entry.get("inBundle") is True:
            carrier = self._carrier(location)
            refusal = Refusal("no package carries it", _WRITE_ANEW) if carrier is None else None
        else:
            refusal = _refuse_kind(entry)
            if refusal is None:
                digests = _sha512(entry.get("integrity"))
                refusal = None if digests else _refuse_integrity(entry, lock.path)
            if refusal is None:
                path = tarball_path(real, version, entry.get("resolved"), self._registry)
                refusal = Refusal(f"`resolved` in {lock.path} is no path of a registry", _WRITE_ANEW) if path is None else None
                tarball = path or ""
        return LockedPackage(
            location=location,
            name=real,
            version=version,
            tarball=tarball,
            digests=digests,
            carrier=carrier,
            refusal=refusal,
            needs=tuple(needs),
            optional=optional,
            native=any(entry.get(key) for key in ("os", "cpu", "libc")),
        )

    def _carrier(self, location: str) -> str | None:
        """Return the nearest package around a folder that has a tarball of its own."""
        for around in _around(location):
            found = self.read(around) if MODULES in around.split("/") else None
            if found is None or found.carrier is None:
                return found.location if found is not None else None
        return None


_SMALLER = "import something smaller, or sync from a checkout"
_WRITE_ANEW = "`npm install --package-lock-only` writes the lock file anew"


def _refuse_kind(entry: Mapping[str, Any]) -> Refusal | None:
    """Return why an entry is of a kind that no registry serves, or None."""
    resolved = entry.get("resolved")
    if entry.get("link"):
        hint = "move what functions share into the functions folder, and import it by a path; or sync from a checkout"
        return Refusal("it is a link to a folder of the repository, which a git source does not follow", hint)
    if resolved is None or resolved is True:
        return None
    if not isinstance(resolved, str):
        return Refusal("`resolved` is not a text", _WRITE_ANEW)
    scheme = resolved.partition(":")[0].lower()
    if scheme in ("http", "https"):
        return None
    hint = "take a version of it that the registry has, or sync from a checkout"
    kind = "a git repository" if scheme.startswith("git") or "ssh" in scheme else "a file"
    return Refusal(f"it comes from {kind}, and packages come from the registry alone", hint)


def _refuse_integrity(entry: Mapping[str, Any], path: str) -> Refusal:
    said = entry.get("integrity")
    has = f"has only {said.partition('-')[0][:20]}" if isinstance(said, str) and "-" in said else "has no integrity"
    hint = "delete its entry from the lock file, and `npm install --package-lock-only` adds it with the registry's sha512"
    return Refusal(visible(f"{path} {has} for it, and sha512 is needed"), hint)


def _sha512(integrity: object) -> tuple[str, ...]:
    """Return the sha512 digests of ``sha512-BASE64 …`` in hex. Source: https://www.w3.org/TR/SRI/#integrity-metadata-description."""
    found = []
    for item in integrity.split() if isinstance(integrity, str) else ():
        algorithm, _, rest = item.partition("-")
        try:
            digest = base64.b64decode(rest.partition("?")[0], validate=True)
        except (binascii.Error, ValueError):
            continue
        if algorithm == "sha512" and len(digest) == _SHA512_BYTES:
            found.append(digest.hex())
    return tuple(dict.fromkeys(found))


def tarball_path(name: str, version: str, resolved: object, registry: SplitResult) -> str | None:
    """Return the path of a tarball below the registry's URL, quoted; None if what ``resolved`` says cannot be one.

    The host that ``resolved`` names is never asked: lock files keep the URL of the registry they were made with. Registries
    serve ``NAME/-/FILE``, whatever their own path is; of another layout the path is taken as a whole.

    >>> tarball_path("zod", "3.1.0", "https://npm.acme.dev/api/npm/all/zod/-/zod-3.1.0.tgz", urlsplit("https://registry.npmjs.org"))
    'zod/-/zod-3.1.0.tgz'
    """
    if not isinstance(resolved, str):
        tail = f"{name}/-/{name.rpartition('/')[2]}-{version}.tgz" if version else ""
    else:
        try:
            path = unquote(urlsplit(resolved).path, errors="strict")
        except ValueError:
            return None
        _, marker, rest = path.rpartition(f"/{name}/-/")
        base = f"{registry.path.rstrip('/')}/"
        tail = f"{name}/-/{rest}" if marker else path.removeprefix(base).removeprefix("/")
    parts = tail.split("/")
    if not tail or len(tail) > MAX_TARBALL_PATH or not tail.isprintable() or any(part in ("", ".", "..") for part in parts):
        return None
    return quote(tail, safe="/@+~!-._")


def _is_name(name: str) -> bool:
    return bool(_NAME.fullmatch(name)) and name.isprintable() and name != MODULES


def _names(entry: Mapping[str, Any], key: str) -> list[str]:
    named = entry.get(key)
    return [name for name in named if isinstance(name, str)] if isinstance(named, dict) else []


def _upwards(folder: str) -> Iterator[str]:
    """Yield a folder's path and those of its parents, the root (empty) last."""
    while folder:
        yield folder
        folder = folder.rpartition("/")[0]
    yield ""


def _folders(locks: Iterable[LockFile]) -> Mapping[str, AbstractSet[str]]:
    """Return the folders with a ``node_modules`` that has a package of a name, by that name.

    A package may be deep, and need many that are far above it or nowhere: each folder on the way is then looked up in a set.
    """
    found: dict[str, set[str]] = {}
    for lock in locks:
        for key in lock.entries:
            folder, marker, name = key.rpartition(f"{MODULES}/")
            if marker and (not folder or folder.endswith("/")) and not folder.endswith(f"{MODULES}/"):
                found.setdefault(name, set()).add(_joined(lock.folder, folder.removesuffix("/")))
    return found


def _around(location: str) -> Iterator[str]:
    """Yield the folders of the packages around a package's folder."""
    while f"/{MODULES}/" in location:
        location = location.rpartition(f"/{MODULES}/")[0]
        yield location


def _joined(*parts: str) -> str:
    return "/".join(part for part in parts if part)
