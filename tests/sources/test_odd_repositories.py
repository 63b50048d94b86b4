"""Repositories that are old, odd or half made: read where git's own rules allow it, and else named as what they are."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from kapso_sync.errors import InvalidSource, SourceMissing, SourceRefused, SourceUnavailable
from kapso_sync.sources import git_tree
from tests.sources.repositories import CODE, Reader, Repository, contents


def _commit_object(
    upstream: Repository, author: str, committer: str = "", headers: bytes = b"", message: bytes = b"Odd\n"
) -> str:
    """Store a commit with these lines as they are, and let main point to it."""
    tree = upstream.git("rev-parse", "HEAD^{tree}")
    body = f"tree {tree}\nauthor {author}\ncommitter {committer or author}\n".encode() + headers + b"\n" + message
    commit = upstream.git("hash-object", "-t", "commit", "-w", "--literally", "--stdin", stdin=body)
    upstream.git("update-ref", "refs/heads/main", commit)
    return commit


@pytest.mark.parametrize(
    "author",
    [
        "Ada <ada@example.com> 1700000000 +051800",
        "Ada <ada@example.com> 1700000000 -7",
        "Ada <ada@example.com> 01700000000 +0000",
        "Ada ada@example.com 1700000000 +0000",
        "<ada@example.com> 1700000000 +0000",
    ],
    ids=["time zone", "short time zone", "padded date", "no brackets", "no name"],
)
async def test_a_tip_with_an_odd_author_line_is_read(author: str, upstream: Repository, reader: Reader) -> None:
    """Old tools wrote such lines, and nobody can write them again: they change no file."""
    commit = _commit_object(upstream, author, "Ada <ada@example.com> 1700000000 +0000")
    snapshot = await reader.open(upstream.url).fetch()
    assert (snapshot.revision.id, contents(snapshot)["a.ts"]) == (commit, CODE.encode())


@pytest.mark.parametrize("seconds", [10**12, 10**17, 2**63 - 1, "-5", "1.5", "yesterday"])
async def test_a_commit_whose_date_no_calendar_has_is_read_without_it(
    seconds: int | str, upstream: Repository, reader: Reader
) -> None:
    """The year 33658 comes of milliseconds where seconds belong; what is no number is not 1970."""
    commit = _commit_object(upstream, f"Ada <ada@example.com> {seconds} +0000")
    revision = (await reader.open(upstream.url).fetch()).revision
    assert (revision.id, revision.committed_at, revision.author) == (commit, None, "Ada")


ADA = "Ada <ada@example.com> 1700000000 +0000"


@pytest.mark.parametrize(
    ("encoding", "message", "subject"),
    [
        (b"iso-8859-1", "Größe".encode("latin-1"), "Größe"),
        (b"zlib_codec", b"Odd", "Odd"),
        (b"no-such-encoding", "Größe".encode(), "Größe"),
        (b"idna", b"xn--" + b"a" * 200, "xn--" + "a" * 196),
        (b"punycode", b"abc-" + b"ba" * 500_000, None),
    ],
    ids=["Latin-1", "none for text", "unknown", "with rules of its own", "slow"],
)
async def test_a_commit_of_any_encoding_is_read(
    encoding: bytes, message: bytes, subject: str | None, upstream: Repository, reader: Reader
) -> None:
    """What its author named is used where there is such a one, and for the beginning: some take minutes for 1 MiB."""
    commit = _commit_object(upstream, ADA, headers=b"encoding " + encoding + b"\n", message=message)
    started = time.process_time()
    revision = (await reader.open(upstream.url).fetch()).revision
    assert revision.id == commit
    assert subject in (revision.subject, None)
    assert time.process_time() - started < 5.0


async def test_a_commit_or_a_list_of_files_that_is_too_large_is_refused(upstream: Repository, reader: Reader) -> None:
    """A few kilobytes are pushed of it, and the memory for the whole is never taken; what fits is read, as the control."""
    limits = git_tree.MAX_OBJECT_BYTES
    rest = b"x" * (limits["commit"] - 300)
    commit = _commit_object(upstream, ADA, message=rest)
    source = reader.open(upstream.url)
    assert (await source.fetch()).revision.id == commit
    _commit_object(upstream, ADA, message=rest + b"x" * 300)
    with pytest.raises(InvalidSource, match=r"the commit .* bytes, and may have 1 MiB"):
        await source.fetch()
    blob, inner = upstream.blob(b"{}"), upstream.git("rev-parse", "HEAD^{tree}")
    names = [b"f%07d" % number + b"-" * 500 for number in range(limits["tree"] // 500)]
    upstream.commit_tree(*(("100644", name, blob) for name in names), ("40000", b"functions", inner))
    with pytest.raises(InvalidSource, match=r"the tree .* bytes, and may have 16 MiB"):
        await source.fetch()


async def test_a_tree_with_zero_padded_modes_is_read(upstream: Repository, reader: Reader) -> None:
    """Git calls it a warning, and so do we."""
    blob = upstream.blob(b"inner")
    inner = upstream.git("hash-object", "-t", "tree", "-w", "--stdin", stdin=b"100644 b.ts\0" + bytes.fromhex(blob))
    upstream.commit_tree(("100644", b"a.ts", upstream.blob(b"outer")), ("040000", b"deep", inner))
    assert contents(await reader.open(upstream.url).fetch()) == {"a.ts": b"outer", "deep/b.ts": b"inner"}


async def test_attributes_of_a_length_that_git_ignores_are_no_reason_to_refuse(upstream: Repository, reader: Reader) -> None:
    """Git itself checks such a repository out."""
    commit = upstream.commit({".gitattributes": f"*.js {'a' * 3000}\n"})
    assert (await reader.open(upstream.url).fetch()).revision.id == commit


async def test_a_remote_that_is_damaged_is_not_asked_to_be_tried_again(upstream: Repository, reader: Reader) -> None:
    """The hint is for whoever has the repository; what git printed has no control characters."""
    upstream.commit_tree(("40000", b"deep", "1" * 40))
    with pytest.raises(SourceUnavailable, match="repository corruption on the remote side") as caught:
        await reader.open(upstream.url).fetch()
    assert "git fsck" in str(caught.value.hint)
    assert caught.value.message.isprintable()


@pytest.mark.parametrize("name", [b"..", b".", b".git", b"a/b"])
async def test_a_tree_with_a_name_that_leads_elsewhere_is_refused(name: bytes, upstream: Repository, reader: Reader) -> None:
    """Such a name is no oddity of old tools; the hint does not promise that another try helps."""
    upstream.commit_tree(("100644", name, upstream.blob(b"outside")))
    with pytest.raises(SourceUnavailable) as caught:
        await reader.open(upstream.url).fetch()
    assert "again; a daemon" not in str(caught.value.hint)
    assert reader.seen == []


@pytest.mark.parametrize("spelling", ["path", "url"])
async def test_a_sha256_repository_is_named_as_what_it_is(spelling: str, reader: Reader, tmp_path: Path) -> None:
    """It is not read, and asking again does not help; a SHA-1 repository beside it is read."""
    folder = tmp_path / "sha256"
    upstream = Repository(folder.with_name("work"))
    upstream.git("init", "--quiet", "--object-format=sha256", "--initial-branch=main", str(folder))
    upstream.git("-C", str(folder), "commit", "--quiet", "--allow-empty", "--message", "First")
    with pytest.raises(SourceRefused, match="SHA-256") as caught:
        await reader.open(folder if spelling == "path" else folder.as_uri(), branch="main").fetch()
    assert caught.value.exit_code == 78
    assert "--object-format=sha1" in str(caught.value.hint)


async def test_a_head_that_names_a_missing_branch_is_said_as_such(upstream: Repository, reader: Reader) -> None:
    """The branches that there are stand in the hint; naming one helps."""
    upstream.git("branch", "release/1")
    upstream.git("symbolic-ref", "HEAD", "refs/heads/master")
    with pytest.raises(SourceMissing, match=r"HEAD of .* names a branch that does not exist") as caught:
        await reader.open(upstream.url).fetch()
    assert str(caught.value.hint).endswith("--branch: main, release/1")
    assert contents(await reader.open(upstream.url, branch="main").fetch())["a.ts"] == CODE.encode()


async def test_a_repository_of_tags_alone_is_said_as_such(upstream: Repository, reader: Reader) -> None:
    """It has commits; naming a tag helps."""
    for name in ("v1", "v2"):
        upstream.git("tag", "--annotate", "--message", "Release", name)
    upstream.git("checkout", "--quiet", "--detach")
    upstream.git("branch", "--quiet", "-D", "main")
    upstream.git("symbolic-ref", "HEAD", "refs/heads/main")
    with pytest.raises(SourceMissing, match="has tags, and no branch") as caught:
        await reader.open(upstream.url).fetch()
    assert str(caught.value.hint).endswith("--ref: v1, v2")
    assert contents(await reader.open(upstream.url, ref="v2").fetch())["a.ts"] == CODE.encode()


async def test_branches_and_tags_may_be_named_in_full(upstream: Repository, reader: Reader) -> None:
    """As git prints them in some places."""
    upstream.git("tag", "v1")
    for options in ({"branch": "refs/heads/main"}, {"ref": "refs/tags/v1"}):
        assert contents(await reader.open(upstream.url, **options).fetch())["a.ts"] == CODE.encode()
