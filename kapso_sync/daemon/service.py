"""The daemon's lifecycle: it opens a session, runs its loop until a signal or new settings, and closes everything in order.

`loop` runs the passes. `triggers`, `schedule` and `watcher` request them. `settings_reload`, `suspension` and
`signal_handlers` do what people ask for. Other packages' objects come in as `ServiceDeps`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from kapso_sync import process_memory
from kapso_sync.aio import Interrupted, first_of, interrupted_by
from kapso_sync.daemon.backoff import FailingFunction, FunctionBackoff
from kapso_sync.daemon.deployment_watcher import DeploymentWatcher, WatchedFunctions
from kapso_sync.daemon.lease_notes import ReplicaRequest
from kapso_sync.daemon.loop import Loop, PassRunner, PendingOverrides, Timing
from kapso_sync.daemon.replica import Replica, ReplicaCallbacks, ReplicaDeps
from kapso_sync.daemon.schedule import Interval, Schedule
from kapso_sync.daemon.settings_reload import SettingsReloader
from kapso_sync.daemon.supervisor import Supervisor
from kapso_sync.daemon.suspension import KeptOnLease, Suspensions, suspension_from
from kapso_sync.daemon.systemd import SystemdNotifier
from kapso_sync.daemon.triggers import Trigger, TriggerQueue
from kapso_sync.daemon.unused_functions import track_unused_functions
from kapso_sync.dataclass import dataclass
from kapso_sync.errors import ExitCode, KapsoSyncError, NotLeading, SourceMissing, SourceUnavailable, StateUnusable
from kapso_sync.model import events
from kapso_sync.model.clock import Clock
from kapso_sync.model.ports import FunctionsApi
from kapso_sync.model.status import ConditionType, DaemonStatus, ReplicaStatus, Role, Suspension
from kapso_sync.plurals import counted
from kapso_sync.process import end_in_time
from kapso_sync.retry import Backoff
from kapso_sync.settings import Settings
from kapso_sync.store.daemon_files import DaemonFiles
from kapso_sync.store.lock import held

if TYPE_CHECKING:
    from kapso_sync.daemon.watcher import FileWatcher

OPEN_BACKOFF = Backoff(initial=5.0, maximum=60.0)
"""Seconds between attempts to reach a git server that does not answer while the daemon starts."""

STARTUP_TIMEOUT = 20.0
"""Seconds after which the daemon counts as started even if the git server does not answer: no remote failure may stop it."""

PRUNE_GRACE = 600.0
"""Seconds that a function must be missing from git before the daemon deletes it, if the settings set no value."""

STOP_TIMEOUT = 6.0
"""Seconds that a pass may take to end when the daemon stops; then it is cancelled, and the journal shows its open calls."""

STOP_TIMEOUT_OF_REPLICA = 2.0
"""The same in seconds where another replica waits: it looks at the Lease every 2 s, and takes over within 5 s in all."""

TRIM_DELAY = 1.0
"""Seconds between the end of a pass and the return of free memory to the kernel: by then the pass has released its objects."""


class PassSession(PassRunner, WatchedFunctions, Protocol):
    """A session for one source and one project that is ready for passes."""

    @property
    def location(self) -> str:
        """The source's folder or URL."""
        ...

    @property
    def is_folder(self) -> bool:
        """Whether the source is a folder that can be watched."""
        ...

    def functions_folder(self) -> str:
        """Return the functions folder inside of a folder, empty for the folder itself. Raises `KapsoSyncError`."""
        ...

    @property
    def state_folder(self) -> Path:
        """The state folder of the source."""
        ...

    @property
    def owner(self) -> str:
        """The owner of the functions."""
        ...

    @property
    def api(self) -> FunctionsApi:
        """The client of Kapso's API."""
        ...

    async def unused(self) -> tuple[str, ...] | None:
        """Return the slugs of our functions that nothing uses. Raises `ApiError` and `NotLeading`."""
        ...


