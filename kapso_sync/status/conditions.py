"""Computes a function's conditions from a step or its outcome, as Kubernetes objects have them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import NamedTuple

from kapso_sync.model.plan import Blocked, BlockedBy, DeferredDelete, Invalid, Modify, NoChange, Rollback, Step
from kapso_sync.model.report import Outcome, Result
from kapso_sync.model.source import Revision
from kapso_sync.model.state import Quarantine, QuarantineReason
from kapso_sync.model.status import Condition, ConditionType, FunctionStatus, ReadyReason

Redact = Callable[[str], str]
"""Removes secrets from a text."""

_Found = Mapping[ConditionType, tuple[bool, str, str]]
"""Status, reason and message of some conditions; the others stay as they were."""

_DONE = {"update": "updated", "rename": "renamed", "deploy": "deployed", "adopt": "adopted"}

_READY_REASON_OF_RESULT = {
    Result.DONE: ReadyReason.APPLIED,
    Result.UNCHANGED: ReadyReason.IN_SYNC,
    Result.FAILED: ReadyReason.FAILED,
    Result.INVALID: ReadyReason.INVALID,
    Result.SKIPPED: ReadyReason.NOT_TRIED,
    Result.BLOCKED: ReadyReason.BLOCKED,
}

MAX_DIFF = 32 * 1024
"""Most characters of a diff that a status keeps: a page shows all of them, and is made anew at each change."""

_BEHIND = 4096

_READY_REASON_OF_BLOCK = {
    BlockedBy.BACK_OFF: ReadyReason.BACK_OFF,
    BlockedBy.OSCILLATION: ReadyReason.OSCILLATING,
    BlockedBy.DRIFT_POLICY: ReadyReason.DRIFT_REPORTED,
    BlockedBy.FAILING: ReadyReason.WATCH_FAILED,
}

_READY_REASON_OF_QUARANTINE = {
    QuarantineReason.CHECK: ReadyReason.CHECK_FAILED,
    QuarantineReason.DEPLOYMENT: ReadyReason.DEPLOYMENT_FAILED,
    QuarantineReason.WATCH: ReadyReason.WATCH_FAILED,
}


def reconciling(before: FunctionStatus | None, step: Step, revision: str, now: datetime, redact: Redact) -> FunctionStatus:
    """Return the status of a function before its step is carried out."""
    reason = "; ".join(step.explanation) or step.action
    found = {ConditionType.RECONCILING: (True, "Applying", f"{step.action}: {reason}")}
    if before is None:
        found[ConditionType.READY] = (False, ReadyReason.PENDING, reason)
    if step.drifted:
        found[ConditionType.DRIFTED] = (True, "ChangedOnKapso", f"changed on Kapso: {', '.join(step.fields)}")
    base = before or FunctionStatus(step.slug, step.function_id, ())
    return replace(
        base,
        conditions=_conditions(before, found, revision, now, redact),
        action=step.action,
        diff=shown_diff(step.diff, redact),
        in_git=step.in_git,
    )


def concluded(
    before: FunctionStatus | None,
    outcome: Outcome,
    revision: Revision,
    now: datetime,
    redact: Redact,
    *,
    failing_too_often: bool,
) -> FunctionStatus:
    """Return the status of a function after its step: the same object as before if nothing changed.

    ``failing_too_often``: its back-off counts it as stalled.
    """
    step = outcome.step
    good = outcome.result in (Result.DONE, Result.UNCHANGED)
    message = outcome.error or "; ".join(step.explanation) or step.action
    if outcome.result is Result.BLOCKED and outcome.error and outcome.hint:
        message = f"{outcome.error}; {outcome.hint}"
    if outcome.result is Result.DONE:
        message = "created" if step.action == "create" else f"{_DONE.get(step.action, step.action)}: {message}"
    backing_off = isinstance(step, Blocked) and step.by is BlockedBy.BACK_OFF
    blocked = outcome.result is Result.BLOCKED and not backing_off
    needs_person = outcome.result is Result.INVALID or blocked or bool(outcome.refused)
    stalled = needs_person or (not good and failing_too_often)
    drifted = step.drifted and not good
    quarantine = _quarantine(outcome)
    if quarantine is not None:
        stalled, message = True, "; ".join(filter(None, (_quarantine_text(quarantine), outcome.hint)))
    reason = ready_reason(outcome)
    found: _Found = {
        ConditionType.READY: (good, reason, message),
        ConditionType.RECONCILING: (
            not good and not stalled,
            "Done" if good else "Stalled" if stalled else "Retrying",
            message,
        ),
        ConditionType.STALLED: (stalled, reason if stalled else "Moving", message),
        ConditionType.DRIFTED: (
            drifted,
            "ChangedOnKapso" if drifted else "AsWritten",
            f"changed on Kapso: {', '.join(step.fields)}" if drifted else "Kapso has what was last written",
        ),
    }
    base = before or FunctionStatus(step.slug, step.function_id, ())
    change = _change(outcome, message)
    cause = _cause(before, outcome, revision, redact(message))
    waits = backing_off or outcome.result is Result.SKIPPED
    evidence = outcome.evidence or (base.evidence if waits else None)
    status = replace(
        base,
        function_id=outcome.function_id or base.function_id,
        conditions=_conditions(before, found, revision.id, now, redact),
        action=step.action,
        diff="" if good else shown_diff(_remaining_diff(outcome), redact),
        in_git=step.in_git,
        delete_at=step.at if isinstance(step, DeferredDelete) else None,
        changed_at=base.changed_at if change is None else now,
        change=base.change if change is None else change,
        hint=None if good or (hint := _hint(outcome)) is None else redact(hint),
        place=None if good else _place(step) or (evidence.place if evidence is not None else None),
        broken_by=cause.broken_by,
        desired_hash=cause.desired_hash,
        desired_since=cause.desired_since,
        evidence=evidence,
    )
    return base if status == base else status


def _change(outcome: Outcome, message: str) -> str | None:
    """Return what was changed on Kapso, or None if nothing was, or what was did not take effect."""
    if outcome.result is Result.DONE:
        return message
    if outcome.quarantine is None:
        return None
    step = outcome.step
    beside = isinstance(step, Modify) and step.quarantine is not None and not isinstance(step, Rollback)
    return "; ".join(step.explanation) if beside else "rolled back: the previous version was restored"


def _remaining_diff(outcome: Outcome) -> str:
    """Return what differs between Kapso and git after a step: one that restored another version did not write git's."""
    return outcome.held_back or outcome.step.diff


