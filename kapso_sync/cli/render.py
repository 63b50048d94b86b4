"""Prints a plan and a report for people: symbol, slug, reason, diff, summary, and warnings last."""

from __future__ import annotations

from collections.abc import Sequence

from kapso_sync.advice import Advise, as_it_is
from kapso_sync.cli.console import Console, whole
from kapso_sync.cli.grouping import common_text, group_by, shared_hints, split_place, without_slug
from kapso_sync.cli.next_step import after_plan, after_sync
from kapso_sync.cli.summary import cost, in_sync_summary, print_plan_heading
from kapso_sync.dataclass import dataclass
from kapso_sync.model.evidence import Evidence
from kapso_sync.model.functions import CODE
from kapso_sync.model.plan import Blocked, Create, DeferredDelete, Delete, Deploy, Invalid, NoChange, Plan, Step
from kapso_sync.model.report import Outcome, Report, Result
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


def print_plan(console: Console, plan: Plan, advise: Advise = as_it_is) -> None:
    """Print a plan: the action and the reasons for each function, then the summary, the warnings, and what to do next."""
    print_plan_heading(console, plan.source, plan.revision, plan.owner)
    deletions = [step for step in plan.steps if _deletes(step)]
    others = [step for step in plan.steps if not isinstance(step, NoChange) and not _deletes(step)]
    groups, last = group_by(others, _same_in_plan), group_by(deletions, _same_in_plan)
    shared = shared_hints(filter(_hint_of_steps, [*groups, *last]), _hint_of_steps)
    for group in groups:
        _print_steps(console, group, shared)
    if last:
        console.blank()
        console.line("Deletions, which are final and take the secrets along:", style="bold")
    for group in last:
        _print_steps(console, group, shared)
    console.blank()
    console.line(plan_summary(plan), style="bold")
    if plan.changes:
        console.line("Digest: ", whole(plan.digest), style="dim")
    _print_notices(console, plan)
    _print_end(console, shared, advise(after_plan(plan) or ""))


def _deletes(step: Step) -> bool:
    """Return whether a step deletes, would delete if it were allowed, or will delete after its grace period."""
    return isinstance(step, Delete | DeferredDelete) or (isinstance(step, Blocked) and step.wanted == "delete")


def _same_in_plan(step: Step) -> object:
    """Return what steps must have in common to be printed together; a difference that will be written stands alone."""
    if isinstance(step, Invalid) or (_shown_diff(step) and not isinstance(step, Blocked)):
        return step.slug
    texts = tuple(without_slug(text, step.slug) for text in (*step.reasons, step.hint))
    return type(step), step.deploys, texts, step.wanted if isinstance(step, Blocked) else ""


def _hint_of_steps(steps: Sequence[Step]) -> str:
    return common_text([step.hint for step in steps], steps[0].slug)


def _print_steps(console: Console, steps: Sequence[Step], shared: Sequence[str]) -> None:
    """Print steps that have everything but their functions in common."""
    step = steps[0]
    look = _LOOKS["later" if isinstance(step, DeferredDelete) else step.action]
    words = f"  {look.verb}"
    if step.deploys and not isinstance(step, Deploy):
        words += " and deploy"
    if isinstance(step, Blocked) and step.wanted:
        words += f" ({step.wanted})"
    console.blank()
    if len(steps) == 1:
        number = ("  ", whole(step.function_id, "dim")) if step.function_id else ()
        console.line((f"{look.symbol} {step.slug}", f"bold {look.style}"), words, *number)
    else:
        console.line((f"{look.symbol} {counted(len(steps), 'function')}", f"bold {look.style}"), words)
    for reasons in zip(*(each.reasons for each in steps), strict=True):
        console.line(common_text(reasons, step.slug), indent=4)
    hint = _hint_of_steps(steps)
    if hint and hint not in shared:
        console.hint(hint, indent=4)
    for each in steps:
        _print_details(console, each, alone=len(steps) == 1)


