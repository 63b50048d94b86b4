"""Keeps the last pass as long as the next one need not be made: from its end until somebody opens the state for writing.

A process that opens it may change what a plan is made from, or be killed while it does. So the record is dropped first.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import sqlite3
from collections.abc import Mapping
from pathlib import Path

from kapso_sync.model.json_values import Json
from kapso_sync.model.settled import RecordedPass, SettledPass
from kapso_sync.store.connection import DATABASE_NAME, LATER, LOCK_TIMEOUT, read_only, writing

_KEY = "settled_pass"


def read(folder: Path) -> RecordedPass | None:
    """Return the pass that a state folder keeps, without lock and without writing; None if there is none to be relied on."""
    return read_only(folder, _current)


def take(db: sqlite3.Connection) -> RecordedPass | None:
    """Return the pass that is kept, if there is one to be relied on, and keep it no longer. Raises `sqlite3.Error`."""
    if _kept(db) is None:
        return None
    recorded = _current(db)
    with db:
        db.execute("DELETE FROM meta WHERE key = ?", (_KEY,))
    return recorded


def put(db: sqlite3.Connection, recorded: RecordedPass | None) -> None:
    """Keep a pass or none, in place of the one before, as a part of the caller's transaction. Raises `sqlite3.Error`."""
    db.execute("DELETE FROM meta WHERE key = ?", (_KEY,))
    if recorded is not None:
        text = json.dumps(dataclasses.asdict(recorded))
        db.execute("INSERT INTO meta VALUES (?, ?)", (_KEY, f"{_digest(text.encode())}\n{text}"))


def record_again(folder: Path, recorded: RecordedPass, status: Mapping[str, Json]) -> None:
    """Store the status after a pass that was not made, since it had to end like the recorded one; the caller holds the lock.

    Only people read it. Raises `StateUnusable`.
    """
    later = json.dumps({"after": recorded.recorded_at, "document": dict(status)})
    with writing(folder), contextlib.closing(sqlite3.connect(folder / DATABASE_NAME, timeout=LOCK_TIMEOUT)) as db, db:
        db.execute("PRAGMA synchronous=NORMAL")
        db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (LATER, later))


def _current(db: sqlite3.Connection) -> RecordedPass | None:
    """Return the recorded pass if no pass was begun or recorded after it: an older version does not drop the record."""
    kept = _kept(db)
    recorded = None if kept is None else _decoded(kept)
    if recorded is None or not isinstance(recorded.recorded_at, str):
        return None
    beginnings = "SELECT key, substr(CAST(value AS BLOB), 1, 200) FROM meta WHERE key IN ('last_pass', 'pass_running')"
    rows = dict(db.execute(beginnings))
    is_last = json.dumps(recorded.recorded_at).encode() in (rows.get("last_pass") or b"")
    return recorded if is_last and "pass_running" not in rows else None


def _kept(db: sqlite3.Connection) -> bytes | None:
    """Return what is kept, as bytes: SQLite raises an error for text that is not UTF-8, which no pass would get rid of."""
    row = db.execute("SELECT CAST(value AS BLOB) FROM meta WHERE key = ?", (_KEY,)).fetchone()
    return None if row is None else bytes(row[0])


def _decoded(kept: bytes) -> RecordedPass | None:
    """Return the pass. One that another version wrote otherwise, or that is damaged, is none: that costs a pass."""
    digest, _, text = kept.partition(b"\n")
    if digest.decode("ascii", "replace") != _digest(text):
        return None
    try:
        document = json.loads(text)
        return RecordedPass(**{**document, "settled": SettledPass(**document["settled"])})
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _digest(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()
