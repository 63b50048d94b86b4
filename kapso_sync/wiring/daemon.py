"""Builds the daemon from its settings."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from kapso_sync import __version__
from kapso_sync.clock import SystemClock
from kapso_sync.daemon.control import DaemonController
from kapso_sync.daemon.service import DaemonService, ServiceDeps
from kapso_sync.daemon.settings_reload import SettingsReloader
from kapso_sync.daemon.systemd import SystemdNotifier
from kapso_sync.settings import Settings
from kapso_sync.status.tracker import StatusTracker
from kapso_sync.telemetry.metrics import Metrics
from kapso_sync.wiring.engine import PassOverrides, log_settings, make_event_bus, open_session
from kapso_sync.wiring.notifications import NotificationDeps, run_notifications
from kapso_sync.wiring.server import open_server
from kapso_sync.wiring.source import find_state_folder


def make_daemon(load: Callable[[], Settings], stream: TextIO) -> DaemonService:
    """Return the daemon; it logs to ``stream``. ``load`` reads the settings, now and at each SIGHUP; raises `ConfigError`."""
    clock = SystemClock()
    initial = load()
    bus = make_event_bus(initial, stream, quiet=True)
    settings = SettingsReloader(initial, load, lambda new: bus.configure(log_settings(new)), bus.emit)
    source = initial.source or str(Path.cwd())
    tracker = StatusTracker(clock, __version__, source, redact=bus.redactor.text)
    notifications = NotificationDeps(lambda: settings.current, tracker, bus.redactor, clock, bus.emit)
    service = DaemonService(
        ServiceDeps(
            clock=clock,
            random=random.random,
            emit=bus.emit,
            tracker=tracker,
            settings=settings,
            systemd=SystemdNotifier(),
            open_session=lambda current: open_session(current, PassOverrides(), bus, writes=True, tracker=tracker),
            open_server=lambda: open_server(settings.current.listen, control, clock),
            open_notifications=lambda folder: run_notifications(notifications, folder),
            version=__version__,
        ),
        find_state_folder(initial),
    )
    metrics = Metrics(__version__, service.status)
    control = DaemonController(service, settings, metrics=metrics.exposition, changed=tracker.changed, passed=tracker.passed)
    bus.add(tracker, metrics, service.listen)
    return service
