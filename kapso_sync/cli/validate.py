"""``validate``: checks manifest, code and fixtures offline."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from dataclasses import replace

from kapso_sync.cli.context import CommandContext
from kapso_sync.cli.fixtures import fixture_problems
from kapso_sync.cli.runner import print_problems, run_to_end
from kapso_sync.dataclass import dataclass
from kapso_sync.errors import ExitCode, Location, Notice, Problem, UsageError, first_problems
from kapso_sync.model.json_values import Json
from kapso_sync.plurals import counted
from kapso_sync.visible import visible
from kapso_sync.wiring.source import SourceReport, read_source


@dataclass(frozen=True, slots=True)
class ValidateArgs:
    """The output: JSON, or annotations for GitHub; and whether to run the repository's own `tsc`."""

    json: bool = False
    github: bool = False
    types: bool = False


def validate(context: CommandContext, args: ValidateArgs) -> int:
    """Print every problem of the source, and every warning; 65 when there is a problem."""
    if args.json and args.github:
        raise UsageError("both --json and --github are given", hint="one is for programs, the other for GitHub's log")
    settings = context.load_settings()

    async def work() -> int:
        report = await read_source(settings, context.event_bus(settings), types=args.types)
        broken = await fixture_problems(report.desired, report.files) if report.desired is not None else ()
        report = replace(report, problems=context.shown(first_problems([*report.problems, *broken])))
        if args.json:
            context.stdout().document(_document(report))
        else:
            _print(report, context, github=args.github)
        return int(ExitCode.INVALID if report.problems else ExitCode.OK)

    return run_to_end(work)


def _print(report: SourceReport, context: CommandContext, *, github: bool) -> None:
    if github:
        for line in _annotations(report):
            context.stdout().annotation(line)
    else:
        errors = context.stderr()
        print_problems(errors, report.problems)
        for notice in report.notices:
            place = f"{notice.location}: " if notice.location else ""
            errors.warning(f"{place}{notice.message}")
    count = sum(problem.count for problem in report.problems)
    if count:
        context.stdout().line(f"{counted(count, 'problem')} found.", style="bold")
    elif report.desired is not None:
        context.stdout().line(f"Valid: {counted(len(report.desired.functions), 'function')}.", style="bold")


def _document(report: SourceReport) -> dict[str, Json]:
    slugs: list[Json] = [*sorted(report.desired.slugs)] if report.desired else []
    return {
        "valid": not report.problems,
        "functions": slugs,
        "problems": [problem_document(problem) for problem in report.problems],
        "warnings": [
            {
                "code": notice.code,
                "message": notice.message,
                "location": str(notice.location) if notice.location else None,
                **_place(notice.location),
            }
            for notice in report.notices
        ],
    }


def problem_document(problem: Problem) -> dict[str, Json]:
    """Return a problem as JSON documents show it."""
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


def _annotations(reading: SourceReport) -> Iterator[str]:
    """Yield one line for each problem and warning; paths are relative to the repository's root, as GitHub wants them."""
    for problem in reading.problems:
        yield annotation("error", problem, problem.hint, reading.inside)
    for notice in reading.notices:
        yield annotation("warning", notice, None, reading.inside)


def annotation(level: str, said: Problem | Notice, hint: str | None, inside: str) -> str:
    """Return the command that shows a problem beside its line on GitHub; ``inside`` is as in `SourceReport`."""
    properties = {**_annotation_place(said.location, inside), "title": said.code}
    listed = ",".join(f"{name}={_property(value)}" for name, value in properties.items())
    return f"::{level} {listed}::{_data(said.message + (f'{chr(10)}hint: {hint}' if hint else ''))}"


def _annotation_place(location: Location | None, inside: str) -> dict[str, str]:
    if location is None or not location.file:
        return {}
    numbers = {"line": location.line, "col": location.column}
    file = posixpath.normpath(posixpath.join(inside, location.file))
    return {"file": file, **{name: str(number) for name, number in numbers.items() if number}}


def _data(text: str) -> str:
    """Escape a message. Source: the toolkit of GitHub's actions, `packages/core/src/command.ts`."""
    return "%0A".join(visible(line).replace("%", "%25") for line in text.splitlines())


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
