"""A function that somebody uses is not deleted, and neither is one of which nobody can tell who uses it."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kapso_sync.emulator.records import Function
from kapso_sync.errors import ApiError, ApiForbidden, ApiNotFound, ApiPaymentRequired, ApiUnavailable, Call, UsersUnknown
from kapso_sync.model.desired import Check, DesiredFunction
from kapso_sync.model.events import PruneBlocked
from kapso_sync.model.functions import Invocation, InvocationRecord, RemoteFunction
from kapso_sync.model.plan import Blocked, Delete
from kapso_sync.model.policies import MaxDelete
from kapso_sync.model.users import FoundUsers
from kapso_sync.reconcile.cycle import PassRequest
from kapso_sync.reconcile.plan.guard import Limits
from tests.builders import CODE_A, CODE_B, LIMITS, POLICY, desired, want
from tests.clock import VirtualClock
from tests.reconcile.passes import Bench
from tests.world import Fate, WorldApi, new_world

DAY = 24 * 3600.0
PRUNING = replace(POLICY, prune=True)
LOOK_UPS = ("/workflows", "/functions/{id}/invocations")


def pruning(bench: Bench, *, idle: float = DAY, delete: tuple[str, ...] = ()) -> Bench:
    bench.policy = replace(PRUNING, delete=frozenset(delete))
    bench.limits = Limits(LIMITS.max_delete, idle=idle)
    bench.settings = replace(bench.settings, prune_idle=idle)
    return bench


async def begun(bench: Bench) -> Function:
    """Two functions of ours; the second is going to leave git."""
    await bench.sync(desired(want("a"), want("b")))
    pruning(bench)
    return bench.api.world.function("b")


def node(function: Function) -> dict[str, object]:
    return {"nodes": [{"data": {"config": {"function_id": function.id}}}]}


USERS: dict[str, tuple[Callable[[Bench, Function], object], str]] = {
    "workflow": (lambda bench, b: bench.api.world.add_workflow("Orders", node(b)), "workflow Orders"),  # type: ignore[arg-type]
    "archived": (
        lambda bench, b: bench.api.world.add_workflow("Old", node(b), status="archived"),  # type: ignore[arg-type]
        "workflow Old",
    ),
    "flow": (lambda bench, b: bench.api.world.add_flow("Booking", b.id), "WhatsApp Flow Booking"),
    "webhook": (
        lambda bench, b: bench.api.world.add_webhook(f"https://api.kapso.ai/platform/v1/functions/{b.id}/invoke"),
        "webhook https://api.kapso.ai",
    ),
    "function": (
        lambda bench, b: bench.api.world.create(
            {"name": f"caller {len(bench.api.log)} of {b.id}", "code": f"const url = '/functions/{b.id}/invoke';"}
        ),
        "function caller",
    ),
}


@pytest.mark.parametrize("kind", USERS)
async def test_a_plan_shows_a_used_function_as_blocked_and_names_the_user(bench: Bench, kind: str) -> None:
    """In the plan already; nothing is deleted, the log says so, and exit code 1 tells."""
    add, named = USERS[kind]
    add(bench, await begun(bench))
    step = next(step for step in (await bench.plan(desired(want("a")))).steps if step.slug == "b")
    assert isinstance(step, Blocked)
    assert (step.wanted, named in step.reasons[0]) == ("delete", True)
    report = await bench.sync(desired(want("a")))
    assert (report.exit_code, "b" in bench.api.world.live_code()) == (1, True)
    (event, *_) = [event for event in bench.events if isinstance(event, PruneBlocked)]
    assert (event.slugs, named in event.reason) == (("b",), True)


@pytest.mark.parametrize("kind", USERS)
async def test_a_known_user_is_not_overruled(bench: Bench, kind: str) -> None:
    """``--delete`` overrules an unknown look-up, never somebody who is known."""
    add, _ = USERS[kind]
    add(bench, await begun(bench))
    report = await pruning(bench, delete=("b",)).sync(desired(want("a")))
    assert (report.exit_code, "b" in bench.api.world.live_code()) == (1, True)


async def test_a_function_that_nothing_uses_is_deleted(bench: Bench) -> None:
    """The control: the same look-ups, and nobody found."""
    await begun(bench)
    assert (await bench.sync(desired(want("a")))).count("delete") == 1
    assert set(bench.api.world.live_code()) == {"a"}


async def test_code_of_the_same_commit_that_names_a_function_keeps_it(bench: Bench) -> None:
    """`b` leaves git, and `a` begins to call it in the same commit: `b` stays."""
    b = await begun(bench)
    calling = desired(want("a", f"async function handler() {{ return fetch('/functions/{b.id}/invoke'); }}\n"))
    report = await bench.sync(calling)
    assert (report.exit_code, "b" in bench.api.world.live_code()) == (1, True)
    assert "function a" in next(step for step in report.plan.steps if step.slug == "b").reasons[0]


async def test_a_function_that_a_blocked_deletion_uses_is_blocked_in_the_plan_too(bench: Bench) -> None:
    """A workflow uses `b`, and `b` calls `c`; both left git: the plan says what the sync will do."""
    await bench.sync(desired(want("a"), want("c")))
    c = bench.api.world.function("c")
    calling = want("b", f"async function handler() {{ return fetch('/functions/{c.id}/invoke'); }}\n")
    await bench.sync(desired(want("a"), want("c"), calling))
    pruning(bench)
    bench.api.world.add_workflow("Orders", node(bench.api.world.function("b")))  # type: ignore[arg-type]
    steps = {step.slug: step.action for step in (await bench.plan(desired(want("a")))).steps}
    assert steps == {"a": "none", "b": "blocked", "c": "blocked"}


async def test_an_invocation_without_a_time_blocks_a_deletion(bench: Bench) -> None:
    """Nobody can say that it is old."""
    b = await begun(bench)
    bench.api.list_invocations = timeless  # type: ignore[method-assign]
    bench.limits = replace(bench.limits, idle=3600.0)
    step = next(step for step in (await bench.plan(desired(want("a")))).steps if step.slug == "b")
    assert (step.action, "not known" in step.reasons[0], b.id in bench.api.world.functions) == ("blocked", True, True)


async def timeless(*_: object, **__: object) -> tuple[InvocationRecord, ...]:
    return (InvocationRecord(id="i", status_code=200, created_at=None),)


async def test_nothing_is_looked_up_where_nothing_is_due(bench: Bench) -> None:
    """Neither in sync, nor while a deletion waits for its time."""
    await begun(bench)
    await bench.sync(desired(want("a"), want("b")))
    bench.limits = replace(bench.limits, grace=600.0)
    await bench.sync(desired(want("a")))
    assert [route for _, route, _ in bench.api.log if route in LOOK_UPS] == []


FAILURES: list[ApiError] = [
    UsersUnknown("which workflows there are could not be read", call=Call("GET", "/workflows"), status=401),
    ApiPaymentRequired("answered 402", call=Call("GET", "/whatsapp/flows"), status=402),
    ApiForbidden("answered 403", call=Call("GET", "/whatsapp/webhooks"), status=403),
    ApiNotFound("answered 404", call=Call("GET", "/workflows"), status=404),
    ApiUnavailable("answered 500", call=Call("GET", "/workflows"), status=500),
]


class _Failing(WorldApi):
    """Cannot tell who uses a function, or what was invoked."""

    failure: ApiError
    what: str

    async def find_users(self, functions: Sequence[RemoteFunction]) -> FoundUsers:
        if self.what == "users":
            raise self.failure
        return await super().find_users(functions)

    async def list_invocations(
        self, function_id: str, *, limit: int = 10, status: str | None = None
    ) -> tuple[InvocationRecord, ...]:
        if self.what == "invocations":
            raise self.failure
        return await super().list_invocations(function_id, limit=limit, status=status)


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: str(failure.status))
@pytest.mark.parametrize("what", ["users", "invocations"])
async def test_unknown_blocks_a_deletion_unless_a_person_names_the_function(bench: Bench, failure: ApiError, what: str) -> None:
    """The reason says which look-up failed; ``--delete`` overrules it."""
    await begun(bench)
    failing = _Failing(bench.api.world)
    failing.failure, failing.what = failure, what
    bench.api = failing
    report = await bench.sync(desired(want("a")))
    blocked = next(outcome for outcome in report.outcomes if outcome.step.slug == "b")
    assert failure.message in str(blocked.error)
    assert "--delete b" in str(blocked.hint)
    assert "b" in bench.api.world.live_code()
    await pruning(bench, delete=("b",)).sync(desired(want("a")))
    assert "b" not in bench.api.world.live_code()


async def test_a_recent_invocation_blocks_and_an_old_one_does_not(bench: Bench) -> None:
    """Within KAPSO_SYNC_PRUNE_IDLE; 0 never looks; a person overrules it."""
    b = await begun(bench)
    bench.api.world.record_invocation(b, {"order": 1}, 200)
    await bench.clock.sleep(DAY - 60)
    report = await bench.sync(desired(want("a")))
    assert report.exit_code == 1
    assert "KAPSO_SYNC_PRUNE_IDLE" in str(report.outcomes[-1].error)
    await bench.clock.sleep(120)
    assert (await bench.sync(desired(want("a")))).count("delete") == 1


@pytest.mark.parametrize(("idle", "delete"), [(0.0, ()), (DAY, ("b",))])
async def test_a_recent_invocation_is_overruled(bench: Bench, idle: float, delete: tuple[str, ...]) -> None:
    """By the setting, or by a person who names the function."""
    bench.api.world.record_invocation(await begun(bench), {"order": 1}, 200)
    assert (await pruning(bench, idle=idle, delete=delete).sync(desired(want("a")))).count("delete") == 1


def checked(slug: str) -> DesiredFunction:
    function = want(slug)
    return replace(function, entry=replace(function.entry, checks=(Check({"ping": True}, status=200),)))


@pytest.mark.parametrize("body", [{"ping": True}, json.dumps({"ping": True})])
async def test_invocations_by_our_own_checks_do_not_count(bench: Bench, body: object) -> None:
    """Shown as JSON or as text; the same request long after the deployment was somebody's."""
    bench.api.runtime = lambda _function: Invocation(200, "", "{}")
    await bench.sync(desired(want("a"), checked("b")))
    b = bench.api.world.function("b")
    bench.api.world.record_invocation(b, body, 200)  # type: ignore[arg-type]
    report = await pruning(bench).sync(desired(want("a")))
    assert report.count("delete") == 1
    await bench.sync(desired(want("a"), checked("b")))
    b = bench.api.world.function("b")
    await bench.clock.sleep(timedelta(hours=1).total_seconds())
    bench.api.world.record_invocation(b, body, 200)  # type: ignore[arg-type]
    assert (await bench.sync(desired(want("a")))).exit_code == 1


