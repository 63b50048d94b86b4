"""Many entries in one run of esbuild, in a private folder that holds nothing but what they reach."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kapso_sync.build.contract import Shape
from kapso_sync.build.diagnostics import Diagnostic, Message, read_messages
from kapso_sync.build.esbuild import Esbuild
from kapso_sync.build.graph import RESOLVED, TEXT_LOADED, Closure
from kapso_sync.build.packages import MODULES, NODE_BUILT_INS, Packages
from kapso_sync.build.syntax import Place
from kapso_sync.build.wrapping import appended, finished, wrapper
from kapso_sync.model.builds import Built
from kapso_sync.process import run_process

ESBUILD_TIMEOUT = 60.0
"""Seconds that one run of esbuild may take; then it is killed with everything it started."""

WRAPPERS = ".kapso-sync"
"""Where the wrappers are, in the stage; no file of a source is ever read from a hidden folder."""

LANGUAGE = "es2024"
"""The newest language that needs no transformation in a Worker; what is newer, such as decorators, is written out."""


@dataclass(frozen=True, slots=True)
class Options:
    """What holds for a whole run. ``tsconfig`` is JSON."""

    script: bool
    minify: bool
    tsconfig: str = "{}"

    @property
    def flags(self) -> list[str]:
        """The command line of esbuild but for what is particular to one run."""
        return [
            "--bundle",
            "--format=esm",
            "--platform=browser",
            "--main-fields=browser,module,main",
            "--conditions=workerd,worker,browser",
            f"--target={LANGUAGE}",
            "--charset=utf8",
            "--legal-comments=inline",
            "--outbase=.",
            "--log-level=warning",
            "--log-limit=0",
            "--color=false",
            "--preserve-symlinks",
            f"--resolve-extensions={','.join(RESOLVED)}",
            f"--tsconfig-raw={self.tsconfig}",
            '--define:process.env.NODE_ENV="production"',
            "--loader:.js=jsx",
            *(f"--loader:{suffix}=text" for suffix in TEXT_LOADED),
            "--external:node:*",
            "--external:cloudflare:*",
            *(["--supported:top-level-await=false"] if self.script else []),
            *(["--minify"] if self.minify else []),
        ]


@dataclass(frozen=True, slots=True)
class Job:
    """One entry to build: its file, the shape of that, and everything it reaches."""

    key: str
    file: str
    shape: Shape
    closure: Closure
    options: Options


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a job cannot be built. ``lasting``: the same input would fail again."""

    faults: tuple[Diagnostic, ...]
    lasting: bool = True


Contents = Callable[[str], bytes]
"""The content of a file of the snapshot."""


class Bundler:
    """Runs esbuild. ``deadline`` is in seconds."""

    def __init__(self, esbuild: Esbuild, deadline: float = ESBUILD_TIMEOUT) -> None:
        self._esbuild = esbuild
        self._deadline = deadline

    async def bundle(
        self, jobs: Sequence[Job], contents: Contents, shapes: Mapping[str, Shape], packages: Packages | None
    ) -> dict[str, Built | Failure]:
        """Return, by key, what became of each job; one that fails takes no other along. Raises `ToolMissing`.

        ``shapes`` are those of all files with code that the jobs reach.
        """
        program = await self._esbuild.find()
        results: dict[str, Built | Failure] = {}
        groups: dict[Options, list[Job]] = {}
        for job in jobs:
            groups.setdefault(job.options, []).append(job)
        for options, group in groups.items():
            with tempfile.TemporaryDirectory(prefix="kapso-sync-build-") as folder:
                stage = _Stage(folder, packages)
                await asyncio.to_thread(stage.fill, group, contents, shapes)
                run = _Run(program, stage, options, self._deadline)
                pending = [group]
                while pending:
                    pending += await _attempt(run, pending.pop(), results)
        return results


