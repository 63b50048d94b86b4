"""Prints a plan and a report for people: symbol, slug, reason, diff, summary, and warnings last."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

from kapso_sync.model.functions import CODE
from kapso_sync.model.plan import Blocked, Create, DeferredDelete, Delete, Deploy, Invalid, NoChange, Plan, Step
from kapso_sync.model.report import Outcome, Report, Result
from kapso_sync.model.source import Revision
from kapso_sync.plurals import counted
from kapso_sync.store.backups import copy_name


@dataclass(frozen=True, slots=True)
class _Look:
    symbol: str
    style: str
    verb: str


_LOOKS = {
    "create": _Look("+", "green", "create"),
    "update": _Look("~", "yellow", "update"),
    "rename": _Look("~", "yellow", "rename"),
    "adopt": _Look("=", "cyan", "adopt"),
    "deploy": _Look("^", "cyan", "deploy"),
    "delete": _Look("-", "red", "delete"),
    "blocked": _Look("!", "magenta", "blocked"),
    "invalid": _Look("x", "red", "invalid"),
    "later": _Look("-", "yellow", "delete later"),
    "none": _Look(" ", "dim", "in sync"),
}

_DONE = {
    "create": "created",
    "update": "updated",
    "rename": "renamed",
    "adopt": "adopted",
    "deploy": "deployed",
    "delete": "deleted",
    "blocked": "blocked",
    "invalid": "invalid",
    "none": "in sync",
}


def console() -> Console:
    """Return the console on stdout that reports are printed to: no wrapping, no markup, colour only on a terminal."""
    return Console(highlight=False, soft_wrap=True, emoji=False, markup=False)


def print_plan(console: Console, plan: Plan) -> None:
    """Print a plan: the action and the reasons for each function, then the summary, then the warnings."""
    console.print(_heading(plan))
    for step in plan.steps:
        if not isinstance(step, NoChange) and not _deletes(step):
            _print_step(console, step)
    deletions = [step for step in plan.steps if _deletes(step)]
    if deletions:
        console.print(Text("\nDeletions, for ever and with all secrets:", style="bold"))
    for step in deletions:
        _print_step(console, step)
    console.print()
    console.print(Text(plan_summary(plan), style="bold"))
    if plan.changes:
        console.print(Text(f"Digest: {plan.digest}", style="dim"))
    _print_notices(console, plan)


def _deletes(step: Step) -> bool:
    """Return whether a step deletes, would delete if it were allowed, or will delete after its grace period."""
    return isinstance(step, Delete | DeferredDelete) or (isinstance(step, Blocked) and step.wanted == "delete")


def _heading(plan: Plan) -> Text:
    revision = plan.revision
    text = Text.assemble(("Plan", "bold"), f" for {plan.source} at {revision_line(revision)}")
    text.append(f"\nOwner {plan.owner}", style="dim")
    return text


def revision_line(revision: Revision) -> str:
    """Return a revision in a few words: ``4f1c2ab “Add greeting” by Ada``, or a folder's digest."""
    parts = [revision.short]
    if revision.described:
        parts.append(f"({revision.described})")
    if revision.subject:
        parts.append(f"“{revision.subject}”")
    if revision.author:
        parts.append(f"by {revision.author}")
    return " ".join(parts)


def _print_step(console: Console, step: Step) -> None:
    look = _LOOKS["later" if isinstance(step, DeferredDelete) else step.action]
    console.print()
    line = Text.assemble((f"{look.symbol} {step.slug}", f"bold {look.style}"), f"  {look.verb}")
    if step.deploys and not isinstance(step, Deploy):
        line.append(" and deploy")
    if isinstance(step, Blocked) and step.wanted:
        line.append(f" ({step.wanted})")
    if step.function_id:
        line.append(f"  {step.function_id}", style="dim")
    console.print(line)
    for reason in step.explanation:
        console.print(Text(f"    {reason}"))
    if isinstance(step, Invalid):
        _print_problems(console, step)
    elif isinstance(step, Create | Delete | DeferredDelete):
        console.print(Text(f"    {_size(step)}", style="dim"))
    elif step.diff and not (isinstance(step, Blocked) and step.wanted in ("create", "delete")):
        print_diff(console, step.diff)


def _print_problems(console: Console, step: Invalid) -> None:
    for problem in step.problems:
        for line in (problem.frame or "").splitlines():
            console.print(Text(f"      {line}", style="dim"))
        if problem.hint:
            console.print(Text(f"    hint: {problem.hint}", style="dim"))