async def test_functions_that_leave_together_do_not_keep_each_other(bench: Bench) -> None:
    """Each names the other; both left git."""
    await bench.sync(desired(want("a"), want("b"), want("c")))
    b, c = bench.api.world.function("b"), bench.api.world.function("c")
    codes = {"b": f"{CODE_A}// {c.id}\n", "c": f"{CODE_A}// {b.id}\n"}
    await bench.sync(desired(want("a"), want("b", codes["b"]), want("c", codes["c"])))
    pruning(bench)
    bench.limits = replace(bench.limits, max_delete=MaxDelete(100))
    assert (await bench.sync(desired(want("a")))).count("delete") == 2


class _Undeletable(WorldApi):
    """Kapso refuses to delete some functions."""

    kept: tuple[str, ...] = ()

    async def delete_function(self, function_id: str) -> None:
        if function_id in self.kept:
            raise ApiForbidden("no", call=Call("DELETE", "/functions/{id}"), status=403)
        await super().delete_function(function_id)


@pytest.mark.parametrize("list_code", [True, False])
@pytest.mark.parametrize("kept", ["c", "b", "a", ""])
async def test_what_a_function_uses_stays_where_its_own_deletion_fails(bench: Bench, list_code: bool, kept: str) -> None:
    """Function c calls b, and b calls a; all leave git. What cannot be deleted keeps what it uses, and that keeps more."""
    api = bench.api = _Undeletable(bench.api.world)
    api.world.behaviour = api.world.behaviour.changed({"list_code": list_code})
    await bench.sync(desired(want("a"), want("z")))
    for slug, used in (("b", "a"), ("c", "b")):
        function_id = api.world.function(used).id
        calling = want(slug, f"async function handler() {{ return fetch('/functions/{function_id}/invoke'); }}\n")
        await bench.sync(desired(*(want(name) for name in "az"), calling), PassRequest(only=(slug,)))
    api.kept = tuple(api.world.function(slug).id for slug in kept)
    pruning(bench)
    bench.limits = replace(bench.limits, max_delete=MaxDelete(100, percent=True))
    report = await bench.sync(desired(want("z")))
    left = {function.slug for function in api.world.functions.values()}
    assert left == {"z", *"abc"[: "abc".find(kept) + 1 if kept else 0]}
    assert report.exit_code == (1 if kept else 0)


