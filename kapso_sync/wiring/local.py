"""A folder of functions for work on it at home: read again whenever a file moves, and no Kapso in sight."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from kapso_sync.api import parse_base_url
from kapso_sync.clock import SystemClock
from kapso_sync.daemon.watcher import FileWatcher
from kapso_sync.errors import UsageError
from kapso_sync.model import events
from kapso_sync.model.desired import Desired
from kapso_sync.model.state import ReconcilerState
from kapso_sync.reconcile.desired import DesiredBuilder
from kapso_sync.session import ResolvedSource
from kapso_sync.settings import Settings
from kapso_sync.sources import SourceKind, parse_source
from kapso_sync.store.builds import BuildFolder
from kapso_sync.telemetry import EventBus
from kapso_sync.wiring.building import make_desired_builder, make_secret_values
from kapso_sync.wiring.source import resolve_source


class LocalFolder:
    """The settings' folder, and ``secrets`` to read their values with. What did not change is not built again."""

    def __init__(self, place: ResolvedSource, desire: DesiredBuilder, settings: Settings, logging: EventBus) -> None:
        self.secrets = make_secret_values(settings, logging.redactor, None).reader
        self._place = place
        self._desire = desire
        self._debounce = settings.debounce
        self._emit = logging.emit

    @property
    def where(self) -> str:
        """The folder, absolute."""
        return self._place.spec.location

    async def read(self) -> Desired:
        """Return what the folder says now; raises `KapsoSyncError`."""
        return await self._desire(await self._place.source.fetch(), ReconcilerState())

    async def watch(self, on_change: Callable[[], None]) -> None:
        """Call back after each burst of changes, until cancelled."""
        watcher = FileWatcher(
            Path(self.where),
            on_change,
            debounce=self._debounce,
            clock=SystemClock(),
            on_trouble=lambda reason: self._emit(events.WatchDegraded(reason=reason)),
        )
        await watcher.run()


async def open_local_folder(settings: Settings, logging: EventBus) -> LocalFolder:
    """Return the settings' source, which must be a folder; raises `UsageError` for another, and `ConfigError`."""
    spec = parse_source(settings.source or ".", branch=settings.branch, ref=settings.ref, path=settings.path, cwd=Path.cwd())
    if spec.kind is not SourceKind.FOLDER:
        raise UsageError(
            f"{spec.location} is no folder to work in", hint="clone it, and name the functions folder in the clone"
        )
    base_url = parse_base_url(settings.api_base_url, allow_http=settings.allow_http)
    place = await resolve_source(settings, base_url, logging.emit, None)
    builds = BuildFolder(place.folder, SystemClock().now(), writes=False)
    return LocalFolder(place, make_desired_builder(settings, place.spec, builds), settings, logging)
