"""Stops a rollout: nothing starts before the canary is ready, or after too many failures."""

from __future__ import annotations

from kapso_sync.model.desired import RolloutPolicy
from kapso_sync.model.plan import Blocked, BlockedBy
from kapso_sync.model.report import Outcome, Result


class RolloutGate:
    """Receives outcomes. A failure of an earlier pass, in back-off or in quarantine, counts as well."""

    def __init__(self, policy: RolloutPolicy) -> None:
        self._policy = policy
        self._failures = 0
        self._canary: str | None = None

    def learn(self, outcome: Outcome) -> None:
        """Count the outcome of one step."""
        step = outcome.step
        if step.slug == self._policy.canary and outcome.result not in (Result.DONE, Result.UNCHANGED):
            self._canary = outcome.error or str(outcome.result)
        failed_before = isinstance(step, Blocked) and step.by in (BlockedBy.BACK_OFF, BlockedBy.QUARANTINE)
        if failed_before or (outcome.result is Result.FAILED and not outcome.blameless):
            self._failures += 1

    @property
    def reason(self) -> str | None:
        """Why nothing more may start, or None."""
        if self._canary is not None:
            return f"the canary `{self._policy.canary}` is not as git says: {self._canary}"
        most = self._policy.max_failures
        if most is not None and self._failures >= most:
            return f"{self._failures} functions failed, and `max_failures` is {most}"
        return None
