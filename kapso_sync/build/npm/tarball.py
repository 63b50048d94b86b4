"""Unpack a package's tarball into a new folder: regular files only, nothing outside of the folder, within limits."""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import BinaryIO, cast

from kapso_sync.build.packages import MODULES, UNUSED
from kapso_sync.build.space import Space
from kapso_sync.dataclass import dataclass
from kapso_sync.visible import visible

MAX_PATH_BYTES = 512
"""Most bytes in the path of a file of a package."""

MAX_NAME_BYTES = 255
"""Most bytes in the name of a file or folder, as file systems have it."""

_MAX_HEADER_BYTES = 64 * 1024
"""Most bytes of a long name or of extended attributes, which `tarfile` reads into memory."""

_CHUNK = 1024 * 1024
_EXTENDED = frozenset(
    {tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK}
)


@dataclass(frozen=True, slots=True)
class TarballLimits:
    """Most files and folders of one package, and most bytes of it when it is unpacked, its tar headers included."""

    files: int = 20_000
    bytes: int = 256 * 1024 * 1024


class UnusableTarball(Exception):
    """A tarball cannot be unpacked. The text continues a sentence that starts with the package."""


def unpack(
    tarball: BinaryIO,
    folder: Path,
    space: Space,
    *,
    carries: bool,
    limits: TarballLimits = TarballLimits(),
) -> None:
    """Unpack a tarball into ``folder``, which is made and must not exist.

    Raises `UnusableTarball`, `NoSpace`, and `OSError` of the disk.

    The first folder of each path is left out, whatever its name, as npm does. Without ``carries`` a ``node_modules`` right
    below it is left out as well: the lock file says that there is none. So is what no build reads.
    """
    folder.mkdir(parents=True, mode=0o700)
    count = 0
    made = {""}
    try:
        with gzip.GzipFile(fileobj=tarball) as unzipped:
            for member, content in _members(_Bounded(unzipped, limits.bytes)):
                count += 1
                if count > limits.files:
                    raise UnusableTarball(f"has more than {limits.files:,} files and folders")
                path = _checked_path(member)
                if not path or (path[0] == MODULES and not carries) or content is None:
                    continue
                if UNUSED.search(path[-1]) is None:
                    space.take(member.size)
                    for folder_of_it in _new_folders(path, made):
                        count += 1
                        space.take(0)
                        made.add(folder_of_it)
                    _write(folder.joinpath(*path), content)
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error, ValueError) as error:
        raise UnusableTarball("is not a tar archive that can be read") from error


class _Bounded:
    """Reads at most ``most`` bytes, so that a small file which unpacks to a huge one ends early."""

    def __init__(self, file: gzip.GzipFile, most: int) -> None:
        self._file = file
        self._most = most
        self._left = most

    def read(self, size: int = -1) -> bytes:
        """Return bytes as a file does; raises `UnusableTarball` beyond the limit."""
        found = self._file.read(_CHUNK if size < 0 else min(size, _CHUNK))
        self._left -= len(found)
        if self._left < 0:
            raise UnusableTarball(f"has more than {self._most // (1024 * 1024)} MiB when it is unpacked")
        return found


class _Header(tarfile.TarInfo):
    """A header that does not read endless extended attributes into memory."""

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        if self.size < 0:
            raise UnusableTarball("has a header with a size below zero")
        if self.type in _EXTENDED and self.size > _MAX_HEADER_BYTES:
            raise UnusableTarball(f"has a header of more than {_MAX_HEADER_BYTES // 1024} KiB")
        return super()._proc_member(archive)  # type: ignore[misc, no-any-return]


def _members(stream: _Bounded) -> Iterator[tuple[tarfile.TarInfo, Iterator[bytes] | None]]:
    """Yield each member and the chunks of its content, None for a folder; raises `UnusableTarball` for any other kind."""
    with tarfile.open(fileobj=cast("BinaryIO", stream), mode="r|", tarinfo=_Header) as archive:
        for member in archive:
            if member.isdir():
                yield member, None
            elif member.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and not member.issparse():
                yield member, _chunks(archive, member)
            else:
                kind = "a link" if member.issym() or member.islnk() else "a special file"
                raise UnusableTarball(f"holds {kind}, {_shown(member)}: only regular files are unpacked")


def _chunks(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Iterator[bytes]:
    content = archive.extractfile(member)
    while content is not None and (chunk := content.read(_CHUNK)):
        yield chunk


def _checked_path(member: tarfile.TarInfo) -> list[str]:
    """Return the parts of a member's path inside the package; raises `UnusableTarball` for a path that leads out of it."""
    name = member.name
    if name.startswith("/"):
        raise UnusableTarball(f"holds a file with an absolute path, {_shown(member)}")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise UnusableTarball(f"holds a file with `..` in its path, {_shown(member)}")
    encoded = name.encode("utf-8", "surrogateescape")
    if len(encoded) > MAX_PATH_BYTES or any(len(part.encode("utf-8", "surrogateescape")) > MAX_NAME_BYTES for part in parts):
        raise UnusableTarball(f"holds a path that is too long, {_shown(member)}")
    if not name.isprintable():
        raise UnusableTarball(f"holds a path with characters that do not print, {_shown(member)}")
    return parts[1:]


def _new_folders(path: list[str], made: AbstractSet[str]) -> list[str]:
    """Return the folders that a file needs and that are not made yet: 500 bytes of a path may name 250 of them."""
    folder, found = "/".join(path[:-1]), []
    while folder not in made:
        found.append(folder)
        folder = folder.rpartition("/")[0]
    return found


def _write(path: Path, content: Iterator[bytes]) -> None:
    """Write a file; a second one of the same path replaces the first, as tar does."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.unlink(missing_ok=True)
        with path.open("xb") as file:
            for chunk in content:
                file.write(chunk)
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise UnusableTarball(f"holds a file and a folder of one name, {visible(path.name)[:80]}") from error


def _shown(member: tarfile.TarInfo) -> str:
    return f"`{visible(member.name)[:80]}`"
