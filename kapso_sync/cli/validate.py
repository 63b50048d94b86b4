"""``validate``: manifest and code, checked offline."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kapso_sync.cli.annotations import annotate
from kapso_sync.cli.failures import print_problem
from kapso_sync.cli.runner import run_to_end
from kapso_sync.errors import ExitCode, Location, Problem, UsageError
from kapso_sync.model.functions import Json
from kapso_sync.settings import load_settings
from kapso_sync.wiring import SourceReport, make_event_bus, read_source


@dataclass(frozen=True, slots=True)
class ValidateArgs:
    """How to tell it: as JSON, or as annotations of GitHub's; and whether the repository's own `tsc` is run."""

    json: bool = False
    github: bool = False
    types: bool = False


def validate(overrides: Mapping[str, object], env_file: Path | None, ways: ValidateArgs) -> int:
    """Print every problem of the source, and every warning; 65 when there is a problem."""
    if ways.json and ways.github:
        raise UsageError("both --json and --github are given", hint="one is for programs, the other for GitHub's log")
    settings = load_settings(overrides, env_file=env_file)

    async def work() -> int:
        reading = await read_source(settings, make_event_bus(settings, sys.stderr, level="error"), types=ways.types)
        if ways.json:
            print(json.dumps(_document(reading), indent=2))
        else:
            _print(reading, github=ways.github)
        return int(ExitCode.INVALID if reading.problems else ExitCode.OK)

    return run_to_end(work)


def _print(reading: SourceReport, *, github: bool) -> None:
    if github:
        for line in annotate(reading):
            print(line)
    else:
        for problem in reading.problems:
            print_problem(problem)
        for notice in reading.notices:
            place = f"{notice.location}: " if notice.location else ""
            sys.stderr.write(f"warning: {place}{notice.message}\n")
    count = len(reading.problems)
    if count:
        print(f"{count} problem{'s' if count != 1 else ''} found.")
    elif reading.desired is not None:
        count = len(reading.desired.functions)
        print(f"Valid: {count} function{'s' if count != 1 else ''}.")


def _document(reading: SourceReport) -> dict[str, Json]:
    slugs: list[Json] = [*sorted(reading.desired.slugs)] if reading.desired else []
    return {
        "valid": not reading.problems,
        "functions": slugs,
        "problems": [_problem(problem) for problem in reading.problems],
        "warnings": [
            {
                "code": notice.code,
                "message": notice.message,
                "location": str(notice.location) if notice.location else None,
                **_place(notice.location),
            }
            for notice in reading.notices
        ],
    }


def _problem(problem: Problem) -> dict[str, Json]:
    return {
        "code": problem.code,
        "message": problem.message,
        **_place(problem.location),
        "hint": problem.hint,
        "frame": problem.frame,
    }


def _place(location: Location | None) -> dict[str, Json]:
    return {
        "file": location.file if location else None,
        "line": location.line if location else None,
        "column": location.column if location else None,
    }
