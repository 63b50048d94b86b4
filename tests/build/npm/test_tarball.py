"""Hostile tarballs: nothing but regular files below the package's folder, within limits."""

from __future__ import annotations

import gzip
import io
import os
import stat
import tarfile
from pathlib import Path

import pytest

from kapso_sync.build.npm.tarball import TarballLimits, UnusableTarball, unpack
from kapso_sync.build.space import NoSpace, Space
from tests.build.npm.registry import Files, member, tarball

pytestmark = pytest.mark.e2e

MIB = 1024 * 1024


def unpacked(content: bytes, folder: Path, *, carries: bool = False) -> dict[str, bytes]:
    """The files of a package after it was unpacked; everything in the folder is a regular file or a folder."""
    unpack(io.BytesIO(content), folder, Space(), carries=carries)
    for path in folder.rglob("*"):
        assert stat.S_IFMT(path.lstat().st_mode) in (stat.S_IFREG, stat.S_IFDIR)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def reason(content: bytes, folder: Path) -> str:
    """Why a tarball cannot be unpacked; and nothing was written beside its folder."""
    with pytest.raises(UnusableTarball) as caught:
        unpack(io.BytesIO(content), folder / "inside" / "package", Space(), carries=False)
    assert [path.name for path in folder.iterdir()] == ["inside"]
    assert [path.name for path in (folder / "inside").iterdir()] == ["package"]
    return str(caught.value)


def test_the_files_of_a_package_are_unpacked(tmp_path: Path) -> None:
    """The first folder of a path is left out, whatever its name; modes and owners of the tarball are."""
    files: Files = {
        "package.json": "{}",
        "lib/a.js": "a",
        "./lib/b.js": "b",
        "lib//c.js": "c",
        "ü.js": "ü",
        ".npmrc": "registry=x",
    }
    for number, root in enumerate(("package", "zod-3.1.0", "./package")):
        found = unpacked(tarball(files, member(f"{root}/empty", tarfile.DIRTYPE), root=root), tmp_path / str(number))
        assert set(found) == {"package.json", "lib/a.js", "lib/b.js", "lib/c.js", "ü.js", ".npmrc"}
    assert unpacked(tarball({"README.md": "x"}, root=""), tmp_path / "top") == {}


def test_modes_of_a_tarball_are_not_taken_over(tmp_path: Path) -> None:
    """No file is executable, and none is setuid."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        one = tarfile.TarInfo("package/run.js")
        one.mode, one.uid = 0o6777, 12345
        archive.addfile(one)
    unpacked(buffer.getvalue(), tmp_path / "p")
    found = (tmp_path / "p" / "run.js").stat()
    assert (found.st_mode & 0o7111, found.st_uid) == (0, os.getuid())


def test_type_declarations_and_source_maps_are_not_written(tmp_path: Path) -> None:
    """No build reads them; `.ts` itself is."""
    names = ["a.js", "a.d.ts", "b.d.mts", "c.d.cts", "a.js.map", "a.ts", "map.js", "d.ts"]
    assert set(unpacked(tarball(dict.fromkeys(names, "x")), tmp_path / "p")) == {"a.js", "a.ts", "map.js", "d.ts"}


def test_a_node_modules_folder_of_a_tarball_is_kept_only_where_the_lock_file_says_so(tmp_path: Path) -> None:
    """Deeper folders of that name are the package's own."""
    content = tarball({"a.js": "a", "node_modules/b/b.js": "b", "dist/node_modules/c/c.js": "c"})
    assert set(unpacked(content, tmp_path / "without")) == {"a.js", "dist/node_modules/c/c.js"}
    assert set(unpacked(content, tmp_path / "with", carries=True)) == {
        "a.js",
        "node_modules/b/b.js",
        "dist/node_modules/c/c.js",
    }


def test_the_last_of_two_files_with_one_path_counts(tmp_path: Path) -> None:
    """As with tar."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for body in (b"first", b"second"):
            one = tarfile.TarInfo("package/a.js")
            one.size = len(body)
            archive.addfile(one, io.BytesIO(body))
    assert unpacked(buffer.getvalue(), tmp_path / "p") == {"a.js": b"second"}


@pytest.mark.parametrize(
    ("one", "said"),
    [
        (member("package/link.js", tarfile.SYMTYPE, "/etc/passwd"), "holds a link, `package/link.js`"),
        (member("package/link.js", tarfile.SYMTYPE, "a.js"), "holds a link"),
        (member("package", tarfile.SYMTYPE, "/tmp"), "holds a link"),
        (member("package/hard.js", tarfile.LNKTYPE, "/etc/passwd"), "holds a link"),
        (member("package/null", tarfile.CHRTYPE), "holds a special file"),
        (member("package/disk", tarfile.BLKTYPE), "holds a special file"),
        (member("package/pipe", tarfile.FIFOTYPE), "holds a special file"),
        (member("package/sparse", tarfile.GNUTYPE_SPARSE), "holds a special file"),
        (member("package/odd", b"Z"), "holds a special file"),
        (member("/etc/cron.d/x", tarfile.REGTYPE), "holds a file with an absolute path"),
        (member("package/../../x.js", tarfile.REGTYPE), "holds a file with `..` in its path"),
        (member("..", tarfile.DIRTYPE), "holds a file with `..` in its path"),
        (member("package/lib/..", tarfile.REGTYPE), "holds a file with `..` in its path"),
        (member("package/" + "d/" * 300, tarfile.REGTYPE), "holds a path that is too long"),
        (member("package/" + "n" * 256, tarfile.REGTYPE), "holds a path that is too long"),
        (member("package/a\x1b[2Jb", tarfile.REGTYPE), "characters that do not print, `package/a\\x1b[2Jb`"),
        (member("package/a\nb", tarfile.REGTYPE), "characters that do not print"),
        (member("package/a.js/b.js", tarfile.REGTYPE), "a file and a folder of one name"),
    ],
)
def test_a_tarball_with_anything_but_regular_files_inside_is_refused(tmp_path: Path, one: tarfile.TarInfo, said: str) -> None:
    """Links of both kinds, devices, absolute paths, `..`; with its reason, and nothing beside the package's folder."""
    content = tarball({"a.js": "a"}, one)
    assert said in reason(content, tmp_path)


