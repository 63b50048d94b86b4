"""Reading files that somebody else has made: no link is followed, nothing is waited for, and all of it is bounded."""

from __future__ import annotations

import contextlib
import errno
import os
import tracemalloc
from pathlib import Path, PurePath

import pytest

from kapso_sync.files import FilesBeneath, read_beneath, read_small

CANARY = b"what is outside"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a file at two depths, and a canary beside it."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "canary").write_bytes(CANARY)
    (tmp_path / "folder" / "deep" / "er").mkdir(parents=True)
    for path in ("file", "deep/er/file"):
        (tmp_path / "folder" / path).write_bytes(b"12345")
    return tmp_path / "folder"


def failure(folder: Path, path: str, limit: int = 5) -> int | None:
    with pytest.raises(OSError, match=r".") as raised:
        read_beneath(folder, PurePath(path), limit)
    return raised.value.errno


def test_a_regular_file_is_read_up_to_the_limit(folder: Path) -> None:
    """One byte more is an error, and not a part of the file."""
    assert read_small(folder / "file", 5) == read_beneath(folder, PurePath("deep/er/file"), 5) == b"12345"
    assert failure(folder, "file", 4) == failure(folder, "deep/er/file", 4) == errno.EFBIG


def test_a_file_without_a_true_size_is_read_whole_and_no_further_than_the_limit() -> None:
    """Those of /proc say that they are empty; a file that grows while it is read is like them."""
    file = Path("/proc/self/status")
    assert file.stat().st_size == 0
    assert read_small(file, 1 << 20).startswith(b"Name:")
    with pytest.raises(OSError, match="larger than 5 bytes"):
        read_small(file, 5)


def test_a_small_file_takes_little_memory_whatever_the_limit_is(folder: Path) -> None:
    """The limit is for attackers; what a pass reads a thousand times has two thousand bytes."""
    tracemalloc.start()
    try:
        assert read_small(folder / "file", 1 << 30) == b"12345"
        assert tracemalloc.get_traced_memory()[1] < 1 << 18
    finally:
        tracemalloc.stop()


def test_pipes_devices_and_folders_are_refused_without_waiting(folder: Path) -> None:
    """Opening a pipe that nobody writes to would wait for ever."""
    os.mkfifo(folder / "pipe")
    assert failure(folder, "pipe") == errno.EINVAL
    assert failure(folder, "deep") == errno.EINVAL
    with pytest.raises(OSError, match="not a regular file"):
        read_small(Path("/dev/zero"), 5)


def test_no_descriptor_stays_open(folder: Path) -> None:
    """Whatever comes of it."""
    os.mkfifo(folder / "pipe")
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names are enough
    for path, limit in (("file", 5), ("file", 1), ("pipe", 5), ("deep", 5), ("deep/er/file", 5), ("deep/absent/file", 5)):
        with contextlib.suppress(OSError):
            read_beneath(folder, PurePath(path), limit)
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208 - as above


def test_no_link_leads_out_wherever_it_stands(folder: Path) -> None:
    """As the file, or as a folder on the way; `follow` is for the last part alone."""
    (folder / "link").symlink_to(folder.parent / "outside" / "canary")
    (folder / "deep" / "out").symlink_to(folder.parent / "outside")
    assert failure(folder, "link", 100) == errno.ELOOP
    assert failure(folder, "deep/out/canary", 100) in (errno.ELOOP, errno.ENOTDIR)
    assert failure(folder, "../outside/canary", 100) == errno.EXDEV
    with pytest.raises(OSError, match=r"."):
        read_small(folder / "link", 100)
    assert read_small(folder / "link", 100, follow=True) == CANARY


def test_a_folder_that_is_swapped_for_a_link_is_not_followed(folder: Path) -> None:
    """Between a look at it and the reading; the other files are read as before."""
    (folder / "deep" / "er").rename(folder.parent / "moved")
    (folder.parent / "outside" / "file").write_bytes(CANARY)
    (folder / "deep" / "er").symlink_to(folder.parent / "outside")
    assert failure(folder, "deep/er/file", 100) in (errno.ELOOP, errno.ENOTDIR)
    assert read_beneath(folder, PurePath("file"), 100) == b"12345"


def open_descriptors() -> set[str]:
    """The numbers of the open files of this process; empty where there is no /proc."""
    listing = Path("/proc/self/fd")
    return {entry.name for entry in listing.iterdir() if entry.exists()} if listing.is_dir() else set()


def test_files_of_a_folder_are_read_one_after_the_other(folder: Path) -> None:
    """From wherever they are, also after one that cannot be read; nothing stays open."""
    before = open_descriptors()
    with FilesBeneath(folder) as beneath:
        for path in ("file", "deep/er/file", "deep/er/file", "file"):
            assert beneath.read(path, 5) == b"12345"
        for path, problem in (("gone/file", errno.ENOENT), ("deep/er/gone", errno.ENOENT), ("../outside/canary", errno.EXDEV)):
            with pytest.raises(OSError, match=r".") as raised:
                beneath.read(path, 5)
            assert raised.value.errno == problem
        assert beneath.read("deep/er/file", 5) == b"12345"
    assert open_descriptors() == before


def test_a_folder_that_becomes_a_link_between_two_files_leads_nowhere(folder: Path) -> None:
    """The open one is still the folder that was looked at; the canary would be found through the link."""
    with FilesBeneath(folder) as beneath:
        assert beneath.read("deep/er/file", 5) == b"12345"
        (folder / "deep" / "er").rename(folder / "deep" / "moved")
        (folder / "deep" / "er").symlink_to(folder.parent / "outside")
        with pytest.raises(FileNotFoundError):
            beneath.read("deep/er/canary", 100)
        assert beneath.read("file", 5) == b"12345"
        with pytest.raises(OSError, match=r".") as raised:
            beneath.read("deep/er/canary", 100)
        assert raised.value.errno in (errno.ELOOP, errno.ENOTDIR)
    assert (folder / "deep" / "er" / "canary").read_bytes() == CANARY
