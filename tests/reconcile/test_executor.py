"""What one pass does to Kapso, and the state that it leaves when calls fail."""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kapso_sync.emulator.options import Behaviour
from kapso_sync.errors import ApiUnauthorized, Call, ExitCode, NotLeading, PlanChanged, StateForeign, UsageError
from kapso_sync.model.functions import RemoteFunction
from kapso_sync.model.json_values import Json
from kapso_sync.model.ownership import mark_for, without_digests
from kapso_sync.model.plan import Create, Delete
from kapso_sync.model.policies import MaxDelete
from kapso_sync.model.ports import LocalStart
from kapso_sync.model.report import Result
from kapso_sync.reconcile.cycle import PassRequest
from kapso_sync.reconcile.plan.guard import Limits
from kapso_sync.store.database import StateStore
from tests.builders import CODE_A, CODE_B, OWNER, POLICY, desired, want
from tests.clock import VirtualClock
from tests.reconcile.passes import Bench
from tests.world import DEPLOY_SECONDS, Fate, WorldApi, new_world

PRUNE = replace(POLICY, prune=True)
OTHER_CODE = """async function handler(request) {
  const total = [1, 2, 3].reduce((sum, n) => sum + n);
  return Response.json({ total });
}
"""
BROKEN = "async function handler( {"


def fail_when(method: str, route: str, fate: Fate, *, times: int = 1) -> Callable[[int, str, str], Fate]:
    """Let the first calls of one route meet a fate."""
    left = [times]

    def decide(_number: int, called: str, where: str) -> Fate:
        if (called, where) == (method, route) and left[0]:
            left[0] -= 1
            return fate
        return Fate.FINE

    return decide


async def test_new_functions_are_created_and_deployed_once(bench: Bench) -> None:
    """Two writes for a new function, and one list call for a pass that finds everything in sync."""
    git = desired(want("a"), want("b", CODE_B, name="B"))
    report = await bench.sync(git)
    assert (report.count("create"), report.deployed, report.exit_code) == (2, 2, ExitCode.OK)
    assert bench.api.world.live_code() == {"a": CODE_A, "b": CODE_B}
    assert len(bench.api.writes) == 4
    bench.api.log.clear()
    again = await bench.sync(git)
    assert again.plan.in_sync
    assert bench.api.log == [("GET", "/functions", "")]


async def test_a_change_in_git_goes_live_under_the_same_id(bench: Bench) -> None:
    """An update keeps the id, saves the old version, and is confirmed live."""
    await bench.sync(desired(want("a")))
    before = bench.api.world.function("a").id
    report = await bench.sync(desired(want("a", CODE_B)))
    assert report.outcomes[0].step.reasons == ("changed in git: code",)
    assert bench.api.world.function("a").id == before
    assert bench.api.world.live_code() == {"a": CODE_B}
    backup = report.outcomes[0].backup
    assert backup is not None
    assert json.loads((bench.folder / "backups" / backup).read_text())["code"] == CODE_A


async def test_one_list_call_polls_all_running_deployments(bench: Bench) -> None:
    """The number of polls does not grow with the number of functions."""
    bench.settings = replace(bench.settings, concurrency=50)
    await bench.sync(desired(*(want(f"f{number:02d}") for number in range(40))))
    assert bench.api.count("GET", "/functions") < 10


async def test_a_field_change_alone_needs_no_deployment(bench: Bench) -> None:
    """Name and description take effect without a deployment, and the next pass is in sync."""
    await bench.sync(desired(want("a", name="Old")))
    await bench.clock.sleep(60)
    report = await bench.sync(desired(want("a", name="New")))
    assert bench.api.count("POST", "/functions/{id}/deploy") == 1
    assert report.deployed == 0
    assert (await bench.plan(desired(want("a", name="New")))).in_sync


async def test_unmanaged_fields_are_never_sent(bench: Bench) -> None:
    """A field that the manifest omits stays as somebody set it on Kapso."""
    await bench.sync(desired(want("a")))
    world = bench.api.world
    world.update(world.function("a"), {"name": "Set by hand", "description": f"By hand{_mark(bench)}", "public_endpoint": True})
    report = await bench.sync(desired(want("a", CODE_B)))
    assert report.exit_code is ExitCode.OK
    assert (world.function("a").name, world.function("a").public_endpoint) == ("Set by hand", True)
    assert str(world.function("a").description).startswith("By hand [kapso-sync:")