def test_a_tarball_with_too_many_files_is_refused(tmp_path: Path) -> None:
    """100,000 empty files are a small tarball; those that are not written count as well. A control: a hundred are unpacked."""
    many = tarball({}, *(member(f"package/{number}.map", tarfile.REGTYPE) for number in range(TarballLimits().files + 1)))
    assert len(many) < MIB
    assert reason(many, tmp_path) == "has more than 20,000 files and folders"
    folders = tarball({}, *(member(f"package/{number}", tarfile.DIRTYPE) for number in range(6)))
    with pytest.raises(UnusableTarball, match="has more than 5 files and folders"):
        unpack(io.BytesIO(folders), tmp_path / "folders", Space(), carries=False, limits=TarballLimits(files=5))
    few = tarball({}, *(member(f"package/{number}", tarfile.REGTYPE) for number in range(100)))
    assert len(unpacked(few, tmp_path / "few")) == 100


def test_the_folders_that_paths_name_count(tmp_path: Path) -> None:
    """A file of 500 bytes of path may need 250 of them; those of a hundred files together are made once."""
    deep = {"/".join([f"{number}", *["a"] * 200, "x.js"]): "" for number in range(150)}
    assert reason(tarball(deep), tmp_path) == "has more than 20,000 files and folders"
    with pytest.raises(NoSpace):
        unpack(io.BytesIO(tarball(deep)), tmp_path / "small", Space(files=1000), carries=False)
    unpack(io.BytesIO(tarball({f"lib/a/{n}.js": "" for n in range(100)})), tmp_path / "flat", Space(files=102), carries=False)


@pytest.mark.parametrize("name", ["zeros.js", "zeros.map", "node_modules/x/zeros.js"])
def test_a_tarball_that_unpacks_to_too_much_is_refused(tmp_path: Path, name: str) -> None:
    """Zeros shrink to a thousandth; those that nobody writes to the disk count as well. A control: one byte less fits."""
    limits = TarballLimits(bytes=2 * MIB)
    bomb = tarball({name: bytes(2 * MIB)})
    assert len(bomb) < MIB // 100
    with pytest.raises(UnusableTarball, match="has more than 2 MiB when it is unpacked"):
        unpack(io.BytesIO(bomb), tmp_path / "package", Space(), carries=False, limits=limits)
    unpack(io.BytesIO(tarball({name: bytes(2 * MIB - 20 * 512)})), tmp_path / "fits", Space(), carries=False, limits=limits)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
def test_a_header_is_not_read_into_memory_without_end(tmp_path: Path, kind: bytes) -> None:
    """Extended attributes of 200 MiB are refused by what the header says of itself, before they are read."""
    one = tarfile.TarInfo("package/pax")
    one.type, one.size = kind, 200 * MIB
    assert reason(gzip.compress(one.tobuf() + bytes(MIB)), tmp_path) == "has a header of more than 64 KiB"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no gzip",
        gzip.compress(b"no tar"),
        gzip.compress(b"x" * 1024),
        tarball({"a.js": "a" * 9000})[:-40],
        tarball({"a.js": "a" * 9000})[:30],
    ],
    ids=["empty", "other format", "no tar", "noise", "cut off late", "cut off early"],
)
def test_what_is_no_tarball_is_refused(tmp_path: Path, content: bytes) -> None:
    """Empty, another format, cut off."""
    assert reason(content, tmp_path) == "is not a tar archive that can be read"


def test_all_packages_of_a_build_share_one_space(tmp_path: Path) -> None:
    """Many packages that are small enough each may be too much together."""
    space = Space(files=3, bytes=1000)
    unpack(io.BytesIO(tarball({"a.js": "a", "b.js": "b"})), tmp_path / "one", space, carries=False)
    with pytest.raises(NoSpace, match="does not fit"):
        unpack(io.BytesIO(tarball({"a.js": "a", "b.js": "b"})), tmp_path / "two", space, carries=False)
    with pytest.raises(NoSpace, match="does not fit"):
        unpack(io.BytesIO(tarball({"a.js": "a" * 2000})), tmp_path / "three", Space(files=3, bytes=1000), carries=False)
