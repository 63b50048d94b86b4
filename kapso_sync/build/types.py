"""Check types with the repository's own TypeScript compiler; only on request, because it runs code of the repository."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from kapso_sync.build.diagnostics import Diagnostic
from kapso_sync.build.packages import MODULES, Packages
from kapso_sync.build.syntax import Place
from kapso_sync.build.tsconfig import NAME
from kapso_sync.errors import Notice, Problem
from kapso_sync.process import Ended, run_process

TSC_TIMEOUT = 180.0
"""Timeout of the compiler, in seconds."""

_SAID = re.compile(r"^(.+?)\((\d+),(\d+)\): error (TS\d+): (.*)$")


async def check_types(packages: Packages | None, path: str) -> tuple[tuple[Problem, ...], tuple[Notice, ...]]:
    """Return the errors of ``tsc --noEmit``, or a warning that no compiler or no configuration was found.

    ``path`` is the compiler's PATH, which must contain node; no other environment variable is passed on.
    """
    if packages is None:
        return (), (_unchecked("a git source has no node_modules"),)
    compiler = next((level / MODULES / ".bin" / "tsc" for level in packages.levels("") if _has_compiler(level)), None)
    config = next((level for level in (packages.home, *packages.home.parents) if (level / NAME).is_file()), None)
    if compiler is None:
        return (), (_unchecked("TypeScript is not installed in the repository"),)
    if config is None or not config.is_relative_to(packages.root):
        return (), (_unchecked(f"there is no {NAME}"),)
    command = [str(compiler), "--noEmit", "--pretty", "false", "--project", str(config / NAME)]
    try:
        ended = await run_process(command, environment={"PATH": path}, cwd=config, deadline=TSC_TIMEOUT)
    except TimeoutError:
        return (_failed(f"tsc did not end within {TSC_TIMEOUT:g} s"),), ()
    except OSError as error:
        return (_failed(f"tsc cannot be run: {error.strerror}"),), ()
    problems = tuple(_problems(ended, config, packages.home))
    if ended.status and not problems:
        said = " ".join((ended.output + ended.errors).decode("utf-8", "replace").split())
        return (_failed(f"tsc ended with {ended.status}: {said[:300]}"),), ()
    return problems, ()


def _has_compiler(level: Path) -> bool:
    return os.access(level / MODULES / ".bin" / "tsc", os.X_OK)


def _problems(ended: Ended, config: Path, home: Path) -> Iterator[Problem]:
    for line in ended.output.decode("utf-8", "replace").splitlines():
        found = _SAID.match(line)
        if found is not None:
            file = config / found[1]
            place = Place(int(found[2]), int(found[3]))
            fault = Diagnostic("types", f"{found[5]} ({found[4]})", os.path.relpath(file, home), place, "the types do not fit")
            yield fault.problem(file.read_bytes() if file.is_file() else None)


def _failed(text: str) -> Problem:
    return Problem("types", text, None, "does it run by hand, as `npx tsc --noEmit`?")


def _unchecked(reason: str) -> Notice:
    return Notice("types-unchecked", f"types are not checked: {reason}")
