"""Backups: the last copy of content that was not ours is never pruned, the number of others is limited."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

from kapso_sync.model.functions import RemoteFunction
from kapso_sync.store.backups import MAX_COPIES, back_up, read_backups
from tests.builders import CODE_A, DAWN, remote


def save(folder: Path, record: RemoteFunction, reason: str, at: int, *, keep: bool = False) -> Path:
    return folder / back_up(folder, record, reason, DAWN + timedelta(minutes=at), keep=keep)


def reasons(folder: Path) -> list[str]:
    return sorted(json.loads(path.read_text())["reason"] for path in folder.glob("*/*.json"))


def test_a_backup_holds_code_and_fields(tmp_path: Path) -> None:
    """One file, readable by us only, has everything that is needed to restore the function."""
    path = save(tmp_path, remote("a", text="What it does.", timeout=5), "drift", 0, keep=True)
    copy = json.loads(path.read_text())
    assert copy["code"] == CODE_A
    assert copy["fields"]["timeout"] == 5
    assert (copy["slug"], copy["function_id"], copy["reason"], copy["keep"]) == ("a", "id-a", "drift", True)
    assert path.stat().st_mode & 0o077 == 0


def test_the_same_content_is_backed_up_once(tmp_path: Path) -> None:
    """Saving it again updates the date; its reason to be kept stays."""
    save(tmp_path, remote("a"), "conflict", 0, keep=True)
    path = save(tmp_path, remote("a"), "changed in git", 1)
    assert len(list(tmp_path.glob("*/*.json"))) == 1
    copy = json.loads(path.read_text())
    assert (copy["reason"], copy["keep"]) == ("conflict", True)


def test_old_backups_are_pruned_by_number(tmp_path: Path) -> None:
    """Of content that is in git, the newest backups are kept."""
    for number in range(MAX_COPIES + 5):
        save(tmp_path, remote("a", f"// {number}"), "changed in git", number)
    codes = {json.loads(path.read_text())["code"] for path in tmp_path.glob("*/*.json")}
    assert codes == {f"// {number}" for number in range(5, MAX_COPIES + 5)}


def test_the_last_backup_of_foreign_content_is_never_pruned(tmp_path: Path) -> None:
    """Deleted, adopted and conflicting content, and the newest drift, stay however many backups follow."""
    for number, reason in enumerate(("deleted", "adopted", "conflict", "drift")):
        save(tmp_path, remote("a", f"// {reason}"), reason, number, keep=True)
    for number in range(MAX_COPIES * 2):
        save(tmp_path, remote("a", f"// {number}"), "changed in git", 10 + number)
    assert {"deleted", "adopted", "conflict", "drift"} <= set(reasons(tmp_path))
    assert len(reasons(tmp_path)) == MAX_COPIES + 4


def test_old_backups_are_pruned_by_age(tmp_path: Path) -> None:
    """After half a year content that is in git is pruned with the next backup; foreign content and the newest drift stay."""
    for number, reason in enumerate(("deleted", "adopted", "conflict", "drift")):
        save(tmp_path, remote("a", f"// {reason}"), reason, number, keep=True)
    save(tmp_path, remote("a", "// old"), "changed in git", 5)
    save(tmp_path, remote("a", "// new"), "changed in git", 60 * 24 * 181)
    assert reasons(tmp_path) == ["adopted", "changed in git", "conflict", "deleted", "drift"]


def test_backups_are_listed_newest_first(tmp_path: Path) -> None:
    """With all that a person needs to choose; other files are ignored."""
    first = save(tmp_path, remote("a", "// one", text="Said.", runtime_config={"a": 1}), "drift", 0, keep=True)
    second = save(tmp_path, remote("a", "// two"), "deleted", 1, keep=True)
    save(tmp_path, remote("b"), "deleted", 2, keep=True)
    (first.parent / "note.json").write_text("[1]")
    copies = read_backups(tmp_path, "a")
    assert [copy.id for copy in copies] == [second.stem, first.stem]
    assert (copies[1].code, copies[1].fields["runtime_config"], copies[1].reason) == ("// one", {"a": 1}, "drift")
    assert copies[1].saved_at == DAWN
    assert read_backups(tmp_path, "nobody") == ()


def test_a_slug_with_a_path_cannot_leave_the_backup_folder(tmp_path: Path) -> None:
    """A response is never trusted with a path."""
    path = save(tmp_path / "backups", remote("../../etc/x"), "deleted", 0, keep=True)
    assert path.resolve().is_relative_to(tmp_path / "backups")
    empty = save(tmp_path / "backups", remote(""), "deleted", 0, keep=True)
    assert empty.resolve().is_relative_to(tmp_path / "backups")


def test_other_files_in_the_backup_folder_are_ignored(tmp_path: Path) -> None:
    """They stay, and cause no error."""
    home = save(tmp_path, remote("a"), "drift", 0).parent
    (home / "note.json").write_text("not one of ours")
    save(tmp_path, remote("a", "// other"), "drift", 1)
    assert (home / "note.json").read_text() == "not one of ours"


def test_code_with_a_lone_surrogate_is_backed_up_unchanged(tmp_path: Path) -> None:
    """It causes no exception."""
    path = save(tmp_path, remote("a", "// \ud800"), "deleted", 0, keep=True)
    assert json.loads(path.read_text())["code"] == "// \ud800"
