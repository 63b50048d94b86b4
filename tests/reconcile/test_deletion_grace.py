"""The deletion grace: how long a function that left git is kept, and what is checked before it is deleted."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kapso_sync.emulator.options import Behaviour
from kapso_sync.errors import UsageError
from kapso_sync.model.events import PrunePending
from kapso_sync.model.json_values import Json
from kapso_sync.model.plan import Blocked, Delete, NoChange
from kapso_sync.model.policies import MaxDelete
from kapso_sync.model.report import Report
from kapso_sync.model.state import MissingFunction
from kapso_sync.model.status import ConditionType
from kapso_sync.model.users import FunctionUser, UserKind
from kapso_sync.reconcile.cycle import PassRequest
from kapso_sync.reconcile.plan.deletion_grace import Timestamps, defer_deletions
from kapso_sync.reconcile.plan.function_usage import unused_functions
from kapso_sync.reconcile.plan.guard import Limits
from kapso_sync.reconcile.plan.intents import resolve_intents
from kapso_sync.reconcile.plan.planner import make_plan
from kapso_sync.reconcile.plan.similarity import SIMILAR, similarity
from kapso_sync.status.tracker import StatusTracker
from tests.builders import CODE_A, CODE_B, DAWN, OWNER, POLICY, desired, memory, owned, remote, unusable, want
from tests.clock import VirtualClock
from tests.reconcile.passes import Bench
from tests.reconcile.test_renames import code
from tests.world import Fate, WorldApi, new_world

PRUNING = replace(POLICY, prune=True)
GRACE = 600.0


def patient(bench: Bench) -> Bench:
    bench.policy, bench.limits = PRUNING, Limits(MaxDelete(5), grace=GRACE)
    return bench


# How long it is waited


@dataclass(frozen=True)
class Look:
    """A pass: how long after the last one, by how much the wall clock was set meanwhile, whether the process is a new one."""

    after: float
    jump: float = 0.0
    restarted: bool = False
    in_git: bool = False


looks = st.builds(
    Look,
    after=st.sampled_from((0.0, 1.0, 60.0, 299.0, 900.0)),
    jump=st.just(0.0) | st.sampled_from((-86400.0, -700.0, 700.0, 86400.0)),
    restarted=st.booleans(),
    in_git=st.sampled_from((False, False, False, True)),
).map(lambda look: replace(look, jump=min(look.jump, 0.0)) if look.restarted else look)


@given(st.lists(looks, min_size=1, max_size=12))
@example([Look(0), Look(60, jump=86400)])
@example([Look(0), Look(60, restarted=True), Look(60, restarted=True)])
def test_no_restart_and_no_clock_change_shortens_the_deletion_grace(history: list[Look]) -> None:
    """Waited time counts only between passes that all missed the function, and is complete where the clock was not changed."""
    plan = make_plan(desired(want("a")), resolve_intents([remote("a"), remote("b")], memory(), OWNER), PRUNING)
    known: dict[str, MissingFunction] = {}
    true, wall, tick, session = 0.0, 0.0, 0.0, 0
    began: float | None = None
    trusted = True
    for look in history:
        true, wall, tick = true + look.after, wall + look.after + look.jump, tick + look.after
        if look.restarted:
            session, tick = session + 1, 17.0 * session
        if look.in_git:
            known, began, trusted = {}, None, True
            continue
        began = true if began is None else began
        trusted = trusted and not (look.restarted and look.jump < 0)
        watched = defer_deletions(plan, known, Timestamps(DAWN + timedelta(seconds=wall), tick, str(session)))
        (absence,) = watched.missing
        known = {absence.function_id: absence}
        assert absence.seconds <= true - began + 0.001
        assert not trusted or absence.seconds >= true - began - 0.001


@dataclass(frozen=True)
class Turn:
    """A pass of one of two replicas, each with a memory of its own; another one than before leads in a new term."""

    after: float
    replica: str
    term_ended: bool = False
    restarted: bool = False
    in_git: bool = False


turns = st.builds(
    Turn,
    after=st.sampled_from((1.0, 60.0, 299.0, 900.0)),
    replica=st.sampled_from("aab"),
    term_ended=st.sampled_from((False, False, True)),
    restarted=st.sampled_from((False, False, True)),
    in_git=st.sampled_from((False, False, True)),
)


@given(st.lists(turns, min_size=1, max_size=12))
@example([Turn(1, "a"), Turn(1, "b", in_git=True), Turn(900, "a")])
def test_no_change_of_the_leader_shortens_the_deletion_grace(history: list[Turn]) -> None:
    """Waited time counts from the first pass of a term after any replica's last pass that saw the function, and in full."""
    plan = make_plan(desired(want("a")), resolve_intents([remote("a"), remote("b")], memory(), OWNER), PRUNING)
    known: dict[str, dict[str, MissingFunction]] = {"a": {}, "b": {}}
    now, term, session, leader = 0.0, 0, 0, ""
    began: float | None = None
    for turn in history:
        now += turn.after
        if turn.replica != leader or turn.term_ended:
            leader, term, began = turn.replica, term + 1, None
        session += turn.restarted  # as when its settings are loaded again
        if turn.in_git:
            known[leader], began = {}, None
            continue
        began = now if began is None else began
        moment = Timestamps(DAWN + timedelta(seconds=now), now, f"{leader}{session}", f"term {term}")
        (absence,) = defer_deletions(plan, known[leader], moment).missing
        known[leader] = {absence.function_id: absence}
        assert absence.seconds == pytest.approx(now - began)


