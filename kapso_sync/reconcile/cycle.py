"""One reconcile pass: fetch, build, observe, plan, guard, execute.

The commands and the daemon call `reconcile` or `plan_pass`; they do not repeat these steps.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Collection
from dataclasses import field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

from kapso_sync.aio import in_slices
from kapso_sync.closest import closest
from kapso_sync.dataclass import dataclass
from kapso_sync.errors import (
    ApiUnauthorized,
    KapsoSyncError,
    ManifestInvalid,
    NotLeading,
    PlanChanged,
    SourceUnverified,
    UsageError,
)
from kapso_sync.model import events
from kapso_sync.model.clock import Clock
from kapso_sync.model.desired import Desired
from kapso_sync.model.plan import Delete, NoChange, Plan, Policy
from kapso_sync.model.policies import PassOverrides
from kapso_sync.model.ports import FunctionsApi, Source
from kapso_sync.model.report import Report, Result
from kapso_sync.model.settled import SettledPass
from kapso_sync.model.source import Snapshot
from kapso_sync.model.state import ReconcilerState
from kapso_sync.reconcile.apply.function_users import look_up_usage
from kapso_sync.reconcile.observe import EarlierList, ListAhead, list_secrets_before, observe
from kapso_sync.reconcile.plan.deletion_grace import Timestamps, defer_deletions
from kapso_sync.reconcile.plan.guard import Guarded, Limits, block_used_deletions, guard, select
from kapso_sync.reconcile.plan.observed import Observed
from kapso_sync.reconcile.plan.planner import plan_in_slices, replan
from kapso_sync.reconcile.plan.settled import SettledSteps, settled_pass
from kapso_sync.reconcile.plan.warnings import rename_notices

if TYPE_CHECKING:
    from kapso_sync.reconcile.apply.executor import Executor, Replan  # a plan needs nothing that writes

MAX_LISTED = 20
"""Maximum number of slugs that a hint lists."""


class Build(Protocol):
    """Makes desired functions from files."""

    async def __call__(self, snapshot: Snapshot, state: ReconcilerState, on_manifest: Callable[[], None] = ..., /) -> Desired:
        """Return them; raises `InvalidSource` when nothing can be planned from the files.

        ``on_manifest`` is called once that is out of the question.
        """
        ...


@dataclass(frozen=True, slots=True)
class PassRequest:
    """Options of one pass.

    ``trigger`` names the person or program that asked for the pass. ``only`` limits the pass to these slugs. ``expect`` is the
    digest that the plan must have. ``overrides`` is what a person allows for this pass. ``filter_plan`` is a pure function that
    may block steps. ``on_read`` is called once with what was read of the source, and ``on_planned`` with the plan that will be
    carried out. ``earlier`` is what was asked of Kapso before the pass, and with ``recognisable`` the report says if the next
    pass need not be made. Set ``superseded`` when a newer revision is known: then the pass starts nothing new and does not wait
    for deployments.
    """

    trigger: str = "sync"
    only: tuple[str, ...] = ()
    expect: str | None = None
    overrides: PassOverrides = field(default_factory=PassOverrides)
    filter_plan: Callable[[Plan], Plan] = lambda plan: plan
    on_read: Callable[[Snapshot], None] = lambda _: None
    on_planned: Callable[[Plan], None] = lambda _: None
    superseded: asyncio.Event = field(default_factory=asyncio.Event)
    earlier: EarlierList = field(default_factory=EarlierList)
    recognisable: bool = False


@dataclass(frozen=True, slots=True)
class PassDeps:
    """Everything that a pass works with.

    ``load_state`` returns the content of the state folder. ``session`` identifies this process: monotonic times are compared
    only within one session. ``term`` returns the term of leadership, and ``max_gap`` is as in `Timestamps`. ``settled`` are the
    steps that the next pass of this process may use again; None: there is none.
    """

    source: Source
    build: Build
    api: FunctionsApi
    load_state: Callable[[], ReconcilerState]
    policy: Policy
    limits: Limits
    clock: Clock
    emit: events.Listener = field(repr=False)
    session: str = ""
    term: Callable[[], str] = lambda: ""
    max_gap: timedelta | None = None
    settled: SettledSteps | None = None


@dataclass(frozen=True, slots=True)
class PlannedPass:
    """A plan, the observation of Kapso that it was made from, and a function that plans one function again.

    ``settled`` is as in `Report`.
    """

    guarded: Guarded
    observed: Observed
    replan: Replan
    settled: SettledPass | None = None


async def reconcile(deps: PassDeps, executor: Executor, request: PassRequest) -> Report:
    """Bring Kapso to the state that git describes, and return a report.

    Raises `KapsoSyncError` when nothing could be planned; then nothing was written. Success and failure are both reported as
    events, but not `NotLeading`.
    """
    deps.emit(events.ReconcileStarted(trigger=request.trigger))
    started, calls = deps.clock.monotonic(), deps.api.calls
    try:
        planned = await plan_pass(deps, request)
        report = await executor.execute(planned.guarded.plan, planned.observed, request.superseded, planned.replan)
    except NotLeading:
        raise  # no failure: the leader continues
    except KapsoSyncError as error:
        emit_failure(deps.emit, error)
        raise
    seconds = deps.clock.monotonic() - started
    made = deps.api.calls - calls + request.earlier.calls
    report = replace(report, api_calls=made, seconds=seconds, settled=planned.settled)
    emit_report(deps.emit, report)
    return report


async def _read_source(deps: PassDeps, ahead: ListAhead) -> Snapshot:
    try:
        return await deps.source.fetch(ahead.begin)
    except KapsoSyncError as error:
        emit_source_failure(deps.emit, error)
        raise


async def plan_pass(deps: PassDeps, request: PassRequest) -> PlannedPass:
    """Return the plan of a pass, guarded and narrowed to the request; writes nothing."""
    policy = deps.policy.overridden(request.overrides)
    limits = replace(deps.limits, allow_recreate=deps.limits.allow_recreate or request.overrides.allow_recreate)
    _check_only(request, policy)
    for event in request.earlier.happened:
        deps.emit(event)
    async with ListAhead(deps.api, deps.clock, request.earlier) as ahead:
        snapshot = await _read_source(deps, ahead)
        request.on_read(snapshot)
        state = deps.load_state()
        desired = await deps.build(snapshot, state, ahead.begin)
        digest = snapshot.digest if request.recognisable else ""
        del snapshot  # its files take as much memory as the code that was made from them
        now, recreate = deps.clock.now(), limits.allow_recreate
        observed = await observe(deps.api, state, desired, policy.owner, now, ahead=ahead, allow_recreate=recreate)
    plan = await in_slices(plan_in_slices(desired, observed, policy, deps.settled))
    known = await list_secrets_before(deps.api, observed, plan, deps.clock.now())
    if known.secrets != observed.secrets:
        observed, plan = known, await in_slices(plan_in_slices(desired, known, policy, deps.settled))
    plan = replace(plan, notices=(*plan.notices, *rename_notices(desired, observed)))
    moment = Timestamps(deps.clock.now(), deps.clock.monotonic(), deps.session, deps.term(), deps.max_gap)
    plan = defer_deletions(plan, state.missing, moment)
    guarded = guard(plan, limits)
    upcoming = {function.slug: function.code for function in desired.functions}
    deletions: tuple[Delete, ...] = ()
    while guarded.plan.deletions != deletions:
        # A function whose deletion is blocked stays, so what its code uses stays as well: repeated until nothing changes.
        deletions = guarded.plan.deletions
        usages = await look_up_usage(deps.api, observed, deletions, limits.idle, upcoming)
        guarded = block_used_deletions(guarded, usages, deps.clock.now(), limits.idle)
    await asyncio.sleep(0)  # each half of this takes some milliseconds for a thousand functions
    narrowed = Guarded(_narrow(request.filter_plan(guarded.plan), request), guarded.held)
    _check_named_deletions(guarded.plan, policy)
    _check_named_owners(observed, policy)
    emit_plan(deps.emit, narrowed)
    request.on_planned(narrowed.plan)
    again = functools.partial(replan, desired, observed, policy)
    if not request.recognisable or deps.settled is None or policy != deps.policy or request.only or narrowed.held:
        return PlannedPass(narrowed, observed, again)
    return PlannedPass(narrowed, observed, again, settled_pass(deps.settled, narrowed.plan, desired, observed, digest))


def _check_only(request: PassRequest, policy: Policy) -> None:
    """Raise `UsageError` if a person named a function in an option but ``--only`` leaves it out."""
    named = {*policy.retry, *policy.delete, *policy.overwrite}
    for slug in sorted(named - set(request.only) if request.only else ()):
        raise UsageError(f"`{slug}` is named, and --only leaves it out", hint=f"add --only {slug}, or leave --only out")


def _check_named_deletions(plan: Plan, policy: Policy) -> None:
    """Raise `UsageError` if ``--delete`` names a function that git lists or that we do not own."""
    ours = {absence.slug for absence in plan.missing}
    for slug in sorted(policy.delete - ours):
        listed = any(step.slug == slug for step in plan.steps)
        raise UsageError(
            f"--delete {slug}: " + ("git lists it" if listed else "no function of ours has this slug"),
            hint="remove it from git first" if listed else "`kapso-sync plan` lists what left git",
        )


def _check_named_owners(observed: Observed, policy: Policy) -> None:
    """Raise `UsageError` if ``--take-from`` names an owner that no function on Kapso has, and that is not ourselves."""
    there = {mark.owner for remote in observed.functions for mark in remote.marks}
    unknown = sorted(owner for owner in policy.take_from - there if not observed.is_our_name(owner))
    if unknown:
        others = sorted(owner for owner in there if not observed.is_our_name(owner))
        listed = f"others are: {', '.join(others[:MAX_LISTED])}{', …' if len(others) > MAX_LISTED else ''}"
        raise UsageError(
            f"--take-from {unknown[0]}: no function on Kapso has this owner",
            hint=listed if others else "none there has another owner than this one",
        )


def _narrow(plan: Plan, request: PassRequest) -> Plan:
    known = {step.slug for step in plan.steps}
    named = (*request.only, *sorted(request.overrides.retry | request.overrides.overwrite))
    unknown = [slug for slug in dict.fromkeys(named) if slug not in known]
    if unknown:
        raise UsageError(f"unknown slug: {', '.join(unknown)}", hint=_known_slugs(unknown[0], known))
    plan = select(plan, request.only)
    if request.expect is not None and request.expect != plan.digest:
        raise PlanChanged(
            f"the plan is {plan.digest} now, not {request.expect}: git or Kapso changed since it was read",
            hint="read the new plan with `kapso-sync plan`, then pass its digest",
        )
    return plan


def _known_slugs(unknown: str, known: Collection[str]) -> str:
    """Return the slug that was probably meant, or the first ones of all."""
    close = closest(unknown, known)
    listed = ", ".join(sorted(known)[:MAX_LISTED])
    return f"did you mean `{close}`?" if close else f"known are: {listed}{', …' if len(known) > MAX_LISTED else ''}"


def emit_plan(emit: events.Listener, guarded: Guarded) -> None:
    """Report the steps of a plan, its warnings, and the steps that the guard held back."""
    plan = guarded.plan
    changed = tuple(
        {"slug": step.slug, "action": step.action, "origin": str(step.origin) if step.origin else None, "fields": step.fields}
        for step in plan.steps
        if not isinstance(step, NoChange)
    )
    emit(events.PlanComputed(summary=plan.summary, functions=changed))
    for notice in plan.notices:
        location = str(notice.location) if notice.location else None
        emit(events.PlanNotice(code=notice.code, message=notice.message, location=location))
    for step in plan.deferred_deletions:
        emit(events.PrunePending(slug=step.slug, function_id=step.function_id, at=step.at.isoformat(timespec="seconds")))
    for held in guarded.held:
        emit(events.PruneBlocked(slugs=held.slugs, reason=held.reason, hint=held.hint))


def emit_source_failure(emit: events.Listener, error: KapsoSyncError) -> None:
    """Report what keeps the source from being read, whatever it is: the remote, the state folder's disk, a token's file."""
    emit(source_failed(error))


def emit_failure(emit: events.Listener, error: KapsoSyncError) -> None:
    """Report why nothing could be planned."""
    kind = type(error).__name__
    if isinstance(error, ManifestInvalid):
        for problem in error.problems:
            location = str(problem.location) if problem.location else None
            emit(
                events.ManifestRejected(
                    error=problem.message, error_type=kind, hint=problem.hint, location=location, code=problem.code
                )
            )
    elif isinstance(error, ApiUnauthorized):
        emit(events.ApiKeyRejected(error=error.message, error_type=kind, hint=error.hint))
    emit(events.ReconcileFailed(error=error.message, error_type=kind, hint=error.hint))


def source_failed(error: KapsoSyncError) -> events.SourceFailed:
    """Return the event for a source that cannot be read."""
    refused = error if isinstance(error, SourceUnverified) else None
    return events.SourceFailed(
        error=error.message,
        error_type=type(error).__name__,
        hint=error.hint,
        commit=refused.commit if refused is not None else None,
        signer=refused.signer if refused is not None else None,
    )


def emit_report(emit: events.Listener, report: Report) -> None:
    """Report how a pass ended."""
    if isinstance(report.halted, ApiUnauthorized):
        error = report.halted
        emit(events.ApiKeyRejected(error=error.message, error_type=type(error).__name__, hint=error.hint))
    emit(
        events.ReconcileFinished(
            result=report.result,
            created=report.count("create"),
            updated=report.count("update") + report.count("rename"),
            deployed=report.deployed,
            deleted=report.count("delete"),
            adopted=report.count("adopt"),
            unchanged=len(report.results(Result.UNCHANGED)),
            failed=report.failed,
            blocked=len(report.results(Result.BLOCKED)),
            drifted=report.drifted,
            api_calls=report.api_calls,
            duration_ms=round(report.seconds * 1000),
        )
    )
