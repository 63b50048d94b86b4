"""The reconcile loop: it runs one pass at a time for the triggers that arrive.

A newer revision ends a running pass early. No failure ends the loop.
"""

from __future__ import annotations

import asyncio
import functools
import operator
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from kapso_sync.daemon.backoff import FailingFunction, FunctionBackoff
from kapso_sync.daemon.lease import Leadership
from kapso_sync.daemon.triggers import ASKED_BY_PEOPLE, MAY_MEAN_NEW_REVISION, ONLY_IF_SOURCE_MOVED, Trigger, TriggerQueue
from kapso_sync.dataclass import dataclass
from kapso_sync.errors import ConfigError, KapsoSyncError, NotLeading, SourceUnverified, StateReplaced, UsageError
from kapso_sync.model import events
from kapso_sync.model.clock import Clock
from kapso_sync.model.policies import PassOverrides
from kapso_sync.model.report import Report, Result
from kapso_sync.model.status import Suspension
from kapso_sync.reconcile.cycle import PassRequest
from kapso_sync.retry import Backoff

INITIAL_RETRY_DELAY = 5.0
"""Seconds before a pass that failed as a whole is tried again; the delay doubles up to the interval."""

HEARTBEAT = 30.0
"""The loop shows that it is alive at least this often, in seconds."""

MAX_SILENCE = 60.0
"""Seconds without a heartbeat after which the loop counts as stuck."""

MAX_SILENCE_OF_PASS = 900.0
"""Seconds without an event after which a pass counts as stuck. Each API call is an event; a transfer by git is none."""

PASS_TIMEOUT = 2 * 3600.0
"""Seconds after which a pass is cancelled; even thousands of functions at a slow rate limit take less."""

MAX_SUPERSEDED_IN_A_ROW = 3
"""After newer revisions ended this many passes in a row, the next one runs to its end, even if more pushes arrive."""

WEBHOOK_SPACING = 10.0
"""Seconds after the start of a webhook's pass in which a further webhook means a pass only if the source has moved."""


SHORT_PASS = 1.0
"""Seconds after its plan in which a pass is not ended early: most end by then, and to look at the source costs as much."""


class PassRunner(Protocol):
    """The part of a session that the loop uses."""

    async def sync(self, request: PassRequest) -> Report:
        """Run one pass. Raises `KapsoSyncError` if nothing could be planned."""
        ...

    async def moved(self, *, keep: bool = True) -> bool:
        """Return whether the source shows another revision than the last one read. Raises `KapsoSyncError`."""
        ...

    async def read_source(self) -> None:
        """Read the source if it has moved, without any call to Kapso; a failure is reported, not raised."""
        ...


OnWait = Callable[[float | None, tuple[FailingFunction, ...]], None]
"""Called when the loop starts to wait: seconds until the next retry, if any, and the functions that are failing."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Clock, random source and limits of the loop.

    ``random`` returns a number from 0 to 1. ``max_retry_delay`` and ``pass_timeout`` are seconds.
    """

    clock: Clock
    random: Callable[[], float]
    max_retry_delay: float
    pass_timeout: float = PASS_TIMEOUT


@dataclass(frozen=True, slots=True)
class PendingOverrides:
    """What a person allows for the next pass that reaches a plan.

    ``on_used`` is called when that is settled: the pass has ended, or cannot be done. It is not called where this replica has
    lost the Lease before that.
    """

    overrides: PassOverrides
    on_used: Callable[[], None] = lambda: None