SEEN = MissingFunction("id-b", "b", since=DAWN, seen=DAWN + timedelta(hours=1), tick=3600.0, session="one", updated_at=DAWN)
HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    ("before", "moment", "is_kept"),
    [
        pytest.param(SEEN, Timestamps(DAWN + 2 * HOUR, 7200.0, "one"), True, id="the same process"),
        pytest.param(SEEN, Timestamps(DAWN + 2 * HOUR, 5.0, "two"), True, id="cron, every hour"),
        pytest.param(SEEN, Timestamps(DAWN + 99 * HOUR, 5.0, "two"), True, id="cron, after a long weekend"),
        pytest.param(SEEN, Timestamps(DAWN + 2 * HOUR, 5.0, "two", max_gap=HOUR), True, id="a restart"),
        pytest.param(SEEN, Timestamps(DAWN + 3 * HOUR, 5.0, "two", max_gap=HOUR), False, id="a restart after a long time"),
        pytest.param(SEEN, Timestamps(DAWN + 3 * HOUR, 10800.0, "one", max_gap=HOUR), True, id="a long pass or suspension"),
        pytest.param(
            replace(SEEN, term="x"), Timestamps(DAWN + 2 * HOUR, 7200.0, "one", "x"), True, id="the same term of leadership"
        ),
        pytest.param(
            replace(SEEN, term="x"), Timestamps(DAWN + 2 * HOUR, 5.0, "two", "x"), True, id="settings loaded in the same term"
        ),
        pytest.param(replace(SEEN, term="x"), Timestamps(DAWN + 2 * HOUR, 7200.0, "one", "y"), False, id="another term"),
        pytest.param(SEEN, Timestamps(DAWN + 2 * HOUR, 7200.0, "one", "x"), False, id="the first term"),
        pytest.param(replace(SEEN, term="x"), Timestamps(DAWN + 2 * HOUR, 5.0, "two"), True, id="`plan` beside a leader"),
        pytest.param(
            replace(SEEN, updated_at=DAWN - HOUR), Timestamps(DAWN + 2 * HOUR, 7200.0, "one"), False, id="written by another"
        ),
        pytest.param(replace(SEEN, updated_at=None), Timestamps(DAWN + 2 * HOUR, 7200.0, "one"), True, id="an older memory"),
    ],
)
def test_deletion_grace_counts_only_time_that_our_memory_covers(
    before: MissingFunction, moment: Timestamps, *, is_kept: bool
) -> None:
    """Where another writer may have seen the function in git, or is known to have written it, the time starts again."""
    gone = replace(remote("b"), id="id-b", updated_at=DAWN)
    plan = make_plan(desired(want("a")), resolve_intents([remote("a"), gone], memory(), OWNER), PRUNING)
    (absence,) = defer_deletions(plan, {"id-b": before}, moment).missing
    assert absence.since == (DAWN if is_kept else moment.now)


