"""One source and one project, ready for passes: every object of a sync or a plan, built from Settings."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import re
import secrets
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TextIO

import platformdirs

from kapso_sync import __version__
from kapso_sync.api import KapsoClient, RateLimiter, Transport, TransportSettings, parse_base_url
from kapso_sync.clock import SystemClock
from kapso_sync.errors import ConfigError, KapsoSyncError, StateUnusable
from kapso_sync.model import events
from kapso_sync.model.clock import Clock
from kapso_sync.model.plan import Plan, Policy
from kapso_sync.model.ports import Source
from kapso_sync.model.report import Report
from kapso_sync.model.state import ReconcilerState
from kapso_sync.model.status import status_document
from kapso_sync.reconcile.apply.checks import CheckPace
from kapso_sync.reconcile.apply.deployment_poller import PollPace
from kapso_sync.reconcile.apply.executor import Executor, ExecutorSettings
from kapso_sync.reconcile.cycle import PassDeps, PassRequest, emit_failure, plan_pass, reconcile
from kapso_sync.reconcile.plan.function_usage import unused_functions
from kapso_sync.reconcile.plan.guard import Limits
from kapso_sync.settings import Settings
from kapso_sync.sources import (
    FolderSource,
    Git,
    GitCredentials,
    GitSource,
    SourceKind,
    SourceSpec,
    WorkTree,
    find_work_tree,
    folder_identity,
    parse_source,
    remote_identity,
)
from kapso_sync.status.tracker import StatusTracker
from kapso_sync.store.api_facts import ApiFactsFile
from kapso_sync.store.builds import BuildFolder
from kapso_sync.store.database import StateStore, read_state
from kapso_sync.store.history import History
from kapso_sync.store.lock import held
from kapso_sync.store.secretkey import read_key
from kapso_sync.telemetry import (
    DeduplicatingLog,
    LogListener,
    LogSettings,
    Redactor,
    make_logger,
    reconcile_context,
)
from kapso_sync.wiring.building import make_desired_builder, make_secret_values

GIT_TIMEOUT_FACTOR = 4
"""A git transfer may take so many times as long as an API request."""


@dataclass(frozen=True, slots=True)
class PassOverrides:
    """What the command line allows for one pass only."""

    overwrite: frozenset[str] = frozenset()
    take_from: frozenset[str] = frozenset()
    delete: frozenset[str] = frozenset()
    allow_recreate: bool = False
    reset_secrets: bool = False


class EventBus:
    """Where events go: the log on ``stream``, and whoever else listens. ``redactor`` knows this process's secrets.

    ``level`` holds where the settings name none. ``quiet``: as a daemon logs, nothing where nothing happens.
    """

    def __init__(
        self,
        settings: Settings,
        stream: TextIO,
        *others: events.Listener,
        level: str = "info",
        quiet: bool = False,
        redactor: Redactor | None = None,
    ) -> None:
        self.redactor = redactor or Redactor()
        form = LogSettings(settings.log_level or level, settings.log_format)
        log = LogListener(make_logger(form, stream, SystemClock(), self.redactor))
        self._listeners: tuple[events.Listener, ...] = (
            (log.notice, DeduplicatingLog(log.write), *others) if quiet else (log, *others)
        )

    def emit(self, event: events.Event) -> None:
        """Tell everyone."""
        for listener in self._listeners:
            listener(event)


@dataclass(frozen=True, slots=True)
class ResolvedSource:
    """What a SOURCE turned out to be: how it is read, who owns what it holds, and where its state lives."""

    spec: SourceSpec
    source: Source
    owner: str
    folder: Path
    owner_is_stable: bool = True


@dataclass(frozen=True, slots=True)
class WriteContext:
    """What only a session that writes has: the executor, the state folder, and what remembers for people."""

    executor: Executor
    store: StateStore
    board: StatusTracker
    history: History


class Session:
    """One source and one project, ready for passes; plans write nothing, syncs hold the state folder."""

    def __init__(self, place: ResolvedSource, parts: PassDeps, writing: WriteContext | None) -> None:
        self.place = place
        self._parts = parts
        self._writing = writing

    async def plan(self, request: PassRequest) -> Plan:
        """Return what a sync would do."""
        planned = await plan_pass(self._parts, request)
        return planned.guarded.plan

    async def sync(self, request: PassRequest) -> Report:
        """Make Kapso what the source says, and remember the pass, whatever came of it."""
        if self._writing is None:
            raise AssertionError("this session was opened for reading")
        board, store, history = self._writing.board, self._writing.store, self._writing.history

        def hold(plan: Plan) -> Plan:
            held = request.hold(plan)
            history.at(held.revision)
            board.planned(held)
            return held

        board.began(request.trigger)
        try:
            with reconcile_context(f"{random.getrandbits(48):012x}"):
                self._check_state(store)
                report = await reconcile(self._parts, self._writing.executor, replace(request, hold=hold))
            store.remember_source(manifest_present=report.plan.manifest_present, project_id=report.plan.project_id)
        except asyncio.CancelledError:
            board.failed(KapsoSyncError("the last pass was cut off; the next one goes on from there"))
            raise
        except Exception as error:
            board.failed(error)
            raise
        else:
            board.ended(report)
            return report
        finally:
            # Only for people; what it cannot be written to is told when the next pass begins.
            with contextlib.suppress(StateUnusable):
                store.record_pass(status_document(board.status()))

    def _check_state(self, store: StateStore) -> None:
        """Raise `StateUnusable`, told, where nothing can be remembered: then nothing is asked of Kapso either."""
        try:
            store.remember_pass()
        except StateUnusable as error:
            emit_failure(self._parts.emit, error)
            raise

    async def moved(self, *, keep: bool = True) -> bool:
        """Tell whether the source shows another revision than the last one read; raises `KapsoSyncError`."""
        return await self._parts.source.moved(keep=keep)

    async def unused(self) -> tuple[str, ...] | None:
        """Return our functions that nothing uses; raises `ApiError` where nobody can tell."""
        owned = self.load_state().owned
        functions = [remote for remote in await self._parts.api.list_functions() if remote.id in owned]
        return unused_functions(owned.values(), await self._parts.api.find_users(functions))

    def load_state(self) -> ReconcilerState:
        """Return what the state folder holds."""
        return self._parts.load_state()

    @property
    def owner(self) -> str:
        """Who owns the functions."""
        return self.place.owner


@contextlib.asynccontextmanager
async def open_session(
    settings: Settings, exceptions: PassOverrides, logging: EventBus, *, writes: bool, board: StatusTracker | None = None
) -> AsyncIterator[Session]:
    """Build everything for passes over the settings' source; with ``writes`` the state folder is held by this process.

    ``board`` is told of each pass; without one, a new one is, and only the state folder remembers it.

    Raises `ConfigError`, `StateLocked`, `StateUnusable`, `StateForeign`, and what finding the owner may raise.
    """
    clock = SystemClock()
    base_url = parse_base_url(settings.api_base_url, allow_http=settings.allow_http)
    logging.redactor.add(settings.key())
    logging.redactor.add(settings.git_password())
    async with contextlib.AsyncExitStack() as stack:
        # Whoever only reads has a mirror of its own: it must not meet a sync in the state folder.
        git_home = None if writes else Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kapso-sync-")))
        try:
            place = await resolve_source(settings, base_url, logging.emit, git_home)
        except KapsoSyncError as error:
            emit_failure(logging.emit, error)
            raise
        _check_prune(place, prune=settings.prune or bool(exceptions.delete))
        facts = ApiFactsFile.for_base(place.folder.parent, base_url)
        store = stack.enter_context(_held_store(place, logging, clock, facts)) if writes else None
        transport = await stack.enter_async_context(make_transport(settings, base_url, clock, logging))
        api = KapsoClient(transport)
        key = store.secret_key(secrets.token_bytes) if store else read_key(place.folder)
        parts = PassDeps(
            source=place.source,
            build=make_desired_builder(
                settings,
                place.spec,
                BuildFolder(place.folder, clock.now(), writes=writes),
                make_secret_values(settings, logging.redactor, key, place.folder, required=writes),
            ),
            api=api,
            load_state=store.load_state if store else lambda: read_state(place.folder, facts),
            policy=_policy(settings, exceptions, place.owner),
            limits=Limits(
                settings.max_delete,
                settings.allow_empty,
                exceptions.allow_recreate,
                settings.prune_grace or 0.0,
                settings.prune_idle or 0.0,
            ),
            clock=clock,
            emit=logging.emit,
            session=f"{random.getrandbits(48):012x}",
        )
        writing = None
        if store is not None:
            history = stack.enter_context(History(place.folder, clock.now, logging.redactor.text))
            tell, redact = _fan_out(parts.emit, history.listen), logging.redactor.text
            executor = Executor(api, store, clock, tell, _execution(settings), redact)
            writing = WriteContext(executor, store, board or _make_tracker(clock, place, logging), history)
        yield Session(place, parts, writing)


@contextlib.contextmanager
def _held_store(place: ResolvedSource, logging: EventBus, clock: Clock, facts: ApiFactsFile) -> Iterator[StateStore]:
    """Hold the place's state folder, and open what it remembers."""
    with held(place.folder, clock.now()), StateStore(place.folder, clock.now, facts=facts) as store:
        store.belongs_to(place.owner)
        if store.set_aside is not None:
            logging.emit(events.StateSetAside(path=str(store.set_aside)))
        yield store


