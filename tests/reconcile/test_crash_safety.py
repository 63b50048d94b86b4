"""Crash safety: invariants over histories that hypothesis chooses, interrupted at any call."""

from __future__ import annotations

import asyncio
import itertools
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kapso_sync.emulator.options import Behaviour
from kapso_sync.emulator.world import EmulatedProject
from kapso_sync.errors import KapsoSyncError
from kapso_sync.model.desired import Desired
from kapso_sync.model.functions import code_hash
from kapso_sync.model.plan import Policy
from kapso_sync.model.policies import MaxDelete
from kapso_sync.reconcile.plan.guard import Limits, guard
from kapso_sync.reconcile.plan.intents import resolve_intents
from kapso_sync.reconcile.plan.planner import make_plan
from tests.builders import OWNER, desired, memory, remote, want
from tests.clock import VirtualClock
from tests.reconcile.passes import Bench
from tests.world import Fate, Killed, WorldApi, new_world

SLUGS = ("a", "b", "c", "d")
STRANGER = "stranger"
PRUNING = Policy(OWNER, prune=True)
GENEROUS = Limits(MaxDelete(100), allow_recreate=True)


def code(version: int) -> str:
    """Sound code that differs from version to version."""
    return f"async function handler() {{ return new Response('{version}'); }}\n"


@dataclass(frozen=True)
class Turn:
    """One turn of a history: what git says, what the dashboard does first, how many calls go well, and what then happens."""

    git: Mapping[str, int]
    dashboard: tuple[tuple[str, str, int], ...] = ()
    calls_before_fate: int | None = None
    fate: Fate = Fate.FINE
    forgets: bool = False


turns = st.builds(
    Turn,
    git=st.dictionaries(st.sampled_from(SLUGS), st.integers(0, 2), min_size=1),
    dashboard=st.lists(
        st.tuples(st.sampled_from(("edit", "delete", "deploy", "unmark")), st.sampled_from(SLUGS), st.integers(3, 5)),
        max_size=2,
    ).map(tuple),
    calls_before_fate=st.none() | st.integers(0, 14),
    fate=st.sampled_from([fate for fate in Fate if fate is not Fate.FINE]),
    forgets=st.booleans(),
)


@dataclass
class History:
    """A world with a stranger's function in it, and the passes over it."""

    folder: Path
    clock: VirtualClock = field(default_factory=VirtualClock)
    world: EmulatedProject = field(init=False)

    def __post_init__(self) -> None:
        self.world = new_world(self.clock)
        stranger = self.world.create({"slug": STRANGER, "name": "Not ours", "code": code(99), "description": "Hands off."})
        self.world.deploy(stranger)

    def bench(self, fate: Callable[[int, str, str], Fate]) -> Bench:
        return Bench(self.folder, self.clock, WorldApi(self.world, fate), policy=PRUNING, limits=GENEROUS)

    async def play(self, turn: Turn) -> None:
        for action, slug, version in turn.dashboard:
            self._dashboard(action, slug, version)
        if turn.forgets:
            shutil.rmtree(self.folder, ignore_errors=True)
        try:
            await self.bench(_fate_at(turn)).sync(_git(turn.git))
        except* (Killed, KapsoSyncError):
            pass
        await self.clock.sleep(7)

    def _dashboard(self, action: str, slug: str, version: int) -> None:
        function = next((f for f in self.world.functions.values() if f.slug == slug), None)
        if function is None:
            return
        if action == "edit":
            self.world.update(function, {"code": code(version)})
        elif action == "delete":
            self.world.delete(function)
        elif action == "deploy":
            self.world.deploy(function)
        else:
            self.world.update(function, {"description": ""})

    async def quiet(self, git: Mapping[str, int]) -> None:
        """Two passes without faults, and time between them for what still runs to end."""
        for _ in range(2):
            await self.bench(lambda *_: Fate.FINE).sync(_git(git))
            await self.clock.sleep(60)


def _git(versions: Mapping[str, int]) -> Desired:
    # Each says that it is new: codes repeat here, and what looks renamed is not deleted.
    return desired(*(want(slug, code(version), moved_from=(), name=f"Name of {slug}") for slug, version in versions.items()))


def _fate_at(turn: Turn) -> Callable[[int, str, str], Fate]:
    def decide(number: int, _method: str, _route: str) -> Fate:
        hit = turn.calls_before_fate is not None and number == turn.calls_before_fate + 1
        return turn.fate if hit else Fate.FINE

    return decide


def _backed_up(folder: Path) -> set[str]:
    return {code_hash(json.loads(path.read_text())["code"]) for path in folder.glob("backups/*/*.json")}


