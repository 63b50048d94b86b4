"""Defines the events: frozen values with a name and a level, passed to listeners as they happen.

The core emits them and does not know its listeners: logs, metrics, status and notifications. The names are public:
`docs/logs.md` lists them, and a test checks that table against this file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
from collections.abc import Callable, Iterable, Mapping
from dataclasses import field
from typing import ClassVar, Self, dataclass_transform

from kapso_sync.dataclass import dataclass


class Level(enum.StrEnum):
    """The level of an event in the logs."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(field,))
@dataclass(frozen=True, kw_only=True)
class Event:
    """Base of all events. Every subclass is a frozen dataclass with keyword arguments; those that occur have a ``name``."""

    name: ClassVar[str]
    level: ClassVar[Level] = Level.INFO

    def __init_subclass__(cls, *, name: str | None = None, level: Level | None = None) -> None:
        """Set the subclass's name and level where they are given."""
        super().__init_subclass__()
        if name is not None:
            cls.name = name
        if level is not None:
            cls.level = level

    def __new__(cls, **_: object) -> Self:
        """Return an event that ``__init__`` has yet to fill.

        A class becomes a dataclass when it first has an event: to make all of them takes longer than most commands need for
        everything else that they load, and a pass that finds nothing to do has five kinds of events.
        """
        _complete(cls)
        return super().__new__(cls)


def _complete(kind: type[Event]) -> None:
    """Make a kind of event a dataclass, and those that it is derived from, unless they are."""
    if "__dataclass_fields__" not in vars(kind):
        for base in kind.__bases__:
            _complete(base)
        dataclass(frozen=True, kw_only=True)(kind)


def declared_fields(kind: type[Event]) -> tuple[dataclasses.Field[object], ...]:
    """Return the fields of a kind of event, as `dataclasses.fields` does for an event."""
    _complete(kind)
    return dataclasses.fields(kind)


Listener = Callable[[Event], None]
"""Called with every event, at once and in order; it must neither block nor raise."""


def fields_of(event: Event) -> dict[str, object]:
    """Return an event's fields by their names in a log; ``metadata["key"]`` holds the name that a field cannot have here."""
    return {item.metadata.get("key", item.name): getattr(event, item.name) for item in dataclasses.fields(event)}


def event_of(name: str, record: Mapping[str, object]) -> Event | None:
    """Return the event that a record describes: its ``name``, and its fields under the names of `dataclasses.asdict`.

    None for a name that this version does not know, and for a record that lacks a field or has one of another type. Other keys
    are ignored.
    """
    import msgspec  # noqa: PLC0415 - most commands read no records

    pending: list[type[Event]] = [Event]
    while pending:
        kind = pending.pop()
        pending += kind.__subclasses__()
        if getattr(kind, "name", None) != name:
            continue
        names = {item.name for item in declared_fields(kind)}
        values = {key: value for key, value in record.items() if key in names}
        with contextlib.suppress(msgspec.ValidationError):
            return msgspec.convert(values, kind)
    return None


class FunctionEvent(Event):
    """Base of the events about one function."""

    slug: str
    function_id: str | None = None


class Failure(Event, level=Level.ERROR):
    """Base of the events that carry an error in one line."""

    error: str
    error_type: str
    hint: str | None = None


# Passes: the source, the plan, how it ended, and the calls that it made


class SourceChanged(Event, name="source.changed"):
    """The source shows another revision than the last one that was read.

    Where signatures are wanted, `signer` is the fingerprint of the key that signed it; anybody may write any author.
    """

    revision: str
    previous: str | None = None
    subject: str | None = None
    author: str | None = None
    signer: str | None = None


class SourceMoved(Event, name="source.moved", level=Level.WARNING):
    """The git server redirects to another address on the same host, which is used from now on; reported once."""

    source: str
    moved_to: str
    hint: str | None = None


class SourceUnchanged(Event, name="source.unchanged", level=Level.DEBUG):
    """The source shows the revision that was read last."""

    revision: str


class SourceFailed(Failure, name="source.failed"):
    """The source could not be read; the last good revision stays in force.

    For a commit that nobody who may has signed, `commit` is its id, and `signer` the fingerprint of whoever did sign it.
    """

    commit: str | None = None
    signer: str | None = None


class ManifestRejected(Failure, name="manifest.invalid"):
    """The manifest is broken; one event for each problem."""

    location: str | None = None
    code: str | None = None


class FunctionInvalid(FunctionEvent, name="function.invalid", level=Level.ERROR):
    """One function's file or code is unusable; the other functions are not affected."""

    error: str
    location: str | None = None
    hint: str | None = None


