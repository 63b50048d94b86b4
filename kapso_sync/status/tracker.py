"""Tracks the status: turns events and passes into the `DaemonStatus` that page, JSON and metrics show."""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import field, replace
from datetime import datetime, timedelta
from typing import Any, Protocol

from kapso_sync.dataclass import dataclass
from kapso_sync.errors import InvalidSource, KapsoSyncError, SourceUnverified
from kapso_sync.model import events
from kapso_sync.model.clock import Clock
from kapso_sync.model.events import Event, Level
from kapso_sync.model.plan import Delete, Plan
from kapso_sync.model.report import Outcome, Report, Result
from kapso_sync.model.source import Revision
from kapso_sync.model.status import (
    ActivityHour,
    ConditionType,
    DaemonStatus,
    FunctionStatus,
    PassStatus,
    RateLimit,
    RecentEvent,
    ReplicaStatus,
    Role,
    RunningPass,
    Shared,
    Suspension,
    recorded_activity,
    recorded_functions,
    recorded_revision,
    same_objects,
)
from kapso_sync.status.conditions import Redact, concluded, reconciling, stalled
from kapso_sync.status.event_text import event_text

RECENT = 20
DAY = timedelta(hours=24)
_NOT_RECENT = frozenset({"plan.computed", "reconcile.finished", "plan.warning", "source.unchanged", "daemon.state"})


class Failing(Protocol):
    """A function in back-off; ``retry_in`` is in seconds."""

    @property
    def slug(self) -> str:
        """The function's slug."""
        ...

    @property
    def stalled(self) -> bool:
        """Whether it failed often enough to need a person."""
        ...

    @property
    def retry_at(self) -> float:
        """When it is retried, in monotonic seconds."""
        ...


@dataclass
class _Pass:
    """The pass that runs now; ``revision`` is what it has read."""

    trigger: str
    since: datetime
    started: float
    revision: Revision | None = None


