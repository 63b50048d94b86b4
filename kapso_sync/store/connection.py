"""Opens the database of a state folder for reading, and holds what its readers and its writer have in common."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from kapso_sync.errors import StateUnusable
from kapso_sync.files import require_regular
from kapso_sync.store.writing_hint import writing_hint

DATABASE_NAME = "state.db"
SCHEMA = 1
LOCK_TIMEOUT = 5.0
"""Seconds to wait for another process's transaction. Only readers can hold one, since writers hold the lock."""

CACHE_KIB = 64
"""Most KiB of the database that SQLite keeps in memory: it is small, and read as a whole or row by row."""

LATER = "later_pass"
"""The key of the status after a pass that left the functions of the last recorded pass as they were."""

_T = TypeVar("_T")


def read_only(folder: Path, query: Callable[[sqlite3.Connection], _T]) -> _T | None:
    """Return what a query finds in a state folder, without lock and without writing; None if nothing is readable."""
    try:
        return _read(folder, query)
    except _UNREADABLE:
        return None


def find_damage(folder: Path, query: Callable[[sqlite3.Connection], object]) -> str | None:
    """Return why the next writer sets a database aside that a query cannot read, as the end of a sentence; else None.

    One that is locked, or that this user may not read, is not damaged.
    """
    try:
        _read(folder, query)
    except Newer:
        return "was written by another version of kapso-sync"
    except OSError:
        return None
    except sqlite3.OperationalError as error:
        return "is damaged" if is_torn(error) else None
    except _UNREADABLE:
        return "is damaged"
    return None


_TORN = ("no such table", "no such column", "malformed", "Could not decode to UTF-8")


def is_torn(error: sqlite3.OperationalError) -> bool:
    """Return whether SQLite says that the database is damaged, by the exception that it also raises for the disk and locks."""
    return any(said in str(error) for said in _TORN)


def _read(folder: Path, query: Callable[[sqlite3.Connection], _T]) -> _T | None:
    path = folder / DATABASE_NAME
    if not path.exists():
        return None
    require_regular(path)
    # A clean database has no write-ahead log: then it is read as it lies, and not even a lock file is made.
    mode = "mode=ro" if path.with_name(f"{DATABASE_NAME}-wal").exists() else "mode=ro&immutable=1"
    with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True, timeout=LOCK_TIMEOUT)) as db:
        db.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
        check_version(db)
        return query(db)


class Newer(Exception):
    """The database was written by a newer version."""


_UNREADABLE = (OSError, sqlite3.Error, Newer, ValueError, KeyError, TypeError)


def check_version(db: sqlite3.Connection) -> None:
    """Raise `Newer` if another version made the database."""
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version != SCHEMA:
        raise Newer


def get_meta(db: sqlite3.Connection, key: str) -> str | None:
    """Return the value of a key, or None."""
    row = db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return None if row is None else str(row[0])


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Map errors of SQLite and the file system to our own error."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        # SQLite has one code for many failures of the disk.
        hint = writing_hint(error, "free some space, or make the folder writable")
        raise StateUnusable(
            f"the state folder {folder} cannot be written: {error}",
            hint=f"nothing is written to Kapso without a journal: {hint}",
        ) from error