def _print_details(console: Console, step: Step, *, alone: bool) -> None:
    """Print what belongs to one function: its size, its difference or its mistakes; in a group also its name."""
    if isinstance(step, Invalid):
        _print_problems(console, step)
        return
    size = _size(step) if isinstance(step, Create | Delete | DeferredDelete) else ""
    if not alone:
        console.line((step.slug, "bold"), f"  {size or step.function_id or ''}", indent=4)
    elif size:
        console.line(size, style="dim", indent=4)
    print_diff(console, _shown_diff(step))


def _shown_diff(step: Step) -> str:
    """Return the difference that a plan shows; the size says enough of a function that is created or deleted."""
    action = step.wanted if isinstance(step, Blocked) else step.action
    return "" if action in ("create", "delete") or isinstance(step, DeferredDelete) else step.diff


def _print_problems(console: Console, step: Invalid) -> None:
    for problem in step.problems:
        for line in (problem.frame or "").splitlines():
            console.verbatim(line, "dim", indent=6)
        if problem.hint:
            console.hint(problem.hint, indent=4)


def _size(step: Create | Delete | DeferredDelete) -> str:
    if isinstance(step, Create):
        fields = ", ".join(name for name in step.fields if name != CODE)
        code = step.desired.code
        return f"{_lines(code)} from {step.file}" + (f"; sets {fields}" if fields else "")
    return f"{_lines(step.remote.code or '')}, saved first as backups/{copy_name(step.remote)}"


def _lines(code: str) -> str:
    count = code.count("\n") + (not code.endswith("\n") and bool(code))
    return f"{counted(count, 'line')} of code"


def print_diff(console: Console, diff: str) -> None:
    """Print a unified diff, a little indented."""
    for line in diff.split("\n")[:-1]:
        style = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1], "")
        console.verbatim(line, "dim" if line.startswith(("---", "+++")) else style, indent=4)


def plan_summary(plan: Plan) -> str:
    """Return one line: ``2 to create, 1 to update; 3 in sync``."""
    in_sync = plan.summary["none"] - sum(_left_git(step) for step in plan.steps)
    if plan.in_sync:
        return f"{in_sync_summary(in_sync)}{_outside_git(plan)}"
    counts = [
        f"{count} {'to ' + _LOOKS[action].verb if action not in ('blocked', 'invalid') else action}"
        for action, count in plan.summary.items()
        if count and action != "none"
    ]
    return f"{', '.join(counts)}; {in_sync} in sync.{_outside_git(plan)}"


def _left_git(step: Step) -> bool:
    """Return whether the step leaves a function as it is that git does not list."""
    return isinstance(step, NoChange) and not step.in_git


def _outside_git(plan: Plan) -> str:
    """Return a sentence about the functions that git does not list any more, or nothing."""
    waiting = len(plan.deferred_deletions)
    kept = sum(_left_git(step) for step in plan.steps) - waiting
    return "".join(
        f" {counted(count, 'function')} left git and {verb}."
        for count, verb in ((waiting, "will be deleted"), (kept, "is kept" if kept == 1 else "are kept"))
        if count
    )


def _print_notices(console: Console, plan: Plan) -> None:
    for notice in plan.notices:
        place = f"{notice.location}: " if notice.location else ""
        console.warning(f"{place}{notice.message}")


def _print_end(console: Console, hints: Sequence[str], following: str | None) -> None:
    for hint in hints:
        console.hint(hint)
    if following:
        console.line(("next: ", "bold"), following)


def print_report(console: Console, report: Report, advise: Advise = as_it_is) -> None:
    """Print a report: what changed, then what failed, then the summary, and after a failure what to do next.

    What several functions have in common is printed once, with their number and names.
    """
    outcomes = [outcome for outcome in report.outcomes if outcome.result is not Result.UNCHANGED]
    groups = group_by(sorted(outcomes, key=lambda outcome: outcome.result is not Result.DONE), _same_in_report)
    shared = shared_hints(filter(_hint_of_outcomes, groups), _hint_of_outcomes)
    for group in groups:
        if group[0].result is Result.DONE:
            _print_done(console, group, advise)
        else:
            _print_failed(console, group, shared)
    console.line(report_summary(report), style="bold")
    _print_notices(console, report.plan)
    if report.halted is not None:
        console.line(("stopped: ", "bold red"), report.halted.message)
    halted = () if report.halted is None or report.halted.hint is None else (report.halted.hint,)
    _print_end(console, [*shared, *halted], advise(after_sync(report) or ""))