async def test_a_deletion_waits_again_after_another_process_wrote_the_function(bench: Bench) -> None:
    """A sync with another state folder had it in git meanwhile, as the time of its last change on Kapso shows."""
    await patient(bench).sync(desired(want("a"), want("b", CODE_B)))
    await bench.sync(desired(want("a")))
    await bench.clock.sleep(GRACE / 2)
    elsewhere = replace(bench, folder=bench.folder.parent / "elsewhere")
    await elsewhere.sync(desired(want("a"), want("b", code("changed"))))
    await bench.clock.sleep(GRACE)
    assert (await bench.sync(desired(want("a")))).plan.deferred_deletions
    await bench.clock.sleep(GRACE)
    assert (await bench.sync(desired(want("a")))).count("delete") == 1


async def test_hourly_syncs_delete_after_a_grace_of_a_day(bench: Bench) -> None:
    """Each is a process of its own, and the state folder is their memory."""
    patient(bench).limits = replace(bench.limits, grace=86400.0)
    await bench.sync(desired(want("a"), want("b", CODE_B)))
    for _ in range(24):
        assert (await bench.sync(desired(want("a")))).count("delete") == 0
        await bench.clock.sleep(3600)
    assert (await bench.sync(desired(want("a")))).count("delete") == 1


async def test_a_deferred_deletion_is_announced_and_waits_for_the_grace(bench: Bench) -> None:
    """Log, status and plan say when; after the grace it is deleted; the pass succeeds."""
    await patient(bench).sync(desired(want("a"), want("b", CODE_B)))
    report = await bench.sync(desired(want("a")))
    assert (report.exit_code, report.plan.in_sync) == (0, True)
    (step,) = report.plan.deferred_deletions
    assert step.reasons == (
        f"it is ours and left git: the first pass after {step.at:%Y-%m-%dT%H:%M:%SZ} deletes it, unless it comes back",
    )
    (told,) = [event for event in bench.events if isinstance(event, PrunePending)]
    assert (told.slug, told.at) == ("b", step.at.isoformat(timespec="seconds"))
    board = StatusTracker(bench.clock, "1", "test")
    board.began("sync")
    board.ended(report)
    (status,) = [function for function in board.status().functions if function.slug == "b"]
    assert (status.delete_at, status.condition(ConditionType.READY).reason) == (step.at, "DeletionPending")
    assert ([function.slug for function in board.status().listed], status.in_git) == (["a"], False)
    await bench.clock.sleep(GRACE - 30)
    assert (await bench.sync(desired(want("a")))).plan.deferred_deletions[0].at == step.at
    await bench.clock.sleep(31)
    assert (await bench.sync(desired(want("a")))).count("delete") == 1
    assert set(bench.api.world.live_code()) == {"a"}


async def test_a_function_that_comes_back_to_git_restarts_its_deletion_grace(bench: Bench) -> None:
    """One pass that sees it again resets the waited time."""
    await patient(bench).sync(desired(want("a"), want("b", CODE_B)))
    for git in (desired(want("a")), desired(want("a"), want("b", CODE_B)), desired(want("a"))):
        await bench.sync(git)
        await bench.clock.sleep(GRACE - 10)
    assert (await bench.sync(desired(want("a")))).plan.deferred_deletions
    await bench.clock.sleep(11)
    assert (await bench.sync(desired(want("a")))).count("delete") == 1


async def test_time_without_prune_does_not_count_for_the_deletion_grace(bench: Bench) -> None:
    """When prune is enabled later, it announces old leftovers first."""
    await patient(bench).sync(desired(want("a"), want("b", CODE_B)))
    bench.policy = POLICY
    await bench.sync(desired(want("a")))
    await bench.clock.sleep(GRACE * 2)
    bench.policy = PRUNING
    assert (await bench.sync(desired(want("a")))).plan.deferred_deletions