async def test_functions_that_call_each_other_go_one_by_one(bench: Bench) -> None:
    """Where the first cannot be deleted, the other stays, since it is used."""
    api = bench.api = _Undeletable(bench.api.world)
    await bench.sync(desired(want("a"), want("b"), want("z")))
    ids = {slug: api.world.function(slug).id for slug in "ab"}
    calls = {
        slug: f"async function handler() {{ return fetch('/functions/{ids[other]}/invoke'); }}\n"
        for slug, other in ("ab", "ba")
    }
    await bench.sync(desired(want("a", calls["a"]), want("b", calls["b"]), want("z")))
    api.kept = (ids["a"],)
    pruning(bench)
    bench.limits = replace(bench.limits, max_delete=MaxDelete(100, percent=True))
    await bench.sync(desired(want("z")))
    assert {function.slug for function in api.world.functions.values()} == {"a", "b", "z"}
    api.kept = ()
    await bench.sync(desired(want("z")))
    assert {function.slug for function in api.world.functions.values()} == {"z"}


async def test_a_user_that_appears_after_the_plan_is_seen(bench: Bench) -> None:
    """Who uses it is looked up again right before a deletion."""
    b = await begun(bench)

    class _Late(WorldApi):
        looks = 0

        async def find_users(self, functions: Sequence[RemoteFunction]) -> FoundUsers:
            self.looks += 1
            if self.looks == 2:
                self.world.add_workflow("Late", node(b))  # type: ignore[arg-type]
            return await super().find_users(functions)

    bench.api = _Late(bench.api.world)
    report = await bench.sync(desired(want("a")))
    assert (report.exit_code, "b" in bench.api.world.live_code()) == (1, True)
    assert [event.reason for event in bench.events if isinstance(event, PruneBlocked)] == ["still used by workflow Late"]


