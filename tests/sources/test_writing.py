"""Writing into a functions folder: atomically, and never outside of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from kapso_sync.errors import SourceUnstable
from kapso_sync.model.pull import FileChange
from kapso_sync.sources.writing import FileRefused, write_file


def test_writing_creates_folders_and_keeps_permissions(tmp_path: Path) -> None:
    """A new file gets the default permissions, an old one keeps its own, and no temporary file is left."""
    home = tmp_path / "new" / "functions"
    write_file(home, FileChange("a/index.js", None, b"1"))
    (home / "a" / "index.js").chmod(0o640)
    write_file(home, FileChange("a/index.js", b"1", b"2"))
    assert (home / "a" / "index.js").read_bytes() == b"2"
    assert (home / "a" / "index.js").stat().st_mode & 0o777 == 0o640
    assert [path.name for path in (home / "a").iterdir()] == ["index.js"]


@pytest.mark.parametrize("path", ["../a.js", "/etc/a.js", "a/../../b.js", "", "a\\b.js", "a\n.js"])
def test_writing_outside_of_the_folder_is_refused(tmp_path: Path, path: str) -> None:
    """A name from Kapso is never trusted."""
    with pytest.raises(FileRefused):
        write_file(tmp_path / "home", FileChange(path, None, b"1"))
    assert not (tmp_path / "a.js").exists()
    assert not (tmp_path / "b.js").exists()


@pytest.mark.parametrize("link", ["a.js", "folder"])
def test_nothing_is_written_through_a_symlink(tmp_path: Path, link: str) -> None:
    """Neither to a linked file, nor into a linked folder; not even through a dangling symlink."""
    home, outside = tmp_path / "home", tmp_path / "outside"
    home.mkdir()
    (home / link).symlink_to(outside)
    with pytest.raises(FileRefused, match="link"):
        write_file(home, FileChange(link if link == "a.js" else "folder/a.js", None, b"1"))
    assert not outside.exists()


def test_a_file_that_changed_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    """Somebody saved or created it between the plan and the write."""
    (tmp_path / "a.js").write_bytes(b"saved meanwhile")
    for old in (b"as planned", None):
        with pytest.raises(SourceUnstable):
            write_file(tmp_path, FileChange("a.js", old, b"new"))
    assert (tmp_path / "a.js").read_bytes() == b"saved meanwhile"


def test_an_unwritable_folder_is_an_error_with_its_path(tmp_path: Path) -> None:
    """In one line, and no file is half-written."""
    (tmp_path / "file").write_text("")
    with pytest.raises(FileRefused, match="cannot be written"):
        write_file(tmp_path, FileChange("file/a.js", None, b"1"))
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileRefused, match="not a regular file"):
        write_file(tmp_path, FileChange("folder", None, b"1"))
