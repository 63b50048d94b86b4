"""Files of the state folder that the daemon shares with its clients: admin token, address, suspension."""

from __future__ import annotations

import contextlib
import os
import secrets
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from kapso_sync.errors import StateUnusable
from kapso_sync.files import read_small
from kapso_sync.model.status import Suspension
from kapso_sync.store.json_file import PrivateJsonFile, write_private
from kapso_sync.store.lock import is_alive

TOKEN_NAME = "admin-token"  # noqa: S105 - a file's name
ADDRESS_NAME = "daemon.json"
SUSPENSION_NAME = "suspended.json"

_MAX_TOKEN_BYTES = 4096


@dataclass(frozen=True, slots=True)
class DaemonFiles:
    """The daemon's files in a state folder; every method that writes raises `StateUnusable` if it cannot."""

    folder: Path

    def token(self) -> str:
        """Return the stored admin token, and create one if there is none; raises `StateUnusable` if it cannot be read."""
        try:
            kept = self.read_token()
        except FileNotFoundError:
            kept = ""
        except OSError as error:
            raise StateUnusable(
                f"{self.folder / TOKEN_NAME} cannot be read: {error.strerror}", hint="remove it, and a new one is made"
            ) from error
        if not kept:
            kept = secrets.token_urlsafe(32)
            write_private(self.folder / TOKEN_NAME, kept)
        return kept

    def read_token(self) -> str:
        """Return the stored admin token. Raises OSError."""
        return read_small(self.folder / TOKEN_NAME, _MAX_TOKEN_BYTES).decode("utf-8", "replace").strip()

    def address(self) -> str | None:
        """Return the URL of the daemon that uses this folder, or None."""
        url = self._file(ADDRESS_NAME).read().get("url")
        return url if isinstance(url, str) else None

    def is_running(self) -> bool:
        """Return whether a daemon with a server runs on this folder; the process may have been killed without a trace here."""
        kept = self._file(ADDRESS_NAME).read()
        pid = kept.get("pid")
        return isinstance(kept.get("url"), str) and isinstance(pid, int) and is_alive(pid)

    def remember_address(self, url: str | None, source: str, path: str | None, env: str | None) -> None:
        """Store the URL of the daemon's server, and what it serves, for commands such as `reconcile`."""
        self._file(ADDRESS_NAME).write({"url": url, "pid": os.getpid(), "source": source, "path": path, "env": env})

    def serves(self, source: str, path: str | None, env: str | None) -> bool:
        """Return whether the daemon that uses this folder was started for this source."""
        kept = self._file(ADDRESS_NAME).read()
        return (kept.get("source"), kept.get("path"), kept.get("env")) == (source, path, env)

    def forget_address(self) -> None:
        """Remove the URL: the server has stopped."""
        with contextlib.suppress(OSError):
            (self.folder / ADDRESS_NAME).unlink(missing_ok=True)

    def remember_suspension(self, suspension: Suspension) -> None:
        """Keep the suspension, so that a restart does not end it."""
        until = suspension.until.isoformat() if suspension.until else None
        document = {"reason": suspension.reason, "since": suspension.since.isoformat(), "until": until}
        self._file(SUSPENSION_NAME).write({**document})

    def forget_suspension(self) -> None:
        """Remove the suspension, which is over."""
        self._file(SUSPENSION_NAME).remove()

    def suspension(self) -> Suspension | None:
        """Return the stored suspension, even if its time is over."""
        kept = self._file(SUSPENSION_NAME).read()
        try:
            until = datetime.fromisoformat(str(kept["until"])) if kept["until"] else None
            return Suspension(str(kept["reason"]), datetime.fromisoformat(str(kept["since"])), until)
        except (ValueError, KeyError):
            return None

    def _file(self, name: str) -> PrivateJsonFile:
        return PrivateJsonFile(self.folder / name)