def _same_in_report(outcome: Outcome) -> object:
    """Return what outcomes must have in common to be printed together."""
    step = outcome.step
    if outcome.result is Result.DONE:
        return step.action, outcome.deployed, () if isinstance(step, Create) else step.reasons
    _, message = split_place(outcome.error or "")
    return outcome.result, without_slug(message, step.slug), without_slug(outcome.hint, step.slug), outcome.evidence


def _hint_of_outcomes(outcomes: Sequence[Outcome]) -> str:
    return common_text([outcome.hint for outcome in outcomes], outcomes[0].step.slug)


def _print_done(console: Console, outcomes: Sequence[Outcome], advise: Advise) -> None:
    outcome = outcomes[0]
    step, look = outcome.step, _LOOKS[outcome.step.action]
    words = _DONE[step.action] + (", live" if outcome.deployed and not isinstance(step, Deploy) else "")
    _print_functions(console, f"{look.symbol} ", look.style, [each.step.slug for each in outcomes], words)
    for reason in () if isinstance(step, Create) else step.reasons:
        console.line(reason, indent=4)
    backups = [each.backup for each in outcomes if each.backup]
    if len(backups) == 1:
        console.line("previous version: ", whole(f"backups/{backups[0]}"), style="dim", indent=4)
    elif backups:
        where = f"previous versions are in backups/; `kapso-sync history {step.slug}` lists those of `{step.slug}`"
        console.line(advise(where), style="dim", indent=4)


def _print_failed(console: Console, outcomes: Sequence[Outcome], shared: Sequence[str]) -> None:
    outcome = outcomes[0]
    blocked = outcome.result is Result.BLOCKED
    words = "not tried" if outcome.result is Result.SKIPPED else str(outcome.result)
    names = [each.step.slug for each in outcomes]
    _print_functions(console, "! " if blocked else "x ", "magenta" if blocked else "red", names, words)
    if len(outcomes) == 1:
        error, places = outcome.error or "", list[str]()
    else:
        found = [split_place(each.error or "") for each in outcomes]
        error, places = (
            common_text([message for _, message in found], outcome.step.slug),
            [place for place, _ in found if place],
        )
    if error:
        console.line(error.removeprefix("not tried: "), indent=4)
    if places:
        console.line(f"at {console.names(places)}", indent=4)
    if outcome.evidence is not None:
        print_evidence(console, outcome.evidence, indent=4)
    hint = _hint_of_outcomes(outcomes)
    if hint and hint not in shared:
        console.hint(hint, indent=4)


def print_evidence(console: Console, evidence: Evidence, *, indent: int) -> None:
    """Print where code threw, and the last lines of its console."""
    if evidence.place is not None:
        console.line("thrown at ", whole(evidence.place), indent=indent)
    for line in evidence.console:
        console.verbatim(line, "dim", indent=indent + 2)


def _print_functions(console: Console, symbol: str, style: str, names: Sequence[str], words: str) -> None:
    """Print one function with its result, or the number of several, their result, and their names."""
    if len(names) == 1:
        console.line((f"{symbol}{names[0]}", style), f"  {words}")
    else:
        console.line((f"{symbol}{len(names)} {words}", style), f": {console.names(names)}", hang=4)


def report_summary(report: Report) -> str:
    """Return one line: the numbers of done and failed steps, of calls, and the seconds."""
    done = [(report.count(action), _DONE[action]) for action in ("create", "update", "rename", "adopt", "delete")]
    done.append((report.deployed, "deployed"))
    done.append((sum(outcome.step.in_git for outcome in report.results(Result.UNCHANGED)), "in sync"))
    done += [(len(report.results(result)), str(result)) for result in (Result.BLOCKED, Result.FAILED, Result.INVALID)]
    done.append((len(report.results(Result.SKIPPED)), "not tried"))
    words = ", ".join(f"{count} {word}" for count, word in done if count) or "nothing to do"
    return f"{words}.{_outside_git(report.plan)} {cost(report.api_calls, report.seconds)}"
