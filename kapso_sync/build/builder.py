"""Decide what to upload for each entry: the file byte for byte, a bundle of it, or nothing and the reason."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import field, replace

from kapso_sync.aio import until_end
from kapso_sync.build.bundler import BUILD_TIMEOUT, Bundler, Failure, Job, Options
from kapso_sync.build.contract import Shape, Style
from kapso_sync.build.deno import deno_diagnostics, deno_notices
from kapso_sync.build.diagnostics import Diagnostic
from kapso_sync.build.encoding import encoding_diagnostic
from kapso_sync.build.external_inputs import ExternalInputs, InputCheck
from kapso_sync.build.graph import MAX_FAULTS, Closure, Graph
from kapso_sync.build.kept_result import KeptResult, result_key
from kapso_sync.build.packages import Installed, Packages, PackageSource, Refusal
from kapso_sync.build.rules import (
    MAX_CODE_BYTES,
    built_in_diagnostics,
    credential_notices,
    entry_diagnostics,
    entry_notices,
    file_diagnostics,
    limit_diagnostic,
    notices,
    size_diagnostic,
    size_notices,
    sloppy_diagnostic,
    syntax_diagnostic,
    unanswerable_diagnostic,
)
from kapso_sync.build.shapes import Shapes
from kapso_sync.build.syntax import Grammar, Place
from kapso_sync.build.tsconfig import Config
from kapso_sync.dataclass import dataclass
from kapso_sync.errors import Notice
from kapso_sync.model.builds import BuildStore, Built, NoBuilds
from kapso_sync.model.desired import CodeStyle, DesiredFunction, Entry, UnusableFunction
from kapso_sync.model.functions import FunctionType
from kapso_sync.model.policies import Contract
from kapso_sync.model.source import CODE_SUFFIXES, Above, SourceFile
from kapso_sync.tools import VERSION, ToolMissing

FORMAT = 5
"""Version of a cached build: increase it when the same input gives other bytes, or more is kept of what the build hangs on."""

_NOTHING_ABOVE = Above()


@dataclass(frozen=True, slots=True)
class BuildResult:
    """A build's result, in the order of the entries.

    ``used`` are all files that they reach, type declarations included. ``self_contained``: nothing but the snapshot decided it,
    and no installed package in particular.
    """

    functions: tuple[DesiredFunction, ...] = ()
    unusable: tuple[UnusableFunction, ...] = ()
    notices: tuple[Notice, ...] = ()
    used: frozenset[str] = frozenset()
    self_contained: bool = True


@dataclass(slots=True)
class _Site:
    """The state of one build: the files, the graph of their imports, and the result of each entry so far.

    ``parsed``: esbuild has found no syntax error in the files that go up as they are; without esbuild nobody knows.
    """

    files: Mapping[str, SourceFile]
    graph: Graph
    packages: PackageSource | None
    above: Above
    results: dict[str, DesiredFunction | UnusableFunction] = field(default_factory=dict)
    jobs: dict[str, Job] = field(default_factory=dict)
    waiting: list[tuple[Entry, Job]] = field(default_factory=list)
    plain: list[tuple[Entry, Shape]] = field(default_factory=list)
    shapes: dict[str, Shape] = field(default_factory=dict)
    alone: dict[str, _Alone] = field(default_factory=dict)
    notices: list[Notice] = field(default_factory=list)
    used: set[str] = field(default_factory=set)
    has_inputs: bool = False
    parsed: bool = True
    file_faults: dict[tuple[str, bool], tuple[Diagnostic, ...]] = field(default_factory=dict)
    file_notices: dict[str, tuple[Notice, ...]] = field(default_factory=dict)
    file_configs: dict[str, Config | None] = field(default_factory=dict)

    @property
    def on_disk(self) -> Packages | None:
        """The packages whose files builds compare."""
        return self.packages.on_disk if self.packages is not None else None

    def content(self, path: str) -> bytes:
        """Return the content of a file that exists."""
        return self.files[path].content or b""

    def configs(self, closure: Closure) -> Iterator[Config]:
        """Yield the configuration of each file that a tsconfig.json decides about: how it is compiled."""
        for path in closure.files:
            if path not in self.file_configs:
                shape = self.shapes.get(path)
                decided = shape is not None and (Grammar.of(path) is not Grammar.JAVASCRIPT or shape.jsx is not None)
                self.file_configs[path] = self.graph.config(path) if decided else None
            if (config := self.file_configs[path]) is not None:
                yield config

    def notices_of(self, path: str) -> Sequence[Notice]:
        """Return the notices about one file. They are found once, however many entries import it."""
        if path not in self.file_notices:
            shape = self.shapes.get(path)
            self.file_notices[path] = () if shape is None else tuple(notices(shape, path))
        return self.file_notices[path]

    def faults(self, path: str, *, script: bool) -> Sequence[Diagnostic]:
        """Return the diagnostics of one file in code of this style. They are found once, however many entries import it."""
        known = self.file_faults.get((path, script))
        if known is None:
            self.file_faults[path, script] = known = tuple(self._find_faults(path, script=script))
        return known

    def _find_faults(self, path: str, *, script: bool) -> Iterable[Diagnostic]:
        unreadable, shape = encoding_diagnostic(path, self.content(path)), self.shapes.get(path)
        if unreadable is not None:
            return [unreadable]
        if shape is None:
            return []
        if shape.limit is not None:
            return [limit_diagnostic(shape, path)]
        broken = syntax_diagnostic(shape, path)
        return [broken] if broken is not None else file_diagnostics(shape, path, script=script)

    def refuse(self, entry: Entry, faults: Sequence[Diagnostic]) -> None:
        """Mark an entry as unusable, with all diagnostics."""
        blocked = bool(faults) and all(fault.unavailable for fault in faults)
        counts: Counter[str] = Counter()
        shown = []
        for fault in faults:
            counts[fault.file] += 1
            if counts[fault.file] <= MAX_FAULTS:
                shown.append(fault)
        problems = tuple(fault.problem(self._text(fault.file)) for fault in shown)
        self.results[entry.slug] = UnusableFunction(entry.slug, entry.file, problems, blocked, entry.moved_from)

    async def pins(self, closure: Closure) -> tuple[str, ...]:
        """Return what decides the content of the packages that an entry reaches."""
        if self.packages is None or not closure.packages:
            return ()
        # Not on the event loop: a lock file may have 1,000 packages, each of which needs 200 others.
        return await until_end(asyncio.to_thread(self.packages.pins, closure.packages))

    @asynccontextmanager
    async def installed(self, jobs: Sequence[Job]) -> AsyncIterator[Installed]:
        """Provide the packages of all jobs."""
        wanted = {path for job in jobs for path in job.closure.packages}
        if self.packages is None or not wanted:
            yield Installed(None)
            return
        async with self.packages.installed(sorted(wanted)) as installed:
            yield installed

    def _text(self, path: str) -> bytes | None:
        file = self.files.get(path) or self.above.files.get(path)
        return file.content if file is not None else None


@dataclass(frozen=True, slots=True)
class _Alone:
    """What was found of an entry whose only file goes up as it is: it holds for that entry and content of that digest again."""

    entry: Entry
    code_hash: str
    shape: Shape
    style: CodeStyle | None
    notices: tuple[Notice, ...]

    @property
    def digest(self) -> str:
        """The digest of the file."""
        return self.code_hash.removeprefix("sha256:")

    def function(self, content: bytes) -> DesiredFunction:
        """Return the function with this content of its file."""
        return DesiredFunction(self.entry, content.decode("utf-8"), style=self.style).hashed(self.code_hash)


class Builder:
    """Builds entries for one target; unchanged files are not parsed, checked or built again."""

    def __init__(self, target: Target, bundler: Bundler, store: BuildStore | None = None) -> None:
        self._target = target
        self._bundler = bundler
        self._store = store or NoBuilds()
        self._shapes = Shapes(bundler.parser, store)
        self._outside = ExternalInputs()
        self._known: dict[str, Built | Failure] = {}
        self._alone: dict[str, _Alone] = {}

    async def build(
        self,
        entries: Iterable[Entry],
        files: Mapping[str, SourceFile],
        packages: PackageSource | None = None,
        *,
        above: Above = _NOTHING_ABOVE,
        elsewhere: Iterable[Entry] = (),
    ) -> BuildResult:
        """Build the entries and return the result; ``packages`` is None if the source has no packages.

        ``above`` are the configuration files above the functions folder.
        ``elsewhere`` are entries of other environments: they are not built, but the files that they reach count as used.
        """
        listed, others = list(entries), list(elsewhere)
        key = await self._result_key(listed, others, files, above)
        kept = KeptResult.decoded(await asyncio.to_thread(self._store.result), key)
        if kept is not None and self._store.use(kept.builds):
            return self._again(kept, listed, files)
        site = _Site(files, Graph(files, self._shapes, packages, above), packages, above)
        for entry in listed:
            await self._shapes.rest()
            await self._take(entry, site)
        self._alone = site.alone
        await self._parse(site)
        await self._bundle(site)
        for entry in others:
            reached = await site.graph.closure(entry.file)
            site.used |= {entry.file, *reached.files, *reached.types}
        await self._shapes.rest()
        self._shapes.turn()
        self._known = {key: result for key, result in self._known.items() if key in site.jobs}
        results = [site.results[entry.slug] for entry in listed]
        result = BuildResult(
            tuple(result for result in results if isinstance(result, DesiredFunction)),
            tuple(result for result in results if isinstance(result, UnusableFunction)),
            tuple(dict.fromkeys(site.notices)),
            frozenset(site.used),
            self_contained=not (site.graph.asked_packages or site.has_inputs),
        )
        if result.self_contained and not result.unusable and site.parsed:
            builds = {entry.slug: job.key for entry, job in site.waiting}
            text = KeptResult.of(key, result.functions, builds, result.notices, result.used).encoded()
            if text is not None:
                await asyncio.to_thread(self._store.put_result, text)
        return result

    async def _result_key(
        self, entries: Sequence[Entry], elsewhere: Sequence[Entry], files: Mapping[str, SourceFile], above: Above
    ) -> str:
        """Return the key of the result for these files; the event loop has its turns while they are hashed."""
        for path, file in files.items():
            await self._shapes.rest()
            if file.content is not None:
                self._shapes.digest(path, file.content)
        return result_key(entries, elsewhere, files, above, self._target.contract, self._shapes.digest)

    def _again(self, kept: KeptResult, entries: Sequence[Entry], files: Mapping[str, SourceFile]) -> BuildResult:
        """Return a kept result once more."""
        self._shapes.forget_contents()
        pairs = zip(kept.functions, entries, strict=True)
        functions = tuple(each.function(entry, files[entry.file].content or b"") for each, entry in pairs)
        return BuildResult(functions, notices=kept.notices, used=frozenset(kept.used))

    async def _take(self, entry: Entry, site: _Site) -> None:
        """Accept or refuse an entry, or put it into the queue for the bundler."""
        content = site.content(entry.file)
        site.used.add(entry.file)
        known = self._alone.get(entry.slug)
        if known is not None and known.entry is entry and known.digest == self._shapes.digest(entry.file, content):
            self._shapes.keep(entry.file, known.digest, known.shape)
            self._take_alone(known, site)
            return
        fault = encoding_diagnostic(entry.file, content) or _no_code(entry.file)
        if fault is not None:
            site.refuse(entry, [fault])
            return
        shape = await self._shapes.read(entry.file, content)
        if shape.limit is not None:
            site.refuse(entry, [limit_diagnostic(shape, entry.file)])
            return
        if entry.function_type is FunctionType.SUPABASE_FUNCTION:
            self._take_deno(entry, shape, site)
            return
        closure = await site.graph.closure(entry.file)
        site.used |= {*closure.files, *closure.types}
        for path in closure.files:
            if path.endswith(CODE_SUFFIXES) and path not in site.shapes:
                site.shapes[path] = await self._shapes.read(path, site.content(path))
        script, plain = self._style(entry, shape)
        faults = self._faults(entry, site, closure, script=script, plain=plain)
        found = [notice for path in closure.files for notice in site.notices_of(path)]
        found += entry_notices(shape, closure, entry.file)
        if plain and not faults and closure.files == (entry.file,) and len(content) <= MAX_CODE_BYTES:
            digest, style = self._shapes.digest(entry.file, content), self._final_style(entry, sloppy=shape.sloppy is not None)
            found += size_notices(len(content), entry.file)
            self._take_alone(_Alone(entry, f"sha256:{digest}", shape, style, tuple(found)), site)
            return
        site.notices += [*found, *(() if plain else self._config_notices(site, closure))]
        if faults:
            first = entry.file
            site.refuse(entry, sorted(faults, key=lambda f: (f.file != first, f.file, f.place.line, f.place.column)))
        elif plain:
            site.plain.append((entry, shape))
        else:
            await self._plan_job(entry, shape, closure, site, script=script)

    @staticmethod
    def _take_alone(found: _Alone, site: _Site) -> None:
        """Accept an entry whose file reaches no other one."""
        site.alone[found.entry.slug] = found
        site.notices += found.notices
        site.plain.append((found.entry, found.shape))

    def _take_deno(self, entry: Entry, shape: Shape, site: _Site) -> None:
        """Accept or refuse a `supabase_function`: one file, which Deno runs as it is."""
        faults = list(deno_diagnostics(shape, entry.file))
        site.notices += [*deno_notices(shape, entry.file), *credential_notices(shape, entry.file)]
        if faults:
            site.refuse(entry, sorted(faults, key=lambda fault: (fault.place.line, fault.place.column)))
        else:
            site.plain.append((entry, shape))

    async def _parse(self, site: _Site) -> None:
        """Accept the files that go up as they are, unless esbuild finds a syntax error that our parser does not see."""
        files = {entry.file: site.content(entry.file) for entry, shape in site.plain}
        errors = await self._shapes.errors(files)
        site.parsed = self._shapes.are_sound(files)
        for entry, shape in site.plain:
            await self._shapes.rest()
            error = errors.get(entry.file)
            if error is not None:
                broken = replace(shape, error=error, confirmed=True)
                site.refuse(entry, [fault for fault in [syntax_diagnostic(broken, entry.file)] if fault is not None])
            elif entry.slug in site.alone:
                site.results[entry.slug] = site.alone[entry.slug].function(files[entry.file])
            else:
                built = Built(files[entry.file].decode("utf-8"))
                self._accept(entry, built, site, compiled=False, sloppy=shape.sloppy is not None)

    @staticmethod
    def _config_notices(site: _Site, closure: Closure) -> Iterable[Notice]:
        """Return the notices of the configurations that decide how the files are built."""
        for config in site.configs(closure):
            yield from config.notices

    def _style(self, entry: Entry, shape: Shape) -> tuple[bool, bool]:
        """Return whether script style is wanted, and whether the file can be uploaded as it is."""
        contract = self._wanted(entry)
        bare = (
            Grammar.of(entry.file) is Grammar.JAVASCRIPT
            and shape.jsx is None
            and shape.modern is None
            and not shape.imports
            and not entry.minify
        )
        plain_script = bare and shape.style is Style.SCRIPT and not shape.exports and shape.meta is None
        script = contract is not Contract.MODULE
        return script, plain_script if script else bare and shape.style is Style.MODULE

    def _wanted(self, entry: Entry) -> Contract:
        return entry.contract if entry.contract is not Contract.AUTO else self._target.contract

    def _faults(self, entry: Entry, site: _Site, closure: Closure, *, script: bool, plain: bool) -> list[Diagnostic]:
        """Return all diagnostics of an entry and of the files that it imports."""
        shape = site.shapes[entry.file]
        faults = [fault for path in closure.files for fault in site.faults(path, script=script)]
        if not plain and not self._stays_sloppy(shape, closure, script=script):
            faults += [
                fault
                for path in closure.files
                if path in site.shapes and (fault := sloppy_diagnostic(site.shapes[path], path)) is not None
            ]
        if shape.error is None:
            by_entry = entry.contract is Contract.MODULE
            asked = "the manifest asks for" if by_entry else "KAPSO_SYNC_CONTRACT asks for"
            faults += entry_diagnostics(shape, entry.file, module=self._wanted(entry) is Contract.MODULE, asked=asked)
            faults += self._forwarded_faults(entry.file, site)
        faults += closure.faults
        if script and not plain:
            faults += built_in_diagnostics(closure)
        if not plain:
            faults += dict.fromkeys(fault for config in site.configs(closure) for fault in config.faults)
        return faults

    @staticmethod
    def _forwarded_faults(file: str, site: _Site) -> Iterable[Diagnostic]:
        """Yield a diagnostic if the handler that an entry takes from another file cannot answer a request."""
        seen, name = {file}, "default"
        while name == "default" and (link := site.shapes[file].forwards) is not None:
            target = site.graph.target(file, link[0])
            if target is None or target in seen or target not in site.shapes:
                return
            file, name = target, link[1]
            seen.add(file)
        shape, where = site.shapes[file], None
        if name == "*" and shape.names is not None and "fetch" not in shape.names:
            where = Place(1, 1, "is a file that exports no `fetch`")
        elif name == "default" and len(seen) > 1 and shape.style is Style.MODULE:
            where = shape.unanswerable
        elif name != "default":
            where = shape.useless.get(name)
        if where is not None:
            yield unanswerable_diagnostic(replace(shape, style=Style.MODULE), file, where)

    async def _plan_job(self, entry: Entry, shape: Shape, closure: Closure, site: _Site, *, script: bool) -> None:
        sloppy = self._stays_sloppy(shape, closure, script=script)
        plain, maps = sloppy and shape.style is Style.SCRIPT, not closure.packages
        options = Options(script, entry.minify, sloppy, plain, maps)
        digest = hashlib.sha256(_key_beginning(options))
        known = [entry.file, closure.packages, closure.configs, closure.aliases, *await site.pins(closure)]
        files = [f"{path}\0{self._shapes.digest(path, site.content(path))}\0" for path in closure.files]
        digest.update(json.dumps(known).encode() + "".join(files).encode("utf-8", "surrogateescape"))
        job = Job(digest.hexdigest(), entry.file, shape, closure, options)
        site.jobs[job.key] = job
        site.waiting.append((entry, job))

    @staticmethod
    def _stays_sloppy(shape: Shape, closure: Closure, *, script: bool) -> bool:
        """Return whether an entry is not strict and can be built so that it stays so: it is the only file of its bundle."""
        alone = len(closure.files) == 1 and not closure.packages and not closure.built_ins
        return (
            script and alone and not shape.module and shape.jsx is None and (shape.style is Style.SCRIPT or not shape.shadows)
        )

    async def _bundle(self, site: _Site) -> None:
        """Build all jobs that are not in the cache: at once, if the packages of all of them fit on the disk together."""
        missing = await until_end(asyncio.to_thread(self._find_missing, site))
        tails = {
            path: site.graph.config(path).jsx_comment(shape.jsx) for path, shape in site.shapes.items() if shape.jsx is not None
        }
        failed: ToolMissing | None = None
        lacking: dict[str, list[Diagnostic]] = {}
        groups = [missing] if missing else []
        while groups and failed is None:
            group = groups.pop()
            async with site.installed(group) as installed:
                refused = {job.key: reasons for job in group if (reasons := _refusals(job, installed.refused))}
                try:
                    ready = [job for job in group if job.key not in refused]
                    made = await self._bundler.bundle(ready, site.content, site.shapes, installed.packages, tails)
                except ToolMissing as error:
                    failed = error
                else:
                    self._keep(made, site)
            lacking |= {key: [_refused(site.jobs[key], reason) for reason in reasons] for key, reasons in refused.items()}
            crowded = [job for job in group if job.key in refused and all(reason.crowded for reason in refused[job.key])]
            groups += _smaller_groups(crowded, group)
        for entry, job in site.waiting:
            became = self._known.get(job.key)
            if isinstance(became, Built):
                self._accept(entry, became, site, sloppy=job.options.sloppy and job.shape.sloppy_built is not None)
            elif became is not None:
                site.refuse(entry, became.faults)
            elif job.key in lacking:
                site.refuse(entry, lacking[job.key])
            elif failed is not None:
                text = f"{_why(job)}: {failed.message}"
                fault = Diagnostic("needs-esbuild", text, job.file, Place(0, 0), failed.hint, unavailable=True)
                site.refuse(entry, [fault])
        for key in [key for key, result in self._known.items() if isinstance(result, Failure) and not result.lasting]:
            del self._known[key]

    def _keep(self, made: Mapping[str, Built | Failure], site: _Site) -> None:
        """Remember what was built."""
        for key, result in made.items():
            job, kept = site.jobs[key], result
            if isinstance(result, Built) and site.packages is not None and job.closure.packages:
                checked = site.packages.checked(job.closure.packages, result)
                kept = checked if isinstance(checked, Built) else Failure((_refused(job, checked),))
            elif isinstance(result, Failure) and job.closure.packages and site.on_disk is None:
                # The key pins the packages as well, so only what has to do with time, memory or the disk can end otherwise.
                passing = any(fault.code == BUILD_TIMEOUT or fault.unavailable for fault in result.faults)
                kept = replace(result, lasting=not passing)
            if isinstance(kept, Built):
                self._store.put(key, kept)
                # As large as the code, and asked for only by a person who looks at an error.
                kept = replace(kept, source_map=None)
            self._known[key] = kept

    def _find_missing(self, site: _Site) -> list[Job]:
        """Return the jobs that are not in the cache. Large packages are listed, so this is nothing for the event loop."""
        check = self._outside.check(site.on_disk)
        return [job for job in site.jobs.values() if self._recall(job, check) is None]

    def _recall(self, job: Job, check: InputCheck) -> Built | Failure | None:
        """Return the cached result of the same job, or None if the packages in it have changed, or would be other ones."""
        known = self._known.get(job.key) or self._store.get(job.key)
        if isinstance(known, Built) and not check.holds(known):
            known = None
        if known is None:
            self._known.pop(job.key, None)
        else:
            self._known[job.key] = known
        return known

    def _accept(self, entry: Entry, built: Built, site: _Site, *, compiled: bool = True, sloppy: bool = False) -> None:
        """Make an entry usable, unless its code is too large; ``sloppy`` code has only one style, since a module is strict."""
        final = entry.minify or entry.function_type is FunctionType.SUPABASE_FUNCTION
        fault = size_diagnostic(built.code, entry.file, minified=final)
        if fault is not None:
            site.refuse(entry, [fault])
            return
        site.has_inputs |= bool(built.inputs)
        style = self._final_style(entry, sloppy=sloppy)
        site.results[entry.slug] = DesiredFunction(entry, built.code, style=style, compiled=compiled, packages=built.packages)
        size = len(built.code.encode("utf-8", "surrogatepass"))
        site.notices += (*size_notices(size, entry.file), *built.notices)

    def _final_style(self, entry: Entry, *, sloppy: bool) -> CodeStyle | None:
        """Return the style of code that could go up in the other one as well; None for all other code."""
        if entry.function_type is FunctionType.SUPABASE_FUNCTION:
            return None
        return CodeStyle.SCRIPT if self._wanted(entry) is Contract.AUTO and not sloppy else None


@functools.cache
def _key_beginning(options: Options) -> bytes:
    """Return the beginning of a build's key, which all builds with these options have in common."""
    return json.dumps([FORMAT, VERSION, options.flags]).encode()