class Loop:
    """Runs passes for triggers until it is cancelled or stopped.

    Without ``leadership`` the daemon is alone. A standby runs no pass: it reads the source for each trigger, so that it can
    take over at once. Once ``state_replaced`` is set, no pass can be made until the state folder is opened again.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - the seams of the loop; each is a parameter so that tests need no patches
        self,
        passes: PassRunner,
        triggers: TriggerQueue,
        backoff: FunctionBackoff,
        timing: Timing,
        emit: events.Listener,
        on_wait: OnWait,
        leadership: Leadership | None = None,
    ) -> None:
        self._passes = passes
        self._triggers = triggers
        self._backoff = backoff
        self._timing = timing
        self._clock = timing.clock
        self._emit = emit
        self._on_wait = on_wait
        self._leadership = leadership
        self._max_retry_delay = timing.max_retry_delay
        self._pass_backoff = Backoff(INITIAL_RETRY_DELAY, timing.max_retry_delay)
        self._failures = 0
        self._retry_at = 0.0
        self._superseded_in_a_row = 0
        self._spaced_until = 0.0
        self._busy = False
        self._superseded = asyncio.Event()
        self._pending: list[PendingOverrides] = []
        self._stopping = False
        self.suspension: Suspension | None = None
        self.passes = 0
        self.state_replaced = asyncio.Event()
        self._beat = self._clock.monotonic()

    async def run(self) -> None:
        """Run passes until `stop`."""
        while not self._stopping:
            self.show_life()
            triggers = await self._next()
            if triggers and not self._stopping:
                await (self._read_source() if self._is_standby else self._answer(triggers))

    def show_life(self) -> None:
        """Note that the loop, or the pass that runs, gets on."""
        self._beat = self._clock.monotonic()

    def stuck(self) -> str | None:
        """Return that the loop or its pass is stuck, and for how long, or None."""
        silent = self._clock.monotonic() - self._beat
        if silent <= (MAX_SILENCE_OF_PASS if self._busy else MAX_SILENCE):
            return None
        return f"the {'pass' if self._busy else 'loop'} has been silent for {silent:.0f} s"

    def stop(self) -> None:
        """Start nothing new, do not wait for deployments, and end after the API call in flight."""
        self._stopping = True
        self._superseded.set()
        self._triggers.wake()

    async def _next(self) -> tuple[Trigger, ...]:
        """Wait for a trigger, or until a retry is due."""
        retry = None if self._is_standby or self.suspension is not None else self._retry_in()
        self._on_wait(retry, self._backoff.failing)
        suspended_for = self._suspended_for()
        pauses = [seconds for seconds in (retry, suspended_for, HEARTBEAT) if seconds is not None]
        await self._triggers.wait(self._clock, min(pauses), only_new=self.suspension is not None and not self._is_standby)
        if self._suspended() and not self._is_standby:
            return ()
        triggers = self._triggers.drain()
        if triggers:
            return triggers
        due = None if self._is_standby else self._retry_in()
        return (Trigger.RETRY,) if due is not None and due <= 0 else ()

    def _retry_in(self) -> float | None:
        """Return in how many seconds the next retry is due.

        If a whole pass failed, its delay counts, and the delays of single functions do not.
        """
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

    def override_next_pass(self, pending: PendingOverrides) -> None:
        """Let the next pass that reaches a plan do what a person allows; the caller must request that pass."""
        self._pending.append(pending)

    def withdraw_overrides(self) -> list[PendingOverrides]:
        """Return what no plan has used yet; this loop uses it no more."""
        pending, self._pending = self._pending, []
        return pending

    def suspend(self, suspension: Suspension) -> None:
        """Run no pass until `resume`, or until the suspension ends; a running pass ends early."""
        self.suspension = suspension
        self._superseded.set()
        self._triggers.wake()  # so that the loop waits for the end of it
        until = suspension.until.isoformat(timespec="seconds") if suspension.until else None
        self._emit(events.Suspended(reason=suspension.reason, until=until))

    def resume(self) -> None:
        """Run passes again; the first one starts at once."""
        if self.suspension is not None:
            self.suspension = None
            self._emit(events.Resumed())
        self._triggers.request(Trigger.RESUME)

    @property
    def _is_standby(self) -> bool:
        return self._leadership is not None and not self._leadership.leading

    def lead(self) -> None:
        """Run passes from now on; the first one starts at once, and retries everything."""
        self._failures = 0
        self._backoff.reset()
        self._triggers.request(Trigger.LEASE)

    def stand_by(self) -> None:
        """Run no more passes until `lead`; a running pass ends early."""
        self._failures = 0
        self.withdraw_overrides()
        self._superseded.set()
        self._triggers.wake()

    async def _read_source(self) -> None:
        self._busy = True
        self.show_life()
        try:
            await self._passes.read_source()
        except Exception as error:  # noqa: BLE001 - as in a pass
            self._emit(_bug(error))
        finally:
            self._busy = False

    async def _answer(self, triggers: tuple[Trigger, ...]) -> None:
        for trigger in triggers:
            self._emit(events.TriggerReceived(trigger=trigger))
        self._superseded = asyncio.Event()
        self._busy = True
        self.show_life()
        if self._leadership is not None:
            self._leadership.begin_pass()
        try:
            if await self._needs_pass(triggers) and not self._stopping:
                await self._run_pass(triggers)
        finally:
            self._busy = False

    async def _needs_pass(self, triggers: tuple[Trigger, ...]) -> bool:
        """Return whether there may be something to do.

        A superseded pass left work to do even if the source did not move since. Soon after the pass of a webhook, another
        webhook means one only if the source moved: nobody who sends captured pushes again keeps us busy.
        """
        spaced = {Trigger.WEBHOOK} if self._clock.monotonic() < self._spaced_until else set()
        if self._superseded_in_a_row or not (ONLY_IF_SOURCE_MOVED | spaced).issuperset(triggers):
            return True
        try:
            return await self._passes.moved()
        except KapsoSyncError:
            return True  # the pass meets the same error, and reports it

    async def _run_pass(self, triggers: tuple[Trigger, ...]) -> None:
        """Run a pass, and set the backoff by its result."""
        if ASKED_BY_PEOPLE.intersection(triggers):
            self._backoff.reset()
        if Trigger.WEBHOOK in triggers:
            self._spaced_until = self._clock.monotonic() + WEBHOOK_SPACING
        self.passes += 1
        deadline = asyncio.timeout(self._timing.pass_timeout)
        try:
            async with deadline:
                report = await self._pass(triggers[0])
        except NotLeading:
            pass
        except SourceUnverified:
            self._retry_later(soon=False)
        except StateReplaced:
            self.state_replaced.set()
        except KapsoSyncError:
            self._retry_later()
        except Exception as error:  # noqa: BLE001 - not even a bug of ours ends the loop, or loses what was requested
            self._emit(_timed_out(self._timing.pass_timeout) if deadline.expired() else _bug(error))
            self._retry_later()
        else:
            self._record(report)

    async def _pass(self, trigger: Trigger) -> Report:
        planned = asyncio.Event()
        pending, used = self.withdraw_overrides(), False
        before = self._superseded_in_a_row
        watcher = asyncio.create_task(self._watch_for_new_revision(planned), name="new-revision")
        request = PassRequest(
            trigger,
            overrides=functools.reduce(operator.or_, (each.overrides for each in pending), PassOverrides()),
            filter_plan=self._backoff.filter_plan,
            on_planned=lambda _: planned.set(),
            superseded=self._superseded,
        )
        try:
            report = await self._passes.sync(request)
        except (UsageError, ConfigError):
            used = True  # What cannot be done would only fail again, and all other functions with it.
            raise
        except NotLeading:
            pending.clear()
            raise
        finally:
            if self._is_standby:
                pending.clear()  # They are the next leader's now; it would be a surprise if they counted here later.
            if used or planned.is_set():
                for each in pending:
                    each.on_used()
            else:
                self._pending = pending + self._pending
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)
            if self._superseded_in_a_row == before:
                self._superseded_in_a_row = 0
        return report

    async def _watch_for_new_revision(self, planned: asyncio.Event) -> None:
        """End the running pass early when the source shows a newer revision.

        A fix then does not wait for the code that it fixes. Example: a commit deploys code that ends in `error`, and Kapso
        needs a minute to report that. The author pushes the fix after ten seconds. The webhook's trigger arrives, the source
        shows another revision, and the pass stops waiting for the bad deployment.
        """
        await planned.wait()
        await self._clock.sleep(SHORT_PASS)
        while self._superseded_in_a_row < MAX_SUPERSEDED_IN_A_ROW:
            requests = self._triggers.requests
            if self._triggers.pending & MAY_MEAN_NEW_REVISION and await self._moved_meanwhile():
                self._superseded.set()
                self._superseded_in_a_row += 1
                return
            await self._triggers.more_than(requests)

    async def _moved_meanwhile(self) -> bool:
        try:
            return await self._passes.moved(keep=False)
        except KapsoSyncError:
            return False

    def _record(self, report: Report) -> None:
        for failing in self._backoff.record(report):
            wait = max(0.0, failing.retry_at - self._clock.monotonic())
            self._emit(events.FunctionStalled(slug=failing.slug, reason=failing.error, retry_in_s=round(wait, 1)))
        unanswered = any(outcome.result is Result.FAILED and outcome.blameless for outcome in report.outcomes)
        if report.halted is None and not unanswered:
            self._failures = 0
        else:
            self._retry_later()

    def _retry_later(self, *, soon: bool = True) -> None:
        """Schedule a retry of the whole pass: Kapso, git or the manifest failed, and not a single function.

        ``soon=False``: only a push or a person mends it, and polls and intervals see that.
        """
        self._failures += 1
        delay = self._pass_backoff.jittered(self._failures, self._timing.random(), least=0.5) if soon else self._max_retry_delay
        self._retry_at = self._clock.monotonic() + delay


def _timed_out(timeout: float) -> events.ReconcileFailed:
    return events.ReconcileFailed(
        error=f"the pass did not end within {timeout / 3600:.0f} h",
        error_type="TimeoutError",
        hint="writes in progress are journaled; the next pass resumes them",
    )


def _bug(error: Exception) -> events.ReconcileFailed:
    """Return the event for an unexpected exception, with its place in the code, because no traceback is logged."""
    kind, text = type(error).__name__, " ".join(str(error).split())
    frames = traceback.extract_tb(error.__traceback__)
    where = f" in {Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else ""
    return events.ReconcileFailed(
        error=f"{kind}: {text}" if text else kind,
        error_type=kind,
        hint=f"a bug in kapso-sync{where}: please report it; the pass is retried",
    )
