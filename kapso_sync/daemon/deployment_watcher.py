"""Reads the invocations of functions that were just deployed, and requests a pass when one of them fails too often.

It writes nothing to Kapso: it stores what it found, and the pass plans from that. So a verdict outlives a restart, and nothing
is taken back beside a pass.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Protocol

from kapso_sync.aio import first_of
from kapso_sync.dataclass import dataclass
from kapso_sync.errors import ApiError, NotLeading
from kapso_sync.model import events
from kapso_sync.model.clock import Clock
from kapso_sync.model.evidence import Evidence
from kapso_sync.model.functions import InvocationRecord
from kapso_sync.model.state import DeploymentWatch, WatchFinding
from kapso_sync.reconcile.plan.watching import (
    LOOK_INTERVAL,
    Verdict,
    count_invocations,
    counts_text,
    failures_in,
    judge,
    with_invocations,
)

LOOK_SHARE = 0.1
"""Most of our share of the rate limit that is spent on looks; with more functions than that, each waits its turn."""

RECHECK = 60.0
"""Seconds after which a daemon that may not look sees whether it may again, if nothing wakes it."""


class WatchedFunctions(Protocol):
    """The part of a session that the watcher uses."""

    @property
    def calls_per_second(self) -> float | None:
        """How many calls a second may be spent on Kapso; None while no limit is known."""
        ...

    def watches(self) -> Sequence[DeploymentWatch]:
        """Return all watches. Raises `StateUnusable`."""
        ...

    def remember_watch(self, watch: DeploymentWatch) -> bool:
        """Store a watch, if it is still that of the function's last deployment. Raises `StateUnusable`."""
        ...

    def end_watch(self, watch: DeploymentWatch) -> bool:
        """Forget a watch that the deployment stood, if it is still that of its last one. Raises `StateUnusable`."""
        ...

    async def read_invocations(self, function_id: str) -> Sequence[InvocationRecord]:
        """Return the newest invocations of a function. Raises `ApiError` and `NotLeading`."""
        ...

    async def evidence(self, watch: DeploymentWatch, failure: InvocationRecord) -> tuple[str, Evidence]:
        """Return the error of a failed invocation in one line, and its evidence. Raises `NotLeading`."""
        ...

    def report(self, event: events.Event) -> None:
        """Emit an event, and record it in the history."""
        ...


@dataclass(slots=True)
class _Turn:
    """When a watch is looked at next, and when it ends, on the monotonic clock."""

    deployed_at: datetime | None
    due: float
    end: float


