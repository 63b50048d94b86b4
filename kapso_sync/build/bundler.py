"""Bundle many entries in one run of esbuild, in a temporary folder that contains only the files that they need."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import posixpath
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from kapso_sync.build.contract import Shape
from kapso_sync.build.diagnostics import TRIED_AGAIN, Diagnostic, Message, read_messages
from kapso_sync.build.esbuild_run import explain_silence, has_crashed, no_space, os_errors_as_missing, run_esbuild
from kapso_sync.build.graph import RESOLVED, TEXT_LOADED, Closure
from kapso_sync.build.packages import MODULES, NODE_BUILT_INS, Packages, describe_package
from kapso_sync.build.parser import LANGUAGE, EsbuildParser
from kapso_sync.build.sourcemap import make_bundle_map
from kapso_sync.build.syntax import Place
from kapso_sync.build.tsconfig import NAME as TSCONFIG
from kapso_sync.build.wrapping import appended, finished, wrapper
from kapso_sync.dataclass import dataclass
from kapso_sync.errors import Location, Notice
from kapso_sync.model.builds import Built, Resolution
from kapso_sync.model.desired import BundledPackage
from kapso_sync.process import run_process
from kapso_sync.tools import VERSION, ToolMissing, ToolPlaces

ESBUILD_TIMEOUT = 60.0
"""Timeout of one run of esbuild, in seconds; after it, esbuild and all processes that it started are killed."""

BUILD_TIMEOUT = "build-timeout"
"""The code of the problem that esbuild did not end in time."""

WRAPPERS = ".kapso-sync"
"""Folder of the wrappers in the stage; the name is free, because source files in hidden folders are never read."""


@dataclass(frozen=True, slots=True)
class Options:
    """The options of a whole run of esbuild.

    ``sloppy``: the entry is not strict and stays so, which needs a bundle that is no ECMAScript module. ``plain``: and it is no
    CommonJS module either. ``maps``: a source map is made. Then esbuild also reads the maps that its inputs name, from any
    place, and fails where one is not what it seems. So no package may be an input, since its files stay as they are.
    """

    script: bool
    minify: bool
    sloppy: bool = False
    plain: bool = False
    maps: bool = False

    @property
    def flags(self) -> list[str]:
        """The part of esbuild's command line that is the same for all runs with these options."""
        return [
            "--bundle",
            f"--format={'cjs' if self.sloppy else 'esm'}",
            "--platform=browser",
            "--main-fields=browser,module,main",
            "--conditions=workerd,worker,browser",
            f"--target={LANGUAGE}",
            "--charset=utf8",
            "--legal-comments=inline",
            "--outbase=.",
            "--log-level=warning",
            "--color=false",
            "--preserve-symlinks",
            f"--resolve-extensions={','.join(RESOLVED)}",
            '--define:process.env.NODE_ENV="production"',
            "--loader:.js=jsx",
            *(f"--loader:{suffix}=text" for suffix in TEXT_LOADED),
            "--log-override:empty-import-meta=silent",
            "--external:node:*",
            "--external:cloudflare:*",
            *(["--supported:top-level-await=false", "--supported:import-meta=false"] if self.script else []),
            *(["--minify"] if self.minify else []),
            *(["--sourcemap=external", "--sources-content=false"] if self.maps else []),
            *(["--define:this=globalThis"] if self.plain else []),
        ]


@dataclass(frozen=True, slots=True)
class Job:
    """One entry to build: its file, the shape of the file, and everything it reaches; ``key`` identifies the cached result."""

    key: str
    file: str
    shape: Shape
    closure: Closure
    options: Options


@dataclass(frozen=True, slots=True)
class Failure:
    """The diagnostics of a job that cannot be built; ``lasting``: the same input would fail again."""

    faults: tuple[Diagnostic, ...]
    lasting: bool = True


_INPUT_MAP = b"sourceMappingURL"
NO_INPUT_MAP = f"\n//# sourceMappingURL={WRAPPERS}/none\n"
"""The end of a file that names a source map: of several names esbuild takes the last one, and no file bears this one."""

_OTHER_LINE_END = re.compile("[\r\u2028\u2029]")