def _execution(settings: Settings) -> ExecutorSettings:
    return ExecutorSettings(
        concurrency=settings.concurrency,
        deploy_timeout=settings.deploy_timeout,
        pace=PollPace(settings.deploy_poll, slowest=settings.deploy_poll * 5),
        checks=CheckPace(settings.check_delay, settings.check_window),
        unknown_secrets=settings.unknown_secrets,
        prune_idle=settings.prune_idle or 0.0,
    )


def _fan_out(first: events.Listener, second: events.Listener) -> events.Listener:
    def listen(event: events.Event) -> None:
        first(event)
        second(event)

    return listen


def _make_tracker(clock: Clock, place: ResolvedSource, logging: EventBus) -> StatusTracker:
    return StatusTracker(clock, __version__, place.spec.location, place.owner, logging.redactor.text)


def make_transport(settings: Settings, base_url: str, clock: Clock, logging: EventBus) -> Transport:
    """Return the connection to Kapso; the key is read anew for each request."""

    def key() -> str:
        value = settings.key()
        logging.redactor.add(value)
        return value

    def waiting(seconds: float, limit: int, remaining: int) -> None:
        logging.emit(events.RateLimitWaiting(wait_s=round(seconds, 1), limit=limit, remaining=remaining))

    return Transport(
        base_url,
        key,
        clock=clock,
        emit=logging.emit,
        random=random.random,
        pacer=RateLimiter(clock, share=settings.rate_share, window=settings.rate_window, on_wait=waiting),
        settings=TransportSettings(
            deadline=settings.request_timeout,
            concurrency=settings.concurrency,
            user_agent=settings.user_agent or f"kapso-sync/{__version__}",
            key_source=settings.key_source,
        ),
        scrub=logging.redactor.text,
    )


