"""What the daemon tells of itself: its life, its triggers, its settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from kapso_sync.model.events.base import Event, Failure, Level


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


@dataclass(frozen=True, slots=True, kw_only=True)
class NotificationSent(Event):
    """A message went out that told so many changes; the destination is named by its kind and line, never by its address."""

    name: ClassVar[str] = "notification.sent"
    destination: str
    changes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NotificationFailed(Event):
    """A destination does not take messages; told when that begins and changes, and `failure.ended` when it is over."""

    name: ClassVar[str] = "notification.failed"
    level: ClassVar[Level] = Level.WARNING
    destination: str
    error: str
    hint: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitStatusSet(Event):
    """A commit's status was set at the forge."""

    name: ClassVar[str] = "commit_status.set"
    level: ClassVar[Level] = Level.DEBUG
    commit: str
    state: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitStatusFailed(Event):
    """The forge does not take a commit's status; told when that begins and changes, and `failure.ended` when it is over."""

    name: ClassVar[str] = "commit_status.failed"
    level: ClassVar[Level] = Level.WARNING
    commit: str
    error: str
    hint: str | None = None
