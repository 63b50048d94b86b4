"""Set up what is measured: folders of functions, and an emulator that serves them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import program, run
from kapso_sync.emulator.options import EmulatorOptions
from kapso_sync.emulator.requestlog import Entry
from kapso_sync.emulator.server import Emulator
from kapso_sync.model.ownership import mark_for
from kapso_sync.model.source import FILE_COUNT_LIMIT
from tests.program import git
from tests.served import served

CODE_SIZE = 2048
"""Size of a function's code, in bytes."""

OWNER = "bench"
NO_RATE_LIMIT = 1_000_000
SHORT_DEPLOYMENT = 0.05
"""Seconds of a deployment where deployments are not what is measured."""


@dataclass(frozen=True, slots=True)
class Scene:
    """An emulator, a folder of functions, and a state folder."""

    kapso: Emulator
    functions: Path
    state: Path

    @property
    def url(self) -> str:
        """The base URL of the emulated API."""
        return self.kapso.base("/api/v1")

    def environment(self, settings: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the environment for kapso-sync: the caller's own, without its settings, and those given."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith("KAPSO_")}
        ours = {
            "KAPSO_API_BASE_URL": self.url,
            "KAPSO_API_KEY": self.kapso.key,
            "KAPSO_SYNC_STATE_DIR": str(self.state),
            "KAPSO_SYNC_OWNER": OWNER,
            "KAPSO_SYNC_LOG_LEVEL": "error",
        }
        return {**clean, **ours, **(settings or {})}

    def whole(self) -> dict[str, str]:
        """Return an environment in which no pass is taken for the last one: a setting differs, which changes no plan here."""
        return self.environment({"KAPSO_SYNC_MAX_DELETE": "26%"})

    def sync(self) -> None:
        """Bring the emulator in sync once, and fast."""
        quick = {
            "KAPSO_SYNC_CONCURRENCY": "64",
            "KAPSO_SYNC_DEPLOYING": "64",
            "KAPSO_SYNC_RATE_SHARE": "100%",
            "KAPSO_SYNC_DEPLOY_POLL": "100ms",
        }
        run(program("sync", str(self.functions)), self.environment(quick))

    def calls(self) -> tuple[Entry, ...]:
        """Return the API requests so far, those that were refused for the rate included."""
        return self.kapso.log.entries

    def own_already(self, functions: Path | None = None) -> None:
        """Put a folder's functions into the emulator as an earlier run would have left them: live, with our mark."""
        world = self.kapso.world
        for path in sorted((functions or self.functions).glob("*.js")):
            body = {
                "slug": path.stem,
                "name": path.stem,
                "code": path.read_text(encoding="utf-8"),
                "description": str(mark_for(OWNER, path.stem)).strip(),
                "function_type": "cloudflare_worker",
            }
            world.deploy(world.create(body), delay=0.0)


@contextmanager
def scene(
    folder: Path, *, rate_limit: int = NO_RATE_LIMIT, window: float = 60.0, deployment: float = SHORT_DEPLOYMENT
) -> Iterator[Scene]:
    """Serve an emulator beside an empty folder; ``window`` and ``deployment`` are in seconds.

    It runs in a thread of this process, which does nothing else while it waits for what is measured.
    """
    folder.mkdir(parents=True)
    with served(EmulatorOptions(rate_limit=rate_limit, window=window, deploy_delay=deployment)) as running:
        yield Scene(running.emulator, folder / "functions", folder / "state")


def slugs(count: int) -> list[str]:
    """Return the slugs of the functions that the writers below write."""
    return [f"function-{number:04d}" for number in range(count)]


def write_functions(folder: Path, count: int) -> None:
    """Write a manifest that names each file, and ``count`` functions of CODE_SIZE bytes."""
    _write_javascript(folder, slugs(count), CODE_SIZE)
    _write_manifest(folder, [f"{name}:\n    file: {name}.js" for name in slugs(count)])


def write_many_functions(folder: Path, count: int) -> int:
    """Write functions like `write_functions`, with a manifest of the shortest form, and return their number.

    A manifest may have 256 KiB, which are not enough to name the files of 10,000 functions. A source may have 10,000 files,
    and the manifest is one of them: then there is one function less.
    """
    count = min(count, FILE_COUNT_LIMIT - 1)
    _write_javascript(folder, slugs(count), CODE_SIZE)
    _write_manifest(folder, [f"{name}:" for name in slugs(count)])
    return count


def _write_manifest(folder: Path, entries: list[str]) -> None:
    text = "version: 1\nfunctions:\n" + "".join(f"  {entry}\n" for entry in entries)
    (folder / "manifest.yaml").write_text(text, encoding="utf-8")


def _write_javascript(folder: Path, names: list[str], size: int) -> None:
    folder.mkdir(parents=True)
    for name in names:
        head = f"async function handler(request, env) {{\n  return new Response('{name}');\n}}\n"
        (folder / f"{name}.js").write_text(head + f"// {'x' * (size - len(head) - 4)}\n", encoding="utf-8")


def write_typescript(folder: Path, count: int) -> None:
    """Write ``count`` functions in TypeScript that share modules three deep; every tenth one imports ``lib/rare`` instead."""
    (folder / "lib").mkdir(parents=True)
    _write_manifest(folder, [f"{name}:" for name in slugs(count)])
    chain = {"a": "b", "b": "c"}
    for name in ("a", "b", "c", "rare"):
        below = chain.get(name)
        head = f'import {{ {below} }} from "./{below}";\n' if below else ""
        call = f"{below}(text)" if below else "text.trim()"
        code = f"{head}export const {name} = (text: string): string => {call};\n"
        (folder / "lib" / f"{name}.ts").write_text(code, encoding="utf-8")
    for number, name in enumerate(slugs(count)):
        shared = "a" if number % 10 else "rare"
        values = "".join(f"  const value{index}: number = {index} * {number};\n" for index in range(40))
        code = (
            f'import {{ {shared} }} from "./lib/{shared}";\ninterface Env {{ KV?: unknown }}\n'
            f"export default async function handler(request: Request, env: Env): Promise<Response> {{\n{values}"
            f"  return new Response({shared}(String(value1 + value39)));\n}}\n"
        )
        (folder / f"{name}.ts").write_text(code, encoding="utf-8")


def write_javascript_like(typescript: Path, folder: Path, count: int) -> None:
    """Write a folder of plain JavaScript with as many functions, of the same size on average."""
    size = sum(path.stat().st_size for path in typescript.glob("*.ts")) // count
    _write_javascript(folder, slugs(count), size)
    _write_manifest(folder, [f"{name}:" for name in slugs(count)])


def change(folder: Path, number: int, text: str) -> None:
    """Add a comment to one function."""
    with (folder / f"function-{number:04d}.js").open("a", encoding="utf-8") as file:
        file.write(f"// {text}\n")


def begin_repository(folder: Path) -> None:
    """Make a folder a git repository with one commit."""
    git(folder, "init", "--quiet", "--initial-branch=main")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "Begin")


def copied(functions: Path, repository: Path) -> Path:
    """Return a new git repository whose folder ``functions`` is a copy of this one."""
    shutil.copytree(functions, repository / "functions")
    begin_repository(repository)
    return repository
