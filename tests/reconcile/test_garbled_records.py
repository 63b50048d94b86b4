"""Records and answers that cannot be believed: the functions that they may be are left alone, and the others go on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

from kapso_sync.api.wire import parse_list
from kapso_sync.errors import Call
from kapso_sync.model.functions import FunctionList, RemoteFunction
from kapso_sync.model.json_values import Json
from kapso_sync.model.plan import Blocked, BlockedBy, Create, Delete
from kapso_sync.model.report import Result
from tests.builders import CODE_A, CODE_B, desired, want
from tests.reconcile.passes import Bench
from tests.world import WorldApi

Change = Callable[[RemoteFunction], dict[str, Json]]


class _Garbling(WorldApi):
    """A base that shows some functions otherwise than they are, and answers a create with any record."""

    garbles: Mapping[str, Change] = {}
    answers: Callable[[RemoteFunction], RemoteFunction] = staticmethod(lambda record: record)

    async def list_records(self) -> FunctionList:
        shown: list[Json] = []
        for function in await super().list_functions():
            fields: dict[str, Json] = {"id": function.id, "slug": function.slug, "code": function.code, **function.fields}
            fields |= {"status": str(function.status), "last_deployed_at": str(function.last_deployed_at)}
            change = self.garbles.get(function.slug)
            shown.append(fields | {**change(function)} if change is not None else fields)
        return parse_list(shown, Call("GET", "/functions"))

    async def list_functions(self) -> tuple[RemoteFunction, ...]:
        return (await self.list_records()).functions

    async def create_function(self, payload: Mapping[str, Json]) -> RemoteFunction:
        return self.answers(await super().create_function(payload))


@pytest.fixture
def garbling(bench: Bench) -> _Garbling:
    api = bench.api = _Garbling(bench.api.world)
    return api


GARBLES: list[Change] = [
    lambda _: {"id": ".."},
    lambda _: {"id": "../x"},
    lambda _: {"id": None},
    lambda _: {"slug": "Not A Slug"},
    lambda _: {"slug": ""},
    lambda _: {"id": "..", "slug": "\u202e"},
]


@pytest.mark.parametrize("change", GARBLES)
@pytest.mark.parametrize("known", [True, False])
async def test_a_function_with_a_garbled_record_is_never_made_a_second_time(
    bench: Bench, garbling: _Garbling, change: Change, known: bool
) -> None:
    """Whether the state folder knows it, or only the mark in its description; the function beside it is updated."""
    await bench.sync(desired(want("a"), want("b")))
    if not known:
        (bench.folder / "state.db").unlink()
    garbling.garbles = {"a": change}
    report = await bench.sync(desired(want("a", code=CODE_B), want("b", code=CODE_B)))
    results = {outcome.step.slug: outcome for outcome in report.outcomes}
    step = results["a"].step
    assert isinstance(step, Blocked)
    assert step.by is BlockedBy.GARBLED
    assert results["b"].result is Result.DONE
    assert [notice.code for notice in report.plan.notices if notice.code == "unreadable-record"] == ["unreadable-record"]
    assert {slug: bench.api.world.live_code()[slug] for slug in "ab"} == {"a": CODE_A, "b": CODE_B}
    garbling.garbles = {}
    assert (await bench.sync(desired(want("a", code=CODE_B), want("b", code=CODE_B)))).exit_code == 0
    assert bench.api.world.live_code() == {"a": CODE_B, "b": CODE_B}
    assert bench.api.count("POST", "/functions") == 2


async def test_the_memory_of_a_garbled_function_is_kept(bench: Bench, garbling: _Garbling) -> None:
    """It left git meanwhile, and is deleted only once its record can be read; a control: then it is planned."""
    await bench.sync(desired(want("a"), want("b"), want("c")))
    before = bench.memory().owned
    garbling.garbles = {"a": lambda _: {"id": ".."}}
    await bench.sync(desired(want("b"), want("c")))
    assert bench.memory().owned == before
    garbling.garbles = {}
    assert "a" in {step.slug for step in (await bench.plan(desired(want("b"), want("c")))).steps}


async def test_a_rename_waits_for_a_garbled_record(bench: Bench, garbling: _Garbling) -> None:
    """`moved_from` names it: a new function would be created in its place."""
    await bench.sync(desired(want("a")))
    garbling.garbles = {"a": lambda _: {"id": "?"}}
    (step,) = (await bench.plan(desired(want("b", moved_from="a")))).steps
    assert isinstance(step, Blocked)
    garbling.garbles = {}
    (step,) = (await bench.plan(desired(want("b", moved_from="a")))).steps
    assert step.action == "rename"


async def test_two_functions_never_become_one(bench: Bench, garbling: _Garbling) -> None:
    """Each create is answered with the same record: at most one of them is believed, and the list decides about the others."""
    await bench.sync(desired(want("old")))
    known = bench.api.world.function("old").id

    def about_the_old_one(record: RemoteFunction) -> RemoteFunction:
        return RemoteFunction(known, "old", record.status, record.code, record.fields)

    garbling.answers = about_the_old_one
    report = await bench.sync(desired(want("old"), *(want(slug) for slug in "abcd")))
    ids = {slug: bench.api.world.function(slug).id for slug in ("old", *"abcd")}
    assert {owned.slug: owned.function_id for owned in bench.memory().owned.values()} == ids
    assert len(set(ids.values())) == 5
    assert report.exit_code == 0
    assert bench.api.count("POST", "/functions") == 5


async def test_an_answer_about_a_function_that_is_not_listed_is_not_remembered(bench: Bench, garbling: _Garbling) -> None:
    """Neither the new function nor the one of the answer: the next pass decides by the list, and creates nothing again."""
    hidden: list[str] = []

    def about_another(record: RemoteFunction) -> RemoteFunction:
        hidden.append(record.id)
        return RemoteFunction("another", "another", record.status, record.code, {})

    class _Late(_Garbling):
        async def list_records(self) -> FunctionList:
            listed = await super().list_records()
            return FunctionList(tuple(each for each in listed.functions if each.id not in hidden))

    late = bench.api = _Late(bench.api.world)
    late.answers = about_another
    report = await bench.sync(desired(want("a")))
    assert report.exit_code != 0
    assert bench.memory().owned == {}
    assert bench.api.count("POST", "/functions") == 1
    hidden.clear()
    late.answers = lambda record: record
    assert (await bench.sync(desired(want("a")))).exit_code == 0
    assert bench.api.count("POST", "/functions") == 1


async def test_a_deletion_waits_while_a_record_is_garbled(bench: Bench, garbling: _Garbling) -> None:
    """Its code may call the function that is to go; without the garbled record it is deleted."""
    bench.policy = replace(bench.policy, prune=True)
    await bench.sync(desired(*(want(slug) for slug in "abcd")))
    bench.api.world.create({"name": "x", "slug": "x", "code": CODE_A, "function_type": "cloudflare_worker"})
    garbling.garbles = {"x": lambda _: {"id": ".."}}
    plan = await bench.plan(desired(*(want(slug) for slug in "bcd")))
    step = next(step for step in plan.steps if step.slug == "a")
    assert isinstance(step, Blocked)
    assert any("garbled" in reason for reason in step.reasons)
    garbling.garbles = {}
    plan = await bench.plan(desired(*(want(slug) for slug in "bcd")))
    assert isinstance(next(step for step in plan.steps if step.slug == "a"), Delete)


async def test_a_new_function_is_created_beside_a_garbled_record(bench: Bench, garbling: _Garbling) -> None:
    """A record that nobody can read holds only back what it may be."""
    await bench.sync(desired(want("a")))
    garbling.garbles = {"a": lambda _: {"id": "..", "slug": "?"}}
    steps = {step.slug: step for step in (await bench.plan(desired(want("a"), want("new")))).steps}
    assert isinstance(steps["a"], Blocked)
    assert isinstance(steps["new"], Create)
