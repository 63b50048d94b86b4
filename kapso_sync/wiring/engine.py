"""Builds the objects of a pass from Settings: the API client, the state folder, the executor, and the session."""

from __future__ import annotations

import contextlib
import secrets
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from kapso_sync import __version__
from kapso_sync.api.base_url import parse_base_url
from kapso_sync.api.client import KapsoClient
from kapso_sync.clock import SystemClock
from kapso_sync.errors import KapsoSyncError, Notice
from kapso_sync.model import events
from kapso_sync.model.clock import Clock
from kapso_sync.model.plan import Policy
from kapso_sync.model.ports import StartLocally
from kapso_sync.model.state import ReconcilerState
from kapso_sync.reconcile.cycle import PassDeps, emit_failure, emit_source_failure
from kapso_sync.reconcile.plan.guard import Limits
from kapso_sync.reconcile.plan.settled import SettledSteps
from kapso_sync.session import PassObserver, Session, WriteContext
from kapso_sync.settings import Settings
from kapso_sync.sources.resolved import ResolvedSource
from kapso_sync.store.api_facts import ApiFactsFile
from kapso_sync.store.builds import BuildFolder
from kapso_sync.store.database import StateStore, find_state_damage, owns_anything, read_last_pass, read_state
from kapso_sync.store.history import History
from kapso_sync.store.lock import held
from kapso_sync.store.secretkey import read_key
from kapso_sync.telemetry.event_bus import EventBus
from kapso_sync.telemetry.logs import reconcile_context
from kapso_sync.wiring.building import find_npm_packages, make_desired_builder, make_secret_values
from kapso_sync.wiring.folder import root_notices
from kapso_sync.wiring.network import find_network
from kapso_sync.wiring.source import resolve_source
from kapso_sync.wiring.transport import MayCall, make_transport, new_id
from kapso_sync.wiring.unchanged import circumstances

if TYPE_CHECKING:
    from kapso_sync.status.tracker import StatusTracker

MAX_MISSED_INTERVALS = 3
"""Maximum number of intervals for which a daemon may have been away and still go on with the deletion grace that it noted."""

TEMPORARY_OWNER = (
    "this folder has no git remote, so its owner, {owner}, is made of its path; a remote that you add becomes the owner, "
    "and KAPSO_SYNC_OWNER keeps one when the folder moves"
)


@contextlib.asynccontextmanager
async def open_session(  # noqa: PLR0913 - each is something that another caller decides
    settings: Settings,
    bus: EventBus,
    *,
    writes: bool,
    tracker: StatusTracker | None = None,
    start_locally: StartLocally | None = None,
    may_call: MayCall | None = None,
    term: Callable[[], str] = lambda: "",
    not_before: float | None = None,
) -> AsyncIterator[Session]:
    """Build everything for passes over the settings' source; with ``writes`` this process holds the state folder.

    ``tracker`` follows the passes, and is a daemon's; without one, only the state folder remembers them, and no deployment is
    watched. ``start_locally`` is as in `ExecutorSettings`, ``may_call`` as in `Transport`, ``term`` as in `PassDeps`,
    ``not_before`` as in `RateLimiter`.

    Raises `ConfigError`, `StateLocked`, `StateUnusable`, `StateForeign`, and what `resolve_source` raises.
    """
    clock = SystemClock()
    base_url = parse_base_url(settings.api_base_url, allow_http=settings.allow_http)
    network = find_network(settings, bus.redactor)
    bus.redactor.add(settings.key())
    async with contextlib.AsyncExitStack() as stack:
        # A session that only reads has a mirror of its own: it must not meet a sync in the state folder.
        git_home = None if writes else Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kapso-sync-")))
        try:
            bus.redactor.add(settings.git_password())
            source = await resolve_source(settings, network, base_url, bus.emit, git_home)
        except KapsoSyncError as error:
            emit_source_failure(bus.emit, error)
            emit_failure(bus.emit, error)
            raise
        if settings.prune:
            source.require_stable_owner()
        facts = ApiFactsFile.for_base(source.folder.parent, base_url)
        notices = (*_owner_notices(source), *root_notices(source.folder.parent))
        store = stack.enter_context(_open_store(source, bus.emit, clock, facts)) if writes else None
        load_state, damage = _remembered(source, facts, store)
        transport = await stack.enter_async_context(
            make_transport(
                settings,
                network,
                base_url,
                clock,
                emit=bus.emit,
                redactor=bus.redactor,
                may_call=may_call,
                not_before=not_before,
            )
        )
        api = KapsoClient(transport)
        key = store.secret_key(secrets.token_bytes) if store else read_key(source.folder)
        deps = PassDeps(
            source=source.source,
            build=make_desired_builder(
                settings,
                source.spec,
                BuildFolder(source.folder, clock.now(), writes=writes),
                make_secret_values(settings, bus.redactor, key, source.folder, required=writes),
                (*notices, *damage),
                find_npm_packages(settings, network, source.spec, source.folder, git_home),
            ),
            api=api,
            load_state=load_state,
            policy=_policy(settings, source.owner),
            limits=Limits(
                settings.max_delete,
                settings.allow_empty,
                grace=settings.prune_grace or 0.0,
                idle=settings.prune_idle or 0.0,
            ),
            clock=clock,
            emit=bus.emit,
            session=new_id(),
            term=term,
            max_gap=None if tracker is None else timedelta(seconds=MAX_MISSED_INTERVALS * settings.interval),
            settled=SettledSteps() if writes else None,
        )
        if store is None:
            yield Session(source, deps, None)
            return
        # A plan needs nothing that writes.
        from kapso_sync.reconcile.apply.executor import Executor  # noqa: PLC0415
        from kapso_sync.status.tracker import StatusTracker  # noqa: PLC0415
        from kapso_sync.wiring.evidence import make_evidence_collector  # noqa: PLC0415
        from kapso_sync.wiring.executor import executor_settings  # noqa: PLC0415

        history = stack.enter_context(History(source.folder, clock.now, bus.redactor.text))
        evidence = make_evidence_collector(settings, bus.redactor, source.folder, api)
        limits = executor_settings(settings, start_locally, evidence, bus.redactor, watches=tracker is not None)
        executor = Executor(api, store, clock, _fan_out(bus.emit, history.listen), limits, bus.redactor.text)
        observer: PassObserver = tracker or StatusTracker(
            clock, __version__, source.spec.location, source.owner, bus.redactor.text
        )
        observer.recall(read_last_pass(source.folder) or {})
        yield Session(
            source,
            deps,
            WriteContext(
                executor,
                store,
                observer,
                history,
                lambda: reconcile_context(new_id()),
                evidence,
                circumstances(settings, source.owner, source.folder.parent, base_url) if tracker is None else "",
            ),
        )


