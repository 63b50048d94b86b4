"""``validate``: manifest and code, checked offline."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from kapso_sync.cli.failures import print_problem
from kapso_sync.cli.runner import run_to_end
from kapso_sync.errors import ExitCode, ManifestInvalid, Problem
from kapso_sync.model.desired import Desired
from kapso_sync.model.functions import Json
from kapso_sync.settings import load_settings
from kapso_sync.wiring import Logging, read_desired


def validate(overrides: Mapping[str, object], env_file: Path | None, *, json_output: bool) -> int:
    """Print every problem of the source, and every warning; 65 when there is a problem."""
    settings = load_settings(overrides, env_file=env_file)

    async def work() -> int:
        desired: Desired | None = None
        try:
            desired = await read_desired(settings, Logging(settings, sys.stderr, level="error"))
        except ManifestInvalid as error:
            problems = error.problems
        else:
            problems = tuple(problem for function in desired.unusable for problem in function.problems)
        if json_output:
            print(json.dumps(_document(desired, problems), indent=2))
        else:
            _print(desired, problems)
        return int(ExitCode.INVALID if problems else ExitCode.OK)

    return run_to_end(work)


def _print(desired: Desired | None, problems: tuple[Problem, ...]) -> None:
    for problem in problems:
        print_problem(problem)
    for notice in desired.notices if desired else ():
        place = f"{notice.location}: " if notice.location else ""
        sys.stderr.write(f"warning: {place}{notice.message}\n")
    if problems:
        print(f"{len(problems)} problem{'s' if len(problems) != 1 else ''} found.")
    elif desired is not None:
        count = len(desired.functions)
        print(f"Valid: {count} function{'s' if count != 1 else ''}.")


def _document(desired: Desired | None, problems: tuple[Problem, ...]) -> dict[str, Json]:
    slugs: list[Json] = [*sorted(desired.slugs)] if desired else []
    return {
        "valid": not problems,
        "functions": slugs,
        "problems": [_problem(problem) for problem in problems],
        "warnings": [
            {"code": notice.code, "message": notice.message, "location": str(notice.location) if notice.location else None}
            for notice in (desired.notices if desired else ())
        ],
    }


def _problem(problem: Problem) -> dict[str, Json]:
    location = problem.location
    return {
        "code": problem.code,
        "message": problem.message,
        "file": location.file if location else None,
        "line": location.line if location else None,
        "column": location.column if location else None,
        "hint": problem.hint,
    }
