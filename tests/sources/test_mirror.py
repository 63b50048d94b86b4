"""The git mirror is a cache: kept small, reused, and replaced when it is damaged."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from kapso_sync.errors import SourceUnavailable, StateUnusable
from kapso_sync.sources.git import MAX_PACKS
from tests.sources.repositories import CODE, Reader, Repository, contents
from tests.sources.servers import GitServer, serving


def _inode(path: Path) -> int:
    return path.stat().st_ino


async def test_the_mirror_is_shallow_and_reused(upstream: Repository, reader: Reader, tmp_path: Path) -> None:
    """One commit is fetched; after a restart the mirror alone provides a commit that it has."""
    old = upstream.git("rev-parse", "HEAD")
    upstream.commit({"a.ts": "new"})
    first = await reader.open(upstream.url).fetch()
    assert (reader.mirror / "shallow").read_text().strip() == first.revision.id
    assert not list(reader.mirror.glob(f"objects/{old[:2]}/{old[2:]}"))
    head, packs = _inode(reader.mirror / "HEAD"), set(reader.mirror.glob("objects/pack/*.pack"))
    upstream.commit({"a.ts": "newer"})
    upstream.git("reset", "--quiet", "--hard", "HEAD~1")
    assert await reader.open(upstream.url).fetch() == first
    assert _inode(reader.mirror / "HEAD") == head
    assert set(reader.mirror.glob("objects/pack/*.pack")) == packs


async def test_only_what_the_mirror_lacks_is_reported_as_a_transfer(upstream: Repository, reader: Reader) -> None:
    """A pass asks Kapso for its list then; a revision that is there already, or that did not move, is no reason to."""
    transfers: list[str] = []
    source = reader.open(upstream.url)
    for revision in ("first", "first", "second"):
        if revision == "second":
            upstream.commit({"a.ts": "new"})
        await source.fetch(lambda revision=revision: transfers.append(revision))  # type: ignore[misc]
    assert transfers == ["first", "second"]
    await reader.open(upstream.url).fetch(lambda: transfers.append("after a restart"))
    assert transfers == ["first", "second"]


async def test_every_push_adds_to_the_same_mirror(upstream: Repository, reader: Reader) -> None:
    """A small push does not clone the repository again."""
    await reader.open(upstream.url).fetch()
    head = _inode(reader.mirror / "HEAD")
    upstream.commit({"a.ts": "new"})
    assert contents(await reader.open(upstream.url).fetch())["a.ts"] == b"new"
    assert _inode(reader.mirror / "HEAD") == head


def _multiply_packs(mirror: Path) -> None:
    """Have as many packs as many pushes leave."""
    pack = next(mirror.glob("objects/pack/*.pack"))
    for number in range(MAX_PACKS):
        for part in (pack, pack.with_suffix(".idx")):
            shutil.copy(part, part.with_stem(f"pack-{number:040x}"))


async def test_many_packs_become_one_without_another_whole_transfer(
    upstream: Repository, reader: Reader, tmp_path: Path
) -> None:
    """A daemon that runs for a year fills no disk, and fetches what lies beside the functions once."""
    upstream.commit({"beside.bin": os.urandom(400_000), "old.bin": os.urandom(300_000)})
    with serving(GitServer(tmp_path)) as server:
        source = reader.open(f"{server.url}/upstream/.git")
        await source.fetch()
        assert server.sent > 600_000
        upstream.git("rm", "--quiet", "old.bin")
        upstream.commit({"a.ts": "second"})
        await source.fetch()
        _multiply_packs(reader.mirror)
        server.sent = 0
        upstream.commit({"a.ts": "third"})
        assert contents(await source.fetch())["a.ts"] == b"third"
        assert 0 < server.sent < 50_000
    packs = list(reader.mirror.glob("objects/pack/*.pack"))
    assert len(packs) == 2
    assert 400_000 < sum(pack.stat().st_size for pack in packs) < 600_000


async def test_a_fetch_that_breaks_on_its_way_keeps_the_mirror(upstream: Repository, reader: Reader, tmp_path: Path) -> None:
    """Over a bad line the next fetch transfers what changed, and not everything again; nothing is left of the broken one."""
    upstream.commit({"beside.bin": os.urandom(400_000)})
    with serving(GitServer(tmp_path)) as server:
        source = reader.open(f"{server.url}/upstream/.git")
        await source.fetch()
        upstream.commit({"a.ts": "new", "more.bin": os.urandom(200_000)})
        server.cut = 100_000
        with pytest.raises(SourceUnavailable, match="cannot be fetched"):
            await source.fetch()
        (reader.mirror / "objects/pack/tmp_pack_Ab12").write_bytes(b"of a fetch that was killed")
        server.cut, server.sent = None, 0
        assert contents(await source.fetch())["a.ts"] == b"new"
        assert 200_000 < server.sent < 300_000
    assert not list(reader.mirror.glob("objects/pack/tmp_*"))


@pytest.mark.parametrize("lock", ["shallow.lock", "HEAD.lock", "config.lock", "refs/kapso-sync/head.lock", "packed-refs.lock"])
async def test_lock_files_of_a_killed_git_are_removed(lock: str, upstream: Repository, reader: Reader) -> None:
    """A kill during a fetch does not stop all later ones."""
    await reader.open(upstream.url).fetch()
    (reader.mirror / lock).touch()
    upstream.commit({"a.ts": "new"})
    assert contents(await reader.open(upstream.url).fetch())["a.ts"] == b"new"


def _flip(path: Path, place: float) -> None:
    body = bytearray(path.read_bytes())
    body[int(len(body) * place)] ^= 0xFF
    path.chmod(0o644)
    path.write_bytes(body)


@pytest.mark.parametrize(("suffix", "place"), [(".pack", 0.1), (".pack", 0.3), (".pack", 0.6), (".pack", 0.85), (".idx", 0.95)])
async def test_a_corrupt_object_in_the_mirror_is_never_read(
    suffix: str, place: float, upstream: Repository, reader: Reader
) -> None:
    """Every object is compared with its id, so a bad disk costs a fetch and never deploys garbage."""
    good = await reader.open(upstream.url).fetch()
    _flip(next(reader.mirror.glob(f"objects/pack/*{suffix}")), place)
    assert await reader.open(upstream.url).fetch() == good


@pytest.mark.parametrize(
    "damaged",
    ["objects/pack/*.pack", "objects/pack/*.idx", "HEAD", "config", "shallow"],
)
async def test_a_truncated_file_in_the_mirror_is_repaired(damaged: str, upstream: Repository, reader: Reader) -> None:
    """A full disk leaves empty files; the mirror is fetched again from the remote."""
    good = await reader.open(upstream.url).fetch()
    path = next(reader.mirror.glob(damaged))
    path.chmod(0o644)
    path.write_bytes(b"")
    assert await reader.open(upstream.url).fetch() == good
    upstream.commit({"a.ts": "new"})
    assert contents(await reader.open(upstream.url).fetch())["a.ts"] == b"new"


async def test_a_mirror_folder_of_other_files_is_emptied_and_kept(upstream: Repository, reader: Reader, tmp_path: Path) -> None:
    """It may be a mount point, so the folder itself stays; targets of symlinks are not touched."""
    reader.mirror.mkdir(parents=True)
    (reader.mirror / "HEAD").write_text("rubbish")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/kept").touch()
    (reader.mirror / "link").symlink_to(tmp_path / "outside")
    (reader.mirror / "objects").mkdir()
    inode = _inode(reader.mirror)
    assert contents(await reader.open(upstream.url).fetch())["a.ts"] == CODE.encode()
    assert _inode(reader.mirror) == inode
    assert (tmp_path / "outside/kept").exists()
    assert not (reader.mirror / "link").exists()


async def test_a_mirror_below_a_folder_with_a_dollar_is_found(upstream: Repository, tmp_path: Path) -> None:
    """The path is used literally: nothing in it is expanded."""
    reader = Reader(tmp_path / "$HOME" / "~")
    assert contents(await reader.open(upstream.url).fetch())["a.ts"] == CODE.encode()
    assert not list((tmp_path / "home-of-tests").iterdir())


async def test_a_full_disk_is_reported_as_such_and_not_as_a_silent_remote(
    upstream: Repository, reader: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The words of a real git whose disk is full; when there is space again, the next fetch works."""
    real = shutil.which("git")
    player = tmp_path / "bin" / "git"
    player.parent.mkdir()
    words = "fatal: write error: No space left on device"
    player.write_text(f'#!/bin/sh\ncase "$*" in *fetch*) echo "{words}" >&2; exit 128 ;; esac\nexec {real} "$@"\n')
    player.chmod(0o755)
    path = os.environ["PATH"]
    monkeypatch.setenv("PATH", f"{player.parent}:{path}")
    source = reader.open(upstream.url)
    with pytest.raises(StateUnusable, match=r"mirror cannot be written.*No space left on device") as caught:
        await source.fetch()
    assert caught.value.exit_code == 78
    assert "df -h" in str(caught.value.hint)
    player.write_text(player.read_text().replace("fatal: write", "remote: write"))
    with pytest.raises(SourceUnavailable):
        await source.fetch()
    monkeypatch.setenv("PATH", path)
    assert contents(await source.fetch())["a.ts"] == CODE.encode()


async def test_a_damaged_remote_is_reported(upstream: Repository, reader: Reader) -> None:
    """Its objects cannot be fetched; the last good snapshot stays in use."""
    source = reader.open(upstream.url)
    await source.fetch()
    commit = upstream.commit({"a.ts": "new"})
    blob = upstream.git("rev-parse", f"{commit}:a.ts")
    (upstream.folder / ".git/objects" / blob[:2] / blob[2:]).unlink()
    with pytest.raises(SourceUnavailable, match="cannot be fetched"):
        await source.fetch()
    assert reader.names() == ["source.changed"]
    upstream.blob(b"new")
    assert contents(await source.fetch())["a.ts"] == b"new"
