"""What the core tells its listeners (logs, metrics, status, progress), as small frozen values.

Each class is one event; its ``name`` is the stable dotted name that logs carry, and its fields are the log's fields. A field
that is None is left out of the log. The core knows `Listener` and nothing of who listens.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar


class Level(enum.StrEnum):
    """How loud an event is in the logs."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Base of all events."""

    name: ClassVar[str]
    level: ClassVar[Level] = Level.INFO


Listener = Callable[[Event], None]
"""Gets every event, at once, in order; it must neither block nor raise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionEvent(Event):
    """Base of the events about one function."""

    slug: str
    function_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure(Event):
    """Base of the events that carry an error in one line."""

    error: str
    error_type: str
    hint: str | None = None
    level: ClassVar[Level] = Level.ERROR


# The daemon


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonStarted(Event):
    """The daemon runs; ``url`` is its server's, where it has one."""

    name: ClassVar[str] = "daemon.started"
    version: str
    source: str
    url: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonStopping(Event):
    """No trigger is taken any more; what is in flight is finished or journaled."""

    name: ClassVar[str] = "daemon.stopping"
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonStopped(Event):
    """The last line of a daemon's log."""

    name: ClassVar[str] = "daemon.stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonState(Event):
    """The answer to SIGUSR1: how things stand, in one line."""

    name: ClassVar[str] = "daemon.state"
    state: str
    revision: str | None = None
    functions: int
    ready: int
    passes: int
    memory_mb: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFailed(Failure):
    """A part of the daemon died and is started again."""

    name: ClassVar[str] = "daemon.task_failed"
    task: str
    restart_in_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchDegraded(Event):
    """File changes are noticed later than they should be, for this reason."""

    name: ClassVar[str] = "watch.degraded"
    level: ClassVar[Level] = Level.WARNING
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsReloaded(Event):
    """The settings were read again, on SIGHUP."""

    name: ClassVar[str] = "settings.reloaded"


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsRejected(Failure):
    """The settings that were read again are wrong; the old ones stay in force."""

    name: ClassVar[str] = "settings.invalid"


@dataclass(frozen=True, slots=True, kw_only=True)
class TriggerReceived(Event):
    """Something or somebody asked to look again."""

    name: ClassVar[str] = "trigger.received"
    level: ClassVar[Level] = Level.DEBUG
    trigger: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspended(Event):
    """Nothing is written until somebody resumes, or until ``until``."""

    name: ClassVar[str] = "suspended"
    level: ClassVar[Level] = Level.WARNING
    reason: str
    until: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed(Event):
    """Writing is allowed again."""

    name: ClassVar[str] = "resumed"


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureEnded(Event):
    """A failure that was logged before is over; it was seen ``times`` times in a row, and logged when it began and changed."""

    name: ClassVar[str] = "failure.ended"
    failure: str
    times: int
    slug: str | None = None
    error: str | None = None


# The source


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceChanged(Event):
    """The source shows another revision than the last one that was read."""

    name: ClassVar[str] = "source.changed"
    revision: str
    previous: str | None = None
    subject: str | None = None
    author: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceUnchanged(Event):
    """The source shows the revision that was read last."""

    name: ClassVar[str] = "source.unchanged"
    level: ClassVar[Level] = Level.DEBUG
    revision: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFailed(Failure):
    """The source could not be read; the last good revision stays in force."""

    name: ClassVar[str] = "source.failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestRejected(Failure):
    """The manifest is broken; one event for each problem."""

    name: ClassVar[str] = "manifest.invalid"
    location: str | None = None
    code: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionInvalid(FunctionEvent):
    """One function's file or code cannot be used; the others go on."""

    name: ClassVar[str] = "function.invalid"
    level: ClassVar[Level] = Level.ERROR
    error: str
    location: str | None = None
    hint: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StateSetAside(Event):
    """The state database was torn, or written by a newer version; a new one was begun and learns from Kapso."""

    name: ClassVar[str] = "state.set_aside"
    level: ClassVar[Level] = Level.WARNING
    path: str


