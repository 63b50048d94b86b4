"""A folder source: read completely, and only when it does not change meanwhile."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from kapso_sync.errors import InvalidSource, SourceMissing, SourceUnavailable, SourceUnstable
from kapso_sync.model.events import SourceChanged
from kapso_sync.model.source import CODE_LIMIT, FILE_COUNT_LIMIT, MANIFEST_LIMIT
from kapso_sync.sources.folder import FolderSource
from tests.sources.repositories import CODE, MANIFEST, Reader, contents, problems

StrPath = str | os.PathLike[str]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a manifest and one function."""
    place = tmp_path / "flows"
    place.mkdir()
    (place / "manifest.yaml").write_text(MANIFEST)
    (place / "a.ts").write_text(CODE)
    return place


async def test_the_same_content_is_the_same_revision(folder: Path, tmp_path: Path, reader: Reader) -> None:
    """Names and bytes decide, not the location and the time of writing."""
    copy = tmp_path / "copy"
    copy.mkdir()
    for name, text in (("a.ts", CODE), ("manifest.yaml", MANIFEST)):
        (copy / name).write_text(text)
        os.utime(copy / name, (1, 1))
    source = reader.open_folder(folder)
    first = await source.fetch()
    assert contents(first) == {"manifest.yaml": MANIFEST.encode(), "a.ts": CODE.encode()}
    assert (await reader.open_folder(copy).fetch()).revision == first.revision
    assert first.revision.short.startswith("folder:")
    (folder / "a.ts").write_text(CODE + "\n")
    assert (await source.fetch()).revision != first.revision


async def test_a_folder_that_git_sync_published_is_shown_as_its_commit(tmp_path: Path, reader: Reader) -> None:
    """The link leads to a folder named by the commit; the next commit is a new revision, even if no function changed."""
    first, second = "5a" * 20, "c3" * 20
    for commit in (first, second):
        (tmp_path / ".worktrees" / commit / "functions").mkdir(parents=True)
        (tmp_path / ".worktrees" / commit / "functions" / "manifest.yaml").write_text(MANIFEST)
        (tmp_path / ".worktrees" / commit / "functions" / "a.ts").write_text(CODE)
    link = tmp_path / "current"
    link.symlink_to(Path(".worktrees", first))
    source = reader.open_folder(link, "functions")
    assert (await source.fetch()).revision.id == first
    link.unlink()
    link.symlink_to(Path(".worktrees", second))
    assert await source.moved()
    assert (await source.fetch()).revision.id == second


def _published(folder: Path, name: str) -> Path:
    """Make a folder of this name as git-sync does, with a link to it, and return it."""
    tree = folder / name
    tree.mkdir()
    (tree / "manifest.yaml").write_text(MANIFEST)
    (tree / "a.ts").write_text(CODE)
    (folder / "current").symlink_to(name)
    return tree


async def test_the_folders_of_older_versions_of_git_sync_are_shown_as_their_commit(tmp_path: Path, reader: Reader) -> None:
    """They began with `rev-`."""
    _published(tmp_path, f"rev-{'5a' * 20}")
    assert (await reader.open_folder(tmp_path / "current").fetch()).revision.id == "5a" * 20


async def test_a_name_like_a_commits_that_git_sync_did_not_give_is_no_revision(tmp_path: Path, reader: Reader) -> None:
    """A Docker volume has one of 64 digits, and a build server checks out below one; both are named without a link."""
    tree = _published(tmp_path, "5a" * 32)
    assert (await reader.open_folder(tree).fetch()).revision.of_folder
    assert (await reader.open_folder(tmp_path / "current").fetch()).revision.id == tree.name
    checkout = tree / "checkout"
    checkout.mkdir()
    (checkout / "manifest.yaml").write_text(MANIFEST)
    (tmp_path / "checkout").symlink_to(checkout)
    assert (await reader.open_folder(tmp_path / "checkout", work_tree=True).fetch()).revision.of_folder


async def test_a_published_folder_that_was_edited_is_not_shown_as_its_commit(tmp_path: Path, reader: Reader) -> None:
    """What was read is not what was committed: the digest says so, until the edit is undone."""
    tree = _published(tmp_path, "5a" * 20)
    source = reader.open_folder(tmp_path / "current")
    assert (await source.fetch()).revision.id == tree.name
    (tree / "a.ts").write_text(CODE + "\n")
    assert await source.moved()
    assert (await source.fetch()).revision.of_folder
    (tree / "a.ts").write_text(CODE)
    assert (await source.fetch()).revision.id == tree.name


