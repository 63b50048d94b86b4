"""Finds the state folder that a command means: that of its SOURCE, of the daemon that runs, or the only one that knows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from kapso_sync.errors import UsageError
from kapso_sync.settings import Settings
from kapso_sync.store.daemon_files import DaemonFiles
from kapso_sync.store.database import read_last_pass
from kapso_sync.store.folder import is_private
from kapso_sync.wiring import find_state_folder
from kapso_sync.wiring.source import source_spec, state_root


def state_folders(settings: Settings) -> tuple[Path, ...]:
    """Return every state folder of this user, without those that others may have written."""
    root = state_root(settings)
    return tuple(sorted(folder for folder in root.iterdir() if folder.is_dir() and is_private(folder))) if root.is_dir() else ()


def source_of(folder: Path) -> str | None:
    """Return the source that a state folder belongs to, or None if it recorded no pass."""
    source = (read_last_pass(folder) or {}).get("source")
    return source if isinstance(source, str) else None


def described(folder: Path) -> str:
    """Return the source of a state folder and whose functions it has there, environment included, for people to choose."""
    last = read_last_pass(folder) or {}
    owner = last.get("owner")
    return f"{last.get('source') or folder.name}" + (f" as {owner}" if owner else "")


def find_daemon_folder(settings: Settings) -> Path:
    """Return the state folder of the settings' source; without a source, that of the only daemon of this user.

    The current folder is the source if a daemon of it runs, or if none runs at all. A daemon of the same source counts if it
    was given another API base and this command none. Raises `UsageError` if several daemons run.
    """
    own = find_state_folder(settings)
    if own.exists() and (settings.source is not None or DaemonFiles(own).is_running()):
        return own
    running = [folder for folder in state_folders(settings) if DaemonFiles(folder).is_running()]
    if settings.source is not None:
        wanted = source_spec(settings).location
        if "api_base_url" in settings.model_fields_set:
            return own
        running = [folder for folder in running if DaemonFiles(folder).serves(wanted, settings.path, settings.env)]
    if len(running) > 1:
        names = "; ".join(f"{folder.name} at {DaemonFiles(folder).address()}" for folder in running)
        raise UsageError(f"several daemons run: {names}", hint="name the SOURCE of one, or set KAPSO_SYNC_SOURCE")
    return running[0] if running else own


def find_known_folder(settings: Settings, knows: Callable[[Path], bool]) -> Path:
    """Return the folder of `find_daemon_folder`, or if no source is named and it does not know, the only one that does.

    Raises `UsageError` if several do.
    """
    folder = find_daemon_folder(settings)
    if settings.source is not None or knows(folder):
        return folder
    others = [other for other in state_folders(settings) if knows(other)]
    if len(others) > 1:
        names = "; ".join(map(described, others))
        hint = "name the SOURCE of one, with its --path, --env and --env-file, or set KAPSO_SYNC_SOURCE"
        raise UsageError(f"several sources were synced: {names}", hint=hint)
    return others[0] if others else folder