def _mark(bench: Bench) -> str:
    return str(bench.api.world.function("a").description)


async def test_drift_is_backed_up_and_corrected(bench: Bench) -> None:
    """The dashboard's version is in backups/ before git's version is restored."""
    git = desired(want("a"))
    await bench.sync(git)
    world = bench.api.world
    world.update(world.function("a"), {"code": CODE_B})
    report = await bench.sync(git)
    assert {"drift.detected", "function.backed_up", "drift.corrected"} <= set(bench.names())
    assert world.live_code() == {"a": CODE_A}
    backup = json.loads((bench.folder / "backups" / str(report.outcomes[0].backup)).read_text())
    assert (backup["code"], backup["reason"], backup["keep"]) == (CODE_B, "drift", True)


async def test_code_that_is_saved_but_not_live_is_deployed(bench: Bench) -> None:
    """Equal text is not enough: live code must equal git's."""
    await bench.sync(desired(want("a")))
    world = bench.api.world
    world.update(world.function("a"), {"code": CODE_B})
    report = await bench.sync(desired(want("a", CODE_B)))
    assert report.plan.steps[0].action == "deploy"
    assert world.live_code() == {"a": CODE_B}


async def test_a_lost_create_response_causes_no_duplicate_function(bench: Bench) -> None:
    """A create whose response was lost is looked up before it is sent again."""
    bench.api.fate = fail_when("POST", "/functions", Fate.LOST_AFTER)
    report = await bench.sync(desired(want("a")))
    assert report.exit_code is ExitCode.OK
    assert bench.api.count("POST", "/functions") == 1
    assert bench.api.world.live_code() == {"a": CODE_A}


async def test_a_create_that_never_arrived_is_sent_again(bench: Bench) -> None:
    """Where the list shows no trace of it, the create did not happen."""
    bench.api.fate = fail_when("POST", "/functions", Fate.LOST_BEFORE)
    report = await bench.sync(desired(want("a")))
    assert report.exit_code is ExitCode.OK
    assert bench.api.count("POST", "/functions") == 2


async def test_a_422_fails_only_its_own_function(bench: Bench) -> None:
    """The others are synced."""
    report = await bench.sync(desired(want("a", name=""), want("b")))
    results = {outcome.step.slug: outcome.result for outcome in report.outcomes}
    assert results == {"a": Result.FAILED, "b": Result.DONE}
    assert report.exit_code is ExitCode.FUNCTION_FAILED
    assert not bench.memory().intents


async def test_a_deployment_that_fails_is_retried_once_and_then_reported(bench: Bench) -> None:
    """The code cannot run: one retry, one log line, and the others are live."""
    report = await bench.sync(desired(want("a", BROKEN), want("b")))
    assert bench.api.count("POST", "/functions/{id}/deploy") == 3
    assert bench.names().count("deploy.failed") == 1
    assert report.results(Result.FAILED)[0].error == "the deployment ended in `error`, 2 times"
    assert bench.api.world.live_code() == {"a": None, "b": CODE_B.replace("'b'", "'a'")}


@pytest.mark.parametrize(
    ("tried", "error", "hint"),
    [
        (None, "ended in `error`, 2 times", "Kapso gives no reason in its API: `kapso-sync dev a` starts it on this machine"),
        (LocalStart(None), "ended in `error`, 2 times", "the code starts on this machine's runtime: look at the dashboard"),
        (
            LocalStart("Uncaught TypeError: x\n  at a.js:1:6"),
            "2 times; on this machine: Uncaught TypeError: x at a.js:1:6",
            "fix the code; `kapso-sync dev a`",
        ),
    ],
)
async def test_the_words_of_a_local_runtime_explain_a_deployment_that_failed(
    bench: Bench, tried: LocalStart | None, error: str, hint: str
) -> None:
    """It is given the code that failed, once; code that goes live is never started here."""
    started: list[tuple[str, str]] = []

    async def start_locally(slug: str, code: str) -> LocalStart | None:
        started.append((slug, code))
        return tried

    bench.settings = replace(bench.settings, start_locally=start_locally)
    report = await bench.sync(desired(want("a", BROKEN), want("b")))
    (failed,) = report.results(Result.FAILED)
    assert (failed.error or "").endswith(error)
    assert hint in (failed.hint or "")
    assert started == [("a", BROKEN)]


