"""Runs SQLite for one ``env.DB``: a program of its own, since one step of SQLite may take minutes and cannot be interrupted.

Functions' code sends SQL. So SQLite opens no file, takes no time without end, and holds no more than its limits. Where it does
not look at the time, the system ends the program. That reads jobs from standard input and writes answers to standard output,
each as JSON after its length. It imports nothing of ours, and so starts in a few hundredths of a second.
"""

from __future__ import annotations

import contextlib
import json
import re
import signal
import sqlite3
import struct
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]
JsonObject = dict[str, Json]

LONGEST_QUERY = 5.0
"""Seconds that the SQL of one job takes; D1 allows 30: https://developers.cloudflare.com/d1/platform/limits/"""
LARGEST_VALUE = 2_000_000
"""Most bytes of a text, a blob or a row, as D1 has it; also of a statement, of which D1 takes less."""
MOST_PARAMETERS = 100
MOST_ROWS = 10_000
LARGEST_RESULT = 8 * 1024 * 1024
MOST_PAGES = 16 * 1024
"""Most pages of 4 KiB, 64 MiB together."""
LARGEST_HEAP = 128 * 1024 * 1024
"""Most bytes that SQLite takes in this process, for the database and what queries make of it."""
STEPS = 1000
"""Number of SQLite's steps between two looks at the time; most take microseconds."""
GRACE = 0.5
"""Seconds beyond the limit in which SQLite looks at the time, unless it is inside one long step."""
JOB = struct.Struct("!dQ")
"""What stands before a job: the seconds that its SQL may take, and its length in bytes."""
ANSWER = struct.Struct("!Q")
"""What stands before an answer: its length in bytes."""

_PRAGMAS = frozenset(
    {"defer_foreign_keys", "foreign_keys", "index_info", "index_list", "table_info", "table_list", "table_xinfo"}
)
_FORBIDDEN = {
    sqlite3.SQLITE_ATTACH: "another database is",
    sqlite3.SQLITE_DETACH: "another database is",
    sqlite3.SQLITE_TRANSACTION: "transactions of one's own are",
    sqlite3.SQLITE_SAVEPOINT: "transactions of one's own are",
}
_LIMITS = {
    sqlite3.SQLITE_LIMIT_LENGTH: LARGEST_VALUE,
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: LARGEST_VALUE,
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
    sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER: MOST_PARAMETERS,
}

_BLANK = re.compile(r"(?:\s+|--[^\n]*|/\*.*?\*/)*", re.DOTALL)
"""White space and comments before a statement."""
_TOKEN = re.compile(r"""'[^']*'?|"[^"]*"?|`[^`]*`?|\[[^\]]*\]?|--[^\n]*|/\*.*?(?:\*/|\Z)|;""", re.DOTALL)
"""A semicolon, and what may hold semicolons that end no statement."""

Statement = tuple[str, Sequence[object]]
"""SQL and the values of its parameters."""


class ScriptError(Exception):
    """A script's statement failed, which begins at ``line`` and ``column``, counted from 1."""

    def __init__(self, message: str, line: int, column: int) -> None:
        super().__init__(message)
        self.line = line
        self.column = column


def too_long(seconds: float) -> str:
    """Return the error of SQL that was ended after ``seconds``."""
    return f"it was ended after {seconds:.3g} s, the longest that SQL may take here"


