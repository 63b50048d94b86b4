"""``test``: builds every function and runs its checks on workerd, without Kapso and without the network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from kapso_sync.cli.check_bench import CheckBench, CheckResult, FunctionResult
from kapso_sync.cli.console import Console
from kapso_sync.cli.context import CommandContext
from kapso_sync.cli.junit import junit_document
from kapso_sync.cli.render import print_evidence
from kapso_sync.cli.runner import print_problems, run_to_end
from kapso_sync.cli.validate import annotation, problem_document
from kapso_sync.cli.workerd import HOW_TO_GET_IT, Workerd, find_workerd
from kapso_sync.dataclass import dataclass
from kapso_sync.errors import ConfigError, ExitCode, Location, ManifestInvalid, Problem, UsageError
from kapso_sync.model.desired import DesiredFunction
from kapso_sync.model.json_values import Json
from kapso_sync.plurals import counted
from kapso_sync.visible import visible
from kapso_sync.wiring.source import read_source
from kapso_sync.wiring.tested_source import TestedSource, read_tested_source


@dataclass(frozen=True, slots=True)
class TestArgs:
    """The options of the command; ``only`` and ``since`` choose functions, and the others are about the output."""

    __test__ = False

    only: tuple[str, ...] = ()
    since: str | None = None
    network: bool = False
    json: bool = False
    github: bool = False
    junit: Path | None = None
    runtime: str = "auto"
    verbose: bool = False


@dataclass(frozen=True, slots=True)
class _Report:
    """What a run found: results in order of slugs, problems of the source, and functions that were left out.

    ``unchecked`` have no checks, and ``untouched`` did not change. ``inside`` is as in `TestedSource`.
    """

    inside: str
    results: tuple[FunctionResult, ...] = ()
    problems: tuple[Problem, ...] = ()
    unchecked: tuple[DesiredFunction, ...] = ()
    untouched: tuple[DesiredFunction, ...] = ()

    @property
    def passed(self) -> int:
        """Number of checks that passed."""
        return sum(len(result.checks) - len(result.failed) for result in self.results)

    @property
    def failed(self) -> int:
        """Number of checks that failed."""
        return sum(len(result.failed) for result in self.results)

    @property
    def exit_code(self) -> ExitCode:
        """65 for anything invalid, which was not tested; else 1 for a check that failed."""
        if self.problems:
            return ExitCode.INVALID
        return ExitCode.FUNCTION_FAILED if self.failed else ExitCode.OK


def test(context: CommandContext, args: TestArgs) -> int:
    """Run the checks and print their results. Raises `UsageError`, and `ConfigError` where there is no workerd."""
    if args.json and args.github:
        raise UsageError("both --json and --github are given", hint="one is for programs, the other for GitHub's log")
    settings = context.load_settings()
    console = context.stdout()

    async def work() -> int:
        try:
            source = await read_tested_source(settings, context.event_bus(settings, level="warning"), since=args.since)
        except ManifestInvalid as error:
            inside = (await read_source(settings, context.event_bus(settings, level="warning"))).inside if args.github else ""
            report = _Report(inside, problems=context.shown(error.problems))
            _show(context, args, report)
            return int(report.exit_code)
        chosen = _chosen(source, args)
        checked = [function for function in chosen.functions if function.entry.checks]
        results: tuple[FunctionResult, ...] = ()
        if checked:
            bench = CheckBench(_workerd(args.runtime).path, source, context.redactor, network=args.network)
            quiet = args.json
            results = await bench.run(
                checked, lambda result: None if quiet else _print_result(console, result, verbose=args.verbose)
            )
        problems_of_fixtures = [problem for result in results for problem in result.problems]
        report = _Report(
            source.inside,
            results,
            context.shown([*chosen.problems, *problems_of_fixtures]),
            tuple(function for function in chosen.functions if not function.entry.checks),
            chosen.untouched,
        )
        _show(context, args, report)
        return int(report.exit_code)

    return run_to_end(work)


@dataclass(frozen=True, slots=True)
class _Chosen:
    functions: tuple[DesiredFunction, ...]
    problems: tuple[Problem, ...]
    untouched: tuple[DesiredFunction, ...]


def _chosen(source: TestedSource, args: TestArgs) -> _Chosen:
    """Return the functions that the options choose, and the problems of those among them that cannot be built."""
    desired = source.desired
    unknown = sorted(set(args.only) - desired.slugs)
    if unknown:
        raise UsageError(
            f"there is no function `{unknown[0]}` in the source", hint=f"known: {', '.join(sorted(desired.slugs))}"
        )
    wanted = {slug for slug in desired.slugs if not args.only or slug in args.only}
    touched = wanted if source.touched is None else wanted & source.touched
    return _Chosen(
        tuple(function for function in desired.functions if function.slug in touched),
        tuple(problem for function in desired.unusable if function.slug in touched for problem in function.problems),
        tuple(function for function in desired.functions if function.slug in wanted - touched),
    )


def _workerd(runtime: str) -> Workerd:
    found = find_workerd(runtime)
    if found is None:
        raise ConfigError("`test` runs functions on workerd, and there is none here", hint=f"get it with: {HOW_TO_GET_IT}")
    return found


def _show(context: CommandContext, args: TestArgs, report: _Report) -> None:
    console = context.stdout()
    if args.junit is not None:
        try:
            args.junit.write_text(context.redactor.text(_junit(report, args.since)), encoding="utf-8")
        except OSError as error:
            raise UsageError(f"{args.junit} cannot be written: {error.strerror}", hint="name another file") from error
    if args.json:
        console.document(_document(report))
        return
    if args.github:
        for problem in report.problems:
            console.annotation(annotation("error", problem, problem.hint, report.inside))
        for result in report.results:
            for check in result.failed:
                console.annotation(annotation("error", _as_problem(result, check), None, report.inside))
    else:
        print_problems(context.stderr(), report.problems)
    _print_end(console, args, report)


def _print_result(console: Console, result: FunctionResult, *, verbose: bool) -> None:
    if result.problems:
        return
    if result.skipped is not None:
        console.line((f"- {result.function.slug}", "yellow"), f"  not run: {result.skipped}")
        return
    count, failed = len(result.checks), result.failed
    seconds = sum(check.seconds for check in result.checks)
    if not failed:
        passed = f"{counted(count, 'check')} passed"
        console.line((f"+ {result.function.slug}", "green"), f"  {passed}", (f"  {seconds * 1000:.0f} ms", "dim"))
    else:
        console.line((f"x {result.function.slug}", "red"), f"  {len(failed)} of {counted(count, 'check')} failed")
    for check in result.checks:
        if check.error is not None:
            console.line(f"{check.name} failed: {check.error}", indent=4)
            print_evidence(console, check.evidence, indent=4)
        elif verbose:
            console.line(
                f"{check.name} got {check.answer or 'no answer: it threw'}",
                (f"  {check.seconds * 1000:.0f} ms", "dim"),
                indent=4,
            )


def _print_end(console: Console, args: TestArgs, report: _Report) -> None:
    if args.since is not None and report.untouched:
        console.line(f"{counted(len(report.untouched), 'function')} did not change since {visible(args.since)}.", style="dim")
    if report.unchecked:
        what = "1 function has no checks" if len(report.unchecked) == 1 else f"{len(report.unchecked)} functions have no checks"
        console.line(f"{what}: {console.names([function.slug for function in report.unchecked])}", style="dim")
    if report.passed or report.failed:
        failed = f"{report.failed} failed, " if report.failed else ""
        console.line(f"{failed}{counted(report.passed, 'check')} passed.", style="bold")
    elif not report.problems:
        # Neither what did not change nor what cannot run here lacks checks.
        lacking = report.unchecked or not (report.untouched or report.results)
        todo = "; `checks` in the manifest say what a function must answer" if lacking else ""
        console.line(f"Nothing was tested{todo}.", style="bold")


def _document(report: _Report) -> dict[str, Json]:
    functions: list[Json] = []
    for result in report.results:
        checks: list[Json] = [
            {
                "name": check.name,
                "passed": check.error is None,
                "error": check.error,
                "duration_ms": round(check.seconds * 1000),
                "answer": None if check.answer is None else {"status": check.answer.status, "body": check.answer.body},
                "place": check.evidence.place,
                "console": [*check.evidence.console],
            }
            for check in result.checks
        ]
        functions.append({"slug": result.function.slug, "checks": checks, "skipped": result.skipped})
    problems: list[Json] = [problem_document(problem) for problem in report.problems]
    return {"passed": report.passed, "failed": report.failed, "functions": functions, "problems": problems}


def _as_problem(result: FunctionResult, check: CheckResult) -> Problem:
    """Return a failed check as a problem at the place that threw, else at the function's entry."""
    evidence = check.evidence
    where = result.function.entry.location if evidence.place is None else _location(evidence.place)
    text = "\n".join((f"{result.function.slug}: {check.name} failed: {check.error}", *evidence.console))
    return Problem("check-failed", text, where)


def _location(place: str) -> Location:
    file, line, column = place.rsplit(":", 2)
    return Location(file, int(line), int(column))


def _junit(report: _Report, since: str | None) -> str:
    """Return the results as JUnit's XML; each function that was not run says why."""
    invalid = [replace(each, skipped="a fixture of it is invalid") if each.problems else each for each in report.results]
    unchecked = [FunctionResult(function, skipped="it has no checks") for function in report.unchecked]
    untouched = [FunctionResult(function, skipped=f"it did not change since {since}") for function in report.untouched]
    return junit_document([*invalid, *unchecked, *untouched], report.problems)
