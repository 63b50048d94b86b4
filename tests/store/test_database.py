"""The state database: durable, read without writing, and replaced when it is damaged."""

from __future__ import annotations

import _sqlite3
import ctypes
import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapso_sync.errors import ExitCode, StateReplaced, StateUnusable
from kapso_sync.model.desired import WatchPolicy
from kapso_sync.model.evidence import Evidence
from kapso_sync.model.json_values import Json
from kapso_sync.model.state import (
    DeploymentWatch,
    Intent,
    IntentKind,
    InventoryRecord,
    LiveContent,
    QuotaRefusal,
    ReconcilerState,
    Tally,
    WatchFinding,
)
from kapso_sync.store import codec
from kapso_sync.store.connection import DATABASE_NAME, LATER
from kapso_sync.store.database import StateStore, find_state_damage, read_last_pass, read_running_pass, read_state
from kapso_sync.store.lock import LOCK_NAME, held
from tests.builders import CODE_A, CODE_B, DAWN, content, moment, owned, remote

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def store_in(folder: Path) -> StateStore:
    return StateStore(folder, lambda: NOON)


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    return {path.name: (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.iterdir()}


def intent(slug: str = "a", kind: IntentKind = IntentKind.UPDATE) -> Intent:
    return Intent(kind, slug, f"id-{slug}", content(), content(), moment(3), protected=True)


def test_equal_parts_of_recorded_functions_are_one_object(tmp_path: Path) -> None:
    """Else a daemon with thousands of functions keeps thousands of copies. What differs stays what it was."""
    wide: dict[str, Json] = {"name": "", "runtime_config": {"a": [1]}, "function_type": "x" * 20}
    first, second = (replace(owned(remote(slug)), stored={**wide, "name": f"its {slug}"}) for slug in "ab")
    with store_in(tmp_path) as store:
        store.remember(first, second)
    with store_in(tmp_path) as store:
        a, b = store.load_state().owned.values()
    assert (a, b) == (first, second)
    assert a.stored["runtime_config"] is b.stored["runtime_config"]
    assert a.stored["function_type"] is b.stored["function_type"]


def test_the_text_of_the_last_pass_is_in_no_memory(tmp_path: Path) -> None:
    """SQLite's own memory, by its own count: a statement that is kept keeps what was bound to it as well."""
    in_use = ctypes.CDLL(_sqlite3.__file__).sqlite3_memory_used
    in_use.restype = ctypes.c_longlong
    with store_in(tmp_path) as store, closing(sqlite3.connect(":memory:")) as db:
        db.execute("CREATE TABLE kept (text)")
        before = in_use()
        store.record_pass({"now": "2026-01-01T12:00:00Z"}, [json.dumps("x" * 4_000_000)])
        assert in_use() - before < 1_000_000
        db.execute("INSERT INTO kept VALUES (?)", ("x" * 4_000_000,))
        db.execute("DELETE FROM kept")
        assert in_use() - before > 3_000_000, "this is how it would show"


def test_state_survives_a_restart(tmp_path: Path) -> None:
    """Inventory, open intents, quota, project and manifest."""
    record = owned(remote("a"))
    quota = QuotaRefusal(7, "limit reached", "2026-01-01T12:00:00+00:00")
    with store_in(tmp_path) as store:
        store.remember(record)
        number = store.begin(intent("b", IntentKind.DEPLOY))
        store.remember_quota(quota)
        store.remember_manifest(present=True)
        store.remember_project("p-1")
    with store_in(tmp_path) as store:
        memory = store.load_state()
    assert memory.owned == {"id-a": record}
    assert [(open_intent.id, open_intent.slug, open_intent.baseline) for open_intent in memory.intents] == [
        (number, "b", moment(3))
    ]
    assert (memory.quota, memory.manifest_present, memory.project_id) == (quota, True, "p-1")


def test_recording_a_write_closes_its_intent(tmp_path: Path) -> None:
    """Both happen in one transaction: a crash leaves either the open intent or the new record."""
    with store_in(tmp_path) as store:
        first, second = store.begin(intent("a")), store.begin(intent("b"))
        store.remember(owned(remote("a")), closes=(first,))
        assert [open_intent.id for open_intent in store.load_state().intents] == [second]
        store.close(second)
        assert store.load_state().intents == ()


def test_a_slug_has_one_record(tmp_path: Path) -> None:
    """A function that came back under another id replaces the record of the old id."""
    with store_in(tmp_path) as store:
        store.remember(owned(remote("a", function_id="old")))
        store.remember(owned(remote("a", function_id="new")))
        assert set(store.load_state().owned) == {"new"}
        store.forget("new")
        assert store.load_state().owned == {}


def test_slugs_can_be_swapped_in_the_inventory(tmp_path: Path) -> None:
    """The inventory is replaced as a whole."""
    with store_in(tmp_path) as store:
        store.remember(owned(remote("a", function_id="1")), owned(remote("b", function_id="2")))
        swapped = [owned(remote("b", function_id="1")), owned(remote("a", function_id="2"))]
        store.settle(ReconcilerState({record.function_id: record for record in swapped}), ())
        assert {record.slug: record.function_id for record in store.load_state().owned.values()} == {"a": "2", "b": "1"}


def test_quota_and_manifest_can_be_cleared(tmp_path: Path) -> None:
    """When they are no longer true."""
    with store_in(tmp_path) as store:
        store.remember_quota(QuotaRefusal(1, "full", "now"))
        store.remember_manifest(present=True)
        store.remember_project("p-1")
        store.remember_quota(None)
        store.remember_manifest(present=False)
        memory = store.load_state()
    assert (memory.quota, memory.manifest_present, memory.project_id) == (None, False, "p-1")


def test_reading_the_state_folder_changes_no_file(tmp_path: Path) -> None:
    """``plan`` and ``status`` change nothing in the folder, whether it is unused, locked by a writer, or missing."""
    folder = tmp_path / "state"
    assert read_state(folder) == ReconcilerState()
    assert not folder.exists()
    with store_in(folder) as store:
        store.remember(owned(remote("a")))
        held = set(listing(folder))
        assert set(read_state(folder).owned) == {"id-a"}
        assert set(listing(folder)) == held
    before = listing(folder)
    assert set(read_state(folder).owned) == {"id-a"}
    assert read_last_pass(folder) is None
    assert listing(folder) == before


def test_the_last_pass_is_kept_for_status(tmp_path: Path) -> None:
    """The last recorded pass is what ``status`` reads."""
    document: dict[str, Json] = {"exit_code": 0, "functions": [{"slug": "a"}]}
    with store_in(tmp_path) as store:
        store.record_pass({"exit_code": 1})
        store.record_pass(document)
    assert read_last_pass(tmp_path) == document


def test_a_pass_that_changes_no_function_is_recorded_without_them(tmp_path: Path) -> None:
    """``status`` sees the newest pass with the functions recorded last; a pass that another version records counts again."""
    with store_in(tmp_path) as store:
        store.record_pass({"now": "1", "functions": []}, ['{"slug": "a"}', '{"slug": "b"}'])
        assert read_last_pass(tmp_path) == {"now": "1", "functions": [{"slug": "a"}, {"slug": "b"}]}
        store.record_later_pass({"now": "2", "functions": []})
        assert read_last_pass(tmp_path) == {"now": "2", "functions": [{"slug": "a"}, {"slug": "b"}]}
    with closing(sqlite3.connect(tmp_path / DATABASE_NAME)) as db, db:
        db.execute("UPDATE meta SET value = ? WHERE key = 'last_pass'", (json.dumps({"now": "3", "functions": []}),))
    assert read_last_pass(tmp_path) == {"now": "3", "functions": []}


@pytest.mark.parametrize(
    "text", ["", '{"a', "[" * 100_000, "5", '"x"', "null", '{"functions": 5}', '{"functions": [5]}', b"\xff"]
)
@pytest.mark.parametrize("key", ["last_pass", LATER, "pass_running"])
def test_what_is_kept_for_people_and_cannot_be_read_is_nothing(tmp_path: Path, key: str, text: str | bytes) -> None:
    """Nothing depends on it, and the next pass replaces it: it ends no command. The control reads it as it was."""
    with held(tmp_path, DAWN), store_in(tmp_path) as store:
        store.record_pass({"now": "1", "functions": []}, ['{"slug": "a"}'])
        store.record_later_pass({"now": "2", "functions": []})
        store.remember_pass("sync")
        assert read_last_pass(tmp_path) == {"now": "2", "functions": [{"slug": "a"}]}
        assert (read_running_pass(tmp_path) or {}).get("trigger") == "sync"
        with closing(sqlite3.connect(tmp_path / DATABASE_NAME)) as db, db:
            db.execute("UPDATE meta SET value = ? WHERE key = ?", (text, key))
        last, running = read_last_pass(tmp_path), read_running_pass(tmp_path)
    assert last == (None if key == "last_pass" else {"now": "1" if key == LATER else "2", "functions": [{"slug": "a"}]})
    assert (running is None) is (key == "pass_running")


def test_records_read_again_are_those_of_the_database(tmp_path: Path) -> None:
    """They are kept in memory while the folder is open: every write, also one that is refused, leaves both the same."""
    a, b = owned(remote("a")), owned(remote("b"))
    with StateStore(tmp_path, lambda: NOON, patience=0.0) as store:
        store.remember(a, b)
        store.remember(replace(a, slug="c"), replace(b, slug="a"))
        with closing(sqlite3.connect(tmp_path / DATABASE_NAME)) as db:
            db.execute("BEGIN IMMEDIATE")
            with pytest.raises(StateUnusable):
                store.remember(replace(a, slug="d"))
        assert store.load_state().owned == read_state(tmp_path).owned
        assert [record.slug for record in store.load_state().owned.values()] == ["a", "c"]
        store.forget(a.function_id)
        assert store.load_state().owned == read_state(tmp_path).owned == {b.function_id: replace(b, slug="a")}
        store.settle(ReconcilerState(owned={a.function_id: a}), ())
        assert store.load_state().owned == read_state(tmp_path).owned == {a.function_id: a}


def test_the_running_pass_is_shown_until_it_is_recorded_or_its_process_is_gone(tmp_path: Path) -> None:
    """``status`` reads it from another process."""
    with held(tmp_path, DAWN), store_in(tmp_path) as store:
        assert read_running_pass(tmp_path) is None
        store.remember_pass("sync")
        assert read_running_pass(tmp_path) == {"trigger": "sync", "since": "2026-01-01T12:00:00.000Z"}
        store.record_pass({})
        assert read_running_pass(tmp_path) is None
        store.remember_pass("sync")
    assert read_running_pass(tmp_path) is None
    with held(tmp_path, DAWN), store_in(tmp_path) as store:
        store.forget_running_pass()
        assert read_running_pass(tmp_path) is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b"this is no database, and it is longer than a header of one hundred bytes" * 4),
        lambda path: path.write_bytes(path.read_bytes()[:3000]),
        lambda path: _execute(path, "DROP TABLE intents"),
        lambda path: _execute(path, "UPDATE functions SET record = 'no json'"),
        lambda path: _execute(path, "UPDATE functions SET record = CAST(x'7bff7d' AS TEXT)"),
        lambda path: _execute(path, "INSERT INTO meta VALUES ('owner', CAST(x'ff' AS TEXT))"),
        lambda path: _execute(path, "PRAGMA user_version = 99"),
    ],
    ids=["garbage", "truncated", "table-missing", "record-torn", "record-not-utf-8", "owner-not-utf-8", "newer"],
)
def test_a_damaged_database_is_renamed_and_replaced(tmp_path: Path, damage: object) -> None:
    """It is kept under another name, a new one is created, and readers see an empty state."""
    with store_in(tmp_path) as store:
        store.remember(owned(remote("a")))
    assert callable(damage)
    damage(tmp_path / DATABASE_NAME)
    assert read_state(tmp_path) == ReconcilerState()
    with store_in(tmp_path) as store:
        assert store.set_aside is not None
        assert store.set_aside.exists()
        assert store.load_state() == ReconcilerState()
        store.remember(owned(remote("b")))
    with store_in(tmp_path) as store:
        assert store.set_aside is None
        assert set(store.load_state().owned) == {"id-b"}


