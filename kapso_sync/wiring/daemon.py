"""The daemon, put together: triggers, loop, server, signals; it runs until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TextIO

from kapso_sync import __version__
from kapso_sync.clock import SystemClock
from kapso_sync.daemon import process_memory
from kapso_sync.daemon.backoff import FunctionBackoff
from kapso_sync.daemon.loop import Loop, Timing
from kapso_sync.daemon.schedule import Interval, Schedule
from kapso_sync.daemon.supervisor import Supervisor
from kapso_sync.daemon.systemd import SystemdNotifier
from kapso_sync.daemon.triggers import FILES, INTERVAL, POLL, RESCAN, SECRETS, START, TriggerQueue
from kapso_sync.daemon.unused_functions import track_unused_functions
from kapso_sync.daemon.watcher import FileWatcher
from kapso_sync.errors import ConfigError, ExitCode, KapsoSyncError, SourceMissing, SourceUnavailable, StateUnusable
from kapso_sync.model import events
from kapso_sync.model.status import ConditionType, DaemonStatus, Suspension
from kapso_sync.settings import Settings
from kapso_sync.sources import SourceKind
from kapso_sync.status.tracker import StatusTracker
from kapso_sync.store.daemon_files import DaemonFiles
from kapso_sync.store.lock import held
from kapso_sync.telemetry import Redactor
from kapso_sync.telemetry.metrics import Metrics
from kapso_sync.wiring.notifications import run_notifications
from kapso_sync.wiring.server import open_server
from kapso_sync.wiring.session import EventBus, PassOverrides, Session, find_state_folder, open_session

FIRST_WAIT, LONGEST_WAIT = 5.0, 60.0
"""Seconds between attempts to reach a git server that does not answer when the daemon starts."""

SILENT = 60.0
"""Seconds without a sign of life after which the loop counts as stuck."""

STARTED = 20.0
"""Seconds after which we count as started, even if the git server keeps us waiting: nothing remote keeps a daemon from it."""
PRUNE_GRACE = 600.0
"""Seconds a function must be absent from git before the daemon deletes it, where the settings do not say."""

GRACE = 6.0
"""Seconds that a pass gets to end when the daemon is told to stop; what is in flight then is cut off, and journaled."""


@dataclass
class Daemon:
    """Everything that lives as long as the process; what depends on settings is made anew when they are read again."""

    load: Callable[[], Settings]
    stream: TextIO
    settings: Settings
    clock: SystemClock = field(default_factory=SystemClock)
    bell: TriggerQueue = field(default_factory=TriggerQueue)
    stopped: asyncio.Event = field(default_factory=asyncio.Event)
    reloaded: asyncio.Event = field(default_factory=asyncio.Event)
    loop: Loop | None = None
    looked: bool = False

    def __post_init__(self) -> None:
        self.kept = DaemonFiles(find_state_folder(self.settings))
        source = self.settings.source or str(Path.cwd())
        redactor = Redactor()
        self.board = StatusTracker(self.clock, __version__, source, redact=redactor.text)
        self.metrics = Metrics(__version__, self.status)
        self.logging = self._make_logging(redactor)
        self.notify = SystemdNotifier()
        self.schedule: Schedule | None = None
        self.proven: Settings | None = None

    def _make_logging(self, redactor: Redactor) -> EventBus:
        others = (self.board, self.metrics, self._hear)
        return EventBus(self.settings, self.stream, *others, quiet=True, redactor=redactor)

    # What people ask for

    def status(self) -> DaemonStatus:
        """Return how things stand."""
        self.board.next_check(self.schedule.next(INTERVAL) if self.schedule else None)
        return self.board.status()

    def trigger(self, name: str) -> None:
        """Ask for a look."""
        self.bell.ring(name)

    def lift(self, slugs: Sequence[str]) -> None:
        """Let what is in quarantine be tried again by the next pass."""
        if self.loop is not None:
            self.loop.lift(slugs)

    def suspend(self, reason: str, seconds: float | None) -> None:
        """Write nothing until `resume`, or for so many seconds; a restart does not end it."""
        now = self.clock.now()
        suspension = Suspension(reason, now, None if seconds is None else now + timedelta(seconds=seconds))
        self.kept.remember_suspension(suspension)
        self.board.suspended(suspension)
        if self.loop is not None:
            self.loop.suspend(suspension)

    def resume(self) -> None:
        """Write again, and look at once."""
        self.kept.forget_suspension()
        self.board.suspended(None)
        if self.loop is not None:
            self.loop.resume()

    def unhealthy(self) -> str | None:
        """Return what is wrong with the daemon itself, or None; nothing remote counts."""
        if self.loop is None or self.stopped.is_set():
            return None
        silent = self.loop.silent_for()
        return f"the loop has been silent for {silent:.0f} s" if silent > SILENT else None

    def admin_token(self) -> str:
        """Return the admin token: the settings', else one that is made and kept in the state folder, for its owner's eyes."""
        return self.settings.admin_key() or self.kept.token()

    # Running

    async def run(self) -> int:
        """Run until a signal; return the exit code."""
        with held(self.kept.folder, self.clock.now()):
            pass  # a second daemon is told who holds the state folder, rather than that its port is taken
        self.admin_token()
        with self._signals():
            async with contextlib.AsyncExitStack() as stack:
                url = await stack.enter_async_context(open_server(self))
                stack.callback(lambda: self.kept.forget_address())  # noqa: PLW0108 - it may have moved
                supervisor = await stack.enter_async_context(Supervisor(self.clock, self._emit))
                supervisor.start("notify", lambda: self.notify.keep_alive(lambda: self.unhealthy() is None, self.clock))
                supervisor.start("reporter", self._report)
                late = asyncio.get_running_loop().call_later(STARTED, self._started)
                stack.callback(late.cancel)
                await stack.enter_async_context(run_notifications(self, self.kept.folder))
                while not self.stopped.is_set():
                    self.reloaded.clear()
                    await self._serve(url)
        self.notify.close()
        self._emit(events.DaemonStopped())
        return int(ExitCode.OK)

    async def _serve(self, url: str | None) -> None:
        """Keep one source in force until the daemon stops or its settings are read again."""
        async with contextlib.AsyncExitStack() as stack:
            session = await self._open(stack)
            if session is None:
                return
            if session.place.folder != self.kept.folder:
                self.kept.forget_address()
                self.kept = DaemonFiles(session.place.folder)
                self.admin_token()
            self.kept.remember_address(url)
            self._emit(events.DaemonStarted(version=__version__, source=session.place.spec.location, url=url))
            backoff = FunctionBackoff(self.clock, random.random)
            timing = Timing(self.clock, random.random, self.settings.interval)
            self.loop = loop = Loop(session, self.bell, backoff, timing, self._emit, self.board.waiting)
            self._recall_suspension(loop)
            supervisor = await stack.enter_async_context(Supervisor(self.clock, self._emit))
            self.schedule = schedule = stack.enter_context(Schedule(self.bell.ring, self._intervals(session), self.clock))
            supervisor.start("clock", schedule.mind_the_clock)
            if session.place.spec.kind is SourceKind.FOLDER:
                supervisor.start("watcher", self._watcher(Path(session.place.spec.location), FILES).run)
            if self.settings.secrets_dir.is_dir():
                supervisor.start("secrets", self._watcher(self.settings.secrets_dir, SECRETS).run)
            supervisor.start("usage", lambda: track_unused_functions(session.unused, self.board.show_unused, self.clock))
            self.bell.ring(START)
            supervisor.start("loop", loop.run)
            self.notify.ready()
            await _first(self.stopped.wait(), self.reloaded.wait())
            await self._end(loop, supervisor)

    async def _end(self, loop: Loop, supervisor: Supervisor) -> None:
        loop.stop()
        deadline = self.clock.monotonic() + GRACE
        while supervisor.alive.get("loop") and self.clock.monotonic() < deadline:
            await self.clock.sleep(0.05)
        self.loop = self.schedule = None

    async def _open(self, stack: contextlib.AsyncExitStack) -> Session | None:
        """Return the session, or None once the daemon stops or its settings are read again.

        A git server that does not answer is asked again, later each time. Once a session was had, nothing is final any more:
        settings that make none give way to those that did, and what is missing may come back.
        """
        wait = FIRST_WAIT
        while not (self.stopped.is_set() or self.reloaded.is_set()):
            try:
                async with _until(self.stopped, self.reloaded):
                    opened = open_session(patient(self.settings), PassOverrides(), self.logging, writes=True, board=self.board)
                    session = await stack.enter_async_context(opened)
            except _ToldError:
                return None
            except KapsoSyncError as error:
                if self.proven is None and not isinstance(error, SourceUnavailable):
                    raise
                if self.proven not in (None, self.settings) and not isinstance(error, SourceUnavailable):
                    self._reject(error)
                    continue
                if not isinstance(error, SourceUnavailable | SourceMissing):
                    self._emit(events.ReconcileFailed(error=error.message, error_type=type(error).__name__, hint=error.hint))
                self.board.failed(error)
                self._started()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await _first(self.stopped.wait(), self.reloaded.wait())
                wait = min(wait * 2, LONGEST_WAIT)
            else:
                self.board.source, self.board.owner = session.place.spec.location, session.place.owner
                self.proven = self.settings
                return session
        return None

    def _reject(self, error: KapsoSyncError) -> None:
        """Go on with the settings of before."""
        if self.proven is not None:
            self.settings = self.proven
        self._emit(events.SettingsRejected(error=error.message, error_type=type(error).__name__, hint=error.hint))

    def _started(self) -> None:
        """Count as started: whoever waits for that, systemd or a Pod, goes on."""
        self.looked = True
        self.notify.ready()

    def _hear(self, event: events.Event) -> None:
        """Take note that a first look was taken, whatever it showed, that a suspension ended by itself, that a pass is over."""
        match event:
            case events.SourceChanged() | events.SourceUnchanged() | events.ReconcileFailed():
                self.looked = True
            case events.Resumed():
                self._end_suspension()
            case events.ReconcileFinished():
                # In a moment, when what the pass held is free; it costs a few milliseconds.
                asyncio.get_running_loop().call_later(1.0, process_memory.trim_malloc)
            case _:
                pass

    def _emit(self, event: events.Event) -> None:
        self.logging.emit(event)

    def _intervals(self, session: Session) -> tuple[Interval, ...]:
        git = session.place.spec.kind is SourceKind.GIT
        look = Interval(POLL, self.settings.git_interval) if git else Interval(RESCAN, self.settings.git_interval)
        return (Interval(INTERVAL, self.settings.interval), look)

    def _watcher(self, folder: Path, trigger: str) -> FileWatcher:
        return FileWatcher(
            folder,
            lambda: self.bell.ring(trigger),
            debounce=self.settings.debounce,
            clock=self.clock,
            on_trouble=lambda reason: self._emit(events.WatchDegraded(reason=reason)),
        )

    async def _report(self) -> None:
        """Tell systemd how things stand."""
        while True:
            await self.board.changed()
            self.notify.status(one_line(self.board.status()))

    # Signals

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        handlers: dict[signal.Signals, Callable[[], None]] = {
            signal.SIGTERM: lambda: self._stop("SIGTERM"),
            signal.SIGINT: lambda: self._stop("SIGINT"),
            signal.SIGHUP: self._reload,
            signal.SIGUSR1: self._tell_state,
        }
        for number, handler in handlers.items():
            loop.add_signal_handler(number, handler)
        try:
            yield
        finally:
            for number in handlers:
                loop.remove_signal_handler(number)

    def _stop(self, reason: str) -> None:
        if self.stopped.is_set():
            # A second signal: everything is journaled, so that ending at once does no harm.
            os._exit(int(ExitCode.TERMINATED if reason == "SIGTERM" else ExitCode.INTERRUPTED))
        self._emit(events.DaemonStopping(reason=reason))
        self.notify.stopping()
        self.stopped.set()

    def _reload(self) -> None:
        before = self.settings
        try:
            self.settings = self.load()
        except ConfigError as error:
            self._reject(error)
            return
        if (before.log_level, before.log_format) != (self.settings.log_level, self.settings.log_format):
            self.logging = self._make_logging(self.logging.redactor)
        # Nobody rings: what runs now must not act once more by the settings of before; the next session begins with a look.
        self._emit(events.SettingsReloaded())
        self.reloaded.set()

    def _tell_state(self) -> None:
        status = self.status()
        ready = sum(function.condition(ConditionType.READY).status for function in status.functions)
        self.logging.emit(
            events.DaemonState(
                state=one_line(status),
                revision=status.revision.id if status.revision else None,
                functions=len(status.functions),
                ready=ready,
                passes=self.loop.passes if self.loop else 0,
                memory_mb=process_memory.resident_mb(),
            )
        )

    def _recall_suspension(self, loop: Loop) -> None:
        """Go on with a suspension of before; one that was asked for in another state folder counts as well."""
        suspension = self.board.suspension or self.kept.suspension()
        if suspension is None or (suspension.until is not None and suspension.until <= self.clock.now()):
            self._end_suspension()
            return
        self.kept.remember_suspension(suspension)
        self.board.suspended(suspension)
        self._started()
        loop.suspend(suspension)

    def _end_suspension(self) -> None:
        self.board.suspended(None)
        with contextlib.suppress(StateUnusable):
            self.kept.forget_suspension()


def patient(settings: Settings) -> Settings:
    """Return the settings with the daemon's own grace, where they name none."""
    return settings if settings.prune_grace is not None else settings.model_copy(update={"prune_grace": PRUNE_GRACE})


