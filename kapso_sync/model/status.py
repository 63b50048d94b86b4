"""Defines the daemon's status: the conditions of each function, the last pass, and the next one."""

from __future__ import annotations

import enum
import functools
import operator
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import field, replace
from datetime import datetime
from typing import Any, TypeVar

from kapso_sync.advice import Advise, names_command
from kapso_sync.dataclass import dataclass
from kapso_sync.errors import IssueKind
from kapso_sync.model.evidence import Evidence
from kapso_sync.model.json_values import Json
from kapso_sync.model.source import Revision
from kapso_sync.units import timestamp

_T = TypeVar("_T", bound=Hashable)


class ConditionType(enum.StrEnum):
    """The types of a function's conditions, as in Kubernetes."""

    READY = "Ready"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"
    DRIFTED = "Drifted"


class ReadyReason(enum.StrEnum):
    """Why a function is ready or not: the reason of its `ConditionType.READY`."""

    UNKNOWN = "Unknown"
    PENDING = "Pending"
    APPLIED = "Applied"
    IN_SYNC = "InSync"
    KEPT_OUTSIDE_GIT = "KeptOutsideGit"
    DELETION_PENDING = "DeletionPending"
    NOT_TRIED = "NotTried"
    FAILED = "Failed"
    INVALID = "Invalid"
    BLOCKED = "Blocked"
    BACK_OFF = "BackOff"
    OSCILLATING = "Oscillating"
    DRIFT_REPORTED = "DriftReported"
    CHECK_FAILED = "CheckFailed"
    WATCH_FAILED = "WatchFailed"
    DEPLOYMENT_FAILED = "DeploymentFailed"


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition. ``reason`` is one CamelCase word for programs, ``message`` a line for people.

    ``since`` is when ``status`` last changed; ``revision`` is the one that was observed last.
    """

    type: ConditionType
    status: bool
    reason: str
    message: str
    since: datetime
    revision: str | None = None


_MOST_TELLING = (ConditionType.STALLED, ConditionType.RECONCILING, ConditionType.DRIFTED, ConditionType.READY)


@dataclass(frozen=True, slots=True)
class FunctionStatus:
    """The status of one function. ``diff`` is unified, from Kapso to git, if they differ.

    ``changed_at`` and ``change`` describe our last write. ``deploying_since`` is set while a deployment runs, ``retry_at``
    during a back-off, ``delete_at`` during the grace period of a deletion, and ``watched_until`` while its invocations after a
    deployment are read. ``in_git`` is False for a function of ours that left git. ``state`` is the state in one word: the first
    of Stalled, Reconciling, Drifted and Ready that is true, or NotReady.

    While it is not ready, ``hint`` says what to do, ``place`` is the file, line and column of the mistake, and ``broken_by``
    is the first revision since which git's content fails; None: that is not known, or git is not the cause. ``desired_hash``
    is the hash of git's content when it was last found to run or to fail, and ``desired_since`` the first revision that had
    that content; None: not known. ``evidence`` is what its failed check, watch or deployment left behind.
    """

    slug: str
    function_id: str | None
    conditions: tuple[Condition, ...]
    action: str = "none"
    changed_at: datetime | None = None
    change: str | None = None
    diff: str = field(default="", repr=False)
    deploying_since: datetime | None = None
    retry_at: datetime | None = None
    delete_at: datetime | None = None
    watched_until: datetime | None = None
    in_git: bool = True
    hint: str | None = None
    place: str | None = None
    broken_by: Revision | None = None
    desired_hash: str | None = None
    desired_since: Revision | None = None
    evidence: Evidence | None = None
    state: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Find the state in one word once: the page asks for it three times for each function."""
        true = {condition.type for condition in self.conditions if condition.status}
        state = next((str(kind) for kind in _MOST_TELLING if kind in true), "NotReady")
        object.__setattr__(self, "state", state)

    def condition(self, kind: ConditionType) -> Condition:
        """Return the condition of this type; every function has all four."""
        for condition in self.conditions:
            if condition.type is kind:
                return condition
        raise LookupError(kind)

    def advised(self, advise: Advise) -> FunctionStatus:
        """Return the status with the commands in its messages completed; the same object if there are none."""
        if not any(names_command(known.message) for known in self.conditions) and not names_command(self.hint or ""):
            return self
        messages = [advise(known.message) for known in self.conditions]
        hint = advise(self.hint) if self.hint is not None else None
        if hint is self.hint and all(new is known.message for new, known in zip(messages, self.conditions, strict=True)):
            return self
        pairs = zip(messages, self.conditions, strict=True)
        return replace(self, hint=hint, conditions=tuple(replace(known, message=message) for message, known in pairs))


