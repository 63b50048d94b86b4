"""Renames: slugs change, ids stay. Chains and swaps, interrupted at any call, with and without the state folder."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kapso_sync.emulator.options import Behaviour
from kapso_sync.emulator.world import EmulatedProject
from kapso_sync.errors import KapsoSyncError
from kapso_sync.model.desired import Desired
from kapso_sync.model.events import SlugVacated
from kapso_sync.model.policies import DriftPolicy
from kapso_sync.reconcile.cycle import PassRequest
from kapso_sync.reconcile.plan.intents import resolve_intents
from kapso_sync.reconcile.plan.planner import make_plan
from tests.builders import OWNER, POLICY, desired, memory, remote, unusable, want
from tests.clock import VirtualClock
from tests.reconcile.passes import Bench
from tests.world import Fate, Killed, WorldApi, new_world

SLUGS = ("a", "b", "c", "d", "e")
FOLDERS = ("laptop", "ci")
MEMORIES = st.sampled_from(FOLDERS)
CUTS = (Fate.KILLED_BEFORE, Fate.KILLED_AFTER, Fate.LOST_BEFORE, Fate.LOST_AFTER, Fate.UNAVAILABLE)


def code(who: str, version: int = 0) -> str:
    """Valid code of one function: a changed version is similar to itself, and to no other function."""
    body = "".join(f"  const {who}{number} = '{who}{number}';\n" for number in range(12))
    return f"async function handler() {{\n{body}  return new Response('{who} {version}');\n}}\n"


@dataclass
class Team:
    """Functions under constant names, and what the manifest says of them."""

    folder: Path
    clock: VirtualClock = field(default_factory=VirtualClock)
    slugs: dict[str, str] = field(default_factory=lambda: {"ada": "a", "bob": "b", "eve": "c"})
    versions: dict[str, int] = field(default_factory=lambda: {"ada": 0, "bob": 0, "eve": 0})
    hints: dict[str, tuple[str, ...]] = field(default_factory=dict)
    world: EmulatedProject = field(init=False)
    log: list[tuple[str, str, str]] = field(default_factory=list)
    read: dict[Path, set[tuple[str, tuple[str, ...]]]] = field(default_factory=dict)
    """What each memory may know of former slugs: by the last whole pass, and by those since that were cut short."""

    def __post_init__(self) -> None:
        self.world = new_world(self.clock)

    def git(self) -> Desired:
        return desired(
            *(
                want(self.slugs[who], code(who, self.versions[who]), moved_from=self.hints.get(who), name=who)
                for who in sorted(self.slugs, key=self.slugs.__getitem__)
            )
        )

    async def sync(self, fate: Callable[[int, str, str], Fate] = lambda *_: Fate.FINE, git: Desired | None = None) -> Bench:
        bench = Bench(self.folder, self.clock, WorldApi(self.world, fate), policy=replace(POLICY, prune=True))
        words = {(self.slugs[who], hint) for who, hint in self.hints.items()}
        before = self.read.get(self.folder, set())
        self.read[self.folder] = before | words
        try:
            report = await bench.sync(git or self.git())
            if report.exit_code == 0:
                self.read[self.folder] = words
        except* (Killed, KapsoSyncError):
            pass
        self.log += bench.api.log
        await self.clock.sleep(60)
        return bench

    def ids(self) -> dict[str, str]:
        """The id of each one's function, by what it runs."""
        found = {}
        for function in self.world.functions.values():
            who = next(name for name in self.slugs if f"'{name}0'" in function.code)
            assert who not in found, "one function twice"
            found[who] = function.id
        return found


@dataclass(frozen=True)
class Commit:
    """The slug of each function, who is edited, how passes fail before one succeeds, and with whose memory each is made."""

    places: tuple[str, ...]
    edited: frozenset[str]
    keeps_hints: bool
    cuts: tuple[tuple[int, Fate, bool, str], ...]
    memory: str


commits = st.builds(
    Commit,
    places=st.permutations(SLUGS).map(lambda slugs: tuple(slugs[:3])),
    edited=st.frozensets(st.sampled_from(("ada", "bob", "eve"))),
    keeps_hints=st.booleans(),
    cuts=st.lists(st.tuples(st.integers(1, 12), st.sampled_from(CUTS), st.booleans(), MEMORIES), max_size=3).map(tuple),
    memory=MEMORIES,
)