class Tracker(Protocol):
    """Keeps the status that people see."""

    def opened(self, source: str, owner: str) -> None:
        """Record that a session was opened for this source."""
        ...

    def replicated(self, replica: Callable[[], ReplicaStatus]) -> None:
        """Show this replica's role from now on."""
        ...

    def role_changed(self) -> None:
        """Record that the role or the leader has changed."""
        ...

    def failed(self, error: BaseException) -> None:
        """Record that nothing could be planned."""
        ...

    def waiting(self, retry_in: float | None, failing: tuple[FailingFunction, ...]) -> None:
        """Record that the loop waits."""
        ...

    def suspended(self, suspension: Suspension | None) -> None:
        """Record that a suspension began or ended; None: it ended."""
        ...

    def next_check(self, moment: datetime | None) -> None:
        """Record when the next interval is due."""
        ...

    def show_unused(self, slugs: tuple[str, ...] | None) -> None:
        """Record the functions that nothing uses."""
        ...

    def show_watched(self, until: Mapping[str, datetime]) -> None:
        """Record until when functions are watched after a deployment, by slug."""
        ...

    def status(self) -> DaemonStatus:
        """Return the status now."""
        ...

    async def changed(self) -> None:
        """Wait for the next change of the status."""
        ...


@dataclass(frozen=True, slots=True)
class ServiceDeps:
    """The objects that the service gets from other packages.

    ``open_server`` yields the server's URL, or None if there is no server. ``random`` returns a number from 0 to 1. ``replica``
    is None if the daemon runs alone, without a Lease.
    """

    clock: Clock
    random: Callable[[], float]
    emit: events.Listener
    tracker: Tracker
    settings: SettingsReloader
    systemd: SystemdNotifier
    open_session: Callable[[Settings], AbstractAsyncContextManager[PassSession]]
    open_server: Callable[[], AbstractAsyncContextManager[str | None]]
    open_notifications: Callable[[Path], AbstractAsyncContextManager[None]]
    version: str
    replica: ReplicaDeps | None = None


