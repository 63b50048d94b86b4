"""What a pass tells: the source, the plan, its end, and the calls that it makes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from kapso_sync.model.events.base import Event, Failure, FunctionEvent, Level


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


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconcileStarted(Event):
    """A pass begins."""

    name: ClassVar[str] = "reconcile.started"
    level: ClassVar[Level] = Level.DEBUG
    trigger: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconcileFinished(Event):
    """A pass ended; ``result`` is ``success``, ``failed``, or ``superseded`` by a newer revision."""

    name: ClassVar[str] = "reconcile.finished"
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