@pytest.mark.history
@given(
    history=st.lists(turns, min_size=1, max_size=4), last=st.dictionaries(st.sampled_from(SLUGS), st.integers(0, 2), min_size=1)
)
@example(  # the deployment that is forgotten with the memory ends after the next version was saved
    history=[
        Turn(git={"b": 0}, calls_before_fate=3, fate=Fate.KILLED_BEFORE),
        Turn(git={"b": 1}, calls_before_fate=2, fate=Fate.KILLED_BEFORE, forgets=True),
    ],
    last={"b": 1},
)
@settings(max_examples=120)
def test_every_history_converges(history: Sequence[Turn], last: Mapping[str, int]) -> None:
    """After any faults, cuts and edits, quiet passes make remote and running code what git says; strangers are untouched.

    A function whose mark was cut off while our memory was lost too is unowned: it blocks with a reason and stays as it is.
    """

    async def scenario(folder: Path) -> None:
        told = History(folder)
        for turn in history:
            await told.play(turn)
        await told.quiet(last)
        plan = await told.bench(lambda *_: Fate.FINE).plan(_git(last))
        blocked = {step.slug for step in plan.steps if step.action == "blocked"}
        assert all("unowned" in step.reasons[0] for step in plan.steps if step.action == "blocked")
        assert not plan.changes
        live = told.world.live_code()
        assert {slug: live[slug] for slug in last if slug not in blocked} == {
            slug: code(version) for slug, version in last.items() if slug not in blocked
        }
        ours = {f.slug for f in told.world.functions.values() if "[kapso-sync:" in (f.description or "")}
        assert ours == set(last) - blocked
        stranger = told.world.function(STRANGER)
        assert (stranger.code, stranger.description, stranger.name) == (code(99), "Hands off.", "Not ours")

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(scenario(Path(folder) / "state"))


async def test_an_unconfirmed_deployment_is_remembered_until_a_later_one_is_confirmed(tmp_path: Path) -> None:
    """Killed twice, while one deployment ran and before the next was requested: the end of the first proves nothing."""
    told = History(tmp_path / "state")
    await told.play(Turn({"a": 0, "b": 0}, (), 1, Fate.KILLED_BEFORE))
    await told.play(Turn({"a": 0, "b": 1}, (), 3, Fate.KILLED_AFTER))
    await told.quiet({"b": 1})
    assert told.world.live_code()["b"] == code(1)


async def test_the_end_of_a_deployment_before_the_state_was_lost_proves_no_later_write(tmp_path: Path) -> None:
    """Killed while one deployment ran, state lost, killed after the next write: the end of the first proves nothing."""
    told = History(tmp_path / "state")
    await told.play(Turn({"a": 1}, (), None, Fate.FINE))
    await told.play(Turn({"a": 0, "b": 1, "c": 0}, (), 2, Fate.KILLED_BEFORE))
    await told.play(Turn({"a": 0, "b": 0}, (), 5, Fate.KILLED_AFTER, forgets=True))
    await told.quiet({"a": 0, "b": 0})
    assert told.world.live_code()["b"] == code(0)


@pytest.mark.history
@given(
    position=st.integers(1, 12),
    fate=st.sampled_from((Fate.KILLED_BEFORE, Fate.KILLED_AFTER, Fate.LOST_BEFORE, Fate.LOST_AFTER, Fate.UNAVAILABLE)),
    forgets=st.booleans(),
)
def test_one_sync_after_a_kill_or_lost_answer_at_any_call_finishes_the_work(position: int, fate: Fate, forgets: bool) -> None:
    """The next sync of a mixed plan leaves nothing to do, under the same ids."""

    async def scenario(folder: Path) -> None:
        told = History(folder)
        before = {"a": 0, "b": 0, "c": 0}
        after = {"a": 1, "b": 0, "d": 0}
        await told.bench(lambda *_: Fate.FINE).sync(_git(before))
        await told.clock.sleep(60)
        ids = {f.slug: f.id for f in told.world.functions.values()}
        told.world.update(told.world.function("b"), {"code": code(7)})
        await told.play(Turn(after, (), position - 1, fate, forgets=False))
        if forgets:
            shutil.rmtree(folder)
        report = await told.bench(lambda *_: Fate.FINE).sync(_git(after))
        assert report.exit_code == 0
        assert {s: c for s, c in told.world.live_code().items() if s != STRANGER} == {s: code(v) for s, v in after.items()}
        assert told.world.function("a").id == ids["a"]
        assert told.world.function("b").id == ids["b"]
        assert (await told.bench(lambda *_: Fate.FINE).plan(_git(after))).in_sync

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(scenario(Path(folder) / "state"))