async def test_a_mass_deletion_is_held_before_the_grace_begins(bench: Bench) -> None:
    """It is reported at once; deletions of several commits within the grace count together for the limit."""
    git = [want(f"f{number}", code(f"w{number}")) for number in range(6)]
    await patient(bench).sync(desired(*git))
    bench.limits = replace(bench.limits, max_delete=MaxDelete(2))
    for left in (5, 4):
        assert len((await bench.sync(desired(*git[:left]))).plan.deferred_deletions) == 6 - left
        await bench.clock.sleep(GRACE / 4)
    report = await bench.sync(desired(*git[:3]))
    assert [step.slug for step in report.plan.steps if isinstance(step, Blocked)] == ["f3", "f4", "f5"]


# What it may have become


async def test_deletions_wait_while_a_nearly_right_name_is_not_read(bench: Bench) -> None:
    """`function.yaml` became `function.yml`: the function left git for us, and not for the person who did it."""
    bench.policy = PRUNING
    await bench.sync(desired(want("greet", CODE_A), want("part", CODE_B)))
    left = replace(desired(want("greet", CODE_A)), misnamed=("part/function.yml is not read: did you mean function.yaml?",))
    plan = await bench.plan(left)
    (held,) = [step for step in plan.steps if isinstance(step, Blocked)]
    assert held.slug == "part"
    assert held.reasons == ("deletions wait, since part/function.yml is not read: did you mean function.yaml?",)
    bench.policy = replace(PRUNING, delete=frozenset({"part"}))
    assert [step.slug for step in (await bench.plan(left)).deletions] == ["part"]
    bench.policy = PRUNING
    assert [step.slug for step in (await bench.plan(replace(left, misnamed=()))).deletions] == ["part"]


async def test_a_function_that_looks_renamed_is_not_deleted(bench: Bench) -> None:
    """For a new slug with similar code the plan suggests ``moved_from``, and the old function stays, pass after pass."""
    await bench.sync(desired(want("old", code("a")), want("else")))
    bench.policy = PRUNING
    git = desired(want("new", code("a", 1)), want("else"))
    for _ in range(3):
        report = await bench.sync(git)
        (notice,) = [notice for notice in report.plan.notices if notice.code == "possible-rename"]
        assert notice.message == (
            "`new` looks like `old`, which left git; "
            "if it was renamed, say `moved_from: old` at `new`; if it is new, `moved_from: []`"
        )
        (held,) = [step for step in report.plan.steps if isinstance(step, Blocked)]
        assert (held.slug, held.wanted, report.exit_code) == ("old", "delete", 1)
        await bench.clock.sleep(60)
    assert set(bench.api.world.live_code()) == {"new", "old", "else"}


async def test_a_lost_state_folder_does_not_delete_what_looks_renamed(bench: Bench) -> None:
    """Of two similar functions, the younger one is still a suspected rename."""
    await bench.sync(desired(want("old", code("a")), want("else")))
    await bench.clock.sleep(60)
    bench.policy = PRUNING
    git = desired(want("new", code("a", 1)), want("else"))
    await bench.sync(git)
    shutil.rmtree(bench.folder)
    for _ in range(2):
        await bench.sync(git)
    assert set(bench.api.world.live_code()) == {"new", "old", "else"}


async def _suspected(bench: Bench) -> str:
    await bench.sync(desired(want("old", code("a"))))
    old = bench.api.world.function("old").id
    bench.policy = PRUNING
    await bench.sync(desired(want("new", code("a"))))
    return old


async def test_moved_from_after_a_suspected_rename_moves_the_id(bench: Bench) -> None:
    """Even late: the id goes to the new slug, and the function that was created meanwhile is deleted."""
    old = await _suspected(bench)
    git = desired(want("new", code("a"), moved_from="old"))
    for _ in range(2):
        assert (await bench.sync(git)).exit_code == 0
    assert {f.slug: f.id for f in bench.api.world.functions.values()} == {"new": old}