def _execute(path: Path, statement: str) -> None:
    db = sqlite3.connect(path)
    with db:
        db.execute(statement)
    db.close()


def test_an_unwritable_state_folder_exits_with_78(tmp_path: Path) -> None:
    """Without a journal there are no writes: the error names the folder, and explains."""
    (tmp_path / "state").write_text("a file where a folder should be")
    with pytest.raises(StateUnusable) as raised:
        store_in(tmp_path / "state")
    assert str(tmp_path / "state") in raised.value.message
    assert raised.value.hint is not None
    assert raised.value.exit_code is ExitCode.CONFIG


@pytest.mark.parametrize("name", [DATABASE_NAME, LOCK_NAME])
@pytest.mark.parametrize("replaced", [False, True])
def test_no_pass_begins_with_files_that_were_removed_or_replaced(tmp_path: Path, name: str, *, replaced: bool) -> None:
    """What is open can still be written, and nobody would find it. The control: a pass begins as long as both are there."""
    with held(tmp_path, DAWN), store_in(tmp_path) as store:
        store.remember_pass("sync")
        (tmp_path / name).rename(tmp_path / "kept")
        if replaced:
            shutil.copyfile(tmp_path / "kept", tmp_path / name)
        with pytest.raises(StateReplaced, match="was removed or replaced"):
            store.remember_pass("sync")


