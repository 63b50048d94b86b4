"""Writing into a functions folder: whole or not at all, and never anywhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

from kapso_sync.errors import SourceUnstable
from kapso_sync.model.pull import FileChange
from kapso_sync.sources.writing import FileRefused, write_file


def test_folders_are_made_and_permissions_kept(tmp_path: Path) -> None:
    """A new file gets the usual permissions, an old one keeps its own, and nothing else is left behind."""
    home = tmp_path / "new" / "functions"
    write_file(home, FileChange("a/index.js", None, b"1"))
    (home / "a" / "index.js").chmod(0o640)
    write_file(home, FileChange("a/index.js", b"1", b"2"))
    assert (home / "a" / "index.js").read_bytes() == b"2"
    assert (home / "a" / "index.js").stat().st_mode & 0o777 == 0o640
    assert [path.name for path in (home / "a").iterdir()] == ["index.js"]


@pytest.mark.parametrize("path", ["../a.js", "/etc/a.js", "a/../../b.js", "", "a\\b.js", "a\n.js"])
def test_a_path_that_leads_out_is_refused(tmp_path: Path, path: str) -> None:
    """A name from the other side is never trusted."""
    with pytest.raises(FileRefused):
        write_file(tmp_path / "home", FileChange(path, None, b"1"))
    assert not (tmp_path / "a.js").exists()
    assert not (tmp_path / "b.js").exists()


@pytest.mark.parametrize("link", ["a.js", "folder"])
def test_nothing_is_written_through_a_link(tmp_path: Path, link: str) -> None:
    """Neither to what a linked file stands for, nor into a linked folder; not even where the link leads nowhere."""
    home, outside = tmp_path / "home", tmp_path / "outside"
    home.mkdir()
    (home / link).symlink_to(outside)
    with pytest.raises(FileRefused, match="link"):
        write_file(home, FileChange(link if link == "a.js" else "folder/a.js", None, b"1"))
    assert not outside.exists()


def test_what_changed_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    """Between the plan and the write somebody saved the file, or made it."""
    (tmp_path / "a.js").write_bytes(b"saved meanwhile")
    for old in (b"as planned", None):
        with pytest.raises(SourceUnstable):
            write_file(tmp_path, FileChange("a.js", old, b"new"))
    assert (tmp_path / "a.js").read_bytes() == b"saved meanwhile"


def test_a_folder_that_cannot_be_written_is_an_error_of_ours(tmp_path: Path) -> None:
    """One line with the path, and nothing half-written."""
    (tmp_path / "file").write_text("")
    with pytest.raises(FileRefused, match="cannot be written"):
        write_file(tmp_path, FileChange("file/a.js", None, b"1"))
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileRefused, match="not a regular file"):
        write_file(tmp_path, FileChange("folder", None, b"1"))