async def test_an_empty_moved_from_allows_the_deletion(bench: Bench) -> None:
    """``moved_from: []`` says that the function is new."""
    await _suspected(bench)
    assert (await bench.sync(desired(want("new", code("a"), moved_from=())))).count("delete") == 1


async def test_delete_by_name_overrides_grace_and_rename_suspicion(bench: Bench) -> None:
    """And prune; limits, protection and workflows still apply."""
    await _suspected(bench)
    bench.policy, bench.limits = replace(POLICY, delete=frozenset({"old"})), replace(bench.limits, grace=GRACE)
    git = desired(want("new", code("a")))
    none = replace(bench.limits, max_delete=MaxDelete(0))
    bench.limits, limits = none, bench.limits
    assert (await bench.sync(git)).count("delete") == 0
    bench.limits = limits
    assert (await bench.sync(git)).count("delete") == 1


@pytest.mark.parametrize(("slug", "said"), [("a", "--delete a: git lists it"), ("x", "--delete x: no function of ours")])
async def test_delete_by_name_is_refused_for_functions_in_git_or_of_others(bench: Bench, slug: str, said: str) -> None:
    """Nothing is done at all."""
    await bench.sync(desired(want("a")))
    bench.api.log.clear()
    bench.policy = replace(POLICY, delete=frozenset({slug}))
    with pytest.raises(UsageError, match=said):
        await bench.sync(desired(want("a", CODE_B)))
    assert not bench.api.writes


def test_a_suspected_rename_is_suggested_without_prune() -> None:
    """Nothing is held, since nothing is deleted."""
    plan = make_plan(desired(want("new", code("a"))), resolve_intents([remote("old", code("a"))], memory(), OWNER), POLICY)
    assert [notice.code for notice in plan.notices] == ["possible-rename", "orphan"]
    assert isinstance(plan.steps[1], NoChange)


def test_a_new_function_that_looks_like_many_is_one_warning() -> None:
    """However many left git: a daemon logs each warning."""
    left = [remote(f"old-{number:03}", code("a")) for number in range(300)]
    plan = make_plan(desired(want("new", code("a"))), resolve_intents(left, memory(), OWNER), POLICY)
    (notice,) = [notice for notice in plan.notices if notice.code == "possible-rename"]
    assert notice.message == (
        "`new` looks like functions that left git: old-000, old-001, old-002, old-003, old-004 and 295 more; "
        "if it was one of them, name that one in `moved_from` at `new`; if it is new, `moved_from: []`"
    )


def test_code_similarity_compares_lines() -> None:
    """Indentation and order do not count; another purpose or a very different length is not similar."""
    long = "".join(f"line {number};\n" for number in range(40))
    assert similarity(long, long.replace("line 7;", "  line 7;")) == 1.0
    assert similarity(long, long.replace("line 7;", "line x;")) >= SIMILAR
    assert similarity(CODE_A, CODE_B) < SIMILAR
    assert similarity(long, long + long) == 0.0
    assert similarity(long, None) == similarity("", "x") == 0.0


def test_rename_detection_of_hundreds_of_functions_takes_bounded_time() -> None:
    """Hundreds vanish while hundreds appear: identical ones are found, and the comparison ends."""
    gone = [remote(f"old-{number}", code(f"w{number}")) for number in range(200)]
    new = [want(f"new-{number}", code(f"w{number}")) for number in range(200)]
    plan = make_plan(desired(*new), resolve_intents(gone, memory(), OWNER), PRUNING)
    assert sum(1 for absence in plan.missing if absence.suspects) == 200


# What is looked at before it is deleted


def _edit_before_deletion(bench: Bench, act: Callable[[], object]) -> None:
    """Change something on Kapso between the plan and the deletion."""
    done: list[object] = []

    def fate(_number: int, _method: str, route: str) -> Fate:
        if route == "/workflows" and not done:
            done.append(act())
        return Fate.FINE

    bench.api.fate = fate


