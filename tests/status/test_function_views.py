"""What a function's view shows of the state folder: history by commit, checks, backups, what ran before; and no secret."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from kapso_sync.model import events
from kapso_sync.model.function_view import FunctionRecord
from kapso_sync.model.source import Revision
from kapso_sync.status.function_views import MAX_ENTRIES, MAX_RECORDS, FunctionViews
from kapso_sync.store.database import StateStore
from kapso_sync.store.history import History
from tests.builders import CODE_A, CODE_B, DAWN, remote

FIRST = Revision("a" * 40, subject="Add it", author="Ada")
SECOND = Revision("b" * 40, subject="Shout", author="Bob")
ID = "id-greet"


class Folder:
    """A state folder, as a daemon writes it while somebody looks."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.minutes = 0
        self.views = FunctionViews(lambda: path, lambda text: text.replace("topsecret", "***"))
        self.store = StateStore(path, self.now)
        self.history = History(path, self.now)

    def now(self) -> datetime:
        self.minutes += 1
        return DAWN + timedelta(minutes=self.minutes)

    def happened(self, revision: Revision, *happened: events.Event) -> None:
        self.history.at(revision)
        for event in happened:
            self.history.listen(event)

    async def record(self) -> FunctionRecord:
        return await self.views.record("greet", ID)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    made = Folder(tmp_path / "state")
    with made.store, made.history:
        yield made


def live(milliseconds: int) -> events.Event:
    return events.DeploySucceeded(slug="greet", function_id=ID, duration_ms=milliseconds)


def failed(check: int, answer: str = "status 500") -> events.Event:
    text = f"check {check} failed: expected status 200, got {answer}"
    return events.CheckFailed(slug="greet", function_id=ID, check=check, expected="status 200", answer=answer, error=text)


PASSED = events.CheckPassed(slug="greet", function_id=ID, checks=2, duration_ms=1500, answer="status 200, 'pong'")
ROLLBACK = events.RollbackStarted(slug="greet", function_id=ID, reason="check 1 failed", code="x", restored="y")
RESTORED = events.RollbackSucceeded(slug="greet", function_id=ID, code="x", restored="y")


async def test_history_is_by_commit_with_durations_and_rollbacks(folder: Folder) -> None:
    """The newest first; a deployment that restores what ran before is not the commit's own."""
    folder.happened(FIRST, events.FunctionCreated(slug="greet", function_id=ID), live(21_300), PASSED)
    folder.happened(SECOND, live(4000), failed(1), ROLLBACK, live(9000), RESTORED)
    newest, oldest = (await folder.record()).history
    assert (newest.revision, newest.deploy_seconds, newest.rolled_back) == (SECOND, 4.0, True)
    assert (oldest.revision, oldest.deploy_seconds, oldest.rolled_back) == (FIRST, 21.3, False)
    assert [entry.text for entry in newest.entries][:2] == ["rolled back: the previous version runs again", "live after 9.0 s"]
    assert {entry.level for entry in newest.entries} == {"info", "warning", "error"}
    assert oldest.entries[-1].text == "created"


async def test_the_last_run_of_the_checks_counts(folder: Folder) -> None:
    """All that failed then, or how many passed."""
    assert (await folder.record()).checks == ()
    folder.happened(FIRST, live(1), failed(1, "old"))
    folder.happened(SECOND, live(1), failed(1), failed(3, "no JSON"))
    first, third = (await folder.record()).checks
    assert (first.number, first.expected, first.answer) == (1, "status 200", "status 500")
    assert (third.number, third.answer) == (3, "no JSON")
    folder.happened(SECOND, live(1), PASSED)
    (passed,) = (await folder.record()).checks
    assert (passed.count, passed.number, passed.seconds, passed.answer) == (2, None, 1.5, "status 200, 'pong'")


