"""The reconcile loop: one pass at a time, the newest revision wins, no trigger is lost, no failure ends it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapso_sync.daemon.backoff import BACKOFF, STALLED_AFTER, FunctionBackoff
from kapso_sync.daemon.lease import Leadership
from kapso_sync.daemon.loop import (
    HEARTBEAT,
    INITIAL_RETRY_DELAY,
    MAX_SILENCE_OF_PASS,
    PASS_TIMEOUT,
    SHORT_PASS,
    WEBHOOK_SPACING,
    Loop,
    PendingOverrides,
    Timing,
)
from kapso_sync.daemon.triggers import Trigger, TriggerQueue
from kapso_sync.errors import ApiUnavailable, Call, KapsoSyncError, NotLeading, SourceUnavailable, SourceUnverified, UsageError
from kapso_sync.model import events
from kapso_sync.model.plan import Blocked, BlockedBy, Plan
from kapso_sync.model.policies import PassOverrides
from kapso_sync.model.report import Outcome, Report, Result
from kapso_sync.model.source import Revision
from kapso_sync.model.status import Suspension
from kapso_sync.reconcile.cycle import PassRequest
from kapso_sync.reconcile.plan.intents import resolve_intents
from kapso_sync.reconcile.plan.planner import make_plan
from tests.builders import CODE_B, OWNER, POLICY, desired, memory, want
from tests.clock import VirtualClock

DELETE_OLD = PassOverrides(delete=frozenset({"old"}))
DOWN = ApiUnavailable("no connection", call=Call("GET", "/functions"))


def plan_for(*slugs: str, code: str = "") -> Plan:
    git = desired(*(want(slug, code) if code else want(slug) for slug in slugs))
    return make_plan(git, resolve_intents([], memory(), OWNER), POLICY)


def report_on(plan: Plan, result: Result = Result.DONE, error: str | None = None, *, blameless: bool = False) -> Report:
    outcomes = tuple(
        Outcome(step, Result.BLOCKED if isinstance(step, Blocked) else result, error=error, blameless=blameless)
        for step in plan.steps
    )
    return Report(plan, outcomes)


@dataclass
class ScriptedPasses:
    """A place whose passes do what a test says, and a watcher that remembers."""

    clock: VirtualClock
    passes: list[str] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    plan: Plan = field(default_factory=lambda: plan_for("a"))
    results: list[Callable[[Plan], Report] | Exception] = field(default_factory=list)
    is_moved: bool | KapsoSyncError = True
    answer: asyncio.Event | None = None
    gate: asyncio.Event | None = None
    running: int = 0
    most: int = 0
    superseded: int = 0
    reads: int = 0
    looks: int = 0
    held: list[Plan] = field(default_factory=list)
    allowed: list[PassOverrides] = field(default_factory=list)
    fails_before_plan: list[KapsoSyncError] = field(default_factory=list)

    async def sync(self, request: PassRequest) -> Report:
        self.passes.append(request.trigger)
        self.times.append(self.clock.monotonic())
        self.allowed.append(request.overrides)
        if self.fails_before_plan:
            raise self.fails_before_plan.pop(0)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            result = self.results.pop(0) if self.results else report_on
            plan = request.filter_plan(self.plan)
            request.on_planned(plan)
            self.held.append(plan)
            if self.gate is not None:
                tasks = {asyncio.create_task(self.gate.wait()), asyncio.create_task(request.superseded.wait())}
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                self.superseded += request.superseded.is_set()
            if isinstance(result, Exception):
                raise result
            return result(plan)
        finally:
            self.running -= 1

    async def moved(self, *, keep: bool = True) -> bool:
        self.looks += not keep
        if self.answer is not None:
            await self.answer.wait()
        if isinstance(self.is_moved, KapsoSyncError):
            raise self.is_moved
        return self.is_moved

    async def read_source(self) -> None:
        self.reads += 1


@dataclass
class RunningLoop:
    """A running loop, its triggers, and the events that it reported."""

    place: ScriptedPasses
    triggers: TriggerQueue
    loop: Loop
    clock: VirtualClock
    backoff: FunctionBackoff
    told: list[events.Event]
    waits: list[float | None]

    async def settle(self) -> None:
        """Let everything happen that can happen without time."""
        for _ in range(60):
            await asyncio.sleep(0)

    async def until(self, condition: Callable[[], object]) -> None:
        """Let things happen one by one, and stop at once when it is so: time must not move on."""
        while not condition():  # noqa: ASYNC110 - any condition
            await asyncio.sleep(0)

    def names(self) -> list[str]:
        return [event.name for event in self.told]


@contextlib.asynccontextmanager
async def running_loop(
    slowest: float = 300.0,
    *,
    pass_timeout: float = PASS_TIMEOUT,
    leadership: Leadership | None = None,
    clock: VirtualClock | None = None,
) -> AsyncIterator[RunningLoop]:
    clock = clock or VirtualClock()
    place, triggers, told = ScriptedPasses(clock), TriggerQueue(), list[events.Event]()
    backoff = FunctionBackoff(clock, lambda: 1.0)
    waits = list[float | None]()
    timing = Timing(clock, lambda: 1.0, slowest, pass_timeout)
    loop = Loop(place, triggers, backoff, timing, told.append, lambda retry_in, _: waits.append(retry_in), leadership)
    task = asyncio.create_task(loop.run())
    try:
        yield RunningLoop(place, triggers, loop, clock, backoff, told, waits)
    finally:
        loop.stop()
        await asyncio.wait_for(task, 20)


async def test_a_standby_reads_its_source_and_runs_no_pass() -> None:
    """Whatever triggers it; once it leads, a pass begins at once, and ends early when it leads no more."""
    leadership = Leadership(VirtualClock(), "a")
    async with running_loop(leadership=leadership) as running:
        for trigger in (Trigger.START, Trigger.WEBHOOK, Trigger.PERSON):
            running.triggers.request(trigger)
            await running.settle()
        assert (running.place.passes, running.place.reads) == ([], 3)
        running.place.gate = asyncio.Event()
        leadership.renew(10.0)
        running.loop.lead()
        await running.settle()
        assert running.place.passes == [Trigger.LEASE]
        leadership.check()
        leadership.end()
        running.loop.stand_by()
        await running.settle()
        assert (running.place.superseded, running.place.running) == (1, 0)
        running.loop.suspend(Suspension("a freeze", running.clock.now(), None))
        running.triggers.request(Trigger.FILES)
        await running.settle()
        assert (len(running.place.passes), running.place.reads) == (1, 4)


async def test_a_pass_that_loses_the_lease_is_not_retried_and_forgets_what_was_allowed() -> None:
    """The leader continues; when this replica leads again much later, nobody expects a deletion that was asked for before."""
    leadership = Leadership(VirtualClock(), "a")
    leadership.renew(10.0)
    async with running_loop(leadership=leadership) as running:
        running.place.results = [NotLeading("this replica does not lead")]
        used = list[str]()
        running.loop.override_next_pass(PendingOverrides(DELETE_OLD, lambda: used.append("delete")))
        running.triggers.request(Trigger.PERSON)
        await running.settle()
        leadership.end()
        running.loop.stand_by()
        await running.clock.sleep(600.0)
        assert running.place.passes == [Trigger.PERSON]
        assert "reconcile.failed" not in running.names()
        assert (running.loop.withdraw_overrides(), used) == ([], [])


async def test_a_pass_that_ends_early_because_the_lease_is_lost_settles_nothing() -> None:
    """Also where it met no call: what is left undone is the next leader's."""
    leadership = Leadership(VirtualClock(), "a")
    leadership.renew(10.0)
    async with running_loop(leadership=leadership) as running:
        used = list[str]()
        running.place.gate = asyncio.Event()
        running.loop.override_next_pass(PendingOverrides(DELETE_OLD, lambda: used.append("delete")))
        running.triggers.request(Trigger.PERSON)
        await running.settle()
        leadership.end()
        running.loop.stand_by()
        await running.settle()
        assert (running.place.superseded, running.loop.withdraw_overrides(), used) == (1, [], [])