class DeploymentWatcher:
    """Looks at each watched function at most once a minute, and once at the end of its watch.

    ``may_look`` says whether this daemon may ask Kapso now. ``show`` gets, by slug, until when functions are watched.
    ``request_pass`` is called when one has failed.
    """

    def __init__(
        self,
        functions: WatchedFunctions,
        clock: Clock,
        *,
        may_look: Callable[[], bool],
        show: Callable[[Mapping[str, datetime]], None],
        request_pass: Callable[[], None],
    ) -> None:
        self._functions = functions
        self._clock = clock
        self._may_look = may_look
        self._show = show
        self._request_pass = request_pass
        self._turns: dict[str, _Turn] = {}
        self._free_at = 0.0
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """See at once whether there is something to watch."""
        self._woken.set()

    async def run(self) -> None:
        """Look at watched functions until cancelled; while there are none, nothing happens until `wake`."""
        while True:
            self._woken.clear()
            watches = {watch.function_id: watch for watch in self._functions.watches() if _is_open(watch)}
            self._follow(watches)
            if not watches:
                await self._woken.wait()
            elif not self._may_look():
                await first_of(self._woken.wait(), self._clock.sleep(RECHECK))
            else:
                function_id, turn = min(self._turns.items(), key=lambda item: item[1].due)
                pause = max(turn.due, self._free_at) - self._clock.monotonic()
                if pause > 0:
                    await first_of(self._woken.wait(), self._clock.sleep(pause))
                else:
                    await self._look(watches[function_id], turn)

    def _follow(self, watches: Mapping[str, DeploymentWatch]) -> None:
        """Keep a turn for each open watch.

        The wall clock counts only between two processes, and within the length of a watch: one that was set must not make a
        watch endless.
        """
        now, tick = self._clock.now(), self._clock.monotonic()
        known = self._turns
        self._turns = {}
        for function_id, watch in watches.items():
            turn = known.get(function_id)
            if turn is None or turn.deployed_at != watch.deployed_at:
                last = watch.looked_at or watch.prepared_at
                wait = LOOK_INTERVAL - (now - last).total_seconds()
                turn = _Turn(watch.deployed_at, tick + min(max(wait, 0.0), LOOK_INTERVAL), 0.0)
                turn.end = tick + _remaining(watch, now)
                turn.due = min(turn.due, turn.end)
            self._turns[function_id] = turn
        self._show({watch.slug: watch.until for watch in watches.values() if watch.until is not None})

    async def _look(self, watch: DeploymentWatch, turn: _Turn) -> None:
        last = self._clock.monotonic() >= turn.end
        turn.due = self._clock.monotonic() + LOOK_INTERVAL if last else min(self._clock.monotonic() + LOOK_INTERVAL, turn.end)
        try:
            listed = await self._functions.read_invocations(watch.function_id)
        except NotLeading:
            return
        except ApiError as error:
            if last and self._functions.end_watch(watch):
                self._say(watch, f"its invocations cannot be read: {error.message}")
            return
        finally:
            per_second = self._functions.calls_per_second
            self._free_at = self._clock.monotonic() + (1 / (per_second * LOOK_SHARE) if per_second else 0.0)
        seen = replace(with_invocations(self._newest(watch), listed), looked_at=self._clock.now())
        verdict = judge(seen)
        if verdict is Verdict.FAILING:
            await self._failed(seen, listed)
        elif not last:
            self._functions.remember_watch(seen)
        elif self._functions.end_watch(seen):
            self._conclude(seen, verdict)

    def _newest(self, watch: DeploymentWatch) -> DeploymentWatch:
        """Return a watch as it is stored now: a pass may have changed what fails it while Kapso was asked."""
        stored = (other for other in self._functions.watches() if other.function_id == watch.function_id)
        return next((other for other in stored if other.deployed_at == watch.deployed_at), watch)

    async def _failed(self, watch: DeploymentWatch, listed: Sequence[InvocationRecord]) -> None:
        failures = failures_in(watch, listed)
        said = counts_text(watch)
        found: Evidence | None = None
        if failures:
            try:
                error, found = await self._functions.evidence(watch, failures[0])
            except NotLeading:
                return
            said = f"{said}: {error}" if found.place is None else f"{said}: {error} ({found.place})"
        at = self._clock.now().isoformat(timespec="seconds")
        if self._functions.remember_watch(replace(watch, finding=WatchFinding(said, at, found))):
            failed = events.WatchFailed(
                slug=watch.slug,
                function_id=watch.function_id,
                error=said,
                place=None if found is None else found.place,
                console=None if found is None else found.console,
            )
            self._functions.report(failed)
            self._request_pass()

    def _conclude(self, watch: DeploymentWatch, verdict: Verdict) -> None:
        found, slug, function_id = count_invocations(watch).since, watch.slug, watch.function_id
        if verdict is Verdict.HEALTHY:
            sampled = watch.missed
            passed = events.WatchPassed(
                slug=slug, function_id=function_id, invocations=found.total, failed=found.failed, sampled=sampled
            )
            self._functions.report(passed)
        elif verdict is Verdict.UNKNOWN:
            self._say(watch, "what the version before did cannot be read, so there is nothing to compare with")
        else:
            text = f"{found.total or 'none'} of the {watch.policy.failures} invocations that it takes came since its deployment"
            self._say(watch, f"too little traffic: {text}")

    def _say(self, watch: DeploymentWatch, reason: str) -> None:
        self._functions.report(events.WatchInconclusive(slug=watch.slug, function_id=watch.function_id, reason=reason))


def _is_open(watch: DeploymentWatch) -> bool:
    return watch.deployed_at is not None and watch.finding is None


def _remaining(watch: DeploymentWatch, now: datetime) -> float:
    left = 0.0 if watch.until is None else (watch.until - now).total_seconds()
    return min(max(left, 0.0), watch.policy.period)
