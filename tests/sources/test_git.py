"""A git source: read at the requested branch, tag or commit, and at no other."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from kapso_sync.errors import SourceMissing, SourceUnavailable
from kapso_sync.model.events import SourceChanged
from tests.sources.repositories import CODE, MANIFEST, Reader, Repository, contents


async def test_the_default_branch_is_read_completely(upstream: Repository, reader: Reader) -> None:
    """Without a branch the remote's HEAD counts; the revision has author, time and subject."""
    source = reader.open(upstream.url)
    snapshot = await source.fetch()
    assert contents(snapshot) == {"manifest.yaml": MANIFEST.encode(), "a.ts": CODE.encode()}
    revision = snapshot.revision
    assert revision.id == upstream.git("rev-parse", "HEAD")
    assert (revision.subject, revision.author) == ("First", "Ada Lovelace")
    assert revision.committed_at == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert snapshot.source == upstream.url
    assert await source.default_branch() == "main"


async def test_every_local_spelling_of_a_repository_reads_the_same(
    upstream: Repository, reader: Reader, tmp_path: Path
) -> None:
    """file://, a bare repository's path and a work tree's path with a branch."""
    bare = tmp_path / "bare.git"
    upstream.git("clone", "--quiet", "--bare", ".", str(bare))
    found = [
        await Reader(tmp_path / f"state-{number}").open(text, branch=branch).fetch()
        for number, (text, branch) in enumerate([(upstream.url, None), (str(bare), None), (str(upstream.folder), "main")])
    ]
    assert found[0].revision == found[1].revision == found[2].revision
    assert found[0].files == found[1].files == found[2].files


async def test_uncommitted_changes_of_a_work_tree_are_not_read(upstream: Repository, reader: Reader) -> None:
    """If a branch is named, only committed files are read."""
    upstream.write({"a.ts": "not yet", "b.ts": "not yet"})
    assert contents(await reader.open(upstream.folder, branch="main").fetch())["a.ts"] == CODE.encode()


async def test_a_branch_is_followed_and_each_push_is_reported(upstream: Repository, reader: Reader) -> None:
    """A push is read by the next fetch; without a push nothing is fetched."""
    first = upstream.git("rev-parse", "HEAD")
    upstream.git("checkout", "--quiet", "-b", "release/1")
    source = reader.open(upstream.url, branch="release/1")
    await source.fetch()
    second = upstream.commit({"a.ts": "new"}, "Second")
    assert contents(await source.fetch())["a.ts"] == b"new"
    again = await source.fetch()
    assert again.revision.id == second
    assert reader.names() == ["source.changed", "source.changed", "source.unchanged"]
    assert reader.seen[1] == SourceChanged(revision=second, previous=first, subject="Second", author="Ada Lovelace")
    assert await source.default_branch() == "release/1"


async def test_a_force_push_is_followed(upstream: Repository, reader: Reader) -> None:
    """The tip counts, also when it is not a descendant; the event names both commits."""
    source = reader.open(upstream.url, branch="main")
    old = upstream.commit({"a.ts": "old"})
    await source.fetch()
    upstream.git("reset", "--quiet", "--hard", "HEAD~1")
    new = upstream.commit({"a.ts": "other"})
    assert contents(await source.fetch())["a.ts"] == b"other"
    upstream.git("reset", "--quiet", "--hard", old)
    assert (await source.fetch()).revision.id == old
    assert [(event.previous, event.revision) for event in reader.seen if isinstance(event, SourceChanged)] == [
        (None, old),
        (old, new),
        (new, old),
    ]


@pytest.mark.parametrize("options", [[], ["--annotate", "--message", "Release"]], ids=["light", "annotated"])
async def test_a_tag_pins_its_commit(options: list[str], upstream: Repository, reader: Reader) -> None:
    """Lightweight or annotated; a later push changes nothing, a moved tag does."""
    pinned = upstream.git("rev-parse", "HEAD")
    upstream.git("tag", *options, "v1")
    upstream.git("branch", "v1-else")
    later = upstream.commit({"a.ts": "later"})
    source = reader.open(upstream.url, ref="v1")
    assert (await source.fetch()).revision.id == pinned
    upstream.git("tag", "--force", *options, "v1")
    assert (await source.fetch()).revision.id == later


