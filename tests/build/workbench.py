"""Short ways to build: files given as text, real esbuild, and node to see what the built code answers."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import kapso_sync
from kapso_sync.build import Builder, BuildResult, Bundler, Esbuild, FolderPackages, Target
from kapso_sync.errors import Location, Problem
from kapso_sync.model.builds import BuildStore
from kapso_sync.model.desired import DesiredFunction, Entry, UnusableFunction
from kapso_sync.model.json_values import Json
from kapso_sync.model.policies import Contract
from kapso_sync.model.source import SourceFile
from kapso_sync.reconcile.desired import DesiredBuilder
from kapso_sync.tools import ToolPlaces, own_copies

SCRIPT, MODULE = Target(), Target(Contract.MODULE)
OWN = own_copies(Path(kapso_sync.__file__).parent, Path(sys.prefix))
ESBUILD = next((path for path in OWN if path.is_file()), None)

needs_esbuild = pytest.mark.skipif(ESBUILD is None, reason="esbuild is not installed: `make node_modules/.installed`")
needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")

Texts = Mapping[str, str | bytes]


def source_files(texts: Texts) -> dict[str, SourceFile]:
    """A snapshot's files."""
    return {path: SourceFile(path, text if isinstance(text, bytes) else text.encode()) for path, text in texts.items()}


def entry(file: str, contract: Contract = Contract.AUTO, *, minify: bool = False, **fields: Json) -> Entry:
    """An entry whose slug is the file's name without its ending."""
    return Entry(
        file.rpartition("/")[2].partition(".")[0], file, Location("manifest.yaml", 3, 3), fields, contract, minify=minify
    )


@dataclass
class Workbench:
    """A builder that lives from pass to pass, as a daemon's does."""

    target: Target = SCRIPT
    store: BuildStore | None = None
    places: ToolPlaces = field(default_factory=lambda: ToolPlaces(None, OWN, []))
    deadline: float = 60.0

    def __post_init__(self) -> None:
        self.builder = Builder(self.target, Bundler(Esbuild(self.places), self.deadline), self.store)

    def desire(self, environment: str | None = None) -> DesiredBuilder:
        """What a session has around the builder."""
        return DesiredBuilder(self.builder, environment=environment)

    def build(self, texts: Texts, *entries: Entry | str, packages: FolderPackages | None = None) -> BuildResult:
        """One pass over these files."""
        listed = [item if isinstance(item, Entry) else entry(item) for item in entries]
        return asyncio.run(self.builder.build(listed, source_files(texts), packages))


def build(
    texts: Texts | str, name: str | Entry = "greet.js", target: Target = SCRIPT, packages: FolderPackages | None = None
) -> DesiredFunction | UnusableFunction:
    """Build one entry; a text alone is the entry's file."""
    listed = name if isinstance(name, Entry) else entry(name)
    made = Workbench(target).build({listed.file: texts} if isinstance(texts, str) else texts, listed, packages=packages)
    return made.functions[0] if made.functions else made.unusable[0]


def good(
    texts: Texts | str, name: str | Entry = "greet.js", target: Target = SCRIPT, packages: FolderPackages | None = None
) -> str:
    """The code that is uploaded for an entry; it must be sound."""
    made = build(texts, name, target, packages)
    assert isinstance(made, DesiredFunction), made
    return made.code


def bad(
    texts: Texts | str,
    name: str | Entry = "greet.js",
    target: Target = SCRIPT,
    packages: FolderPackages | None = None,
    *,
    blocked: bool = False,
) -> tuple[Problem, ...]:
    """Everything that is wrong with an entry; it must not be sound, for good unless it is ``blocked``."""
    made = build(texts, name, target, packages)
    assert isinstance(made, UnusableFunction), made
    assert made.blocked is blocked, made
    return made.problems


def where(problem: Problem) -> tuple[str, str, int, int]:
    """What a test compares of a problem."""
    assert problem.location is not None
    return problem.code, problem.location.file, problem.location.line, problem.location.column


_DRIVER = """
const codes = JSON.parse(require("node:fs").readFileSync(0, "utf8"));
const answers = codes.map(async ({ code, script }) => {
  let handler;
  if (script) {
    handler = new Function(`${code}\nreturn handler;`)();
  } else {
    const given = (await import("data:text/javascript;base64," + Buffer.from(code).toString("base64"))).default;
    handler = typeof given === "function" ? given : given.fetch.bind(given);
  }
  const request = new Request("https://kapso.test/", { method: "POST", body: JSON.stringify({ name: "Ada" }) });
  const answer = await handler(request, { SECRET: "s3cret" }, { waitUntil() {} });
  return [answer.status, await answer.text()];
});
Promise.all(answers).then((all) => console.log(JSON.stringify(all)));
"""


def answers(codes: list[str], target: Target) -> list[tuple[int, str]]:
    """What built code answers to a request, as node runs it: scripts as functions bodies, modules as modules."""
    given = json.dumps([{"code": code, "script": target.contract is not Contract.MODULE} for code in codes])
    ran = subprocess.run(["node", "-e", _DRIVER], input=given, capture_output=True, text=True, check=False, timeout=60)
    assert ran.returncode == 0, ran.stderr
    found: list[list[Any]] = json.loads(ran.stdout)
    return [(status, text) for status, text in found]