def test_a_locked_database_is_not_replaced(tmp_path: Path) -> None:
    """Another process' lock is not damage: the folder is unusable for now."""
    with store_in(tmp_path):
        pass
    other = sqlite3.connect(tmp_path / DATABASE_NAME, isolation_level=None)
    other.execute("PRAGMA locking_mode=EXCLUSIVE")
    other.execute("BEGIN EXCLUSIVE")
    try:
        with pytest.raises(StateUnusable) as raised:
            StateStore(tmp_path, lambda: NOON, patience=0.05)
        assert "another program has its database open" in str(raised.value.hint)
        assert find_state_damage(tmp_path) is None
    finally:
        other.close()
    assert not list(tmp_path.glob("*.set-aside-*"))


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo], ids=["folder", "pipe"])
def test_what_is_no_file_is_not_taken_for_a_full_disk(tmp_path: Path, make: Callable[[Path], None]) -> None:
    """The hint says what to do about it, and nothing is waited for."""
    make(tmp_path / DATABASE_NAME)
    with pytest.raises(StateUnusable, match="it is not a regular file") as raised:
        store_in(tmp_path)
    assert "move it away" in str(raised.value.hint)


def test_a_full_disk_is_a_state_unusable_error(tmp_path: Path) -> None:
    """SQLite's exception does not reach the caller."""
    store = store_in(tmp_path)
    store.__exit__()
    with pytest.raises(StateUnusable):
        store.begin(intent())