@contextlib.contextmanager
def _open_store(source: ResolvedSource, emit: events.Listener, clock: Clock, facts: ApiFactsFile) -> Iterator[StateStore]:
    """Lock the state folder, and open its database."""
    with held(source.folder, clock.now()), StateStore(source.folder, clock.now, facts=facts) as store:
        store.forget_running_pass()
        store.remember_owner(source.owner, source.other_owners)
        if store.set_aside is not None:
            emit(events.StateSetAside(path=str(store.set_aside)))
        yield store


def _remembered(
    source: ResolvedSource, facts: ApiFactsFile, store: StateStore | None
) -> tuple[Callable[[], ReconcilerState], tuple[Notice, ...]]:
    """Return what loads the state, and a warning if its database cannot be read. Without a ``store`` it is read once, here."""
    if store is not None:
        return store.load_state, _set_aside_notices(store)
    state = _read_state(source, facts)
    return lambda: state, _damage_notices(source.folder, state)


def _read_state(source: ResolvedSource, facts: ApiFactsFile) -> ReconcilerState:
    """Return the state as a writing session would find it."""
    state = read_state(source.folder, facts)
    return replace(state, owners=state.owners | source.other_owners)


def _fan_out(*listeners: events.Listener) -> events.Listener:
    def emit(event: events.Event) -> None:
        for listener in listeners:
            listener(event)

    return emit


@contextlib.asynccontextmanager
async def open_api(settings: Settings, bus: EventBus) -> AsyncIterator[KapsoClient]:
    """Return a client of the settings' API alone."""
    base_url = parse_base_url(settings.api_base_url, allow_http=settings.allow_http)
    network = find_network(settings, bus.redactor)
    async with make_transport(settings, network, base_url, SystemClock(), emit=bus.emit, redactor=bus.redactor) as transport:
        yield KapsoClient(transport)


_FORGOTTEN = "what Kapso does not show is forgotten, such as quarantine, unfinished renames, and which secrets were set"


def _set_aside_notices(store: StateStore) -> tuple[Notice, ...]:
    """Return a warning about a database that could not be read, and was replaced."""
    if store.set_aside is None:
        return ()
    text = f"the state folder's database was damaged, or written by another version, and is kept as {store.set_aside}"
    return (Notice("state-set-aside", f"{text}: {_FORGOTTEN}"),)


def _damage_notices(folder: Path, state: ReconcilerState) -> tuple[Notice, ...]:
    """Return a warning about a database that the next sync sets aside; ``state`` has nothing of it."""
    damage = find_state_damage(folder) if not state.owned else None
    if damage is None:
        return ()
    text = f"the database of the state folder {folder} {damage}: `kapso-sync sync` renames it, and starts an empty one"
    return (Notice("state-unreadable", f"{text}; {_FORGOTTEN}"),)


def _owner_notices(source: ResolvedSource) -> tuple[Notice, ...]:
    """Return a warning about an owner that is made of a path, before the first sync."""
    if source.owner_is_stable or owns_anything(source.folder):
        return ()
    return (Notice("temporary-owner", TEMPORARY_OWNER.format(owner=source.owner)),)


def _policy(settings: Settings, owner: str) -> Policy:
    return Policy(
        owner=owner,
        adopt=settings.adopt,
        drift=settings.drift,
        prune=settings.prune,
        unknown_secrets=settings.unknown_secrets,
    )
