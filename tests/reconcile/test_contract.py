"""What Kapso's contract leaves open: concurrent edits, fields that are not taken, and what a slug change costs."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from kapso_sync.api.wire import parse_list
from kapso_sync.emulator.options import Behaviour
from kapso_sync.errors import ApiRejected, Call
from kapso_sync.model.desired import DesiredFunction
from kapso_sync.model.events import FieldRefused, FunctionStalled
from kapso_sync.model.functions import FunctionList, RemoteFunction
from kapso_sync.model.json_values import Json
from kapso_sync.model.ownership import mark_for, without_digests
from kapso_sync.model.plan import Blocked, NoChange
from kapso_sync.model.policies import DriftPolicy
from kapso_sync.model.report import Report, Result
from tests.builders import CODE_A, CODE_B, OWNER, desired, want
from tests.reconcile.passes import Bench
from tests.world import Fate, Killed, WorldApi

CODE_C = "async function handler() { return new Response('c'); }\n"


def switch(bench: Bench, **switches: object) -> None:
    bench.api.world.behaviour = bench.api.world.behaviour.changed(switches)


def edited_before_the_update(bench: Bench, *edits: Callable[[], object]) -> None:
    """Let somebody act between the list and each of the next updates."""
    pending = list(edits)

    def fate(_number: int, method: str, _route: str) -> Fate:
        if method == "PATCH" and pending:
            pending.pop(0)()
        return Fate.FINE

    bench.api.fate = fate


def edited_after_the_list(bench: Bench, act: Callable[[], object]) -> None:
    """Let somebody act once, right after the next list was answered and before anything is written."""
    pending = [act]

    def fate(_number: int, method: str, route: str) -> Fate:
        if pending and (method, route) != ("GET", "/functions"):
            pending.pop()()
        return Fate.FINE

    bench.api.fate = fate


def edit(bench: Bench, **fields: Any) -> Callable[[], object]:
    world = bench.api.world
    return lambda: world.update(world.function("a"), fields)


def backups(bench: Bench) -> str:
    """The code of every copy."""
    files = sorted((bench.folder / "backups").rglob("*.json"))
    return "\n".join(json.loads(path.read_text(encoding="utf-8"))["code"] for path in files)


def only(report: Report) -> Result:
    (outcome,) = report.outcomes
    return outcome.result


@pytest.mark.parametrize("lock", ["update", "deploy"])
async def test_a_concurrent_edit_is_backed_up_before_it_is_overwritten(bench: Bench, lock: str) -> None:
    """The update is refused as stale; the pass looks again, saves what is there now, and writes git's version."""
    switch(bench, lock_version=lock)
    await bench.sync(desired(want("a")))
    edited_before_the_update(bench, edit(bench, code=CODE_C))
    report = await bench.sync(desired(want("a", CODE_B)))
    assert only(report) is Result.DONE
    assert bench.api.world.live_code() == {"a": CODE_B}
    assert CODE_C in backups(bench)
    assert "function.replanned" in bench.names()
    assert (await bench.plan(desired(want("a", CODE_B)))).in_sync


async def test_a_concurrent_edit_blocks_where_drift_is_only_reported(bench: Bench) -> None:
    """Planned again, it is drift: nothing of it is overwritten."""
    await bench.sync(desired(want("a")))
    bench.policy = replace(bench.policy, drift=DriftPolicy.REPORT)
    edited_before_the_update(bench, edit(bench, description="theirs"), edit(bench, code=CODE_C))
    report = await bench.sync(desired(want("a", CODE_B, description="ours")))
    assert only(report) is Result.BLOCKED
    assert bench.api.world.function("a").description == "theirs"
    assert bench.api.world.function("a").code == CODE_A


async def test_endless_concurrent_edits_fail_the_function_not_the_pass(bench: Bench) -> None:
    """Somebody saves before each of our updates: after a few tries the next pass goes on."""
    await bench.sync(desired(want("a")))
    edited_before_the_update(bench, *(edit(bench, description=f"edit {number}") for number in range(20)))
    report = await bench.sync(desired(want("a", CODE_B), want("b")))
    assert [outcome.result for outcome in report.outcomes] == [Result.FAILED, Result.DONE]
    bench.api.fate = lambda *_: Fate.FINE
    assert (await bench.sync(desired(want("a", CODE_B), want("b")))).exit_code == 0