def _size(step: Create | Delete | DeferredDelete) -> str:
    if isinstance(step, Create):
        fields = ", ".join(name for name in step.fields if name != CODE)
        code = step.desired.code
        return f"{_lines(code)} from {step.file}" + (f"; sets {fields}" if fields else "")
    return f"{_lines(step.remote.code or '')}, saved first as backups/{copy_name(step.remote)}"


def _lines(code: str) -> str:
    count = code.count("\n") + (not code.endswith("\n") and bool(code))
    return f"{counted(count, 'line')} of code"


def _diff_lines(diff: str) -> Iterator[Text]:
    for line in diff.split("\n")[:-1]:
        style = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1], "")
        yield Text(f"    {visible(line)}", style="dim" if line.startswith(("---", "+++")) else style)


def print_diff(console: Console, diff: str) -> None:
    """Print a unified diff, a little indented."""
    for line in _diff_lines(diff):
        console.print(line)


def visible(text: str) -> str:
    """Return text with control characters spelled out, so that foreign code cannot control the terminal."""
    return "".join(char if (char >= " " and char not in "\x7f\x9b") or char == "\t" else repr(char)[1:-1] for char in text)


def plan_summary(plan: Plan) -> str:
    """Return one line: ``2 to create, 1 to update; 3 in sync``."""
    waiting = len(plan.deferred_deletions)
    kept = sum(isinstance(step, NoChange) and step.desired_hash is None for step in plan.steps) - waiting
    in_sync = plan.summary["none"] - waiting - kept
    outside = "".join(
        f" {counted(count, 'function')} left git and {verb}."
        for count, verb in ((waiting, "will be deleted"), (kept, "is kept" if kept == 1 else "are kept"))
        if count
    )
    if plan.in_sync:
        return f"In sync: {counted(in_sync, 'function')}, nothing to do.{outside}"
    counts = [
        f"{count} {'to ' + _LOOKS[action].verb if action not in ('blocked', 'invalid') else action}"
        for action, count in plan.summary.items()
        if count and action != "none"
    ]
    return f"{', '.join(counts)}; {in_sync} in sync.{outside}"


def _print_notices(console: Console, plan: Plan) -> None:
    for notice in plan.notices:
        place = f"{notice.location}: " if notice.location else ""
        console.print(Text.assemble(("warning: ", "yellow"), f"{place}{notice.message}"))


def print_report(console: Console, report: Report) -> None:
    """Print the report of a plan: a line for each function that changed or failed, then the summary."""
    for outcome in report.outcomes:
        if outcome.result is not Result.UNCHANGED:
            _print_outcome(console, outcome)
    console.print(Text(report_summary(report), style="bold"))
    _print_notices(console, report.plan)
    if report.halted is not None:
        console.print(Text.assemble(("stopped: ", "red"), report.halted.message))
        if report.halted.hint:
            console.print(Text(f"hint: {report.halted.hint}", style="dim"))


def _print_outcome(console: Console, outcome: Outcome) -> None:
    step, look = outcome.step, _LOOKS[outcome.step.action]
    if outcome.result is Result.DONE:
        words = _DONE[step.action] + (", live" if outcome.deployed and not isinstance(step, Deploy) else "")
        console.print(Text.assemble((f"{look.symbol} {step.slug}", look.style), f"  {words}"))
        for reason in () if isinstance(step, Create) else step.reasons:
            console.print(Text(f"    {reason}"))
        if outcome.backup:
            console.print(Text(f"    previous version: backups/{outcome.backup}", style="dim"))
        return
    word = {Result.FAILED: "failed", Result.SKIPPED: "not tried"}.get(outcome.result, str(outcome.result))
    console.print(Text.assemble((f"{'x' if outcome.result is not Result.BLOCKED else '!'} {step.slug}", "red"), f"  {word}"))
    for line in (outcome.error, outcome.hint):
        if line:
            console.print(Text(f"    {line}"))


def report_summary(report: Report) -> str:
    """Return one line: the numbers of done and failed steps, of calls, and the seconds."""
    done = [(report.count(action), _DONE[action]) for action in ("create", "update", "rename", "adopt", "delete")]
    done.append((report.deployed, "deployed"))
    done.append((len(report.results(Result.UNCHANGED)), "in sync"))
    done.append((len(report.results(Result.BLOCKED)), "blocked"))
    done.append((report.failed, "failed"))
    words = ", ".join(f"{count} {word}" for count, word in done if count) or "nothing to do"
    return f"{words}. {counted(report.api_calls, 'API call')}, {report.seconds:.1f} s."
