"""How many deployments run at once, in which order they begin, and how often they are looked at."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import ClassVar

import pytest

from kapso_sync.model.api_facts import ApiFacts
from kapso_sync.model.desired import DesiredFunction
from kapso_sync.model.functions import CallBudget, FunctionList, RemoteFunction
from kapso_sync.model.json_values import Json
from kapso_sync.model.report import Result
from kapso_sync.reconcile.apply.deployment_poller import PollPace, RunningDeployment
from kapso_sync.store.api_facts import ApiFactsFile
from tests.builders import CODE_A, CODE_B, desired, remote, want
from tests.reconcile.passes import Bench
from tests.world import DEPLOY_SECONDS, Fate, WorldApi

BROKEN = "async function handler( {"


class Watched(WorldApi):
    """Remembers when the list was read, and how many deployments ran at most."""

    costs = CallBudget()

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench.api.world)
        self.clock = bench.clock
        self.looks: list[float] = []
        self.most_running = 0

    @property
    def budget(self) -> CallBudget:
        return self.costs

    async def list_records(self) -> FunctionList:
        self.looks.append(self.clock.monotonic())
        return await super().list_records()

    async def deploy_function(self, function_id: str) -> None:
        await super().deploy_function(function_id)
        now = self.clock.now()
        running = {run.function_id for run in self.world.deployments if run.ends_at is None or run.ends_at > now}
        self.most_running = max(self.most_running, len(running))


def watched(bench: Bench, costs: CallBudget | None = None) -> Watched:
    api = Watched(bench)
    api.costs = costs or CallBudget()
    bench.api = api
    return api


def many(count: int, code: str = CODE_A) -> list[DesiredFunction]:
    return [want(f"f{number:03d}", code) for number in range(count)]


@pytest.mark.parametrize("most", [1, 7, 50])
async def test_no_more_deployments_run_at_once_than_the_setting_allows(bench: Bench, most: int) -> None:
    """And as many do: they take long, and cost no call while they run."""
    api = watched(bench)
    bench.settings = replace(bench.settings, concurrency=min(8, most), deploying=most)
    report = await bench.sync(desired(*many(60)))
    assert len(report.results(Result.DONE)) == 60
    assert api.most_running == most
    waves = -(-60 // most)
    assert bench.clock.monotonic() <= waves * (DEPLOY_SECONDS + bench.settings.poll_intervals.maximum)


async def test_polls_take_a_twentieth_of_the_calls_that_may_be_spent(bench: Bench) -> None:
    """Of 80 calls a minute, four. A control: without a known limit the polls come faster."""
    costs = CallBudget(list_calls=1, per_second=80 / 60)
    api = watched(bench, costs)
    bench.settings = replace(bench.settings, deploying=5)
    await bench.sync(desired(*many(40)))
    polls = api.looks[1:]
    pauses = [after - before for before, after in pairwise(polls)]
    spent, allowed = len(polls), 1 / 20 * 80 / 60 * (polls[-1] - polls[0])
    assert spent <= allowed + 2, "and one that was saved"
    unlimited = watched(bench)
    await bench.sync(desired(*many(40, CODE_B)))
    polls = unlimited.looks[1:]
    assert min(after - before for before, after in pairwise(polls)) < min(pauses)


async def test_a_few_deployments_in_a_large_project_are_read_one_by_one(bench: Bench) -> None:
    """One of 1,000 functions costs one call a poll, where the list costs ten."""
    await bench.sync(desired(*many(3)))
    api = watched(bench, CallBudget(list_calls=10, per_second=80 / 60))
    report = await bench.sync(desired(want("f000", CODE_B), *many(3)[1:]))
    assert len(report.results(Result.DONE)) == 1
    assert len(api.looks) == 1, "the list of the plan alone"
    assert 1 <= api.count("GET", "/functions/{id}") <= 3


async def test_a_function_that_vanishes_while_it_is_read_alone_fails(bench: Bench) -> None:
    """A 404 is believed the second time, as an absence from the list is."""
    await bench.sync(desired(want("a"), want("b")))
    api = watched(bench, CallBudget(list_calls=10))

    async def deploy_and_delete(function_id: str) -> None:
        await WorldApi.deploy_function(api, function_id)
        api.world.delete(api.world.by_id(function_id))

    api.deploy_function = deploy_and_delete  # type: ignore[method-assign]
    report = await bench.sync(desired(want("a", CODE_B), want("b")))
    assert "vanished" in str(next(outcome.error for outcome in report.outcomes if outcome.step.slug == "a"))
    assert api.count("GET", "/functions/{id}") >= 2


async def test_what_is_down_is_deployed_before_what_changed_and_what_is_new(bench: Bench) -> None:
    """With one deployment at a time the order shows; slugs would have it otherwise."""
    await bench.sync(desired(want("m-changed"), want("z-down", CODE_B)))
    down = bench.api.world.function("z-down")
    bench.api.world.update(down, {"code": BROKEN})
    bench.api.world.deploy(down, failure="broken")
    await bench.clock.sleep(600)
    order: list[str] = []

    class Ordered(WorldApi):
        async def deploy_function(self, function_id: str) -> None:
            order.append(self.world.by_id(function_id).slug)
            await super().deploy_function(function_id)

    bench.api = Ordered(bench.api.world)
    bench.settings = replace(bench.settings, concurrency=1, deploying=1)
    await bench.sync(desired(want("a-new"), want("m-changed", CODE_B), want("z-down", CODE_B)))
    assert order == ["z-down", "m-changed", "a-new"]


async def test_an_outage_stops_what_waits_for_its_turn_to_be_written(bench: Bench) -> None:
    """Fifty may be deployed at once, but only as many as are written at once meet the outage."""

    class Down(WorldApi):
        tried: ClassVar[set[object]] = set()

        async def create_function(self, payload: Mapping[str, Json]) -> RemoteFunction:
            self.tried.add(payload["slug"])
            return await super().create_function(payload)

    bench.api = Down(bench.api.world)
    bench.api.fate = lambda _n, method, _r: Fate.FINE if method == "GET" else Fate.UNAVAILABLE
    bench.settings = replace(bench.settings, concurrency=2)
    await bench.sync(desired(*many(30)))
    assert len(bench.api.tried) <= 4


async def test_the_next_pass_looks_when_a_deployment_of_this_base_should_have_ended(bench: Bench) -> None:
    """The first pass learns what a deployment takes; the next one looks early once, and then at that time."""
    await bench.sync(desired(want("a")))
    learned = bench.memory().facts.deploy_seconds
    assert learned is not None
    assert abs(learned - DEPLOY_SECONDS) <= bench.settings.poll_intervals.maximum
    api = watched(bench)
    begun = bench.clock.monotonic()
    await bench.sync(desired(want("a", CODE_B)))
    early, *later = [look - begun for look in api.looks[1:]]
    assert early == pytest.approx(bench.settings.poll_intervals.initial, abs=1)
    assert later[0] >= learned - 1
    assert len(later) <= 3


def test_the_pace_follows_what_was_seen() -> None:
    """One duration moves it half the way, several replace what earlier passes saw, and the newest count."""
    pace = PollPace(typical=40.0)
    assert pace.with_seen([]).typical == 40.0
    assert pace.with_seen([20.0]).typical == 30.0
    assert pace.with_seen([20.0] * 5).typical == 20.0
    assert PollPace().with_seen([12.0]).typical == 12.0
    assert PollPace().with_seen([90.0] * 100 + [10.0] * 50).typical == 10.0


@pytest.mark.parametrize(("spacing", "expected"), [(0.0, [2.0, 20.0, 22.2, 24.62]), (15.0, [20.0, 22.2, 24.62, 27.282])])
async def test_looks_begin_early_and_then_wait_for_the_typical_end(spacing: float, expected: list[float]) -> None:
    """Where looks are dear there is no early one: it would delay the one at the typical end."""
    deployment = RunningDeployment(remote("a"), 0.0, asyncio.get_running_loop().create_future())
    pace = PollPace(typical=20.0)
    looks = []
    for _ in range(4):
        now = pace.due(deployment, spacing)
        looks.append(now)
        deployment.late_looks += now >= 20.0
        deployment.looked_at = now
    assert looks == pytest.approx(expected)


async def test_deployments_that_began_together_are_looked_at_together() -> None:
    """A look at the first of them alone would leave the others to the next one."""
    began = (0.0, 0.3, 0.9, 11.0)
    running = [RunningDeployment(remote("a"), at, asyncio.get_running_loop().create_future()) for at in began]
    assert PollPace(typical=20.0).next_due(running, 15.0) == pytest.approx(20.9)


@pytest.mark.parametrize("stored", [-1.0, 0, "12", 1e9, True, float("nan"), None])
def test_a_duration_that_cannot_be_is_not_read(tmp_path_factory: pytest.TempPathFactory, stored: object) -> None:
    """A file with years in it would end the polls. A control: a possible one is read."""
    file = ApiFactsFile.for_base(tmp_path_factory.mktemp("facts"), "https://api.example")
    file.write(ApiFacts(deploy_seconds=12.5))
    assert file.read().deploy_seconds == 12.5
    file.path.write_text(json.dumps({"deploy_seconds": stored}))
    assert file.read() == ApiFacts()
