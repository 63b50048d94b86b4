"""Writes the results of `test` as JUnit's XML, which has no standard: all readers know suites, cases, failures and skips."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Sequence

from kapso_sync.cli.check_bench import CheckResult, FunctionResult
from kapso_sync.dataclass import dataclass
from kapso_sync.errors import Problem
from kapso_sync.visible import visible


@dataclass(frozen=True, slots=True)
class _Counts:
    """Numbers of cases: all of them, and those that failed, that are errors of the source, and that were skipped."""

    tests: int = 0
    failures: int = 0
    errors: int = 0
    skipped: int = 0

    def __add__(self, other: _Counts) -> _Counts:
        return _Counts(
            self.tests + other.tests,
            self.failures + other.failures,
            self.errors + other.errors,
            self.skipped + other.skipped,
        )

    def __str__(self) -> str:
        return f'tests="{self.tests}" failures="{self.failures}" errors="{self.errors}" skipped="{self.skipped}"'


def junit_document(results: Iterable[FunctionResult], problems: Sequence[Problem]) -> str:
    """Return the document: a suite for each function, in order of slugs, and one for the problems of the source."""
    suites, total = "", _Counts()
    for result in sorted(results, key=lambda result: result.function.slug):
        counts = _counts(result)
        suites += _suite(result.function.slug, counts, _cases(result))
        total += counts
    if problems:
        counts = _Counts(len(problems), errors=len(problems))
        suites += _suite("source", counts, map(_error, problems))
        total += counts
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<testsuites name="kapso-sync" {total}>\n{suites}</testsuites>\n'


def _counts(result: FunctionResult) -> _Counts:
    if result.skipped is not None:
        names = _skipped(result)
        return _Counts(len(names), skipped=len(names))
    return _Counts(len(result.checks), failures=len(result.failed))


def _suite(name: str, counts: _Counts, cases: Iterable[str]) -> str:
    return f'<testsuite name="{name}" {counts}>{"".join(cases)}</testsuite>\n'


def _cases(result: FunctionResult) -> Iterator[str]:
    slug = result.function.slug
    if result.skipped is not None:
        for name in _skipped(result):
            yield f'<testcase classname="{slug}" name="{name}"><skipped message="{_xml(result.skipped)}"/></testcase>'
        return
    for check in result.checks:
        head = f'<testcase classname="{slug}" name="{check.name}" time="{check.seconds:.3f}"'
        yield f"{head}/>" if check.error is None else f"{head}>{_failure(check, check.error)}</testcase>"


def _skipped(result: FunctionResult) -> Sequence[str]:
    """Return the names of the cases of a function that was not run; one without checks has one all the same."""
    return [f"check {number}" for number, _ in enumerate(result.function.entry.checks, 1)] or ["checks"]


def _failure(check: CheckResult, error: str) -> str:
    place = f"thrown at {check.evidence.place}" if check.evidence.place else ""
    body = _xml("\n".join(filter(None, (place, *check.evidence.console))))
    return f'<failure message="{_xml(error)}">{body}</failure>'


def _error(problem: Problem) -> str:
    return f'<testcase classname="source" name="{_xml(problem.code)}"><error message="{_xml(str(problem))}"/></testcase>'


def _xml(text: str) -> str:
    return html.escape("\n".join(map(visible, text.split("\n"))))
