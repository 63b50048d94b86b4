"""Import graph: all files that an entry's imports reach, each inside the folder, and diagnostics for unresolved imports."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import field, replace
from pathlib import PurePosixPath

from kapso_sync.build.contract import Import, Jsx, Shape
from kapso_sync.build.diagnostics import Diagnostic
from kapso_sync.build.packages import MODULES, UNAVAILABLE, PackageSource, Refusal, is_built_in
from kapso_sync.build.shapes import Shapes
from kapso_sync.build.subpaths import PACKAGE, Subpaths
from kapso_sync.build.syntax import Place
from kapso_sync.build.tsconfig import NAMES as CONFIG_NAMES
from kapso_sync.build.tsconfig import Config, Configs
from kapso_sync.closest import closest
from kapso_sync.dataclass import dataclass
from kapso_sync.model.source import CODE_SUFFIXES, TEXT_SUFFIXES, Above, SourceFile, refused_parent

MAX_FAULTS = 20
"""Maximum number of mistakes that are reported of one file."""

TEXT_LOADED = (".txt", ".md", ".html", ".css", ".svg", ".sql", ".graphql")
"""Suffixes of files that are imported as a string."""

RESOLVED = (".ts", ".tsx", ".js", ".jsx", ".mjs", ".mts", ".cjs", ".cts", ".json")
"""Suffixes that an import may leave out, in the order of preference."""

_WRITTEN_AS = {".js": (".ts", ".tsx"), ".jsx": (".ts", ".tsx"), ".mjs": (".mts",), ".cjs": (".cts",)}
_TYPES = re.compile(r"\.d\.[cm]?ts$")
_QUERY = re.compile(r"\?[\w=&.-]*$")
_PACKAGE_NAME = re.compile(r"(?:@[\w~-][\w.~-]*/)?[\w-][\w.~-]*(?:/|$)")
_DENO = re.compile(r"(npm|jsr):@?")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:|//")
_NPM_NAME = "use a package of npm, or put the code into the functions folder"
_KINDS = f"code, .json and {' '.join(TEXT_LOADED)} can be imported"
_OTHER = """
avif bin csv db env gif gz hbs ico ini jpeg jpg json5 jsonc less liquid mjml mp3 mp4 otf pdf pem png proto sass scss sqlite
svelte tar toml tsv ttf vue webp woff woff2 xml zip
"""
_OTHER_KINDS = frozenset(f".{kind}" for kind in _OTHER.split())
"""Endings of files that are not read, so that an import of one is not said not to exist."""

_NO_REGISTRY = (
    "set KAPSO_SYNC_NPM_REGISTRY to the registry that the packages of package-lock.json are fetched from, sync from a checkout "
    "after `npm ci`, or put the code into the functions folder"
)


@dataclass(frozen=True, slots=True)
class Links:
    """The targets of one file's imports; ``packages`` are paths of packages below the source's root.

    ``aliases`` are specifiers that are no paths, each with the file that it means.
    """

    files: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    built_ins: tuple[Place, ...] = ()
    faults: tuple[Diagnostic, ...] = ()
    aliases: tuple[tuple[str, str], ...] = ()

    @property
    def only_files(self) -> bool:
        """Return whether the imports mean nothing but files of code, as most do."""
        return not (self.types or self.packages or self.built_ins or self.faults or self.aliases)


@dataclass(frozen=True, slots=True)
class Closure:
    """All files that an entry reaches, itself included, sorted; ``types`` are files that only type checkers need.

    ``configs`` has the options of each folder of these files as JSON, and ``aliases`` each specifier that is no path, with the
    folder that imports it and the file that it means.
    """

    files: tuple[str, ...]
    types: frozenset[str] = frozenset()
    packages: tuple[str, ...] = ()
    built_ins: tuple[tuple[str, Place], ...] = ()
    faults: tuple[Diagnostic, ...] = ()
    configs: tuple[tuple[str, str], ...] = ()
    aliases: tuple[tuple[str, str, str], ...] = ()


@dataclass(slots=True)
class _Resolving:
    """Collects the links of one file."""

    files: list[str] = field(default_factory=list)
    types: list[str] = field(default_factory=list)
    packages: list[str] = field(default_factory=list)
    built_ins: list[Place] = field(default_factory=list)
    faults: list[Diagnostic] = field(default_factory=list)
    aliases: list[tuple[str, str]] = field(default_factory=list)

    def done(self) -> Links:
        return Links(
            tuple(self.files),
            tuple(self.types),
            tuple(self.packages),
            tuple(self.built_ins),
            tuple(self.faults),
            tuple(self.aliases),
        )


class Graph:
    """The import graph of one snapshot; ``packages`` is None if the source has no packages.

    ``above`` are the configuration files above the functions folder. ``asked_packages``: the packages were asked what an import
    means.
    """

    def __init__(
        self, files: Mapping[str, SourceFile], shapes: Shapes, packages: PackageSource | None, above: Above | None = None
    ) -> None:
        self._files = files
        self._shapes = shapes
        self._packages = packages
        self.asked_packages = False
        self._configs = Configs(files, above)
        self._subpaths = Subpaths(files, above)
        self._links: dict[str, Links] = {}
        self._config_texts: dict[str, str] = {}
        self._factories: dict[str, frozenset[str]] = {}

    def target(self, path: str, specifier: str) -> str | None:
        """Return the file that an import of a file means, or None if it is no file of the snapshot."""
        if not specifier.startswith(("./", "../")):
            return self._alias(path, specifier)
        base = _joined(path, specifier)
        return self._file(base) if base is not None else None

    def config(self, path: str) -> Config:
        """Return the options that hold for a file."""
        return self._configs.of(path)

    def _config_text(self, folder: str) -> str:
        """Return the options that esbuild gets for the files of a folder, as JSON."""
        if folder not in self._config_texts:
            options = self.config(f"{folder}/" if folder else "").for_esbuild
            self._config_texts[folder] = json.dumps(options, sort_keys=True)
        return self._config_texts[folder]

    async def closure(self, entry: str) -> Closure:
        """Return everything that an entry reaches, directly or through other files."""
        reached: dict[str, Links] = {}
        pending = [entry]
        while pending:
            path = pending.pop()
            if path not in reached:
                reached[path] = links = await self.links(path)
                pending += links.files
        order = tuple(sorted(reached))
        configs = tuple((folder, self._config_text(folder)) for folder in sorted(set(map(_folder, order))))
        more = [(path, links) for path in order if not (links := reached[path]).only_files]
        if not more:
            return Closure(order, configs=configs)
        return Closure(
            files=order,
            types=frozenset(path for _, links in more for path in links.types if path not in reached),
            packages=tuple(sorted({found for _, links in more for found in links.packages})),
            built_ins=tuple((path, place) for path, links in more for place in links.built_ins),
            faults=tuple(fault for _, links in more for fault in links.faults),
            configs=configs,
            aliases=tuple(sorted({(_folder(path), *alias) for path, links in more for alias in links.aliases})),
        )

    async def links(self, path: str) -> Links:
        """Return the targets of one file's imports; each file is read once."""
        if path not in self._links:
            content = self._files[path].content or b""
            found = _Resolving()
            if path.endswith(CODE_SUFFIXES):
                shape = await self._shapes.read(path, content)
                self._factories[path] = self._jsx_names(path, shape)
                for item in shape.imports:
                    await self._shapes.rest()
                    self._resolve(path, item, found)
                    if len(found.faults) >= MAX_FAULTS:
                        break
                if shape.jsx is not None:
                    self._resolve_jsx(path, shape.jsx, found)
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

    def _jsx_names(self, path: str, shape: Shape) -> frozenset[str]:
        """Return the names that the JSX of a file uses without writing them."""
        how = self.config(path).jsx(shape.jsx) if shape.jsx is not None else None
        return frozenset() if how is None or how.automatic else frozenset({_root(how.factory), _root(how.fragment)})

    def _resolve_jsx(self, path: str, jsx: Jsx, found: _Resolving) -> None:
        """Resolve the module that JSX imports without saying so, or check that its factory is in scope."""
        how = self.config(path).jsx(jsx)
        if how.automatic:
            before = len(found.faults)
            self._resolve(path, Import(jsx.elements[0].place, how.runtime), found)
            found.faults[before:] = [
                replace(fault, message=f"JSX imports `{how.runtime}`: {fault.message}") for fault in found.faults[before:]
            ]
            return
        for element in jsx.elements:
            for name in (how.factory, *([how.fragment] if element.fragment else [])):
                root = _root(name)
                if root not in element.names and root not in ("globalThis", "self", "null") and not root.startswith(("'", '"')):
                    text = f"JSX is compiled to `{name}`, and `{root}` is not in scope here"
                    hint = (
                        f"import `{root}`; or set `jsx` and `jsxImportSource` in a tsconfig.json of the functions folder, "
                        "or `/** @jsx NAME */` in the file"
                    )
                    found.faults.append(Diagnostic("jsx-factory", text, path, element.place, hint))
                    return

    def _relative(self, path: str, item: Import, specifier: str, found: _Resolving) -> None:
        base = _joined(path, specifier)
        if base is None:
            if self._only_types(path, item):
                return
            text, hint = f"`{specifier}` leads out of the functions folder", "move what it names into the folder"
            found.faults.append(Diagnostic("import-outside", text, path, item.place, hint))
            return
        target = self._file(base)
        if target is not None:
            self._take(path, item, target, found, exact=target == base)
        elif not self._only_types(path, item):
            found.faults.append(self._absent(path, item, specifier, base))

    def _file(self, base: str) -> str | None:
        return next((name for name in _candidates(base) if name in self._files), None)

    def _take(self, path: str, item: Import, target: str, found: _Resolving, *, exact: bool) -> None:
        """Add the file that an import means; ``exact``: its whole name was written."""
        fault = self._unusable(path, item, item.specifier or "", target)
        if fault is not None:
            found.faults.append(fault)
        elif item.types or (_TYPES.search(target) and not exact):
            found.types.append(target)
        else:
            found.files.append(target)

    def _absent(self, path: str, item: Import, specifier: str, base: str) -> Diagnostic:
        """Return why a relative import names nothing that can be used."""
        above = refused_parent(base, self._files)
        if above is not None:
            text = f"`{specifier}`: {above.path} {above.problem}"
            return Diagnostic("import-unreadable", text, path, item.place, "it cannot be built in")
        query = _QUERY.search(base)
        written = base.removesuffix(query[0]) if query is not None else base
        name = written.rpartition("/")[2]
        if name.endswith(".wasm"):
            text, hint = f"`{specifier}` is WebAssembly, and Kapso takes code only", "use a version of it in JavaScript"
            return Diagnostic("import-kind", text, path, item.place, hint)
        if query is not None:
            text = f"`{query[0]}` is a feature of bundlers such as Vite, which a build does not have"
            hint = f"drop `{query[0]}`: such a file is imported as a string" if name.endswith(TEXT_LOADED) else _KINDS
            return Diagnostic("import-query", text, path, item.place, hint)
        if MODULES in base.split("/"):
            text, hint = f"`{specifier}` is a path into {MODULES}", "import the package by its name"
            return Diagnostic("import-kind", text, path, item.place, hint)
        if any(part.startswith(".") for part in base.split("/")):
            text, hint = f"`{specifier}` is hidden, and hidden files are not read", "give it a name without the dot"
            return Diagnostic("import-kind", text, path, item.place, hint)
        ending = PurePosixPath(name).suffix
        if ending in _OTHER_KINDS:
            text = f"`{specifier}` is a kind of file that cannot be imported"
            return Diagnostic("import-kind", text, path, item.place, _KINDS)
        if ending and ending not in (*CODE_SUFFIXES, *TEXT_SUFFIXES):
            text = f"`{specifier}` does not exist, or is of a kind that is not read"
            return Diagnostic("unresolved-import", text, path, item.place, _KINDS)
        hint = self._close(base) or "add the file, or correct the path"
        return Diagnostic("unresolved-import", f"`{specifier}` does not exist", path, item.place, hint)

    def _unusable(self, path: str, item: Import, specifier: str, target: str) -> Diagnostic | None:
        """Return a diagnostic if an existing file cannot be imported, or None."""
        file = self._files[target]
        if file.content is None:
            return Diagnostic(
                "import-unreadable", f"`{specifier}`: {target} {file.problem}", path, item.place, "it cannot be built in"
            )
        name = target.rpartition("/")[2]
        if name in (PACKAGE, *CONFIG_NAMES):
            hint = f"write what you need of it into the code: {name} would change how the code is built"
            return Diagnostic("import-package-json", f"`{specifier}` cannot be imported", path, item.place, hint)
        if not target.endswith((*CODE_SUFFIXES, ".json", *TEXT_LOADED)):
            text = f"`{specifier}` is a kind of file that cannot be imported"
            return Diagnostic("import-kind", text, path, item.place, _KINDS)
        return None

    def _bare(self, path: str, item: Import, specifier: str, found: _Resolving) -> None:
        target = self._alias(path, specifier)
        if target is not None:
            self._take(path, item, target, found, exact=False)
            if not item.types:
                found.aliases.append((specifier, target))
            return
        folder = _folder(path)
        replaced = self._package_alias(path, specifier) if not item.types else None
        if replaced is not None:
            found.packages.append(replaced[0])
            found.aliases.append((specifier, replaced[1]))
            return
        at = self._find_package(folder, specifier) if not _strange(specifier) else None
        if at is not None:
            if not item.types:
                found.packages.append(at)
        elif not self._only_types(path, item):
            found.faults.append(self._unaliased(path, item, specifier) or self._missing(path, item, specifier))

    def _alias(self, path: str, specifier: str) -> str | None:
        """Return the file that a specifier means by tsconfig.json or by ``imports`` of package.json, or None."""
        for base in self.config(path).targets(specifier):
            target = self._file(base) if not base.startswith("..") else None
            if target is not None:
                return target
        found = self._subpaths.find(path, specifier) if specifier.startswith("#") else None
        return self._file(found.target) if found is not None and found.target is not None else None

    def _package_alias(self, path: str, specifier: str) -> tuple[str, str] | None:
        """Return the package that `paths` of tsconfig.json puts in place of another, and its path from the functions folder."""
        for base in self.config(path).targets(specifier):
            _, inside, package = base.rpartition(f"{MODULES}/")
            at = self._find_package(_folder(path), package) if inside and not _strange(package) else None
            if at is not None:
                return at, base
        return None

    def _unaliased(self, path: str, item: Import, specifier: str) -> Diagnostic | None:
        """Return why an alias names no file, or None if the specifier is no alias."""
        matched = self.config(path).matched(specifier)
        if matched is not None:
            targets = list(self.config(path).targets(specifier))
            outside = [target for target in targets if target.startswith("..")]
            code = "import-outside" if outside else "unresolved-import"
            what = "is outside of the functions folder" if outside else "does not exist"
            text = f"`{specifier}` matches {matched}, and `{(outside or targets)[0]}` {what}"
            return Diagnostic(code, text, path, item.place, "correct the path, or add the file")
        if specifier.startswith("#"):
            found = self._subpaths.find(path, specifier)
            lacking = "is outside of the functions folder" if (found.target or "").startswith("../") else "does not exist"
            text = found.problem or f"`{specifier}` means `{found.target}`, which {lacking}"
            return Diagnostic("unresolved-import", text, path, item.place, f"`imports` of {PACKAGE} says what it means")
        if "!" in specifier:
            text = f"`{specifier}` names a loader of webpack, which a build does not have"
            return Diagnostic("import-query", text, path, item.place, _KINDS)
        if not _PACKAGE_NAME.match(specifier) and not specifier.startswith(("/", "\\")) and not _URL.match(specifier):
            text = f"`{specifier}` is an alias that no tsconfig.json of the functions folder, or above it, defines"
            hint = "add it to `paths` there, or import by a path that starts with ./ or ../"
            return Diagnostic("unresolved-import", text, path, item.place, hint)
        return None

    def _missing(self, path: str, item: Import, specifier: str) -> Diagnostic:
        if specifier.startswith("/") or re.match(r"[A-Za-z]:[\\/]", specifier) or "\\" in specifier:
            text, hint = (
                f"`{specifier}` is not a path inside the functions folder",
                "import by a path that starts with ./ or ../",
            )
            return Diagnostic("import-outside", text, path, item.place, hint)
        deno = _DENO.match(specifier)
        if deno is not None:
            text = f"`{specifier}` is an import of Deno, and Workers do not have it"
            hint = f"import `{specifier.removeprefix('npm:')}` by its name alone" if deno[1] == "npm" else _NPM_NAME
            return Diagnostic("import-url", text, path, item.place, hint)
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
        return ":" not in specifier and self._find_package(_folder(path), specifier) is not None

    def _find_package(self, folder: str, specifier: str) -> str | None:
        """Return the path of the package that a file in a folder imports, relative to the source's root, or None."""
        self.asked_packages = True
        return self._packages.find(folder, specifier) if self._packages is not None else None

    def _only_types(self, path: str, item: Import) -> bool:
        """Return whether the build removes an import, because the file uses its names only as types."""
        if item.types or not item.unused:
            return item.types
        kept = self.config(path).option("verbatimModuleSyntax") is True
        return not kept and item.names.isdisjoint(self._factories.get(path, frozenset()))

    def _close(self, base: str) -> str | None:
        near = closest(base, (path for path in self._files if path.endswith(RESOLVED)))
        return f"there is {near}" if near else None


