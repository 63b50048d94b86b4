"""Reports what a pass did: one outcome for each function, and the counts that people read."""

from __future__ import annotations

import enum
from dataclasses import field, replace

from kapso_sync.advice import Advise
from kapso_sync.dataclass import dataclass
from kapso_sync.errors import ExitCode, KapsoSyncError
from kapso_sync.model.evidence import Evidence
from kapso_sync.model.plan import Plan, Step
from kapso_sync.model.settled import SettledPass
from kapso_sync.model.state import Quarantine


class Result(enum.StrEnum):
    """The result for one function."""

    DONE = "done"
    UNCHANGED = "unchanged"
    FAILED = "failed"
    BLOCKED = "blocked"
    INVALID = "invalid"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of one step. ``deployed``: new code was confirmed to run. ``error`` is one line.

    ``applied``: the write took effect although something else failed: Kapso refused a field, or lost a secret. ``refused`` are
    the fields that Kapso refused, now or before.

    ``blameless``: it failed, or was not tried, for a reason outside the function: Kapso is down, or a newer revision came.
    ``never_ran``: it failed, and there is no previous version. ``quarantine``: it failed, and the previous version was
    restored; ``held_back`` is the diff from that one to git then. ``evidence`` is what is known of a failed check, watch or
    deployment.
    """

    step: Step
    result: Result
    function_id: str | None = None
    deployed: bool = False
    error: str | None = None
    hint: str | None = None
    backup: str | None = None
    blameless: bool = False
    never_ran: bool = False
    quarantine: Quarantine | None = None
    applied: bool = False
    refused: tuple[str, ...] = ()
    evidence: Evidence | None = None
    held_back: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of a pass. ``halted`` is the error that stopped the rest of it, if any.

    ``superseded``: a newer revision came, so the next pass continues with everything that was not finished. ``settled``: the
    pass found every function in sync, and would find the same again.
    """

    plan: Plan
    outcomes: tuple[Outcome, ...]
    api_calls: int = 0
    seconds: float = 0.0
    halted: KapsoSyncError | None = None
    superseded: bool = False
    settled: SettledPass | None = None

    def advised(self, advise: Advise) -> Report:
        """Return the report with the commands in its hints and warnings completed."""
        outcomes = (replace(outcome, hint=advise(outcome.hint)) if outcome.hint else outcome for outcome in self.outcomes)
        return replace(self, plan=self.plan.advised(advise), outcomes=tuple(outcomes))

    def count(self, action: str) -> int:
        """Return how many steps of this action were done."""
        done = (outcome for outcome in self.outcomes if outcome.result is Result.DONE or outcome.applied)
        return sum(1 for outcome in done if outcome.step.action == action)

    def results(self, *results: Result) -> tuple[Outcome, ...]:
        """Return the outcomes with one of these results."""
        return tuple(outcome for outcome in self.outcomes if outcome.result in results)

    @property
    def deployed(self) -> int:
        """Number of functions that run new code now."""
        return sum(1 for outcome in self.outcomes if outcome.deployed)

    @property
    def failed(self) -> int:
        """Number of functions that failed, were skipped, or are invalid in git; superseded ones did not fail."""
        skipped = () if self.superseded else (Result.SKIPPED,)
        return len(self.results(Result.FAILED, *skipped, Result.INVALID))

    @property
    def drifted(self) -> int:
        """Number of functions that had drifted."""
        return sum(1 for outcome in self.outcomes if outcome.step.drifted)

    @property
    def result(self) -> str:
        """How the pass ended, in a word: ``success``, ``failed`` or ``superseded``."""
        if self.failed or self.results(Result.BLOCKED) or self.halted is not None:
            return "failed"
        return "superseded" if self.superseded else "success"

    @property
    def exit_code(self) -> ExitCode:
        """The exit code of ``sync``."""
        if self.halted is not None:
            return self.halted.exit_code
        wrong = self.failed or self.results(Result.BLOCKED)
        return ExitCode.FUNCTION_FAILED if wrong else ExitCode.OK