class DaemonService:
    """Runs until a signal. Everything that depends on settings is built again when they are reloaded."""

    def __init__(self, deps: ServiceDeps, state_folder: Path) -> None:
        self.loop: Loop | None = None
        self.api: FunctionsApi | None = None
        self.triggers = TriggerQueue()
        self.files = DaemonFiles(state_folder)
        self._replica = None if deps.replica is None else self._make_replica(deps, deps.replica)
        self._leadership = None if deps.replica is None else deps.replica.leadership
        self._election: Supervisor | None = None
        on_lease = KeptOnLease()
        self.suspensions = Suspensions(
            deps.clock, lambda: self.files if self._replica is None else on_lease, deps.tracker.suspended
        )
        self._deps = deps
        self._clock = deps.clock
        self._emit = deps.emit
        self._settings = deps.settings
        self._started = False
        self.moved_to: str | None = None
        self._stopped = asyncio.Event()
        self._reloaded = asyncio.Event()
        self._schedule: Schedule | None = None
        self._without_loop: list[PendingOverrides] = []
        self._degraded: set[str] = set()
        self._watches: DeploymentWatcher | None = None

    # Calls while the service runs

    @property
    def started(self) -> bool:
        """Whether the daemon has read the source at least once, even if it was invalid."""
        return self._started

    def status(self) -> DaemonStatus:
        """Return the status now."""
        self._deps.tracker.next_check(self._schedule.next(Trigger.INTERVAL) if self._schedule else None)
        return self._deps.tracker.status()

    def unhealthy(self) -> str | None:
        """Return what is wrong with the daemon itself, or None if it is healthy; remote failures do not count."""
        if self.loop is None or self._stopped.is_set():
            return None
        return self.loop.stuck()

    def admin_token(self) -> str:
        """Return the admin token of the settings; without one, the token that is created once and kept in the state folder."""
        return self._settings.current.admin_key() or self.files.token()

    def listen(self, event: events.Event) -> None:
        """Handle the events of a pass that the service needs; each one shows that the pass is alive."""
        if isinstance(event, events.WebhookRefused):
            return  # a stranger's request says nothing about the pass
        if self.loop is not None:
            self.loop.show_life()
        match event:
            case events.SourceChanged() | events.SourceUnchanged() | events.SourceFailed() | events.ReconcileFailed():
                self._started = True
            case events.SourceMoved():
                self.moved_to = event.moved_to
            case events.Resumed():
                self.suspensions.expired()
                self._wake_watches()
            case events.WatchStarted():
                self._wake_watches()
            case events.ReconcileFinished():
                self._wake_watches()
                asyncio.get_running_loop().call_later(TRIM_DELAY, process_memory.trim_malloc)
            case _:
                pass

    def _wake_watches(self) -> None:
        if self._watches is not None:
            self._watches.wake()

    def push_refused(self, refused: events.WebhookRefused) -> None:
        """Report that a push was refused."""
        self._emit(refused)

    def look_for_changes(self) -> None:
        """Look at the source, and reconcile only if it has changed."""
        self.triggers.request(Trigger.POLL)

    async def request(self, request: ReplicaRequest) -> None:
        """Do what reached this daemon, or have it done by the replica that leads. Raises `LeaseError`."""
        if self._replica is None:
            self._do(request)
        else:
            await self._replica.request(request)
            if self._replica.role is Role.STANDBY:
                self.triggers.request(request.trigger)  # It reads the source, so that it could take over.

    async def suspend(self, reason: str, seconds: float | None) -> None:
        """Stop writing until `resume`, or for ``seconds``, on all replicas. Raises `StateUnusable` and `LeaseError`."""
        if self._replica is None:
            self.suspensions.suspend(reason, seconds, self.loop)
        else:
            await self._replica.suspend(suspension_from(self._clock.now(), reason, seconds))

    async def resume(self) -> None:
        """Start writing again, beginning with a pass, on all replicas. Raises `StateUnusable` and `LeaseError`."""
        if self._replica is None:
            self.suspensions.resume(self.loop)
        else:
            await self._replica.resume()

    # What the Lease says

    def _make_replica(self, deps: ServiceDeps, replica: ReplicaDeps) -> Replica:
        def lead() -> None:
            if self.loop is not None:
                self.loop.lead()

        def stand_by() -> None:
            self._without_loop.clear()
            if self.loop is not None:
                self.loop.stand_by()

        def suspended(suspension: Suspension | None) -> None:
            self.suspensions.adopt(suspension, self.loop)
            if suspension is not None:
                self._count_as_started()

        made = Replica(
            replica,
            deps.clock,
            deps.emit,
            ReplicaCallbacks(
                on_lead=lead,
                on_stand_by=stand_by,
                on_request=self._do,
                on_suspension=suspended,
                on_change=deps.tracker.role_changed,
            ),
        )
        deps.tracker.replicated(lambda: ReplicaStatus(made.role, made.lease, made.leader))
        return made

    def _do(self, request: ReplicaRequest, on_used: Callable[[], None] = lambda: None) -> None:
        pending = PendingOverrides(request.overrides, on_used)
        if self.loop is not None:
            self.loop.override_next_pass(pending)
        else:
            self._without_loop.append(pending)
        self.triggers.request(request.trigger)

    @contextlib.asynccontextmanager
    async def _taking_part(self) -> AsyncIterator[None]:
        """Take part in the election, once a session is open, until the block ends; then give the Lease up."""
        if self._replica is None:
            yield
            return
        try:
            async with Supervisor(self._clock, self._emit) as self._election:
                yield
        finally:
            await self._replica.leave()

    def _join_election(self) -> None:
        """Take part in the election, if this process does not yet; a suspension from before there was a Lease moves there."""
        if self._replica is None or self._election is None or self._election.alive:
            return
        before = self.files.suspension()
        if before is not None and before.until is not None and before.until <= self._clock.now():
            self._forget_kept_suspension()
        elif before is not None:
            self.suspensions.adopt(before, None)
            self._replica.bring(before, self._forget_kept_suspension)
        self._election.start("lease", self._replica.run)

    def _forget_kept_suspension(self) -> None:
        with contextlib.suppress(StateUnusable):
            self.files.forget_suspension()

    # Running

    async def run(self) -> int:
        """Run until a signal, and return the exit code. Raises `StateLocked` if another daemon uses the state folder."""
        with held(self.files.folder, self._clock.now()):
            pass  # Checked before the port is bound, so that a second daemon reports which process holds the state folder.
        self.admin_token()
        self._settings.current.webhook_key()  # An unusable secret would answer 503 to every push.
        handlers = {
            signal.SIGTERM: lambda: self._stop("SIGTERM"),
            signal.SIGINT: lambda: self._stop("SIGINT"),
            signal.SIGHUP: self._reload,
            signal.SIGUSR1: self._log_state,
        }
        with signal_handlers(handlers):
            async with contextlib.AsyncExitStack() as stack:
                url = await stack.enter_async_context(self._deps.open_server())
                stack.callback(lambda: self.files.forget_address())  # noqa: PLW0108 - the folder may change meanwhile
                supervisor = await stack.enter_async_context(Supervisor(self._clock, self._emit))
                systemd = self._deps.systemd
                supervisor.start("watchdog", lambda: systemd.keep_alive(lambda: self.unhealthy() is None, self._clock))
                supervisor.start("systemd-status", self._report_to_systemd)
                late = asyncio.get_running_loop().call_later(STARTUP_TIMEOUT, self._count_as_started)
                stack.callback(late.cancel)
                await stack.enter_async_context(self._deps.open_notifications(self.files.folder))
                async with self._taking_part():
                    while not self._stopped.is_set():
                        self._reloaded.clear()
                        await self._serve(url)
        self._deps.systemd.close()
        self._emit(events.DaemonStopped())
        return int(ExitCode.OK)

    async def _serve(self, url: str | None) -> None:
        """Run the loop of one session until the daemon stops, its settings are reloaded, or its state folder is another one."""
        async with contextlib.AsyncExitStack() as stack:
            session = await self._open(stack)
            if session is None:
                return
            settings = self._settings.current
            if session.state_folder != self.files.folder:
                self.files.forget_address()
                self.files = DaemonFiles(session.state_folder)
            self.admin_token()
            self.api = session.api
            self.files.remember_address(url, session.location, settings.path, settings.env)
            self._emit(events.DaemonStarted(version=self._deps.version, source=session.location, url=url))
            backoff = FunctionBackoff(self._clock, self._deps.random)
            timing = Timing(self._clock, self._deps.random, settings.interval)
            self.loop = loop = Loop(
                session, self.triggers, backoff, timing, self._emit, self._deps.tracker.waiting, self._leadership
            )
            for pending in self._without_loop:
                loop.override_next_pass(pending)
            self._join_election()
            if self.suspensions.restore(loop):
                self._count_as_started()
            supervisor = await stack.enter_async_context(Supervisor(self._clock, self._emit))
            intervals = _intervals(settings, folder=session.is_folder)
            self._schedule = stack.enter_context(Schedule(self.triggers.request, intervals, self._clock))
            supervisor.start("clock", self._schedule.restart_when_clock_is_set)
            if session.is_folder:
                supervisor.start("watcher", self._watcher(Path(session.location), Trigger.FILES, session.functions_folder).run)
            if settings.secrets_dir is not None and settings.secrets_dir.is_dir():
                supervisor.start("secrets", self._watcher(settings.secrets_dir, Trigger.SECRETS).run)
            show = self._deps.tracker.show_unused
            supervisor.start("unused", lambda: track_unused_functions(lambda: self._unused(session), show, self._clock))
            self._watches = DeploymentWatcher(
                session,
                self._clock,
                may_look=lambda: loop.suspension is None and (self._leadership is None or self._leadership.leading),
                show=self._deps.tracker.show_watched,
                request_pass=lambda: self.triggers.request(Trigger.WATCH),
            )
            supervisor.start("watches", self._watches.run)
            self.triggers.request(Trigger.START)
            supervisor.start("loop", loop.run)
            self._deps.systemd.ready()
            await first_of(self._stopped.wait(), self._reloaded.wait(), loop.state_replaced.wait())
            await self._end(loop, supervisor)

    async def _unused(self, session: PassSession) -> tuple[str, ...] | None:
        """Return the slugs of unused functions; None at a standby, which does not know and must not ask."""
        try:
            return await session.unused()
        except NotLeading:
            return None

    async def _end(self, loop: Loop, supervisor: Supervisor) -> None:
        loop.stop()
        deadline = self._clock.monotonic() + (STOP_TIMEOUT if self._replica is None else STOP_TIMEOUT_OF_REPLICA)
        while supervisor.alive.get("loop") and self._clock.monotonic() < deadline:
            await self._clock.sleep(0.05)
        self._without_loop = loop.withdraw_overrides()
        self.loop = self._schedule = self._watches = self.api = None

    async def _open(self, stack: contextlib.AsyncExitStack) -> PassSession | None:
        """Return the session, or None if the daemon stops or its settings are reloaded first.

        If a git server does not answer, the daemon tries again with backoff. Before the first session, any other error is
        raised. After it, the daemon keeps running: settings that fail are replaced by the last ones that worked, and a missing
        source may return.
        """
        failures = 0
        while not (self._stopped.is_set() or self._reloaded.is_set()):
            settings = with_prune_grace(self._settings.current)
            self.moved_to = None
            try:
                async with interrupted_by(self._stopped, self._reloaded):
                    session = await stack.enter_async_context(self._deps.open_session(settings))
            except Interrupted:
                return None
            except KapsoSyncError as error:
                if not isinstance(error, SourceUnavailable):
                    if not self._settings.ever_proven:
                        raise
                    if self._settings.unproven:
                        self._settings.roll_back(error)
                        continue
                self._settings.announce()
                if not isinstance(error, SourceUnavailable | SourceMissing):
                    self._emit(events.ReconcileFailed(error=error.message, error_type=type(error).__name__, hint=error.hint))
                self._deps.tracker.failed(error)
                self._count_as_started()
                failures += 1
                await first_of(self._stopped.wait(), self._reloaded.wait(), self._clock.sleep(OPEN_BACKOFF.delay(failures)))
            else:
                self._deps.tracker.opened(session.location, session.owner)
                self._settings.prove()
                return session
        return None

    def _count_as_started(self) -> None:
        """Report the start to systemd and to the readiness probe, although nothing was read yet."""
        self._started = True
        self._deps.systemd.ready()

    def _watcher(self, folder: Path, trigger: Trigger, inside: Callable[[], str] = lambda: "") -> FileWatcher:
        from kapso_sync.daemon.watcher import FileWatcher  # noqa: PLC0415 - watchfiles takes 1 MB, and git needs none of it

        return FileWatcher(
            folder,
            lambda: self.triggers.request(trigger),
            debounce=self._settings.current.debounce,
            clock=self._clock,
            on_trouble=self._watch_degraded,
            inside=inside,
        )

    def _watch_degraded(self, reason: str) -> None:
        """Report why changes are noticed late, once for all watchers: they meet the same limit of the kernel."""
        if reason not in self._degraded:
            self._degraded.add(reason)
            self._emit(events.WatchDegraded(reason=reason))

    async def _report_to_systemd(self) -> None:
        while self._deps.systemd.listens:
            await self._deps.tracker.changed()
            self._deps.systemd.status(one_line(self._deps.tracker.status()))

    # Signals

    def _stop(self, reason: str) -> None:
        if self._stopped.is_set():
            # A second signal ends the process at once, which is safe because every write is journaled.
            os._exit(int(ExitCode.TERMINATED if reason == "SIGTERM" else ExitCode.INTERRUPTED))
        end_in_time(int(ExitCode.TERMINATED))
        self._emit(events.DaemonStopping(reason=reason))
        self._deps.systemd.stopping()
        self._stopped.set()

    def _reload(self) -> None:
        # No pass is requested: the running pass must not write again with the old settings, and the next session starts with a
        # pass.
        if self._settings.reload():
            self._reloaded.set()

    def _log_state(self) -> None:
        status = self.status()
        self._emit(
            events.DaemonState(
                state=one_line(status),
                revision=status.revision.id if status.revision else None,
                functions=len(status.listed),
                ready=_ready(status),
                passes=self.loop.passes if self.loop else 0,
                memory_mb=process_memory.resident_mb(),
            )
        )


