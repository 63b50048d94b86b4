"""Find npm packages in ``node_modules`` of a folder and its parents, but only below the source's own root."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import field
from pathlib import Path, PurePath, PurePosixPath
from typing import Any, Protocol

from kapso_sync.dataclass import dataclass
from kapso_sync.files import read_small, resolve_beneath
from kapso_sync.model.builds import Built, Resolution
from kapso_sync.model.desired import BundledPackage
from kapso_sync.visible import visible

MODULES = "node_modules"

_NODE = """
assert async_hooks buffer child_process cluster console constants crypto dgram diagnostics_channel dns domain events fs http
http2 https inspector module net os path perf_hooks process punycode querystring readline repl stream string_decoder sys
timers tls trace_events tty url util v8 vm wasi worker_threads zlib assert/strict dns/promises fs/promises path/posix
path/win32 readline/promises stream/consumers stream/promises stream/web timers/promises util/types
"""
NODE_BUILT_INS = frozenset(_NODE.split())
"""Node's built-in modules that can be imported without ``node:``; source: `require("module").builtinModules`."""

RUNTIME_MODULES = ("node:", "cloudflare:")

UNAVAILABLE = "package-unavailable"
"""The code of a problem with a package that the source cannot provide here and now; its function is blocked."""

NOT_CACHED = "package-not-cached"
"""The code of a problem with a package of a git source that was not fetched, since no request may be made."""

TARBALLS = "packages"
"""The folder of downloaded packages in a state folder."""

UNUSED = re.compile(r"\.(d\.[cm]?ts|map)$")
"""Files that no build reads: type declarations and source maps, which are more than half of many packages."""

MAX_FILE_BYTES = 16 * 1024 * 1024
"""Most bytes of one file of a package: esbuild takes 20 to 200 bytes of memory for each."""

MAX_ABOUT_BYTES = 1024 * 1024
"""Bytes that are read of a ``package.json``, at most."""

MAX_TEXT = 200
"""Most characters of a name, a version or a licence in a ``package.json`` that are kept."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a package, or all packages of a file, cannot be used; ``hint`` says what to do. ``code`` is that of the problem.

    ``crowded``: it may be there when fewer packages are asked for at once.
    """

    reason: str
    hint: str
    code: str = UNAVAILABLE
    crowded: bool = False


@dataclass(frozen=True, slots=True)
class Installed:
    """Packages on disk, and why others are not there, by the path that `PackageSource.find` returned."""

    packages: Packages | None
    refused: Mapping[str, Refusal] = field(default_factory=dict)


class PackageSource(Protocol):
    """The npm packages that the code of a snapshot may import: those in ``node_modules``, or those of a lock file."""

    @property
    def on_disk(self) -> Packages | None:
        """The packages whose files may change without a new revision; None if `pins` say what is in a package."""
        ...

    def find(self, folder: str, specifier: str) -> str | None:
        """Return the path, relative to the source's root, of the package that a file in ``folder`` imports, or None."""
        ...

    def explain_missing(self, folder: str, specifier: str) -> Refusal:
        """Return why there is no package that a file in ``folder`` imports."""
        ...

    def pins(self, packages: Iterable[str]) -> tuple[str, ...]:
        """Return what decides the content of these packages and of all that they need, for a build's key."""
        ...

    def installed(self, packages: Iterable[str]) -> AbstractAsyncContextManager[Installed]:
        """Provide these packages, and all that they need, on disk until the context ends."""
        ...

    def checked(self, packages: Iterable[str], built: Built) -> Built | Refusal:
        """Return a build of code that imports these packages as it is cached, or why it must not be used."""
        ...


@dataclass(frozen=True, slots=True)
class Packages:
    """The npm packages in the ``node_modules`` of a functions folder and of its parents.

    ``home`` is the functions folder, and ``root`` the highest folder that is searched; both are real paths without links.
    A package outside of the root is never found, even through a link. ``withheld`` are files of packages that are empty there,
    by their paths below the root, and why, as the end of a sentence. ``resolution`` returns what decided that a build of some
    packages has these inputs, if that may change without a new revision.
    """

    home: Path
    root: Path
    withheld: Mapping[str, str] = field(default_factory=dict)
    resolution: Callable[[Iterable[str], Iterable[str]], Resolution] | None = field(default=None, repr=False)
    _found: dict[tuple[str, str], str | None] = field(default_factory=dict, repr=False)

    def find(self, folder: str, specifier: str) -> str | None:
        """Return the path, relative to the root, of the package that a file in ``folder`` imports, or None."""
        name = package_name(specifier)
        if (folder, name) not in self._found:
            places = (level / MODULES / name for level in self.levels(folder))
            found = next((place for place in places if place.is_dir() and self.holds(place)), None)
            self._found[folder, name] = None if found is None else found.relative_to(self.root).as_posix()
        return self._found[folder, name]

    def levels(self, folder: str) -> Iterator[Path]:
        """Yield the folders with a ``node_modules`` that a file in ``folder`` sees, nearest first; all are below the root."""
        below = Path(self.home, folder)
        for level in (below, *below.parents):
            if (level / MODULES).is_dir() and self.holds(level / MODULES):
                yield level
            if level == self.root:
                return

    def holds(self, path: Path) -> bool:
        """Return whether a path is below the root after all links are resolved, and not in a `private` place."""
        real = resolve_beneath(self.root, path.relative_to(self.root))
        return real is not None and not self.private(real)

    def private(self, real: PurePath) -> bool:
        """Return whether a real path below the root is hidden, as ``.git`` and ``.env`` are, and so is no part of a package.

        Package managers have hidden folders inside ``node_modules``, and the functions folder itself may be in a hidden folder.
        """
        parts = list(real.parts)
        for part in self.home.relative_to(self.root).parts:
            if not parts or parts[0] != part:
                break
            del parts[0]
        return any(part.startswith(".") for part in itertools.takewhile(lambda part: part != MODULES, parts))

    @property
    def inside(self) -> str:
        """Path of the functions folder, relative to the root."""
        return self.home.relative_to(self.root).as_posix()


def package_name(specifier: str) -> str:
    """Return the package of a bare import: ``@scope/name`` of ``@scope/name/part``."""
    parts = PurePosixPath(specifier).parts
    return "/".join(parts[: 2 if specifier.startswith("@") else 1])


def describe_package(folder: Path, size: int) -> BundledPackage:
    """Return the package in a folder as its ``package.json`` describes it; ``size`` is its number of bytes in the code."""
    about = _read_about(folder / "package.json")
    scope = f"{folder.parent.name}/" if folder.parent.name.startswith("@") else ""
    name = _text(about.get("name")) or f"{scope}{folder.name}"
    return BundledPackage(name, _text(about.get("version")), _license(about), size)


def _read_about(file: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(read_small(file, MAX_ABOUT_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _license(about: Mapping[str, Any]) -> str | None:
    """Return the SPDX expression, or what older packages say: ``{"type": …}``, or a list of those in ``licenses``."""
    named = about.get("license", about.get("licenses"))
    types = (item.get("type") if isinstance(item, dict) else item for item in (named if isinstance(named, list) else [named]))
    return " OR ".join(text for item in types if (text := _text(item))) or None


def _text(value: object) -> str | None:
    return visible(value.strip())[:MAX_TEXT] or None if isinstance(value, str) else None


def is_built_in(specifier: str) -> bool:
    """Return whether a bare import names a module of the runtime, and not a file."""
    return specifier.startswith(RUNTIME_MODULES) or specifier in NODE_BUILT_INS