@pytest.mark.parametrize("error", [SourceUnavailable("no answer"), DOWN])
async def test_what_a_person_allows_is_used_by_the_first_pass_that_reaches_a_plan(error: KapsoSyncError) -> None:
    """It waits through passes that do not, and the passes after it are allowed nothing."""
    async with running_loop() as running:
        used = list[str]()
        running.place.fails_before_plan = [error]
        running.loop.override_next_pass(PendingOverrides(DELETE_OLD, lambda: used.append("delete")))
        running.triggers.request(Trigger.PERSON)
        await running.until(lambda: running.place.passes)
        assert used == []
        await running.clock.sleep(INITIAL_RETRY_DELAY)
        await running.settle()
        assert (running.place.allowed, used) == ([DELETE_OLD, DELETE_OLD], ["delete"])
        running.triggers.request(Trigger.PERSON)
        await running.settle()
        assert running.place.allowed[2:] == [PassOverrides()]


async def test_what_cannot_be_done_is_settled_and_never_tried_again() -> None:
    """It would only fail again, and all other functions with it."""
    async with running_loop() as running:
        used = list[str]()
        running.place.fails_before_plan = [UsageError("there is no function `old`")]
        running.loop.override_next_pass(PendingOverrides(DELETE_OLD, lambda: used.append("delete")))
        running.triggers.request(Trigger.PERSON)
        await running.settle()
        await running.clock.sleep(INITIAL_RETRY_DELAY)
        assert (running.place.allowed, used) == ([DELETE_OLD, PassOverrides()], ["delete"])