def stalled(function: FunctionStatus, now: datetime) -> FunctionStatus:
    """Return the status of a function that failed often enough to need a person."""
    message = function.condition(ConditionType.READY).message
    changes = {ConditionType.STALLED: (True, "FailedRepeatedly"), ConditionType.RECONCILING: (False, "Stalled")}
    return replace(
        function,
        conditions=tuple(
            replace(old, status=changes[old.type][0], reason=changes[old.type][1], message=message, since=now)
            if old.type in changes
            else old
            for old in function.conditions
        ),
    )


def ready_reason(outcome: Outcome) -> ReadyReason:
    """Return why a function is ready or not."""
    step, quarantine = outcome.step, _quarantine(outcome)
    if quarantine is not None:
        return _READY_REASON_OF_QUARANTINE[quarantine.fault]
    if isinstance(step, DeferredDelete):
        return ReadyReason.DELETION_PENDING
    if isinstance(step, NoChange) and step.desired_hash is None:
        return ReadyReason.KEPT_OUTSIDE_GIT
    if isinstance(step, Blocked):
        return _READY_REASON_OF_BLOCK.get(step.by, ReadyReason.BLOCKED)
    return _READY_REASON_OF_RESULT[outcome.result]


def _cause(before: FunctionStatus | None, outcome: Outcome, revision: Revision, message: str) -> _Cause:
    """Return the first revision since which git's content of the function fails, and the hash of the content that was judged.

    Commit A breaks a function, B changes another one, C is a fix that fails as well: it is A, A, C. Content that ran before,
    and fails now when it is deployed again, has no such revision: a secret or a service is at fault. Content that failed its
    watch ran as well, and is at fault: it is the revision that brought it.
    """
    step = outcome.step
    same = before is not None and step.desired_hash == before.desired_hash
    if outcome.result in (Result.DONE, Result.UNCHANGED):
        if before is not None and same:
            return _Cause(None, step.desired_hash, before.desired_since)
        # What is found in sync at the first look may have been brought by any revision.
        unknown = before is None and outcome.result is Result.UNCHANGED
        return _Cause(None, step.desired_hash, None if unknown else revision)
    watched = ready_reason(outcome) is ReadyReason.WATCH_FAILED
    failed = outcome.result in (Result.FAILED, Result.INVALID) and not outcome.blameless
    if not failed and not watched and _quarantine(outcome) is None:
        return _Cause() if before is None else _Cause(before.broken_by, before.desired_hash, before.desired_since)
    # Content that cannot be read has no hash: then the same message is the same mistake.
    if step.desired_hash is None:
        same = same and before is not None and before.condition(ConditionType.READY).message == message
    if not same or before is None:
        return _Cause(revision, step.desired_hash, revision)
    broken_by = before.broken_by or (before.desired_since if watched else None)
    return _Cause(broken_by, step.desired_hash, before.desired_since)


