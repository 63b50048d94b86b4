"""Invocations are read at the right pace, and a version that fails is taken back by a pass, with a daemon of this process."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from kapso_sync.daemon.deployment_watcher import LOOK_SHARE, DeploymentWatcher
from kapso_sync.errors import ApiUnavailable, Call, NotLeading
from kapso_sync.model import events
from kapso_sync.model.clock import Clock
from kapso_sync.model.desired import Check, Desired, DesiredFunction, WatchPolicy
from kapso_sync.model.evidence import Evidence
from kapso_sync.model.functions import Invocation, InvocationRecord, InvokeRequest, code_hash
from kapso_sync.model.plan import Blocked, BlockedBy, Rollback, Update
from kapso_sync.model.policies import PassOverrides
from kapso_sync.model.report import Report, Result
from kapso_sync.model.state import DeploymentWatch, QuarantineReason, Tally
from kapso_sync.reconcile.apply.executor import ExecutorSettings
from kapso_sync.reconcile.cycle import PassRequest
from kapso_sync.reconcile.plan.watching import LOOK_INTERVAL
from kapso_sync.store.database import StateStore
from tests.builders import CODE_A, CODE_B, desired, want
from tests.clock import VirtualClock
from tests.reconcile.passes import Bench
from tests.virtual_time import LoopClock, run_virtually
from tests.world import DEPLOY_SECONDS, WorldApi, new_world

CODE_C = "async function handler() { return new Response('c'); }\n"
POLICY = WatchPolicy(period=600.0, failures=3, percent=50)
LISTED = ("GET", "/functions/{id}/invocations")


def watched(code: str, slug: str = "a", policy: WatchPolicy | None = POLICY, checks: tuple[Check, ...] = ()) -> DesiredFunction:
    function = want(slug, code)
    return replace(function, entry=replace(function.entry, watch=policy, checks=checks))


@dataclass
class Daemon:
    """What the watcher asks of a session, over a world in memory; ``git`` is what passes apply."""

    bench: Bench
    git: Desired = field(default_factory=lambda: desired(watched(CODE_A)))
    reported: list[events.Event] = field(default_factory=list)
    requested: int = 0
    shown: Mapping[str, datetime] = field(default_factory=dict)
    may_look: bool = True
    calls_per_second: float | None = None
    looks: list[tuple[float, str]] = field(default_factory=list)
    trouble: Exception | None = None

    async def sync(self, *functions: DesiredFunction, request: PassRequest | None = None) -> Report:
        """One pass of a daemon."""
        self.git = desired(*functions) if functions else self.git
        return await self.bench.sync(self.git, request)

    def call(self, *statuses: int, slug: str = "a") -> None:
        """Invocations by somebody."""
        world = self.bench.api.world
        for status in statuses:
            world.record_invocation(world.function(slug), {"order": 1}, status, error="boom" if status >= 500 else None)

    @contextlib.asynccontextmanager
    async def watching(self) -> AsyncIterator[DeploymentWatcher]:
        """The watcher, as long as the block lasts."""
        watcher = DeploymentWatcher(
            self,
            self.bench.clock,
            may_look=lambda: self.may_look,
            show=lambda until: setattr(self, "shown", until),
            request_pass=self._requested,
        )
        task = asyncio.create_task(watcher.run())
        try:
            yield watcher
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def watch(self, seconds: float) -> None:
        """Let the watcher run for so long."""
        async with self.watching():
            await self.bench.clock.sleep(seconds)

    def _requested(self) -> None:
        self.requested += 1

    def names(self) -> list[str]:
        return [event.name for event in self.reported]

    # The watcher's session

    def _store(self) -> StateStore:
        return StateStore(self.bench.folder, self.bench.clock.now)

    def watches(self) -> Sequence[DeploymentWatch]:
        with self._store() as store:
            return store.watches()

    def remember_watch(self, watch: DeploymentWatch) -> bool:
        return self._if_current(watch, lambda store: store.remember_watch(watch))

    def end_watch(self, watch: DeploymentWatch) -> bool:
        return self._if_current(watch, lambda store: store.end_watch(watch.function_id, proven=True))

    def _if_current(self, watch: DeploymentWatch, act: Callable[[StateStore], None]) -> bool:
        with self._store() as store:
            stored = store.watch(watch.function_id)
            if stored is None or stored.deployed_at != watch.deployed_at:
                return False
            act(store)
            return True

    async def read_invocations(self, function_id: str) -> Sequence[InvocationRecord]:
        self.looks.append((self.bench.clock.monotonic(), function_id))
        if self.trouble is not None:
            raise self.trouble
        return await self.bench.api.list_invocations(function_id, limit=20)

    async def evidence(self, watch: DeploymentWatch, failure: InvocationRecord) -> tuple[str, Evidence]:
        return str(failure.error), Evidence((f"status {failure.status_code}", "boom"), f"{watch.slug}.js:1:1")

    def report(self, event: events.Event) -> None:
        self.reported.append(event)


def new_daemon(tmp_path: Path, clock: Clock) -> Daemon:
    world = new_world(clock)
    return Daemon(Bench(tmp_path / "state", clock, WorldApi(world), settings=ExecutorSettings(watch_edge=0.0)))


def story(test: Callable[[Daemon], Coroutine[Any, Any, None]]) -> Callable[[Path], None]:
    """A test with a daemon of its own, in virtual time."""

    @functools.wraps(test, assigned=("__module__", "__name__", "__qualname__", "__doc__"))
    def run(tmp_path: Path) -> None:
        async def work() -> None:
            await test(new_daemon(tmp_path, LoopClock()))

        run_virtually(work())

    del run.__wrapped__  # pytest must see the signature of this one
    return run


def only(report: Report) -> Result:
    (outcome,) = report.outcomes
    return outcome.result


async def deploy_b(daemon: Daemon, *before: int) -> None:
    """Version A ran well, or was invoked with these results, and version B is live and watched."""
    await daemon.sync(watched(CODE_A))
    await daemon.watch(POLICY.period + 1)
    daemon.call(*before)
    daemon.reported.clear()
    daemon.looks.clear()
    await daemon.bench.clock.sleep(1)
    assert only(await daemon.sync(watched(CODE_B))) is Result.DONE


@story
async def test_a_version_that_fails_is_taken_back_by_the_next_pass(daemon: Daemon) -> None:
    """What ran before runs again; the failed code waits for git, with the evidence; the fix goes live."""
    await deploy_b(daemon, 200, 200, 200)
    daemon.call(500, 500, 404, 500)
    await daemon.watch(LOOK_INTERVAL + 1)
    assert (daemon.requested, daemon.names()) == (1, ["watch.failed"])
    api, world = daemon.bench.api, daemon.bench.api.world
    assert world.live_code() == {"a": CODE_B}, "the watch itself writes nothing to Kapso"
    (outcome,) = (await daemon.sync()).outcomes
    error = "3 of 4 invocations since its deployment failed, and none of 3 before it: boom (a.js:1:1)"
    assert (outcome.result, outcome.error) == (Result.FAILED, error)
    assert outcome.quarantine is not None
    assert (outcome.quarantine.code, outcome.quarantine.restored) == (code_hash(CODE_B), code_hash(CODE_A))
    assert outcome.quarantine.fault is QuarantineReason.WATCH
    assert outcome.evidence == outcome.quarantine.evidence == Evidence(("status 500", "boom"), "a.js:1:1")
    assert isinstance(outcome.step, Rollback)
    assert outcome.step.diff.startswith("--- kapso/a (code)\n+++ previous/a (code)\n"), "what was written"
    there, in_git = outcome.held_back.splitlines()[-2:]
    assert (there, in_git) == (f"-{CODE_A.strip()}", f"+{CODE_B.strip()}"), "what git says, and Kapso has not"
    assert world.live_code() == {"a": CODE_A}
    api.log.clear()
    again = await daemon.sync()
    (step,) = again.plan.steps
    assert isinstance(step, Blocked)
    assert step.reasons == (f"in quarantine: {error}",)
    assert api.log == [("GET", "/functions", "")]
    await daemon.watch(3600)
    assert (daemon.requested, api.log) == (1, [("GET", "/functions", "")]), "what was taken back is not watched"
    assert only(await daemon.sync(watched(CODE_C))) is Result.DONE
    assert world.live_code() == {"a": CODE_C}


@story
async def test_a_flood_of_4xx_changes_nothing(daemon: Daemon) -> None:
    """People who may call a function must not be able to roll it back."""
    await deploy_b(daemon)
    async with daemon.watching():
        for _ in range(15):
            daemon.call(*[404] * 25)
            await daemon.bench.clock.sleep(50)
    assert (daemon.requested, daemon.names()) == (0, ["watch.passed"])


@story
async def test_a_fix_of_a_version_that_failed_as_often_stays(daemon: Daemon) -> None:
    """It may not be worse than what ran before."""
    await deploy_b(daemon, 500, 500, 200)
    await daemon.bench.clock.sleep(1)
    daemon.call(500, 500, 500, 200, 200)
    await daemon.watch(POLICY.period + 1)
    assert (daemon.requested, daemon.names()) == (0, ["watch.passed"])


@story
async def test_too_little_traffic_is_said_once_and_is_no_verdict(daemon: Daemon) -> None:
    """The version stands, and later passes say nothing of it."""
    await deploy_b(daemon)
    daemon.call(500, 500)
    await daemon.watch(2 * POLICY.period)
    (said,) = daemon.reported
    assert isinstance(said, events.WatchInconclusive)
    assert said.reason == "too little traffic: 2 of the 3 invocations that it takes came since its deployment"
    assert (await daemon.sync()).plan.in_sync
    assert daemon.shown == {}


@story
async def test_a_function_is_read_once_a_minute_and_at_the_end(daemon: Daemon) -> None:
    """Never sooner after the look before its deployment, either; then not at all."""
    await deploy_b(daemon)
    (deployed_at,) = [daemon.bench.clock.monotonic()]
    daemon.bench.api.log.clear()
    async with daemon.watching():
        await daemon.bench.clock.sleep(1)
        assert set(daemon.shown) == {"a"}
        await daemon.bench.clock.sleep(3600)
    times = [at for at, _ in daemon.looks]
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert all(gap >= LOOK_INTERVAL for gap in gaps[:-1]), gaps
    assert times[-1] == deployed_at + POLICY.period
    assert len(times) <= POLICY.period / LOOK_INTERVAL + 1
    assert set(daemon.bench.api.log) == {(*LISTED, daemon.looks[0][1])}


@story
async def test_without_a_watch_nothing_is_read(daemon: Daemon) -> None:
    """Not before a deployment, and not after it; in sync and quiet is one list call. The same with a watch is the control."""
    for policy, slug, expected in ((None, "a", 0), (POLICY, "b", 1)):
        await daemon.sync(watched(CODE_A, slug, policy))
        await daemon.watch(POLICY.period + 1)
        daemon.bench.api.log.clear()
        await daemon.sync(watched(CODE_B, slug, policy))
        assert daemon.bench.api.count(*LISTED) == expected
        daemon.bench.api.log.clear()
        assert (await daemon.sync()).plan.in_sync
        assert daemon.bench.api.log == [("GET", "/functions", "")]


@story
async def test_sync_watches_nothing(daemon: Daemon) -> None:
    """Only a daemon would read what follows, so nothing is read or kept."""
    daemon.bench.settings = ExecutorSettings()
    await daemon.sync(watched(CODE_A))
    await daemon.sync(watched(CODE_B))
    assert daemon.bench.api.count(*LISTED) == 0
    assert daemon.bench.memory().watches == {}
    assert "watch.started" not in daemon.bench.names()


@story
async def test_many_functions_share_a_part_of_the_rate_limit(daemon: Daemon) -> None:
    """Each waits its turn: a tenth of what may be spent is spent on looks."""
    daemon.calls_per_second = 80 / 60
    await daemon.sync(*(watched(CODE_A, f"f{number:02d}") for number in range(30)))
    await daemon.watch(POLICY.period)
    window = [at for at, _ in daemon.looks if at < daemon.looks[0][0] + 300]
    assert len(window) <= 300 * daemon.calls_per_second * LOOK_SHARE + 1
    assert len({function_id for _, function_id in daemon.looks}) == 30


@story
async def test_a_newer_deployment_ends_the_watch_of_the_one_before(daemon: Daemon) -> None:
    """Its failures are none of the newer one's; and while none has stood its watch, the last good version is restored."""
    await deploy_b(daemon)
    daemon.call(500, 500)
    await daemon.watch(LOOK_INTERVAL + 1)
    await daemon.sync(watched(CODE_C))
    daemon.call(500)
    await daemon.watch(LOOK_INTERVAL + 1)
    assert daemon.requested == 0
    daemon.call(500, 500)
    await daemon.watch(LOOK_INTERVAL + 1)
    await daemon.sync()
    assert daemon.bench.api.world.live_code() == {"a": CODE_A}


