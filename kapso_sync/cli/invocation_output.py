"""Prints what a function answered when it ran locally, and what it logged."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from rich.console import Console
from rich.text import Text

from kapso_sync.cli.render import visible
from kapso_sync.errors import Problem

MAX_BODY = 4000
MAX_LINE = 160
CONTEXT = 2
"""Lines of code shown before the one that is meant."""

_LEVELS = {"error": "red", "warn": "yellow", "debug": "dim", "trace": "dim"}


@dataclass(frozen=True, slots=True)
class InvocationResult:
    """One answer. ``lines`` are what went to the console, by level; ``code`` is what ran."""

    slug: str
    status: int
    content_type: str
    body: bytes = field(repr=False)
    seconds: float
    lines: tuple[tuple[str, str], ...]
    code: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class DidNotStart:
    """Code that the runtime refused, and its words."""

    slug: str
    failure: str
    code: str = field(repr=False)


def show_answer(console: Console, answered: InvocationResult) -> None:
    """Print status, type and time, the console's lines, and the body; for an exception the place in the code."""
    good = answered.status < 400
    head = Text.assemble(("\n" + answered.slug, "bold"), "  ", (str(answered.status), "green" if good else "bold red"))
    kind = answered.content_type.partition(";")[0]
    head.append(f"  {kind + '  ' if kind else ''}{answered.seconds * 1000:.0f} ms", style="dim")
    console.print(head)
    for level, text in answered.lines:
        first, *rest = visible_block(text)
        for label, line in ((level, first), *(("", line) for line in rest)):
            console.print(Text(f"  {label:<5} {line}", style=_LEVELS.get(level, "")))
    thrown = next((text for level, text in reversed(answered.lines) if level == "error"), "") if answered.status == 500 else ""
    _show_frame(console, answered.slug, thrown, answered.code)
    for line in _body(answered):
        console.print(Text(f"  {line}"))


def show_failure(console: Console, failed: DidNotStart) -> None:
    """Print why code did not start, and the place in it."""
    console.print(Text.assemble(("\n" + failed.slug, "bold"), "  ", ("does not start", "bold red")))
    for line in visible_block(failed.failure):
        console.print(Text(f"  {line}"))
    _show_frame(console, failed.slug, failed.failure, failed.code)


def show_problem(console: Console, problem: Problem) -> None:
    """Print what is wrong with a file, its line, and what to do."""
    console.print(Text.assemble("\n", ("error: ", "bold red"), visible(str(problem))))
    for line in (problem.frame or "").splitlines():
        console.print(Text(f"  {visible(line)}"))
    if problem.hint:
        console.print(Text(f"hint: {problem.hint}", style="dim"))


def visible_block(text: str) -> list[str]:
    """Return the lines of a text from anywhere, harmless to the terminal; at least one."""
    return [visible(line) for line in text.splitlines()] or [""]


def _show_frame(console: Console, slug: str, words: str, code: str) -> None:
    for line in _frame(slug, words, code):
        console.print(Text(f"  {line}", style="dim"))


def _frame(slug: str, words: str, code: str) -> Iterator[str]:
    """Yield the lines of code around the first place in it that an error names, and a mark below the column."""
    place = re.search(rf"{re.escape(slug)}\.js:(\d+):(\d+)", words)
    lines = code.splitlines()
    if place is None or not 0 < int(place[1]) <= len(lines):
        return
    last, column = int(place[1]), int(place[2])
    for number in range(max(1, last - CONTEXT), last + 1):
        yield f"{number:>4} | {visible(lines[number - 1][:MAX_LINE])}".rstrip()
    if column <= MAX_LINE:
        yield " " * (7 + column - 1) + "^"


def _body(answered: InvocationResult) -> list[str]:
    kind = answered.content_type.partition(";")[0].strip()
    try:
        text = answered.body.decode("utf-8")
    except UnicodeDecodeError:
        return [f"({len(answered.body)} bytes of {kind or 'something that is not text'})"]
    if kind.endswith("json"):
        with contextlib.suppress(ValueError, RecursionError):
            text = json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    lines = visible_block(text[:MAX_BODY]) if text else ["(empty)"]
    return [*lines, f"… and {len(text) - MAX_BODY} characters more"] if len(text) > MAX_BODY else lines
