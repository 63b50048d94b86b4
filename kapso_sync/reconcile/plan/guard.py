"""Guards a plan: blocks deletions and recreations that look like a disaster, before anything is written. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from kapso_sync.dataclass import dataclass
from kapso_sync.errors import EmptySource
from kapso_sync.model.plan import Blocked, BlockedBy, Create, DeferredDelete, Delete, Invalid, Plan, Step, block
from kapso_sync.model.policies import MaxDelete
from kapso_sync.model.state import MissingFunction
from kapso_sync.reconcile.plan.deletion_grace import suspected_rename, suspected_rename_hint
from kapso_sync.reconcile.plan.function_usage import FunctionUsage, reason_against_deletion


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one pass.

    ``max_delete`` limits recreations of vanished functions as well. ``grace`` is how long, in seconds, a function must be
    missing from git before it is deleted; ``idle`` is how long it must not have been invoked.
    """

    max_delete: MaxDelete
    allow_empty: bool = False
    allow_recreate: bool = False
    grace: float = 0.0
    idle: float = 0.0


@dataclass(frozen=True, slots=True)
class Guarded:
    """The plan with dangerous steps blocked, and the blocked steps in groups, for the log."""

    plan: Plan
    held: tuple[HeldDeletions, ...] = ()


@dataclass(frozen=True, slots=True)
class HeldDeletions:
    """Steps that were blocked together: the reason, the setting that allows them, and its value if it is ``max_delete``."""

    slugs: tuple[str, ...]
    reason: str
    hint: str
    max_delete: int | None = None


def guard(plan: Plan, limits: Limits) -> Guarded:
    """Return the plan with unsafe steps blocked.

    Raises `EmptySource` when git lists no function at all and that is not allowed.
    """
    if not limits.allow_empty and not any(step.in_git for step in plan.steps):
        raise EmptySource(
            "the source lists no function at all",
            hint="if that is meant, --allow-empty or KAPSO_SYNC_ALLOW_EMPTY=true allows it; else look at --path and manifest",
        )
    held = [*(_too_many_deletions(plan, limits) or _possible_renames(plan) or _misnamed(plan))]
    held += _too_many_recreations(plan, limits)
    held += _suspected_renames(plan, {slug for item in held for slug in item.slugs})
    verdicts = {slug: item for item in held for slug in item.slugs}
    steps = tuple(_held(step, verdicts[step.slug]) if step.slug in verdicts else step for step in plan.steps)
    return Guarded(replace(plan, steps=_postpone(steps, plan, limits.grace)), tuple(held))


def block_used_deletions(guarded: Guarded, usages: Mapping[str, FunctionUsage], now: datetime, idle: float) -> Guarded:
    """Block the deletions of functions that are used, or that may be used, each with its reason."""
    held = []
    for step in guarded.plan.steps:
        usage = usages.get(step.function_id or "") if isinstance(step, Delete) else None
        against = reason_against_deletion(step, usage, now, idle) if isinstance(step, Delete) and usage is not None else None
        if against is not None:
            held.append(HeldDeletions((step.slug,), *against))
    by_slug = {item.slugs[0]: item for item in held}
    steps = tuple(_held(step, by_slug[step.slug]) if step.slug in by_slug else step for step in guarded.plan.steps)
    return Guarded(replace(guarded.plan, steps=steps), (*guarded.held, *held))


def _held(step: Step, held: HeldDeletions) -> Blocked:
    return replace(block(step, BlockedBy.DELETION, held.reason, held.hint), max_delete=held.max_delete)


def _too_many_deletions(plan: Plan, limits: Limits) -> list[HeldDeletions]:
    doomed = [step.slug for step in plan.steps if isinstance(step, Delete)]
    allowed = limits.max_delete.limit(plan.owned)
    if len(doomed) <= allowed:
        return []
    return [
        HeldDeletions(
            tuple(doomed),
            f"{len(doomed)} of {plan.owned} owned functions would be deleted, and one pass may delete {allowed}",
            f"if that is meant, --max-delete {len(doomed)} or KAPSO_SYNC_MAX_DELETE={len(doomed)} allows it"
            f" (now {limits.max_delete})",
            max_delete=len(doomed),
        )
    ]