async def test_a_rename_is_stopped_by_a_concurrent_edit_and_tried_again(bench: Bench) -> None:
    """Under its new slug it holds git's code, and the edit is saved."""
    await bench.sync(desired(want("a")))
    edited_before_the_update(bench, edit(bench, code=CODE_C))
    report = await bench.sync(desired(want("b", moved_from="a")))
    assert report.exit_code == 0
    assert bench.api.world.live_code() == {"b": CODE_A}
    assert CODE_C in backups(bench)


NO_LOCK = pytest.mark.parametrize("lock", ["absent", "refused"])


@NO_LOCK
async def test_without_lock_version_a_function_is_read_again_before_an_update(bench: Bench, lock: str) -> None:
    """Older bases have none: one more call, and no conflict where nobody saved."""
    switch(bench, lock_version=lock)
    await bench.sync(desired(want("a")))
    await bench.clock.sleep(120)
    looks = bench.api.count("GET", "/functions/{id}")
    assert only(await bench.sync(desired(want("a", CODE_B)))) is Result.DONE
    assert bench.api.count("GET", "/functions/{id}") == looks + 1
    assert "function.replanned" not in bench.names()


@NO_LOCK
@pytest.mark.parametrize("list_code", [True, False])
@pytest.mark.parametrize("change", [{"code": CODE_B}, {"name": "Ours"}])
async def test_without_lock_version_an_edit_after_the_list_is_backed_up(
    bench: Bench, lock: str, list_code: bool, change: dict[str, Any]
) -> None:
    """Code or only a name is to be updated: the edit is seen by the second look, and is saved before it is overwritten."""
    switch(bench, lock_version=lock, list_code=list_code)
    await bench.sync(desired(want("a")))
    edited_after_the_list(bench, edit(bench, code=CODE_C))
    wanted = desired(want("a", **{"name": "A", **change}))
    report = await bench.sync(wanted)
    assert only(report) is Result.DONE
    assert bench.api.world.live_code() == {"a": change.get("code", CODE_A)}
    assert CODE_C in backups(bench)
    assert (await bench.plan(wanted)).in_sync


@NO_LOCK
@pytest.mark.parametrize("list_code", [True, False])
async def test_without_lock_version_code_of_somebody_else_never_becomes_ours(bench: Bench, lock: str, list_code: bool) -> None:
    """It was saved between the second look and the update of a name: the answer shows it, and it is backed up."""
    switch(bench, lock_version=lock, list_code=list_code)
    await bench.sync(desired(want("a"), want("b")))
    await bench.sync(desired(want("a"), want("b", CODE_B)))  # a base that refuses the field has done so now
    edited_before_the_update(bench, edit(bench, code=CODE_C))
    wanted = desired(want("a", name="Ours"), want("b", CODE_B))
    assert (await bench.sync(wanted)).exit_code == 0
    assert (bench.api.world.live_code()["a"], bench.api.world.function("a").code) == (CODE_A, CODE_A)
    assert CODE_C in backups(bench)
    assert (await bench.plan(wanted)).in_sync


@pytest.mark.parametrize("lock", ["absent", "refused", "update", "deploy"])
@pytest.mark.parametrize("list_code", [True, False])
async def test_code_saved_between_our_write_and_its_deployment_is_noticed(bench: Bench, lock: str, list_code: bool) -> None:
    """It went live in our place: the pass says so, and the next one saves it and deploys git's code."""
    switch(bench, lock_version=lock, list_code=list_code)
    await bench.sync(desired(want("a")))
    pending = [edit(bench, code=CODE_C)]

    def fate(_number: int, method: str, route: str) -> Fate:
        if pending and (method, route) == ("POST", "/functions/{id}/deploy"):
            pending.pop()()
        return Fate.FINE

    bench.api.fate = fate
    report = await bench.sync(desired(want("a", CODE_B)))
    assert (only(report), report.outcomes[0].error) == (Result.FAILED, "changed on Kapso while it was deployed")
    assert (await bench.sync(desired(want("a", CODE_B)))).exit_code == 0
    assert bench.api.world.live_code() == {"a": CODE_B}
    assert CODE_C in backups(bench)


