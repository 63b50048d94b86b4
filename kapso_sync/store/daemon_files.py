"""What a daemon keeps in the state folder for itself and for who talks to it: token, address, suspension."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from kapso_sync.errors import StateUnusable
from kapso_sync.model.status import Suspension

TOKEN_NAME = "admin-token"  # noqa: S105 - a file's name
ADDRESS_NAME = "daemon.json"
SUSPENSION_NAME = "suspended.json"


@dataclass(frozen=True, slots=True)
class DaemonFiles:
    """Files of the daemon in a state folder, for its owner's eyes; what cannot be written raises `StateUnusable`."""

    folder: Path

    def token(self) -> str:
        """Return the admin token that is kept here, made when there is none."""
        path = self.folder / TOKEN_NAME
        try:
            kept = path.read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            kept = ""
        if not kept:
            kept = secrets.token_urlsafe(32)
            _write_private(path, kept)
        return kept

    def read_token(self) -> str:
        """Return the admin token that is kept here. Raises OSError."""
        return (self.folder / TOKEN_NAME).read_text(encoding="utf-8").strip()

    def address(self) -> str | None:
        """Return the URL of the daemon that uses this folder, or None if none says so."""
        try:
            url = json.loads((self.folder / ADDRESS_NAME).read_text(encoding="utf-8"))["url"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return url if isinstance(url, str) else None

    def remember_address(self, url: str | None) -> None:
        """Keep where the daemon listens, for `reconcile` and its like."""
        _write_private(self.folder / ADDRESS_NAME, json.dumps({"url": url, "pid": os.getpid()}))

    def forget_address(self) -> None:
        """Nobody listens any more."""
        with contextlib.suppress(OSError):
            (self.folder / ADDRESS_NAME).unlink(missing_ok=True)

    def remember_suspension(self, suspension: Suspension) -> None:
        """Keep it, so that a restart does not end it."""
        until = suspension.until.isoformat() if suspension.until else None
        document = {"reason": suspension.reason, "since": suspension.since.isoformat(), "until": until}
        _write_private(self.folder / SUSPENSION_NAME, json.dumps(document))

    def forget_suspension(self) -> None:
        """It is over."""
        path = self.folder / SUSPENSION_NAME
        with _writing(path):
            path.unlink(missing_ok=True)

    def suspension(self) -> Suspension | None:
        """Return the suspension that is kept, over or not."""
        try:
            kept = json.loads((self.folder / SUSPENSION_NAME).read_text(encoding="utf-8"))
            until = datetime.fromisoformat(kept["until"]) if kept["until"] else None
            return Suspension(str(kept["reason"]), datetime.fromisoformat(kept["since"]), until)
        except (OSError, ValueError, KeyError, TypeError):
            return None


def _write_private(path: Path, text: str) -> None:
    """Write a file that only we can read, as a whole or not at all."""
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
            Path(part).replace(path)
        except OSError:
            Path(part).unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StateUnusable(f"{path} cannot be written: {error.strerror}", hint="make the state folder writable") from error