class SqliteDatabase:
    """A database that begins empty. Each call takes ``seconds`` at most, unless one step of SQLite takes longer."""

    def __init__(self) -> None:
        self._db: sqlite3.Connection | None = None
        self._ours = False
        self._ends = 0.0
        self._refused: str | None = None

    def clear(self) -> None:
        """Forget everything."""
        if self._db is not None:
            self._db.close()
            self._db = None

    def load(self, script: str, seconds: float = LONGEST_QUERY) -> int:
        """Run a script, and return the number of its statements; raises `ScriptError`."""
        count = 0
        db = self._connected(seconds)
        db.text_factory = bytes  # nobody sees the rows, and text may be any bytes
        try:
            for place, statement in _statements(script):
                try:
                    self._run(db, statement, seconds)
                except (sqlite3.Error, sqlite3.Warning, ValueError) as error:
                    line, column = script.count("\n", 0, place) + 1, place - script.rfind("\n", 0, place)
                    raise ScriptError(str(error), line, column) from error
                count += 1
        finally:
            db.text_factory = str
        return count

    def _run(self, db: sqlite3.Connection, statement: str, seconds: float) -> None:
        if time.monotonic() > self._ends:  # SQLite does not look at the time in a short one
            raise sqlite3.OperationalError(too_long(seconds))
        with self._explained(seconds):
            for _ in db.execute(statement):
                pass

    def query(self, statements: Sequence[Statement], seconds: float = LONGEST_QUERY) -> list[JsonObject]:
        """Run statements, all of them or none, and return their results; raises `sqlite3.Error`."""
        db = self._connected(seconds)
        with self._explained(seconds):
            return self._query(db, statements)

    def _query(self, db: sqlite3.Connection, statements: Sequence[Statement]) -> list[JsonObject]:
        self._transaction(db, "BEGIN")
        try:
            results = [self._one(db, sql, values) for sql, values in statements]
        except BaseException:
            self._transaction(db, "ROLLBACK")
            raise
        self._transaction(db, "COMMIT")
        return results

    def execute(self, script: str, seconds: float = LONGEST_QUERY) -> list[JsonObject]:
        """Run a script and return the number of its statements; raises `ScriptError`."""
        started = time.monotonic()
        count = self.load(script, seconds)
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

    @contextlib.contextmanager
    def _explained(self, seconds: float) -> Iterator[None]:
        """Raise `sqlite3.OperationalError` with the reason where SQLite names none: what is refused, late, or too large."""
        self._refused = None
        try:
            yield
        except MemoryError as error:
            raise sqlite3.OperationalError(f"a query takes at most {LARGEST_HEAP // 2**20} MiB here") from error
        except sqlite3.Error as error:
            if self._refused is not None:
                raise sqlite3.OperationalError(self._refused) from error
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT:  # errors of ours have none
                raise sqlite3.OperationalError(too_long(seconds)) from error
            raise

    def _connected(self, seconds: float) -> sqlite3.Connection:
        self._ends = time.monotonic() + seconds
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
        if action in _FORBIDDEN and not self._ours:
            self._refused = f"{_FORBIDDEN[action]} refused, as on D1"
        elif action == sqlite3.SQLITE_PRAGMA and first not in _PRAGMAS:
            self._refused = f"PRAGMA {first} is refused, as on D1"
        elif action == sqlite3.SQLITE_FUNCTION and second == "load_extension":
            self._refused = "load_extension is refused, as on D1"
        else:
            return sqlite3.SQLITE_OK
        return sqlite3.SQLITE_DENY


def _statements(script: str) -> Iterator[tuple[int, str]]:
    """Yield the statements of a script, each with its place: SQLite's errors name none."""
    start = _after_blank(script, 0)
    for found in _TOKEN.finditer(script):
        end = found.end()
        if found[0] == ";" and sqlite3.complete_statement(script[start:end]):  # else it is one of a trigger's
            if script[start:end] != ";":
                yield start, script[start:end]
            start = _after_blank(script, end)
    if start < len(script):
        yield start, script[start:]


def _after_blank(script: str, place: int) -> int:
    found = _BLANK.match(script, place)
    return found.end() if found else place


def answer_to(database: SqliteDatabase, body: bytes, seconds: float) -> JsonObject:
    """Return the answer to a job: to ``load`` a script into an empty database, to ``exec`` one, or to query with statements."""
    try:
        job = json.loads(body)
        statements = _statements_of(job)
        script = "".join(sql for sql, _ in statements)
        match job.get("do"):
            case "load":
                database.clear()
                return {"results": [database.load(script, seconds)]}
            case "exec":
                return {"results": [*database.execute(script, seconds)]}
            case _:
                return {"results": [*database.query(statements, seconds)]}
    except ScriptError as error:
        return {"error": f"{error}: SQLITE_ERROR", "reason": str(error), "place": [error.line, error.column]}
    except (sqlite3.Error, sqlite3.Warning, ValueError, OverflowError, RecursionError) as error:
        return {"error": f"{error}: SQLITE_ERROR", "reason": str(error), "place": [0, 0]}


def _statements_of(job: Json) -> list[Statement]:
    match job:
        case {"do": _, "statements": [*items]}:
            return [_statement(item) for item in items]
        case _:
            raise ValueError("the request is not a query")


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


def main() -> None:
    """Answer jobs until there are no more."""
    with contextlib.suppress(OSError):
        # Where memory is used up, the kernel ends this process first.
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    database = SqliteDatabase()
    jobs, answers = sys.stdin.buffer, sys.stdout.buffer
    while len(head := jobs.read(JOB.size)) == JOB.size:
        seconds, length = JOB.unpack(head)
        body = jobs.read(length)
        signal.setitimer(signal.ITIMER_REAL, seconds + GRACE)  # nothing handles SIGALRM, so the system ends this process
        answer = answer_to(database, body, seconds)
        signal.setitimer(signal.ITIMER_REAL, 0)
        text = json.dumps(answer, separators=(",", ":")).encode("ascii")
        answers.write(ANSWER.pack(len(text)) + text)
        answers.flush()


if __name__ == "__main__":
    main()