def test_a_state_folder_belongs_to_one_owner(tmp_path: Path) -> None:
    """Another owner is refused with both names; the same one is accepted again."""
    with store_in(tmp_path) as store:
        assert store.load_state().owners == set()
        for owner in ("a", "a", "b", "b", "c", "a"):
            store.remember_owner(owner)
        assert store.load_state().owners == {"a", "b", "c"}
    assert read_state(tmp_path).owners == {"a", "b", "c"}


def test_the_state_folder_is_private(tmp_path: Path) -> None:
    """Other users can neither enter the folder nor read the database."""
    with store_in(tmp_path / "state"):
        pass
    assert (tmp_path / "state").stat().st_mode & 0o077 == 0
    assert (tmp_path / "state" / DATABASE_NAME).stat().st_mode & 0o077 == 0


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
contents = st.dictionaries(st.text(max_size=8), json_values, max_size=3)
moments = st.none() | st.datetimes(timezones=st.just(UTC))


@given(
    st.builds(
        InventoryRecord,
        slug=st.text(),
        function_id=st.text(),
        wanted=contents,
        stored=contents,
        updated_at=moments,
        live=st.none() | st.builds(LiveContent, contents, moments),
        protected=st.booleans(),
        corrections=st.integers(0, 9),
        refused_slug=st.none() | st.text(),
    )
)
def test_an_inventory_record_round_trips(record: InventoryRecord) -> None:
    """Every field is equal after reading."""
    assert codec.decode_record(codec.encode_record(record)) == record


def test_a_lone_surrogate_in_a_record_is_read() -> None:
    """JSON can carry one in a description, and msgspec's own reader does not take it."""
    kept = replace(owned(remote("a")), stored=content(description="half \ud83d of it"))
    assert codec.decode_record(codec.encode_record(kept)) == kept


def test_a_number_without_a_float_in_a_record_is_read() -> None:
    """Python's JSON has words for it, and a released version may have written them."""
    text = codec.encode_record(replace(owned(remote("a")), stored={"runtime_config": [float("inf"), 2**100, 0.5]}))
    assert codec.decode_record(text).stored == {"runtime_config": [float("inf"), 2**100, 0.5]}