async def test_simultaneous_triggers_start_one_pass() -> None:
    """Any number of them."""
    async with running_loop() as running:
        for name in (Trigger.INTERVAL, Trigger.WEBHOOK, Trigger.PERSON):
            running.triggers.request(name)
        await running.settle()
        assert running.place.passes == [Trigger.INTERVAL]
        assert running.names().count("trigger.received") == 3


@given(st.lists(st.integers(0, 3), max_size=30))
def test_triggers_during_a_pass_start_exactly_one_more_pass(bursts: list[int]) -> None:
    """For ten thousand triggers as for one; two passes never run at once."""

    async def scenario() -> None:
        async with running_loop() as running:
            running.place.gate = asyncio.Event()
            running.place.is_moved = False
            running.triggers.request(Trigger.INTERVAL)
            await running.settle()
            for burst in bursts:
                for _ in range(burst * 100):
                    running.triggers.request(Trigger.WEBHOOK)
                await asyncio.sleep(0)
            running.place.gate.set()
            await running.settle()
            assert running.place.passes == [Trigger.INTERVAL, *([Trigger.WEBHOOK] if any(bursts) else [])]
            assert running.place.most == 1

    asyncio.run(scenario())


async def test_a_new_revision_interrupts_the_wait_for_a_deployment() -> None:
    """A fix does not wait for the deployment that it fixes."""
    async with running_loop() as running:
        running.place.gate = asyncio.Event()
        running.triggers.request(Trigger.INTERVAL)
        await running.settle()
        running.triggers.request(Trigger.WEBHOOK)
        await running.settle()
        assert running.place.superseded == 1
        assert running.place.passes == [Trigger.INTERVAL, Trigger.WEBHOOK]
        running.place.gate.set()


async def test_a_short_pass_ends_before_the_source_is_looked_at() -> None:
    """To read a folder beside a pass costs as much as the pass. The control is a pass that lasts longer."""

    class Stopped(VirtualClock):
        """A clock on which no wait ends before the test says so."""

        goes_on = asyncio.Event()

        async def sleep(self, seconds: float) -> None:
            if seconds == SHORT_PASS:
                await self.goes_on.wait()
            await super().sleep(seconds)

    async with running_loop(clock=Stopped()) as running:
        running.place.gate, running.place.is_moved = asyncio.Event(), False
        for lasts_long in (False, True):
            running.triggers.request(Trigger.INTERVAL)
            await running.settle()
            running.triggers.request(Trigger.FILES)
            if lasts_long:
                Stopped.goes_on.set()
            await running.settle()
            assert running.place.running == 1
            running.place.gate.set()
            await running.settle()
            running.place.gate.clear()
            assert running.place.looks == lasts_long


async def test_a_trigger_without_a_new_revision_does_not_interrupt_the_pass() -> None:
    """Somebody pushed another branch: the running deployment is still wanted."""
    async with running_loop() as running:
        running.place.gate, running.place.is_moved = asyncio.Event(), False
        running.triggers.request(Trigger.INTERVAL)
        await running.settle()
        running.triggers.request(Trigger.WEBHOOK)
        await running.settle()
        assert (running.place.superseded, running.place.passes) == (0, [Trigger.INTERVAL])
        running.place.is_moved = True
        running.triggers.request(Trigger.FILES)
        await running.settle()
        assert running.place.superseded == 1
        running.place.gate.set()


