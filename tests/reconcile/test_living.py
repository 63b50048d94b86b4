"""A project that lives: people edit, rename, remove and meddle, passes die, the state folder is lost; a model keeps count."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import tempfile
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from kapso_sync.emulator.records import Function
from kapso_sync.errors import KapsoSyncError
from kapso_sync.model.desired import Desired
from kapso_sync.model.plan import Policy
from kapso_sync.model.report import Result
from tests.builders import LIMITS, desired, want
from tests.clock import VirtualClock
from tests.reconcile.passes import Bench
from tests.world import Fate, Killed, WorldApi, new_world

OURS, THEIRS = "example.com/acme/flows", "example.com/other/flows"
SLUGS = ("a", "b", "c", "d", "e")
slugs = st.sampled_from(SLUGS)
versions = st.integers(0, 3)


def code(version: int, who: str = "git") -> str:
    """Sound code that says whose it is."""
    return f"async function handler() {{ return new Response('{who} {version}'); }}\n"


@dataclass
class Entry:
    """What git says of one function: its version, and the slug it had before."""

    version: int
    moved_from: str | None = None


class Project(RuleBasedStateMachine):
    """The model: ``git`` by slug, ``ids`` of what was seen to be ours, and what must never change."""

    @initialize()
    def begin(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="kapso-sync-living-"))
        self.clock = VirtualClock()
        self.world = new_world(self.clock)
        self.git: dict[str, Entry] = {"a": Entry(0), "b": Entry(0), "c": Entry(0)}
        self.ids: dict[str, str] = {}
        self.stranger = self.world.create({"slug": "stranger", "name": "S", "code": code(0, "nobody"), "description": "Mine."})
        self.neighbours = desired(want("n1", code(1, "neighbour")), want("n2", code(2, "neighbour")))
        self._run(self._bench(THEIRS).sync(self.neighbours))
        self.untouched = {f.id: self._looks(f) for f in self.world.functions.values()}

    def teardown(self) -> None:
        """Left alone, everything that may be done is done; what waits has a reason."""
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
        self.git[slug] = Entry(version, known.moved_from if known else None)

    @rule(slug=slugs)
    @precondition(lambda self: len(self.git) > 1)
    def remove(self, slug: str) -> None:
        """A commit removes one; the last one stays, since an empty source is an error."""
        if len(self.git) > 1:
            self.git.pop(slug, None)

    @rule(old=slugs, new=slugs)
    def rename(self, old: str, new: str) -> None:
        """A commit renames one in place."""
        taken = {function.slug for function in self.world.functions.values()}
        if old in self.git and new not in self.git and new not in taken and self._owned(old) is not None:
            self.git[new] = Entry(self.git.pop(old).version, old)
            if old in self.ids:
                self.ids[new] = self.ids.pop(old)

    @rule(slug=slugs, version=versions, deploy=st.booleans())
    def meddle(self, slug: str, version: int, *, deploy: bool) -> None:
        """Somebody edits on Kapso."""
        function = self._owned(slug)
        if function is not None:
            self.world.update(function, {"code": code(version, "by hand")})
            if deploy:
                self.world.deploy(function)

    @rule(slug=slugs)
    def destroy(self, slug: str) -> None:
        """Somebody deletes on Kapso."""
        function = self._owned(slug)
        if function is not None:
            self.world.delete(function)
            self.ids = {known: i for known, i in self.ids.items() if i != function.id}

    @rule()
    def forget(self) -> None:
        """The Pod lost its disk."""
        shutil.rmtree(self.root / "state-0", ignore_errors=True)

    # What we do

    @rule(position=st.none() | st.integers(1, 14), fate=st.sampled_from([f for f in Fate if f is not Fate.FINE]))
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

    def _pass(self, position: int | None = None, fate: Fate = Fate.FINE) -> None:
        before = {f.id: f for f in self.world.functions.values()}
        codes = {f.id: f.code for f in before.values()}
        bench = self._bench(OURS)
        bench.api.fate = lambda number, *_: fate if number == position else Fate.FINE
        with contextlib.suppress(Killed, BaseExceptionGroup, KapsoSyncError):
            self._run(bench.sync(self._desired()))
        self._run(self.clock.sleep(70))
        self._check_losses(before, codes)
        self._check_ids()

    def _check_losses(self, before: dict[str, Function], codes: dict[str, str]) -> None:
        """Whatever a pass deleted was not in git, and a copy was saved."""
        after = {f.id for f in self.world.functions.values()}
        saved = {json.loads(path.read_text())["code"] for path in (self.root / "state-0").glob("backups/*/*.json")}
        for gone in before.keys() - after:
            assert before[gone].slug not in self.git
            assert codes[gone] in saved

    def _check_ids(self) -> None:
        """A function of git keeps its id, whatever it is called; no second one is made of it."""
        for slug in self.git:
            function = self._owned(slug)
            if function is not None:
                assert self.ids.setdefault(slug, function.id) == function.id
        left = self.ids.keys() - self.git.keys()
        alive = {f.id for f in self.world.functions.values()}
        self.ids = {slug: i for slug, i in self.ids.items() if slug not in left and i in alive}

    def _settle(self) -> None:
        for _ in range(6):
            self._pass()
        report = self._run(self._bench(OURS).sync(self._desired()))
        for outcome in report.outcomes:
            assert outcome.result in (Result.UNCHANGED, Result.BLOCKED), outcome
            if outcome.result is Result.UNCHANGED and outcome.step.slug in self.git:
                assert self.world.live_code()[outcome.step.slug] == code(self.git[outcome.step.slug].version)
            assert outcome.result is Result.UNCHANGED or outcome.step.reasons

    def _desired(self) -> Desired:
        return desired(*(want(slug, code(e.version), moved_from=e.moved_from) for slug, e in sorted(self.git.items())))

    def _bench(self, owner: str) -> Bench:
        folder = self.root / f"state-{int(owner == THEIRS)}"
        return Bench(folder, self.clock, WorldApi(self.world), policy=Policy(owner, prune=True), limits=replace(LIMITS))

    def _owned(self, slug: str) -> Function | None:
        """The function of this slug on Kapso, if it carries our mark."""
        found = next((f for f in self.world.functions.values() if f.slug == slug), None)
        return found if found is not None and f"[kapso-sync:{OURS}#" in str(found.description) else None

    @staticmethod
    def _looks(function: Function) -> tuple[object, ...]:
        return (function.slug, function.name, function.code, function.description, function.live_code)

    @staticmethod
    def _run(work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run(work)


TestProject = Project.TestCase
TestProject.settings = settings(max_examples=40, stateful_step_count=15, deadline=None)
