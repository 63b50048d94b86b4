"""The daemon, put together: triggers, loop, server, signals; it runs until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import secrets
import signal
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TextIO

from kapso_sync import __version__
from kapso_sync.clock import SystemClock
from kapso_sync.daemon.backoff import Backoff
from kapso_sync.daemon.bell import FILES, INTERVAL, PERSON, POLL, RESCAN, START, Bell
from kapso_sync.daemon.loop import Loop, Timing
from kapso_sync.daemon.notify import Notify
from kapso_sync.daemon.schedule import Every, Schedule
from kapso_sync.daemon.supervisor import Supervisor
from kapso_sync.daemon.watcher import FileWatcher
from kapso_sync.errors import ConfigError, ExitCode, SourceUnavailable, StateUnusable
from kapso_sync.model import events
from kapso_sync.model.status import ConditionType, Status, Suspension
from kapso_sync.settings import Settings
from kapso_sync.sources import SourceKind
from kapso_sync.telemetry import Redactor, StatusBoard
from kapso_sync.telemetry.metrics import Metrics
from kapso_sync.wiring.http import open_server
from kapso_sync.wiring.session import Exceptions, Logging, Session, find_state_folder, open_session
from kapso_sync.wiring.usage import watch_usage

TOKEN_NAME = "admin-token"  # noqa: S105 - a file's name
ADDRESS_NAME = "daemon.json"
FIRST_WAIT, LONGEST_WAIT = 5.0, 60.0
"""Seconds between attempts to reach a git server that does not answer when the daemon starts."""

SILENT = 60.0
"""Seconds without a sign of life after which the loop counts as stuck."""

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
    bell: Bell = field(default_factory=Bell)
    stopped: asyncio.Event = field(default_factory=asyncio.Event)
    reloaded: asyncio.Event = field(default_factory=asyncio.Event)
    loop: Loop | None = None
    looked: bool = False

    def __post_init__(self) -> None:
        self.folder = find_state_folder(self.settings)
        source = self.settings.source or str(Path.cwd())
        redactor = Redactor()
        self.board = StatusBoard(self.clock, __version__, source, redact=redactor.text)
        self.metrics = Metrics(__version__, self.status)
        self.logging = Logging(self.settings, self.stream, self.board, self.metrics, quiet=True, redactor=redactor)
        self.notify = Notify()
        self.schedule: Schedule | None = None
        self.suspension_file = self.folder / "suspended.json"

    # What people ask for

    def status(self) -> Status:
        """Return how things stand."""
        self.board.next_check(self.schedule.next(INTERVAL) if self.schedule else None)
        return self.board.status()

    def trigger(self, name: str) -> None:
        """Ask for a look."""
        self.bell.ring(name)

    def suspend(self, reason: str, seconds: float | None) -> None:
        """Write nothing until `resume`, or for so many seconds; a restart does not end it."""
        now = self.clock.now()
        suspension = Suspension(reason, now, None if seconds is None else now + timedelta(seconds=seconds))
        self._remember_suspension(suspension)
        if self.loop is not None:
            self.loop.suspend(suspension)

    def resume(self) -> None:
        """Write again, and look at once."""
        self._remember_suspension(None)
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
        return self.settings.admin_key() or _kept_token(self.folder / TOKEN_NAME)

    # Running

    async def run(self) -> int:
        """Run until a signal; return the exit code."""
        self.admin_token()
        with self._signals():
            async with contextlib.AsyncExitStack() as stack:
                url = await stack.enter_async_context(open_server(self))
                stack.callback(self._forget_address)
                while not self.stopped.is_set():
                    self.reloaded.clear()
                    await self._serve(url)
        self.notify.close()
        self.logging.emit(events.DaemonStopped())
        return int(ExitCode.OK)

    async def _serve(self, url: str | None) -> None:
        """Keep one source in force until the daemon stops or its settings are read again."""
        async with contextlib.AsyncExitStack() as stack:
            session = await self._open(stack)
            if session is None:
                return
            self._remember_address(url)
            self.logging.emit(events.DaemonStarted(version=__version__, source=session.place.spec.location, url=url))
            backoff = Backoff(self.clock, random.random)
            timing = Timing(self.clock, random.random, self.settings.interval)
            self.loop = loop = Loop(session, self.bell, backoff, timing, self.logging.emit, self.board.waiting)
            self._recall_suspension(loop)
            supervisor = await stack.enter_async_context(Supervisor(self.clock, self.logging.emit))
            self.schedule = stack.enter_context(Schedule(self.bell.ring, self._intervals(session)))
            if session.place.spec.kind is SourceKind.FOLDER:
                supervisor.start("watcher", self._watcher(session).run)
            supervisor.start("notify", lambda: self.notify.keep_alive(lambda: self.unhealthy() is None, self.clock))
            supervisor.start("reporter", self._report)
            supervisor.start("usage", lambda: watch_usage(session.unused, self.board, self.clock))
            self.bell.ring(START)
            supervisor.start("loop", loop.run)
            self.notify.ready()
            await _first(self.stopped.wait(), self.reloaded.wait())
            await self._end(loop, supervisor)

    async def _end(self, loop: Loop, supervisor: Supervisor) -> None:
        if self.stopped.is_set():
            self.notify.stopping()
        loop.stop()
        deadline = self.clock.monotonic() + GRACE
        while supervisor.alive.get("loop") and self.clock.monotonic() < deadline:
            await self.clock.sleep(0.05)
        self.loop = self.schedule = None

    async def _open(self, stack: contextlib.AsyncExitStack) -> Session | None:
        """Return the session; a git server that does not answer is asked again, later each time, until the daemon stops."""
        wait = FIRST_WAIT
        while not self.stopped.is_set():
            try:
                session = await stack.enter_async_context(
                    open_session(patient(self.settings), Exceptions(), self.logging, writes=True, board=self.board)
                )
            except SourceUnavailable as error:
                self.board.failed(error)
                self.looked = True
                self.notify.ready()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await _first(self.stopped.wait(), self.reloaded.wait())
                wait = min(wait * 2, LONGEST_WAIT)
            else:
                self.board.source, self.board.owner = session.place.spec.location, session.place.owner
                return session
        return None

    def _intervals(self, session: Session) -> tuple[Every, ...]:
        git = session.place.spec.kind is SourceKind.GIT
        look = Every(POLL, self.settings.git_interval) if git else Every(RESCAN, self.settings.git_interval)
        return (Every(INTERVAL, self.settings.interval), look)

    def _watcher(self, session: Session) -> FileWatcher:
        return FileWatcher(
            Path(session.place.spec.location),
            lambda: self.bell.ring(FILES),
            debounce=self.settings.debounce,
            clock=self.clock,
            on_trouble=lambda reason: self.logging.emit(events.WatchDegraded(reason=reason)),
        )

    async def _report(self) -> None:
        """Tell systemd how things stand, and note that a first look was taken."""
        while True:
            await self.board.changed()
            status = self.board.status()
            self.looked = self.looked or status.last_pass is not None
            self.notify.status(one_line(status))

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
        self.logging.emit(events.DaemonStopping(reason=reason))
        self.stopped.set()

    def _reload(self) -> None:
        try:
            self.settings = self.load()
        except ConfigError as error:
            self.logging.emit(events.SettingsRejected(error=error.message, error_type="ConfigError", hint=error.hint))
            return
        self.logging.emit(events.SettingsReloaded())
        self.bell.ring(PERSON)
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
                memory_mb=_memory(),
            )
        )

    # Files

    def _remember_suspension(self, suspension: Suspension | None) -> None:
        self.board.suspension = suspension
        if suspension is None:
            self.suspension_file.unlink(missing_ok=True)
            return
        until = suspension.until.isoformat() if suspension.until else None
        document = {"reason": suspension.reason, "since": suspension.since.isoformat(), "until": until}
        _write_private(self.suspension_file, json.dumps(document))

    def _recall_suspension(self, loop: Loop) -> None:
        try:
            kept = json.loads(self.suspension_file.read_text(encoding="utf-8"))
            until = datetime.fromisoformat(kept["until"]) if kept["until"] else None
            suspension = Suspension(str(kept["reason"]), datetime.fromisoformat(kept["since"]), until)
        except (OSError, ValueError, KeyError, TypeError):
            return
        if suspension.until is None or suspension.until > self.clock.now():
            self.board.suspension = suspension
            loop.suspend(suspension)

    def _remember_address(self, url: str | None) -> None:
        _write_private(self.folder / ADDRESS_NAME, json.dumps({"url": url, "pid": os.getpid()}))

    def _forget_address(self) -> None:
        with contextlib.suppress(OSError):
            (self.folder / ADDRESS_NAME).unlink(missing_ok=True)


def patient(settings: Settings) -> Settings:
    """Return the settings with the daemon's own grace, where they name none."""
    return settings if settings.prune_grace is not None else settings.model_copy(update={"prune_grace": PRUNE_GRACE})


def one_line(status: Status) -> str:
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


def _kept_token(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip() or _make_token(path)
    except FileNotFoundError:
        return _make_token(path)


def _make_token(path: Path) -> str:
    token = secrets.token_urlsafe(32)
    _write_private(path, token)
    return token


def _write_private(path: Path, text: str) -> None:
    """Write a file that only we can read, as a whole or not at all; raises `StateUnusable`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        Path(part).replace(path)
    except OSError as error:
        raise StateUnusable(f"{path} cannot be written: {error.strerror}", hint="make the state folder writable") from error


def _memory() -> float:
    """Return our resident memory in MB, as the kernel counts it."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return round(pages * os.sysconf("SC_PAGE_SIZE") / 1_000_000, 1)
    except (OSError, ValueError, IndexError):
        return 0.0