Contents = Callable[[str], bytes]
"""Returns the content of a file of the snapshot by its path."""


class Bundler:
    """Runs esbuild; ``deadline`` is the timeout of one run, in seconds."""

    def __init__(self, esbuild: Esbuild, deadline: float = ESBUILD_TIMEOUT) -> None:
        self._esbuild = esbuild
        self._deadline = deadline
        self.parser = EsbuildParser(esbuild, deadline)

    async def bundle(
        self,
        jobs: Sequence[Job],
        contents: Contents,
        shapes: Mapping[str, Shape],
        packages: Packages | None,
        tails: Mapping[str, str] = MappingProxyType({}),
    ) -> dict[str, Built | Failure]:
        """Build all jobs and return their results by key; raises `ToolMissing`.

        A job that fails does not make other jobs fail. ``shapes`` has the shape of each code file that the jobs reach, by path,
        and ``tails`` what to add to the end of files.
        """
        program = await self._esbuild.find()
        results: dict[str, Built | Failure] = {}
        groups: dict[Options, list[Job]] = {}
        for job in jobs:
            groups.setdefault(job.options, []).append(job)
        for options, group in groups.items():
            with os_errors_as_missing(), tempfile.TemporaryDirectory(prefix="kapso-sync-build-") as folder:
                stage = _Stage(folder, packages)
                await asyncio.to_thread(stage.fill, group, contents, shapes, tails)
                run = _Run(program, stage, options, self._deadline)
                pending = [group]
                while pending:
                    pending += await _attempt(run, pending.pop(), results)
        return results


async def _attempt(run: _Run, jobs: Sequence[Job], results: dict[str, Built | Failure]) -> list[list[Job]]:
    """Build these jobs together, and return groups of jobs that must be built again without the jobs that made them fail.

    Jobs that esbuild's errors point to fail, and the others are built again. If the errors point to no job, or esbuild did
    not end in time, the jobs are split into two halves, until one job is left.
    """
    try:
        messages = await run.execute(jobs)
    except TimeoutError:
        messages = None
    errors = [message for message in messages or () if message.error]
    if messages is not None and not errors:
        for job in jobs:
            results[job.key] = await asyncio.to_thread(run.result, job, messages)
        return []
    guilty = [job for job in jobs if any(message.file in job.closure.files for message in errors)]
    if not guilty and len(jobs) > 1:
        middle = len(jobs) // 2
        return [list(jobs[:middle]), list(jobs[middle:])]
    for job in guilty or jobs:
        results[job.key] = _failure(job, errors, run.deadline)
    rest = [job for job in jobs if job.key not in results]
    return [rest] if rest else []


def _failure(job: Job, errors: Sequence[Message], deadline: float) -> Failure:
    if not errors:
        hint = f"does the code make it work without end? {TRIED_AGAIN}"
        return Failure(
            (Diagnostic(BUILD_TIMEOUT, f"esbuild did not end within {deadline:g} s", job.file, Place(0, 0), hint),),
            lasting=False,
        )
    own = [message for message in errors if message.file in job.closure.files] or [
        replace(message, file=None) if (message.file or "").startswith(WRAPPERS) else message for message in errors
    ]
    # Packages change without a new commit, and the run may fail for want of memory or of space on the disk: then a build may
    # work the next time.
    lasting = not job.closure.packages and not any(message.of_run for message in own)
    return Failure(tuple(message.fault(job.file) for message in own), lasting)


