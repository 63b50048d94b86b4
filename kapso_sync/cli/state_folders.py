"""Finds the state folder that a command means: that of its SOURCE, of the daemon that runs, or the only one that knows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from kapso_sync.errors import UsageError
from kapso_sync.settings import Settings
from kapso_sync.store.daemon_files import DaemonFiles, RunningDaemon
from kapso_sync.store.database import read_last_pass
from kapso_sync.store.folder import is_private
from kapso_sync.wiring.folder import find_state_folder, source_spec, state_root


def state_folders(settings: Settings) -> tuple[Path, ...]:
    """Return every state folder of this user, without those that others may have written."""
    root = state_root(settings)
    return tuple(sorted(folder for folder in root.iterdir() if folder.is_dir() and is_private(folder))) if root.is_dir() else ()


def source_of(folder: Path) -> str | None:
    """Return the source that a state folder belongs to, or None if it recorded no pass."""
    source = (read_last_pass(folder) or {}).get("source")
    return source if isinstance(source, str) else None


def described(folder: Path) -> str:
    """Return the source of a state folder, whose functions it has there, and where it is, for people to choose."""
    last = read_last_pass(folder) or {}
    owner = last.get("owner")
    return f"{last.get('source') or folder.name}" + (f" as {owner}" if owner else "") + f" (state folder {folder})"


def running_daemons(settings: Settings) -> tuple[RunningDaemon, ...]:
    """Return the daemons of this user that run; where the settings name a path or an environment, those that serve it."""
    found = [DaemonFiles(folder).daemon() for folder in state_folders(settings)]
    return tuple(
        daemon
        for daemon in found
        if daemon is not None and settings.path in (None, daemon.path) and settings.env in (None, daemon.env)
    )


def find_daemon_folder(settings: Settings) -> Path:
    """Return the state folder of the settings' source; without a source, that of the only daemon of this user with a server.

    The current folder is the source if a daemon of it runs, or if none runs at all. A daemon of the same source counts if it
    was given another API base and this command none. Raises `UsageError` if several daemons run.
    """
    own = find_state_folder(settings)
    if own.exists() and (settings.source is not None or DaemonFiles(own).daemon() is not None):
        return own
    running = [daemon for daemon in running_daemons(settings) if daemon.url is not None]
    if settings.source is not None:
        if "api_base_url" in settings.origin.given:
            return own
        wanted = source_spec(settings).location, settings.path, settings.env
        running = [daemon for daemon in running if (daemon.source, daemon.path, daemon.env) == wanted]
    return _only(running, own)


def find_known_folder(settings: Settings, knows: Callable[[Path], bool]) -> Path:
    """Return the folder of `find_daemon_folder`, but without a source the only one that ``knows``: of a daemon, else of any.

    If none knows, it is that of the current folder, which may be missing. Raises `UsageError` if several do.
    """
    if settings.source is not None:
        return find_daemon_folder(settings)
    own = find_state_folder(settings)
    running = [daemon for daemon in running_daemons(settings) if knows(daemon.folder)]
    if running:
        return own if own in [daemon.folder for daemon in running] else _only(running, own)
    others = [] if knows(own) else [other for other in state_folders(settings) if knows(other)]
    if len(others) > 1:
        names = "; ".join(map(described, others))
        hint = "name the SOURCE of one, with its --path, --env and --env-file, or set KAPSO_SYNC_SOURCE"
        raise UsageError(f"several sources were synced: {names}", hint=hint)
    return others[0] if others else own


def _only(running: Sequence[RunningDaemon], own: Path) -> Path:
    """Return the folder of the only daemon, or ``own`` if there is none. Raises `UsageError` if there are several."""
    if len(running) > 1:
        names = "; ".join(map(str, running))
        hint = "name the SOURCE of one, with its --path and --env, or set KAPSO_SYNC_SOURCE"
        raise UsageError(f"several daemons run: {names}", hint=hint)
    return running[0].folder if running else own
