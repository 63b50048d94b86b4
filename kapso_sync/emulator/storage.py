"""Stores the emulator's state: in one SQLite file of JSON documents, or in memory."""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path
from typing import Literal, Protocol

from kapso_sync.emulator.options import DataUnusable
from kapso_sync.emulator.values import JsonObject

Kind = Literal["project", "function", "deployment", "invocations", "workflow", "flow", "webhook", "script"]


class Storage(Protocol):
    """Stores documents by kind and key, in the order they were first saved."""

    def load(self, kind: Kind) -> list[JsonObject]:
        """Return all documents of one kind, oldest first."""
        ...

    def save(self, kind: Kind, key: str, document: JsonObject) -> None:
        """Keep a document, in place of the former one of that key."""
        ...

    def drop(self, kind: Kind, key: str) -> None:
        """Forget a document; one that is not there is no error."""
        ...

    def clear(self) -> None:
        """Forget everything."""
        ...

    def close(self) -> None:
        """Release what is held."""
        ...


class MemoryStorage:
    """Stores nothing: for an emulator that lives as long as its process."""

    def load(self, kind: Kind) -> list[JsonObject]:  # noqa: ARG002 - it has nothing of any kind
        """Return nothing."""
        return []

    def save(self, kind: Kind, key: str, document: JsonObject) -> None:
        """Do nothing."""

    def drop(self, kind: Kind, key: str) -> None:
        """Do nothing."""

    def clear(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class SqliteStorage:
    """Stores documents in ``emulator.sqlite3`` below a folder, for one emulator at a time.

    A write is complete when it returns. Only the file's owner can read it.
    """

    def __init__(self, folder: Path) -> None:
        """Open or make the file; raises DataUnusable when that fails."""
        path = folder / "emulator.sqlite3"
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            # It has the values of secrets. SQLite gives the files beside it the same mode.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600))
            path.chmod(0o600)
            self._database = sqlite3.connect(path, isolation_level=None, timeout=0)
        except (OSError, sqlite3.Error) as error:
            raise _unusable(path, error) from error
        try:
            self._database.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = NORMAL")
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS documents"
                " (number INTEGER PRIMARY KEY, kind TEXT NOT NULL, key TEXT NOT NULL, body TEXT NOT NULL, UNIQUE (kind, key))"
            )
        except sqlite3.Error as error:
            self._database.close()
            raise _unusable(path, error) from error

    def load(self, kind: Kind) -> list[JsonObject]:
        """Return all documents of one kind, oldest first."""
        rows = self._database.execute("SELECT body FROM documents WHERE kind = ? ORDER BY number", (kind,))
        return [json.loads(body) for (body,) in rows]

    def save(self, kind: Kind, key: str, document: JsonObject) -> None:
        """Keep a document, in place of the former one of that key."""
        self._database.execute(
            "INSERT INTO documents (kind, key, body) VALUES (?, ?, ?)"
            " ON CONFLICT (kind, key) DO UPDATE SET body = excluded.body",
            (kind, key, json.dumps(document)),
        )

    def drop(self, kind: Kind, key: str) -> None:
        """Forget a document; one that is not there is no error."""
        self._database.execute("DELETE FROM documents WHERE kind = ? AND key = ?", (kind, key))

    def clear(self) -> None:
        """Forget everything."""
        self._database.execute("DELETE FROM documents")

    def close(self) -> None:
        """Close the file."""
        self._database.close()


def _unusable(path: Path, error: Exception) -> DataUnusable:
    return DataUnusable(f"cannot keep the emulator's data in {path}: {error}", hint="choose a folder that can be written")