@dataclass(frozen=True, slots=True)
class RecentEvent:
    """One of the last events. ``text`` is a line for people."""

    at: datetime
    level: str
    event: str
    text: str
    slug: str | None = None


@dataclass(frozen=True, slots=True)
class PassStatus:
    """The last pass that ended. ``error`` says why nothing could be planned, or what halted it; ``error_type`` is its class.

    ``revision`` is the one that the pass read, whether or not it could be planned, or that it did not read because nobody who
    may had signed it (of that only the id is known); None where there is none. ``broken_by`` is
    the first revision since the last good one from which no plan could be made, while that lasts. ``issue`` is the kind of
    issue that the error opens; an error without one leaves earlier issues open.
    """

    finished_at: datetime
    trigger: str
    exit_code: int
    seconds: float
    api_calls: int
    summary: Mapping[str, int]
    error: str | None = None
    hint: str | None = None
    error_type: str | None = None
    revision: Revision | None = None
    issue: IssueKind | None = None
    broken_by: Revision | None = None


class Role(enum.StrEnum):
    """The role of a replica: the leader writes, and a standby makes no call to Kapso."""

    LEADER = "leader"
    STANDBY = "standby"


@dataclass(frozen=True, slots=True)
class ReplicaStatus:
    """A replica's role, the Lease as ``namespace/name``, and its holder; None: none is known to hold it."""

    role: Role
    lease: str
    leader: str | None


@dataclass(frozen=True, slots=True)
class RunningPass:
    """The pass that runs now."""

    trigger: str
    since: datetime


@dataclass(frozen=True, slots=True)
class Suspension:
    """A suspension: the daemon does not write. ``until`` None: until somebody resumes it."""

    reason: str
    since: datetime
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class RateLimit:
    """The rest of the API's rate limit in this window, by the last answer."""

    limit: int
    remaining: int


@dataclass(frozen=True, slots=True)
class ActivityHour:
    """How many deployments went live, and how many deployments, checks and watches failed, in the hour from ``start`` on."""

    start: datetime
    deployed: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class DaemonStatus:
    """The daemon's status at one moment. ``revision`` was planned last; ``revision_since`` is when it was first seen.

    ``reading`` is the one that the running pass has read, as soon as it has.
    ``unfinished`` names writes whose result is not known yet, such as ``deploy greet``. ``unused`` are functions of ours that
    no workflow uses; None where that is not known. ``replica`` is None where there is no Lease: a daemon alone leads.
    ``activity`` has those hours of the last day in which something was deployed or failed, the oldest first.
    """

    version: str
    now: datetime
    started_at: datetime
    source: str
    owner: str | None = None
    revision: Revision | None = None
    revision_since: datetime | None = None
    functions: tuple[FunctionStatus, ...] = ()
    events: tuple[RecentEvent, ...] = ()
    last_pass: PassStatus | None = None
    last_success_at: datetime | None = None
    running: RunningPass | None = None
    reading: Revision | None = None
    next_check_at: datetime | None = None
    budget: RateLimit | None = None
    suspension: Suspension | None = None
    warnings: tuple[str, ...] = ()
    unfinished: tuple[str, ...] = ()
    unused: tuple[str, ...] | None = None
    replica: ReplicaStatus | None = None
    activity: tuple[ActivityHour, ...] = ()

    @property
    def role(self) -> Role:
        """The role of this daemon."""
        return self.replica.role if self.replica is not None else Role.LEADER

    def advised(self, advise: Advise, functions: tuple[FunctionStatus, ...] | None = None) -> DaemonStatus:
        """Return the status with the commands in its texts completed; ``functions`` has them so already, if they are given."""
        last = self.last_pass
        return replace(
            self,
            functions=tuple(function.advised(advise) for function in self.functions) if functions is None else functions,
            events=tuple(replace(event, text=advise(event.text)) for event in self.events),
            last_pass=replace(last, hint=advise(last.hint)) if last is not None and last.hint else last,
            warnings=tuple(advise(warning) for warning in self.warnings),
        )

    @property
    def reconciling(self) -> bool:
        """Return whether a pass runs now."""
        return self.running is not None

    @property
    def listed(self) -> tuple[FunctionStatus, ...]:
        """Return the functions that git lists."""
        return tuple(function for function in self.functions if function.in_git)

    @property
    def left_git(self) -> tuple[FunctionStatus, ...]:
        """Return the functions of ours that git does not list any more."""
        return tuple(function for function in self.functions if not function.in_git)

    @property
    def in_sync(self) -> bool:
        """Return whether the last pass succeeded and every function is ready."""
        good = self.last_pass is not None and self.last_pass.error is None
        return good and all(function.condition(ConditionType.READY).status for function in self.functions)


