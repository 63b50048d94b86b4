"""``env.DB``: SQLite stands in for D1, and code that sends SQL reaches nothing else of this machine."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from pathlib import Path

import pytest

from kapso_sync.emulator.values import dump_json
from kapso_sync.emulator.workerd.d1 import Database, DatabaseEnded, ScriptRefused
from kapso_sync.emulator.workerd.sqlite_worker import (
    LARGEST_RESULT,
    LARGEST_VALUE,
    MOST_PARAMETERS,
    ScriptError,
    SqliteDatabase,
)


@pytest.fixture
def database() -> SqliteDatabase:
    made = SqliteDatabase()
    made.load("CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT); INSERT INTO people (name) VALUES ('ada'), ('bob');")
    return made


def names(database: SqliteDatabase) -> object:
    return database.query([("SELECT name FROM people ORDER BY id", [])])[0]["rows"]


def test_a_query_returns_columns_rows_and_what_changed(database: SqliteDatabase) -> None:
    """Blobs are lists of bytes, as in D1's answers."""
    (changed,) = database.query([("UPDATE people SET name = ?1 WHERE id = 1", ["eve"])])
    (found,) = database.query([("SELECT id, name, x'0102' AS b FROM people WHERE id = ?", [1])])
    meta = changed["meta"]
    assert isinstance(meta, dict)
    assert (meta["changes"], meta["changed_db"]) == (1, True)
    assert (found["columns"], found["rows"]) == (["id", "name", "b"], [[1, "eve", [1, 2]]])


def test_a_batch_is_all_or_nothing(database: SqliteDatabase) -> None:
    """A control: without the bad statement all of it is written."""
    insert = ("INSERT INTO people (name) VALUES (?)", ["eve"])
    with pytest.raises(sqlite3.Error):
        database.query([insert, ("INSERT INTO nowhere VALUES (1)", [])])
    assert names(database) == [["ada"], ["bob"]]
    database.query([insert, insert])
    assert names(database) == [["ada"], ["bob"], ["eve"], ["eve"]]


@pytest.mark.parametrize(
    "sql",
    [
        "BEGIN",
        "COMMIT",
        "SAVEPOINT a",
        "DETACH DATABASE main",
        "SELECT load_extension('x')",
        "PRAGMA journal_mode = off",
        "PRAGMA max_page_count = 1000000",
        "PRAGMA temp_store_directory = '/tmp'",
        f"SELECT zeroblob({LARGEST_VALUE + 1})",
        f"SELECT {', '.join('?' * (MOST_PARAMETERS + 1))}",
    ],
)
def test_sql_that_leads_out_of_the_database_is_refused(database: SqliteDatabase, sql: str) -> None:
    """And what was there is still there."""
    with pytest.raises(sqlite3.Error):
        database.query([(sql, [None] * sql.count("?"))])
    assert names(database) == [["ada"], ["bob"]]


def test_sql_opens_no_file(database: SqliteDatabase, tmp_path: Path) -> None:
    """Neither by ATTACH nor by VACUUM INTO, in a query and in a script. A control: plain SQLite would."""
    for sql in (f"ATTACH DATABASE '{tmp_path / 'a.db'}' AS x", f"VACUUM INTO '{tmp_path / 'b.db'}'"):
        with pytest.raises(sqlite3.Error):
            database.query([(sql, [])])
        with pytest.raises(ScriptError, match="another database is refused"):
            database.execute(sql)
    assert not list(tmp_path.iterdir())
    plain = sqlite3.connect(":memory:")
    plain.execute(f"VACUUM INTO '{tmp_path / 'c.db'}'")
    plain.close()
    assert [path.name for path in tmp_path.iterdir()] == ["c.db"]


def test_a_query_without_end_is_ended_and_a_large_result_refused(database: SqliteDatabase) -> None:
    """The machine's memory and time are not the function's."""
    started = time.monotonic()
    endless = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT max(x) FROM c"
    with pytest.raises(sqlite3.Error, match=r"ended after 0\.1 s"):
        database.query([(endless, [])], 0.1)
    assert time.monotonic() - started < 60
    rows = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT 100)"
    wide = f"{rows} SELECT zeroblob({LARGEST_RESULT // 50}) FROM c"  # noqa: S608 - a number of ours
    with pytest.raises(sqlite3.Error, match="a result has at most"):
        database.query([(wide, [])])
    text = f"SELECT json_group_array(hex(zeroblob({LARGEST_VALUE // 3}))) FROM ({endless.replace('max(x)', 'x')})"  # noqa: S608
    with pytest.raises(sqlite3.Error, match="a query takes at most"):
        database.query([(text, [])])
    assert names(database) == [["ada"], ["bob"]]