@pytest.mark.parametrize("name", [Trigger.FILES, Trigger.POLL])
async def test_an_unchanged_source_starts_no_pass(name: Trigger) -> None:
    """A touched file or a poll asks the source, and Kapso gets no request."""
    async with running_loop() as running:
        running.place.is_moved = False
        running.triggers.request(name)
        await running.settle()
        assert running.place.passes == []
        running.place.is_moved = SourceUnavailable("no answer")
        running.triggers.request(name)
        await running.settle()
        assert running.place.passes == [name]


async def test_webhooks_in_a_row_mean_a_pass_only_if_the_source_moved() -> None:
    """A captured push that somebody sends again and again costs a look at git; a real one is never delayed."""
    async with running_loop() as running:

        async def push(*, moved: bool) -> int:
            """Return how many passes there were so far; fewer turns of the loop than let time move on."""
            running.place.is_moved = moved
            running.triggers.request(Trigger.WEBHOOK)
            for _ in range(15):
                await asyncio.sleep(0)
            return len(running.place.passes)

        assert [await push(moved=moved) for moved in (False, False, False, True, False)] == [1, 1, 1, 2, 2]
        await running.clock.sleep(WEBHOOK_SPACING)
        assert await push(moved=False) == 3


async def test_a_failing_pass_is_retried_with_backoff_and_never_ends_the_loop() -> None:
    """5 s, doubling up to the interval; the first good pass resets it. No function is blamed."""
    async with running_loop(slowest=60.0) as running:
        running.place.results = [DOWN] * 6
        running.triggers.request(Trigger.INTERVAL)
        for _ in range(250):
            await running.clock.sleep(1)
        gaps = [round(later - earlier) for earlier, later in zip(running.place.times, running.place.times[1:], strict=False)]
        assert gaps == [5, 10, 20, 40, 60, 60]
        assert running.place.passes[1:] == [Trigger.RETRY] * 6
        assert running.backoff.failing == ()


async def test_a_revision_that_nobody_signed_is_retried_no_sooner_than_an_interval() -> None:
    """Only a push or a key helps, and polls and intervals see both. The control is the test above."""
    async with running_loop(slowest=60.0) as running:
        running.place.results = [SourceUnverified("not signed", commit="c" * 40)] * 3
        running.triggers.request(Trigger.POLL)
        for _ in range(250):
            await running.clock.sleep(1)
        gaps = [round(later - earlier) for earlier, later in itertools.pairwise(running.place.times)]
        assert gaps == [60, 60, 60]


async def test_a_suspended_loop_starts_no_pass_until_it_is_resumed() -> None:
    """One pass then answers all triggers of the meantime; a suspension may end by itself."""
    async with running_loop() as running:
        running.loop.suspend(Suspension("maintenance", running.clock.now()))
        running.triggers.request(Trigger.WEBHOOK)
        await running.settle()
        assert running.place.passes == []
        running.loop.resume()
        await running.settle()
        assert running.place.passes == [Trigger.WEBHOOK]
        running.loop.suspend(Suspension("lunch", running.clock.now(), running.clock.now() + timedelta(minutes=30)))
        running.triggers.request(Trigger.WEBHOOK)
        for _ in range(31):
            await running.clock.sleep(60)
        assert len(running.place.passes) == 2
        assert running.names().count("suspended") == running.names().count("resumed") == 2


async def test_a_suspension_of_a_waiting_loop_ends_in_time() -> None:
    """Not only when the loop would have shown life the next time."""
    async with running_loop() as running:
        await running.until(lambda: running.waits)
        end = running.clock.now() + timedelta(seconds=1)
        running.loop.suspend(Suspension("lunch", running.clock.now(), end))
        await running.until(lambda: "resumed" in running.names())
        assert end <= running.clock.now() < end + timedelta(seconds=1)


