"""The loop: one pass at a time, newest wins, and no failure ends it."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from kapso_sync.daemon.backoff import FailingFunction, FunctionBackoff
from kapso_sync.daemon.triggers import ASKED_BY_PEOPLE, MAY_MEAN_NEW_REVISION, ONLY_IF_SOURCE_MOVED, RESUME, RETRY, TriggerQueue
from kapso_sync.errors import KapsoSyncError
from kapso_sync.model import events
from kapso_sync.model.clock import Clock
from kapso_sync.model.plan import Plan
from kapso_sync.model.report import Report, Result
from kapso_sync.model.status import Suspension
from kapso_sync.reconcile.cycle import PassRequest

INITIAL_RETRY_DELAY = 5.0
"""Seconds before a pass that failed as a whole is tried again; doubles up to the interval."""

HEARTBEAT = 10.0
"""The loop shows that it is alive at least this often, in seconds."""

PASS_DEADLINE = 2 * 3600.0
"""Seconds after which a pass is cancelled: even thousands of functions at a slow rate limit take less."""

MAX_SUPERSEDED_IN_A_ROW = 3
"""So many passes in a row give way to newer revisions; the next is carried out whole, or pushes without end would let none."""


class PassRunner(Protocol):
    """What can be asked of the place that the loop keeps equal to git."""

    async def sync(self, request: PassRequest) -> Report:
        """Do one pass; raises `KapsoSyncError` when nothing could be planned."""
        ...

    async def moved(self, *, keep: bool = True) -> bool:
        """Tell whether the source shows another revision than the last one read."""
        ...


OnWait = Callable[[float | None, tuple[FailingFunction, ...]], None]
"""Is told, whenever the loop begins to wait, in how many seconds something is tried again, and who failed."""


@dataclass(frozen=True, slots=True)
class Timing:
    """The clock, dice from 0 to 1, and how late a pass that failed as a whole is repeated, in seconds."""

    clock: Clock
    random: Callable[[], float]
    slowest: float


class Loop:
    """Answers the bell with passes until it is cancelled or told to stop."""

    def __init__(
        self,
        passes: PassRunner,
        bell: TriggerQueue,
        backoff: FunctionBackoff,
        timing: Timing,
        emit: events.Listener,
        waiting: OnWait,
    ) -> None:
        self._passes = passes
        self._bell = bell
        self._backoff = backoff
        self._timing = timing
        self._clock = timing.clock
        self._emit = emit
        self._waiting = waiting
        self._failures = 0
        self._retry_at = 0.0
        self._cut_short = 0
        self._busy = False
        self._superseded = asyncio.Event()
        self._retry: set[str] = set()
        self._stopping = False
        self.suspension: Suspension | None = None
        self.passes = 0
        self._beat = self._clock.monotonic()

    async def run(self) -> None:
        """Answer until `stop`."""
        while not self._stopping:
            self._beat = self._clock.monotonic()
            triggers = await self._next()
            if triggers and not self._stopping:
                await self._answer(triggers)

    def silent_for(self) -> float:
        """Return for how many seconds the loop has shown no sign of life; a pass has a deadline of its own."""
        return 0.0 if self._busy else self._clock.monotonic() - self._beat

    def stop(self) -> None:
        """Begin nothing new, wait for no deployment, and end after the call in flight."""
        self._stopping = True
        self._superseded.set()
        self._bell.ring("stop")

    async def _next(self) -> tuple[str, ...]:
        """Wait for a trigger, or for the time of a retry."""
        retry = self._retry_in() if self.suspension is None else None
        self._waiting(retry, self._backoff.failing)
        suspended_for = self._suspended_for()
        pauses = [seconds for seconds in (retry, suspended_for, HEARTBEAT) if seconds is not None]
        await self._bell.wait(self._clock, min(pauses), fresh=self.suspension is not None)
        if self._suspended():
            return ()
        names = self._bell.take()
        if names:
            return names
        due = self._retry_in()
        return (RETRY,) if due is not None and due <= 0 else ()

    def _retry_in(self) -> float | None:
        """Return in how many seconds to try again; where a pass failed as a whole, that counts, and no function's own time."""
        if not self._failures:
            return self._backoff.next_retry()
        return max(0.0, self._retry_at - self._clock.monotonic())

    def _suspended_for(self) -> float | None:
        if self.suspension is None or self.suspension.until is None:
            return None
        return max(0.0, (self.suspension.until - self._clock.now()).total_seconds())

    def _suspended(self) -> bool:
        if self.suspension is not None and self._suspended_for() == 0.0:
            self.resume()
        return self.suspension is not None

    def lift(self, slugs: Iterable[str]) -> None:
        """Let the next pass that gets as far as a plan try again what is in quarantine; whoever asks rings as well."""
        self._retry.update(slugs)

    def suspend(self, suspension: Suspension) -> None:
        """Answer no trigger until somebody resumes, or until its time is over; a pass that runs ends early."""
        self.suspension = suspension
        self._superseded.set()
        until = suspension.until.isoformat(timespec="seconds") if suspension.until else None
        self._emit(events.Suspended(reason=suspension.reason, until=until))

    def resume(self) -> None:
        """Answer triggers again, and look at once."""
        if self.suspension is not None:
            self.suspension = None
            self._emit(events.Resumed())
        self._bell.ring(RESUME)

    async def _answer(self, triggers: tuple[str, ...]) -> None:
        for trigger in triggers:
            self._emit(events.TriggerReceived(trigger=trigger))
        self._superseded = asyncio.Event()
        self._busy = True
        try:
            if await self._worth_a_pass(triggers) and not self._stopping:
                await self._guarded(triggers)
        finally:
            self._busy = False

    async def _worth_a_pass(self, triggers: tuple[str, ...]) -> bool:
        """Tell whether there may be something to do; what a pass that gave way has left behind is, even if all is as before."""
        if self._cut_short or not ONLY_IF_SOURCE_MOVED.issuperset(triggers):
            return True
        try:
            return await self._passes.moved()
        except KapsoSyncError:
            return True  # the pass will meet the same trouble, and report it

    async def _guarded(self, triggers: tuple[str, ...]) -> None:
        """Do a pass, and learn from it, whatever comes of it."""
        if ASKED_BY_PEOPLE.intersection(triggers):
            self._backoff.forgive()
        self.passes += 1
        deadline = asyncio.timeout(PASS_DEADLINE)
        try:
            async with deadline:
                report = await self._pass(triggers[0])
        except KapsoSyncError:
            self._later()
        except Exception as error:  # noqa: BLE001 - not even a defect of ours ends the loop, or loses what was asked
            self._emit(_deadline_exceeded() if deadline.expired() else _defect(error))
            self._later()
        else:
            self._end(report)

    async def _pass(self, trigger: str) -> Report:
        planned = asyncio.Event()
        retry = tuple(sorted(self._retry))

        def hold(plan: Plan) -> Plan:
            planned.set()
            self._retry.difference_update(retry)
            return self._backoff.hold(plan)

        cut_short = self._cut_short
        lookout = asyncio.create_task(self._look_out(planned), name="lookout")
        try:
            report = await self._passes.sync(PassRequest(trigger, retry=retry, hold=hold, superseded=self._superseded))
        finally:
            lookout.cancel()
            await asyncio.gather(lookout, return_exceptions=True)
            if self._cut_short == cut_short:
                self._cut_short = 0
        return report

    async def _look_out(self, planned: asyncio.Event) -> None:
        """While a plan is carried out: once the source moves on, end it early, so that a fix never waits for what it fixes."""
        await planned.wait()
        while self._cut_short < MAX_SUPERSEDED_IN_A_ROW:
            rings = self._bell.rings
            if self._bell.waiting & MAY_MEAN_NEW_REVISION and await self._moved_meanwhile():
                self._superseded.set()
                self._cut_short += 1
                return
            await self._bell.another(rings)

    async def _moved_meanwhile(self) -> bool:
        try:
            return await self._passes.moved(keep=False)
        except KapsoSyncError:
            return False

    def _end(self, report: Report) -> None:
        for failing in self._backoff.learn(report):
            wait = max(0.0, failing.retry_at - self._clock.monotonic())
            self._emit(events.FunctionStalled(slug=failing.slug, reason=failing.error, retry_in_s=round(wait, 1)))
        unanswered = any(outcome.result is Result.FAILED and outcome.blameless for outcome in report.outcomes)
        if report.halted is None and not unanswered:
            self._failures = 0
        else:
            self._later()

    def _later(self) -> None:
        """Try the pass again later: Kapso, git or the manifest is the trouble, and no function is to blame."""
        self._failures += 1
        ceiling = min(INITIAL_RETRY_DELAY * 2.0 ** min(self._failures - 1, 16), self._timing.slowest)
        self._retry_at = self._clock.monotonic() + max(ceiling * self._timing.random(), ceiling / 2)


def _deadline_exceeded() -> events.ReconcileFailed:
    return events.ReconcileFailed(
        error=f"the pass did not end within {PASS_DEADLINE / 3600:.0f} h",
        error_type="TimeoutError",
        hint="what was begun is journaled, the next pass goes on from there",
    )


def _defect(error: Exception) -> events.ReconcileFailed:
    """Tell of what should never happen, with the place in the code: nobody will see a traceback."""
    kind, text = type(error).__name__, " ".join(str(error).split())
    frames = traceback.extract_tb(error.__traceback__)
    where = f" in {Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else ""
    return events.ReconcileFailed(
        error=f"{kind}: {text}" if text else kind,
        error_type=kind,
        hint=f"a defect of kapso-sync{where}: please report it; the pass is tried again",
    )