def _too_many_recreations(plan: Plan, limits: Limits) -> list[HeldDeletions]:
    vanished = [step.slug for step in plan.steps if isinstance(step, Create) and step.recreate]
    allowed = limits.max_delete.limit(plan.owned)
    if limits.allow_recreate or len(vanished) <= allowed:
        return []
    return [
        HeldDeletions(
            tuple(vanished),
            f"{len(vanished)} of {plan.owned} owned functions are gone from Kapso, {allowed} may be recreated in one pass",
            "if they were really deleted, `kapso-sync sync --allow-recreate` creates them again, under new ids",
        )
    ]


def _possible_renames(plan: Plan) -> list[HeldDeletions]:
    """Block deletions while a new function is unusable: it may be one of the deleted ones under a new slug."""
    doomed = tuple(step.slug for step in plan.steps if isinstance(step, Delete))
    unclear = [step.slug for step in plan.steps if isinstance(step, Invalid | Blocked) and step.function_id is None]
    if not doomed or not unclear:
        return []
    names = ", ".join(f"`{slug}`" for slug in unclear[:3])
    return [
        HeldDeletions(
            doomed,
            f"deletions wait while {names} cannot be used: it may be the same function under a new name",
            f"fix {names} in git first",
        )
    ]


def _misnamed(plan: Plan) -> list[HeldDeletions]:
    """Block deletions while a file that may declare one of the functions is not read, because its name is not quite right."""
    doomed = tuple(step.slug for step in plan.steps if isinstance(step, Delete) and not step.confirmed)
    if not doomed or not plan.misnamed:
        return []
    return [
        HeldDeletions(
            doomed,
            f"deletions wait, since {plan.misnamed[0]}",
            "give the file its right name, or remove it from git",
        )
    ]


def _suspected_renames(plan: Plan, held: set[str]) -> list[HeldDeletions]:
    """Block the deletion of a function that looks like a new one, until a person says whether it was renamed."""
    confirmed = {step.slug for step in plan.steps if isinstance(step, Delete) and step.confirmed}
    doomed = {step.function_id for step in plan.steps if isinstance(step, Delete)}
    return [
        HeldDeletions(
            (absence.slug,),
            suspected_rename(absence),
            f"{suspected_rename_hint(absence)}, or `kapso-sync sync --delete {absence.slug}`",
        )
        for absence in plan.missing
        if absence.suspects and absence.function_id in doomed and absence.slug not in held | confirmed
    ]


def _postpone(steps: Sequence[Step], plan: Plan, grace: float) -> tuple[Step, ...]:
    """Return the steps with the deletions deferred that are within their grace period."""
    missing = {absence.function_id: absence for absence in plan.missing}
    return tuple(
        _later(step, missing[step.remote.id], grace)
        if isinstance(step, Delete) and not step.confirmed and missing[step.remote.id].seconds < grace
        else step
        for step in steps
    )


def _later(step: Delete, absence: MissingFunction, grace: float) -> DeferredDelete | Delete:
    if absence.since is None:
        raise AssertionError(absence)
    at = absence.since + timedelta(seconds=grace)
    return DeferredDelete(
        slug=step.slug,
        function_id=step.function_id,
        reasons=(f"it is ours and left git: the first pass after {at:%Y-%m-%dT%H:%M:%SZ} deletes it, unless it comes back",),
        remote_hash=step.remote_hash,
        remote=step.remote,
        at=at,
        seconds=grace - absence.seconds,
    )


def select(plan: Plan, only: Sequence[str]) -> Plan:
    """Return the plan of the named slugs only; without names, the whole plan."""
    if not only:
        return plan
    return replace(plan, steps=tuple(step for step in plan.steps if step.slug in only), forget=())
