"""De-duplicates a daemon's log: no line while nothing happens, and a lasting failure once, not every minute."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from kapso_sync.dataclass import dataclass
from kapso_sync.model import events
from kapso_sync.model.clock import Clock
from kapso_sync.model.events import Event, Level

Log = Callable[[Event, Level], None]
"""Writes an event at a level."""

_REPEATED_WHILE_TRUE = (
    events.Failure,
    events.FunctionFailed,
    events.FunctionInvalid,
    events.FunctionConflict,
    events.FunctionOscillating,
    events.FunctionStalled,
    events.DeployFailed,
    events.DeployTimedOut,
    events.DriftDetected,
    events.DriftIgnored,
    events.PruneBlocked,
    events.PrunePending,
    events.PlanNotice,
)
"""Events that report a state rather than a moment: each pass emits them again as long as the state lasts."""

_NO_END_LOGGED = (events.PlanNotice, events.DriftDetected, events.PrunePending)
"""The end of these is not logged."""

REFUSAL_INTERVAL = 300.0
"""Least time in seconds between two lines about refused pushes of one reason: anybody can send them."""

_UNEVENTFUL = frozenset({"plan.computed", "reconcile.finished", "source.unchanged", "reconcile.started", "trigger.received"})


@dataclass(slots=True)
class _OngoingEvent:
    event: Event
    times: int = 1
    seen: bool = True


class DeduplicatingLog:
    """A listener for a daemon.

    A pass in which nothing happened is one debug line; a lasting failure is logged when it begins, changes and ends.
    """

    def __init__(self, log: Log, clock: Clock) -> None:
        self._log = log
        self._clock = clock
        self._held: list[Event] | None = None
        self._lasting: dict[tuple[object, ...], _OngoingEvent] = {}
        self._refusals: dict[str, float] = {}

    def __call__(self, event: Event) -> None:
        """Log the event, keep it until it is known whether the pass is worth a line, or drop it."""
        if isinstance(event, events.WebhookRefused):
            self._log_refusal(event)
            return
        if isinstance(event, events.ReconcileStarted):
            self._held = []
            for lasting in self._lasting.values():
                lasting.seen = False
        if isinstance(event, events.LeaseLost | events.LeaseReleased):
            self._held = None  # The pass ends without a word.
        repeats = isinstance(event, _REPEATED_WHILE_TRUE) and not isinstance(event, events.LeaseFailed)
        if not (repeats and self._known(event)):
            self._log_or_hold(event)
        if isinstance(event, events.ReconcileFinished | events.ReconcileFailed):
            self._end_pass(whole=isinstance(event, events.ReconcileFinished))

    def _log_refusal(self, event: events.WebhookRefused) -> None:
        """Log a refused push, which belongs to no pass, unless one of the same reason was logged a short time ago."""
        now = self._clock.monotonic()
        last = self._refusals.get(event.reason)
        if last is None or now - last >= REFUSAL_INTERVAL:
            self._refusals[event.reason] = now
            self._log(event, event.level)

    def _log_or_hold(self, event: Event) -> None:
        if isinstance(event, events.ApiRetry) and self._outage():
            self._log(event, Level.DEBUG)
        elif self._held is None:
            self._log(event, event.level)
        elif _uneventful(event):
            self._held.append(event)
        else:
            self._flush()
            self._log(event, event.level)

    def _known(self, event: Event) -> bool:
        key = _key(event)
        lasting = self._lasting.get(key)
        if lasting is not None and lasting.event == event:
            lasting.times += 1
            lasting.seen = True
            return True
        self._lasting[key] = _OngoingEvent(event)
        return False

    def _outage(self) -> bool:
        """Return whether the last pass failed as a whole: then every retry belongs to a failure that was logged."""
        return any(isinstance(lasting.event, events.ReconcileFailed) for lasting in self._lasting.values())

    def _flush(self) -> None:
        held, self._held = self._held or [], []
        for event in held:
            self._log(event, event.level)

    def _end_pass(self, *, whole: bool) -> None:
        """Log the failures that have ended; a pass that failed as a whole says nothing about functions."""
        held, self._held = self._held or [], None
        for event in held:
            if isinstance(event, events.ReconcileFinished):
                self._log(event, Level.DEBUG)
        for key, lasting in list(self._lasting.items()):
            if not lasting.seen and (whole or isinstance(lasting.event, events.Failure)):
                del self._lasting[key]
                self._ended(lasting)

    def _ended(self, lasting: _OngoingEvent) -> None:
        event = lasting.event
        if isinstance(event, _NO_END_LOGGED):
            return
        slug, error = getattr(event, "slug", None), getattr(event, "error", None) or getattr(event, "reason", None)
        told = events.FailureEnded(failure=event.name, times=lasting.times, slug=slug, error=error)
        self._log(told, told.level)


def _key(event: Event) -> tuple[object, ...]:
    """Return the key that reports of the same failure share; a manifest or plan may have several failures, by location."""
    names = ("slug", "task", "code", "location")
    extra = (event.message,) if isinstance(event, events.PlanNotice) else ()
    return (event.name, *(getattr(event, name, None) for name in names), *extra)


def _uneventful(event: Event) -> bool:
    if isinstance(event, events.PlanComputed):
        return all(function.get("action") in ("blocked", "invalid") for function in event.functions)
    if isinstance(event, events.ReconcileFinished):
        counts = dataclasses.asdict(event)
        return not any(counts[name] for name in ("created", "updated", "deployed", "deleted", "adopted"))
    return event.name in _UNEVENTFUL or event.level is Level.DEBUG