async def test_a_failed_check_while_a_version_is_watched_restores_the_one_before_both(tmp_path: Path) -> None:
    """B is watched, and C fails its check: A is restored, and what git says differs from A and no more from B."""
    daemon = new_daemon(tmp_path, VirtualClock())
    await daemon.sync(watched(CODE_A, policy=None))
    await daemon.sync(watched(CODE_B))
    (outcome,) = (await daemon.sync(watched(CODE_C, checks=(Check({}, status=299),)))).outcomes
    assert (outcome.result, daemon.bench.api.world.live_code()) == (Result.FAILED, {"a": CODE_A})
    assert isinstance(outcome.step, Update)
    assert outcome.step.diff.splitlines()[-2:] == [f"-{CODE_B.strip()}", f"+{CODE_C.strip()}"], "what was planned"
    assert outcome.held_back.splitlines()[-2:] == [f"-{CODE_A.strip()}", f"+{CODE_C.strip()}"]


@story
async def test_a_version_that_stood_its_watch_is_the_one_to_go_back_to(daemon: Daemon) -> None:
    """B stood it, and C fails: B is restored."""
    await deploy_b(daemon)
    daemon.call(200, 200, 200)
    await daemon.watch(POLICY.period + 1)
    assert daemon.names() == ["watch.passed"]
    await daemon.sync(watched(CODE_C))
    daemon.call(500, 500, 500)
    await daemon.watch(LOOK_INTERVAL + 1)
    await daemon.sync()
    assert daemon.bench.api.world.live_code() == {"a": CODE_B}