async def test_a_folder_change_is_reported_once(folder: Path, reader: Reader) -> None:
    """The first read and each change are events; an unchanged folder is another event."""
    source = reader.open_folder(folder)
    first = await source.fetch()
    await source.fetch()
    (folder / "a.ts").unlink()
    second = await source.fetch()
    assert reader.names() == ["source.changed", "source.unchanged", "source.changed"]
    assert reader.seen[2] == SourceChanged(revision=second.revision.id, previous=first.revision.id)


async def test_hidden_files_and_node_modules_are_not_read(folder: Path, reader: Reader) -> None:
    """Dot files, node_modules and other file types do not change the revision."""
    before = await reader.open_folder(folder).fetch()
    for name in (".env.json", ".git/config.json", ".hidden/a.ts", "node_modules/x/index.js", "__pycache__/a.js", "logo.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    assert (await reader.open_folder(folder).fetch()) == before


async def test_file_names_with_spaces_newlines_or_invalid_unicode_are_read(folder: Path, reader: Reader) -> None:
    """They are neither changed nor refused."""
    names = ["a b.ts", "new\nline.ts", "größe/ñ.ts", os.fsdecode(b"\xff.ts")]
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"x")
    found = contents(await reader.open_folder(folder).fetch())
    assert set(names) <= set(found)


async def test_a_folder_inside_of_what_git_sync_published_is_shown_as_its_commit(tmp_path: Path, reader: Reader) -> None:
    """The source may be named below the link; a folder that is edited by hand is no commit any more."""
    commit = "5a" * 20
    home = tmp_path / ".worktrees" / commit / "services" / "functions"
    home.mkdir(parents=True)
    (home / "manifest.yaml").write_text(MANIFEST)
    (home / "a.ts").write_text(CODE)
    (tmp_path / "current").symlink_to(Path(".worktrees", commit))
    source = reader.open_folder(tmp_path / "current/services/functions")
    assert (await source.fetch()).revision.id == commit
    (home / "a.ts").write_text(CODE + CODE)
    assert (await source.fetch()).revision.of_folder


async def test_links_to_folders_inside_are_followed(folder: Path, reader: Reader) -> None:
    """The items of a ConfigMap with folders: `greet -> ..data/greet`; links in such a folder are followed as well."""
    (folder / "..2026/greet/lib").mkdir(parents=True)
    (folder / "..2026/common").mkdir()
    (folder / "..2026/greet/function.yaml").write_text("name: Greet\n")
    (folder / "..2026/greet/lib/words.js").write_text(CODE)
    (folder / "..2026/common/util.js").write_text(CODE)
    (folder / "..2026/greet/common").symlink_to("../common")
    (folder / "..data").symlink_to("..2026")
    (folder / "greet").symlink_to("..data/greet")
    snapshot = await reader.open_folder(folder).fetch()
    assert snapshot.files["greet/lib/words.js"].content == CODE.encode()
    assert {path for path in snapshot.files if path.startswith("greet/")} == {
        "greet/function.yaml",
        "greet/lib/words.js",
        "greet/common/util.js",
    }
    assert not problems(snapshot)


async def test_a_link_flip_to_other_content_is_another_revision(folder: Path, reader: Reader) -> None:
    """The kubelet publishes a new version by one rename of `..data`."""
    for name, text in (("..1", "one"), ("..2", "two")):
        (folder / name / "greet").mkdir(parents=True)
        (folder / name / "greet/index.js").write_text(text)
    (folder / "..data").symlink_to("..1")
    (folder / "greet").symlink_to("..data/greet")
    source = reader.open_folder(folder)
    before = await source.fetch()
    (folder / "..tmp").symlink_to("..2")
    (folder / "..tmp").rename(folder / "..data")
    after = await source.fetch()
    assert [each.files["greet/index.js"].content for each in (before, after)] == [b"one", b"two"]
    assert before.revision != after.revision


