"""Whole passes over a world in memory, with a real state folder: what the tests of the reconciler drive."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from kapso_sync.model.clock import Clock
from kapso_sync.model.desired import Desired
from kapso_sync.model.events import Event
from kapso_sync.model.plan import Plan, Policy
from kapso_sync.model.ports import Source
from kapso_sync.model.report import Report
from kapso_sync.model.source import Revision, Snapshot
from kapso_sync.model.state import ReconcilerState
from kapso_sync.reconcile.apply.executor import Executor, ExecutorSettings
from kapso_sync.reconcile.cycle import PassDeps, PassRequest, plan_pass, reconcile
from kapso_sync.reconcile.plan.guard import Limits
from kapso_sync.store.database import StateStore, read_state
from tests.builders import LIMITS, POLICY
from tests.world import WorldApi


class _Nothing:
    """A source whose snapshot does not matter: the test says what git wants."""

    async def fetch(self, on_transfer: Callable[[], None] = lambda: None) -> Snapshot:  # noqa: ARG002 - nothing is transferred
        return Snapshot("test", Revision("c0ffee"))

    async def moved(self, *, keep: bool = True) -> bool:  # noqa: ARG002 - there is nothing to keep
        return False

    def forget(self) -> None:
        pass


async def _nothing() -> None:
    pass


@dataclass
class Bench:
    """One source, one world, one state folder. ``events`` holds everything that was reported."""

    folder: Path
    clock: Clock
    api: WorldApi
    policy: Policy = POLICY
    limits: Limits = LIMITS
    settings: ExecutorSettings = field(default_factory=ExecutorSettings)
    events: list[Event] = field(default_factory=list)
    redact: Callable[[str], str] = str
    source: Source = field(default_factory=_Nothing)
    before_manifest: Callable[[], Awaitable[None]] = _nothing
    during_build: Callable[[], Awaitable[None]] = _nothing

    async def sync(self, desired: Desired, request: PassRequest | None = None) -> Report:
        """One pass, as one process would do it: whatever happens, the state folder is closed behind it."""
        with StateStore(self.folder, self.clock.now) as store:
            executor = Executor(self.api, store, self.clock, self.events.append, self.settings, self.redact)
            return await reconcile(self._parts(desired, store), executor, request or PassRequest())

    async def plan(self, desired: Desired) -> Plan:
        """A plan, which reads the state folder and writes nothing."""
        planned = await plan_pass(self._parts(desired, None), PassRequest())
        return planned.guarded.plan

    def memory(self) -> ReconcilerState:
        """What the state folder holds."""
        return read_state(self.folder)

    def names(self) -> list[str]:
        """The names of the events so far."""
        return [event.name for event in self.events]

    def _parts(self, desired: Desired, store: StateStore | None) -> PassDeps:
        async def build(
            _snapshot: Snapshot, _memory: ReconcilerState, on_manifest: Callable[[], None] = lambda: None, /
        ) -> Desired:
            await self.before_manifest()
            on_manifest()
            await self.during_build()
            return desired

        return PassDeps(
            source=self.source,
            build=build,
            api=self.api,
            load_state=store.load_state if store else lambda: read_state(self.folder),
            policy=self.policy,
            limits=self.limits,
            clock=self.clock,
            emit=self.events.append,
        )