@contextlib.asynccontextmanager
async def open_api(settings: Settings, logging: EventBus) -> AsyncIterator[KapsoClient]:
    """Return a client of the settings' API alone."""
    base_url = parse_base_url(settings.api_base_url, allow_http=settings.allow_http)
    async with make_transport(settings, base_url, SystemClock(), logging) as transport:
        yield KapsoClient(transport)


def find_state_folder(settings: Settings) -> Path:
    """Return where the state of the settings' source and API lives; nothing is read but the source's looks."""
    return state_folder(settings, parse_base_url(settings.api_base_url, allow_http=settings.allow_http), source_spec(settings))


def source_spec(settings: Settings) -> SourceSpec:
    """Return what the settings' source means; raises like `parse_source`."""
    where = settings.source or "."
    return parse_source(where, branch=settings.branch, ref=settings.ref, path=settings.path, cwd=Path.cwd())


def state_folder(settings: Settings, base_url: str, spec: SourceSpec) -> Path:
    """Return where the state of a source and an API base lives."""
    root = settings.state_dir or platformdirs.user_state_path("kapso-sync")
    parts = {"base": base_url, "source": spec.location, "path": spec.path, "env": settings.env, "branch": spec.branch}
    return root / state_name(parts)


async def resolve_source(settings: Settings, base_url: str, listener: events.Listener, git_home: Path | None) -> ResolvedSource:
    """Return how the source is read, its owner and its state folder; ``git_home`` replaces the git folder in the latter."""
    spec = source_spec(settings)
    folder = state_folder(settings, base_url, spec)
    branch = spec.branch
    if spec.kind is SourceKind.FOLDER:
        return _resolve_folder(settings, spec, folder, listener)
    password = settings.git_password
    credentials = GitCredentials(password, settings.git_username, settings.git_ssh_key_file, settings.git_known_hosts_file)
    patience = settings.request_timeout * GIT_TIMEOUT_FACTOR
    home = git_home or folder / "git"
    git = Git(protocol=spec.protocol, location=spec.location, home=home, credentials=credentials, deadline=patience)
    source = GitSource(spec, home / "mirror", git, listener)
    owner = settings.owner or remote_identity(spec.location, await source.home())
    if branch is not None and not settings.owner and branch != await source.default_branch():
        owner += f"#{branch}"
    return ResolvedSource(spec, source, _with_env(owner, settings.env), folder)