def _cut(position: int, fate: Fate) -> Callable[[int, str, str], Fate]:
    return lambda number, _method, _route: fate if number == position else Fate.FINE


@pytest.mark.history
@given(st.lists(commits, min_size=1, max_size=4))
@settings(max_examples=150)
def test_every_function_keeps_its_id_through_any_renames(history: Sequence[Commit]) -> None:
    """Chains, circles, edits, kills at any call, a state folder that is lost at any time, or that another one left behind."""

    async def scenario(folder: Path) -> None:
        team = Team(folder / "ci")
        await team.sync()
        ids = team.ids()
        team.log.clear()
        for commit in history:
            before = dict(team.slugs)
            hints = {who: (before[who],) for who, slug in zip(before, commit.places, strict=True) if before[who] != slug}
            said = {(slug, hints[who]) for who, slug in zip(before, commit.places, strict=True) if who in hints}
            if any(said & known for known in team.read.values()):
                # The manifest would say the same again: a team has to take the old words out first, and all must see that.
                team.hints = {}
                for memory in FOLDERS:
                    team.folder = folder / memory
                    await team.sync()
            used = {source for hint in hints.values() for source in hint}
            stale = {who: hint for who, hint in team.hints.items() if commit.keeps_hints and before[who] in commit.places}
            stale = {w: h for w, h in stale.items() if w not in hints and not used & set(h)}
            team.slugs = dict(zip(before, commit.places, strict=True))
            team.hints = stale | hints
            for who in commit.edited:
                team.versions[who] += 1
            for position, fate, forgets, memory in commit.cuts:
                team.folder = folder / memory
                await team.sync(_cut(position, fate))
                if forgets:
                    shutil.rmtree(team.folder, ignore_errors=True)
            team.folder = folder / commit.memory
            await team.sync()
            assert team.ids() == ids
            assert {f.slug: f.id for f in team.world.functions.values()} == {team.slugs[who]: ids[who] for who in ids}
            assert team.world.live_code() == {team.slugs[who]: code(who, team.versions[who]) for who in ids}
        bench = await team.sync()
        assert not bench.api.writes
        assert not [call for call in team.log if call[0] == "DELETE" or call[:2] == ("POST", "/functions")]

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(scenario(Path(folder)))


def _slugs(bench: Bench) -> dict[str, str]:
    return {function.slug: function.id for function in bench.api.world.functions.values()}


async def _begin(bench: Bench, *slugs: str) -> dict[str, str]:
    await bench.sync(desired(*(want(slug, code(slug)) for slug in slugs)))
    await bench.clock.sleep(60)
    bench.api.log.clear()
    return _slugs(bench)


async def test_moved_from_lists_every_former_slug_of_a_chain(bench: Bench) -> None:
    """Renamed twice between two passes: the list has both, the latest first, and the one that exists is used."""
    ids = await _begin(bench, "a")
    report = await bench.sync(desired(want("c", code("a"), moved_from=("b", "a"))))
    assert (report.exit_code, report.count("rename"), _slugs(bench)) == (0, 1, {"c": ids["a"]})


async def test_two_slugs_are_swapped_in_place(bench: Bench) -> None:
    """Both ids and both codes stay; two functions move to parking slugs and then to their own."""
    ids = await _begin(bench, "a", "b")
    swapped = desired(want("a", code("b"), moved_from="b"), want("b", code("a"), moved_from="a"))
    assert {step.slug: step.reasons[0] for step in (await bench.plan(swapped)).steps} == {
        "a": "moved_from: b",
        "b": "moved_from: a",
    }
    report = await bench.sync(swapped)
    assert (report.exit_code, report.count("rename")) == (0, 2)
    assert _slugs(bench) == {"a": ids["b"], "b": ids["a"]}
    assert bench.api.world.live_code() == {"a": code("b"), "b": code("a")}
    # Each ends with the one deployment that gives its script the new name.
    assert sorted(method for method, _, _ in bench.api.writes) == ["PATCH"] * 4 + ["POST"] * 2
    gone = [event for event in bench.events if isinstance(event, SlugVacated)]
    assert {(event.slug, event.target) for event in gone} == {("a", "b"), ("b", "a")}
    assert (await bench.plan(swapped)).in_sync


