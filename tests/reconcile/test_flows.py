"""WhatsApp Flows: a function becomes a Flow's data endpoint once it runs, once, and nothing else is touched."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest

from kapso_sync.model.desired import Check, DesiredFunction
from kapso_sync.model.functions import Invocation
from kapso_sync.model.plan import Update
from kapso_sync.model.report import Report, Result
from tests.builders import CODE_A, CODE_B, desired, want
from tests.reconcile.passes import Bench
from tests.world import Fate, Killed

ATTACH = ("PATCH", "/whatsapp/flows/{id}/data_endpoint")
FLOWS = ("GET", "/whatsapp/flows")


def for_flow(flow: str | None, code: str = CODE_A, *, deploy: bool = True) -> DesiredFunction:
    function = want("a", code, deploy=deploy)
    return replace(function, entry=replace(function.entry, whatsapp_flow=flow))


def only(report: Report) -> Result:
    (outcome,) = report.outcomes
    return outcome.result


@pytest.fixture
def flow(bench: Bench) -> str:
    """A published Flow without a data endpoint of ours."""
    return str(bench.api.world.add_flow("Booking", None)["id"])


def endpoint(bench: Bench, flow: str) -> object:
    return bench.api.world.flows[flow]["data_endpoint_function_id"]


async def test_a_new_function_becomes_the_data_endpoint_once_it_runs(bench: Bench, flow: str) -> None:
    """After the deployment, in one call; in sync, Flows are not even read."""
    assert only(await bench.sync(desired(for_flow(flow)))) is Result.DONE
    assert endpoint(bench, flow) == bench.api.world.function("a").id
    order = [entry[:2] for entry in bench.api.writes]
    assert order.index(("POST", "/functions/{id}/deploy")) < order.index(ATTACH)
    assert bench.names().count("flow.attached") == 1
    bench.api.log.clear()
    assert only(await bench.sync(desired(for_flow(flow)))) is Result.UNCHANGED
    assert [entry[:2] for entry in bench.api.log] == [("GET", "/functions")]


async def test_a_key_that_comes_later_attaches_without_a_deployment(bench: Bench, flow: str) -> None:
    """And a plan says so before."""
    await bench.sync(desired(for_flow(None)))
    bench.api.log.clear()
    report = await bench.sync(desired(for_flow(flow)))
    (step,) = report.plan.steps
    assert isinstance(step, Update)
    assert step.reasons == (f"becomes the data endpoint of WhatsApp Flow {flow}",)
    assert only(report) is Result.DONE
    assert [entry[:2] for entry in bench.api.writes] == [ATTACH]


async def test_another_flow_is_attached_as_well_and_the_former_one_stays(bench: Bench, flow: str) -> None:
    """Kapso cannot detach one, so a key that leaves git changes nothing there."""
    other = str(bench.api.world.add_flow("Survey", None)["id"])
    await bench.sync(desired(for_flow(flow)))
    await bench.sync(desired(for_flow(other)))
    here = bench.api.world.function("a").id
    assert (endpoint(bench, flow), endpoint(bench, other)) == (here, here)
    bench.api.log.clear()
    assert only(await bench.sync(desired(for_flow(None)))) is Result.UNCHANGED
    assert not bench.api.writes


async def test_a_lost_state_folder_attaches_nothing_twice(bench: Bench, flow: str) -> None:
    """To attach anew publishes the Flow anew: the Flow is read, and it has the function already."""
    await bench.sync(desired(for_flow(flow)))
    shutil.rmtree(bench.folder)
    bench.api.log.clear()
    await bench.sync(desired(for_flow(flow)))
    assert bench.api.count(*FLOWS) == 1
    assert bench.api.count(*ATTACH) == 0
    bench.api.log.clear()
    await bench.sync(desired(for_flow(flow)))
    assert bench.api.count(*FLOWS) == 0


async def test_a_flow_that_does_not_exist_is_the_functions_own_failure(bench: Bench, flow: str) -> None:
    """The code runs all the same, other functions go on, and the id is what to correct."""
    report = await bench.sync(desired(for_flow("no-such-flow"), want("b")))
    outcomes = {outcome.step.slug: outcome for outcome in report.outcomes}
    assert outcomes["b"].result is Result.DONE
    assert outcomes["a"].result is Result.FAILED
    assert outcomes["a"].error is not None
    assert "there is no WhatsApp Flow no-such-flow" in outcomes["a"].error
    assert bench.api.world.function("a").live_code == CODE_A
    assert bench.api.count(*ATTACH) == 0
    await bench.sync(desired(for_flow(flow), want("b")))
    assert endpoint(bench, flow) == bench.api.world.function("a").id


async def test_a_draft_is_not_attached(bench: Bench, flow: str) -> None:
    """Kapso attaches deployed functions alone."""
    await bench.sync(desired(for_flow(flow, deploy=False)))
    assert bench.api.count(*ATTACH) == 0
    await bench.sync(desired(for_flow(flow)))
    assert endpoint(bench, flow) == bench.api.world.function("a").id


async def test_a_failing_check_attaches_nothing(bench: Bench, flow: str) -> None:
    """Users of the Flow must not meet code that was taken back."""
    await bench.sync(desired(for_flow(None)))
    bench.api.runtime = lambda function: Invocation(500 if function.live_code == CODE_B else 200, "", "")
    changed = for_flow(flow, CODE_B)
    report = await bench.sync(desired(replace(changed, entry=replace(changed.entry, checks=(Check(None),)))))
    assert only(report) is Result.FAILED
    assert bench.api.world.function("a").live_code == CODE_A
    assert bench.api.count(*ATTACH) == 0


async def test_a_flow_that_is_not_republished_is_a_warning(bench: Bench, flow: str) -> None:
    bench.api.world.behaviour = replace(bench.api.world.behaviour, flow_republish=False)
    assert only(await bench.sync(desired(for_flow(flow)))) is Result.DONE
    assert "flow.not_republished" in bench.names()


@pytest.mark.parametrize("fate", [Fate.KILLED_BEFORE, Fate.KILLED_AFTER, Fate.LOST_AFTER])
async def test_a_crash_while_a_flow_is_attached_is_finished_by_the_next_pass(bench: Bench, flow: str, fate: Fate) -> None:
    """Whether the write arrived or not, the next pass ends with the function attached, by one write in all or two."""
    await bench.sync(desired(for_flow(None)))
    struck: list[int] = []

    def decide(number: int, method: str, route: str) -> Fate:
        if (method, route) == ATTACH and not struck:
            struck.append(number)
            return fate
        return Fate.FINE

    bench.api.fate = decide
    if fate is Fate.LOST_AFTER:
        await bench.sync(desired(for_flow(flow)))
    else:
        with pytest.raises(BaseExceptionGroup) as died:
            await bench.sync(desired(for_flow(flow)))
        assert died.group_contains(Killed)
    await bench.sync(desired(for_flow(flow)))
    assert endpoint(bench, flow) == bench.api.world.function("a").id
    assert bench.api.count(*ATTACH) == (2 if fate is Fate.KILLED_BEFORE else 1)
    bench.api.log.clear()
    assert only(await bench.sync(desired(for_flow(flow)))) is Result.UNCHANGED
    assert bench.api.count(*FLOWS) == 0
