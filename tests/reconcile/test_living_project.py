"""A stateful model of a project with any API behaviour: random edits, kills and passes, and what must hold."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import tempfile
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from kapso_sync.emulator.options import Behaviour
from kapso_sync.emulator.records import Function
from kapso_sync.errors import KapsoSyncError
from kapso_sync.model.desired import MODULE_TAIL, Check, CodeStyle, Desired, DesiredFunction, PlainSecret, SecretValue
from kapso_sync.model.functions import Invocation
from kapso_sync.model.plan import Policy
from kapso_sync.model.report import Report, Result
from kapso_sync.reconcile.desired import keyed_digest
from tests.builders import LIMITS, desired, want
from tests.clock import VirtualClock
from tests.reconcile.passes import Bench
from tests.world import Fate, Killed, WorldApi, new_world
from tests.worlds import worlds

OURS, THEIRS = "example.com/acme/flows", "example.com/other/flows"
SLUGS = ("a", "b", "c", "d", "e")
slugs = st.sampled_from(SLUGS)
BAD = 3
versions = st.integers(0, BAD)
values = st.none() | st.integers(0, 2)
SECRET = "TOKEN"


def code(version: int, who: str = "git") -> str:
    """Sound code that says whose it is."""
    return f"async function handler() {{ return new Response('{who} {version}'); }}\n"


@dataclass
class Entry:
    """One function in git: its version, the slug it had before, and the value of its secret, if it has one."""

    version: int
    moved_from: str | None = None
    value: int | None = None


def answer(function: Function) -> Invocation:
    """What checks get: one version of git's is bad."""
    return Invocation(500 if plain(function.live_code) == code(BAD).rstrip() else 200, "", "")


def plain(live: str | None) -> str | None:
    """Code as it was written: as a script, without what a server strips."""
    return None if live is None else live.rstrip().removesuffix(MODULE_TAIL.rstrip()).rstrip()