class StateSetAside(Event, name="state.set_aside", level=Level.WARNING):
    """The state database was damaged, or written by a newer version; a new one was created and is filled from Kapso."""

    path: str


class ReconcileStarted(Event, name="reconcile.started", level=Level.DEBUG):
    """A pass begins."""

    trigger: str


class ReconcileFinished(Event, name="reconcile.finished"):
    """A pass ended; ``result`` is ``success``, ``failed``, or ``superseded`` by a newer revision."""

    result: str = "success"
    created: int
    updated: int
    deployed: int
    deleted: int
    adopted: int
    unchanged: int
    failed: int
    blocked: int
    drifted: int
    api_calls: int
    duration_ms: int


class ReconcileFailed(Failure, name="reconcile.failed"):
    """A pass failed as a whole."""


class PlanComputed(Event, name="plan.computed"):
    """The plan of a pass: the counts, and each changed function's action, origin and fields."""

    summary: Mapping[str, int]
    functions: tuple[Mapping[str, object], ...]


class PlanNotice(Event, name="plan.warning", level=Level.WARNING):
    """A warning of the plan."""

    code: str
    message: str
    location: str | None = None


class ApiCalled(Event, name="api.called", level=Level.DEBUG):
    """One request was answered (or not: then there is no `status`)."""

    method: str
    route: str
    status: int | None
    duration_ms: int
    rate_limit: int | None = None
    rate_remaining: int | None = None


def count_calls(happened: Iterable[Event]) -> int:
    """Return the number of requests to Kapso among these events."""
    return sum(isinstance(event, ApiCalled) for event in happened)


class ApiRetry(Event, name="api.retry", level=Level.WARNING):
    """A request will be repeated."""

    method: str
    route: str
    status: int | None
    attempt: int
    wait_s: float
    error: str


class RateLimitWaiting(Event, name="ratelimit.waiting"):
    """The share of this minute's calls is used up; calls wait for the next window. Once per window, not per call."""

    wait_s: float
    limit: int | None
    remaining: int | None


class ApiKeyRejected(Failure, name="api.unauthorized"):
    """Kapso does not accept the key; nothing is written until it changes."""


# Functions: writes, drift, deployments, checks, secrets


class FunctionAdopted(FunctionEvent, name="function.adopted"):
    """An unowned function is ours now."""


class FunctionDisowned(FunctionEvent, name="function.disowned"):
    """A function of ours is unowned now: `disown` removed its mark and changed nothing else."""


class FunctionCreated(FunctionEvent, name="function.created"):
    """A function was created on Kapso; it is a draft until its deployment."""


class FunctionUpdated(FunctionEvent, name="function.updated"):
    """Code or fields were written to Kapso."""

    fields: tuple[str, ...]
    origin: str


class FlowAttached(FunctionEvent, name="flow.attached"):
    """A function became the data endpoint of a WhatsApp Flow; `previous` is the id of the function that it was before."""

    flow: str
    previous: str | None = None


class FlowNotRepublished(FunctionEvent, name="flow.not_republished", level=Level.WARNING):
    """Kapso attached the function, and warns that the WhatsApp Flow was not published again with it."""

    flow: str
    warning: str
    hint: str | None = None


class FunctionRenamed(FunctionEvent, name="function.renamed"):
    """A function got another slug; id, URL and secrets stay."""

    previous: str


class SlugVacated(FunctionEvent, name="function.gave_way"):
    """A function left its slug, which another one takes: on its way to ``target``, or for good, as ``became``."""

    became: str
    target: str | None = None


class FunctionDeleted(FunctionEvent, name="function.deleted"):
    """A function was deleted from Kapso; ``backup`` names the copy that was saved before."""

    backup: str | None = None


class FunctionBackedUp(FunctionEvent, name="function.backed_up"):
    """A backup was saved before a function is overwritten or deleted."""

    backup: str
    reason: str


class FunctionConflict(FunctionEvent, name="function.conflict", level=Level.WARNING):
    """Git lists a function that we must not touch, or that changed on both sides."""

    reason: str


class FunctionFailed(FunctionEvent, name="function.failed", level=Level.ERROR):
    """A write about this function failed; it is tried again at the next pass."""

    error: str
    error_type: str
    hint: str | None = None


class DriftDetected(FunctionEvent, name="drift.detected", level=Level.WARNING):
    """Kapso has other content than our last write."""

    fields: tuple[str, ...]


class DriftCorrected(FunctionEvent, name="drift.corrected"):
    """Git's version was written back."""

    fields: tuple[str, ...]