INSIDE_ONE_STEP = "SELECT instr(zeroblob(1900000), zeroblob(950000) || x'01')"
"""Takes many seconds, and SQLite looks at the time before and after it."""

SELECT_ALL = dump_json({"do": "query", "statements": [["SELECT * FROM a", []]]})

TRIGGER = "CREATE TABLE a (b);\nCREATE TRIGGER t AFTER INSERT ON a BEGIN DELETE FROM a; SELECT CASE WHEN 1 THEN 2 END; END;"

ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT max(x) FROM c"


def test_a_step_of_sqlite_that_takes_too_long_is_ended_with_its_process() -> None:
    """And the next query has an empty database. A control: without it there is what the script made."""
    with contextlib.closing(Database()) as database:
        database.load("CREATE TABLE a (b)")
        assert b'"results":[{"columns":["b"]' in database.ask(SELECT_ALL)
        started = time.monotonic()
        with pytest.raises(ScriptRefused, match=r"ended after 0\.1 s"):
            database.load(f"CREATE TABLE a (b);\n{INSIDE_ONE_STEP}", 0.1)
        assert time.monotonic() - started < 5
        assert b"no such table: a" in database.ask(SELECT_ALL)


def test_a_query_that_waited_does_not_reach_the_next_database() -> None:
    """A check that ran out of time leaves some; those of the next function's checks begin after `clear`."""
    with contextlib.closing(Database()) as database:
        before = database.generation
        insert = dump_json({"do": "query", "statements": [["INSERT INTO a VALUES (1)", []]]})
        database.load("CREATE TABLE a (b)")
        assert b'"results"' in database.ask(insert, generation=before)
        database.clear()
        database.load("CREATE TABLE a (b)")
        with pytest.raises(DatabaseEnded, match="emptied before the query"):
            database.ask(insert, generation=before)
        assert b'"rows":[]' in database.ask(SELECT_ALL)


@pytest.mark.parametrize("end", [Database.clear, Database.close])
def test_the_end_of_a_database_does_not_wait_for_a_query(end: Callable[[Database], None]) -> None:
    """`test` forgets it between two functions, and closes it at the end; a check has long given up by then."""
    with contextlib.closing(Database()) as database, ThreadPoolExecutor(1) as threads:
        database.load("CREATE TABLE a (b)")
        query = threads.submit(database.ask, dump_json({"do": "query", "statements": [[INSIDE_ONE_STEP, []]]}))
        with pytest.raises(FutureTimeout):
            query.result(0.05)
        end(database)
        with pytest.raises(DatabaseEnded):
            query.result(2)


@pytest.mark.parametrize(
    ("script", "said", "line", "column"),
    [
        ("SELECT 1;\n-- a;\n /* b;\n */ SELECT ';\n', a\nFROM b;\nSELECT 2", "no such table: b", 4, 5),
        (f"{TRIGGER}\nDROP TABLE a; DROP TABLE c;", "no such table: c", 3, 15),
        ("BEGIN;\nCOMMIT;", "transactions of one's own are refused, as on D1", 1, 1),
        ("PRAGMA journal_mode = off", "PRAGMA journal_mode is refused, as on D1", 1, 1),
        (f"SELECT 1;{ENDLESS};", "it was ended after 0.05 s, the longest that SQL may take here", 1, 10),
        ("SELECT 1;\nSELECT 'open", 'unrecognized token: "\'open"', 2, 1),
        ("SELECT 1;\n\0", "the query contains a null character", 2, 1),
    ],
)
def test_a_script_names_the_place_and_the_reason_of_the_statement_that_failed(
    database: SqliteDatabase, script: str, said: str, line: int, column: int
) -> None:
    """SQLite names no line, and says "not authorized" and "interrupted" for what we refuse and end."""
    with pytest.raises(ScriptError) as caught:
        database.load(script, 0.05)
    assert (str(caught.value), caught.value.line, caught.value.column) == (said, line, column)


def test_a_script_counts_its_statements(database: SqliteDatabase) -> None:
    """Not the semicolons in texts, comments and triggers; rows may hold text that is not UTF-8."""
    (done,) = database.execute(f"{TRIGGER}; -- a;b\nINSERT INTO a VALUES ('c;d'); SELECT CAST(x'ff' AS TEXT);; -- end")
    assert done["count"] == 4


def test_semicolons_in_texts_take_no_time(database: SqliteDatabase) -> None:
    """A page's `&amp;` has one each time."""
    started = time.monotonic()
    text = "it''s &amp; " * 50_000
    database.load(f"DROP TABLE people; VALUES ('{text}') /* ; */; SELECT \";\", `;`, [;] FROM (SELECT 1 AS [;])")  # noqa: S608 - ours
    assert time.monotonic() - started < 10