async def test_the_backup_of_a_deletion_holds_the_latest_edit(bench: Bench) -> None:
    """A function that was edited during the pass is saved in that version before it is deleted."""
    await bench.sync(desired(want("a"), want("b", CODE_B)))
    bench.policy = PRUNING
    world = bench.api.world
    _edit_before_deletion(bench, lambda: world.update(world.function("b"), {"code": code("late")}))
    report: Report = await bench.sync(desired(want("a")))
    (outcome,) = [outcome for outcome in report.outcomes if isinstance(outcome.step, Delete)]
    assert json.loads((bench.folder / "backups" / str(outcome.backup)).read_text())["code"] == code("late")


@pytest.mark.parametrize("change", [{"slug": "mine"}, {"description": "Taken over by hand."}])
async def test_a_function_that_lost_our_mark_or_slug_meanwhile_is_not_deleted(bench: Bench, change: dict[str, Json]) -> None:
    """Renamed, or its ownership mark removed, after the plan was made."""
    await bench.sync(desired(want("a"), want("b", CODE_B)))
    bench.policy = PRUNING
    world = bench.api.world
    _edit_before_deletion(bench, lambda: world.update(world.function("b"), change))
    report = await bench.sync(desired(want("a")))
    assert (report.count("delete"), report.exit_code) == (0, 1)
    assert len(world.functions) == 2


async def test_no_function_is_deleted_where_its_users_are_unknown(bench: Bench) -> None:
    """A base that answers no look-up of users: unknown does not mean unused."""
    world = new_world(bench.clock, Behaviour(workflows="none"))
    bench.api = WorldApi(world)
    await bench.sync(desired(*(want(slug, code(slug)) for slug in "abc")))
    bench.policy = PRUNING
    report = await bench.sync(desired(want("a", code("a")), want("b", code("b"))))
    assert (report.count("delete"), report.exit_code) == (0, 1)
    assert len(world.functions) == 3


def test_unused_functions_are_listed() -> None:
    """A function that was not looked up is not listed."""
    functions = [owned(remote(slug)) for slug in "abc"]
    users = {"id-a": (FunctionUser(UserKind.WORKFLOW, "Orders"),), "id-b": ()}
    assert unused_functions(functions, users) == ("b",)


def test_protection_survives_a_removed_entry_mark_or_state() -> None:
    """Either of mark and state is enough; only the manifest's ``protected: false`` ends it."""
    marked = remote("b", CODE_B, protected=True)
    forgotten = resolve_intents([remote("a"), marked], memory(), OWNER)
    remembered = resolve_intents(
        [remote("a"), remote("b", CODE_B)], memory(replace(owned(remote("b", CODE_B)), protected=True)), OWNER
    )
    for observed in (forgotten, remembered):
        plan = make_plan(desired(want("a")), observed, replace(PRUNING, delete=frozenset({"b"})))
        assert "protected" in plan.steps[1].reasons[0]
    lifted = make_plan(desired(want("a"), want("b", CODE_B, protected=False)), forgotten, PRUNING)
    assert lifted.steps[1].action == "update"