@pytest.mark.history
@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("abcd"), st.sampled_from(["workflow", "flow", "webhook", "function", "none"])), max_size=12
    )
)
def test_nothing_that_anybody_uses_is_ever_deleted(history: list[tuple[str, str]]) -> None:
    """Functions leave git one by one while users of every kind come; what nobody uses goes."""
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_live(Path(folder), history))


async def _live(folder: Path, history: list[tuple[str, str]]) -> None:
    clock = VirtualClock()
    bench = Bench(folder / "state", clock, WorldApi(new_world(clock)))
    slugs = set("abcd")
    await bench.sync(desired(*(want(slug) for slug in sorted(slugs)), want("z")))
    pruning(bench)
    bench.limits = replace(bench.limits, max_delete=MaxDelete(100))
    used: set[str] = set()
    for slug, kind in history:
        if slug in bench.api.world.live_code() and kind != "none":
            USERS[kind][0](bench, bench.api.world.function(slug))
            used.add(slug)
        slugs.discard(slug)
        await bench.sync(desired(*(want(name) for name in sorted(slugs)), want("z")))
        live = {name for name in bench.api.world.live_code() if name in "abcd"}
        assert used <= live
        assert live - slugs <= used
    assert not any(isinstance(step, Delete) for step in (await bench.plan(desired(want("z")))).steps if step.slug in used)


class _HalfBlind(WorldApi):
    """One kind of users cannot be read."""

    async def find_users(self, functions: Sequence[RemoteFunction]) -> FoundUsers:
        found = await super().find_users(functions)
        return FoundUsers(found.users, UsersUnknown("Flows could not be read", call=Call("GET", "/whatsapp/flows"), status=402))


async def test_delete_does_not_override_a_known_user_when_another_look_up_fails(bench: Bench) -> None:
    """What is known still counts; where nothing is known, the person's word does."""
    await bench.sync(desired(want("a"), want("b"), want("c")))
    bench.api.world.add_workflow("Orders", node(bench.api.world.function("b")))  # type: ignore[arg-type]
    bench.api = _HalfBlind(bench.api.world)
    pruning(bench, delete=("b", "c"))
    bench.limits = replace(bench.limits, max_delete=MaxDelete(100, percent=True))
    await bench.sync(desired(want("a")))
    assert {function.slug for function in bench.api.world.functions.values()} == {"a", "b"}


@pytest.mark.parametrize("list_code", [True, False])
async def test_code_saved_while_others_are_deployed_keeps_what_it_uses(bench: Bench, list_code: bool) -> None:
    """Users are read again right before a deletion, other functions' code as well."""
    bench.api.world.behaviour = bench.api.world.behaviour.changed({"list_code": list_code})
    await bench.sync(desired(want("a"), want("b"), want("k")))
    pruning(bench)
    world, used = bench.api.world, bench.api.world.function("a").id
    pending = [lambda: world.update(world.function("k"), {"code": f"const url = '/functions/{used}/invoke';"})]

    def fate(_number: int, method: str, route: str) -> Fate:
        if pending and (method, route) == ("POST", "/functions/{id}/deploy"):
            pending.pop()()
        return Fate.FINE

    bench.api.fate = fate
    report = await bench.sync(desired(want("b", CODE_B), want("k")))
    assert not pending
    assert {function.slug for function in world.functions.values()} == {"a", "b", "k"}
    assert report.exit_code == 1