async def test_a_link_to_a_folder_outside_is_a_problem_and_not_followed(folder: Path, tmp_path: Path, reader: Reader) -> None:
    """Nothing outside of the functions folder is ever read; packages are linked that way, and are no news."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/secret.js").write_text(CODE)
    for name in ("lib", "node_modules", ".venv"):
        (folder / name).symlink_to(tmp_path / "lib")
    snapshot = await reader.open_folder(folder).fetch()
    assert problems(snapshot) == {"lib": "is a link that leads out of the folder"}
    assert not [path for path in snapshot.files if "secret" in path]


async def test_a_link_that_leads_nowhere_is_named_as_what_it_is(folder: Path, reader: Reader) -> None:
    """A circle of links as well: nobody is told that a file below it does not exist."""
    (folder / "gone").symlink_to("nothing")
    (folder / "one").symlink_to("other")
    (folder / "other").symlink_to("one")
    (folder / ".hidden").symlink_to("nothing")
    snapshot = await reader.open_folder(folder).fetch()
    assert problems(snapshot) == dict.fromkeys(("gone", "one", "other"), "is a link that leads nowhere")


async def test_links_that_multiply_end_at_the_limit(folder: Path, reader: Reader) -> None:
    """Two links in each of forty folders are a billion paths."""
    for number in range(40):
        (folder / f"..{number}").mkdir()
        for name in ("a", "b"):
            (folder / f"..{number}" / name).symlink_to(f"../..{number + 1}")
    (folder / "..40").mkdir()
    (folder / "start").symlink_to("..0")
    with pytest.raises(InvalidSource, match="more than 10,000 folders"):
        await reader.open_folder(folder).fetch()


async def test_names_of_unread_files_are_known_and_no_part_of_the_revision(folder: Path, reader: Reader) -> None:
    """An entry may name one by mistake; a picture that changes is no reason for a pass."""
    before = await reader.open_folder(folder).fetch()
    (folder / "part.wasm").write_bytes(b"\0asm")
    (folder / "data").mkdir()
    (folder / "data/rates.csv").write_text("a,b\n")
    (folder / ".hidden.csv").write_text("a,b\n")
    after = await reader.open_folder(folder).fetch()
    assert after.unread == {"part.wasm", "data/rates.csv"}
    assert after.revision == before.revision


async def test_symlinks_inside_the_folder_are_followed_and_outside_are_not(
    folder: Path, tmp_path: Path, reader: Reader
) -> None:
    """A mounted ConfigMap is made of symlinks; a symlink to another folder is a problem of that file."""
    (tmp_path / "secret.ts").write_text("secret")
    (folder / "..2026").mkdir()
    (folder / "..2026/map.ts").write_text(CODE)
    (folder / "..data").symlink_to("..2026")
    (folder / "map.ts").symlink_to("..data/map.ts")
    (folder / "out.ts").symlink_to(tmp_path / "secret.ts")
    (folder / "etc.json").symlink_to("/etc")
    (folder / "loop.ts").symlink_to("loop.ts")
    (folder / "gone.ts").symlink_to("nowhere.ts")
    (folder / "again").symlink_to(".")
    snapshot = await reader.open_folder(folder).fetch()
    assert snapshot.files["map.ts"].content == CODE.encode()
    assert set(snapshot.files) == {"manifest.yaml", "a.ts", "map.ts", "out.ts", "etc.json", "loop.ts", "gone.ts", "again"}
    found = problems(snapshot)
    assert found["again"] == "is a link to a folder that it is in itself"
    assert found["out.ts"] == found["etc.json"] == "is a link that leads out of the folder"
    assert found["gone.ts"] == "cannot be read: No such file or directory"
    assert found["loop.ts"].startswith("cannot be read")


async def test_a_moved_symlink_is_a_new_revision(tmp_path: Path, reader: Reader) -> None:
    """git-sync and ConfigMaps publish by moving one symlink; the new folder is read completely."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.ts").write_text(name)
    link = tmp_path / "current"
    link.symlink_to("one")
    source = reader.open_folder(link)
    assert contents(await source.fetch()) == {"a.ts": b"one"}
    (tmp_path / "next").symlink_to("two")
    (tmp_path / "next").rename(link)
    assert contents(await source.fetch()) == {"a.ts": b"two"}


async def test_a_pipe_or_device_is_a_problem_and_never_blocks(folder: Path, reader: Reader) -> None:
    """Opening a pipe without a writer would block for ever."""
    os.mkfifo(folder / "pipe.ts")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "socket.ts"))
        found = problems(await reader.open_folder(folder).fetch())
    assert found == {"pipe.ts": "is not a regular file", "socket.ts": "is not a regular file"}


