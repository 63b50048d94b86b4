"""A reconcile session: one source and one project, ready for the passes of `sync`, `plan` and the daemon.

`wiring.engine` builds it. It runs the passes of `reconcile.cycle`, and records each one in the state folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from kapso_sync.aio import in_slices
from kapso_sync.dataclass import dataclass
from kapso_sync.errors import KapsoSyncError, PassCutOff, StateUnusable
from kapso_sync.model.events import Event
from kapso_sync.model.evidence import Evidence
from kapso_sync.model.functions import InvocationRecord, RemoteFunction
from kapso_sync.model.json_values import Json
from kapso_sync.model.plan import Plan
from kapso_sync.model.ports import EvidenceCollector, FunctionsApi
from kapso_sync.model.pull import MappedFunction, files_of
from kapso_sync.model.report import Report, Result
from kapso_sync.model.settled import RecordedPass, SettledPass
from kapso_sync.model.source import Snapshot
from kapso_sync.model.state import DeploymentWatch, ReconcilerState
from kapso_sync.model.status import DaemonStatus, FunctionStatus, function_document, same_objects, status_document
from kapso_sync.reconcile.apply.disown import Disowned, disown
from kapso_sync.reconcile.cycle import PassDeps, PassRequest, emit_failure, emit_source_failure, plan_pass, reconcile
from kapso_sync.reconcile.observe import observe_owned
from kapso_sync.reconcile.plan.function_usage import unused_functions
from kapso_sync.reconcile.plan.watching import MAX_LISTED
from kapso_sync.sources.resolved import ResolvedSource
from kapso_sync.sources.spec import SourceKind
from kapso_sync.store import settled_pass
from kapso_sync.store.database import StateStore
from kapso_sync.store.history import History

if TYPE_CHECKING:
    from kapso_sync.reconcile.apply.executor import Executor  # a plan needs nothing that writes


class PassObserver(Protocol):
    """Follows the passes, for the status that people see."""

    def recall(self, document: Mapping[str, Json]) -> None:
        """Continue the status that another process recorded."""
        ...

    def began(self, trigger: str) -> None:
        """Record that a pass begins."""
        ...

    def planned(self, plan: Plan) -> None:
        """Record the plan that the pass is about to carry out."""
        ...

    def ended_in_slices(self, report: Report) -> Generator[None, None, None]:
        """Record that the pass ended, and pause after each function."""
        ...

    def failed(self, error: BaseException) -> None:
        """Record that nothing could be planned."""
        ...

    def status(self) -> DaemonStatus:
        """Return the status now."""
        ...


@dataclass(frozen=True, slots=True)
class WriteContext:
    """The objects that only a writing session has. ``log_context`` gives the log lines of one pass a common id.

    ``circumstances`` is a digest of what a pass depends on besides the source, Kapso and the state; empty: every pass is made.
    """

    executor: Executor
    store: StateStore
    observer: PassObserver
    history: History
    log_context: Callable[[], AbstractContextManager[None]]
    evidence: EvidenceCollector
    circumstances: str = ""


def _documents(functions: Iterable[FunctionStatus]) -> Generator[None, None, list[str]]:
    """Return the JSON of the functions' documents, and pause after each."""
    texts = []
    for function in functions:
        texts.append(json.dumps(function_document(function)))
        yield
    return texts