async def test_a_list_without_code_costs_a_read_after_a_deployment_only_where_lock_version_does_not_tell(bench: Bench) -> None:
    """Where only updates move it, an unchanged lock_version proves that nobody saved the function meanwhile."""
    wanted = []
    for lock, reads in (("update", 0), ("deploy", 1), ("absent", 1)):
        switch(bench, lock_version=lock, list_code=False)
        wanted.append(want(lock))
        before = bench.api.count("GET", "/functions/{id}")
        await bench.sync(desired(*wanted))
        assert bench.api.count("GET", "/functions/{id}") - before == reads, lock


@NO_LOCK
async def test_without_lock_version_functions_that_swap_their_slugs_do_not_conflict(bench: Bench, lock: str) -> None:
    """Parking one of them is our own edit."""
    switch(bench, lock_version=lock)
    await bench.sync(desired(want("a"), want("b", CODE_B)))
    report = await bench.sync(desired(want("a", CODE_B, moved_from="b"), want("b", moved_from="a")))
    assert report.exit_code == 0
    assert "function.replanned" not in bench.names()


REFUSALS: list[tuple[dict[str, object], dict[str, Any], str]] = [
    ({"keeps_public_endpoint": False}, {"public_endpoint": True}, "Kapso kept public_endpoint=false"),
    ({"takes_wrapped": False}, {"invoke_response_mode": "wrapped"}, 'Kapso kept invoke_response_mode="passthrough"'),
]


@pytest.mark.parametrize(("switches", "fields", "said"), REFUSALS)
@pytest.mark.parametrize("first", ["create", "update"])
async def test_a_refused_field_is_an_error_and_is_not_written_again(
    bench: Bench, switches: dict[str, object], fields: dict[str, Any], said: str, first: str
) -> None:
    """Told in every pass, without a write; code still goes live; the refusal ends when git gives the field up."""
    switch(bench, **switches)
    if first == "update":
        await bench.sync(desired(want("a")))
    report = await bench.sync(desired(want("a", **fields)))
    assert (only(report), report.outcomes[0].error, report.exit_code) == (Result.FAILED, said, 1)
    (event,) = [event for event in bench.events if isinstance(event, FieldRefused)]
    assert (event.slug, event.field_name) == ("a", next(iter(fields)))
    assert bench.api.world.live_code() == {"a": CODE_A}
    writes = len(bench.api.writes)
    for _ in range(3):
        report = await bench.sync(desired(want("a", **fields)))
        step = report.outcomes[0].step
        assert isinstance(step, Blocked)
        assert (step.refused, step.reasons[0], report.exit_code) == (tuple(fields), said, 1)
    assert len(bench.api.writes) == writes
    report = await bench.sync(desired(want("a", CODE_B, **fields)))
    assert bench.api.world.live_code() == {"a": CODE_B}
    assert (await bench.sync(desired(want("a", CODE_B)))).exit_code == 0


@pytest.mark.parametrize(("switches", "fields", "_said"), REFUSALS)
async def test_a_refused_field_is_taken_once_kapso_changes(
    bench: Bench, switches: dict[str, object], fields: dict[str, Any], _said: str
) -> None:
    """Somebody sets it in the dashboard: in sync, and nothing is written."""
    switch(bench, **switches)
    await bench.sync(desired(want("a", **fields)))
    edit(bench, **fields)()
    report = await bench.sync(desired(want("a", **fields)))
    assert (report.exit_code, bench.api.count("PATCH", "/functions/{id}")) == (0, bench.api.count("PATCH", "/functions/{id}"))