class DriftIgnored(FunctionEvent, name="drift.ignored", level=Level.WARNING):
    """The drift policy is ``report``: nothing was written."""

    fields: tuple[str, ...]


class FunctionOscillating(FunctionEvent, name="function.oscillating", level=Level.ERROR):
    """Three writes in a row were undone on Kapso: nothing is written until git changes or a person asks."""

    fields: tuple[str, ...]
    hint: str | None = None


class FunctionStalled(FunctionEvent, name="function.stalled", level=Level.ERROR):
    """A function needs a person: it keeps failing, is in quarantine, or has a field that Kapso refused."""

    reason: str
    retry_in_s: float | None = None
    hint: str | None = None


class PruneBlocked(Event, name="prune.blocked", level=Level.WARNING):
    """Deletions or recreations were blocked; ``hint`` names the setting that allows them."""

    slugs: tuple[str, ...]
    reason: str
    hint: str | None = None


class PrunePending(FunctionEvent, name="prune.pending", level=Level.WARNING):
    """A function left git, and is deleted at the first pass after ``at``, unless it comes back."""

    at: str


class DeployStarted(FunctionEvent, name="deploy.started"):
    """Kapso accepted a deployment."""


class DeploySucceeded(FunctionEvent, name="deploy.succeeded"):
    """Git's code is live."""

    duration_ms: int


class DeployFailed(FunctionEvent, name="deploy.failed", level=Level.ERROR):
    """A deployment ended in ``error``, or was refused. ``place`` and ``console`` are what this machine's runtime said of it."""

    error: str
    hint: str | None = None
    place: str | None = None
    console: tuple[str, ...] | None = None


class DeployTimedOut(FunctionEvent, name="deploy.timed_out", level=Level.ERROR):
    """A deployment did not end in time; it counts as failed."""

    timeout_s: float
    hint: str | None = None


class CheckPassed(FunctionEvent, name="check.passed"):
    """The deployed function answers as the manifest expects; ``answer`` is what the last check got."""

    checks: int
    duration_ms: int
    answer: str | None = None


class CheckFailed(FunctionEvent, name="check.failed", level=Level.ERROR):
    """The deployed function does not answer as the manifest expects, although the edge had time to update.

    ``console`` are the last lines of the invocation's console, and ``place`` is the place in the source that threw.
    """

    check: int
    expected: str
    answer: str
    error: str
    hint: str | None = None
    place: str | None = None
    console: tuple[str, ...] | None = None


class WatchStarted(FunctionEvent, name="watch.started"):
    """The daemon reads the function's invocations for a while, since a new version of it was deployed."""

    until: str


class WatchPassed(FunctionEvent, name="watch.passed"):
    """A deployment was watched, and few of its invocations failed; ``sampled``: of those that Kapso listed."""

    invocations: int
    failed: int
    sampled: bool = False


class WatchInconclusive(FunctionEvent, name="watch.inconclusive", level=Level.WARNING):
    """A deployment was watched, and not enough was seen of it to say anything."""

    reason: str


class WatchFailed(FunctionEvent, name="watch.failed", level=Level.ERROR):
    """Too many invocations failed since the deployment: it is taken back. ``place`` and ``console`` are of one that failed."""

    error: str
    place: str | None = None
    console: tuple[str, ...] | None = None


class RollbackStarted(FunctionEvent, name="rollback.started", level=Level.WARNING):
    """A rollback starts: ``restored`` is the hash of the previous code, ``code`` that of the failed one."""

    reason: str
    code: str
    restored: str


class RollbackSucceeded(FunctionEvent, name="rollback.succeeded", level=Level.WARNING):
    """The previous version runs again; the failed one is in quarantine until git changes or a person asks."""

    code: str
    restored: str


class RollbackFailed(FunctionEvent, name="rollback.failed", level=Level.ERROR):
    """The previous version could not be restored. If it does not go live either, git's code is retried with back-off."""

    code: str
    restored: str
    error: str
    hint: str | None = None


class SecretSet(FunctionEvent, name="secret.set"):
    """A secret was set; its value is never logged."""

    secret: str = field(metadata={"key": "name"})


class FunctionReplanned(FunctionEvent, name="function.replanned", level=Level.WARNING):
    """Somebody saved the function after it was planned; it was read and planned again, in the same pass."""

    error: str


class SecretLost(FunctionEvent, name="secret.lost", level=Level.ERROR):
    """A deployment dropped secrets that have no value in git, so they cannot be set again."""

    names: tuple[str, ...]
    hint: str | None = None