def one_line(status: DaemonStatus) -> str:
    """Return how things stand in one line, as systemd and SIGUSR1 show it."""
    if status.suspension is not None:
        return f"suspended: {status.suspension.reason}"
    last = status.last_pass
    if last is None:
        return "starting"
    if last.error is not None:
        return f"failing: {last.error}"
    ready = sum(function.condition(ConditionType.READY).status for function in status.functions)
    revision = status.revision.short if status.revision else "unknown"
    return f"{ready} of {len(status.functions)} functions ready at {revision}"


async def _first(*waits: Awaitable[object]) -> None:
    """Wait until one of these is over, and let go of the others."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _ToldError(Exception):
    """What was awaited is not wanted any more."""


@contextlib.asynccontextmanager
async def _until(*orders: asyncio.Event) -> AsyncIterator[None]:
    """Cut the block off with `_ToldError` once one of these is set."""

    async def watch() -> None:
        await _first(*(order.wait() for order in orders))
        deadline.reschedule(asyncio.get_running_loop().time())

    deadline = asyncio.timeout(None)
    try:
        async with deadline:
            watcher = asyncio.create_task(watch(), name="orders")
            try:
                yield
            finally:
                watcher.cancel()
                await asyncio.gather(watcher, return_exceptions=True)
    except TimeoutError as error:
        if deadline.expired():
            raise _ToldError from error
        raise