@pytest.mark.parametrize("spelling", ["full", "short", "capitals", "tag object"])
async def test_a_commit_id_pins_that_commit(spelling: str, upstream: Repository, reader: Reader) -> None:
    """Wherever it lies in the history; later pushes make no difference, and nobody is told that it moved."""
    pinned = upstream.commit({"a.ts": "pinned"})
    upstream.git("tag", "--annotate", "--message", "Release", "v1")
    upstream.commit({"a.ts": "later"})
    names = {"full": pinned, "short": pinned[:10], "capitals": pinned.upper(), "tag object": upstream.git("rev-parse", "v1")}
    source = reader.open(upstream.url, ref=names[spelling])
    snapshot = await source.fetch()
    assert snapshot.revision.id == pinned
    assert contents(snapshot)["a.ts"] == b"pinned"
    upstream.commit({"a.ts": "later still"})
    assert not await source.moved()
    assert (await source.fetch()).revision == snapshot.revision
    assert reader.names() == ["source.changed", "source.unchanged"]


@pytest.mark.parametrize("moves", ["pushed", "forced", "annotated tag", "tag without a note", "default branch"])
async def test_a_ref_that_moves_while_it_is_read_is_read_where_it_is_now(
    moves: str, upstream: Repository, reader: Reader
) -> None:
    """Between the question to the remote and the fetch; what the mirror holds is not fetched again."""
    upstream.git("tag", "--annotate", "--message", "Release", "v1")
    tag, branch = ("v1", None) if "tag" in moves else (None, None if moves == "default branch" else "main")
    source = reader.open(upstream.url, branch=branch, ref=tag)
    await source.fetch()
    upstream.commit({"a.ts": "seen"})
    upstream.git("tag", "--force", "--annotate", "--message", "Release", "v1")
    assert await source.moved()
    if moves == "default branch":
        upstream.git("checkout", "--quiet", "--orphan", "other")
    now = upstream.commit({"a.ts": "now"}, "Now")
    if moves == "forced":
        upstream.git("commit", "--quiet", "--amend", "--message", "Amended")
        now = upstream.git("rev-parse", "HEAD")
    upstream.git("tag", "--force", *(["--annotate", "--message", "Release"] if moves == "annotated tag" else []), "v1")
    kept = {path.name for path in reader.mirror.glob("objects/pack/*.pack")}
    assert (await source.fetch()).revision.id == now
    assert kept < {path.name for path in reader.mirror.glob("objects/pack/*.pack")}
    assert not await source.moved()


async def test_a_branch_that_vanishes_while_it_is_read_keeps_the_mirror(upstream: Repository, reader: Reader) -> None:
    """That fetch says which ref it missed, and the next one that there is no such branch."""
    upstream.git("branch", "release")
    source = reader.open(upstream.url, branch="release")
    await source.fetch()
    upstream.git("checkout", "--quiet", "release")
    upstream.commit({"a.ts": "seen"})
    assert await source.moved()
    upstream.git("checkout", "--quiet", "main")
    upstream.git("branch", "--quiet", "-D", "release")
    with pytest.raises(SourceUnavailable, match="couldn't find remote ref refs/heads/release"):
        await source.fetch()
    assert list(reader.mirror.glob("objects/pack/*.pack"))
    with pytest.raises(SourceMissing, match="has no branch release"):
        await source.fetch()


@pytest.mark.parametrize("options", [(), ("--annotate", "--message", "Odd")], ids=["lightweight", "annotated"])
async def test_a_tag_of_a_file_or_a_folder_is_said_as_such(
    options: tuple[str, ...], upstream: Repository, reader: Reader
) -> None:
    """Asking again does not help, and the hint does not say so."""
    for name, target in (("folder", "HEAD^{tree}"), ("file", "HEAD:a.ts")):
        upstream.git("tag", *options, name, target)
        with pytest.raises(SourceMissing, match=f"{name} of .* names no commit"):
            await reader.open(upstream.url, ref=name).fetch()


