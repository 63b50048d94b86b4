"""A functions folder for local development: read again whenever a file changes, without Kapso and without a key."""

from __future__ import annotations

from collections.abc import Callable

from kapso_sync.daemon.watcher import FileWatcher
from kapso_sync.model.desired import Desired
from kapso_sync.model.ports import Source
from kapso_sync.model.state import ReconcilerState
from kapso_sync.reconcile.desired import DesiredBuilder, Reader


class LocalFolder:
    """``where`` is the folder, absolute; ``secrets`` reads the values of its secrets. Unchanged code is not built again."""

    def __init__(
        self,
        where: str,
        source: Source,
        desired: DesiredBuilder,
        secrets: Reader,
        make_watcher: Callable[[Callable[[], None]], FileWatcher],
    ) -> None:
        self.where = where
        self.secrets = secrets
        self._source = source
        self._desired = desired
        self._make_watcher = make_watcher

    async def read(self) -> Desired:
        """Return the desired state of the folder now. Raises `KapsoSyncError`."""
        return await self._desired(await self._source.fetch(), ReconcilerState())

    async def watch(self, on_change: Callable[[], None]) -> None:
        """Call ``on_change`` after each burst of changes, until cancelled."""
        await self._make_watcher(on_change).run()