async def test_a_manual_reconcile_brings_in_a_newer_revision() -> None:
    """A manual request after a push does not wait for the deployments of the old revision."""
    async with running_loop() as running:
        running.place.gate = asyncio.Event()
        running.triggers.request(Trigger.INTERVAL)
        await running.settle()
        running.triggers.request(Trigger.PERSON)
        await running.settle()
        assert (running.place.superseded, running.place.passes) == (1, [Trigger.INTERVAL, Trigger.PERSON])
        running.place.gate.set()


async def test_under_constant_pushes_every_fourth_pass_runs_to_its_end() -> None:
    """New revisions interrupt a pass at most three times in a row, so that a busy branch is deployed."""
    async with running_loop() as running:
        running.place.gate = asyncio.Event()
        for _ in range(8):
            running.triggers.request(Trigger.WEBHOOK)
            await running.settle()
        assert (len(running.place.passes), running.place.superseded) == (4, 3)
        running.place.gate.set()
        await running.settle()
        assert len(running.place.passes) == 5
        assert running.triggers.pending == frozenset()


async def test_an_interrupted_pass_is_finished_when_the_new_revision_is_reverted() -> None:
    """Saved, and saved back during a deployment: the source is as before, but the work is still to be finished."""
    async with running_loop() as running:
        running.place.gate = asyncio.Event()
        running.triggers.request(Trigger.INTERVAL)
        await running.settle()
        running.triggers.request(Trigger.FILES)
        running.place.gate.set()
        await running.until(lambda: running.place.superseded)
        running.place.is_moved = False
        await running.settle()
        assert running.place.passes == [Trigger.INTERVAL, Trigger.FILES]


async def test_a_due_retry_waits_while_the_api_is_down() -> None:
    """Kapso is down and a function is due: the back-off of the pass applies, and there is no busy loop."""
    async with running_loop(slowest=60.0) as running:
        running.place.results = [lambda plan: report_on(plan, Result.FAILED, "no"), *[DOWN] * 5]
        running.triggers.request(Trigger.INTERVAL)
        for _ in range(130):
            await running.clock.sleep(1)
        gaps = [round(later - earlier) for earlier, later in zip(running.place.times, running.place.times[1:], strict=False)]
        assert gaps[:5] == [5, 5, 10, 20, 40]


async def test_due_retries_start_no_pass_while_suspended() -> None:
    """During a long suspension the daemon only sends heartbeats, whatever falls due."""
    async with running_loop() as running:
        running.place.results = [lambda plan: report_on(plan, Result.FAILED, "no")]
        running.triggers.request(Trigger.INTERVAL)
        await running.until(lambda: running.backoff.failing)
        running.loop.suspend(Suspension("maintenance", running.clock.now()))
        before = len(running.waits)
        await running.clock.sleep(3600)
        assert len(running.waits) - before <= 3600 / HEARTBEAT + 5
        assert running.place.passes == [Trigger.INTERVAL]


async def test_a_call_without_an_answer_is_retried_soon() -> None:
    """It raises no function's back-off, and the retry does not wait for the next interval."""
    async with running_loop() as running:
        running.place.results = [lambda plan: report_on(plan, Result.FAILED, "no connection", blameless=True)]
        running.triggers.request(Trigger.INTERVAL)
        await running.clock.sleep(INITIAL_RETRY_DELAY + 1)
        await running.settle()
        assert running.place.passes == [Trigger.INTERVAL, Trigger.RETRY]
        assert running.backoff.failing == ()


async def test_a_suspension_while_the_source_is_read_prevents_the_pass() -> None:
    """A suspension that arrives while the source is read also covers the pass that would follow."""
    async with running_loop() as running:
        running.place.answer, running.place.gate = asyncio.Event(), asyncio.Event()
        running.triggers.request(Trigger.POLL)
        await running.settle()
        running.loop.suspend(Suspension("maintenance", running.clock.now()))
        running.place.answer.set()
        await running.settle()
        assert running.place.superseded == len(running.place.passes) == 1, "it was told to write nothing"


async def test_a_stop_while_the_source_is_read_starts_no_pass() -> None:
    """There is no time left for it."""
    async with running_loop() as running:
        running.place.answer = asyncio.Event()
        running.triggers.request(Trigger.POLL)
        await running.settle()
        running.loop.stop()
        running.place.answer.set()
        await running.settle()
        assert running.place.passes == []