async def _attempt(run: _Run, jobs: Sequence[Job], results: dict[str, Built | Failure]) -> list[list[Job]]:
    """Build these jobs together, and return those that must be tried again without whoever made them fail."""
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
        hint = "does the code make it work without end? the next pass tries again"
        return Failure(
            (Diagnostic("build-timeout", f"esbuild did not end within {deadline:g} s", job.file, Place(0, 0), hint),),
            lasting=False,
        )
    own = [message for message in errors if message.file in job.closure.files] or [
        replace(message, file=None) if (message.file or "").startswith(WRAPPERS) else message for message in errors
    ]
    # Packages change without git, so that what they made fail may work the next time.
    return Failure(tuple(message.fault(job.file) for message in own), lasting=not job.closure.packages)


class _Stage:
    """A private folder with everything that a run may see: files that are reached, wrappers, links to packages."""

    def __init__(self, place: str, packages: Packages | None) -> None:
        folder = Path(os.path.realpath(place))
        self._root = folder / "root"
        self.packages = packages
        self.home = self._root / (packages.inside if packages is not None else "")
        self.outputs = folder / "out"
        self.metafile = folder / "meta.json"

    def fill(self, jobs: Sequence[Job], contents: Contents, shapes: Mapping[str, Shape]) -> None:
        """Write the files."""
        self.home.mkdir(parents=True)
        # A package.json of our own ends esbuild's search for one in the folders above.
        self._write(self._root / "package.json", b'{"private": true, "browser": {}}')
        files = {path for job in jobs for path in job.closure.files}
        for path in files:
            tail = appended(shapes[path]).encode() if path in shapes else b""
            self._write(self.home / path, contents(path) + tail)
        for job in jobs:
            self._write(self.home / entry_path(job.file), wrapper(job.shape, f"../{job.file}").encode())
        if self.packages is not None and any(job.closure.packages for job in jobs):
            self._link(self.packages, {path.rpartition("/")[0] for path in files})

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
        """Return esbuild's whole environment: pnpm keeps what packages share in a folder of its own."""
        shared = [str(level / MODULES / ".pnpm" / MODULES) for level in self._linked()]
        return {"NODE_PATH": os.pathsep.join(path for path in shared if os.path.isdir(path))}  # noqa: PTH112

    def built_ins(self) -> list[str]:
        """Return Node's own modules that no package replaces."""
        linked = list(self._linked())
        return [name for name in sorted(NODE_BUILT_INS) if not any((level / MODULES / name).is_dir() for level in linked)]

    def _linked(self) -> Iterator[Path]:
        for level in (self.home, *self.home.parents):
            if (level / MODULES).is_dir():
                yield level
            if level == self._root:
                return

    def located(self, message: Message) -> Message:
        """Return a message with its column in characters; esbuild counts bytes."""
        try:
            line = (self.home / (message.file or "")).read_bytes().split(b"\n")[message.line - 1]
        except (OSError, IndexError):
            return message
        return replace(message, column=len(line[: message.column].decode("utf-8", "replace")))

    def escaped(self, path: str) -> bool:
        """Tell whether an input of the build lies anywhere but in the stage or, really, below the source's root."""
        full = self._full(path)
        if not full.is_relative_to(self._root):
            return True
        return self._is_linked(full) and (self.packages is None or not self.packages.holds(full))

    def _full(self, path: str) -> Path:
        return Path(os.path.normpath(self.home / path))

    def _is_linked(self, full: Path) -> bool:
        return MODULES in full.relative_to(self._root).parts

    def outside(self, inputs: Sequence[str]) -> tuple[tuple[str, str], ...]:
        """Return the inputs that are no files of the snapshot, by their paths below the source's root, with their hashes.

        What a package says of itself decides which of its files are taken, so that counts as well.
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


class _Run:
    """Runs of esbuild over one stage, and what they made."""

    def __init__(self, program: Path, stage: _Stage, options: Options, deadline: float) -> None:
        self._program = program
        self._stage = stage
        self._options = options
        self._meta: Mapping[str, Any] = {}
        self._outputs: Mapping[str, tuple[str, Mapping[str, Any]]] = {}
        self.deadline = deadline

    async def execute(self, jobs: Sequence[Job]) -> list[Message]:
        """Run esbuild once and return its messages; raises `TimeoutError`."""
        command = [
            str(self._program),
            *self._options.flags,
            *(f"--external:{name}" for name in self._stage.built_ins()),
            f"--outdir={self._stage.outputs}",
            f"--metafile={self._stage.metafile}",
            *(entry_path(job.file) for job in jobs),
        ]
        ended = await run_process(command, environment=self._stage.environment(), cwd=self._stage.home, deadline=self.deadline)
        said = read_messages(ended.errors.decode("utf-8", "replace"))
        messages = [self._stage.located(message) for message in said]
        if ended.status == 0:
            self._meta = json.loads(await asyncio.to_thread(self._stage.metafile.read_bytes))
            self._outputs = {output["entryPoint"]: (path, output) for path, output in self._meta["outputs"].items()}
        elif not any(message.error for message in messages):
            messages.append(Message("esbuild ended with an error and said nothing", None, error=True))
        return messages

    def result(self, job: Job, messages: Sequence[Message]) -> Built | Failure:
        """Return what the last run made of a job."""
        entry = entry_path(job.file)
        inputs = self._reached(entry)
        escaped = next((path for path in inputs if self._stage.escaped(path)), None)
        if escaped is not None:
            text, hint = (
                f"the build read `{escaped}`, which is outside of the source",
                "what a package links to must lie inside",
            )
            return Failure((Diagnostic("import-outside", text, job.file, Place(0, 0), hint),), lasting=False)
        path, output = self._outputs[entry]
        external = [item["path"] for item in output["imports"] if item.get("external") and item["kind"] == "import-statement"]
        if external and self._options.script:
            text, hint = f"a package imports `{external[0]}`, which script style cannot", "use a package made for Workers"
            return Failure((Diagnostic("built-in", text, job.file, Place(0, 0), hint),), lasting=False)
        bundle = (self._stage.home / path).read_text(encoding="utf-8").replace(f"// {entry}\n", "", 1)
        code = finished(bundle, job.file, job.shape, script=self._options.script)
        own = [message for message in messages if message.file in job.closure.files]
        return Built(code, self._stage.outside(inputs), tuple(message.notice() for message in own))

    def _reached(self, entry: str) -> list[str]:
        """Return the inputs of one entry, in order."""
        reached: set[str] = set()
        pending = [entry]
        while pending:
            path = pending.pop()
            if path not in reached and path in self._meta["inputs"]:
                reached.add(path)
                imports = self._meta["inputs"][path]["imports"]
                pending += [item["path"] for item in imports if not item.get("external")]
        return sorted(path for path in reached if not path.startswith("(disabled):"))


def entry_path(file: str) -> str:
    """Return where the wrapper of a file is, in the stage: a name that esbuild's command line takes for nothing else."""
    return f"{WRAPPERS}/{hashlib.sha256(file.encode('utf-8', 'surrogateescape')).hexdigest()[:16]}.mjs"


_Stamp = tuple[int, int, int, int]


class ExternalInputs:
    """Compares files by hash; one that shows no change since it was hashed is not read again."""

    def __init__(self) -> None:
        self._hashes: dict[Path, tuple[_Stamp, str]] = {}

    def unchanged(self, inputs: Sequence[tuple[str, str]], packages: Packages | None) -> bool:
        """Tell whether these files below the source's root still have these hashes."""
        if packages is None:
            return not inputs
        return all(self._hash(packages.root / path) == wanted for path, wanted in inputs)

    def _hash(self, path: Path) -> str | None:
        try:
            found = path.stat()
            stamp = (found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino)
            known = self._hashes.get(path)
            if known is None or known[0] != stamp:
                self._hashes[path] = known = (stamp, hashlib.sha256(path.read_bytes()).hexdigest())
        except OSError:
            return None
        return known[1]