async def test_an_old_commit_is_found_from_a_shallow_mirror(upstream: Repository, reader: Reader) -> None:
    """A mirror that held one commit is deepened where the pin lies further back."""
    pinned = upstream.git("rev-parse", "HEAD")
    upstream.commit({"a.ts": "later"})
    await reader.open(upstream.url).fetch()
    assert (reader.mirror / "shallow").exists()
    assert (await reader.open(upstream.url, ref=pinned[:12]).fetch()).revision.id == pinned


@pytest.mark.parametrize(
    ("branch", "ref", "message"),
    [
        ("gone", None, "has no branch gone"),
        ("ain", None, "has no branch ain"),
        (None, "v9", "has no tag or commit v9"),
        (None, "main", "has no tag or commit main"),
        (None, "0123456789" * 4, "has no commit 0123456789"),
        (None, "badcafe", "has no commit badcafe"),
    ],
)
async def test_a_missing_branch_tag_or_commit_is_an_error(
    branch: str | None, ref: str | None, message: str, upstream: Repository, reader: Reader
) -> None:
    """The content of another one is never used."""
    with pytest.raises(SourceMissing, match=message):
        await reader.open(upstream.url, branch=branch, ref=ref).fetch()
    assert reader.seen == []


async def test_a_deleted_branch_is_missing_until_it_is_back(upstream: Repository, reader: Reader) -> None:
    """The source stays usable after the error."""
    upstream.git("branch", "side")
    source = reader.open(upstream.url, branch="side")
    first = await source.fetch()
    upstream.git("branch", "-D", "side")
    with pytest.raises(SourceMissing, match="has no branch side"):
        await source.fetch()
    upstream.git("branch", "side")
    assert await source.fetch() == first


async def test_an_empty_repository_is_an_error(reader: Reader, tmp_path: Path) -> None:
    """It is not an empty set of functions."""
    source = reader.open(Repository(tmp_path / "empty.git", bare=True).folder)
    with pytest.raises(SourceMissing, match="has no commit yet"):
        await source.fetch()


async def test_a_folder_that_is_not_a_repository_is_an_error(reader: Reader, tmp_path: Path) -> None:
    """For a file URL to a plain folder."""
    (tmp_path / "plain").mkdir()
    with pytest.raises(SourceMissing, match="is not a repository that we can read"):
        await reader.open((tmp_path / "plain").as_uri()).fetch()


async def test_a_path_names_the_functions_folder(upstream: Repository, reader: Reader) -> None:
    """Only what lies below is read; `functions` is the default when it exists, a dot means the root."""
    upstream.commit({"functions/b.ts": "b", "apps/one/c.ts": "c", "apps/two/d.ts": "d"})
    found = {path: await reader.open(upstream.url, path=path).fetch() for path in (None, ".", "apps/one")}
    assert {path: (one.path, set(one.files)) for path, one in found.items() if path != "."} == {
        None: ("functions", {"b.ts"}),
        "apps/one": ("apps/one", {"c.ts"}),
    }
    assert set(found["."].files) == {"manifest.yaml", "a.ts", "functions/b.ts", "apps/one/c.ts", "apps/two/d.ts"}


@pytest.mark.parametrize("path", ["absent", "a.ts", "apps/absent"])
async def test_a_missing_path_in_a_repository_is_an_error(path: str, upstream: Repository, reader: Reader) -> None:
    """A path that was removed, or is a file, is not an empty folder."""
    upstream.commit({"apps/one/c.ts": "c"})
    with pytest.raises(SourceMissing, match=f"has no folder {path}"):
        await reader.open(upstream.url, path=path).fetch()


async def test_a_commit_without_a_message_has_no_subject(upstream: Repository, reader: Reader) -> None:
    """An empty message is not an error, and a long subject is truncated."""
    upstream.commit({"a.ts": "x"}, "")
    source = reader.open(upstream.url)
    assert (await source.fetch()).revision.subject is None
    upstream.commit({"a.ts": "y"}, "long " * 100)
    assert len(str((await source.fetch()).revision.subject)) == 200
