"""The history of a function: what was done, limited in size, and never a reason to fail."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest

from kapso_sync.model import events
from kapso_sync.model.source import Revision
from kapso_sync.store.history import History, read_history
from tests.builders import DAWN, moment


def updated(slug: str = "a", function_id: str = "id-a", number: int = 0) -> events.Event:
    return events.FunctionUpdated(slug=slug, function_id=function_id, fields=(f"f{number}",), origin="git")


def test_history_records_events_with_their_revision(tmp_path: Path) -> None:
    """Time, action and commit; what each pass sees again is not recorded."""
    with History(tmp_path, lambda: DAWN) as book:
        book.listen(updated())
        book.at(Revision("c0ffee", subject="Mend it", author="Ada"))
        book.listen(events.DeploySucceeded(slug="a", function_id="id-a", duration_ms=1200))
        book.listen(events.FunctionFailed(slug="a", function_id="id-a", error="x", error_type="X"))
        book.listen(events.ReconcileStarted(trigger="poll"))
    assert read_history(tmp_path, "a") == (
        {
            "at": DAWN.isoformat(timespec="milliseconds"),
            "slug": "a",
            "function_id": "id-a",
            "event": "function.updated",
            "fields": ["f0"],
            "origin": "git",
        },
        {
            "at": DAWN.isoformat(timespec="milliseconds"),
            "slug": "a",
            "function_id": "id-a",
            "event": "deploy.succeeded",
            "revision": "c0ffee",
            "subject": "Mend it",
            "author": "Ada",
            "duration_ms": 1200,
        },
    )
    assert (tmp_path / "history.db").stat().st_mode & 0o077 == 0


def test_a_renamed_function_keeps_its_history(tmp_path: Path) -> None:
    """Entries under its old slug are found by its id."""
    with History(tmp_path, lambda: DAWN) as book:
        book.listen(updated("old", "id-1"))
        book.listen(events.FunctionRenamed(slug="new", function_id="id-1", previous="old"))
        book.listen(updated("other", "id-2"))
    assert [entry["slug"] for entry in read_history(tmp_path, "new")] == ["old", "new"]


def test_history_is_bounded(tmp_path: Path) -> None:
    """The newest entries of each function are kept, up to a limit for all functions together."""
    with History(tmp_path, lambda: moment(1), max_revisions=3, max_entries=10) as book:
        for number in range(20):
            book.listen(updated("a", "id-a", number))
        assert [entry["fields"] for entry in read_history(tmp_path, "a")] == [["f17"], ["f18"], ["f19"]]
        for number in range(10):
            book.listen(updated(f"b{number}", f"id-b{number}"))
    assert read_history(tmp_path, "a") == ()
    assert read_history(tmp_path, "b0")


def test_secrets_are_redacted_in_the_history(tmp_path: Path) -> None:
    """A secret in an error message is redacted before it is written."""
    with History(tmp_path, lambda: DAWN, lambda text: text.replace("hush", "[redacted]")) as book:
        book.listen(events.DeployFailed(slug="a", function_id="id-a", error="token hush is wrong"))
    assert read_history(tmp_path, "a")[0]["error"] == "token [redacted] is wrong"
    assert b"hush" not in b"".join(path.read_bytes() for path in tmp_path.iterdir())


@pytest.mark.parametrize(
    "entry",
    ["{}", "[1]", "null", "x", '{"event": 1}', '{"event": "deploy.succeeded", "revision": 1}', '{"event": "x", "author": []}'],
)
def test_an_entry_that_cannot_be_read_is_left_out(tmp_path: Path, entry: str) -> None:
    """Of an event of another version, and of none; the others stay."""
    with History(tmp_path, lambda: DAWN) as book:
        book.listen(updated(number=1))
        book.listen(updated(number=2))
    with contextlib.closing(sqlite3.connect(tmp_path / "history.db")) as db, db:
        db.execute("UPDATE history SET entry = ? WHERE id = 1", (entry,))
    assert [found["fields"] for found in read_history(tmp_path, "a")] == [["f2"]]


def test_a_damaged_or_unwritable_history_is_not_an_error(tmp_path: Path) -> None:
    """A truncated file is replaced; where nothing can be written, events are dropped."""
    (tmp_path / "history.db").write_bytes(b"torn" * 1000)
    with History(tmp_path, lambda: DAWN) as book:
        book.listen(updated())
    assert len(read_history(tmp_path, "a")) == 1
    with History(tmp_path / "nowhere", lambda: DAWN) as book:
        book.listen(updated())
    assert read_history(tmp_path / "nowhere", "a") == ()


def test_half_a_surrogate_pair_does_not_end_a_pass(tmp_path: Path) -> None:
    r"""JSON can carry it, as ``\ud800`` in an error of the server, and no database takes it as it is."""
    with History(tmp_path, lambda: DAWN) as book:
        book.at(Revision("c0ffee", subject="\udfff", author="\ud800"))
        book.listen(events.DeployFailed(slug="\ud800", function_id="\ud801", error="bad \ud800 é", hint=None))
    (entry,) = read_history(tmp_path, "\ud800")
    assert (entry["slug"], entry["error"], entry["subject"]) == ("\\ud800", "bad \ud800 é", "\udfff")