@pytest.mark.parametrize("change", [{}, {"code": CODE_B}, {"name": "Other"}])
async def test_a_refused_field_stays_an_error_while_other_things_are_written(bench: Bench, change: dict[str, Any]) -> None:
    """Drift is corrected, or git's change goes live, and the pass still ends with 1, in every pass; nothing waits for it."""
    switch(bench, keeps_public_endpoint=False)
    before = desired(want("a", public_endpoint=True, name="A"))
    await bench.sync(before)
    edit(bench, name="Theirs")()
    after = desired(want("a", **{"name": "A", "public_endpoint": True, **change}))
    events = len(bench.events)
    report = await bench.sync(after)
    (outcome,) = report.outcomes
    assert (outcome.result, outcome.applied, outcome.error) == (Result.FAILED, True, "Kapso kept public_endpoint=false")
    assert (outcome.refused, report.exit_code) == (("public_endpoint",), 1)
    assert [event.reason for event in bench.events[events:] if isinstance(event, FunctionStalled)] == [outcome.error]
    assert bench.api.world.function("a").name == change.get("name", "A")
    assert bench.api.world.live_code() == {"a": change.get("code", CODE_A)}
    writes = len(bench.api.writes)
    assert (await bench.sync(after)).exit_code == 1
    assert len(bench.api.writes) == writes


@pytest.mark.parametrize("world", ["ignore", "refuse"])
@pytest.mark.parametrize("lock", ["update", "absent", "refused"])
@pytest.mark.parametrize("change", [{}, {"code": CODE_B, "description": "Theirs"}])
async def test_a_function_type_that_is_not_taken_holds_nothing_else_back(
    bench: Bench, world: str, lock: str, change: dict[str, Any]
) -> None:
    """Ignored, or refused with the whole request: sent once; the code of the same change goes live."""
    switch(bench, function_type_in_update=world, lock_version=lock)
    await bench.sync(desired(want("a")))
    changed = want("a", **{"function_type": "supabase_function", **change})
    report = await bench.sync(desired(changed))
    assert report.outcomes[0].error == 'Kapso kept function_type="cloudflare_worker"'
    assert "field.refused" in bench.names()
    assert bench.api.world.live_code() == {"a": change.get("code", CODE_A)}
    assert (bench.api.world.function("a").description or "").startswith(change.get("description", ""))
    writes = len(bench.api.writes)
    assert [isinstance(outcome.step, Blocked) for outcome in (await bench.sync(desired(changed))).outcomes] == [True]
    assert len(bench.api.writes) == writes


async def test_a_create_sends_function_type_and_an_update_the_invoke_mode(bench: Bench) -> None:
    """One update, and one deployment after it."""
    report = await bench.sync(desired(want("a", invoke_response_mode="wrapped")))
    assert report.exit_code == 0
    assert bench.api.world.function("a").invoke_response_mode == "wrapped"
    assert [method for method, _, _ in bench.api.writes] == ["POST", "PATCH", "POST"]
    assert (await bench.plan(desired(want("a", invoke_response_mode="wrapped")))).in_sync


@pytest.mark.parametrize("fate", [Fate.KILLED_BEFORE, Fate.KILLED_AFTER, Fate.LOST_BEFORE, Fate.LOST_AFTER])
@pytest.mark.parametrize("number", [2, 3, 4, 5])
async def test_a_mode_that_was_not_set_yet_is_set_by_the_next_pass(bench: Bench, fate: Fate, number: int) -> None:
    """Dying anywhere around the update loses nothing, and is not taken for a refusal."""
    wanted = desired(want("a", invoke_response_mode="wrapped"))
    bench.api.fate = lambda call, *_: fate if call == number else Fate.FINE
    with contextlib.suppress(Killed, BaseExceptionGroup):
        await bench.sync(wanted)
    bench.api.fate = lambda *_: Fate.FINE
    await bench.sync(wanted)
    assert (await bench.sync(wanted)).exit_code == 0
    assert bench.api.world.function("a").invoke_response_mode == "wrapped"
    assert len(bench.api.world.functions) == 1