class FieldRefused(FunctionEvent, name="field.refused", level=Level.ERROR):
    """Kapso answered a write with another value of a field than was sent; it is not sent again until git or Kapso changes."""

    field_name: str = field(metadata={"key": "field"})
    wanted: str
    got: str
    hint: str | None = None


class SecretRemoved(FunctionEvent, name="secret.removed"):
    """A secret that the manifest does not name was removed, as ``secrets_policy: exact`` wants it."""

    secret: str = field(metadata={"key": "name"})


# The daemon: its life, triggers, suspension, notifications


class DaemonStarted(Event, name="daemon.started"):
    """The daemon runs; ``url`` is the address of its server, if it has one."""

    version: str
    source: str
    url: str | None = None


class DaemonStopping(Event, name="daemon.stopping"):
    """The daemon stops: no trigger is accepted any more, and calls in flight are finished or journaled."""

    reason: str


class DaemonStopped(Event, name="daemon.stopped"):
    """The last line of a daemon's log."""


class DaemonState(Event, name="daemon.state"):
    """The daemon's status in one line, after SIGUSR1."""

    state: str
    revision: str | None = None
    functions: int
    ready: int
    passes: int
    memory_mb: float


class TaskFailed(Failure, name="daemon.task_failed"):
    """A background task of the daemon failed and is restarted."""

    task: str
    restart_in_s: float


class WatchDegraded(Event, name="watch.degraded", level=Level.WARNING):
    """File changes may be noticed late, for this reason."""

    reason: str


class LeaseAcquired(Event, name="lease.acquired"):
    """This replica leads: it holds the Lease, and a pass begins at once."""

    lease: str
    leader: str
    previous: str | None = None


class LeaseLost(Event, name="lease.lost", level=Level.WARNING):
    """This replica leads no more: it makes no call to Kapso, and its pass ends. ``leader`` is the new holder, if known."""

    lease: str
    reason: str
    leader: str | None = None


class LeaseReleased(Event, name="lease.released"):
    """The daemon stops and gave the Lease up, so that another replica takes over at once."""

    lease: str


class LeaseFailed(Failure, name="lease.failed"):
    """The Lease cannot be read or written; logged when that begins and changes, and `failure.ended` when it is over."""

    lease: str


class SettingsReloaded(Event, name="settings.reloaded"):
    """The settings were read again, on SIGHUP, and took effect."""


class SettingsRejected(Failure, name="settings.invalid"):
    """The settings that were read again are invalid; the previous ones stay in effect."""


class TriggerReceived(Event, name="trigger.received", level=Level.DEBUG):
    """A pass was requested."""

    trigger: str


class WebhookRefusal(enum.StrEnum):
    """Why a push to the webhook is refused, as logs and metrics have it."""

    NO_SIGNATURE = "no_signature"
    WRONG_SIGNATURE = "wrong_signature"
    WRONG_TIME = "wrong_time"
    UNUSABLE_SECRET = "unusable_secret"  # noqa: S105 - a word for a metric
    UNREADABLE = "unreadable"
    TOO_LARGE = "too_large"


class WebhookRefused(Event, name="webhook.refused", level=Level.WARNING):
    """A push to the webhook was refused; logged once in 5 minutes for each ``reason``, and counted each time in the metrics.

    Anybody who reaches the server can cause it. ``peer`` is the address that the request came from, maybe that of a proxy.
    """

    reason: str
    error: str
    peer: str | None = None
    hint: str | None = None


class Suspended(Event, name="suspended", level=Level.WARNING):
    """Nothing is written until somebody resumes, or until ``until``."""

    reason: str
    until: str | None = None


class Resumed(Event, name="resumed"):
    """Writing is allowed again."""


class FailureEnded(Event, name="failure.ended"):
    """A failure that was logged before is over; it happened ``times`` times in a row."""

    failure: str
    times: int
    slug: str | None = None
    error: str | None = None


class NotificationSent(Event, name="notification.sent"):
    """A notification about this many changes was sent; the destination is named by its kind and line, never by its address."""

    destination: str
    changes: int


class NotificationFailed(Event, name="notification.failed", level=Level.WARNING):
    """A destination refuses notifications; logged when that begins and changes, and `failure.ended` when it is over."""

    destination: str
    error: str
    hint: str | None = None


class CommitStatusSet(Event, name="commit_status.set", level=Level.DEBUG):
    """A commit's status was set at the forge."""

    commit: str
    state: str
    text: str


class CommitStatusFailed(Event, name="commit_status.failed", level=Level.WARNING):
    """The forge refuses a commit's status; logged when that begins and changes, and `failure.ended` when it is over."""

    commit: str
    error: str
    hint: str | None = None
