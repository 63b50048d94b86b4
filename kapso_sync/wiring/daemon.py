"""Builds the daemon from its settings."""

from __future__ import annotations

import contextlib
import errno
import random
import secrets
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TextIO

from kapso_sync import __version__
from kapso_sync.advice import Advise, advice_for_latest, as_it_is
from kapso_sync.clock import SystemClock
from kapso_sync.daemon.control import DaemonController, FunctionReaders
from kapso_sync.daemon.lease import Leadership
from kapso_sync.daemon.lease_api import KubeLeaseApi, find_access
from kapso_sync.daemon.replica import ReplicaDeps
from kapso_sync.daemon.service import DaemonService, ServiceDeps
from kapso_sync.daemon.settings_reload import SettingsReloader
from kapso_sync.daemon.systemd import SystemdNotifier
from kapso_sync.errors import ConfigError
from kapso_sync.invocations.recent import RecentInvocations
from kapso_sync.model.clock import Clock
from kapso_sync.model.ports import StartLocally
from kapso_sync.server.app import make_app
from kapso_sync.server.control import DaemonControl, ServerLimits
from kapso_sync.server.serve import serving
from kapso_sync.settings import Settings
from kapso_sync.status.function_views import FunctionViews
from kapso_sync.status.tracker import StatusTracker
from kapso_sync.telemetry.metrics import Metrics
from kapso_sync.urls import is_loopback, parse_listen
from kapso_sync.wiring.engine import open_session
from kapso_sync.wiring.evidence import learn_secrets
from kapso_sync.wiring.folder import find_state_folder
from kapso_sync.wiring.log import log_settings, make_event_bus
from kapso_sync.wiring.notifications import NotificationDeps, run_notifications


def make_daemon(
    load: Callable[[], Settings],
    stream: TextIO,
    advice: Callable[[Settings], Advise] = lambda _: as_it_is,
    start_locally: StartLocally | None = None,
    *,
    colour: bool = False,
) -> DaemonService:
    """Return the daemon; it logs to ``stream``. ``load`` reads the settings, now and at each SIGHUP; raises `ConfigError`.

    ``advice`` returns what completes the commands in a text, so that they reach the daemon of these settings.
    ``start_locally`` is as in `ExecutorSettings`. ``colour``: log lines for people have colours.
    """
    clock = SystemClock()
    initial = load()

    complete = advice_for_latest(lambda: settings.current, advice)

    bus = make_event_bus(initial, stream, quiet=True, advise=complete, colour=colour)
    settings = SettingsReloader(initial, load, lambda new: bus.configure(log_settings(new, colour=colour)), bus.emit)
    source = initial.source or str(Path.cwd())
    tracker = StatusTracker(clock, __version__, source, redact=bus.redactor.text)
    replica = make_replica(initial, clock)
    notifications = NotificationDeps(lambda: settings.current, tracker, bus.redactor, clock, bus.emit, complete)
    may_call = None if replica is None else replica.leadership.check
    term = (lambda: "") if replica is None else (lambda: replica.leadership.term)
    service = DaemonService(
        ServiceDeps(
            clock=clock,
            random=random.random,
            emit=bus.emit,
            tracker=tracker,
            settings=settings,
            systemd=SystemdNotifier(),
            open_session=lambda current: open_session(
                current, bus, writes=True, tracker=tracker, start_locally=start_locally, may_call=may_call, term=term
            ),
            open_server=lambda: open_server(settings.current.listen, control, clock),
            open_notifications=lambda folder: run_notifications(notifications, folder),
            version=__version__,
            replica=replica,
        ),
        find_state_folder(initial),
    )
    metrics = Metrics(__version__, service.status)
    control = DaemonController(
        service,
        settings,
        metrics=metrics.exposition,
        changes=tracker,
        functions=FunctionReaders(
            FunctionViews(lambda: service.files.folder, bus.redactor.text),
            RecentInvocations(
                lambda: service.api,
                lambda: service.files.folder,
                clock,
                bus.redactor.text,
                lambda: learn_secrets(settings.current, bus.redactor, [service.files.folder]),
                lambda: settings.current.check_window,
            ),
        ),
        advise=complete,
    )
    bus.add(tracker, metrics, service.listen)
    return service


def make_replica(settings: Settings, clock: Clock) -> ReplicaDeps | None:
    """Return what this process needs to be one of several replicas; None: the settings name no Lease. Raises `ConfigError`."""
    access = find_access(settings)
    if access is None:
        return None
    api = KubeLeaseApi(access, settings.user_agent or f"kapso-sync/{__version__}")
    # Two processes of one name, such as a Pod's container before and after a restart, must not take each other for themselves.
    identity = f"{socket.gethostname()}_{secrets.token_hex(4)}"
    return ReplicaDeps(api, identity, Leadership(clock, identity), lambda: secrets.token_hex(6))


@contextlib.asynccontextmanager
async def open_server(address: str, control: DaemonControl, clock: Clock) -> AsyncIterator[str | None]:
    """Serve the daemon's HTTP API, and yield the URL; None if the address is empty.

    Raises `ConfigError` for an address that is not available.
    """
    if not address:
        yield None
        return
    host, port = parse_listen(address)
    limits = ServerLimits()
    app = make_app(control, clock, public=not is_loopback(host), limits=limits)
    async with contextlib.AsyncExitStack() as stack:
        try:
            url = await stack.enter_async_context(serving(app, host, port, limits=limits))
        except OSError as error:
            raise ConfigError(
                f"KAPSO_SYNC_LISTEN {address} cannot be opened: {error.strerror or error}",
                hint="is another daemon running there?" if error.errno == errno.EADDRINUSE else _LISTEN_HINT,
            ) from error
        yield url


_LISTEN_HINT = "an address of this machine and a port, for example 127.0.0.1:8321"
