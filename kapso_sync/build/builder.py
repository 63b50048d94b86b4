"""Decide what to upload for each entry: the file byte for byte, a bundle of it, or nothing and the reason."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from kapso_sync.build.bundler import BUILD_TIMEOUT, Bundler, ExternalInputs, Failure, Job, Options
from kapso_sync.build.contract import Shape, Style
from kapso_sync.build.diagnostics import Diagnostic
from kapso_sync.build.graph import MAX_FAULTS, Closure, Graph, Shapes
from kapso_sync.build.packages import Installed, Packages, PackageSource, Refusal
from kapso_sync.build.rules import (
    built_in_diagnostics,
    deno_notice,
    entry_diagnostics,
    entry_notices,
    file_diagnostics,
    limit_diagnostic,
    notices,
    size_diagnostic,
    size_notices,
    syntax_diagnostic,
)
from kapso_sync.build.syntax import Grammar, Place
from kapso_sync.build.tsconfig import NAME as TSCONFIG
from kapso_sync.build.tsconfig import read_options
from kapso_sync.model.builds import BuildStore, Built, NoBuilds
from kapso_sync.model.desired import CodeStyle, Contract, DesiredFunction, Entry, Notice, UnusableFunction
from kapso_sync.model.functions import FunctionType
from kapso_sync.model.source import CODE_SUFFIXES, SourceFile
from kapso_sync.tools import VERSION, ToolMissing

FORMAT = 2
"""Version of the build output; increase it when the same input gives other bytes, so that no old cached build is used."""


@dataclass(frozen=True, slots=True)
class BuildResult:
    """A build's result, in the order of the entries; ``used`` are all files that they reach, type declarations included."""

    functions: tuple[DesiredFunction, ...] = ()
    unusable: tuple[UnusableFunction, ...] = ()
    notices: tuple[Notice, ...] = ()
    used: frozenset[str] = frozenset()


@dataclass(slots=True)
class _Site:
    """The state of one build: the files, the graph of their imports, and the result of each entry so far."""

    files: Mapping[str, SourceFile]
    graph: Graph
    packages: PackageSource | None
    tsconfig: tuple[str, Diagnostic | None]
    results: dict[str, DesiredFunction | UnusableFunction] = field(default_factory=dict)
    jobs: dict[str, Job] = field(default_factory=dict)
    waiting: list[tuple[Entry, Job]] = field(default_factory=list)
    shapes: dict[str, Shape] = field(default_factory=dict)
    notices: list[Notice] = field(default_factory=list)
    used: set[str] = field(default_factory=set)

    @property
    def on_disk(self) -> Packages | None:
        """The packages whose files builds compare."""
        return self.packages.on_disk if self.packages is not None else None

    def content(self, path: str) -> bytes:
        """Return the content of a file that exists."""
        return self.files[path].content or b""

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

    def pins(self, closure: Closure) -> tuple[str, ...]:
        """Return what decides the content of the packages that an entry reaches."""
        return self.packages.pins(closure.packages) if self.packages is not None and closure.packages else ()

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
        return self.files[path].content if path in self.files else None


