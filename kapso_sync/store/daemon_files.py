"""Files of the state folder that the daemon shares with its clients: admin token, address, suspension."""

from __future__ import annotations

import contextlib
import os
import secrets
from datetime import datetime
from pathlib import Path

from kapso_sync.dataclass import dataclass
from kapso_sync.errors import StateUnusable
from kapso_sync.files import read_small
from kapso_sync.model.status import Suspension
from kapso_sync.store.json_file import PrivateJsonFile, write_private
from kapso_sync.store.lock import is_alive, process_birth

TOKEN_NAME = "admin-token"  # noqa: S105 - a file's name
ADDRESS_NAME = "daemon.json"
SUSPENSION_NAME = "suspended.json"

_MAX_TOKEN_BYTES = 4096


@dataclass(frozen=True, slots=True)
class RunningDaemon:
    """A daemon that runs: its state folder, its address, and what it was started with. Without ``url`` it has no server."""

    folder: Path
    url: str | None = None
    source: str | None = None
    path: str | None = None
    env: str | None = None

    def __str__(self) -> str:
        """Return source, state folder and address, for people to choose."""
        given = [f"--{name} {value}" for name, value in (("path", self.path), ("env", self.env)) if value]
        at = self.url or "without a server"
        return f"{' '.join([self.source or 'a source', *given])} (state folder {self.folder}, {at})"


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

    def daemon(self) -> RunningDaemon | None:
        """Return the daemon that runs on this folder, or None; one that was killed left its file behind, and does not count."""
        kept = self._file(ADDRESS_NAME).read()
        pid, born = kept.get("pid"), kept.get("born")
        if not isinstance(pid, int) or not is_alive(pid, born if isinstance(born, str) else None):
            return None
        return RunningDaemon(self.folder, *(_text(kept.get(name)) for name in ("url", "source", "path", "env")))

    def remember_address(self, url: str | None, source: str, path: str | None, env: str | None) -> None:
        """Store the URL of the daemon's server, and what it serves, for commands such as `reconcile`."""
        pid = os.getpid()
        self._file(ADDRESS_NAME).write(
            {"url": url, "pid": pid, "born": process_birth(pid), "source": source, "path": path, "env": env}
        )

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


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