async def test_a_former_deployment_error_is_not_taken_for_the_new_result(bench: Bench) -> None:
    """While the fix is being deployed the record still shows the old error; the fix goes live all the same."""
    await bench.sync(desired(want("a", BROKEN)))
    assert bench.api.world.function("a").status == "error"
    report = await bench.sync(desired(want("a")))
    assert report.exit_code is ExitCode.OK
    assert bench.api.world.live_code() == {"a": CODE_A}


async def test_a_deployment_timeout_counts_as_a_failure(bench: Bench) -> None:
    """After the timeout the pass goes on; the next one deploys again."""
    world = bench.api.world
    world.deploy_delay = 10_000.0
    report = await bench.sync(desired(want("a")))
    assert "deploy.timed_out" in bench.names()
    assert report.exit_code is ExitCode.FUNCTION_FAILED
    world.deploy_delay = 5.0
    assert (await bench.sync(desired(want("a")))).exit_code is ExitCode.OK


async def test_a_function_deleted_during_its_deployment_has_its_own_error(bench: Bench) -> None:
    """After two looks without it the deployment is given up."""
    deploy = bench.api.deploy_function

    async def deploy_and_lose(function_id: str) -> None:
        await deploy(function_id)
        bench.api.world.delete(bench.api.world.by_id(function_id))

    bench.api.deploy_function = deploy_and_lose  # type: ignore[method-assign]
    report = await bench.sync(desired(want("a")))
    assert report.outcomes[0].error == "the function vanished from Kapso while it was deployed"


async def test_a_rejected_api_key_halts_the_pass(bench: Bench) -> None:
    """When the key stops working during a pass no new step begins, and the exit code says why."""
    seen: list[str] = []

    class Revoked(WorldApi):
        async def create_function(self, payload):  # type: ignore[no-untyped-def]
            seen.append(str(payload["slug"]))
            raise ApiUnauthorized("answered 401", call=Call("POST", "/functions"), status=401)

    bench.api = Revoked(bench.api.world)
    bench.settings = replace(bench.settings, concurrency=1, deploying=1)
    report = await bench.sync(desired(want("a"), want("b"), want("c")))
    assert seen == ["a"]
    assert report.exit_code is ExitCode.KEY_REJECTED
    assert "api.unauthorized" in bench.names()


async def test_an_api_that_goes_down_halts_the_pass(bench: Bench) -> None:
    """After three functions without a response the rest is not tried."""
    bench.settings = replace(bench.settings, concurrency=1, deploying=1)
    bench.api.fate = lambda _n, method, _r: Fate.FINE if method == "GET" else Fate.UNAVAILABLE
    report = await bench.sync(desired(*(want(f"f{number}") for number in range(8))))
    assert report.exit_code is ExitCode.UNAVAILABLE
    assert len(report.results(Result.SKIPPED)) == 5


@pytest.mark.parametrize("call", range(1, 16))
async def test_a_lost_lease_halts_the_pass_without_a_failure(bench: Bench, call: int) -> None:
    """Whichever call meets it: nothing counts as failed, and the next pass does what is left, without a duplicate."""
    await bench.sync(desired(want("a"), want("gone", OTHER_CODE)))
    bench.policy, bench.limits = PRUNE, replace(bench.limits, max_delete=MaxDelete(100, percent=True))
    bench.api.log.clear()
    bench.events.clear()
    refused: list[str] = []

    def fate(number: int, method: str, route: str) -> Fate:
        if number >= call:
            refused.append(f"{method} {route}")
            raise NotLeading("this replica does not lead")
        return Fate.FINE

    bench.api.fate = fate
    git = desired(want("a", CODE_B), want("b"), want("c"))
    try:
        report = await bench.sync(git)
    except NotLeading:
        assert len(refused) == 1, "the list cannot be read: nothing is planned"
    else:
        assert refused, "the control: the pass makes more calls than these"
        assert (report.result, report.failed, report.halted) == ("superseded", 0, None)
    assert not {"function.failed", "reconcile.failed", "rollback.failed", "deploy.failed"} & set(bench.names())
    bench.api.fate = lambda *_: Fate.FINE
    again = await bench.sync(git)
    assert again.exit_code is ExitCode.OK
    assert bench.api.world.live_code() == {"a": CODE_B, "b": CODE_A, "c": CODE_A}
    assert len(bench.api.world.functions) == 3


