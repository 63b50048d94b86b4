"""The loop: one pass at a time, newest wins, and no failure ends it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from kapso_sync.daemon.backoff import Backoff, Failing
from kapso_sync.daemon.bell import LOOKS, OF_PEOPLE, OF_SOURCE, RESUME, RETRY, Bell
from kapso_sync.errors import KapsoSyncError
from kapso_sync.model import events
from kapso_sync.model.clock import Clock
from kapso_sync.model.plan import Plan
from kapso_sync.model.report import Report
from kapso_sync.model.status import Suspension
from kapso_sync.reconcile.cycle import Request

FIRST_RETRY = 5.0
"""Seconds before a pass that failed as a whole is tried again; doubles up to the interval."""

HEARTBEAT = 10.0
"""The loop shows that it is alive at least this often, in seconds."""

PASS_DEADLINE = 2 * 3600.0
"""Seconds after which a pass is cancelled: even thousands of functions at a slow rate limit take less."""


class Passes(Protocol):
    """What can be asked of the place that the loop keeps equal to git."""

    async def sync(self, request: Request) -> Report:
        """Do one pass; raises `KapsoSyncError` when nothing could be planned."""
        ...

    async def moved(self, *, keep: bool = True) -> bool:
        """Tell whether the source shows another revision than the last one read."""
        ...


Waiting = Callable[[float | None, tuple[Failing, ...]], None]
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
        passes: Passes,
        bell: Bell,
        backoff: Backoff,
        timing: Timing,
        emit: events.Listener,
        waiting: Waiting,
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
        self._busy = False
        self._superseded = asyncio.Event()
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
        retry = self._retry_in()
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
        waits = [wait for wait in (self._backoff.next_retry(), self._pass_retry_in()) if wait is not None]
        return min(waits) if waits else None

    def _pass_retry_in(self) -> float | None:
        return None if not self._failures else max(0.0, self._retry_at - self._clock.monotonic())

    def _suspended_for(self) -> float | None:
        if self.suspension is None or self.suspension.until is None:
            return None
        return max(0.0, (self.suspension.until - self._clock.now()).total_seconds())

    def _suspended(self) -> bool:
        if self.suspension is not None and self._suspended_for() == 0.0:
            self.resume()
        return self.suspension is not None

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
        if LOOKS.issuperset(triggers) and not await self._moved():
            return
        if OF_PEOPLE.intersection(triggers):
            self._backoff.forgive()
        self._superseded = asyncio.Event()
        self.passes += 1
        self._busy = True
        try:
            async with asyncio.timeout(PASS_DEADLINE):
                report = await self._pass(triggers[0])
        except (KapsoSyncError, TimeoutError) as error:
            self._fail(error)
        else:
            self._end(report)
        finally:
            self._busy = False

    async def _moved(self) -> bool:
        try:
            return await self._passes.moved()
        except KapsoSyncError:
            return True  # the pass will meet the same trouble, and report it

    async def _pass(self, trigger: str) -> Report:
        planned = asyncio.Event()

        def hold(plan: Plan) -> Plan:
            planned.set()
            return self._backoff.hold(plan)

        lookout = asyncio.create_task(self._look_out(planned), name="lookout")
        try:
            return await self._passes.sync(Request(trigger, hold=hold, superseded=self._superseded))
        finally:
            lookout.cancel()
            await asyncio.gather(lookout, return_exceptions=True)

    async def _look_out(self, planned: asyncio.Event) -> None:
        """While a plan is carried out: once the source moves on, end it early, so that a fix never waits for what it fixes."""
        await planned.wait()
        while True:
            rings = self._bell.rings
            if self._bell.waiting & OF_SOURCE and await self._moved_meanwhile():
                self._superseded.set()
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
        if report.halted is None:
            self._failures = 0
        else:
            self._later()

    def _fail(self, error: KapsoSyncError | TimeoutError) -> None:
        if isinstance(error, TimeoutError):
            text = f"the pass did not end within {PASS_DEADLINE / 3600:.0f} h"
            self._emit(events.ReconcileFailed(error=text, error_type="TimeoutError"))
        self._later()

    def _later(self) -> None:
        """Try the pass again later: Kapso, git or the manifest is the trouble, and no function is to blame."""
        self._failures += 1
        ceiling = min(FIRST_RETRY * 2.0 ** min(self._failures - 1, 16), self._timing.slowest)
        self._retry_at = self._clock.monotonic() + max(ceiling * self._timing.random(), ceiling / 2)