async def test_a_moved_from_that_stays_in_the_manifest_does_not_swap_again(bench: Bench) -> None:
    """The codes change, the state folder is lost: a function that has its slug keeps it."""
    await _begin(bench, "a", "b")
    await bench.sync(desired(want("a", code("b"), moved_from="b"), want("b", code("a"), moved_from="a")))
    ids = _slugs(bench)
    edited = desired(want("a", code("b", 1), moved_from="b"), want("b", code("a", 1), moved_from="a"))
    assert (await bench.sync(edited)).count("rename") == 0
    shutil.rmtree(bench.folder)
    again = desired(want("a", code("b", 2), moved_from="b"), want("b", code("a", 2), moved_from="a"))
    assert (await bench.sync(again)).exit_code == 0
    assert _slugs(bench) == ids


@pytest.mark.parametrize(
    ("renamed", "later"),
    [
        ({"c": ("a", "a"), "b": ("b", None)}, {"d": ("a", "c"), "b": ("b", None)}),
        ({"c": ("a", "a"), "b": ("b", None)}, {"c": ("a", "a"), "b": ("b", None), "a": ("x", None)}),
        ({"c": ("a", "a"), "b": ("b", None)}, {"c": ("b", "b"), "b": ("a", "c")}),
        ({"a": ("b", "b"), "b": ("a", "a")}, {"a": ("b", "b"), "b": ("a", "a")}),
        ({"a": ("b", "b"), "b": ("a", "a")}, {"c": ("a", "b"), "a": ("b", None)}),
        ({"b": ("a", "a"), "c": ("b", "b")}, {"b": ("a", "a"), "d": ("b", "c")}),
        ({"c": ("b", "b"), "a": ("a", None)}, {"a": ("a", None), "aa": ("b", "c"), "b": ("x", "c")}),
    ],
    ids=[
        "renamed again",
        "former slug used anew",
        "swapped then",
        "swap seen late",
        "swapped and renamed",
        "chain",
        "two heirs",
    ],
)
async def test_a_rename_by_another_process_counts_for_one_with_an_older_memory(
    bench: Bench, renamed: dict[str, tuple[str, str | None]], later: dict[str, tuple[str, str | None]]
) -> None:
    """A laptop syncs, then CI renames, then the laptop syncs again: no function is deleted, and none gets another's slug."""

    def git(names: dict[str, tuple[str, str | None]]) -> Desired:
        return desired(*(want(slug, code(who), moved_from=former) for slug, (who, former) in names.items()))

    bench.policy = replace(POLICY, prune=True)
    ids, laptop = await _begin(bench, "a", "b"), bench.folder
    bench.folder = laptop.with_name("ci")
    await bench.sync(git(renamed))
    await bench.clock.sleep(60)
    bench.folder = laptop
    report = await bench.sync(git(later))
    assert (report.exit_code, report.count("delete")) == (0, 0)
    expected = {slug: ids[who] for slug, (who, _) in later.items() if who in ids}
    assert {slug: found for slug, found in _slugs(bench).items() if found in ids.values()} == expected
    assert bench.api.world.live_code() == {slug: code(who) for slug, (who, _) in later.items()}


@pytest.mark.parametrize("changed", [False, True])
async def test_an_older_checkout_renames_back_what_another_process_renamed(bench: Bench, changed: bool) -> None:
    """CI renamed `a` to `c`; the laptop's checkout still says `a`: the same function goes there and back, and none is new."""
    bench.policy = replace(POLICY, prune=True)
    ids, laptop = await _begin(bench, "a", "b"), bench.folder
    newer = desired(want("c", code("x" if changed else "a"), moved_from="a"), want("b", code("b")))
    older = desired(want("a", code("a")), want("b", code("b")))
    for _ in range(2):
        for folder, git, slug in ((laptop.with_name("ci"), newer, "c"), (laptop, older, "a")):
            bench.folder = folder
            await bench.sync(git)
            await bench.clock.sleep(60)
            assert _slugs(bench) == {slug: ids["a"], "b": ids["b"]}