@story
async def test_a_first_version_is_reported_and_stays(daemon: Daemon) -> None:
    """There is nothing to go back to; a person may accept it, and the next version goes live."""
    await daemon.sync(watched(CODE_A))
    daemon.call(500, 500, 500)
    await daemon.watch(LOOK_INTERVAL + 1)
    assert daemon.requested == 1
    report = await daemon.sync()
    (step,) = report.plan.steps
    assert isinstance(step, Blocked)
    assert (step.by, int(report.exit_code)) == (BlockedBy.FAILING, 1)
    assert step.reasons[0].startswith(
        "3 of 3 invocations since its deployment failed, with none before it to compare them with"
    )
    assert report.outcomes[0].evidence == Evidence(("status 500", "boom"), "a.js:1:1")
    assert daemon.bench.api.world.live_code() == {"a": CODE_A}
    await daemon.watch(3600)
    assert daemon.requested == 1, "it is said once"
    accepted = await daemon.sync(request=PassRequest(overrides=PassOverrides(retry=frozenset("a"))))
    assert accepted.plan.in_sync
    assert (await daemon.sync()).plan.in_sync


@story
async def test_a_second_version_is_compared_with_the_first_that_would_be_restored(daemon: Daemon) -> None:
    """The first fails always, and so does the second: restoring the first would mend nothing."""
    await daemon.sync(watched(CODE_A))
    daemon.call(500, 500, 500)
    await daemon.watch(LOOK_INTERVAL + 1)
    await daemon.sync(watched(CODE_B))
    daemon.call(500, 500, 500)
    await daemon.watch(POLICY.period + 1)
    assert (daemon.requested, daemon.names()) == (1, ["watch.failed", "watch.passed"])
    assert (await daemon.sync()).plan.in_sync


