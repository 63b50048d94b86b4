"""The facts that `doctor` reports about an API base are true, and its test function is deleted afterwards."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping

import pytest
from hypothesis import given, settings

from kapso_sync.doctor.api_questions import ECHOED, HEADER, MARKER, SLUG_PREFIX, ApiDoctor, DoctorReport
from kapso_sync.emulator.options import Behaviour
from kapso_sync.emulator.records import Function
from kapso_sync.emulator.world import EmulatedProject
from kapso_sync.errors import ApiUnavailable
from kapso_sync.model.api_facts import ApiFacts
from kapso_sync.model.functions import Invocation, RemoteFunction
from kapso_sync.model.json_values import Json
from kapso_sync.model.ports import FunctionsApi
from tests.clock import VirtualClock
from tests.world import Fate, WorldApi, new_world
from tests.worlds import worlds


class Kapso(WorldApi):
    """The world's API, which runs the functions of the doctor."""

    def __init__(self, world: EmulatedProject) -> None:
        super().__init__(world, runtime=self.answer)

    def answer(self, function: Function) -> Invocation:
        """Answer as the live code does."""
        if "404" in str(function.live_code):
            return Invocation(404, "", "")
        if HEADER not in str(function.live_code):
            return Invocation(200, "", "script")
        passed_on = self.asked[-1].headers if self.world.behaviour.invoke_headers else {}
        return Invocation(200, "", f"{ECHOED}{passed_on.get(HEADER)}")


def doctor_of(api: WorldApi, clock: VirtualClock) -> ApiDoctor:
    @contextlib.asynccontextmanager
    async def connect(_base: str | None, _agent: str | None) -> AsyncIterator[FunctionsApi]:
        yield api

    return ApiDoctor(api, connect, clock, token="0123abcd", other_base="https://other.test", agents=("a/1", "b/2"))


async def asked(behaviour: Behaviour) -> tuple[DoctorReport, WorldApi]:
    clock = VirtualClock()
    api = Kapso(new_world(clock, behaviour))
    api.world.create({"slug": "mine", "name": "Mine", "code": "x"})
    report = await doctor_of(api, clock).ask_all(ApiFacts())
    assert [function.slug for function in api.world.functions.values()] == ["mine"]
    return report, api


def answers(report: DoctorReport) -> dict[str, str | None]:
    return {finding.question: finding.answer for finding in report.findings}


@given(worlds())
@settings(max_examples=60, deadline=None)
def test_doctor_reports_true_facts_for_any_api_behaviour(behaviour: Behaviour) -> None:
    """Each reported fact is how this API behaves."""
    report, _ = asyncio.run(asked(behaviour))
    facts = report.facts
    assert (facts.script_runs, facts.module_runs) == (behaviour.script_code == "runs", behaviour.module_code == "runs")
    if facts.script_runs:
        assert facts.secrets_survive is (behaviour.secrets_on_deploy == "keep")
        assert facts.post_overwrites_secret is (behaviour.post_of_existing == "overwrite")
        assert facts.headers_reach is behaviour.invoke_headers
        if behaviour.lock_version != "absent":
            assert facts.lock_version_moves_on_deploy is (behaviour.lock_version == "deploy")
    said = answers(report)
    assert said["does a create need function_type"] == ("yes" if behaviour.function_type_required else "no")
    assert said["is public_endpoint kept"] == ("yes" if behaviour.keeps_public_endpoint else "no")
    if facts.script_runs:
        assert said["do headers of an invocation reach the function"] == ("yes" if behaviour.invoke_headers else "no")
    assert said["may code have more than 1,000,000 bytes"] == ("no" if behaviour.code_limit == 10**6 else "yes")


async def test_doctor_leaves_open_only_what_cannot_be_observed() -> None:
    """Where everything works every other question has an answer."""
    report, _ = await asked(Behaviour())
    assert [finding.question for finding in report.findings if finding.answer is None] == [
        "does the old script stay after a change of slug"
    ]
    assert all(finding.evidence and finding.consequence for finding in report.findings)
    assert answers(report)["which status has a function that answers 404"] == "404"


async def test_where_invocations_do_not_run_it_stays_open_whether_headers_arrive() -> None:
    """As on an emulator without a runtime: what does not answer says nothing about headers."""
    clock = VirtualClock()
    api = WorldApi(new_world(clock), runtime=lambda _: Invocation(501, "", '{"error": "This emulator does not run code"}'))
    report = await doctor_of(api, clock).ask_all(ApiFacts())
    (finding,) = [each for each in report.findings if each.question == "do headers of an invocation reach the function"]
    assert (finding.answer, finding.evidence) == (None, "its answer, with status 501, does not say")
    assert report.facts.headers_reach is None


class _Down(Kapso):
    """Everything but a create, a list and a deletion answers 500."""

    async def update_function(
        self, function_id: str, payload: Mapping[str, Json], *, lock_version: int | None = None
    ) -> RemoteFunction:
        self.fate = lambda *_: Fate.UNAVAILABLE
        try:
            return await super().update_function(function_id, payload, lock_version=lock_version)
        finally:
            self.fate = lambda *_: Fate.FINE

    async def deploy_function(self, function_id: str) -> None:
        await self.update_function(function_id, {})


async def test_failed_doctor_questions_stay_open_and_its_function_is_deleted() -> None:
    """No fact is stored."""
    clock = VirtualClock()
    api = _Down(new_world(clock))
    report = await doctor_of(api, clock).ask_all(ApiFacts())
    said = answers(report)
    assert said["do secrets survive a deployment"] is None
    assert said["does a module (export default) go live"] is None
    assert report.facts == ApiFacts()
    assert not api.world.functions


async def test_a_doctor_that_is_interrupted_deletes_its_function() -> None:
    """Cancelled in the middle of a deployment."""
    clock = VirtualClock()
    api = Kapso(new_world(clock))
    begun = asyncio.Event()
    deploy = api.deploy

    def announced(function: Function) -> object:
        begun.set()
        return deploy(function)

    api.deploy = announced
    task = asyncio.create_task(doctor_of(api, clock).ask_all(ApiFacts()))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not api.world.functions


async def test_doctor_deletes_only_the_leftover_of_a_killed_doctor() -> None:
    """Slug and description must both match exactly."""
    clock = VirtualClock()
    api = WorldApi(new_world(clock))
    for slug, text in ((f"{SLUG_PREFIX}dead", MARKER), (f"{SLUG_PREFIX}mine", "Mine."), ("other", MARKER)):
        api.world.create({"slug": slug, "name": slug, "code": "x", "description": text})
    assert await doctor_of(api, clock).delete_leftovers() == 1
    assert {function.slug for function in api.world.functions.values()} == {f"{SLUG_PREFIX}mine", "other"}


async def test_doctor_fails_if_it_cannot_create_a_function() -> None:
    """An unavailable API is an error, without a report."""
    clock = VirtualClock()
    api = WorldApi(new_world(clock), fate=lambda *_: Fate.UNAVAILABLE)
    with pytest.raises(ApiUnavailable):
        await doctor_of(api, clock).ask_all(ApiFacts())