async def test_a_field_that_the_api_does_not_know_is_not_compared(bench: Bench) -> None:
    """A warning; the function can be in sync."""
    switch(bench, unknown_fields=["runtime_config"])
    wanted = desired(want("a", runtime_config={"timeout": 30}))
    report = await bench.sync(wanted)
    assert report.exit_code == 0
    plan = await bench.plan(wanted)
    assert plan.in_sync
    assert [notice.code for notice in plan.notices] == ["unknown-field"]
    switch(bench, unknown_fields=[])
    assert not (await bench.plan(wanted)).in_sync


@pytest.mark.parametrize("word", ["deployed", "active"])
async def test_active_is_live(bench: Bench, word: str) -> None:
    """One deployment, whatever the word."""
    switch(bench, status_word=word)
    assert (await bench.sync(desired(want("a")))).exit_code == 0
    (step,) = (await bench.plan(desired(want("a")))).steps
    assert isinstance(step, NoChange)


async def test_a_slug_change_is_followed_by_one_deployment(bench: Bench) -> None:
    """The script's name holds the slug; a draft stays one."""
    await bench.sync(desired(want("a"), want("d", deploy=False)))
    await bench.sync(desired(want("b", moved_from="a"), want("e", deploy=False, moved_from="d")))
    assert bench.api.count("POST", "/functions/{id}/deploy") == 2
    assert bench.api.world.function("b").script == f"prj-{bench.api.world.project_id}__b"
    wanted = desired(want("b"), want("e", deploy=False))
    assert (await bench.plan(wanted)).in_sync


async def test_a_slug_change_that_was_not_deployed_is_deployed_by_the_next_pass(bench: Bench) -> None:
    """The process died between the rename and its deployment."""
    await bench.sync(desired(want("a")))
    bench.api.fate = lambda _number, _method, route: Fate.KILLED_BEFORE if route.endswith("/deploy") else Fate.FINE
    with contextlib.suppress(Killed, BaseExceptionGroup):
        await bench.sync(desired(want("b", moved_from="a")))
    bench.api.fate = lambda *_: Fate.FINE
    (step,) = (await bench.plan(desired(want("b")))).steps
    assert step.deploys
    await bench.sync(desired(want("b")))
    assert bench.api.world.function("b").script == f"prj-{bench.api.world.project_id}__b"


async def test_the_cap_of_the_free_plan_is_explained(bench: Bench) -> None:
    """A sixth script name is refused; a new version of an existing one is not."""
    bench.api.world.behaviour = Behaviour(script_cap=1)
    wanted: tuple[DesiredFunction, ...] = (want("a"), want("b"))
    report = await bench.sync(desired(*wanted))
    failed = [outcome for outcome in report.outcomes if outcome.result is Result.FAILED]
    assert len(failed) == 1
    assert "distinct Worker scripts" in str(failed[0].hint)
    assert bench.memory().quota is not None
    kept = next(outcome.step.slug for outcome in report.outcomes if outcome.result is Result.DONE)
    report = await bench.sync(desired(*(want(slug, CODE_B) for slug in "ab")))
    assert [outcome.step.slug for outcome in report.outcomes if outcome.result is Result.DONE] == [kept]


@pytest.mark.parametrize(("function_id", "slug"), [("..", "a"), ("../secrets", "b"), ("id-9", "Not A Slug"), ("x" * 200, "c")])
async def test_a_malformed_record_is_left_alone_and_reported(bench: Bench, function_id: str, slug: str) -> None:
    """Its slug is blocked, nothing is sent to it, and the others go on."""

    class _Odd(WorldApi):
        async def list_records(self) -> FunctionList:
            odd: list[Json] = [{"id": function_id, "slug": slug, "status": "deployed", "code": CODE_C}]
            return FunctionList(await self.list_functions(), parse_list(odd, Call("GET", "/functions")).garbled)

    bench.api = _Odd(bench.api.world)
    report = await bench.sync(desired(*(want(name) for name in "abcd")))
    blocked = [outcome.step.slug for outcome in report.outcomes if outcome.result is Result.BLOCKED]
    assert blocked == ([slug] if slug in "abc" else [])
    assert [notice.code for notice in report.plan.notices] == ["unreadable-record"]
    assert not any(function_id in what for _, _, what in bench.api.log)
    assert set(bench.api.world.live_code()) == {*"abcd"} - {slug}