class _Cause(NamedTuple):
    broken_by: Revision | None = None
    desired_hash: str | None = None
    desired_since: Revision | None = None


def _hint(outcome: Outcome) -> str | None:
    step = outcome.step
    hints = [outcome.hint] if outcome.hint or not isinstance(step, Invalid) else [each.hint for each in step.problems]
    return "; ".join(dict.fromkeys(filter(None, hints))) or None


def _place(step: Step) -> str | None:
    """Return where in the source the first mistake is, if that is known."""
    places = (problem.location for problem in step.problems) if isinstance(step, Invalid) else ()
    return next((str(place) for place in places if place is not None), None)


def _conditions(
    before: FunctionStatus | None, found: _Found, revision: str, now: datetime, redact: Redact
) -> tuple[Condition, ...]:
    """Return the conditions of a function; one in which nothing changed is the same object as before."""
    conditions = []
    for kind in ConditionType:
        old = before.condition(kind) if before else None
        status, reason, message = found.get(kind) or (
            (old.status, old.reason, old.message) if old else (False, ReadyReason.UNKNOWN, "not observed yet")
        )
        message = redact(message)
        if old is not None and (old.status, old.reason, old.message, old.revision) == (status, reason, message, revision):
            conditions.append(old)
            continue
        since = old.since if old is not None and old.status == status else now
        conditions.append(Condition(kind, status, str(reason), message, since, revision))
    return tuple(conditions)


def shown_diff(diff: str, redact: Redact) -> str:
    """Return the beginning of a diff, without secrets; a secret at its end is looked for in some of what follows as well."""
    beginning = diff[: MAX_DIFF + _BEHIND]
    clean = redact(beginning)
    if beginning == diff and len(clean) <= MAX_DIFF:
        return clean
    return f"{clean[: clean.rfind(chr(10), 0, MAX_DIFF) + 1]}@@ the rest is not shown here; a plan shows all of it @@\n"


def _quarantine(outcome: Outcome) -> Quarantine | None:
    """Return what is in quarantine, since this pass or an earlier one."""
    return outcome.quarantine or (outcome.step.quarantine if isinstance(outcome.step, Blocked) else None)


def _quarantine_text(quarantine: Quarantine) -> str:
    return f"{quarantine.error}; code {quarantine.code.removeprefix('sha256:')[:12]} is in quarantine"