async def test_an_unexpected_exception_in_a_pass_is_logged_and_retried() -> None:
    """The log names the place in the code, and the pass is repeated."""
    async with running_loop() as running:
        running.place.results = [ValueError("what a\nsurprise"), TimeoutError()]
        running.triggers.request(Trigger.WEBHOOK)
        await running.clock.sleep(INITIAL_RETRY_DELAY * 4)
        await running.settle()
        assert running.place.passes == [Trigger.WEBHOOK, Trigger.RETRY, Trigger.RETRY]
        first, second = [event for event in running.told if isinstance(event, events.ReconcileFailed)]
        assert (first.error, second.error) == ("ValueError: what a surprise", "TimeoutError")
        assert first.hint is not None
        assert "a bug in kapso-sync in test_loop.py, line " in first.hint


async def test_a_pass_that_hangs_is_ended_at_its_deadline() -> None:
    """It has a deadline, and the loop goes on."""
    async with running_loop(pass_timeout=0.05) as running:
        running.place.gate = asyncio.Event()
        running.triggers.request(Trigger.INTERVAL)
        await running.until(lambda: "reconcile.failed" in running.names())
        running.place.gate.set()
        await running.clock.sleep(INITIAL_RETRY_DELAY)
        await running.settle()
        assert running.place.passes[:2] == [Trigger.INTERVAL, Trigger.RETRY]
        assert running.place.running == 0


async def test_a_git_server_that_hangs_leaves_the_loop_healthy() -> None:
    """Liveness does not depend on the remote: a fetch ends at its own deadline."""
    async with running_loop() as running:
        running.place.answer = asyncio.Event()
        running.triggers.request(Trigger.POLL)
        await running.settle()
        await running.clock.sleep(600)
        assert running.loop.stuck() is None
        running.place.answer.set()


async def test_a_pass_without_a_sign_of_life_is_stuck_after_a_quarter_of_an_hour() -> None:
    """Each event is one, such as an API call; a pass may take hours with them. The waiting loop has a heartbeat of its own."""
    async with running_loop() as running:
        for _ in range(10):
            await running.clock.sleep(HEARTBEAT)
            await running.settle()
        assert running.loop.stuck() is None
        running.place.gate = asyncio.Event()
        running.triggers.request(Trigger.INTERVAL)
        await running.settle()
        for _ in range(10):
            await running.clock.sleep(MAX_SILENCE_OF_PASS - 1)
            assert running.loop.stuck() is None
            running.loop.show_life()
        await running.clock.sleep(MAX_SILENCE_OF_PASS + 1)
        assert running.loop.stuck() == "the pass has been silent for 901 s"
        running.place.gate.set()


def failing_backoff(clock: VirtualClock, times: int, plan: Plan) -> FunctionBackoff:
    backoff = FunctionBackoff(clock, lambda: 1.0)
    for _ in range(times):
        backoff.record(report_on(plan, Result.FAILED, "the deployment ended in `error`"))
    return backoff


def test_a_failing_function_is_retried_with_backoff_and_the_plan_says_when() -> None:
    """Its step is held back with the reason and the way to retry at once; the other functions go on."""
    clock = VirtualClock()
    plan = plan_for("a", "b")
    backoff = FunctionBackoff(clock, lambda: 1.0)
    waits = []
    for _ in range(4):
        outcomes = (Outcome(plan.steps[0], Result.FAILED, error="no"), Outcome(plan.steps[1], Result.DONE))
        backoff.record(Report(plan, outcomes))
        waits.append(backoff.next_retry())
    assert waits == [BACKOFF.initial, BACKOFF.initial * 2, BACKOFF.initial * 4, BACKOFF.initial * 8]
    held, free = backoff.filter_plan(plan).steps
    assert isinstance(held, Blocked)
    assert held.by is BlockedBy.BACK_OFF
    assert held.explanation == ("failed 4 times with this code: no", "tried again in 40 s; `kapso-sync reconcile` tries now")
    assert free.action == "create"