async def test_what_ran_before_is_compared_with_what_runs(folder: Folder) -> None:
    """Code and fields, without our mark; code that failed and was rolled back did not run before."""
    mark = " [kapso-sync:acme#a1b2c3]"
    folder.store.back_up(remote("greet", CODE_A, text=f"Says topsecret.{mark}"), "changed in git", keep=False)
    folder.store.back_up(remote("greet", "// broken", text=mark), "failed", keep=False)
    record = await folder.record()
    assert (record.former, record.changed) == (None, None), "what runs is not known yet"
    folder.store.keep_version(remote("greet", CODE_B, text="Greets."))
    record = await folder.record()
    assert record.former is not None
    assert (record.former.reason, [backup.reason for backup in record.backups]) == (
        "changed in git",
        ["failed", "changed in git"],
    )
    assert not record.rolled_back
    assert record.changed is not None
    lines = record.changed.splitlines()
    assert {"--- backup/greet (fields)", "+++ live/greet (code)", "-description: Says ***.", "+description: Greets."} <= {
        *lines
    }
    assert [f"-{CODE_A.rstrip()}" in lines, f"+{CODE_B.rstrip()}" in lines] == [True, True]
    assert "kapso-sync:" not in record.changed


async def test_what_was_rolled_back_is_compared_where_nothing_else_is_known(folder: Folder) -> None:
    """As after a watch: the second version ran and failed, and the first runs again."""
    folder.store.back_up(remote("greet", CODE_A), "changed in git", keep=False)
    folder.store.back_up(remote("greet", CODE_B), "failed", keep=False)
    folder.store.keep_version(remote("greet", CODE_A))
    record = await folder.record()
    assert record.former is not None
    assert (record.former.reason, record.rolled_back) == ("failed", True)
    assert f"-{CODE_B.rstrip()}" in str(record.changed).splitlines()


async def test_a_backup_is_found_by_its_id_with_its_diff(folder: Folder) -> None:
    """Of this function alone; an id leads to no other file."""
    name = folder.store.back_up(remote("greet", CODE_A), "drift", keep=True)
    other = folder.store.back_up(remote("other", CODE_A), "drift", keep=True)
    backup_id = Path(name).stem
    found = await folder.views.backup("greet", ID, backup_id)
    assert found is not None
    assert (found.summary.id, found.summary.reason, found.summary.kept, found.diff) == (backup_id, "drift", True, None)
    folder.store.keep_version(remote("greet", CODE_B))
    found = await folder.views.backup("greet", ID, backup_id)
    assert found is not None
    assert "+++ live/greet (code)" in str(found.diff)
    for odd in (Path(other).stem, "", "..", "../other/x", f"../greet/{backup_id}", f"{backup_id}.json"):
        assert await folder.views.backup("greet", ID, odd) is None, odd
    assert await folder.views.backup("../state", ID, backup_id) is None


async def test_a_record_is_read_again_only_when_something_was_written(folder: Folder) -> None:
    """A page that is open asks all the time; what it is made of is bounded."""
    folder.happened(FIRST, live(1))
    first = await folder.record()
    assert await folder.record() is first
    folder.happened(FIRST, *(live(number) for number in range(MAX_ENTRIES + 20)))
    again = await folder.record()
    assert sum(len(each.entries) for each in again.history) == MAX_ENTRIES
    for number in range(MAX_RECORDS * 2):
        await folder.views.record(f"stranger-{number}", None)
    assert len(folder.views._records) == MAX_RECORDS


async def test_a_folder_that_cannot_be_read_gives_an_empty_record(tmp_path: Path) -> None:
    """Missing, or torn; nothing is written either."""
    views = FunctionViews(lambda: tmp_path / "state", str)
    assert await views.record("greet", ID) == FunctionRecord()
    (tmp_path / "state").mkdir()
    for name in ("history.db", "state.db"):
        (tmp_path / "state" / name).write_bytes(b"no database")
    assert await views.record("greet", ID) == FunctionRecord()
    assert sorted(path.name for path in (tmp_path / "state").iterdir()) == ["history.db", "state.db"]