class _Stage:
    """A temporary folder with all inputs of a run: the files that are reached, wrappers, and links to copies of packages.

    ``packages`` are those copies, made for this build: regular files only.
    """

    def __init__(self, place: str, packages: Packages | None) -> None:
        folder = Path(os.path.realpath(place))
        self._root = folder / "root"
        self.packages = packages
        self.home = self._root / (packages.inside if packages is not None else "")
        self.outputs = folder / "out"
        self.metafile = folder / "meta.json"

    def fill(self, jobs: Sequence[Job], contents: Contents, shapes: Mapping[str, Shape], tails: Mapping[str, str]) -> None:
        """Write the files, the wrappers, the options of each folder, and the links to packages.

        ``tails`` is the text to add to files that esbuild would read otherwise than their author.
        """
        self.home.mkdir(parents=True)
        # esbuild searches the parent folders for both files; these end the search.
        self._write(self._root / "package.json", b'{"private": true, "browser": {}}')
        self._write(self._root / TSCONFIG, b"{}")
        files = {path for job in jobs for path in job.closure.files}
        own = {job.file: appended(job.shape, sloppy=job.options.sloppy) for job in jobs}
        for path in files:
            content = contents(path)
            tail = own.get(path, appended(shapes[path]) if path in shapes else "") + tails.get(path, "")
            tail += NO_INPUT_MAP if path in shapes and _INPUT_MAP in content else ""
            self._write(self.home / path, content + tail.encode())
        for job in jobs:
            name = entry_path(job.file, sloppy=job.options.sloppy)
            self._write(self.home / name, wrapper(job.shape, f"../{job.file}", sloppy=job.options.sloppy).encode())
        self._configure(jobs)
        if self.packages is not None and any(job.closure.packages for job in jobs):
            self._link(self.packages, {path.rpartition("/")[0] for path in files})

    def _configure(self, jobs: Sequence[Job]) -> None:
        """Write a tsconfig.json into each folder with the options that hold there, and the aliases that its files import."""
        paths: dict[str, dict[str, list[str]]] = {}
        for folder, specifier, target in (alias for job in jobs for alias in job.closure.aliases):
            relative = posixpath.relpath(target, folder or ".")
            paths.setdefault(folder, {})[specifier] = [relative if relative.startswith(".") else f"./{relative}"]
        for folder, options in {pair for job in jobs for pair in job.closure.configs}:
            given = {**json.loads(options), **({"paths": paths[folder]} if folder in paths else {})}
            self._write(self.home / folder / TSCONFIG, json.dumps({"compilerOptions": given}, sort_keys=True).encode())
        self._write(self.home / WRAPPERS / TSCONFIG, b"{}")

    def _link(self, packages: Packages, folders: set[str]) -> None:
        for level in {level for folder in folders for level in packages.levels(folder)}:
            here = self._root / level.relative_to(packages.root)
            here.mkdir(parents=True, exist_ok=True)
            (here / MODULES).symlink_to(level / MODULES, target_is_directory=True)

    @staticmethod
    def _write(path: Path, content: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def environment(self) -> dict[str, str]:
        """Return esbuild's whole environment; NODE_PATH names the folders in which pnpm keeps shared packages."""
        shared = [str(level / MODULES / ".pnpm" / MODULES) for level in self._linked()]
        return {"NODE_PATH": os.pathsep.join(path for path in shared if os.path.isdir(path))}  # noqa: PTH112

    def built_ins(self) -> list[str]:
        """Return Node's built-in modules that are not replaced by an installed package."""
        linked = list(self._linked())
        return [name for name in sorted(NODE_BUILT_INS) if not any((level / MODULES / name).is_dir() for level in linked)]

    def _linked(self) -> Iterator[Path]:
        for level in (self.home, *self.home.parents):
            if (level / MODULES).is_dir():
                yield level
            if level == self._root:
                return

    def told(self, messages: Iterable[Message]) -> list[Message]:
        """Return messages with columns in characters, without a word of a file outside of the stage, or of a withheld one."""
        contents: dict[str, bytes] = {}
        return [self._told(message, contents) for message in messages]

    def _told(self, message: Message, contents: dict[str, bytes]) -> Message:
        file = message.file
        if file is None:
            return message
        if self.escaped(file):
            return replace(message, text=f"the build read `{file}`, which is outside of the source", file=None)
        reason = self.withheld(file)
        if reason is not None:
            return replace(message, text=f"it {reason}", line=0, column=0)
        if file not in contents:
            try:
                contents[file] = self._full(file).read_bytes()
            except OSError:
                contents[file] = b""
        return message.located(contents[file])

    def withheld(self, path: str) -> str | None:
        """Return why an input of the build is empty in the copy of its package, or None."""
        full = self._full(path)
        return self.packages.withheld.get(full.relative_to(self._root).as_posix()) if self.packages is not None else None

    def place_of(self, file: str, specifier: str) -> Place:
        """Return where a file of the stage imports a specifier; the file as a whole if that is not seen."""
        for number, line in enumerate((self.home / file).read_text(encoding="utf-8", errors="replace").split("\n"), 1):
            found = [at for quote in "\"'`" if (at := line.find(f"{quote}{specifier}{quote}")) >= 0]
            if found:
                return Place(number, min(found) + 1)
        return Place(0, 0)

    def escaped(self, path: str) -> bool:
        """Return whether an input of the build is outside of the stage: the stage itself has no link out of it."""
        return not self._full(path).is_relative_to(self._root)

    def _full(self, path: str) -> Path:
        return Path(os.path.normpath(self.home / path))

    def source(self, folder: Path, source: str) -> str:
        """Return the path of a source map's source, from the functions folder; nothing for a wrapper, and outside of the stage.

        ``folder`` is the map's own.
        """
        full = Path(os.path.normpath(folder / source))
        if not full.is_relative_to(self._root) or full.is_relative_to(self.home / WRAPPERS):
            return ""
        return posixpath.relpath(full, self.home)

    def _is_linked(self, full: Path) -> bool:
        return MODULES in full.relative_to(self._root).parts

    def outside(self, inputs: Sequence[str]) -> tuple[tuple[str, str], ...]:
        """Return the inputs from packages: pairs of the path below the source's root and the sha256 (hex).

        A package's ``package.json`` decides which files of the package are used, so it is included.
        """
        found: set[Path] = set()
        for path in inputs:
            full = self._full(path)
            if self._is_linked(full):
                about = (parent / "package.json" for parent in full.parents if MODULES in parent.parent.parts)
                found |= {full, *(file for file in about if file.is_file())}
        return tuple(
            (path.relative_to(self._root).as_posix(), hashlib.sha256(path.read_bytes()).hexdigest()) for path in sorted(found)
        )

    def resolution(self, job: Job, outside: Sequence[tuple[str, str]]) -> Resolution:
        """Return what decided that a job has these inputs from packages."""
        if self.packages is None or self.packages.resolution is None:
            return Resolution()
        return self.packages.resolution(job.closure.packages, [path for path, _ in outside])

    def bundled(self, sizes: Mapping[str, int]) -> tuple[BundledPackage, ...]:
        """Return the packages of these inputs, sorted; ``sizes`` has each input's number of bytes in the code."""
        found: Counter[Path] = Counter()
        for path, size in sizes.items():
            folder = self._package_folder(self._full(path))
            if folder is not None and size:
                found[folder] += size
        return tuple(sorted((describe_package(folder, size) for folder, size in found.items()), key=_by_name))

    def package(self, path: str) -> str:
        """Return the name of the package that an input of the build belongs to; the input itself if it belongs to none."""
        folder = self._package_folder(self._full(path))
        return path if folder is None else describe_package(folder, 0).name

    def _package_folder(self, full: Path) -> Path | None:
        """Return the folder of the package that a file belongs to, or None.

        The last ``node_modules`` on the path is not always one that npm made: some packages ship a folder of that name.
        """
        for folder in full.parents:
            scope = folder.parent.name if folder.parent.name.startswith("@") else ""
            above = folder.parents[1] if scope else folder.parent
            if above.name == MODULES and self._is_linked(folder) and (folder / "package.json").is_file():
                return folder
        return None


class _Run:
    """Runs esbuild in one stage and reads the output; ``deadline`` is in seconds."""

    def __init__(self, program: Path, stage: _Stage, options: Options, deadline: float) -> None:
        self._program = program
        self._stage = stage
        self._options = options
        self._meta: Mapping[str, Any] = {}
        self._outputs: Mapping[str, tuple[str, Mapping[str, Any]]] = {}
        self.deadline = deadline

    async def execute(self, jobs: Sequence[Job]) -> list[Message]:
        """Run esbuild once for these jobs and return its messages; raises `TimeoutError`, and `ToolMissing` for a full disk."""
        arguments = [
            *self._options.flags,
            *(f"--external:{name}" for name in self._stage.built_ins()),
            f"--outdir={self._stage.outputs}",
            f"--metafile={self._stage.metafile}",
            *(entry_path(job.file, sloppy=self._options.sloppy) for job in jobs),
        ]
        environment = self._stage.environment()
        ended = await run_esbuild(
            self._program, arguments, cwd=self._stage.home, deadline=self.deadline, environment=environment
        )
        said = read_messages(ended.errors.decode("utf-8", "replace"))
        unwritten = next((message.text for message in said if message.of_run), None)
        if unwritten is not None:
            raise no_space(unwritten)
        messages = await asyncio.to_thread(self._stage.told, said)
        if ended.status == 0:
            try:
                self._meta = json.loads(await asyncio.to_thread(self._stage.metafile.read_bytes))
            except ValueError:  # esbuild does not say that it could not write it
                raise no_space("esbuild's metafile is cut off") from None
            self._outputs = {
                output["entryPoint"]: (path, output) for path, output in self._meta["outputs"].items() if "entryPoint" in output
            }
        elif not any(message.error for message in messages):
            messages.append(Message(explain_silence(ended), None, error=True, of_run=not has_crashed(ended)))
        return messages

    def result(self, job: Job, messages: Sequence[Message]) -> Built | Failure:
        """Return the result of the last run for one of its jobs."""
        entry = entry_path(job.file, sloppy=self._options.sloppy)
        inputs = self._reached(entry)
        escaped = next((path for path in inputs if self._stage.escaped(path)), None)
        if escaped is not None:
            text, hint = (
                f"the build read `{escaped}`, which is outside of the source",
                "what a package links to must lie inside",
            )
            file, place = self._origin(job, escaped)
            return Failure((Diagnostic("import-outside", text, file, place, hint),), lasting=False)
        empty = next((path for path in inputs if self._stage.withheld(path) is not None), None)
        if empty is not None:
            file, place = self._origin(job, empty)
            text, hint = f"`{empty}` {self._stage.withheld(empty)}", "it cannot be built in"
            return Failure((Diagnostic("import-unreadable", text, file, place, hint),), lasting=False)
        path, output = self._outputs[entry]
        external = _external(output, "import-statement")
        if external and self._options.script:
            importer = self._importer(inputs, external[0])
            file, place = self._origin(job, importer)
            text = f"the package `{self._stage.package(importer)}` imports `{external[0]}`, which script style cannot"
            hint = "use a package made for Workers, or `contract: module` in the manifest"
            return Failure((Diagnostic("built-in", text, file, place, hint),), lasting=False)
        before, comment, after = (self._stage.home / path).read_text(encoding="utf-8").partition(f"// {entry}\n")
        bundle = before + after
        made = finished(bundle, job.file, job.shape, script=self._options.script, sloppy=self._options.sloppy)
        own = [message for message in messages if message.file in job.closure.files]
        packages = self._stage.bundled({path: item["bytesInOutput"] for path, item in output["inputs"].items()})
        notices = (*(message.notice() for message in own), *self._runtime_notices(job, inputs, output))
        source_map = self._source_map(path, bundle, made.head, dropped=before.count("\n") if comment else None)
        outside = self._stage.outside(inputs)
        return Built(made.code, outside, notices, packages, source_map, self._stage.resolution(job, outside))

    def _source_map(self, path: str, bundle: str, head: int, *, dropped: int | None) -> str | None:
        """Return the map of the code that was made of a bundle; ``path`` is the bundle's, from the stage's home."""
        if not self._options.maps or _OTHER_LINE_END.search(bundle) is not None:
            return None  # V8 ends a line there, and a source map may not
        output = self._stage.home / path
        content = output.with_name(f"{output.name}.map").read_bytes()
        return make_bundle_map(content, lambda source: self._stage.source(output.parent, source), head=head, dropped=dropped)

    def _runtime_notices(self, job: Job, inputs: Sequence[str], output: Mapping[str, Any]) -> Iterator[Notice]:
        """Yield a notice for each module of the runtime that a package needs, and that may not be there."""
        for name in _external(output, "import-statement"):
            importer = self._importer(inputs, name)
            if importer not in job.closure.files:
                text = f"imports `{name}`, which is there only where the runtime's compatibility flags allow it"
                yield self._package_notice(job, importer, text)
        for name in _external(output, "require-call"):
            text = f'calls `require("{name}")`, which does not work on Kapso: where that call is reached, it throws an error'
            yield self._package_notice(job, self._importer(inputs, name), text)

    def _package_notice(self, job: Job, importer: str, text: str) -> Notice:
        file, place = self._origin(job, importer)
        location = Location(file, place.line, place.column)
        return Notice("built-in", f"the package `{self._stage.package(importer)}` {text}", location)

    def _importer(self, inputs: Sequence[str], name: str) -> str:
        """Return the first input that imports a module of the runtime, or nothing."""
        imports = ((path, item) for path in inputs for item in self._meta["inputs"][path]["imports"])
        return next((path for path, item in imports if item.get("external") and item["path"] == name), "")

    def _origin(self, job: Job, path: str) -> tuple[str, Place]:
        """Return which file of the function imports an input of the build, directly or through packages, and where."""
        own, meta = set(job.closure.files), self._meta["inputs"]
        for file in job.closure.files:
            for item in meta.get(file, {}).get("imports", ()):
                if not item.get("external") and item["path"] not in own and path in self._reached(item["path"]):
                    return file, self._stage.place_of(file, str(item.get("original", "")))
        return job.file, Place(0, 0)

    def _reached(self, entry: str) -> list[str]:
        """Return the inputs of one entry, sorted, from esbuild's metafile."""
        reached: set[str] = set()
        pending = [entry]
        while pending:
            path = pending.pop()
            if path not in reached and path in self._meta["inputs"]:
                reached.add(path)
                imports = self._meta["inputs"][path]["imports"]
                pending += [item["path"] for item in imports if not item.get("external")]
        return sorted(path for path in reached if not path.startswith("(disabled):"))


def entry_path(file: str, *, sloppy: bool = False) -> str:
    """Return the path of a file's wrapper in the stage: a name that esbuild's command line cannot misread as an option."""
    name = hashlib.sha256(file.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return f"{WRAPPERS}/{name}.{'cjs' if sloppy else 'mjs'}"


def _external(output: Mapping[str, Any], kind: str) -> list[str]:
    """Return the modules of the runtime that built code asks for in this way, sorted."""
    return sorted({item["path"] for item in output["imports"] if item.get("external") and item["kind"] == kind})


def _by_name(package: BundledPackage) -> tuple[str, str]:
    return package.name, package.version or ""


VERSION_TIMEOUT = 10.0
"""Timeout of `esbuild --version`, in seconds."""


@dataclass(slots=True)
class Esbuild:
    """Finds the executable when it is first needed; the version of an unchanged file is asked only once."""

    places: ToolPlaces
    _versions: dict[tuple[str, int, int, int], str] = field(default_factory=dict)

    async def find(self) -> Path:
        """Return the path of an esbuild with the pinned version; raises `ToolMissing`."""
        others: list[str] = []
        for path in self.places.candidates():
            version = await self._version(path)
            if version == VERSION:
                return path
            others.append(f"{path} {f'is {version}' if version else 'does not run'}")
        found = "; ".join(others) or "there is none"
        raise ToolMissing(
            f"esbuild {VERSION} is needed, and {found}",
            f"`npm install --global --prefix {sys.prefix} esbuild@{VERSION}`, or KAPSO_SYNC_ESBUILD with the path of one",
        )

    async def _version(self, path: Path) -> str:
        try:
            key = _identity(path)
            if key not in self._versions:
                command = [str(path), "--version"]
                ended = await run_process(command, environment={}, cwd=Path("/"), deadline=VERSION_TIMEOUT)
                if ended.status != 0:
                    return ""  # it may have been killed, and run the next time
                self._versions[key] = ended.output.decode("utf-8", "replace").strip()[:40]
            return self._versions[key]
        except (OSError, TimeoutError):
            return ""


def _identity(path: Path) -> tuple[str, int, int, int]:
    found = path.stat()
    return os.path.realpath(path), found.st_mtime_ns, found.st_size, found.st_ino