async def test_a_record_that_was_put_back_by_hand_is_no_rename_by_another_process(bench: Bench) -> None:
    """Its old mark is in the description: that is drift, which is corrected, also where `moved_from` is still in git."""
    ids = await _begin(bench, "a", "b")
    git = desired(want("c", code("a"), moved_from="a"), want("b", code("b")))
    before = str(bench.api.world.function("a").description)
    await bench.sync(git)
    await bench.clock.sleep(60)
    world = bench.api.world
    world.update(world.function("c"), {"slug": "a", "description": before})
    await bench.clock.sleep(60)
    bench.policy = replace(POLICY, prune=True, drift=DriftPolicy.REPORT)
    assert (await bench.sync(git)).count("rename") == 0
    bench.policy = replace(POLICY, prune=True)
    assert (await bench.sync(git)).exit_code == 0
    assert _slugs(bench) == {"c": ids["a"], "b": ids["b"]}


async def test_a_former_slug_can_be_used_by_a_new_function(bench: Bench) -> None:
    """Renamed, and its old slug used again, in one commit: the id moves, the other function is created."""
    ids = await _begin(bench, "a")
    report = await bench.sync(desired(want("b", code("a"), moved_from="a"), want("a", code("x"))))
    assert (report.exit_code, report.count("rename"), report.count("create")) == (0, 1, 1)
    assert _slugs(bench)["b"] == ids["a"]
    assert bench.api.world.live_code() == {"a": code("x"), "b": code("a")}


async def test_moved_from_a_slug_that_is_still_in_git_is_ignored(bench: Bench) -> None:
    """The old slug keeps its function, and a warning says so."""
    ids = await _begin(bench, "a")
    report = await bench.sync(desired(want("a", code("a")), want("b", code("a", 1), moved_from="a")))
    assert (report.exit_code, report.count("create"), _slugs(bench)["a"]) == (0, 1, ids["a"])
    assert [notice.code for notice in report.plan.notices] == ["moved-from"]


async def test_a_moved_from_that_is_added_late_still_moves_the_id(bench: Bench) -> None:
    """The function was created under a new id by mistake: that one is a leftover, and the old one gets the slug."""
    ids = await _begin(bench, "a")
    await bench.sync(desired(want("b", code("a"))))
    created = _slugs(bench)["b"]
    report = await bench.sync(desired(want("b", code("a"), moved_from="a")))
    assert report.exit_code == 0
    assert _slugs(bench)["b"] == ids["a"]
    (left,) = [slug for slug, function_id in _slugs(bench).items() if function_id == created]
    assert left.startswith("b-before-")
    plan = await bench.plan(desired(want("b", code("a"), moved_from="a")))
    assert plan.in_sync
    assert [notice.code for notice in plan.notices] == ["orphan"]
    bench.policy = replace(POLICY, prune=True)
    assert (await bench.sync(desired(want("b", code("a"), moved_from="a")))).count("delete") == 1
    assert _slugs(bench) == {"b": ids["a"]}


async def test_a_swap_waits_while_one_file_is_broken(bench: Bench) -> None:
    """The manifest entry of a broken file is unknown, so neither function changes."""
    ids = await _begin(bench, "a", "b")
    report = await bench.sync(desired(want("a", code("b"), moved_from="b"), unusable("b")))
    assert report.outcomes[0].error == "`moved_from: b` waits: `b` is in git as well, and cannot be used"
    assert (_slugs(bench), bench.api.writes) == (ids, [])
    await bench.sync(desired(want("a", code("b"), moved_from="b"), want("b", code("a"), moved_from="a")))
    assert _slugs(bench) == {"a": ids["b"], "b": ids["a"]}


async def test_a_swap_is_blocked_where_kapso_ignores_slug_changes(bench: Bench) -> None:
    """Neither is renamed, created or deleted; both keep their marks, and the next plan says why."""
    ids = await _begin(bench, "a", "b")
    marks = {f.id: f.description for f in bench.api.world.functions.values()}
    bench.api.world.behaviour = Behaviour(slug_changes=False)
    swapped = desired(want("a", code("b"), moved_from="b"), want("b", code("a"), moved_from="a"))
    report = await bench.sync(swapped)
    assert report.exit_code == 1
    assert all("does not change the slug" in str(outcome.error) for outcome in report.outcomes)
    assert _slugs(bench) == ids
    assert {f.id: f.description for f in bench.api.world.functions.values()} == marks
    assert {step.action for step in (await bench.plan(swapped)).steps} == {"blocked"}


