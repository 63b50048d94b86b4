"""One source and one project, ready for passes: what `sync`, `plan` and the daemon run, and what remembers each pass.

`wiring.engine` builds it, `reconcile.cycle` is what it runs.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from kapso_sync.errors import PassCutOff, StateUnusable
from kapso_sync.model.plan import Plan
from kapso_sync.model.ports import Source
from kapso_sync.model.report import Report
from kapso_sync.model.state import ReconcilerState
from kapso_sync.model.status import DaemonStatus, status_document
from kapso_sync.reconcile.apply.executor import Executor
from kapso_sync.reconcile.cycle import PassDeps, PassRequest, emit_failure, plan_pass, reconcile
from kapso_sync.reconcile.plan.function_usage import unused_functions
from kapso_sync.sources import SourceKind, SourceSpec
from kapso_sync.store.database import StateStore
from kapso_sync.store.history import History


class PassObserver(Protocol):
    """Follows the passes, for the status that people see."""

    def began(self, trigger: str) -> None:
        """A pass begins."""
        ...

    def planned(self, plan: Plan) -> None:
        """The pass is going to carry out this plan."""
        ...

    def ended(self, report: Report) -> None:
        """The pass ended."""
        ...

    def failed(self, error: BaseException) -> None:
        """Nothing could be planned."""
        ...

    def status(self) -> DaemonStatus:
        """Return the status now."""
        ...


@dataclass(frozen=True, slots=True)
class ResolvedSource:
    """What a SOURCE means: how it is read, who owns its functions, and the state folder.

    ``owner_is_stable``: the owner stays the same when the folder moves.
    """

    spec: SourceSpec
    source: Source
    owner: str
    folder: Path
    owner_is_stable: bool = True


@dataclass(frozen=True, slots=True)
class WriteContext:
    """What only a session that writes has. ``log_context`` gives the log lines of one pass a common id."""

    executor: Executor
    store: StateStore
    observer: PassObserver
    history: History
    log_context: Callable[[], AbstractContextManager[None]]


class Session:
    """Plans write nothing; syncs need a `WriteContext`, and hold the state folder."""

    def __init__(self, source: ResolvedSource, deps: PassDeps, context: WriteContext | None) -> None:
        self.source = source
        self._deps = deps
        self._context = context

    @property
    def location(self) -> str:
        """The source's folder or URL."""
        return self.source.spec.location

    @property
    def is_folder(self) -> bool:
        """Whether the source is a folder that can be watched."""
        return self.source.spec.kind is SourceKind.FOLDER

    @property
    def state_folder(self) -> Path:
        """The folder that remembers what was done."""
        return self.source.folder

    @property
    def owner(self) -> str:
        """Who owns the functions."""
        return self.source.owner

    async def plan(self, request: PassRequest) -> Plan:
        """Return what a sync would do. Raises `KapsoSyncError`."""
        return (await plan_pass(self._deps, request)).guarded.plan

    async def sync(self, request: PassRequest) -> Report:
        """Run one pass, and remember it however it ends. Raises `KapsoSyncError` if nothing could be planned."""
        context = self._context
        if context is None:
            raise AssertionError("this session was opened for reading")
        observer, store, history = context.observer, context.store, context.history

        def on_planned(plan: Plan) -> None:
            history.at(plan.revision)
            observer.planned(plan)
            request.on_planned(plan)

        observer.began(request.trigger)
        try:
            with context.log_context():
                self._check_writable(store)
                report = await reconcile(self._deps, context.executor, replace(request, on_planned=on_planned))
            store.remember_source(manifest_present=report.plan.manifest_present, project_id=report.plan.project_id)
        except asyncio.CancelledError:
            observer.failed(PassCutOff("the last pass was cut off; the next one resumes it"))
            raise
        except Exception as error:
            observer.failed(error)
            raise
        else:
            observer.ended(report)
            return report
        finally:
            # Only people read it; a folder that cannot be written is reported when the next pass begins.
            with contextlib.suppress(StateUnusable):
                store.record_pass(status_document(observer.status()))

    def _check_writable(self, store: StateStore) -> None:
        """Raise `StateUnusable`, and log it, before Kapso is asked for anything."""
        try:
            store.remember_pass()
        except StateUnusable as error:
            emit_failure(self._deps.emit, error)
            raise

    async def moved(self, *, keep: bool = True) -> bool:
        """Return whether the source shows another revision than the last one read. Raises `KapsoSyncError`."""
        return await self._deps.source.moved(keep=keep)

    async def unused(self) -> tuple[str, ...] | None:
        """Return the slugs of our functions that nothing uses. Raises `ApiError` if Kapso cannot be asked."""
        owned = self.load_state().owned
        functions = [remote for remote in await self._deps.api.list_functions() if remote.id in owned]
        return unused_functions(owned.values(), await self._deps.api.find_users(functions))

    def load_state(self) -> ReconcilerState:
        """Return what the state folder holds."""
        return self._deps.load_state()