async def test_files_above_the_size_limit_are_reported_and_not_read(folder: Path, reader: Reader) -> None:
    """1 MiB of code and 256 KiB of manifest are accepted, a byte more is not; a huge file costs no memory."""
    (folder / "fits.ts").write_bytes(b"x" * CODE_LIMIT)
    (folder / "more.ts").write_bytes(b"x" * (CODE_LIMIT + 1))
    (folder / "huge.js").touch()
    os.truncate(folder / "huge.js", 1 << 30)
    (folder / "manifest.yaml").write_bytes(b"x" * MANIFEST_LIMIT)
    (folder / "sub").mkdir()
    (folder / "sub/function.yaml").write_bytes(b"x" * (MANIFEST_LIMIT + 1))
    (folder / "sub/manifest.yaml").write_bytes(b"x" * (MANIFEST_LIMIT + 1024))
    snapshot = await reader.open_folder(folder).fetch()
    assert problems(snapshot) == {
        "more.ts": "is 1.1 MiB; the limit for a code file is 1 MiB",
        "huge.js": "is 1024 MiB; the limit for a code file is 1 MiB",
        "sub/function.yaml": "is 256.1 KiB; the limit for a manifest is 256 KiB",
    }
    assert len(snapshot.files["fits.ts"].content or b"") == CODE_LIMIT


async def test_too_many_files_are_an_error_with_a_hint(folder: Path, reader: Reader) -> None:
    """Ten thousand files are usually a mistake in --path."""
    for number in range(FILE_COUNT_LIMIT - 1):
        os.close(os.open(folder / f"{number}.json", os.O_CREAT | os.O_WRONLY))
    with pytest.raises(InvalidSource, match="holds more than 10,000 files of code and text") as caught:
        await reader.open_folder(folder).fetch()
    assert "--path" in str(caught.value.hint)


async def test_the_functions_folder_of_a_work_tree_is_found(folder: Path, reader: Reader) -> None:
    """In a work tree `functions` is the default; anywhere else the folder itself is."""
    (folder / "functions").mkdir()
    (folder / "functions/b.ts").write_text(CODE)
    inside = await reader.open_folder(folder, work_tree=True).fetch()
    assert (inside.path, set(inside.files)) == ("functions", {"b.ts"})
    whole = await reader.open_folder(folder).fetch()
    assert (whole.path, set(whole.files)) == ("", {"manifest.yaml", "a.ts", "functions/b.ts"})
    assert (await reader.open_folder(folder, "", work_tree=True).fetch()).path == ""


async def test_a_configuration_above_counts_in_the_revision(folder: Path, reader: Reader) -> None:
    """Without one, the revision is what it was; other files above do not matter."""
    (folder / "functions").mkdir()
    (folder / "functions/b.ts").write_text(CODE)
    source = reader.open_folder(folder, work_tree=True)
    bare = (await source.fetch()).revision.id
    (folder / "notes.json").write_text("{}")
    assert not await source.moved()
    (folder / "tsconfig.json").write_text("{}")
    assert await source.moved()
    one = (await source.fetch()).revision.id
    (folder / "tsconfig.json").write_text('{"compilerOptions": {}}')
    assert await source.moved()
    assert len({bare, one, (await source.fetch()).revision.id}) == 3
    (folder / "tsconfig.json").unlink()
    assert await source.moved()
    assert (await source.fetch()).revision.id == bare


async def test_the_git_description_of_a_work_tree_is_not_part_of_the_revision(folder: Path) -> None:
    """The checked out commit is reported beside the digest."""
    source = FolderSource(folder, None, top=folder, emit=lambda _event: None, describe=lambda: "main@4f1c2ab")
    plain = FolderSource(folder, None, top=folder, emit=lambda _event: None)
    described, bare = (await source.fetch()).revision, (await plain.fetch()).revision
    assert (described.described, bare.described) == ("main@4f1c2ab", None)
    assert described.id == bare.id


async def test_a_missing_folder_or_path_is_an_error(folder: Path, tmp_path: Path, reader: Reader) -> None:
    """Neither counts as an empty folder; a path that leaves it through a symlink is missing too."""
    (folder / "out").symlink_to(tmp_path)
    with pytest.raises(SourceMissing, match="nowhere does not exist"):
        await reader.open_folder(tmp_path / "nowhere").fetch()
    with pytest.raises(SourceMissing, match=r"a\.ts is not a folder"):
        await reader.open_folder(folder / "a.ts").fetch()
    for path in ("absent", "a.ts", "out"):
        with pytest.raises(SourceMissing, match=f"has no folder {path}"):
            await reader.open_folder(folder, path).fetch()
    assert reader.seen == []