@pytest.mark.parametrize("managed", [True, False])
async def test_text_behind_our_mark_is_kept_and_the_mark_is_not_doubled(bench: Bench, managed: bool) -> None:
    """Somebody wrote on in the dashboard: git's text wins where git has one, else theirs stays, with one mark at its end."""
    wanted = desired(want("a", description="Greets") if managed else want("a"))
    await bench.sync(wanted)
    marked = bench.api.world.function("a").description
    edit(bench, description=f"{marked} and waves")()
    assert (await bench.sync(wanted)).exit_code == 0
    mark = mark_for(OWNER, "a")
    written = without_digests(str(bench.api.world.function("a").description))
    assert written == (f"Greets{mark}" if managed else f" and waves{mark}")
    writes = len(bench.api.writes)
    assert (await bench.plan(wanted)).in_sync
    await bench.sync(wanted)
    assert len(bench.api.writes) == writes


async def test_text_behind_the_mark_of_another_owner_leaves_it_theirs(bench: Bench) -> None:
    """It is neither adopted nor written."""
    bench.api.world.create({"slug": "a", "name": "a", "code": CODE_A, "description": f"x{mark_for('other', 'a')} more"})
    report = await bench.sync(desired(want("a")))
    assert only(report) is Result.BLOCKED
    assert not bench.api.writes


class _Terse(WorldApi):
    """A base whose answer to a create has no project id, and whose refusals do not say why."""

    async def create_function(self, payload: Mapping[str, Json]) -> RemoteFunction:
        return replace(await super().create_function(payload), project_id=None)

    async def update_function(
        self, function_id: str, payload: Mapping[str, Json], *, lock_version: int | None = None
    ) -> RemoteFunction:
        if "function_type" in payload:
            raise ApiRejected("Validation failed", call=Call("PATCH", "/functions/{id}"), status=422)
        return await super().update_function(function_id, payload, lock_version=lock_version)


async def test_the_project_is_known_from_the_list_where_a_create_does_not_show_it(bench: Bench) -> None:
    """The polls of the first deployment show it."""
    bench.api = _Terse(bench.api.world)
    await bench.sync(desired(want("a")))
    assert bench.memory().project_id == bench.api.world.project_id


async def test_an_update_refused_without_a_reason_is_sent_once_without_the_function_type(bench: Bench) -> None:
    """It may have been the type; everything else of the change goes live, and nothing is sent again."""
    bench.api = _Terse(bench.api.world)
    await bench.sync(desired(want("a")))
    changed = want("a", CODE_B, function_type="supabase_function")
    report = await bench.sync(desired(changed))
    assert report.outcomes[0].refused == ("function_type",)
    assert bench.api.world.live_code() == {"a": CODE_B}
    writes = len(bench.api.writes)
    await bench.sync(desired(changed))
    assert len(bench.api.writes) == writes


@pytest.mark.parametrize("first", [True, False])
async def test_a_function_with_the_valid_marks_of_two_owners_is_a_conflict(bench: Bench, first: bool) -> None:
    """Whichever comes first; nothing is written, and the other owner is named."""
    marks = (mark_for("other", "a"), mark_for(OWNER, "a"))
    both = "".join(map(str, marks if first else marks[::-1]))
    bench.api.world.create({"slug": "a", "name": "a", "code": CODE_A, "description": f"x{both}"})
    report = await bench.sync(desired(want("a")))
    assert "it is owned by other" in str(report.outcomes[0].error)
    assert not bench.api.writes


async def test_a_doubled_mark_stays_protected(bench: Bench) -> None:
    """State lost, gone from git, and only one of its two marks says that it is protected."""
    both = f"x{mark_for(OWNER, 'a', protected=True)}{mark_for(OWNER, 'a')}"
    bench.api.world.create({"slug": "a", "name": "a", "code": CODE_A, "description": both})
    bench.policy = replace(bench.policy, prune=True)
    await bench.sync(desired(want("b")))
    assert {function.slug for function in bench.api.world.functions.values()} == {"a", "b"}
