"""Builds a functions folder for local development."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from kapso_sync.api.base_url import parse_base_url
from kapso_sync.clock import SystemClock
from kapso_sync.daemon.watcher import FileWatcher
from kapso_sync.errors import UsageError
from kapso_sync.local_folder import LocalFolder
from kapso_sync.model import events
from kapso_sync.settings import Settings
from kapso_sync.sources.spec import SourceKind
from kapso_sync.store.builds import BuildFolder
from kapso_sync.telemetry.event_bus import EventBus
from kapso_sync.wiring.building import make_desired_builder, make_secret_values
from kapso_sync.wiring.folder import source_spec
from kapso_sync.wiring.network import find_network
from kapso_sync.wiring.source import resolve_source


async def open_local_folder(settings: Settings, bus: EventBus) -> LocalFolder:
    """Return the settings' source, which must be a folder; raises `UsageError` for another, and `ConfigError`."""
    spec = source_spec(settings)
    if spec.kind is not SourceKind.FOLDER:
        raise UsageError(
            f"{spec.location} is not a folder to work in", hint="clone it, and name the functions folder in the clone"
        )
    clock = SystemClock()
    base_url = parse_base_url(settings.api_base_url, allow_http=settings.allow_http)
    resolved = await resolve_source(settings, find_network(settings, bus.redactor), base_url, bus.emit, None)
    builds = BuildFolder(resolved.folder, clock.now(), writes=False)

    def make_watcher(on_change: Callable[[], None]) -> FileWatcher:
        return FileWatcher(
            Path(spec.location),
            on_change,
            debounce=settings.debounce,
            clock=clock,
            on_trouble=lambda reason: bus.emit(events.WatchDegraded(reason=reason)),
            inside=resolved.home,
        )

    return LocalFolder(
        resolved.spec.location,
        resolved.source,
        make_desired_builder(settings, resolved.spec, builds),
        make_secret_values(settings, bus.redactor, None).reader,
        make_watcher,
    )