async def test_functions_that_left_git_are_deleted_only_with_prune_and_a_backup(bench: Bench) -> None:
    """Prune is off by default; with it, the backup is on disk before the function is deleted."""
    await bench.sync(desired(want("a"), want("b")))
    kept = await bench.sync(desired(want("a")))
    assert kept.plan.in_sync
    assert [notice.code for notice in kept.plan.notices] == ["orphan"]
    bench.policy = PRUNE
    report = await bench.sync(desired(want("a")))
    assert report.count("delete") == 1
    assert set(bench.api.world.live_code()) == {"a"}
    backup = json.loads((bench.folder / "backups" / str(report.outcomes[1].backup)).read_text())
    assert (backup["slug"], backup["reason"], backup["keep"]) == ("b", "deleted", True)


async def test_mass_deletion_is_blocked_and_names_its_setting(bench: Bench) -> None:
    """A pass that would delete more than the limit deletes nothing at all, and everything else goes on."""
    git = [want(f"f{number}") for number in range(8)]
    await bench.sync(desired(*git))
    bench.policy = PRUNE
    report = await bench.sync(desired(*git[:3], want("new")))
    assert len(bench.api.world.functions) == 9
    assert report.count("create") == 1
    blocked = report.results(Result.BLOCKED)
    assert len(blocked) == 5
    assert "KAPSO_SYNC_MAX_DELETE=5" in str(blocked[0].hint)
    assert "prune.blocked" in bench.names()


async def test_a_function_in_use_by_a_workflow_is_not_deleted(bench: Bench) -> None:
    """The workflow is named; a look-up that fails blocks as well."""
    await bench.sync(desired(want("a"), want("b")))
    world = bench.api.world
    node: Json = {"id": "n", "data": {"node_type": "function", "config": {"function_id": world.function("b").id}}}
    world.add_workflow("Orders", {"nodes": [node]})
    bench.policy = PRUNE
    report = await bench.sync(desired(want("a")))
    assert report.outcomes[1].error == "still used by workflow Orders"
    bench.api.fate = fail_when("GET", "/workflows", Fate.UNAVAILABLE)
    report = await bench.sync(desired(want("a")))
    assert "is not known" in str(report.outcomes[1].error)
    assert set(world.live_code()) == {"a", "b"}


async def test_an_empty_list_does_not_recreate_all_functions(bench: Bench) -> None:
    """It may be another project: nothing is done unless a setting allows it."""
    git = desired(*(want(f"f{number}") for number in range(8)))
    await bench.sync(git)
    for function in list(bench.api.world.functions.values()):
        bench.api.world.delete(function)
    with pytest.raises(StateForeign, match="empty project") as raised:
        await bench.sync(git)
    assert (raised.value.exit_code, "--allow-recreate" in str(raised.value.hint)) == (78, True)
    assert not bench.api.world.functions
    bench.limits = Limits(MaxDelete(25, percent=True), allow_recreate=True)
    assert (await bench.sync(git)).count("create") == 8


async def test_recreating_most_functions_needs_a_setting(bench: Bench) -> None:
    """More than the limit, in a project that is not empty, is blocked."""
    git = desired(*(want(f"f{number}") for number in range(8)))
    await bench.sync(git)
    for slug in ("f1", "f2", "f3"):
        bench.api.world.delete(bench.api.world.function(slug))
    report = await bench.sync(git)
    assert (report.exit_code, len(bench.api.world.functions)) == (ExitCode.FUNCTION_FAILED, 5)


@pytest.mark.parametrize("named", ["the-other", None])
async def test_a_key_of_another_project_exits_with_78_before_any_write(bench: Bench, named: str | None) -> None:
    """The project file or the state folder names one project, and the key opens another: the error names both."""
    if named is None:
        await bench.sync(desired(want("a")))
        with StateStore(bench.folder, bench.clock.now) as store:
            store.remember_project("the-other")
    bench.api.world.create({"name": "x", "code": "x"})
    writes = len(bench.api.writes)
    with pytest.raises(StateForeign) as raised:
        await bench.sync(replace(desired(want("a"), want("b")), project_id=named))
    assert bench.api.world.project_id in raised.value.message
    assert "the-other" in raised.value.message
    assert len(bench.api.writes) == writes
    if named is not None:
        fine = replace(desired(want("a")), project_id=bench.api.world.project_id)
        assert (await bench.sync(fine)).exit_code == 0