@dataclass
class StatusTracker:
    """Follows events and passes. ``redact`` removes secrets from texts."""

    clock: Clock
    version: str
    source: str
    owner: str | None = None
    redact: Callable[[str], str] = str
    _started_at: datetime = field(init=False)
    _functions: Mapping[str, FunctionStatus] = field(default_factory=dict)
    _recorded: Mapping[str, FunctionStatus] = field(default_factory=dict)
    _sorted: tuple[Mapping[str, FunctionStatus], tuple[FunctionStatus, ...]] = ({}, ())
    _showed: tuple[FunctionStatus, ...] = ()
    _events: deque[RecentEvent] = field(default_factory=lambda: deque(maxlen=RECENT))
    _deploying: dict[str, datetime] = field(default_factory=dict)
    _revision: tuple[Revision, datetime] | None = None
    _read: Revision | None = None
    _broken_by: Revision | None = None
    _running: _Pass | None = None
    _last: PassStatus | None = None
    _last_success: datetime | None = None
    _next_check: datetime | None = None
    _next_retry: datetime | None = None
    _budget: RateLimit | None = None
    _warnings: tuple[str, ...] = ()
    _retries: dict[str, Failing] = field(default_factory=dict)
    _activity: tuple[ActivityHour, ...] = ()
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _passed: asyncio.Event = field(default_factory=asyncio.Event)
    suspension: Suspension | None = None
    unused: tuple[str, ...] | None = None
    watched: Mapping[str, datetime] = field(default_factory=dict)
    replica: Callable[[], ReplicaStatus] | None = None

    def __post_init__(self) -> None:
        self._started_at = self.clock.now()

    def __call__(self, event: Event) -> None:
        """Process an event."""
        now = self.clock.now()
        match event:
            case events.ApiCalled():
                if event.rate_limit is not None and event.rate_remaining is not None:
                    self._budget = RateLimit(event.rate_limit, event.rate_remaining)
                return
            case events.WebhookRefused():
                return  # anybody can send them, and would push everything else off the page
            case events.SourceChanged() | events.SourceUnchanged():
                self._note_revision(event)
            case events.DeployStarted():
                self._deploying[event.slug] = now
            case events.DeploySucceeded():
                self._deploying.pop(event.slug, None)
                self._count(now, deployed=1)
            case events.DeployFailed() | events.DeployTimedOut():
                self._deploying.pop(event.slug, None)
                self._count(now, failed=1)
            case events.CheckFailed() | events.WatchFailed():
                self._count(now, failed=1)
            case _:
                pass
        if event.level is not Level.DEBUG and event.name not in _NOT_RECENT:
            slug = getattr(event, "slug", None)
            self._note(RecentEvent(now, str(event.level), event.name, self.redact(event_text(event)), slug))
        self._tell()

    def _note(self, event: RecentEvent) -> None:
        """Put an event first in the list; a lasting failure is listed once, with the time of its last report."""
        if event.level != Level.INFO:
            same = [old for old in self._events if replace(old, at=event.at) == event]
            for old in same:
                self._events.remove(old)
        self._events.appendleft(event)

    def _count(self, now: datetime, *, deployed: int = 0, failed: int = 0) -> None:
        """Count something in the present hour, and forget those that are a day old."""
        start = now.replace(minute=0, second=0, microsecond=0)
        *before, last = self._activity or (ActivityHour(start),)
        if last.start != start:
            before, last = [*before, last], ActivityHour(start)
        counted = replace(last, deployed=last.deployed + deployed, failed=last.failed + failed)
        self._activity = tuple(hour for hour in (*before, counted) if start - DAY < hour.start <= start)

    def opened(self, source: str, owner: str) -> None:
        """Record that a session was opened for this source."""
        self.source, self.owner = source, owner

    def replicated(self, replica: Callable[[], ReplicaStatus]) -> None:
        """Show this replica's role from now on."""
        self.replica = replica

    def role_changed(self) -> None:
        """Record that the role or the leader has changed."""
        self._forget_if_standby()
        self._tell()

    def _forget_if_standby(self) -> None:
        """Forget what was known of Kapso, which grows old while another replica writes."""
        if self.replica is not None and self.replica().role is Role.STANDBY and self._running is None:
            self._functions, self._last, self._warnings, self._retries = {}, None, (), {}
            self._next_retry, self._budget, self.unused = None, None, None

    def recall(self, document: Mapping[str, Any]) -> None:
        """Continue a status document that was recorded before this process.

        Functions are shown after the first pass only, even if it fails; but since when they are ready, and what was changed
        last, goes on.
        """
        self._recorded = recorded_functions(document)
        self._revision = self._revision or recorded_revision(document)
        self._activity = self._activity or recorded_activity(document)

    def show_unused(self, slugs: tuple[str, ...] | None) -> None:
        """Record the functions that nothing uses; None: unknown."""
        self.unused = slugs

    def show_watched(self, until: Mapping[str, datetime]) -> None:
        """Record until when functions are watched after a deployment, by slug."""
        if until != self.watched:
            self.watched = until
            self._tell()

    def began(self, trigger: str) -> None:
        """Record that a pass begins."""
        self._running = _Pass(trigger, self.clock.now(), self.clock.monotonic())
        self._tell()

    def planned(self, plan: Plan) -> None:
        """Record the plan of the pass: its functions are reconciling."""
        now = self.clock.now()
        self._broken_by = None
        known, since = self._revision or (None, now)
        # The same files may be called otherwise by now: by another commit of their work tree.
        self._revision = (plan.revision, since if known is not None and known.id == plan.revision.id else now)
        self.owner = plan.owner
        self._warnings = tuple(notice.message for notice in plan.notices)
        touched = {step.slug for step in plan.changes}
        found = {
            step.slug: reconciling(self._before(step.slug), step, plan.revision.id, now, self.redact)
            for step in plan.steps
            if step.slug in touched
        }
        self._functions = {**self._functions, **found}
        self._tell()

    def ended(self, report: Report) -> None:
        """Record the report of a pass."""
        for _ in self.ended_in_slices(report):
            pass

    def ended_in_slices(self, report: Report) -> Generator[None, None, None]:
        """Record the report of a pass, and pause after each function; until the end nothing of it is shown."""
        now = self.clock.now()
        redact, shared = functools.cache(self.redact), Shared()  # a thousand functions have few different messages
        concluded = {}
        for outcome in report.outcomes:
            if not (isinstance(outcome.step, Delete) and outcome.result is Result.DONE):
                status = self._concluded(outcome, report.plan.revision, now, redact)
                if status is not self._before(status.slug):
                    status = replace(status, conditions=shared(status.conditions))
                concluded[status.slug] = status
            yield
        self._functions = concluded
        self._recorded = {}
        halted = report.halted
        self._pass_over(
            now, int(report.exit_code), report.plan.summary, halted, api_calls=report.api_calls, seconds=report.seconds
        )

    def failed(self, error: BaseException) -> None:
        """Record that nothing could be planned; the status of functions stays."""
        code = int(error.exit_code) if isinstance(error, KapsoSyncError) else 1
        running = self._running
        seconds = self.clock.monotonic() - running.started if running else 0.0
        self._functions = self._functions or dict(self._recorded)
        known = KapsoSyncError(str(error)) if not isinstance(error, KapsoSyncError) else error
        if isinstance(error, InvalidSource) and self._broken_by is None and running is not None:
            self._broken_by = running.revision
        self._pass_over(self.clock.now(), code, {}, known, api_calls=0, seconds=seconds)
        self._last = replace(self._last, error_type=type(error).__name__) if self._last else None

    def waiting(self, retry_in: float | None, failing: Sequence[Failing]) -> None:
        """Record the functions in back-off, and when the next retry is due; functions that failed too often are stalled."""
        self._retries = {item.slug: item for item in failing}
        for item in failing:
            function = self._functions.get(item.slug)
            if item.stalled and function is not None and not function.condition(ConditionType.STALLED).status:
                self._functions = {**self._functions, item.slug: stalled(function, self.clock.now())}
                self._tell()
        self._next_retry = None if retry_in is None else self.clock.now() + timedelta(seconds=retry_in)

    def suspended(self, suspension: Suspension | None) -> None:
        """Record a suspension, or its end."""
        self.suspension = suspension
        self._tell()

    def next_check(self, moment: datetime | None) -> None:
        """Record when the next pass is due in any case."""
        self._next_check = moment

    def status(self) -> DaemonStatus:
        """Return the status now."""
        replica = self.replica() if self.replica is not None else None
        standby = replica is not None and replica.role is Role.STANDBY
        revision = self._revision[0] if self._revision else None
        moments = [moment for moment in (self._next_check, self._next_retry) if moment is not None]
        return DaemonStatus(
            version=self.version,
            now=self.clock.now(),
            started_at=self._started_at,
            source=self.source,
            owner=self.owner,
            revision=self._read or revision if standby else revision,
            revision_since=self._revision[1] if self._revision and not standby else None,
            functions=self._shown(),
            events=tuple(self._events),
            last_pass=self._last,
            last_success_at=self._last_success,
            running=RunningPass(self._running.trigger, self._running.since) if self._running else None,
            reading=self._running.revision if self._running else None,
            next_check_at=min(moments) if moments and self.suspension is None else None,
            budget=self._budget,
            suspension=self.suspension,
            warnings=self._warnings,
            unused=self.unused,
            replica=replica,
            activity=self._activity,
        )

    def _shown(self) -> tuple[FunctionStatus, ...]:
        """Return the functions by slug, with what is known of them now; the same tuple while nothing has changed."""
        if self._sorted[0] is not self._functions:
            self._sorted = self._functions, tuple(self._functions[slug] for slug in sorted(self._functions))
        found, moving = self._sorted[1], {*self._retries, *self._deploying, *self.watched}
        if moving:
            found = tuple(self._live(function) if function.slug in moving else function for function in found)
        if not same_objects(found, self._showed):
            self._showed = found
        return self._showed

    async def changed(self) -> None:
        """Wait until something changes."""
        await self._changed.wait()

    async def passed(self) -> int:
        """Wait until a pass ends, and return its exit code."""
        await self._passed.wait()
        return self._last.exit_code if self._last else 0

    def _note_revision(self, event: events.SourceChanged | events.SourceUnchanged) -> None:
        if isinstance(event, events.SourceChanged):
            self._read = Revision(event.revision, subject=event.subject, author=event.author)
        if self._running is not None:
            self._running.revision = self._read

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _pass_over(
        self,
        now: datetime,
        code: int,
        summary: Mapping[str, int],
        error: KapsoSyncError | None,
        *,
        api_calls: int,
        seconds: float,
    ) -> None:
        trigger = self._running.trigger if self._running else "sync"
        message = self.redact(error.message) if error is not None else None
        hint = error.hint if error is not None else None
        kind = type(error).__name__ if error is not None else None
        revision = self._running.revision if self._running else None
        if isinstance(error, SourceUnverified):
            revision = Revision(error.commit)
        issue = error.issue if error is not None else None
        broken = self._broken_by
        self._last = PassStatus(
            now, trigger, code, seconds, api_calls, dict(summary), message, hint, kind, revision, issue, broken
        )
        self._running = None
        self._deploying.clear()
        if self.status().in_sync:
            self._last_success = now
        self._forget_if_standby()
        self._passed.set()
        self._passed = asyncio.Event()
        self._tell()

    def _before(self, slug: str) -> FunctionStatus | None:
        """Return the function's status before the pass, from another process if there is none of this one."""
        return self._functions.get(slug) or self._recorded.get(slug)

    def _live(self, function: FunctionStatus) -> FunctionStatus:
        """Return the status of a function that is deployed, watched or retried, with what is known of that now."""
        retry = self._retries.get(function.slug)
        watched_until = self.watched.get(function.slug)
        wait = None if retry is None else max(0.0, retry.retry_at - self.clock.monotonic())
        retry_at = None if wait is None else self.clock.now() + timedelta(seconds=wait)
        deploying = self._deploying.get(function.slug)
        return replace(function, deploying_since=deploying, retry_at=retry_at, watched_until=watched_until)

    def _concluded(self, outcome: Outcome, revision: Revision, now: datetime, redact: Redact) -> FunctionStatus:
        slug = outcome.step.slug
        retry = self._retries.get(slug)
        failing_too_often = retry is not None and retry.stalled
        return concluded(self._before(slug), outcome, revision, now, redact, failing_too_often=failing_too_often)
