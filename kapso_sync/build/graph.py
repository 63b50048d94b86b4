"""Import graph: all files that an entry's imports reach, each inside the folder, and diagnostics for unresolved imports."""

from __future__ import annotations

import asyncio
import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from kapso_sync.build.contract import Import, Shape, inspect
from kapso_sync.build.diagnostics import Diagnostic
from kapso_sync.build.inspection import inspect_apart
from kapso_sync.build.packages import UNAVAILABLE, PackageSource, Refusal, is_built_in
from kapso_sync.build.syntax import Grammar, Place
from kapso_sync.model.source import CODE_SUFFIXES, SourceFile

MAX_FAULTS = 20
"""Maximum number of mistakes that are reported of one file."""

TEXT_LOADED = (".txt", ".md", ".html", ".css", ".svg", ".sql", ".graphql")
"""Suffixes of files that are imported as a string."""

RESOLVED = (".ts", ".tsx", ".js", ".jsx", ".mjs", ".mts", ".cjs", ".cts", ".json")
"""Suffixes that an import may leave out, in the order of preference."""

_WRITTEN_AS = {".js": (".ts", ".tsx"), ".jsx": (".tsx",), ".mjs": (".mts",), ".cjs": (".cts",)}
_TYPES = re.compile(r"\.d\.[cm]?ts$")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:|//")
_NO_REGISTRY = (
    "set KAPSO_SYNC_NPM_REGISTRY to the registry that the packages of package-lock.json are fetched from, sync from a checkout "
    "after `npm ci`, or put the code into the functions folder"
)
_LARGE = 64 * 1024
"""A file with more bytes than this is inspected in a process of its own: it may take seconds and hundreds of MB."""

_TURN = 0.02
"""Seconds of work after which the event loop may run other tasks."""


class Shapes:
    """Cache of file shapes by content, so that an unchanged file is parsed once; shapes that are no longer used are dropped."""

    def __init__(self) -> None:
        self._known: dict[tuple[bytes, Grammar], Shape] = {}
        self._seen: dict[tuple[bytes, Grammar], Shape] = {}
        self._since = 0.0

    async def read(self, path: str, content: bytes) -> Shape:
        """Return the shape of a file."""
        key = (content, Grammar.of(path))
        shape = self._seen.get(key) or self._known.get(key)
        if shape is None:
            if len(content) > _LARGE:
                shape = await inspect_apart(*key)
            else:
                await self.rest()
                shape = inspect(*key)
        self._seen[key] = shape
        return shape

    async def rest(self) -> None:
        """Let the event loop run other tasks, if it did not for a while."""
        now = asyncio.get_running_loop().time()
        if now - self._since > _TURN:
            await asyncio.sleep(0)
            self._since = asyncio.get_running_loop().time()

    def turn(self) -> None:
        """Drop the shapes that were not read since the previous call."""
        self._known, self._seen = self._seen, {}


@dataclass(frozen=True, slots=True)
class Links:
    """The targets of one file's imports; ``packages`` are paths of packages below the source's root."""

    files: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    built_ins: tuple[Place, ...] = ()
    faults: tuple[Diagnostic, ...] = ()


@dataclass(frozen=True, slots=True)
class Closure:
    """All files that an entry reaches, itself included, sorted; ``types`` are files that only type checkers need."""

    files: tuple[str, ...]
    types: frozenset[str]
    packages: tuple[str, ...]
    built_ins: tuple[tuple[str, Place], ...]
    faults: tuple[Diagnostic, ...]


@dataclass(slots=True)
class _Resolving:
    """Collects the links of one file."""

    files: list[str] = field(default_factory=list)
    types: list[str] = field(default_factory=list)
    packages: list[str] = field(default_factory=list)
    built_ins: list[Place] = field(default_factory=list)
    faults: list[Diagnostic] = field(default_factory=list)

    def done(self) -> Links:
        return Links(tuple(self.files), tuple(self.types), tuple(self.packages), tuple(self.built_ins), tuple(self.faults))