@pytest.mark.parametrize("empty", [True, False])
async def test_the_first_sync_into_an_empty_project_remembers_the_project(bench: Bench, empty: bool) -> None:
    """The next pass with the key of another project, empty or not, exits with 78 before any write."""
    git = desired(want("a"))
    await bench.sync(git)
    project = bench.api.world.project_id
    assert bench.memory().project_id == project
    other = new_world(bench.clock, project_id="another")
    if not empty:
        other.create({"name": "x", "code": "x"})
    bench.api = WorldApi(other)
    with pytest.raises(StateForeign, match=project):
        await bench.sync(git)
    assert not bench.api.writes


@pytest.mark.parametrize("by_state", [True, False])
async def test_an_empty_project_that_is_not_ours_gets_one_function_and_no_more(bench: Bench, by_state: bool) -> None:
    """Its list does not show its id, the first create does: the pass stops there, and the right key needs no override."""
    git = desired(want("a"), want("b"), want("c"))
    if by_state:
        with StateStore(bench.folder, bench.clock.now) as store:
            store.remember_project("ours")
        bench.limits = replace(bench.limits, allow_recreate=True)
    else:
        git = replace(git, project_id="ours")
    wrong, right = bench.api.world, WorldApi(new_world(bench.clock, project_id="ours"))
    report = await bench.sync(git)
    assert (report.exit_code, report.count("create"), bench.api.writes) == (ExitCode.CONFIG, 1, [("POST", "/functions", "a")])
    assert report.halted is not None
    created = f"`a` ({wrong.function('a').id})"
    assert all(text in report.halted.message for text in (f"opens project {wrong.project_id}", "project ours", created))
    assert str(report.halted.hint).startswith("delete `a` there")
    assert [outcome.result for outcome in report.outcomes] == [Result.FAILED, Result.SKIPPED, Result.SKIPPED]
    with pytest.raises(StateForeign, match=wrong.project_id):
        await bench.sync(git)
    bench.api, bench.limits = right, replace(bench.limits, allow_recreate=by_state)
    assert (await bench.sync(git)).exit_code == ExitCode.OK
    assert set(right.world.live_code()) == {"a", "b", "c"}
    assert bench.memory().project_id == "ours"


async def test_an_empty_project_that_is_ours_gets_all_functions_in_one_pass(bench: Bench) -> None:
    """The first goes alone and shows the project; an answer without it is read again."""

    class Terse(WorldApi):
        async def create_function(self, payload: Mapping[str, Json]) -> RemoteFunction:
            return replace(await super().create_function(payload), project_id=None)

    bench.api = Terse(bench.api.world)
    git = replace(desired(want("a"), want("b"), want("c")), project_id=bench.api.world.project_id)
    assert (await bench.sync(git)).exit_code == ExitCode.OK
    assert (len(bench.api.world.live_code()), bench.api.count("GET", "/functions/{id}")) == (3, 1)
    foreign = Bench(bench.folder / "other", bench.clock, Terse(new_world(bench.clock)))
    report = await foreign.sync(replace(git, project_id="ours"))
    assert (report.exit_code, len(foreign.api.writes)) == (ExitCode.CONFIG, 1)


async def test_a_known_project_with_an_empty_list_is_not_written_to(bench: Bench) -> None:
    """Even if we own none of its functions any more; a setting says that it was emptied."""
    bench.api.world.create({"name": "x", "code": "x"})
    await bench.sync(desired(want("x")))
    assert not bench.memory().owned
    bench.api = WorldApi(new_world(bench.clock))
    with pytest.raises(StateForeign, match="empty project"):
        await bench.sync(desired(want("a")))
    assert not bench.api.writes
    bench.limits = replace(bench.limits, allow_recreate=True)
    assert (await bench.sync(desired(want("a")))).exit_code == 0


async def test_a_function_deleted_on_kapso_is_recreated_within_the_limit(bench: Bench) -> None:
    """Somebody deleted it in the dashboard."""
    git = desired(want("a"), want("b"))
    await bench.sync(git)
    bench.api.world.delete(bench.api.world.function("a"))
    report = await bench.sync(git)
    step = report.plan.steps[0]
    assert isinstance(step, Create)
    assert step.recreate
    assert bench.api.world.live_code() == {"a": CODE_A, "b": CODE_A}