async def test_a_folder_that_changes_while_it_is_read_is_read_again(
    folder: Path, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No snapshot mixes two states."""
    opened = os.open

    def save_meanwhile(path: StrPath, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if str(path).endswith("manifest.yaml") and not (folder / "b.ts").exists():
            (folder / "a.ts").write_text("new")
            (folder / "b.ts").write_text("new")
        return opened(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", save_meanwhile)
    found = contents(await reader.open_folder(folder).fetch())
    assert (found["a.ts"], found["b.ts"]) == (b"new", b"new")


async def test_a_folder_that_keeps_changing_is_an_error(folder: Path, reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a few tries; the error names the folder."""
    opened, count = os.open, 0

    def save_always(path: StrPath, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        nonlocal count
        count += 1
        (folder / "a.ts").write_text("x" * count)
        return opened(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", save_always)
    with pytest.raises(SourceUnstable, match="flows keeps changing"):
        await reader.open_folder(folder).fetch()


async def test_a_file_that_becomes_a_symlink_while_it_is_read_is_not_followed(
    folder: Path, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor one that vanishes: there is no race between check and read."""
    (folder / "z.ts").write_text(CODE)
    opened = os.open

    def swap(path: StrPath, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if str(path).endswith("a.ts") and not (folder / "a.ts").is_symlink():
            (folder / "a.ts").unlink()
            (folder / "a.ts").symlink_to("/etc/passwd")
        return opened(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", swap)
    snapshot = await reader.open_folder(folder).fetch()
    assert problems(snapshot) == {"a.ts": "is a link that leads out of the folder"}


@pytest.fixture
def locked_folder() -> Iterator[Path]:
    """A folder with a sub-folder that cannot be listed, not even when the tests are run by root."""
    user = os.geteuid()
    with TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "shut").mkdir(mode=0)
        try:
            if user == 0:
                os.seteuid(65534)
            yield folder
        finally:
            os.seteuid(user)
            (folder / "shut").chmod(0o755)


async def test_an_unreadable_sub_folder_is_an_error(locked_folder: Path, reader: Reader) -> None:
    """Functions in it must not look deleted."""
    with pytest.raises(SourceUnavailable, match=r"shut cannot be read: Permission denied"):
        await reader.open_folder(locked_folder).fetch()


async def test_a_sub_folder_that_is_removed_meanwhile_is_not_an_error(
    folder: Path, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second listing equals what was read, so the snapshot is complete without it."""
    (folder / "sub").mkdir()
    listed = os.listdir

    def remove_first(path: str) -> list[str]:
        if Path(path).name == "sub":
            Path(path).rmdir()
        return listed(path)

    monkeypatch.setattr(os, "listdir", remove_first)
    assert set((await reader.open_folder(folder).fetch()).files) == {"manifest.yaml", "a.ts"}


async def test_no_content_is_kept_between_passes(folder: Path, reader: Reader) -> None:
    """A daemon would hold all of it for as long as it waits."""
    source = reader.open_folder(folder)
    snapshot = await source.fetch()
    content, control = snapshot.files["a.ts"].content, CODE.encode()
    held, alone = sys.getrefcount(content), sys.getrefcount(control)
    assert held > alone, "the snapshot has it"
    del snapshot
    held = sys.getrefcount(content)
    assert held == alone, "and nobody else"
    assert content == control


@pytest.mark.parametrize("later", [None, "a folder", "a file"])
async def test_a_link_that_is_taken_away_while_it_is_looked_at_is_no_error(
    folder: Path, reader: Reader, monkeypatch: pytest.MonkeyPatch, later: str | None
) -> None:
    """Between the look that finds a link and the one that reads it, as when git checks out another commit."""
    link, read = folder / "b.ts", os.readlink
    link.symlink_to("a.ts")

    def readlink(path: StrPath, *, dir_fd: int | None = None) -> str:
        if os.fspath(path) == str(link):
            monkeypatch.setattr(os, "readlink", read)
            link.unlink()
            if later == "a folder":
                link.mkdir()
            elif later == "a file":
                link.write_text(CODE)
        return str(read(path, dir_fd=dir_fd))

    monkeypatch.setattr(os, "readlink", readlink)
    wanted = {"manifest.yaml", "a.ts"} | ({"b.ts"} if later == "a file" else set())
    assert set((await reader.open_folder(folder).fetch()).files) == wanted