# The pass


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconcileStarted(Event):
    """A pass begins."""

    name: ClassVar[str] = "reconcile.started"
    level: ClassVar[Level] = Level.DEBUG
    trigger: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconcileFinished(Event):
    """A pass ended; ``failed`` and ``blocked`` say how well."""

    name: ClassVar[str] = "reconcile.finished"
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


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconcileFailed(Failure):
    """A pass could not go on as a whole."""

    name: ClassVar[str] = "reconcile.failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanComputed(Event):
    """What a pass is going to do: the counts, and each changed function's action, origin and fields."""

    name: ClassVar[str] = "plan.computed"
    summary: Mapping[str, int]
    functions: tuple[Mapping[str, object], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanNotice(Event):
    """A warning of the plan."""

    name: ClassVar[str] = "plan.warning"
    level: ClassVar[Level] = Level.WARNING
    code: str
    message: str
    location: str | None = None


# Functions


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionAdopted(FunctionEvent):
    """A function that was nobody's is ours now."""

    name: ClassVar[str] = "function.adopted"


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionCreated(FunctionEvent):
    """A function was created on Kapso; it is a draft until its deployment."""

    name: ClassVar[str] = "function.created"


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionUpdated(FunctionEvent):
    """Code or fields were written to Kapso."""

    name: ClassVar[str] = "function.updated"
    fields: tuple[str, ...]
    origin: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionRenamed(FunctionEvent):
    """A function got another slug; id, URL and secrets stay."""

    name: ClassVar[str] = "function.renamed"
    previous: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionDeleted(FunctionEvent):
    """A function was deleted from Kapso; ``backup`` names the copy that was saved before."""

    name: ClassVar[str] = "function.deleted"
    backup: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionBackedUp(FunctionEvent):
    """What is about to be overwritten or deleted was saved."""

    name: ClassVar[str] = "function.backed_up"
    backup: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionConflict(FunctionEvent):
    """Git wants a function that we must not touch, or that changed on both sides."""

    name: ClassVar[str] = "function.conflict"
    level: ClassVar[Level] = Level.WARNING
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionFailed(FunctionEvent):
    """A write about this function failed; it is tried again at the next pass."""

    name: ClassVar[str] = "function.failed"
    level: ClassVar[Level] = Level.ERROR
    error: str
    error_type: str
    hint: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftDetected(FunctionEvent):
    """Kapso shows something else than what we last wrote."""

    name: ClassVar[str] = "drift.detected"
    level: ClassVar[Level] = Level.WARNING
    fields: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftCorrected(FunctionEvent):
    """Git's version was written back."""

    name: ClassVar[str] = "drift.corrected"
    fields: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftIgnored(FunctionEvent):
    """The drift policy is ``report``: nothing was written."""

    name: ClassVar[str] = "drift.ignored"
    level: ClassVar[Level] = Level.WARNING
    fields: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionOscillating(FunctionEvent):
    """Each of three writes was undone on Kapso: we stop writing until git changes or a person asks."""

    name: ClassVar[str] = "function.oscillating"
    level: ClassVar[Level] = Level.ERROR
    fields: tuple[str, ...]
    hint: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionStalled(FunctionEvent):
    """The same code failed again and again; it is tried again at the slowest pace until git changes or a person asks."""

    name: ClassVar[str] = "function.stalled"
    level: ClassVar[Level] = Level.ERROR
    reason: str
    retry_in_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneBlocked(Event):
    """Deletions or recreations were held back; ``hint`` names the setting that allows them."""

    name: ClassVar[str] = "prune.blocked"
    level: ClassVar[Level] = Level.WARNING
    slugs: tuple[str, ...]
    reason: str
    hint: str | None = None


# Deployments


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployStarted(FunctionEvent):
    """Kapso accepted a deployment."""

    name: ClassVar[str] = "deploy.started"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploySucceeded(FunctionEvent):
    """The code that git wants is the code that runs."""

    name: ClassVar[str] = "deploy.succeeded"
    duration_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployFailed(FunctionEvent):
    """A deployment ended in ``error``, or was refused."""

    name: ClassVar[str] = "deploy.failed"
    level: ClassVar[Level] = Level.ERROR
    error: str
    hint: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployTimedOut(FunctionEvent):
    """A deployment did not end in time; it counts as failed."""

    name: ClassVar[str] = "deploy.timed_out"
    level: ClassVar[Level] = Level.ERROR
    timeout_s: float
    hint: str | None = None


# The API


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiCalled(Event):
    """One request was answered (or not: ``status`` None)."""

    name: ClassVar[str] = "api.called"
    level: ClassVar[Level] = Level.DEBUG
    method: str
    route: str
    status: int | None
    duration_ms: int
    rate_limit: int | None = None
    rate_remaining: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiRetry(Event):
    """A request is going to be repeated."""

    name: ClassVar[str] = "api.retry"
    level: ClassVar[Level] = Level.WARNING
    method: str
    route: str
    status: int | None
    attempt: int
    wait_s: float
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimitWaiting(Event):
    """The share of this minute's calls is spent; the next window is awaited. Once per window, not per call."""

    name: ClassVar[str] = "ratelimit.waiting"
    wait_s: float
    limit: int | None
    remaining: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKeyRejected(Failure):
    """Kapso does not accept the key; nothing is written until it changes."""

    name: ClassVar[str] = "api.unauthorized"
