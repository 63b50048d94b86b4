"""Decides what a person does next after a plan or a report: one sentence, with a command that `advice` completes. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from kapso_sync.errors import ExitCode
from kapso_sync.model.plan import Blocked, Invalid, Plan, Step
from kapso_sync.model.report import Report, Result


def after_plan(plan: Plan) -> str | None:
    """Return what to do after a plan; None if nothing differs."""
    invalid = [step.slug for step in plan.steps if isinstance(step, Invalid)]
    blocked = [step for step in plan.steps if isinstance(step, Blocked)]
    needs_machine = [step.slug for step in plan.steps if isinstance(step, Invalid) and not in_git(step)]
    if invalid and len(needs_machine) == len(invalid):
        return f"follow the hint for {_named(invalid)}"
    if invalid:
        return f"fix {_named(invalid)} in git; `kapso-sync validate` checks it offline"
    if blocked:
        advice = _advice([step.slug for step in blocked], hints=any(step.hint for step in blocked))
        if all(step.max_delete is not None for step in blocked):
            return f"{advice}; `kapso-sync sync{_limit(blocked)}` does all of this"
        return f"{advice}; `kapso-sync sync` does the rest" if plan.changes else advice
    return "`kapso-sync sync` does this" if plan.changes else None


def after_sync(report: Report) -> str | None:
    """Return what to do after a pass that did not do everything; None after one that did."""
    if report.halted is not None:
        continues = "`kapso-sync sync` continues where this pass stopped"
        return continues if report.halted.exit_code is ExitCode.UNAVAILABLE else f"follow the hint, then {continues}"
    invalid = report.results(Result.INVALID)
    outside = [outcome.step.slug for outcome in invalid if isinstance(outcome.step, Invalid) and not in_git(outcome.step)]
    blocked = report.results(Result.BLOCKED)
    failed = [outcome for outcome in report.results(Result.FAILED) if not outcome.blameless]
    held = [outcome.step.slug for outcome in failed if outcome.quarantine is not None]
    if outside and len(outside) == len(invalid) + len(failed):
        return f"follow the hint for {_named(outside)}, then run `kapso-sync sync`"
    if invalid and not failed:
        return f"fix {_named([outcome.step.slug for outcome in invalid])} in git, then run `kapso-sync sync`"
    if held and len(held) == len(failed) and not invalid:
        retries = "".join(f" --retry {slug}" for slug in held)
        return f"fix {_named(held)} in git, or try the same code again with `kapso-sync sync{retries}`"
    if failed:
        both = [outcome.step.slug for outcome in (*invalid, *failed)]
        return f"fix {_named(both)} in git or on Kapso, then run `kapso-sync sync`"
    if report.results(Result.FAILED, Result.SKIPPED):
        return "`kapso-sync sync` tries what is left again"
    if blocked:
        advice = _advice([outcome.step.slug for outcome in blocked], hints=any(outcome.hint for outcome in blocked))
        return f"{advice}, then run `kapso-sync sync{_limit([outcome.step for outcome in blocked])}`"
    return None


def in_git(step: Invalid) -> bool:
    """Return whether a change in git mends an invalid function; a missing value or package is a matter of this machine."""
    return any(problem.code not in ("missing-secret", "package-missing", "package-unavailable") for problem in step.problems)


def _limit(steps: Sequence[Step]) -> str:
    """Return the flag that allows the deletions that the limit blocked, or nothing."""
    needed = max((step.max_delete for step in steps if isinstance(step, Blocked) and step.max_delete is not None), default=None)
    return "" if needed is None else f" --max-delete {needed}"


def _advice(slugs: Sequence[str], *, hints: bool) -> str:
    """Return what to do about blocked functions."""
    return f"follow the hint for {_named(slugs)}" if hints else f"decide about {_named(slugs)}"


def _named(slugs: Sequence[str]) -> str:
    """Return up to three names in backquotes, or the number of functions."""
    if len(slugs) > 3:
        return f"the {len(slugs)} functions"
    names = [f"`{slug}`" for slug in slugs]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