@pytest.mark.parametrize(
    "text",
    ["", "null", "[", "1e999", '"\\ud83d"', '{"slug": 1}', '[{"slug": 1}]', "[" * 100_000, '{"a": ' * 100_000],
    ids=lambda text: text[:20] or "nothing",
)
def test_what_is_no_record_is_a_value_error(text: str) -> None:
    """Whatever it is: the database is set aside then, and a watch is none."""
    for decode in (
        codec.decode_record,
        codec.decode_quota,
        codec.decode_renames,
        codec.decode_missing,
        codec.decode_version,
        codec.decode_watch,
        lambda row: codec.decode_intent(1, row),
    ):
        with pytest.raises(ValueError):  # noqa: PT011 - each reader says it in its own words
            decode(text)


def test_equal_values_of_records_are_one_object() -> None:
    """In a thousand records they are a third of the memory. Values that are not the same JSON stay what they are."""
    values: list[Json] = [{"timeout": 1}, {"timeout": 1.0}, {"timeout": True}, {"timeout": 1}]
    texts = [codec.encode_record(owned(remote(f"f{n}", runtime_config=value))) for n, value in enumerate(values)]
    records = [codec.decode_record(text) for text in texts]
    assert [repr(record.stored["runtime_config"]) for record in records] == [repr(value) for value in values]
    first, last = records[0], records[-1]
    assert first.live is not None
    assert first.stored["runtime_config"] is first.live.content["runtime_config"] is last.stored["runtime_config"]
    assert first.stored["code"] is first.live.content["code"] is first.wanted["code"] is last.stored["code"]


@given(st.builds(Intent, st.sampled_from(IntentKind), st.text(), st.none() | st.text(), contents, contents, moments))
def test_an_intent_round_trips(record: Intent) -> None:
    """The journal keeps every field of an intent."""
    assert codec.decode_intent(record.id, codec.encode_intent(record)) == record


@given(
    st.builds(
        DeploymentWatch,
        slug=st.text(),
        function_id=st.text(),
        policy=st.builds(WatchPolicy, st.floats(1, 86400), st.integers(1, 9), st.integers(1, 100)),
        code=st.text(),
        prepared_at=st.datetimes(timezones=st.just(UTC)),
        until=moments,
        deployed_at=moments,
        before=st.none() | st.builds(Tally, st.integers(0, 9), st.integers(0, 9)),
        seen=st.lists(st.text(), max_size=3).map(tuple),
        finding=st.none()
        | st.builds(
            WatchFinding,
            st.text(),
            st.text(),
            st.none() | st.builds(Evidence, st.lists(st.text(), max_size=3).map(tuple), st.none() | st.text()),
        ),
    )
)
def test_a_watch_round_trips(record: DeploymentWatch) -> None:
    """It goes on after a restart with all that was counted."""
    assert codec.decode_watch(codec.encode_watch(record)) == record


def test_a_watched_version_becomes_the_one_to_go_back_to_when_its_watch_ends(tmp_path: Path) -> None:
    """Not before, and not if it did not stand it. A watch that another version wrote otherwise is none."""
    watch = DeploymentWatch("a", "id-a", WatchPolicy(), "sha256:b", NOON)
    with store_in(tmp_path) as store:
        store.remember(owned(remote("a")))
        store.keep_version(remote("a", CODE_A))
        for proven, code in ((False, CODE_A), (True, CODE_B)):
            store.remember_watch(watch, remote("a", CODE_B))
            store.remember_watch(watch)
            assert (store.watch("id-a"), store.load_state().watches) == (watch, {"id-a": watch})
            store.end_watch("id-a", proven=proven)
            version = store.version("id-a")
            assert version is not None
            assert (version.code, store.watches()) == (code, ())
        store.remember_watch(watch)
    with closing(sqlite3.connect(tmp_path / DATABASE_NAME)) as db, db:
        db.execute("UPDATE meta SET value = '{}' WHERE key = 'watch:id-a'")
    with store_in(tmp_path) as store:
        assert (store.set_aside, store.watch("id-a"), store.load_state().watches) == (None, None, {})
        store.forget("id-a")


def test_former_owners_of_a_state_folder_are_kept(tmp_path: Path) -> None:
    """A folder that got a remote has another owner; the former one stays known, also to a reader."""
    with store_in(tmp_path) as store:
        assert store.load_state().owners == set()
        for owner in ("a", "a", "b", "b", "c", "a"):
            store.remember_owner(owner)
        assert store.load_state().owners == {"a", "b", "c"}
    assert read_state(tmp_path).owners == {"a", "b", "c"}