class Builder:
    """Builds entries for one target; unchanged files are not parsed or built again."""

    def __init__(self, target: Target, bundler: Bundler, store: BuildStore | None = None) -> None:
        self._target = target
        self._bundler = bundler
        self._store = store or NoBuilds()
        self._shapes = Shapes()
        self._outside = ExternalInputs()
        self._known: dict[str, Built | Failure] = {}

    async def build(
        self,
        entries: Iterable[Entry],
        files: Mapping[str, SourceFile],
        packages: PackageSource | None = None,
        *,
        elsewhere: Iterable[Entry] = (),
    ) -> BuildResult:
        """Build the entries and return the result; ``packages`` is None if the source has no packages.

        ``elsewhere`` are entries of other environments: they are not built, but the files that they reach count as used.
        """
        listed = list(entries)
        tsconfig = files.get(TSCONFIG)
        options = read_options(tsconfig.content if tsconfig is not None else None)
        site = _Site(files, Graph(files, self._shapes, packages), packages, options)
        for entry in listed:
            await self._take(entry, site)
        await self._bundle(site)
        for entry in elsewhere:
            reached = await site.graph.closure(entry.file)
            site.used |= {entry.file, *reached.files, *reached.types}
        self._shapes.turn()
        self._known = {key: result for key, result in self._known.items() if key in site.jobs}
        results = [site.results[entry.slug] for entry in listed]
        return BuildResult(
            tuple(result for result in results if isinstance(result, DesiredFunction)),
            tuple(result for result in results if isinstance(result, UnusableFunction)),
            tuple(dict.fromkeys(site.notices)),
            frozenset(site.used),
        )

    async def _take(self, entry: Entry, site: _Site) -> None:
        """Accept or refuse an entry, or put it into the queue for the bundler."""
        content = site.content(entry.file)
        site.used.add(entry.file)
        fault = _undecodable(entry.file, content)
        if fault is not None:
            site.refuse(entry, [fault])
            return
        code = content.decode("utf-8")
        shape = await self._shapes.read(entry.file, content)
        if shape.limit is not None:
            site.refuse(entry, [limit_diagnostic(shape.limit, entry.file)])
            return
        if entry.function_type is FunctionType.SUPABASE_FUNCTION:
            notice = deno_notice(shape, entry.file)
            site.notices += [notice] if notice is not None else []
            fault = size_diagnostic(code, entry.file)
            if fault is not None:
                site.refuse(entry, [fault])
                return
            site.notices += size_notices(code, entry.file)
            site.results[entry.slug] = DesiredFunction(entry, code)
            return
        closure = await site.graph.closure(entry.file)
        site.used |= {*closure.files, *closure.types}
        site.shapes |= {
            path: await self._shapes.read(path, site.content(path)) for path in closure.files if path.endswith(CODE_SUFFIXES)
        }
        script, plain = self._style(entry, shape)
        faults = self._faults(entry, site, closure, script=script, plain=plain)
        for path in closure.files:
            site.notices += notices(site.shapes[path], path) if path in site.shapes else ()
        site.notices += entry_notices(shape, closure, entry.file)
        if faults:
            first = entry.file
            site.refuse(entry, sorted(faults, key=lambda f: (f.file != first, f.file, f.place.line, f.place.column)))
        elif plain:
            self._accept(entry, Built(code), site, compiled=False)
        else:
            self._plan_job(entry, shape, closure, site, script=script)

    def _style(self, entry: Entry, shape: Shape) -> tuple[bool, bool]:
        """Return whether script style is wanted, and whether the file can be uploaded as it is."""
        contract = self._wanted(entry)
        bare = Grammar.of(entry.file) is Grammar.JAVASCRIPT and shape.jsx is None and not shape.imports and not entry.minify
        plain_script = bare and shape.style is Style.SCRIPT and not shape.exports
        script = contract is not Contract.MODULE
        return script, plain_script if script else bare and shape.style is Style.MODULE

    def _wanted(self, entry: Entry) -> Contract:
        return entry.contract if entry.contract is not Contract.AUTO else self._target.contract

    def _faults(self, entry: Entry, site: _Site, closure: Closure, *, script: bool, plain: bool) -> list[Diagnostic]:
        """Return all diagnostics of an entry and of the files that it imports."""
        shape = site.shapes[entry.file]
        faults: list[Diagnostic] = []
        # esbuild knows the language better than the parser here, and gives better syntax errors.
        is_module = Grammar.of(entry.file) is not Grammar.JAVASCRIPT or b"export" in site.content(entry.file)
        judged_later = not plain and (shape.style is not Style.NONE or is_module)
        for path, each in ((path, site.shapes[path]) for path in closure.files if path in site.shapes):
            if each.limit is not None:
                faults.append(limit_diagnostic(each.limit, path))
                continue
            broken = syntax_diagnostic(each, path)
            if broken is not None and not judged_later:
                faults.append(broken)
            elif broken is None:
                faults += file_diagnostics(each, path, script=script)
        if shape.error is None:
            by_entry = entry.contract is Contract.MODULE
            asked = "the manifest asks for" if by_entry else "KAPSO_SYNC_CONTRACT asks for"
            faults += entry_diagnostics(shape, entry.file, module=self._wanted(entry) is Contract.MODULE, asked=asked)
        faults += closure.faults
        if script and not plain:
            faults += built_in_diagnostics(closure)
        unread = site.tsconfig[1]
        if not plain and unread is not None and any(Grammar.of(path) is not Grammar.JAVASCRIPT for path in closure.files):
            faults.append(unread)
        return faults

    def _plan_job(self, entry: Entry, shape: Shape, closure: Closure, site: _Site, *, script: bool) -> None:
        options = Options(script, entry.minify, site.tsconfig[0])
        digest = hashlib.sha256(
            json.dumps([FORMAT, VERSION, options.flags, entry.file, closure.packages, *site.pins(closure)]).encode()
        )
        for path in closure.files:
            digest.update(f"{path}\0{hashlib.sha256(site.content(path)).hexdigest()}\0".encode("utf-8", "surrogateescape"))
        job = Job(digest.hexdigest(), entry.file, shape, closure, options)
        site.jobs[job.key] = job
        site.waiting.append((entry, job))

    async def _bundle(self, site: _Site) -> None:
        """Build all jobs that are not in the cache: at once, if the packages of all of them fit on the disk together."""
        missing = [job for job in site.jobs.values() if self._recall(job, site) is None]
        failed: ToolMissing | None = None
        lacking: dict[str, list[Diagnostic]] = {}
        groups = [missing] if missing else []
        while groups and failed is None:
            group = groups.pop()
            async with site.installed(group) as installed:
                refused = {job.key: reasons for job in group if (reasons := _refusals(job, installed.refused))}
                try:
                    ready = [job for job in group if job.key not in refused]
                    made = await self._bundler.bundle(ready, site.content, site.shapes, installed.packages)
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
                self._accept(entry, became, site)
            elif became is not None:
                site.refuse(entry, became.faults)
            elif job.key in lacking:
                site.refuse(entry, lacking[job.key])
            elif failed is not None and not self._refuse_broken(entry, job, site):
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
                # The key pins the packages as well, so only what has to do with time can end otherwise.
                kept = replace(result, lasting=all(fault.code != BUILD_TIMEOUT for fault in result.faults))
            self._known[key] = kept
            if isinstance(kept, Built):
                self._store.put(key, kept)

    def _recall(self, job: Job, site: _Site) -> Built | Failure | None:
        """Return the cached result of the same job, or None if the packages in it have changed."""
        known = self._known.get(job.key) or self._store.get(job.key)
        if isinstance(known, Built) and not self._outside.unchanged(known.inputs, site.on_disk):
            known = None
        if known is None:
            self._known.pop(job.key, None)
        else:
            self._known[job.key] = known
        return known

    @staticmethod
    def _refuse_broken(entry: Entry, job: Job, site: _Site) -> bool:
        """Refuse an entry with syntax errors and return whether it has any; used when there is no esbuild to report them."""
        files = [path for path in job.closure.files if path in site.shapes]
        faults = [fault for path in files if (fault := syntax_diagnostic(site.shapes[path], path)) is not None]
        if faults:
            site.refuse(entry, faults)
        return bool(faults)

    def _accept(self, entry: Entry, built: Built, site: _Site, *, compiled: bool = True) -> None:
        fault = size_diagnostic(built.code, entry.file)
        if fault is not None:
            site.refuse(entry, [fault])
            return
        style = CodeStyle.SCRIPT if self._wanted(entry) is Contract.AUTO else None
        site.results[entry.slug] = DesiredFunction(entry, built.code, style=style, compiled=compiled, packages=built.packages)
        site.notices += (*size_notices(built.code, entry.file), *built.notices)


def _undecodable(file: str, content: bytes) -> Diagnostic | None:
    try:
        code = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        return Diagnostic("not-utf8", "the file is not UTF-8 text", file, Place(line, 1), "save it as UTF-8")
    if "\0" in code:
        line = code[: code.index("\0")].count("\n") + 1
        return Diagnostic("binary", "the file holds a NUL character", file, Place(line, 1), "is it code?")
    return None


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
    return f"it is in {job.shape.style.value} style"


@dataclass(frozen=True, slots=True)
class Target:
    """The default ``contract`` of entries that do not set one; `Contract.AUTO` means script style, on every API base."""

    contract: Contract = Contract.AUTO