def _root(name: str) -> str:
    """Return the variable at the beginning of a name such as ``React.createElement``."""
    return re.split(r"[.\[]", name)[0]


def _folder(path: str) -> str:
    return path.rpartition("/")[0]


def _joined(importer: str, specifier: str) -> str | None:
    """Return the path that a relative import names, or None if it leads out of the folder."""
    parts = importer.split("/")[:-1]
    for part in specifier.split("/"):
        if part == "..":
            if not parts:
                return None
            parts.pop()
        elif part not in (".", ""):
            parts.append(part)
    return "/".join(parts)


def _candidates(base: str) -> Iterator[str]:
    """Yield the files that an import may mean, in esbuild's order; type declarations come last.

    For ``lib/a.js``, imported as ``./lib/a.js``:

        lib/a.js                                  the path as it is written
        lib/a.js.ts, lib/a.js.tsx, …              with a suffix that was left out
        lib/a.ts, lib/a.tsx                       TypeScript that is imported by the name of its output
        lib/a.js/index.ts, …                      a folder with an index file
        lib/a.js.d.ts, lib/a.d.ts, …              type declarations
    """
    yield base
    yield from (base + suffix for suffix in RESOLVED)
    stem, dot, ending = base.rpartition(".")
    output = f"{dot}{ending}" in _WRITTEN_AS
    if output:
        yield from (stem + suffix for suffix in _WRITTEN_AS[f"{dot}{ending}"])
    index = f"{base}/index" if base else "index"
    yield from (index + suffix for suffix in RESOLVED)
    yield f"{base}.d.ts"
    if output:
        yield f"{stem}.d.ts"
    yield f"{index}.d.ts"


def _strange(specifier: str) -> bool:
    """Return whether a specifier cannot be the name of a package."""
    parts = specifier.split("/")
    return not specifier or specifier[0] in "/#." or ":" in specifier or "\\" in specifier or ".." in parts or "" in parts