def status_document(status: DaemonStatus, functions: list[Json] | None = None) -> dict[str, Json]:
    """Return the JSON of ``/api/status`` and of ``kapso-sync status --json``; its schema is in ``docs/status.md``.

    ``functions`` stands in place of the documents of the functions, for a caller that has them already.
    """
    return {
        "version": status.version,
        "now": _time(status.now),
        "started_at": _time(status.started_at),
        "source": status.source,
        "owner": status.owner,
        "revision": None if status.revision is None else _revision(status.revision, status.revision_since),
        "role": str(status.role),
        "leader": None if status.replica is None else status.replica.leader,
        "in_sync": status.in_sync,
        "reconciling": status.reconciling,
        "running": None if status.running is None else running_document(status.running),
        "suspended": None
        if status.suspension is None
        else {
            "reason": status.suspension.reason,
            "since": _time(status.suspension.since),
            "until": _time(status.suspension.until),
        },
        "last_pass": None if status.last_pass is None else _pass(status.last_pass),
        "next_check_at": _time(status.next_check_at),
        "rate_limit": None if status.budget is None else {"limit": status.budget.limit, "remaining": status.budget.remaining},
        "functions": [function_document(function) for function in status.functions] if functions is None else functions,
        "events": [
            {"at": _time(event.at), "level": event.level, "event": event.event, "slug": event.slug, "text": event.text}
            for event in status.events
        ],
        "warnings": [*status.warnings],
        "unfinished": [*status.unfinished],
        "unused": None if status.unused is None else [*status.unused],
        "activity": [
            {"start": _time(hour.start), "deployed": hour.deployed, "failed": hour.failed} for hour in status.activity
        ],
    }


def same_objects(some: Sequence[object], others: Sequence[object]) -> bool:
    """Return whether two sequences hold the same objects: what did not change is not compared, encoded or written again."""
    return len(some) == len(others) and all(map(operator.is_, some, others))


def running_document(running: RunningPass) -> dict[str, Json]:
    """Return the JSON of the pass that runs now."""
    return {"trigger": running.trigger, "since": _time(running.since)}


class Shared:
    """Returns one object for all equal values: thousands of functions have few texts, revisions and conditions."""

    def __init__(self) -> None:
        self._known: dict[Hashable, Any] = {}

    def __call__(self, value: _T) -> _T:
        """Return the first value that is equal to this one."""
        found: _T = self._known.setdefault(value, value)
        return found


def recorded_functions(document: Mapping[str, Any]) -> Mapping[str, FunctionStatus]:
    """Return the functions of a status document by slug: since when they are ready, and what was changed last.

    Empty for a document that another version wrote, which costs the times and nothing else.
    """
    moment, shared = functools.cache(datetime.fromisoformat), Shared()
    try:
        return {function["slug"]: _recorded(function, moment, shared) for function in document["functions"]}
    except (KeyError, TypeError, ValueError):
        return {}