async def test_a_rename_keeps_the_id(bench: Bench) -> None:
    """moved_from changes the slug in place."""
    await bench.sync(desired(want("old")))
    before = bench.api.world.function("old").id
    git = desired(want("new", moved_from="old"))
    report = await bench.sync(git)
    assert bench.api.world.function("new").id == before
    assert report.count("rename") == 1
    assert (await bench.plan(git)).in_sync


async def test_a_slug_change_that_kapso_ignores_blocks_and_creates_nothing(bench: Bench) -> None:
    """A response with the old slug fails that function once; after that it is planned as blocked without a write."""
    bench.api.world.behaviour = Behaviour(slug_changes=False)
    await bench.sync(desired(want("old")))
    git = desired(want("new", moved_from="old"))
    assert (await bench.sync(git)).exit_code is ExitCode.FUNCTION_FAILED
    bench.api.log.clear()
    report = await bench.sync(git)
    assert report.plan.steps[0].action == "blocked"
    assert bench.api.writes == []
    assert len(bench.api.world.functions) == 1


async def test_drift_correction_stops_after_three_undone_corrections(bench: Bench) -> None:
    """Another writer changes that function: it is reported and not written, until git changes."""
    git = desired(want("a"))
    await bench.sync(git)
    world = bench.api.world
    for _ in range(3):
        world.update(world.function("a"), {"code": CODE_B})
        assert (await bench.sync(git)).exit_code is ExitCode.OK
    world.update(world.function("a"), {"code": CODE_B})
    report = await bench.sync(git)
    assert "function.oscillating" in bench.names()
    assert report.exit_code is ExitCode.FUNCTION_FAILED
    changed = await bench.sync(desired(want("a", CODE_A + "// more\n")))
    assert changed.exit_code is ExitCode.OK


async def test_code_that_the_server_normalises_is_not_drift(bench: Bench) -> None:
    """A server that strips white space is not written to again and again."""
    bench.api.world.behaviour = Behaviour(normalise_code="rstrip")
    git = desired(want("a", CODE_A + "\n\n"))
    await bench.sync(git)
    assert (await bench.plan(git)).in_sync


async def test_with_a_list_without_code_only_changed_records_are_fetched(bench: Bench) -> None:
    """In sync, no record is fetched; a changed record is fetched alone."""
    bench.api.world.behaviour = Behaviour(list_code=False)
    git = desired(want("a"), want("b"))
    await bench.sync(git)
    bench.api.log.clear()
    assert (await bench.sync(git)).plan.in_sync
    assert bench.api.calls == 1
    world = bench.api.world
    await bench.clock.sleep(30)
    world.update(world.function("b"), {"code": CODE_B})
    report = await bench.sync(git)
    assert next(entry for entry in bench.api.log if entry[1] == "/functions/{id}")[2] == world.function("b").id
    assert report.drifted == 1


async def test_a_quota_refusal_is_remembered_and_shown_in_the_plan(bench: Bench) -> None:
    """The plan says how many functions are wanted and how many fit; free quota is noticed."""
    bench.api.world.quota = 1
    git = desired(want("a"), want("b"))
    report = await bench.sync(git)
    assert report.exit_code is ExitCode.FUNCTION_FAILED
    plan = await bench.plan(git)
    assert [notice.code for notice in plan.notices] == ["quota"]
    assert "2 functions want to be deployed, 1 are known to fit" in plan.notices[0].message
    bench.api.world.quota = None
    assert (await bench.sync(git)).exit_code is ExitCode.OK
    assert not (await bench.plan(git)).notices


async def test_a_failed_deletion_keeps_the_function_owned_and_is_retried(bench: Bench) -> None:
    """It is not forgotten."""
    await bench.sync(desired(want("a"), want("b")))
    bench.policy = PRUNE
    bench.api.fate = fail_when("DELETE", "/functions/{id}", Fate.UNAVAILABLE)
    assert (await bench.sync(desired(want("a")))).exit_code is ExitCode.FUNCTION_FAILED
    plan = await bench.plan(desired(want("a")))
    assert any(isinstance(step, Delete) for step in plan.steps)


