"""Per-function retry backoff: a failing function waits, so that a bad deployment is not repeated in every pass."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace

from kapso_sync.dataclass import dataclass
from kapso_sync.model.clock import Clock
from kapso_sync.model.plan import Blocked, BlockedBy, Plan, Step, block
from kapso_sync.model.report import Outcome, Report, Result
from kapso_sync.retry import Backoff

BACKOFF = Backoff(initial=5.0, maximum=900.0)
"""Seconds to wait after the first failure, and the maximum; full jitter draws a value below that."""

STALLED_AFTER = 5
"""After this many failures of the same content, a function is stalled: it is retried at the longest delay, without end."""

STALLED_AFTER_IF_NEVER_RAN = 2
"""The same limit for code that has no earlier version to roll back to: each of its failures is a deployment and its retry."""

MIN_DELAY = 1.0
"""Minimum delay in seconds; jitter never draws less."""


@dataclass(frozen=True, slots=True)
class FailingFunction:
    """A function that failed with this desired content: how often, why, and when it is retried (monotonic seconds)."""

    slug: str
    desired_hash: str | None
    failures: int
    error: str
    retry_at: float
    stalled_after: int = STALLED_AFTER

    @property
    def stalled(self) -> bool:
        """Whether it failed often enough that a person must act."""
        return self.failures >= self.stalled_after


class FunctionBackoff:
    """Remembers which functions failed. ``random`` returns a number from 0 to 1."""

    def __init__(self, clock: Clock, random: Callable[[], float]) -> None:
        self._clock = clock
        self._random = random
        self._failing: dict[str, FailingFunction] = {}

    def filter_plan(self, plan: Plan) -> Plan:
        """Return the plan in which each step is blocked until its retry is due.

        New content in git starts from zero failures.
        """
        changing = {step.slug for step in plan.changes}
        return replace(plan, steps=tuple(self._filtered(step) if step.slug in changing else step for step in plan.steps))

    def _filtered(self, step: Step) -> Step:
        failing = self._failing.get(step.slug)
        now = self._clock.monotonic()
        if failing is None or failing.desired_hash != step.desired_hash or now >= failing.retry_at:
            return step
        times = "once" if failing.failures == 1 else f"{failing.failures} times"
        return block(
            step,
            BlockedBy.BACK_OFF,
            f"failed {times} with this code: {failing.error}",
            f"tried again in {_duration_text(failing.retry_at - now)}; `kapso-sync reconcile` tries now",
        )

    def record(self, report: Report) -> tuple[FailingFunction, ...]:
        """Record how a pass ended; return the functions that have just become stalled."""
        before, self._failing = self._failing, {}
        stalled = []
        for outcome in report.outcomes:
            step = outcome.step
            if outcome.result is Result.FAILED and not (outcome.quarantine or outcome.blameless or outcome.refused):
                failing = self._failing[step.slug] = self._failed_again(outcome, before.get(step.slug))
                if failing.failures == failing.stalled_after:
                    stalled.append(failing)
            elif step.slug in before and _still_waiting(outcome):
                self._failing[step.slug] = self._not_due_at_once(before[step.slug])
        return tuple(stalled)

    def _not_due_at_once(self, failing: FailingFunction) -> FailingFunction:
        """Postpone a retry that was due but not tried.

        Otherwise, passes that end before that step would follow each other without a pause.
        """
        now = self._clock.monotonic()
        return failing if failing.retry_at > now else replace(failing, retry_at=now + BACKOFF.initial)

    def _failed_again(self, outcome: Outcome, before: FailingFunction | None) -> FailingFunction:
        step = outcome.step
        same_content = before is not None and before.desired_hash == step.desired_hash
        failures = before.failures + 1 if before is not None and same_content else 1
        stalled_after = STALLED_AFTER_IF_NEVER_RAN if outcome.never_ran else STALLED_AFTER
        stalled = failures >= stalled_after
        delay = BACKOFF.maximum if stalled else max(BACKOFF.jittered(failures, self._random()), MIN_DELAY)
        retry_at = self._clock.monotonic() + delay
        return FailingFunction(step.slug, step.desired_hash, failures, outcome.error or "", retry_at, stalled_after)

    def reset(self, slugs: Collection[str] | None = None) -> None:
        """Forget the failures of all functions, or only of ``slugs``, because a person asked for a retry."""
        self._failing = {} if slugs is None else {s: f for s, f in self._failing.items() if s not in slugs}

    @property
    def failing(self) -> tuple[FailingFunction, ...]:
        """All failing functions, by slug."""
        return tuple(self._failing[slug] for slug in sorted(self._failing))

    def next_retry(self) -> float | None:
        """Return in how many seconds the next retry is due; None if no function is failing."""
        if not self._failing:
            return None
        return max(0.0, min(failing.retry_at for failing in self._failing.values()) - self._clock.monotonic())


def _still_waiting(outcome: Outcome) -> bool:
    """Return whether an earlier failure is still the reason why a function is not tried; any other outcome ends its backoff."""
    step = outcome.step
    return (
        outcome.result is Result.SKIPPED or outcome.blameless or (isinstance(step, Blocked) and step.by is BlockedBy.BACK_OFF)
    )


def _duration_text(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