def _intervals(settings: Settings, *, folder: bool) -> tuple[Interval, ...]:
    look = Interval(Trigger.RESCAN if folder else Trigger.POLL, settings.git_interval)
    return (Interval(Trigger.INTERVAL, settings.interval), look)


def with_prune_grace(settings: Settings) -> Settings:
    """Return the settings with the daemon's default prune grace if they set none."""
    return settings if settings.prune_grace is not None else replace(settings, prune_grace=PRUNE_GRACE)


def one_line(status: DaemonStatus) -> str:
    """Return the status in one line, as systemd and SIGUSR1 show it."""
    if status.suspension is not None:
        return f"suspended: {status.suspension.reason}"
    if status.role is Role.STANDBY:
        leader = status.replica.leader if status.replica is not None else None
        return f"standby: {leader} leads" if leader else "standby: no replica leads"
    last = status.last_pass
    if last is None:
        return "starting"
    if last.error is not None:
        return f"failing: {last.error}"
    revision = status.revision.short if status.revision else "unknown"
    return f"{_ready(status)} of {counted(len(status.listed), 'function')} ready at {revision}"


def _ready(status: DaemonStatus) -> int:
    return sum(function.condition(ConditionType.READY).status for function in status.listed)


@contextlib.contextmanager
def signal_handlers(handlers: Mapping[signal.Signals, Callable[[], None]]) -> Iterator[None]:
    """Call these handlers for signals instead of ending the process, until the block ends; needs a running event loop."""
    loop = asyncio.get_running_loop()
    for number, handler in handlers.items():
        loop.add_signal_handler(number, handler)
    try:
        yield
    finally:
        for number in handlers:
            loop.remove_signal_handler(number)
