"""Settings reload at SIGHUP: keeps the settings in effect, and rolls back settings that do not work."""

from __future__ import annotations

from collections.abc import Callable

from kapso_sync.errors import ConfigError, KapsoSyncError
from kapso_sync.model import events
from kapso_sync.settings import Settings


class SettingsReloader:
    """Holds the settings in effect, first ``initial``.

    ``load`` reads them again. ``on_change`` is called with new settings before they are used.
    """

    def __init__(
        self,
        initial: Settings,
        load: Callable[[], Settings],
        on_change: Callable[[Settings], None],
        emit: events.Listener,
    ) -> None:
        self.current = initial
        self._load = load
        self._on_change = on_change
        self._emit = emit
        self._proven: Settings | None = None
        self._unannounced = False

    def reload(self) -> bool:
        """Read the settings again, and return whether new ones are to be used.

        Invalid settings are logged, and the previous ones stay.
        """
        try:
            loaded = self._load()
            loaded.admin_key()
            loaded.webhook_key()
        except ConfigError as error:
            self._rejected(error)
            return False
        self.current = loaded
        self._on_change(self.current)
        self._unannounced = True
        return True

    def announce(self) -> None:
        """Log that settings were reloaded, once it is known that they are not rolled back at once."""
        if self._unannounced:
            self._unannounced = False
            self._emit(events.SettingsReloaded())

    @property
    def ever_proven(self) -> bool:
        """Whether any settings have worked so far."""
        return self._proven is not None

    @property
    def unproven(self) -> bool:
        """Whether the current settings have not worked yet, and earlier ones have."""
        return self._proven is not None and self._proven != self.current

    def prove(self) -> None:
        """Remember that a session was opened with the current settings."""
        self._proven = self.current
        self.announce()

    def roll_back(self, error: KapsoSyncError) -> None:
        """Roll back to the last settings that worked, and log why."""
        if self._proven is not None:
            self.current = self._proven
            self._on_change(self.current)
        self._unannounced = False
        self._rejected(error)

    def _rejected(self, error: KapsoSyncError) -> None:
        self._emit(events.SettingsRejected(error=error.message, error_type=type(error).__name__, hint=error.hint))
