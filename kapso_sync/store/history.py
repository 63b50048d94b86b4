"""Keeps the history of each function for people: writes, times and revisions, bounded, in its own database.

Nothing depends on it: if it cannot be written, a pass continues without it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Self, TypeGuard

from kapso_sync.files import require_regular
from kapso_sync.model.events import Event, FunctionEvent
from kapso_sync.model.json_values import Json
from kapso_sync.model.source import Revision
from kapso_sync.store.connection import CACHE_KIB

HISTORY_NAME = "history.db"
MAX_REVISIONS = 200
"""Maximum number of entries of each function."""

MAX_ENTRIES = 20_000
LOCK_TIMEOUT = 1.0

RECORDED_EVENTS = frozenset(
    {
        "function.adopted",
        "function.disowned",
        "function.created",
        "function.updated",
        "function.renamed",
        "function.deleted",
        "function.backed_up",
        "deploy.succeeded",
        "deploy.failed",
        "deploy.timed_out",
        "check.passed",
        "check.failed",
        "watch.passed",
        "watch.failed",
        "rollback.started",
        "rollback.succeeded",
        "rollback.failed",
        "secret.set",
        "secret.removed",
    }
)
"""The events that are stored: actions and their results, not states that each pass reports again."""

_CREATE = """
CREATE TABLE IF NOT EXISTS history (
    id INTEGER PRIMARY KEY AUTOINCREMENT, at TEXT NOT NULL, slug TEXT NOT NULL, function_id TEXT, entry TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS history_slug ON history (slug, id);
CREATE INDEX IF NOT EXISTS history_function ON history (function_id, id);
"""

_DROP_OLD = """
DELETE FROM history WHERE slug = :slug
AND id <= (SELECT id FROM history WHERE slug = :slug ORDER BY id DESC LIMIT 1 OFFSET :kept)
"""


class History:
    """Writes the history of one state folder. ``redact`` removes secrets from it."""

    def __init__(
        self,
        folder: Path,
        now: Callable[[], datetime],
        redact: Callable[[str], str] = str,
        *,
        max_revisions: int = MAX_REVISIONS,
        max_entries: int = MAX_ENTRIES,
    ) -> None:
        self._now = now
        self._max_revisions = max_revisions
        self._max_entries = max_entries
        self._redact = redact
        self._revision: Revision | None = None
        self._db: sqlite3.Connection | None = None
        with contextlib.suppress(sqlite3.Error, OSError):
            self._db = _open(folder / HISTORY_NAME)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._db is not None:
            self._db.close()

    def at(self, revision: Revision) -> None:
        """Set the revision of the following events."""
        self._revision = revision

    def listen(self, event: Event) -> None:
        """Store an event, if it belongs to the history; never raises."""
        if self._db is None or not isinstance(event, FunctionEvent) or event.name not in RECORDED_EVENTS:
            return
        with contextlib.suppress(sqlite3.Error), self._db as db:
            slug, function_id = _storable(event.slug), event.function_id
            row = (
                self._now().isoformat(timespec="milliseconds"),
                slug,
                None if function_id is None else _storable(function_id),
                self._entry(event),
            )
            number = db.execute("INSERT INTO history (at, slug, function_id, entry) VALUES (?, ?, ?, ?)", row).lastrowid or 0
            db.execute(_DROP_OLD, {"slug": slug, "kept": self._max_revisions})
            db.execute("DELETE FROM history WHERE id <= ?", (number - self._max_entries,))

    def _entry(self, event: FunctionEvent) -> str:
        detail = {name: value for name, value in dataclasses.asdict(event).items() if name not in ("slug", "function_id")}
        revision = self._revision
        known = {"revision": revision.id, "subject": revision.subject, "author": revision.author} if revision else {}
        known |= {"described": revision.described} if revision is not None and revision.described is not None else {}
        text = json.dumps({"event": event.name, **known, **detail}, default=str)
        return self._redact(text)


def read_history(folder: Path, slug: str) -> tuple[Mapping[str, Json], ...]:
    """Return the history of a function, under all slugs that it had, the oldest entry first; reads without lock.

    Entries that cannot be read are left out.
    """
    path = folder / HISTORY_NAME
    query = """
        SELECT at, slug, function_id, entry FROM history
        WHERE slug = :slug OR function_id IN (SELECT function_id FROM history WHERE slug = :slug) ORDER BY id
    """
    try:
        if not path.exists():
            return ()
        require_regular(path)
        mode = "mode=ro" if path.with_name(f"{HISTORY_NAME}-wal").exists() else "mode=ro&immutable=1"
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True, timeout=LOCK_TIMEOUT)) as db:
            return tuple(_entries(db.execute(query, {"slug": _storable(slug)})))
    except (OSError, sqlite3.Error):
        return ()


def _storable(text: str) -> str:
    """Return a text as SQLite can hold it: half of a surrogate pair, which JSON can carry, is spelled out."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _entries(rows: Iterable[tuple[str, str, str | None, str]]) -> Iterator[Mapping[str, Json]]:
    for at, slug, function_id, text in rows:
        with contextlib.suppress(ValueError, TypeError, RecursionError):
            entry = json.loads(text)
            if _is_entry(entry):
                yield {"at": at, "slug": slug, "function_id": function_id, **entry}


def _is_entry(entry: object) -> TypeGuard[dict[str, Json]]:
    """Return whether this is what `History` writes, as far as every reader relies on it."""
    if not isinstance(entry, dict) or not isinstance(entry.get("event"), str):
        return False
    return all(isinstance(entry.get(name), str | None) for name in ("revision", "subject", "author", "described"))


def _open(path: Path) -> sqlite3.Connection:
    require_regular(path)
    db = sqlite3.connect(path, timeout=LOCK_TIMEOUT)
    try:
        path.chmod(0o600)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=NORMAL")
        db.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
        db.executescript(_CREATE)
    except sqlite3.DatabaseError as error:
        db.close()
        if isinstance(error, sqlite3.OperationalError):
            raise
        # It is torn, and nothing depends on it.
        path.unlink()
        return _open(path)
    return db
