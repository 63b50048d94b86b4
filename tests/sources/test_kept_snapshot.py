"""The last snapshot of a repository is kept outside of memory, and is the same one when it is wanted again."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from kapso_sync.model.source import Above, Revision, Snapshot, SourceFile
from kapso_sync.sources.kept_snapshot import KeptSnapshot
from tests.sources.repositories import Reader, Repository, contents

COMMIT, OTHER = "a" * 40, "b" * 40


def _snapshot(path: str = "a.ts", commit: str = COMMIT) -> Snapshot:
    return Snapshot(
        "https://example.com/functions",
        Revision(commit, subject="First", author="Ada"),
        "functions",
        {path: SourceFile(path, b"code \xff"), "link.js": SourceFile("link.js", None, "is a link")},
        remote_map=b"{}",
        lock_files={"": SourceFile("package-lock.json", b"lock")},
        unread=frozenset({"logo.png"}),
        above=Above("functions", {"../tsconfig.json": SourceFile("../tsconfig.json", b"{}")}),
    )


def _in_memory(content: bytes) -> int:
    """Count the files with this content that Python holds."""
    gc.collect()
    return sum(isinstance(item, SourceFile) and item.content == content for item in gc.get_objects())


def test_a_kept_snapshot_is_loaded_as_it_was(tmp_path: Path) -> None:
    """All of it: names, contents, problems, and what does not count as part of the revision. Each keep replaces the last."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    kept = KeptSnapshot(folder)
    assert kept.load(COMMIT) is None
    kept.keep(_snapshot("longer-name-than-the-next.ts", OTHER))
    kept.keep(_snapshot())
    assert kept.load(COMMIT) == kept.load(COMMIT) == _snapshot()
    assert kept.load(OTHER) is None
    assert not list(folder.iterdir()), "the file has a name, by which others could change it"


def test_what_cannot_be_written_to_a_file_is_kept_in_memory(tmp_path: Path) -> None:
    """No folder stands for no space; a path need not be text."""
    kept = KeptSnapshot(tmp_path / "missing")
    kept.keep(_snapshot())
    assert kept.load(COMMIT) == _snapshot()
    odd = _snapshot(os.fsdecode(b"\xff.ts"), OTHER)
    kept = KeptSnapshot(tmp_path)
    kept.keep(_snapshot())
    kept.keep(odd)
    assert kept.load(OTHER) == odd
    assert kept.load(COMMIT) is None


def _shorten(file: Path) -> None:
    os.truncate(file, 10)


def _change_a_byte(file: Path) -> None:
    with file.open("r+b") as opened:
        opened.seek(file.stat().st_size // 2)
        opened.write(b"\xc1")


@pytest.mark.parametrize("damage", [_shorten, _change_a_byte])
def test_a_file_that_a_bad_disk_has_damaged_is_no_snapshot(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    """The mirror has all of it, so nothing is lost."""
    kept = KeptSnapshot(tmp_path)
    kept.keep(_snapshot())
    (opened,) = (link for link in Path("/proc/self/fd").iterdir() if os.path.realpath(link).startswith(str(tmp_path)))
    assert kept.load(COMMIT) is not None
    damage(opened)
    assert kept.load(COMMIT) is None


async def test_contents_take_no_memory_between_two_passes(upstream: Repository, reader: Reader) -> None:
    """A thousand functions of some KiB would be most of what an idle daemon holds."""
    content = b"// " + os.urandom(8).hex().encode()
    upstream.commit({"a.ts": content})
    source = reader.open(upstream.url)
    snapshot = await source.fetch()
    assert _in_memory(content) == 1
    del snapshot
    assert _in_memory(content) == 0
    assert contents(await source.fetch())["a.ts"] == content


async def test_an_unchanged_revision_is_the_same_snapshot_even_without_a_mirror(upstream: Repository, reader: Reader) -> None:
    """What was read stays what this process goes by, until the remote shows another commit."""
    source = reader.open(upstream.url)
    first = await source.fetch()
    for packed in list(reader.mirror.glob("objects/pack/*")):
        packed.unlink()
    assert await source.fetch() == first


@pytest.mark.parametrize("lost", [False, True])
async def test_a_new_revision_takes_unchanged_files_from_the_kept_snapshot(
    upstream: Repository, reader: Reader, lost: bool
) -> None:
    """So it does not matter that the mirror's copy is damaged. Where the snapshot is lost, the mirror is fetched anew."""
    same = b"// " + os.urandom(20_000).hex().encode()
    upstream.commit({"a.ts": same})
    source = reader.open(upstream.url)
    await source.fetch()
    (pack,) = reader.mirror.glob("objects/pack/*.pack")
    pack.chmod(0o600)
    _change_a_byte(pack)
    there = reader.mirror / "there"
    there.touch()
    if lost:
        source._kept.keep(_snapshot())
    upstream.commit({"b.ts": b"new"})
    found = contents(await source.fetch())
    assert (found["a.ts"], found["b.ts"]) == (same, b"new")
    assert there.exists() is not lost