def _resolve_folder(settings: Settings, spec: SourceSpec, folder: Path, listener: events.Listener) -> ResolvedSource:
    root = Path(spec.location)
    tree = find_work_tree(root)
    describe: Callable[[], str | None] = lambda: found.head if (found := find_work_tree(root)) else None  # noqa: E731
    source = FolderSource(root, spec.path, top=tree.root if tree else None, emit=listener, describe=describe)
    owner, stable = folder_owner(settings, root, tree, source.home)
    return ResolvedSource(spec, source, owner, folder, owner_is_stable=stable)


def folder_owner(settings: Settings, root: Path, tree: WorkTree | None, home: Callable[[], str]) -> tuple[str, bool]:
    """Return who owns what a folder holds, and whether that stays when the folder moves.

    ``home`` returns the functions folder inside ``root``; it is only asked in a work tree.
    """
    if settings.owner:
        owner, stable = settings.owner, True
    elif tree is not None and tree.origin is not None:
        inside = root.relative_to(tree.root).as_posix()
        path = "/".join(part for part in (inside if inside != "." else "", home()) if part)
        owner, stable = remote_identity(tree.origin, path), True
    else:
        owner, stable = folder_identity(root), False
    return _with_env(owner, settings.env), stable


def _with_env(owner: str, env: str | None) -> str:
    return f"{owner}@{env}" if env else owner


def _check_prune(place: ResolvedSource, *, prune: bool) -> None:
    if prune and not place.owner_is_stable:
        raise ConfigError(
            "deleting needs to know who owns the functions, and this folder has no git remote",
            hint="set KAPSO_SYNC_OWNER to a name that stays, such as acme/flows",
        )


def _policy(settings: Settings, exceptions: PassOverrides, owner: str) -> Policy:
    return Policy(
        owner=owner,
        adopt=settings.adopt,
        drift=settings.drift,
        prune=settings.prune,
        delete=exceptions.delete,
        overwrite=exceptions.overwrite,
        take_from=exceptions.take_from,
        reset_secrets=exceptions.reset_secrets,
        unknown_secrets=settings.unknown_secrets,
    )


def state_name(parts: Mapping[str, str | None]) -> str:
    """Return the name of a state folder: a readable beginning, and a hash of everything that tells two of them apart."""
    digest = hashlib.sha256("\0".join(f"{name}={parts[name] or ''}" for name in sorted(parts)).encode()).hexdigest()
    readable = re.sub(r"[^A-Za-z0-9.-]+", "-", (parts["source"] or "").rpartition("/")[2]).strip("-.")[:40]
    return f"{readable or 'source'}-{digest[:16]}"
