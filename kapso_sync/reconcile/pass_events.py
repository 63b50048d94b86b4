"""Turning a pass's plan, failure and report into events."""

from __future__ import annotations

from kapso_sync.errors import ApiUnauthorized, KapsoSyncError, ManifestInvalid, SourceMissing, SourceRefused, SourceUnavailable
from kapso_sync.model import events
from kapso_sync.model.plan import NoChange
from kapso_sync.model.report import Report, Result
from kapso_sync.reconcile.plan.guard import Guarded


def emit_plan(emit: events.Listener, guarded: Guarded) -> None:
    """Report what a pass is going to do, its warnings, and what was held back."""
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
    elif isinstance(error, SourceUnavailable | SourceMissing | SourceRefused):
        emit(events.SourceFailed(error=error.message, error_type=kind, hint=error.hint))
    elif isinstance(error, ApiUnauthorized):
        emit(events.ApiKeyRejected(error=error.message, error_type=kind, hint=error.hint))
    emit(events.ReconcileFailed(error=error.message, error_type=kind, hint=error.hint))


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