@story
async def test_code_that_was_only_deployed_again_is_not_taken_back(daemon: Daemon) -> None:
    """The same code ran well before: a secret or a service is at fault, and restoring it would change nothing."""
    await deploy_b(daemon)
    await daemon.watch(POLICY.period + 1)
    world = daemon.bench.api.world
    world.deploy(world.function("a"), failure="out of luck")
    await daemon.bench.clock.sleep(20)
    await daemon.sync()
    daemon.call(500, 500, 500)
    await daemon.watch(LOOK_INTERVAL + 1)
    (step,) = (await daemon.sync()).plan.steps
    assert isinstance(step, Blocked)
    assert (step.by, world.live_code()) == (BlockedBy.FAILING, {"a": CODE_B})


@story
async def test_somebody_elses_deployment_ends_the_watch(daemon: Daemon) -> None:
    """What runs then is not known to be ours, so nothing is taken back for it."""
    await deploy_b(daemon)
    daemon.call(500, 500, 500)
    await daemon.watch(LOOK_INTERVAL + 1)
    world = daemon.bench.api.world
    world.deploy(world.function("a"))
    await daemon.bench.clock.sleep(20)
    assert (await daemon.sync()).plan.in_sync
    assert (daemon.bench.memory().watches, world.live_code()) == ({}, {"a": CODE_B})


