"""``env.DB``: SQLite stands in for D1, and code that sends SQL reaches nothing else of this machine."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

import pytest

from kapso_sync.emulator.workerd.d1 import LARGEST_RESULT, LARGEST_VALUE, MOST_PARAMETERS, Database


@pytest.fixture
def database() -> Database:
    made = Database()
    made.load("CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT); INSERT INTO people (name) VALUES ('ada'), ('bob');")
    return made


def names(database: Database) -> object:
    return database.query([("SELECT name FROM people ORDER BY id", [])])[0]["rows"]


def test_a_query_returns_columns_rows_and_what_changed(database: Database) -> None:
    """Blobs are lists of bytes, as in D1's answers."""
    (changed,) = database.query([("UPDATE people SET name = ?1 WHERE id = 1", ["eve"])])
    (found,) = database.query([("SELECT id, name, x'0102' AS b FROM people WHERE id = ?", [1])])
    meta = changed["meta"]
    assert isinstance(meta, dict)
    assert (meta["changes"], meta["changed_db"]) == (1, True)
    assert (found["columns"], found["rows"]) == (["id", "name", "b"], [[1, "eve", [1, 2]]])


def test_a_batch_is_all_or_nothing(database: Database) -> None:
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
def test_sql_that_leads_out_of_the_database_is_refused(database: Database, sql: str) -> None:
    """And what was there is still there."""
    with pytest.raises(sqlite3.Error):
        database.query([(sql, [None] * sql.count("?"))])
    assert names(database) == [["ada"], ["bob"]]


def test_sql_opens_no_file(database: Database, tmp_path: Path) -> None:
    """Neither by ATTACH nor by VACUUM INTO, in a query and in a script. A control: plain SQLite would."""
    for sql in (f"ATTACH DATABASE '{tmp_path / 'a.db'}' AS x", f"VACUUM INTO '{tmp_path / 'b.db'}'"):
        with pytest.raises(sqlite3.Error):
            database.query([(sql, [])])
        with pytest.raises(sqlite3.Error):
            database.execute(sql)
    assert not list(tmp_path.iterdir())
    plain = sqlite3.connect(":memory:")
    plain.execute(f"VACUUM INTO '{tmp_path / 'c.db'}'")
    plain.close()
    assert [path.name for path in tmp_path.iterdir()] == ["c.db"]


def test_a_query_without_end_is_ended_and_a_large_result_refused(database: Database) -> None:
    """The machine's memory and time are not the function's."""
    started = time.monotonic()
    endless = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT max(x) FROM c"
    with pytest.raises(sqlite3.Error, match="interrupted"):
        database.query([(endless, [])])
    assert time.monotonic() - started < 20
    rows = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT 100)"
    wide = f"{rows} SELECT zeroblob({LARGEST_RESULT // 50}) FROM c"  # noqa: S608 - a number of ours
    with pytest.raises(sqlite3.Error, match="a result has at most"):
        database.query([(wide, [])])
    text = f"SELECT json_group_array(hex(zeroblob({LARGEST_VALUE // 3}))) FROM ({endless.replace('max(x)', 'x')})"  # noqa: S608
    with pytest.raises(sqlite3.Error, match="a query takes at most"):
        database.query([(text, [])])
    assert names(database) == [["ada"], ["bob"]]
