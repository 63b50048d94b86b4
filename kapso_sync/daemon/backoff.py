"""Spacing out what keeps failing, function by function: a bad deployment must not be asked for in every pass."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from kapso_sync.model.clock import Clock
from kapso_sync.model.plan import Blocked, Plan, Step, block
from kapso_sync.model.report import Outcome, Report, Result

INITIAL_DELAY = 5.0
MAX_DELAY = 900.0
"""Seconds to wait after the first failure, and at most; full jitter is drawn below that."""

STALLED_AFTER = 5
"""So many failures of the same content in a row, and a function is stalled: tried at the slowest pace, never given up."""


STALLED_AFTER_IF_NEVER_RAN = 2
"""The same for code with nothing to go back to: each failure is a deployment and its retry."""


@dataclass(frozen=True, slots=True)
class FailingFunction:
    """A function that failed with this desired content: how often, why, and when it is tried again (monotonic seconds)."""

    slug: str
    desired_hash: str | None
    failures: int
    error: str
    retry_at: float
    patience: int = STALLED_AFTER

    @property
    def stalled(self) -> bool:
        """Tell whether it failed too often to hope for a passing trouble."""
        return self.failures >= self.patience


class FunctionBackoff:
    """Remembers who failed. ``random`` draws from 0 to 1."""

    def __init__(self, clock: Clock, random: Callable[[], float]) -> None:
        self._clock = clock
        self._random = random
        self._failing: dict[str, FailingFunction] = {}

    def hold(self, plan: Plan) -> Plan:
        """Return the plan with those steps held back whose time has not come; other content is a new beginning."""
        changing = {step.slug for step in plan.changes}
        return replace(plan, steps=tuple(self._held(step) if step.slug in changing else step for step in plan.steps))

    def _held(self, step: Step) -> Step:
        failing = self._failing.get(step.slug)
        now = self._clock.monotonic()
        if failing is None or failing.desired_hash != step.desired_hash or now >= failing.retry_at:
            return step
        times = "once" if failing.failures == 1 else f"{failing.failures} times"
        return block(
            step,
            f"failed {times} with this code: {failing.error}",
            f"tried again in {_duration_text(failing.retry_at - now)}; `kapso-sync reconcile` tries now",
            deferred=True,
        )

    def learn(self, report: Report) -> tuple[FailingFunction, ...]:
        """Take note of what came of a pass; return those that have just become stalled."""
        before, self._failing = self._failing, {}
        stalled = []
        for outcome in report.outcomes:
            step = outcome.step
            if outcome.result is Result.FAILED and outcome.quarantine is None and not outcome.blameless:
                failing = self._failing[step.slug] = self._again(outcome, before.get(step.slug))
                if failing.failures == failing.patience:
                    stalled.append(failing)
            elif step.slug in before and _still_held(outcome):
                self._failing[step.slug] = self._not_at_once(before[step.slug])
        return tuple(stalled)

    def _not_at_once(self, failing: FailingFunction) -> FailingFunction:
        """What was due and not tried is not due again at once: passes that never get so far must not follow in a circle."""
        now = self._clock.monotonic()
        return failing if failing.retry_at > now else replace(failing, retry_at=now + INITIAL_DELAY)

    def _again(self, outcome: Outcome, before: FailingFunction | None) -> FailingFunction:
        step = outcome.step
        same = before is not None and before.desired_hash == step.desired_hash
        failures = before.failures + 1 if before is not None and same else 1
        patience = STALLED_AFTER_IF_NEVER_RAN if outcome.never_ran else STALLED_AFTER
        pace = MAX_DELAY if failures >= patience else min(INITIAL_DELAY * 2.0 ** (failures - 1), MAX_DELAY)
        wait = max(pace * self._random(), 1.0) if failures < patience else pace
        error = outcome.error or ""
        return FailingFunction(step.slug, step.desired_hash, failures, error, self._clock.monotonic() + wait, patience)

    def forgive(self, slugs: Collection[str] | None = None) -> None:
        """Forget failures, of everyone or of these: a person asked."""
        self._failing = {} if slugs is None else {s: f for s, f in self._failing.items() if s not in slugs}

    @property
    def failing(self) -> tuple[FailingFunction, ...]:
        """Everyone who failed, by slug."""
        return tuple(self._failing[slug] for slug in sorted(self._failing))

    def next_retry(self) -> float | None:
        """Return in how many seconds the next one is due; None when nobody waits."""
        if not self._failing:
            return None
        return max(0.0, min(failing.retry_at for failing in self._failing.values()) - self._clock.monotonic())


def _still_held(outcome: Outcome) -> bool:
    """Tell whether a failure of before is still what keeps a function from being tried; whatever else came of it ends that."""
    step = outcome.step
    return outcome.result is Result.SKIPPED or outcome.blameless or (isinstance(step, Blocked) and step.deferred)


def _duration_text(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