@story
async def test_nothing_is_read_while_suspended_or_without_the_lease(daemon: Daemon) -> None:
    """And the watch goes on when that is over: what was invoked meanwhile counts."""
    await deploy_b(daemon)
    daemon.call(500, 500, 500)
    daemon.may_look = False
    async with daemon.watching() as watcher:
        await daemon.bench.clock.sleep(300)
        assert daemon.looks == []
        daemon.may_look, daemon.trouble = True, NotLeading("another replica leads")
        watcher.wake()
        await daemon.bench.clock.sleep(1)
        assert (len(daemon.looks), daemon.reported) == (1, [])
        daemon.trouble = None
        await daemon.bench.clock.sleep(LOOK_INTERVAL)
    assert daemon.names() == ["watch.failed"]


@story
async def test_an_api_that_is_down_fails_nothing(daemon: Daemon) -> None:
    """It is asked once a minute; what could not be read to the end is no verdict."""
    await deploy_b(daemon)
    daemon.call(500, 500, 500)
    daemon.trouble = ApiUnavailable("no connection", call=Call(*LISTED))
    await daemon.watch(POLICY.period + 1)
    assert len(daemon.looks) <= POLICY.period / LOOK_INTERVAL + 1
    assert daemon.requested == 0
    (said,) = daemon.reported
    assert isinstance(said, events.WatchInconclusive)
    assert said.reason == "its invocations cannot be read: no connection"


@story
async def test_a_watch_goes_on_after_a_restart(daemon: Daemon) -> None:
    """Two failures before it, and one after it; the minute between two looks counts across it, and so does the end."""
    await deploy_b(daemon)
    daemon.call(500, 500)
    await daemon.watch(LOOK_INTERVAL + 1)
    await daemon.watch(1)
    assert len(daemon.looks) == 1
    daemon.call(500)
    await daemon.watch(LOOK_INTERVAL)
    assert daemon.names() == ["watch.failed"]