async def test_new_content_or_a_manual_retry_resets_the_backoff() -> None:
    """After a change in git or a manual request the earlier failures no longer count."""
    clock = VirtualClock()
    backoff = failing_backoff(clock, 3, plan_for("a"))
    assert backoff.filter_plan(plan_for("a")).summary["blocked"] == 1
    assert backoff.filter_plan(plan_for("a", code=CODE_B)).summary["blocked"] == 0
    await clock.sleep(BACKOFF.initial * 4)
    assert backoff.filter_plan(plan_for("a")).summary["blocked"] == 0
    backoff = failing_backoff(clock, 3, plan_for("a"))
    backoff.reset()
    assert backoff.filter_plan(plan_for("a")).summary["blocked"] == 0


def test_a_stalled_function_is_reported_once_and_still_retried() -> None:
    """After that many failures of the same code the retries are as slow as they get."""
    clock = VirtualClock()
    plan = plan_for("a")
    backoff = FunctionBackoff(clock, lambda: 0.0)
    told = [backoff.record(report_on(plan, Result.FAILED, "no")) for _ in range(STALLED_AFTER + 2)]
    assert [len(stalled) for stalled in told] == [0] * (STALLED_AFTER - 1) + [1, 0, 0]
    assert backoff.next_retry() == BACKOFF.maximum


def test_outages_and_rejected_keys_raise_no_function_backoff() -> None:
    """Neither Kapso down, nor a rejected key, nor a newer revision delays a function."""
    backoff = FunctionBackoff(VirtualClock(), lambda: 1.0)
    backoff.record(report_on(plan_for("a"), Result.FAILED, "no connection", blameless=True))
    backoff.record(report_on(plan_for("a"), Result.SKIPPED, "a newer revision came", blameless=True))
    assert backoff.failing == ()


def test_a_refused_field_raises_no_backoff() -> None:
    """Sending it again cannot help, and what else of the function is to be written does not wait."""
    plan = plan_for("a")
    backoff = FunctionBackoff(VirtualClock(), lambda: 1.0)
    for refused in ((), ("public_endpoint",)):
        backoff.record(Report(plan, (Outcome(plan.steps[0], Result.FAILED, error="Kapso kept it", refused=refused),)))
        assert [failing.slug for failing in backoff.failing] == ([] if refused else ["a"])


def test_a_blocked_or_invalid_function_has_no_retry_due() -> None:
    """It was changed on Kapso, or is invalid in git: no retry falls due again and again for nothing."""
    for result in (Result.BLOCKED, Result.INVALID):
        backoff = failing_backoff(VirtualClock(), 2, plan_for("a"))
        backoff.record(report_on(plan_for("a"), result))
        assert backoff.next_retry() is None


async def test_a_due_function_that_was_not_tried_is_not_due_again_at_once() -> None:
    """A pass that is interrupted before it reaches a function does not cause a busy loop."""
    clock = VirtualClock()
    backoff = failing_backoff(clock, 1, plan_for("a"))
    await clock.sleep(BACKOFF.initial)
    assert backoff.next_retry() == 0
    backoff.record(report_on(plan_for("a"), Result.SKIPPED, "a newer revision came", blameless=True))
    assert backoff.next_retry() == BACKOFF.initial


def test_failures_of_functions_that_left_git_are_forgotten() -> None:
    """The record of failures is bounded by the number of functions."""
    backoff = failing_backoff(VirtualClock(), 1, plan_for("a", "b"))
    backoff.record(report_on(backoff.filter_plan(plan_for("b"))))
    assert [failing.slug for failing in backoff.failing] == ["b"]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_every_backoff_has_jitter_within_its_bounds(dice: list[float]) -> None:
    """Full jitter: at least a second, at most the pace of that failure."""
    clock, rolls = VirtualClock(), iter(dice)
    backoff = FunctionBackoff(clock, lambda: next(rolls, 0.5))
    for number in range(len(dice)):
        backoff.record(report_on(plan_for("a"), Result.FAILED, "no"))
        wait = backoff.next_retry()
        assert wait is not None
        assert 1.0 <= wait <= min(BACKOFF.initial * 2.0**number, BACKOFF.maximum) or wait == BACKOFF.maximum


def test_the_test_helpers_report_real_plans() -> None:
    """The helpers of this module make plans that the code accepts."""
    plan = plan_for("a")
    assert replace(plan, revision=Revision("x")).steps == report_on(plan).plan.steps
    assert BACKOFF.maximum > INITIAL_RETRY_DELAY