class Graph:
    """The import graph of one snapshot; ``packages`` is None if the source has no packages, as a git source."""

    def __init__(self, files: Mapping[str, SourceFile], shapes: Shapes, packages: PackageSource | None) -> None:
        self._files = files
        self._shapes = shapes
        self._packages = packages
        self._links: dict[str, Links] = {}

    async def closure(self, entry: str) -> Closure:
        """Return everything that an entry reaches, directly or through other files."""
        reached: dict[str, Links] = {}
        pending = [entry]
        while pending:
            path = pending.pop()
            if path not in reached:
                reached[path] = links = await self.links(path)
                pending += links.files
        order = sorted(reached)
        return Closure(
            files=tuple(order),
            types=frozenset(path for links in reached.values() for path in links.types if path not in reached),
            packages=tuple(sorted({found for links in reached.values() for found in links.packages})),
            built_ins=tuple((path, place) for path in order for place in reached[path].built_ins),
            faults=tuple(fault for path in order for fault in reached[path].faults),
        )

    async def links(self, path: str) -> Links:
        """Return the targets of one file's imports; each file is read once."""
        if path not in self._links:
            content = self._files[path].content or b""
            found = _Resolving()
            if path.endswith(CODE_SUFFIXES):
                for item in (await self._shapes.read(path, content)).imports:
                    await self._shapes.rest()
                    self._resolve(path, item, found)
                    if len(found.faults) >= MAX_FAULTS:
                        break
            self._links[path] = found.done()
        return self._links[path]

    def _resolve(self, path: str, item: Import, found: _Resolving) -> None:
        specifier = item.specifier
        if specifier is None:
            text, hint = "`import(…)` names its file only at run time", 'name the file: `import("./file.js")`'
            found.faults.append(Diagnostic("dynamic-import", text, path, item.place, hint))
        elif is_built_in(specifier) and not self._installed(path, specifier):
            if not item.types:
                found.built_ins.append(Place(item.place.line, item.place.column, specifier))
        elif specifier == "." or specifier.startswith(("./", "../")) or specifier == "..":
            self._relative(path, item, specifier, found)
        else:
            self._bare(path, item, specifier, found)

    def _relative(self, path: str, item: Import, specifier: str, found: _Resolving) -> None:
        base = _joined(path, specifier)
        if base is None:
            text, hint = f"`{specifier}` leads out of the functions folder", "move what it names into the folder"
            found.faults.append(Diagnostic("import-outside", text, path, item.place, hint))
            return
        target = next((name for name in _candidates(base) if name in self._files), None)
        fault = self._unusable(path, item, specifier, target) if target is not None else None
        if target is None:
            if not (item.types or item.unused):
                hint = self._close(base) or "add the file, or correct the path"
                found.faults.append(Diagnostic("unresolved-import", f"`{specifier}` does not exist", path, item.place, hint))
        elif fault is not None:
            found.faults.append(fault)
        elif item.types or (_TYPES.search(target) and target != base):
            found.types.append(target)
        else:
            found.files.append(target)

    def _unusable(self, path: str, item: Import, specifier: str, target: str) -> Diagnostic | None:
        """Return a diagnostic if an existing file cannot be imported, or None."""
        file = self._files[target]
        if file.content is None:
            return Diagnostic(
                "import-unreadable", f"`{specifier}`: {target} {file.problem}", path, item.place, "it cannot be built in"
            )
        if target.rpartition("/")[2] == "package.json":
            hint = "write what you need of it into the code: package.json would change how the code is built"
            return Diagnostic("import-package-json", f"`{specifier}` cannot be imported", path, item.place, hint)
        if not target.endswith((*CODE_SUFFIXES, ".json", *TEXT_LOADED)):
            hint = f"code, .json and {' '.join(TEXT_LOADED)} can be imported"
            return Diagnostic("import-kind", f"`{specifier}` is a kind of file that cannot be imported", path, item.place, hint)
        return None

    def _bare(self, path: str, item: Import, specifier: str, found: _Resolving) -> None:
        folder = _folder(path)
        at = self._packages.find(folder, specifier) if self._packages is not None and not _strange(specifier) else None
        if at is not None:
            if not item.types:
                found.packages.append(at)
        elif not (item.types or item.unused):
            found.faults.append(self._missing(path, item, specifier))

    def _missing(self, path: str, item: Import, specifier: str) -> Diagnostic:
        if specifier.startswith("/") or re.match(r"[A-Za-z]:[\\/]", specifier) or "\\" in specifier:
            text, hint = (
                f"`{specifier}` is not a path inside the functions folder",
                "import by a path that starts with ./ or ../",
            )
            return Diagnostic("import-outside", text, path, item.place, hint)
        if _URL.match(specifier):
            text, hint = f"`{specifier}` is a URL: a build loads nothing", "put the code into the functions folder"
            return Diagnostic("import-url", text, path, item.place, hint)
        if self._packages is None:
            missing = Refusal(f"`{specifier}` is an npm package, and a git source has no node_modules", _NO_REGISTRY)
        else:
            missing = self._packages.explain_missing(_folder(path), specifier)
        unavailable = missing.code == UNAVAILABLE
        return Diagnostic(missing.code, missing.reason, path, item.place, missing.hint, unavailable=unavailable)

    def _installed(self, path: str, specifier: str) -> bool:
        """Return whether a package with the name of a built-in module is installed, as a polyfill."""
        return ":" not in specifier and self._packages is not None and self._packages.find(_folder(path), specifier) is not None

    def _close(self, base: str) -> str | None:
        near = difflib.get_close_matches(base, [path for path in self._files if path.endswith(RESOLVED)], n=1)
        return f"there is {near[0]}" if near else None


def _folder(path: str) -> str:
    return path.rpartition("/")[0]


def _joined(importer: str, specifier: str) -> str | None:
    """Return the path that a relative import names, or None if it leads out of the folder."""
    parts = list(PurePosixPath(importer).parent.parts)
    for part in specifier.split("/"):
        if part == "..":
            if not parts:
                return None
            parts.pop()
        elif part not in (".", ""):
            parts.append(part)
    return "/".join(parts)


def _candidates(base: str) -> list[str]:
    """Return the files that an import may mean, in esbuild's order; type declarations come last.

    For ``lib/a.js``, imported as ``./lib/a.js``:

        lib/a.js                                  the path as it is written
        lib/a.js.ts, lib/a.js.tsx, …              with a suffix that was left out
        lib/a.ts, lib/a.tsx                       TypeScript that is imported by the name of its output
        lib/a.js/index.ts, …                      a folder with an index file
        lib/a.js.d.ts, lib/a.d.ts, …              type declarations
    """
    stem, dot, ending = base.rpartition(".")
    written = [f"{stem}{suffix}" for suffix in _WRITTEN_AS.get(f"{dot}{ending}", ())]
    index = f"{base}/index" if base else "index"
    declared = [f"{base}.d.ts", *([f"{stem}.d.ts"] if f"{dot}{ending}" in _WRITTEN_AS else ()), f"{index}.d.ts"]
    return [base, *(base + suffix for suffix in RESOLVED), *written, *(index + suffix for suffix in RESOLVED), *declared]


def _strange(specifier: str) -> bool:
    """Return whether a specifier cannot be the name of a package."""
    parts = specifier.split("/")
    return not specifier or specifier[0] in "/#." or ":" in specifier or "\\" in specifier or ".." in parts or "" in parts