@story
async def test_a_verdict_outlives_a_restart(daemon: Daemon) -> None:
    """It was stored, and the process died before the pass: any pass of the next one takes the version back."""
    await deploy_b(daemon)
    daemon.call(500, 500, 500)
    await daemon.watch(LOOK_INTERVAL + 1)
    restarted = Daemon(daemon.bench, daemon.git)
    await restarted.sync()
    assert daemon.bench.api.world.live_code() == {"a": CODE_A}


@story
async def test_a_daemon_that_was_down_for_long_judges_the_time_of_the_watch(daemon: Daemon) -> None:
    """What is invoked a day later says nothing about the deployment; failures of that time do, if Kapso still lists them."""
    await deploy_b(daemon)
    daemon.call(500, 500, 500)
    await daemon.bench.clock.sleep(86400)
    daemon.call(500, 500)
    await daemon.watch(1)
    (said,) = daemon.reported
    assert isinstance(said, events.WatchFailed)
    assert said.error.startswith("3 of 3 ")


@story
async def test_a_deployment_that_ended_while_nobody_looked_is_watched(daemon: Daemon) -> None:
    """The process died during the deployment: the next one finds it live, and watches it, with what was read before it."""
    await daemon.sync(watched(CODE_A))
    await daemon.watch(POLICY.period + 1)
    daemon.call(200, 200)
    await daemon.bench.clock.sleep(1)
    pass_task = asyncio.create_task(daemon.sync(watched(CODE_B)))
    await daemon.bench.clock.sleep(DEPLOY_SECONDS / 2)
    pass_task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await pass_task
    await daemon.bench.clock.sleep(60)
    assert (await daemon.sync()).plan.in_sync
    daemon.call(500, 500, 500)
    await daemon.watch(LOOK_INTERVAL + 1)
    (said,) = [event for event in daemon.reported if isinstance(event, events.WatchFailed)]
    assert "and none of 2 before it" in said.error
    await daemon.sync()
    assert daemon.bench.api.world.live_code() == {"a": CODE_A}


async def test_checks_that_fail_at_first_are_no_evidence(tmp_path: Path) -> None:
    """They are our own invocations: the edge answered with the code before, which the check did not expect."""
    daemon = new_daemon(tmp_path, VirtualClock())
    await daemon.sync(watched(CODE_A))
    api = daemon.bench.api
    check = Check({"ping": True}, status=200)
    invoke, asked = api.invoke_function, 0

    async def recorded(function_id: str, request: InvokeRequest, *, timeout: float) -> Invocation:
        nonlocal asked
        asked += 1
        answer = await invoke(function_id, request, timeout=timeout)
        status = 500 if asked <= 3 else 200
        api.world.record_invocation(api.world.function("a"), json.loads(request.body), status)
        return replace(answer, status=status)

    api.invoke_function = recorded  # type: ignore[method-assign]
    assert only(await daemon.sync(watched(CODE_C, checks=(check,)))) is Result.DONE
    assert asked == 4
    daemon.call(500, 200)
    await daemon.watch(LOOK_INTERVAL + 1)
    (watch,) = daemon.watches()
    assert watch.after == Tally(2, 1), "what others invoke counts"


@story
async def test_git_may_change_or_end_a_watch(daemon: Daemon) -> None:
    """Without a deployment: stricter thresholds hold at once, and a key that is gone ends the watch."""
    await deploy_b(daemon)
    daemon.call(500)
    await daemon.watch(LOOK_INTERVAL + 1)
    assert (await daemon.sync(watched(CODE_B, policy=replace(POLICY, failures=1)))).plan.in_sync
    await daemon.watch(LOOK_INTERVAL + 1)
    assert daemon.names() == ["watch.failed"]
    assert (await daemon.sync(watched(CODE_B, policy=None))).plan.in_sync
    assert daemon.bench.memory().watches == {}