@pytest.mark.history
@given(turn=turns)
@settings(max_examples=60)
def test_code_that_is_not_in_git_is_backed_up_before_it_is_lost(turn: Turn) -> None:
    """Code that only Kapso had is in backups/ once it was overwritten or deleted, however the pass ended."""

    async def scenario(folder: Path) -> None:
        told = History(folder)
        await told.bench(lambda *_: Fate.FINE).sync(_git({"a": 0, "b": 0}))
        await told.clock.sleep(60)
        told.world.update(told.world.function("a"), {"code": code(8)})
        told.world.update(told.world.function("b"), {"code": code(9)})
        await told.play(Turn(turn.git, (), turn.calls_before_fate, turn.fate))
        there = {code_hash(f.code) for f in told.world.functions.values()}
        assert {code_hash(code(8)), code_hash(code(9))} <= there | _backed_up(folder)

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(scenario(Path(folder) / "state"))


@given(st.permutations(range(6)), st.permutations(range(4)))
def test_a_plan_is_the_same_for_any_order_of_input(order_git: list[int], order_kapso: list[int]) -> None:
    """Neither the order of the manifest nor that of Kapso's list changes a plan or its digest."""
    functions = [want(f"f{number}", code(number)) for number in range(6)]
    records = [remote(f"f{number}", code(number % 2)) for number in range(2, 6)]
    plans = []
    for git, kapso in ((range(6), range(4)), (order_git, order_kapso)):
        observed = resolve_intents([records[number] for number in kapso], memory(), OWNER)
        plans.append(make_plan(desired(*(functions[number] for number in git)), observed, PRUNING))
    assert plans[0] == plans[1]
    assert plans[0].digest == plans[1].digest


@given(
    owned_slugs=st.sets(st.sampled_from([f"f{number}" for number in range(12)]), min_size=1),
    git_slugs=st.sets(st.sampled_from([f"f{number}" for number in range(12)]), min_size=1),
    percent=st.integers(1, 100),
)
def test_no_pass_deletes_more_than_the_limit(owned_slugs: set[str], git_slugs: set[str], percent: int) -> None:
    """All deletions or none: a pass over the limit deletes nothing."""
    observed = resolve_intents([remote(slug, code(0)) for slug in sorted(owned_slugs)], memory(), OWNER)
    plan = make_plan(desired(*(want(slug, code(0), moved_from=()) for slug in sorted(git_slugs))), observed, PRUNING)
    guarded = guard(plan, Limits(MaxDelete(percent, percent=True)))
    deletions = guarded.plan.summary["delete"]
    left_git = len(owned_slugs - git_slugs)
    allowed = max(1, len(owned_slugs) * percent // 100)
    assert deletions == (left_git if left_git <= allowed else 0)


@given(
    st.lists(st.tuples(st.sampled_from(SLUGS), st.booleans(), st.sampled_from([None, OWNER, "example.com/other"])), max_size=4)
)
def test_functions_that_are_neither_owned_nor_in_git_are_not_planned(records: list[tuple[str, bool, str | None]]) -> None:
    """A plan covers what git names and what we own, and nothing else."""
    by_slug = {slug: remote(slug, code(0), owner=owner) for slug, _, owner in records}
    owners = {slug: owner for slug, _, owner in records}
    listed = {slug for slug, in_git, _ in records if in_git}
    observed = resolve_intents(list(by_slug.values()), memory(), OWNER)
    plan = make_plan(desired(*(want(slug, code(0)) for slug in sorted(listed))), observed, PRUNING)
    assert {step.slug for step in plan.steps} == listed | {slug for slug, owner in owners.items() if owner == OWNER}


def test_the_mixed_plan_reaches_every_call_that_is_interrupted() -> None:
    """The property above draws positions up to 12: the plan really makes that many calls."""

    async def scenario(folder: Path) -> int:
        told = History(folder)
        await told.bench(lambda *_: Fate.FINE).sync(_git({"a": 0, "b": 0, "c": 0}))
        told.world.update(told.world.function("b"), {"code": code(7)})
        bench = told.bench(lambda *_: Fate.FINE)
        await bench.sync(_git({"a": 1, "b": 0, "d": 0}))
        return bench.api.calls

    with tempfile.TemporaryDirectory() as folder:
        assert asyncio.run(scenario(Path(folder) / "state")) >= 10


def test_histories_converge_where_lists_have_no_code() -> None:
    """The same invariants hold where the list has no code."""

    async def scenario(folder: Path) -> None:
        told = History(folder)
        told.world.behaviour = Behaviour(list_code=False)
        for fate, position in itertools.product((Fate.KILLED_BEFORE, Fate.KILLED_AFTER, Fate.LOST_AFTER), range(10)):
            version = {"a": position % 3, "b": (position + 1) % 3}
            await told.play(Turn(version, (), position, fate))
            await told.quiet(version)
            assert {s: c for s, c in told.world.live_code().items() if s != STRANGER} == {
                s: code(v) for s, v in version.items()
            }

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(scenario(Path(folder) / "state"))