def test_every_history_deletes_within_the_limit_and_after_the_grace() -> None:
    """A long run in which git changes every minute: no function is deleted that was in git within the grace."""

    async def scenario(folder: Path) -> None:
        clock = VirtualClock()
        bench = patient(Bench(folder, clock, WorldApi(new_world(clock))))
        slugs = [f"f{number}" for number in range(8)]
        listed: dict[str, float] = {}
        for turn in range(60):
            now = clock.monotonic()
            git = [slug for place, slug in enumerate(slugs) if (turn // (place + 3)) % 2 == 0] or slugs[:1]
            listed |= dict.fromkeys(git, now)
            before = {f.slug for f in bench.api.world.functions.values()}
            await bench.sync(desired(*(want(slug, code(slug), moved_from=()) for slug in git)))
            gone = before - {f.slug for f in bench.api.world.functions.values()}
            assert len(gone) <= 5
            assert all(now - listed[slug] >= GRACE for slug in gone)
            await clock.sleep(120)

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(scenario(Path(folder) / "state"))


# Who may have become what is broken now


def slugs_of(bench: Bench) -> list[str]:
    return sorted(function.slug for function in bench.api.world.functions.values())


@pytest.mark.parametrize("lost", [False, True])
async def test_a_suspected_rename_stays_suspected_when_the_new_code_breaks(bench: Bench, *, lost: bool) -> None:
    """Renamed without ``moved_from``, and then broken by a syntax error: the deletion stays held, with or without state."""
    bench.policy = PRUNING
    await bench.sync(desired(want("a"), want("z", CODE_B)))
    await bench.clock.sleep(60)
    await bench.sync(desired(want("b"), want("z", CODE_B)))
    assert slugs_of(bench) == ["a", "b", "z"]
    if lost:
        bench = Bench(bench.folder.with_name("another"), bench.clock, bench.api, policy=PRUNING)
    report = await bench.sync(desired(unusable("b"), want("z", CODE_B)))
    assert slugs_of(bench) == ["a", "b", "z"]
    assert [notice.code for notice in report.plan.notices] == ["possible-rename"]


async def test_the_former_slug_of_a_broken_function_is_not_deleted(bench: Bench) -> None:
    """Git renames `a` to `b`, which has a syntax error, and whose slug is taken: `a` waits for the fix, and keeps its id."""
    bench.policy = PRUNING
    await bench.sync(desired(want("a"), want("b", CODE_B), want("z", CODE_B)))
    mine = bench.api.world.function("a").id
    report = await bench.sync(desired(unusable("b", moved_from=("a",)), want("z", CODE_B)))
    assert slugs_of(bench) == ["a", "b", "z"]
    assert "it is to become `b`, which cannot be done now" in report.plan.notices[0].message
    await bench.sync(desired(want("b", moved_from="a"), want("z", CODE_B)))
    assert bench.api.world.function("b").id == mine


async def test_delete_or_retry_of_a_slug_outside_only_is_refused(bench: Bench) -> None:
    """Otherwise a user would believe that the function was deleted or retried."""
    await bench.sync(desired(want("a"), want("b", CODE_B)))
    bench.policy = replace(POLICY, delete=frozenset({"b"}))
    with pytest.raises(UsageError, match="`b` is named, and --only leaves it out"):
        await bench.sync(desired(want("a")), PassRequest(only=("a",)))
    assert slugs_of(bench) == ["a", "b"]
    await bench.sync(desired(want("a")), PassRequest(only=("a", "b")))
    assert slugs_of(bench) == ["a"]


@pytest.mark.parametrize("whose", ["somebody's", "nobody's", "nobody's, and the same"])
async def test_a_rename_onto_an_unowned_function_deletes_and_adopts_nothing(bench: Bench, whose: str) -> None:
    """Git renames `a` to `b`, and there is a `b` already: both stay as they are until a person decides."""
    bench.policy = PRUNING
    await bench.sync(desired(want("a"), want("z", CODE_B)))
    if whose == "somebody's":
        others = Bench(bench.folder.with_name("other"), bench.clock, bench.api, policy=replace(POLICY, owner="some/body"))
        await others.sync(desired(want("b", CODE_B)))
    else:
        bench.api.world.create({"slug": "b", "name": "b", "code": CODE_B if whose == "nobody's" else CODE_A})
    ids = {function.slug: function.id for function in bench.api.world.functions.values()}
    for _ in range(2):
        report = await bench.sync(desired(want("b", moved_from="a"), want("z", CODE_B)))
        assert [type(step) for step in report.plan.steps] == [NoChange, Blocked, NoChange]
        assert {function.slug: function.id for function in bench.api.world.functions.values()} == ids
    bench.api.world.delete(bench.api.world.function("b"))
    await bench.sync(desired(want("b", moved_from="a"), want("z", CODE_B)))
    assert bench.api.world.function("b").id == ids["a"]
