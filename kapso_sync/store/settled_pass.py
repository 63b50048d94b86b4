"""Keeps the last pass as long as the next one need not be made: from its end until somebody opens the state for writing.

A process that opens it may change what a plan is made from, or be killed while it does. So the record is dropped first.
"""

from __future__ import annotations

import contextlib
import dataclasses
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
        db.execute("INSERT INTO meta VALUES (?, ?)", (_KEY, json.dumps(dataclasses.asdict(recorded))))


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
    rows = dict(db.execute("SELECT key, substr(value, 1, 200) FROM meta WHERE key IN ('last_pass', 'pass_running')"))
    is_last = json.dumps(recorded.recorded_at) in rows.get("last_pass", "")
    return recorded if is_last and "pass_running" not in rows else None


def _kept(db: sqlite3.Connection) -> bytes | None:
    """Return what is kept, as bytes: SQLite raises an error for text that is not UTF-8, which no pass would get rid of."""
    row = db.execute("SELECT CAST(value AS BLOB) FROM meta WHERE key = ?", (_KEY,)).fetchone()
    return None if row is None else bytes(row[0])


def _decoded(text: bytes) -> RecordedPass | None:
    """Return the pass; one that another version wrote otherwise is none, which costs a pass and nothing else."""
    try:
        document = json.loads(text)
        recorded = RecordedPass(**{**document, "settled": SettledPass(**document["settled"])})
        shown = (recorded.status["revision"], recorded.status["last_pass"], recorded.status["last_pass"]["summary"])
        known = isinstance(document["settled"]["functions"], int) and all(isinstance(part, dict) for part in shown)
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return recorded if known else None