class Project(RuleBasedStateMachine):
    """The model: ``git`` by slug, ``ids`` of functions that we own, and what must never change."""

    @initialize(behaviour=worlds())
    def begin(self, behaviour: Behaviour) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="kapso-sync-living-"))
        self.clock = VirtualClock()
        self.world = new_world(self.clock, behaviour)
        self.raced: dict[str, str] = {}
        self.git: dict[str, Entry] = {"a": Entry(0), "b": Entry(0), "c": Entry(0)}
        self.ids: dict[str, str] = {}
        self.swapped: set[str] = set()
        self.expected: dict[str, str] = {}
        self.stolen: set[str] = set()
        self.key = 0
        self.stranger = self.world.create({"slug": "stranger", "name": "S", "code": code(0, "nobody"), "description": "Mine."})
        self.neighbours = desired(want("n1", code(1, "neighbour")), want("n2", code(2, "neighbour")))
        self._run(self._bench(THEIRS).sync(self.neighbours))
        self.untouched = {f.id: self._looks(f) for f in self.world.functions.values()}

    def teardown(self) -> None:
        """Without further changes every step that may run is done; each step that waits has a reason."""
        if hasattr(self, "root"):
            self._settle()
            shutil.rmtree(self.root)

    # What people do

    @rule(slug=slugs, version=versions)
    def edit(self, slug: str, version: int) -> None:
        """A commit adds or changes a function; not under a slug that was left, which would make a copy of the rename."""
        known = self.git.get(slug)
        if known is None and any(entry.moved_from == slug for entry in self.git.values()):
            return
        self.git[slug] = replace(known, version=version) if known else Entry(version)

    @rule(slug=slugs)
    @precondition(lambda self: len(self.git) > 1)
    def remove(self, slug: str) -> None:
        """A commit removes one; the last one stays, since an empty source is an error."""
        if len(self.git) > 1:
            if not self._has_its_slug(slug):
                self.ids.pop(slug, None)
            self.git.pop(slug, None)

    @rule(old=slugs, new=slugs)
    def rename(self, old: str, new: str) -> None:
        """A commit renames one in place."""
        taken = {function.slug for function in self.world.functions.values()}
        if new not in self.git and new not in taken and self._has_its_slug(old):
            self._say_nothing_of(old)
            self.git[new] = replace(self.git.pop(old), moved_from=old)
            self.ids[new] = self.ids.pop(old)

    @rule(one=slugs, other=slugs)
    def swap(self, one: str, other: str) -> None:
        """A commit swaps two slugs; what was said before about either is taken out."""
        if one == other or not (self._has_its_slug(one) and self._has_its_slug(other)):
            return
        if (self.git[one].moved_from, self.git[other].moved_from) == (other, one):
            return
        if self._bench(OURS).memory().renames is None:
            return  # nothing tells a swap that was made from one that is to be made, but the code
        self._say_nothing_of(one, other)
        first, second = self.git[one], self.git[other]
        self.git |= {one: replace(second, moved_from=other), other: replace(first, moved_from=one)}
        self.expected |= {one: self.ids.pop(other), other: self.ids.pop(one)}
        self.swapped |= {one, other}

    @rule(slug=slugs, value=values)
    def rotate(self, slug: str, value: int | None) -> None:
        """A secret's value changes where it comes from, or git begins or ends to name it."""
        if slug in self.git:
            self.git[slug].value = value

    @rule(slug=slugs)
    def delete_secret_on_kapso(self, slug: str) -> None:
        """Somebody deletes a secret on Kapso."""
        function = self._owned(slug)
        if function is not None and function.running and SECRET in function.secrets:
            self.world.delete_secret(function, SECRET)
            self.stolen.add(function.id)

    @rule(slug=slugs, version=versions, deploy=st.booleans())
    def edit_on_kapso(self, slug: str, version: int, *, deploy: bool) -> None:
        """Somebody edits on Kapso."""
        function = self._owned(slug)
        if function is not None:
            self.world.update(function, {"code": code(version, "by hand")})
            if deploy:
                self.world.deploy(function)
                # It may drop the secret at a moment when nobody looks: that is theirs, until it is missed.
                self.stolen.add(function.id)

    @rule(slug=slugs, position=st.integers(1, 12), version=versions)
    def edit_on_kapso_during_a_pass(self, slug: str, position: int, version: int) -> None:
        """Somebody edits on Kapso while a pass is running: at worst their edit is in a backup, where versions can be locked."""
        function = self._owned(slug)
        if function is None or self.world.behaviour.lock_version in ("absent", "refused"):
            return
        text = code(version, f"raced {len(self.raced)}")
        if self.world.behaviour.normalise_code == "rstrip":
            text = text.rstrip()

        def edit() -> None:
            if function.id in self.world.functions:
                self.raced[function.id] = text
                self.world.update(function, {"code": text})

        self._pass(position, Fate.FINE, edit)
        raced = self.raced.pop(function.id, None)
        if raced is not None and function.id in self.world.functions:
            assert function.code == raced or raced in self._saved()

    @rule(slug=slugs)
    def use(self, slug: str) -> None:
        """A workflow begins to use a function."""
        function = self._owned(slug)
        if function is not None:
            self.world.add_workflow("W", {"nodes": [{"data": {"config": {"function_id": function.id}}}]})

    @rule()
    def stop_using(self) -> None:
        """A workflow is deleted."""
        for workflow in list(self.world.workflows.values())[:1]:
            self.world.drop_workflow(workflow)

    @rule(slug=slugs)
    def delete_on_kapso(self, slug: str) -> None:
        """Somebody deletes a function on Kapso."""
        function = self._owned(slug)
        if function is not None:
            self.world.delete(function)
            self.ids = {known: i for known, i in self.ids.items() if i != function.id}
            self.expected.clear()

    @rule()
    def lose_state_folder(self) -> None:
        """The Pod lost its disk."""
        shutil.rmtree(self.root / "state-0", ignore_errors=True)
        self.key += 1
        # Nobody knows any more whether a swap was made: from now on the code decides.
        self.expected.clear()
        for slug in self.swapped:
            self.ids.pop(slug, None)

    # What we do

    @rule(position=st.none() | st.integers(1, 25), fate=st.sampled_from([f for f in Fate if f is not Fate.FINE]))
    def sync(self, position: int | None, fate: Fate) -> None:
        """A pass, which may die or lose an answer at any call."""
        self._pass(position, fate)

    @rule()
    def neighbour_syncs(self) -> None:
        """Another owner's pass over the same project."""
        self._run(self._bench(THEIRS).sync(self.neighbours))

    @invariant()
    def nobody_else_was_touched(self) -> None:
        """Strangers and neighbours are as they were."""
        if hasattr(self, "untouched"):
            now = {f.id: self._looks(f) for f in self.world.functions.values() if f.id in self.untouched}
            assert now == self.untouched

    def _pass(self, position: int | None = None, fate: Fate = Fate.FINE, act: Callable[[], None] | None = None) -> None:
        used = {i for i in self.world.functions if any(i in str(w.definition) for w in self.world.workflows.values())}
        before = {f.id: f for f in self.world.functions.values()}
        codes = {f.id: f.code for f in before.values()}
        bench = self._bench(OURS)

        def fated(number: int, *_: str) -> Fate:
            if number == position and act is not None:
                act()
            return fate if number == position else Fate.FINE

        bench.api.fate = fated
        done: set[str] = set()
        with contextlib.suppress(Killed, BaseExceptionGroup, KapsoSyncError):
            report = self._run(bench.sync(self._desired()))
            done = {o.step.slug for o in report.outcomes if o.result in (Result.UNCHANGED, Result.DONE)}
            self._check_secrets(bench, report)
        self._run(self.clock.sleep(70))
        self._check_deletions_have_backups(before, codes)
        assert used <= self.world.functions.keys()
        self._check_ids(done)

    def _saved(self) -> set[str]:
        """The code of every backup."""
        return {json.loads(path.read_text())["code"] for path in (self.root / "state-0").glob("backups/*/*.json")}

    def _check_deletions_have_backups(self, before: dict[str, Function], codes: dict[str, str]) -> None:
        """A deleted function was not in git, and a backup was saved."""
        after = {f.id for f in self.world.functions.values()}
        saved = self._saved()
        for gone in before.keys() - after:
            assert before[gone].slug not in self.git
            assert gone in self.raced or codes[gone] in saved

    def _check_ids(self, done: set[str]) -> None:
        """A function of git keeps its id whatever its slug is; it is not duplicated. ``done`` bear their slugs."""
        for slug in self.git:
            function = self._owned(slug)
            if function is not None and slug in self.ids.keys() | done:
                known = self.ids.setdefault(slug, self.expected.pop(slug, function.id))
                assert known == function.id
        left = self.ids.keys() - self.git.keys()
        alive = {f.id for f in self.world.functions.values()}
        self.ids = {slug: i for slug, i in self.ids.items() if slug not in left and i in alive}

    def _check_secrets(self, bench: Bench, report: Report) -> None:
        """No secret is missing without a warning; a secret that is believed to be git's has git's value."""
        for outcome in report.outcomes:
            entry, function = self.git.get(outcome.step.slug), self._owned(outcome.step.slug)
            if entry is None or entry.value is None or function is None or function.id in self.stolen:
                continue
            if outcome.result in (Result.UNCHANGED, Result.DONE):
                known = bench.memory().owned[function.id].secrets
                assert SECRET in function.secrets
                assert SECRET in known.unverified or function.secrets[SECRET] == f"value {entry.value}"

    def _settle(self) -> None:
        self._run(self.clock.sleep(86_500))  # then even what was stolen is missed
        for _ in range(6):
            self._pass()
        self.stolen.clear()
        bench = self._bench(OURS)
        report = self._run(bench.sync(self._desired()))
        self._check_secrets(bench, report)
        for outcome in report.outcomes:
            entry = self.git.get(outcome.step.slug)
            failed = (Result.FAILED,) if entry is not None and entry.version == BAD else ()
            assert outcome.result in (Result.UNCHANGED, Result.BLOCKED, *failed), outcome
            if outcome.result is Result.UNCHANGED and outcome.step.slug in self.git:
                live = self.world.live_code()[outcome.step.slug]
                assert plain(live) == code(self.git[outcome.step.slug].version).rstrip()
            assert outcome.result is Result.UNCHANGED or outcome.step.reasons

    def _desired(self) -> Desired:
        return desired(*(self._want(slug, entry) for slug, entry in sorted(self.git.items())))

    def _want(self, slug: str, entry: Entry) -> DesiredFunction:
        function = want(slug, code(entry.version), moved_from=entry.moved_from)
        checked = replace(function.entry, checks=(Check({}, status=200),))
        function = replace(function, entry=checked, style=CodeStyle.SCRIPT, compiled=True)
        if entry.value is None:
            return function
        text = f"value {entry.value}"
        secret = SecretValue(text, keyed_digest(b"%032d" % self.key)(SECRET, text))
        return replace(function, entry=replace(function.entry, secrets={SECRET: PlainSecret(text)}), secrets={SECRET: secret})

    def _bench(self, owner: str) -> Bench:
        folder = self.root / f"state-{int(owner == THEIRS)}"
        return Bench(
            folder, self.clock, WorldApi(self.world, runtime=answer), policy=Policy(owner, prune=True), limits=replace(LIMITS)
        )

    def _owned(self, slug: str) -> Function | None:
        """The function of this slug on Kapso, if it carries our mark."""
        found = next((f for f in self.world.functions.values() if f.slug == slug), None)
        return found if found is not None and f"[kapso-sync:{OURS}#" in str(found.description) else None

    def _has_its_slug(self, slug: str) -> bool:
        """Return whether a function of git bears its slug on Kapso, and no rename of it is in progress."""
        function = self._owned(slug)
        return slug in self.git and function is not None and self.ids.get(slug) == function.id

    def _say_nothing_of(self, *slugs: str) -> None:
        for entry in self.git.values():
            if entry.moved_from in slugs:
                entry.moved_from = None

    @staticmethod
    def _looks(function: Function) -> tuple[object, ...]:
        return (function.slug, function.name, function.code, function.description, function.live_code)

    @staticmethod
    def _run(work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run(work)


TestProject = pytest.mark.history(Project.TestCase)
TestProject.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)