async def test_only_one_half_of_a_swap_is_blocked(bench: Bench) -> None:
    """``--only`` one of the two is blocked, and names the other."""
    ids = await _begin(bench, "a", "b")
    swapped = desired(want("a", code("b"), moved_from="b"), want("b", code("a"), moved_from="a"))
    report = await bench.sync(swapped, PassRequest(only=("a",)))
    assert "becomes `b`" in str(report.outcomes[0].error)
    assert (_slugs(bench), bench.api.writes) == (ids, [])
    assert (await bench.sync(swapped, PassRequest(only=("a", "b")))).exit_code == 0
    assert _slugs(bench) == {"a": ids["b"], "b": ids["a"]}


async def test_a_reverted_swap_returns_functions_from_parking_slugs(bench: Bench) -> None:
    """Interrupted between two slugs, and the commit reverted: the function gets its former slug."""
    ids = await _begin(bench, "a", "b")
    swapped = desired(want("a", code("b"), moved_from="b"), want("b", code("a"), moved_from="a"))
    bench.api.fate = lambda _number, method, _route: Fate.KILLED_AFTER if method == "PATCH" else Fate.FINE
    with pytest.raises(Killed):
        await bench.sync(swapped)
    assert set(_slugs(bench)) != {"a", "b"}
    bench.api.fate = lambda *_: Fate.FINE
    assert (await bench.sync(desired(want("a", code("a")), want("b", code("b"))))).exit_code == 0
    assert _slugs(bench) == ids


async def test_an_interrupted_swap_continues_after_a_lost_state_folder(bench: Bench) -> None:
    """The state is lost, the next pass dies before its first write: the one after it swaps, and overwrites nothing."""
    ids = await _begin(bench, "a", "b")
    shutil.rmtree(bench.folder)
    swapped = desired(want("a", code("b"), moved_from="b"), want("b", code("a"), moved_from="a"))
    bench.api.fate = lambda _number, method, _route: Fate.KILLED_BEFORE if method == "PATCH" else Fate.FINE
    with pytest.raises(Killed):
        await bench.sync(swapped)
    bench.api.fate = lambda *_: Fate.FINE
    assert (await bench.sync(swapped)).exit_code == 0
    assert _slugs(bench) == {"a": ids["b"], "b": ids["a"]}
    assert bench.api.world.live_code() == {"a": code("b"), "b": code("a")}


async def test_a_copy_of_a_function_on_a_parking_slug_is_not_owned(bench: Bench) -> None:
    """The parking slug is bound to the id: a copy with the same description is not taken for the function."""
    await _begin(bench, "a", "b")
    swapped = desired(want("a", code("b"), moved_from="b"), want("b", code("a"), moved_from="a"))
    bench.api.fate = lambda _number, method, _route: Fate.KILLED_AFTER if method == "PATCH" else Fate.FINE
    with pytest.raises(Killed):
        await bench.sync(swapped)
    (away,) = [f for f in bench.api.world.functions.values() if f.slug not in ("a", "b")]
    bench.api.world.create({"slug": f"{away.slug}-copy", "name": "x", "code": code("a"), "description": away.description})
    bench.api.fate = lambda *_: Fate.FINE
    assert (await bench.sync(swapped)).exit_code == 0
    assert sorted(_slugs(bench)) == ["a", "b", sorted(_slugs(bench))[2]]


def test_a_moved_file_with_the_same_slug_changes_nothing() -> None:
    """The path of the code is not a part of the plan."""
    function = want("a", code("a"))
    moved = replace(function, entry=replace(function.entry, file="deep/in/here.js"))
    plans = []
    for one in (function, moved):
        observed = resolve_intents([remote("a", code("a"))], memory(), OWNER)
        plans.append(make_plan(desired(one), observed, POLICY))
    assert [plan.in_sync for plan in plans] == [True, True]
