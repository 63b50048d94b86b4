"""The database ``env.DB`` of functions: SQLite in memory stands in for Cloudflare's D1, one for the project.

Functions' code sends SQL. So SQLite opens no file, takes no time without end, and holds no more than its limits.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kapso_sync.emulator.serving import serving
from kapso_sync.emulator.values import Json, JsonObject, dump_json, parse_json

LONGEST_QUERY = 5.0
"""Seconds; D1 allows 30: https://developers.cloudflare.com/d1/platform/limits/"""
LARGEST_VALUE = 2_000_000
"""Most bytes of a text, a blob or a row, as D1 has it; also of a statement, of which D1 takes less."""
MOST_PARAMETERS = 100
MOST_ROWS = 10_000
LARGEST_RESULT = 8 * 1024 * 1024
MOST_PAGES = 16 * 1024
"""Most pages of 4 KiB, 64 MiB together."""
LARGEST_HEAP = 192 * 1024 * 1024
"""Most bytes that SQLite takes in this process, for all databases and what queries make of them."""
STEPS = 1000
"""Number of SQLite's steps between two looks at the time; one that makes a large value takes milliseconds."""

_PRAGMAS = frozenset(
    {"defer_foreign_keys", "foreign_keys", "index_info", "index_list", "table_info", "table_list", "table_xinfo"}
)
_FORBIDDEN = frozenset({sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH, sqlite3.SQLITE_TRANSACTION, sqlite3.SQLITE_SAVEPOINT})
_LIMITS = {
    sqlite3.SQLITE_LIMIT_LENGTH: LARGEST_VALUE,
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: LARGEST_VALUE,
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
    sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER: MOST_PARAMETERS,
}

Statement = tuple[str, Sequence[object]]
"""SQL and the values of its parameters."""


class Database:
    """A database that begins empty."""

    def __init__(self) -> None:
        self._db: sqlite3.Connection | None = None
        self._ours = False
        self._ends = 0.0

    def clear(self) -> None:
        """Forget everything."""
        if self._db is not None:
            self._db.close()
            self._db = None

    def load(self, script: str) -> None:
        """Run a script of statements; raises `sqlite3.Error`."""
        with _bounded():
            self._connected().executescript(script)

    def query(self, statements: Sequence[Statement]) -> list[JsonObject]:
        """Run statements, all of them or none, and return their results; raises `sqlite3.Error`."""
        with _bounded():
            return self._query(statements)

    def _query(self, statements: Sequence[Statement]) -> list[JsonObject]:
        db = self._connected()
        self._transaction(db, "BEGIN")
        try:
            results = [self._one(db, sql, values) for sql, values in statements]
        except BaseException:
            self._transaction(db, "ROLLBACK")
            raise
        self._transaction(db, "COMMIT")
        return results

    def execute(self, script: str) -> list[JsonObject]:
        """Run a script and return the number of its statements; raises `sqlite3.Error`."""
        started = time.monotonic()
        self.load(script)
        count = sum(1 for part in script.split(";") if part.strip())
        return [{"count": count, "meta": {"duration": _milliseconds(started)}}]

    def _one(self, db: sqlite3.Connection, sql: str, values: Sequence[object]) -> JsonObject:
        started, before = time.monotonic(), db.total_changes
        cursor = db.execute(sql, values)
        rows, size = [], 0
        for row in cursor:
            rows.append(row)
            size += sum(len(value) if isinstance(value, str | bytes) else 8 for value in row)
            if len(rows) > MOST_ROWS or size > LARGEST_RESULT:
                raise sqlite3.OperationalError(f"a result has at most {MOST_ROWS} rows and {LARGEST_RESULT} bytes here")
        changes = db.total_changes - before
        columns: list[Json] = [column[0] for column in cursor.description or ()]
        meta: JsonObject = {
            "duration": _milliseconds(started),
            "changes": changes,
            "last_row_id": cursor.lastrowid or 0,
            "changed_db": changes > 0,
            "rows_read": len(rows),
            "rows_written": changes,
        }
        shown: list[Json] = [[_shown(value) for value in row] for row in rows]
        return {"columns": columns, "rows": shown, "meta": meta}

    def _transaction(self, db: sqlite3.Connection, what: str) -> None:
        self._ours = True
        try:
            if what == "BEGIN" or db.in_transaction:
                db.execute(what)
        finally:
            self._ours = False

    def _connected(self) -> sqlite3.Connection:
        self._ends = time.monotonic() + LONGEST_QUERY
        if self._db is None:
            # A cached statement is not authorized again, so nothing is cached: functions could end our transactions.
            db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False, cached_statements=0)
            for limit, value in _LIMITS.items():
                db.setlimit(limit, value)
            db.execute(f"PRAGMA max_page_count = {MOST_PAGES}")
            db.execute(f"PRAGMA hard_heap_limit = {LARGEST_HEAP}")
            db.execute("PRAGMA foreign_keys = ON")
            db.set_authorizer(self._may)
            db.set_progress_handler(lambda: time.monotonic() > self._ends, STEPS)
            self._db = db
        return self._db

    def _may(self, action: int, first: str | None, second: str | None, *_: object) -> int:
        forbidden = (
            (action in _FORBIDDEN and not self._ours)
            or (action == sqlite3.SQLITE_PRAGMA and first not in _PRAGMAS)
            or (action == sqlite3.SQLITE_FUNCTION and second == "load_extension")
        )
        return sqlite3.SQLITE_DENY if forbidden else sqlite3.SQLITE_OK


@contextlib.asynccontextmanager
async def serving_db(database: Database, path: Path) -> AsyncIterator[None]:
    """Serve a database on a Unix socket at ``path``, one request at a time."""
    one_at_a_time = asyncio.Lock()

    async def answer(request: Request) -> Response:
        job = parse_json(await request.body())
        async with one_at_a_time:
            return Response(dump_json(await asyncio.to_thread(_answer, database, job)))

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        async with serving(Starlette(routes=[Route("/", answer, methods=["POST"])]), listener):
            yield


@contextlib.contextmanager
def _bounded() -> Iterator[None]:
    """Raise `sqlite3.OperationalError` where SQLite has no memory left."""
    try:
        yield
    except MemoryError as error:
        raise sqlite3.OperationalError(f"a query takes at most {LARGEST_HEAP // 2**20} MiB here") from error


def _answer(database: Database, job: Json) -> JsonObject:
    try:
        if not isinstance(job, dict) or not isinstance(job.get("statements"), list):
            return {"error": "the request is not a query"}
        statements = [_statement(item) for item in job["statements"]]  # type: ignore[union-attr]
        if job.get("do") == "exec":
            results = database.execute("".join(sql for sql, _ in statements))
        else:
            results = database.query(statements)
    except (sqlite3.Error, sqlite3.Warning, ValueError, OverflowError) as error:
        return {"error": f"{error}: SQLITE_ERROR"}
    return {"results": [*results]}


def _statement(item: Json) -> Statement:
    match item:
        case [str(sql), list(values)]:
            return sql, [bytes(value["blob"]) if isinstance(value, dict) else value for value in values]  # type: ignore[arg-type]
        case _:
            raise ValueError("the request has no statement")


def _shown(value: object) -> Json:
    return list(value) if isinstance(value, bytes) else value  # type: ignore[return-value]


def _milliseconds(started: float) -> float:
    return round((time.monotonic() - started) * 1000, 3)