async def test_only_touches_the_named_slugs(bench: Bench) -> None:
    """--only leaves the others for later, and an unknown slug is a usage error."""
    git = desired(want("a"), want("b"))
    await bench.sync(git, PassRequest(only=("b",)))
    assert set(bench.api.world.live_code()) == {"b"}
    with pytest.raises(UsageError):
        await bench.sync(git, PassRequest(only=("c",)))


async def test_expect_applies_only_the_plan_that_was_read(bench: Bench) -> None:
    """A digest that no longer fits stops the pass before the first write."""
    git = desired(want("a"))
    digest = (await bench.plan(git)).digest
    with pytest.raises(PlanChanged):
        await bench.sync(desired(want("a", CODE_B)), PassRequest(expect=digest))
    assert not bench.api.world.functions
    assert (await bench.sync(git, PassRequest(expect=digest))).exit_code is ExitCode.OK


async def test_an_unconfirmed_older_deployment_is_followed_by_one_more(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A deployment of older code may still run when the new one ends: a further one settles which came last."""
    clock = VirtualClock()
    bench = Bench(tmp_path_factory.mktemp("state"), clock, WorldApi(new_world(clock)))
    await bench.sync(desired(want("a")))
    bench.settings = replace(bench.settings, deploy_timeout=1.0)
    bench.api.fate = fail_when("POST", "/functions/{id}/deploy", Fate.LOST_AFTER)
    assert (await bench.sync(desired(want("a", CODE_B)))).exit_code is ExitCode.FUNCTION_FAILED
    bench.settings = replace(bench.settings, deploy_timeout=180.0)
    bench.api.log.clear()
    third = CODE_A + "// third\n"
    report = await bench.sync(desired(want("a", third)))
    assert report.exit_code is ExitCode.OK
    assert bench.api.count("POST", "/functions/{id}/deploy") == 2
    assert bench.api.world.live_code() == {"a": third}


async def test_each_unconfirmed_older_deployment_is_followed_by_one_more(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Two of them may end after the new one was requested: only the third end is its own."""
    clock = VirtualClock()
    bench = Bench(tmp_path_factory.mktemp("state"), clock, WorldApi(new_world(clock)))
    await bench.sync(desired(want("a")))
    bench.settings = replace(bench.settings, deploy_timeout=1.0)
    for number in range(2):
        bench.api.fate = fail_when("POST", "/functions/{id}/deploy", Fate.LOST_AFTER)
        await bench.sync(desired(want("a", f"{CODE_B}// {number}\n")))
        bench.api.log.clear()
    bench.settings = replace(bench.settings, deploy_timeout=180.0)
    report = await bench.sync(desired(want("a", CODE_B)))
    assert report.exit_code is ExitCode.OK
    assert bench.api.count("POST", "/functions/{id}/deploy") == 3
    assert bench.api.world.live_code() == {"a": CODE_B}


async def test_two_owners_never_touch_each_others_functions(bench: Bench) -> None:
    """A function with a foreign mark is a conflict that names both owners; --take-from hands it over."""
    await bench.sync(desired(want("a")))
    other = Bench(bench.folder.with_name("other"), bench.clock, bench.api, policy=replace(POLICY, owner="example.com/other"))
    report = await other.sync(desired(want("a", CODE_B)))
    assert report.exit_code is ExitCode.FUNCTION_FAILED
    assert OWNER in str(report.outcomes[0].error)
    assert bench.api.world.live_code() == {"a": CODE_A}
    other.policy = replace(other.policy, take_from=frozenset({OWNER}))
    assert (await other.sync(desired(want("a", CODE_B)))).count("adopt") == 1
    assert bench.api.world.live_code() == {"a": CODE_B}


@pytest.mark.parametrize("fate", [Fate.KILLED_AFTER, Fate.LOST_AFTER])
async def test_an_interrupted_drift_correction_is_deployed_by_the_next_pass(bench: Bench, fate: Fate) -> None:
    """Somebody deployed by hand within a second of our write, and our process died: the hand-made code must be replaced."""
    await bench.sync(desired(want("a")))
    world = bench.api.world
    world.update(world.function("a"), {"code": CODE_B})
    world.deploy(world.function("a"))
    await bench.clock.sleep(DEPLOY_SECONDS)
    bench.api.fate = fail_when("PATCH", "/functions/{id}", fate)
    with contextlib.suppress(BaseExceptionGroup):
        await bench.sync(desired(want("a")))
    report = await bench.sync(desired(want("a")))
    assert report.exit_code == ExitCode.OK
    assert world.live_code() == {"a": CODE_A}


async def test_a_save_right_after_a_deployment_is_deployed_when_git_wants_it(bench: Bench) -> None:
    """The server's times do not show which came first, so the confirmed live code is remembered."""
    await bench.sync(desired(want("a")))
    for _ in range(2):
        await bench.sync(desired(want("a", CODE_B, deploy=False)))
    assert bench.api.world.live_code() == {"a": CODE_A}
    await bench.sync(desired(want("a", CODE_B)))
    assert bench.api.world.live_code() == {"a": CODE_B}


async def test_no_function_is_overwritten_without_a_backup_of_its_code(tmp_path: Path) -> None:
    """An API that returns no code, not even in one record, is not written to."""
    clock = VirtualClock()
    bench = Bench(tmp_path / "state", clock, WorldApi(new_world(clock, Behaviour(list_code=False))))
    await bench.sync(desired(want("a")))

    async def bare(function_id: str) -> RemoteFunction:
        return next(record for record in await bench.api.list_functions() if record.id == function_id)

    bench.api.get_function = bare  # type: ignore[method-assign]
    report = await bench.sync(desired(want("a", CODE_B)))
    assert "without a copy" in str(report.outcomes[0].error)
    assert bench.api.world.live_code() == {"a": CODE_A}


def owned_by(bench: Bench, owner: str) -> None:
    """Let the state folder have another owner from now on, as a folder that got a git remote."""
    bench.policy = replace(bench.policy, owner=owner)
    with StateStore(bench.folder, bench.clock.now) as store:
        store.remember_owner(owner)


async def test_functions_of_a_former_owner_stay_ours(bench: Bench) -> None:
    """A change of owner writes nothing by itself; the next write of a function brings its new mark, and prune still works."""
    owned_by(bench, "folder/flows-0123456789ab")
    git = desired(want("a"), want("b"), want("c"))
    await bench.sync(git)
    writes = len(bench.api.writes)
    owned_by(bench, OWNER)
    assert (await bench.plan(git)).in_sync
    assert (await bench.sync(git)).exit_code == 0
    assert len(bench.api.writes) == writes
    assert (await bench.sync(desired(want("a", CODE_B), want("b"), want("c")))).exit_code == 0
    descriptions = {slug: bench.api.world.function(slug).description for slug in "abc"}
    assert without_digests(str(descriptions["a"])) == str(mark_for(OWNER, "a"))
    assert without_digests(str(descriptions["b"])) == str(mark_for("folder/flows-0123456789ab", "b"))
    bench.policy = replace(bench.policy, prune=True)
    assert (await bench.sync(desired(want("a", CODE_B), want("c")))).count("delete") == 1
    report = await bench.sync(desired(want("a", CODE_B), want("d", moved_from="c")))
    assert (report.exit_code, without_digests(str(bench.api.world.function("d").description))) == (0, str(mark_for(OWNER, "d")))


OWNERS = st.sampled_from(["folder/x-1", OWNER, f"{OWNER}@env", "example.com/renamed"])


@pytest.mark.history
@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(OWNERS, st.sampled_from("abc"), st.booleans()),
        min_size=1,
        max_size=8,
    )
)
def test_any_history_of_owners_ends_in_sync_without_a_second_function(history: list[tuple[str, str, bool]]) -> None:
    """Remotes are added, renamed and removed, in any order: nothing is blocked for good, and ids stay."""

    async def live() -> None:
        with tempfile.TemporaryDirectory() as folder:
            clock = VirtualClock()
            bench = Bench(Path(folder) / "state", clock, WorldApi(new_world(clock)))
            codes = dict.fromkeys("abc", CODE_A)
            owned_by(bench, "folder/x-1")
            await bench.sync(desired(*(want(slug) for slug in codes)))
            ids = set(bench.api.world.functions)
            for owner, slug, changes in history:
                owned_by(bench, owner)
                if changes:
                    codes[slug] = CODE_B if codes[slug] == CODE_A else CODE_A
                report = await bench.sync(desired(*(want(name, code) for name, code in codes.items())))
                assert report.exit_code == 0
            assert bench.api.world.live_code() == codes
            assert set(bench.api.world.functions) == ids

    asyncio.run(live())