class Session:
    """Runs passes; `plan` writes nothing, and `sync` needs a `WriteContext` and the lock of the state folder."""

    def __init__(self, source: ResolvedSource, deps: PassDeps, context: WriteContext | None) -> None:
        self.source = source
        self._deps = deps
        self._context = context
        self._recorded: tuple[FunctionStatus, ...] | None = None

    @property
    def location(self) -> str:
        """The source's folder or URL."""
        return self.source.spec.location

    @property
    def is_folder(self) -> bool:
        """Whether the source is a folder that can be watched."""
        return self.source.spec.kind is SourceKind.FOLDER

    def functions_folder(self) -> str:
        """Return the functions folder inside of a folder, empty for the folder itself. Raises `SourceMissing`."""
        return self.source.home()

    @property
    def state_folder(self) -> Path:
        """The state folder."""
        return self.source.folder

    @property
    def owner(self) -> str:
        """The owner of the functions."""
        return self.source.owner

    @property
    def api(self) -> FunctionsApi:
        """The client, whose calls share one rate limit."""
        return self._deps.api

    async def plan(self, request: PassRequest) -> Plan:
        """Return what a sync would do. Raises `KapsoSyncError`."""
        self._check_owner(request)
        return (await plan_pass(self._deps, request)).guarded.plan

    async def sync(self, request: PassRequest) -> Report:
        """Run one pass and record it, even if it fails. Raises `KapsoSyncError` if nothing could be planned."""
        context = self._writing
        observer, store, history = context.observer, context.store, context.history

        def on_planned(plan: Plan) -> None:
            history.at(plan.revision)
            observer.planned(plan)
            request.on_planned(plan)

        observer.began(request.trigger)
        settled: SettledPass | None = None
        try:
            self._check_owner(request)
            with context.log_context():
                self._check_writable(store, request.trigger)
                report = await reconcile(self._deps, context.executor, replace(request, on_planned=on_planned))
            store.remember_manifest(present=report.plan.manifest_present)
            await in_slices(observer.ended_in_slices(report))
            settled = report.settled if context.circumstances else None
        except asyncio.CancelledError:
            observer.failed(PassCutOff("the last pass was cut off; the next one resumes it"))
            raise
        except Exception as error:
            observer.failed(error)
            raise
        else:
            return report
        finally:
            self._deps.source.forget()
            # Only people read it. If the folder cannot be written, the next pass reports that when it begins.
            with contextlib.suppress(StateUnusable):
                await self._record(context, observer.status(), settled)

    async def _record(self, context: WriteContext, status: DaemonStatus, settled: SettledPass | None) -> None:
        """Record the status after a pass; functions in which nothing changed are neither encoded nor written again."""
        document, store = status_document(status, []), context.store
        if self._recorded is not None and same_objects(status.functions, self._recorded):
            store.record_later_pass(document)
            return
        self._recorded = None
        store.record_pass(document, await in_slices(_documents(status.functions)), settled, context.circumstances)
        self._recorded = status.functions

    def _check_owner(self, request: PassRequest) -> None:
        if request.overrides.delete:
            self.source.require_stable_owner()

    def _check_writable(self, store: StateStore, trigger: str) -> None:
        """Raise `StateUnusable`, and log it, before any call to Kapso."""
        try:
            store.remember_pass(trigger)
        except StateUnusable as error:
            emit_failure(self._deps.emit, error)
            raise

    async def moved(self, *, keep: bool = True) -> bool:
        """Return whether the source shows another revision than the last one read. Raises `KapsoSyncError`."""
        return await self._deps.source.moved(keep=keep)

    async def read_source(self) -> None:
        """Read the source if it has moved, without any call to Kapso; a failure is reported, not raised."""
        try:
            if await self._deps.source.moved():
                await self._deps.source.fetch()
        except KapsoSyncError as error:
            emit_source_failure(self._deps.emit, error)

    async def owned_functions(self) -> tuple[RemoteFunction, ...]:
        """Return the functions on Kapso that we own. Raises `ApiError` and `StateForeign`."""
        return await observe_owned(self._deps.api, self.load_state(), self.owner)

    async def mapped(self, report: Report, snapshot: Snapshot) -> tuple[MappedFunction, ...]:
        """Return the functions that are on Kapso as the snapshot has them after this pass. Raises `ApiError`."""
        known = report.results(Result.DONE, Result.UNCHANGED)
        code = {outcome.step.slug: outcome.step.file for outcome in known if outcome.step.in_git and outcome.step.file}
        return tuple(
            MappedFunction(remote, files_of(code[remote.slug], snapshot.files))
            for remote in await self.owned_functions()
            if remote.slug in code
        )

    async def disown(self, functions: Iterable[RemoteFunction]) -> tuple[Disowned, ...]:
        """Make these functions unowned; nothing but the marks in their descriptions changes. Raises `StateUnusable`."""
        return await disown(self._deps.api, self._writing.store, self.report, functions)

    @property
    def _writing(self) -> WriteContext:
        if self._context is None:
            raise AssertionError("this session was opened for reading")
        return self._context

    def report(self, event: Event) -> None:
        """Emit an event, and record it in the history."""
        self._deps.emit(event)
        if self._context is not None:
            self._context.history.listen(event)

    async def unused(self) -> tuple[str, ...] | None:
        """Return the slugs of our functions that nothing uses. Raises `ApiError` if Kapso cannot be asked."""
        owned = self.load_state().owned
        functions = [remote for remote in await self._deps.api.list_functions() if remote.id in owned]
        found = await self._deps.api.find_users(functions)
        if found.unknown is not None:
            raise found.unknown
        return unused_functions(owned.values(), found.users)

    @property
    def calls_per_second(self) -> float | None:
        """How many calls a second may be spent on Kapso; None while no limit is known."""
        return self._deps.api.budget.per_second

    def watches(self) -> Sequence[DeploymentWatch]:
        """Return the watches of all deployments. Raises `StateUnusable`."""
        return self._writing.store.watches()

    def remember_watch(self, watch: DeploymentWatch) -> bool:
        """Store a watch, if it is still that of the function's last deployment. Raises `StateUnusable`."""
        if not self._is_current(watch):
            return False
        self._writing.store.remember_watch(watch)
        return True

    def end_watch(self, watch: DeploymentWatch) -> bool:
        """Forget a watch that the deployment stood, if it is still that of its last one. Raises `StateUnusable`."""
        if not self._is_current(watch):
            return False
        self._writing.store.end_watch(watch.function_id, proven=True)
        return True

    def _is_current(self, watch: DeploymentWatch) -> bool:
        stored = self._writing.store.watch(watch.function_id)
        return stored is not None and stored.deployed_at == watch.deployed_at

    async def read_invocations(self, function_id: str) -> Sequence[InvocationRecord]:
        """Return the newest invocations of a function. Raises `ApiError` and `NotLeading`."""
        return await self._deps.api.list_invocations(function_id, limit=MAX_LISTED)

    async def evidence(self, watch: DeploymentWatch, failure: InvocationRecord) -> tuple[str, Evidence]:
        """Return the error of a failed invocation in one line, and its evidence. Raises `NotLeading`."""
        return await self._writing.evidence.of_watched(watch.function_id, watch.slug, failure)

    def follows(self, recorded: RecordedPass) -> bool:
        """Return whether nobody has written to the state after this pass, other than this session."""
        if self._context is not None:
            return self._context.store.follows(recorded)
        return settled_pass.read(self.state_folder) == recorded

    def load_state(self) -> ReconcilerState:
        """Return what the state folder holds."""
        return self._deps.load_state()