def recorded_revision(document: Mapping[str, Any]) -> tuple[Revision, datetime] | None:
    """Return the revision of a status document that was planned last, and when it was first seen; None if there is none."""
    try:
        revision = document["revision"]
        committed = datetime.fromisoformat(revision["committed_at"]) if revision["committed_at"] else None
        found = Revision(
            revision["id"],
            described=revision["described"],
            subject=revision["subject"],
            author=revision["author"],
            committed_at=committed,
        )
        return found, datetime.fromisoformat(revision["since"])
    except (KeyError, TypeError, ValueError):
        return None


def recorded_activity(document: Mapping[str, Any]) -> tuple[ActivityHour, ...]:
    """Return the activity of a status document; empty for a document that another version wrote."""
    try:
        return tuple(
            ActivityHour(datetime.fromisoformat(hour["start"]), int(hour["deployed"]), int(hour["failed"]))
            for hour in document["activity"]
        )
    except (KeyError, TypeError, ValueError):
        return ()


_KINDS = {str(kind): kind for kind in ConditionType}


def _recorded(function: Mapping[str, Any], moment: Callable[[str], datetime], shared: Shared) -> FunctionStatus:
    conditions = {
        (kind := _KINDS[condition["type"]]): Condition(
            kind,
            bool(condition["status"]),
            shared(condition["reason"]),
            shared(condition["message"]),
            moment(condition["since"]),
            shared(condition["revision"]),
        )
        for condition in function["conditions"]
    }
    return FunctionStatus(
        slug=function["slug"],
        function_id=function["id"],
        conditions=shared(tuple(conditions[kind] for kind in ConditionType)),
        action=shared(function["action"]),
        changed_at=moment(function["changed_at"]) if function["changed_at"] else None,
        change=function["change"],
        in_git=function.get("in_git", True),
        broken_by=shared(_recorded_cause(function.get("broken_by"))),
        desired_hash=function.get("desired_hash"),
        desired_since=shared(_recorded_cause(function.get("desired_since"))),
        evidence=_evidence(function.get("evidence")),
    )


def _recorded_cause(broken_by: Mapping[str, Any] | None) -> Revision | None:
    return None if broken_by is None else Revision(broken_by["id"], subject=broken_by["subject"], author=broken_by["author"])


def _evidence(document: Mapping[str, Any] | None) -> Evidence | None:
    return None if document is None else Evidence(tuple(map(str, document["console"])), document["place"])


def _revision(revision: Revision, since: datetime | None) -> Json:
    return {
        "id": revision.id,
        "described": revision.described,
        "subject": revision.subject,
        "author": revision.author,
        "committed_at": _time(revision.committed_at),
        "since": _time(since),
    }


def _pass(last: PassStatus) -> Json:
    return {
        "finished_at": _time(last.finished_at),
        "trigger": last.trigger,
        "exit_code": last.exit_code,
        "duration_s": round(last.seconds, 3),
        "api_calls": last.api_calls,
        "summary": dict(last.summary),
        "error": last.error,
        "hint": last.hint,
        "error_type": last.error_type,
        "revision": None if last.revision is None else last.revision.id,
        "broken_by": _cause(last.broken_by),
    }


def _cause(revision: Revision | None) -> Json:
    return None if revision is None else {"id": revision.id, "subject": revision.subject, "author": revision.author}


def function_document(function: FunctionStatus) -> Json:
    """Return the JSON of one function in a status document; it does not depend on the time."""
    return {
        "slug": function.slug,
        "id": function.function_id,
        "state": function.state,
        "action": function.action,
        "conditions": [
            {
                "type": str(condition.type),
                "status": condition.status,
                "reason": condition.reason,
                "message": condition.message,
                "since": _time(condition.since),
                "revision": condition.revision,
            }
            for condition in function.conditions
        ],
        "changed_at": _time(function.changed_at),
        "change": function.change,
        "diff": function.diff,
        "deploying_since": _time(function.deploying_since),
        "retry_at": _time(function.retry_at),
        "delete_at": _time(function.delete_at),
        "watched_until": _time(function.watched_until),
        "in_git": function.in_git,
        "hint": function.hint,
        "place": function.place,
        "broken_by": _cause(function.broken_by),
        "desired_hash": function.desired_hash,
        "desired_since": _cause(function.desired_since),
        "evidence": None if function.evidence is None else function.evidence.document,
    }


def _time(moment: datetime | None) -> Json:
    return None if moment is None else timestamp(moment)