def _no_code(file: str) -> Diagnostic | None:
    """Return a diagnostic if an entry's file is no code by its name, or None."""
    if file.endswith(CODE_SUFFIXES):
        return None
    hint = f"name a file that ends with {' '.join(CODE_SUFFIXES)}"
    return Diagnostic("entry-kind", "a function needs a file of code", file, Place(1, 1), hint)


def _refusals(job: Job, refused: Mapping[str, Refusal]) -> list[Refusal]:
    """Return why packages that a job imports are not there; each reason once."""
    return list(dict.fromkeys(refused[path] for path in job.closure.packages if path in refused))


def _smaller_groups(crowded: list[Job], group: list[Job]) -> list[list[Job]]:
    """Return the smaller groups in which to try those jobs of a group again whose packages did not fit beside the others."""
    if len(crowded) < len(group):
        return [crowded] if crowded else []
    middle = len(crowded) // 2
    return [crowded[:middle], crowded[middle:]] if middle else []


def _refused(job: Job, refusal: Refusal) -> Diagnostic:
    return Diagnostic(refusal.code, refusal.reason, job.file, Place(0, 0), refusal.hint, unavailable=True)


def _why(job: Job) -> str:
    """Return why a file cannot be uploaded as it is, as the beginning of a sentence."""
    if Grammar.of(job.file) is not Grammar.JAVASCRIPT:
        return "it is TypeScript"
    if job.shape.jsx is not None:
        return "it is JSX"
    if job.shape.imports:
        return f"it imports `{job.shape.imports[0].specifier}`"
    if job.options.minify:
        return "it is to be minified"
    if job.shape.modern is not None:
        return "it has decorators"
    return f"it is in {job.shape.style.value} style"


@dataclass(frozen=True, slots=True)
class Target:
    """The default ``contract`` of entries that do not set one; `Contract.AUTO` means script style, on every API base."""

    contract: Contract = Contract.AUTO
