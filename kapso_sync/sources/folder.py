"""Reads a folder as a source: all files are read, then checked for changes meanwhile."""

from __future__ import annotations

import asyncio
import operator
import os
import re
import stat
import time
from collections.abc import Callable
from dataclasses import field
from pathlib import Path

from kapso_sync.dataclass import dataclass
from kapso_sync.errors import SourceMissing, SourceUnavailable, SourceUnstable
from kapso_sync.files import FilesBeneath, read_beneath, real_path
from kapso_sync.model import events
from kapso_sync.model.source import (
    CODE_LIMIT,
    CONFIG_COUNT_LIMIT,
    DEFAULT_FOLDER,
    PROJECT_FILE,
    REMOTE_MAP,
    Above,
    Revision,
    Snapshot,
    SourceFile,
    folder_digest,
)
from kapso_sync.sources.file_rules import MAX_UNREAD_NAMES, configurations, is_entered, is_read, too_large
from kapso_sync.sources.spec import why_no_folder
from kapso_sync.sources.walk import WalkBudget

_COMMIT = re.compile(r"(?:rev-)?([0-9a-f]{40}|[0-9a-f]{64})")

_LEADS_OUT = "is a link that leads out of the folder"
_LEADS_NOWHERE = "is a link that leads nowhere"

ATTEMPTS = 5
"""Maximum number of times that a folder is read again because it changed meanwhile."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """A file in a listing: two equal listings mean that the folder did not change between them."""

    path: str
    target: str
    stamp: tuple[int, int, int, int] | None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class _Listed:
    """The files to read, in a fixed order, and the paths of others."""

    files: list[_Seen] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)


class FolderSource:
    """Reads a folder. ``describe`` returns the output of ``git describe`` for it, or None.

    ``top`` is the root of the work tree that the folder is in, where it is in one.
    """

    def __init__(
        self,
        root: Path,
        path: str | None,
        *,
        top: Path | None,
        emit: events.Listener,
        describe: Callable[[], str | None] = lambda: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._root = root
        self._path = path
        self._top = top
        self._emit = emit
        self._describe = describe
        self._monotonic = monotonic
        self._last: str | None = None
        self._published: tuple[str, str] | None = None
        self._found: Snapshot | None = None

    def home(self) -> str:
        """Return the functions folder inside the work tree, empty for the folder itself; raises `SourceMissing`."""
        return self._home(Path(real_path(self._root)))[1]

    async def fetch(self, on_transfer: Callable[[], None] = lambda: None) -> Snapshot:  # noqa: ARG002 - nothing is transferred
        """Return a snapshot of the folder.

        Raises `SourceMissing`, `SourceUnstable` when it keeps changing, and `InvalidSource` beyond the limits.
        """
        found, self._found = self._found, None
        snapshot = await self._read_apart() if found is None else found
        revision = snapshot.revision.id
        if revision == self._last:
            self._emit(events.SourceUnchanged(revision=revision))
        else:
            self._emit(events.SourceChanged(revision=revision, previous=self._last))
        self._last = revision
        return snapshot

    async def moved(self, *, keep: bool = True) -> bool:
        """Return whether the folder has changed since it was last read.

        With ``keep`` the next fetch, which must follow at once, returns what was found. Raises like `fetch`.
        """
        found = await self._read_apart()
        if found.revision.id == self._last:
            return False
        self._found = found if keep else None
        return True

    def forget(self) -> None:
        """Forget what `moved` has kept for a fetch."""
        self._found = None

    async def _read_apart(self) -> Snapshot:
        """Read the folder in a thread. The result is not the future's: futures form cycles, which would keep it for a while."""
        found: list[Snapshot] = []
        await asyncio.to_thread(lambda: found.append(self._read()))
        return found.pop()

    def _read(self) -> Snapshot:
        for _ in range(ATTEMPTS):
            root = Path(real_path(self._root))
            home, path = self._home(root)
            top = self._top or root
            above = _above(home, top)
            budget = WalkBudget(str(home), self._monotonic)
            before = _listing(home, budget)
            with FilesBeneath(home) as beneath:
                files = {seen.path: _file(seen, beneath, budget) for seen in before.files}
            again = WalkBudget(str(home), self._monotonic)
            same = _listing(home, again).files == before.files and _above(home, top) == above
            if Path(real_path(self._root)) == root and same:
                revision = self._revision(root, folder_digest({**files, **above.files}))
                unread = frozenset(before.unread)
                return Snapshot(str(self._root), revision, path, files, *_cli_files(home, top), above=above, unread=unread)
        raise SourceUnstable(
            f"{self._root} keeps changing while it is read", hint="try again when it rests; a daemon does so by itself"
        )

    def _revision(self, root: Path, digest: str) -> Revision:
        """Return the commit that git-sync names a published folder by, as long as nobody edits the folder; else the digest.

        ``root`` is the real path of the source, which may be a folder in what was published.
        """
        name = _published_commit(self._root, root, self._top)
        if name is None:
            return Revision(digest, described=self._describe())
        if self._published is None or self._published[0] != name:
            self._published = (name, digest)
        return Revision(name if self._published[1] == digest else digest)

    def _home(self, root: Path) -> tuple[Path, str]:
        if not root.is_dir():
            raise SourceMissing(why_no_folder(str(self._root), root), hint="name a folder with functions, or a git repository")
        path = self._path
        if path is None:
            path = DEFAULT_FOLDER if self._top is not None and (root / DEFAULT_FOLDER).is_dir() else ""
        home = Path(real_path(root / path))
        if not home.is_dir() or not home.is_relative_to(root):
            raise SourceMissing(
                f"{self._root} has no folder {path}", hint="--path names the functions folder inside the source"
            )
        return home, path


def _published_commit(given: Path, root: Path, top: Path | None) -> str | None:
    """Return the commit by whose name git-sync published a folder, or None.

    ``root`` is the real path of ``given``. git-sync publishes through a link: such a name in the path itself is
    somebody else's, such as that of a Docker volume. Nor is it the commit of a work tree that lies deeper.
    """
    for folder in (root, *root.parents):
        found = _COMMIT.fullmatch(folder.name)
        if found is not None and folder.name not in given.absolute().parts:
            return found[1] if top is None or real_path(top) == str(folder) else None
    return None


def _cli_files(home: Path, top: Path) -> tuple[bytes | None, bytes | None]:
    """Return the Kapso CLI's map and its project file: from the functions folder, or the nearest above it, up to ``top``."""
    top = Path(real_path(top))
    return _nearest(home, top, REMOTE_MAP), _nearest(home, top, PROJECT_FILE)


def _nearest(home: Path, top: Path, name: str) -> bytes | None:
    for folder in (home, *home.parents):
        path = folder / name
        real = Path(real_path(path))
        if folder.is_relative_to(top) and path.is_file() and real.is_relative_to(top):
            try:
                return read_beneath(top, real.relative_to(top), CODE_LIMIT)
            except OSError:
                return None
    return None


def _above(home: Path, top: Path) -> Above:
    """Return the configuration files of the folders above the functions folder, up to ``top``, nearest first."""
    top = Path(real_path(top))
    found: dict[str, SourceFile] = {}
    if not home.is_relative_to(top):
        return Above()
    inside = home.relative_to(top)
    with FilesBeneath(top) as beneath:
        for height, folder in enumerate(list(home.parents)[: len(inside.parts)], 1):
            try:
                names = configurations(os.listdir(folder))  # noqa: PTH208 - names, which need not be text
            except OSError:
                continue
            for name in names[: CONFIG_COUNT_LIMIT - len(found)]:
                real = real_path(folder / name)
                file = _load(_look("../" * height + name, real, inside=Path(real).is_relative_to(top)), beneath)
                found[file.path] = file
    return Above(inside.as_posix().removeprefix("."), found)


def read_json_files(home: Path, top: Path) -> dict[str, bytes]:
    """Return the JSON files of a folder and of those above it up to ``top``, by their paths below ``top``, nearest first.

    Links, hidden files and files larger than `CODE_LIMIT` are left out, and so is what cannot be read.
    """
    home, top = Path(real_path(home)), Path(real_path(top))
    found: dict[str, bytes] = {}
    for folder in (home, *home.parents):
        if not folder.is_relative_to(top):
            break
        names = sorted(name for name in os.listdir(folder) if is_read(name) and name.endswith(".json"))  # noqa: PTH208
        with FilesBeneath(folder) as beneath:
            for name in names:
                path = folder / name
                file = _load(_look(name, str(path), inside=not path.is_symlink()), beneath)
                if file.content is not None:
                    found[path.relative_to(top).as_posix()] = file.content
    return found


def _listing(home: Path, budget: WalkBudget) -> _Listed:
    """Return every file to read; links are followed as long as they stay inside, those to folders as well.

    Kubernetes publishes the items of a ConfigMap as such links: ``greet -> ..data/greet``. A link to a folder that it is in
    itself would never end, and is refused.
    """
    pending, listed = [("", str(home))], _Listed()
    while pending:
        folder, where_really = pending.pop()
        budget.enter(f"{folder}/" if folder else "")
        try:
            with os.scandir(where_really) as found:
                entries = sorted(found, key=operator.attrgetter("name"))
        except OSError as error:
            if folder and isinstance(error, FileNotFoundError | NotADirectoryError):
                continue  # it was moved: the second listing will tell
            where = home / folder
            raise SourceUnavailable(
                f"{where} cannot be read: {error.strerror}", hint="make it readable; a daemon tries again by itself"
            ) from error
        for entry in entries:
            budget.look()
            name = entry.name
            path = f"{folder}/{name}" if folder else name
            link, folder_found = _kind(entry)
            real = real_path(entry.path) if link else entry.path
            inside = not link or Path(real).is_relative_to(home)
            if folder_found or (link and os.path.isdir(real)):  # noqa: PTH112 - a path that may not be text
                problem = _link_problem(real, where_really, inside=inside) if link else None
                if is_entered(name) and problem is not None:
                    listed.files.append(_Seen(path, real, None, problem))
                elif is_entered(name):
                    pending.append((path, real))
            elif is_read(name):
                budget.take_file()
                listed.files.append(_look(path, real, inside=inside))
            elif is_entered(name) and link and not os.path.exists(real):  # noqa: PTH110 - a path that may not be text
                listed.files.append(_Seen(path, real, None, _LEADS_NOWHERE))
            elif is_entered(name) and len(listed.unread) < MAX_UNREAD_NAMES:
                listed.unread.append(path)
    return listed


def _link_problem(real: str, where_really: str, *, inside: bool) -> str | None:
    """Return why a link to a folder is not followed, or None; ``where_really`` is the real path of the folder that it is in."""
    if not inside:
        return _LEADS_OUT
    return "is a link to a folder that it is in itself" if Path(where_really).is_relative_to(real) else None


def _kind(entry: os.DirEntry[str]) -> tuple[bool, bool]:
    """Return whether it is a link, and whether it is a folder; the list of most file systems says it of each name."""
    try:
        return entry.is_symlink(), entry.is_dir(follow_symlinks=False)
    except OSError:
        return False, False


def _look(path: str, real: str, *, inside: bool) -> _Seen:
    if not inside:
        return _Seen(path, real, None, _LEADS_OUT)
    try:
        found = os.stat(real)  # noqa: PTH116 - a path that may not be text
    except OSError as error:
        return _Seen(path, real, None, f"cannot be read: {error.strerror}")
    stamp = (found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino)
    if not stat.S_ISREG(found.st_mode):
        return _Seen(path, real, stamp, "is not a regular file")
    return _Seen(path, real, stamp, too_large(path, found.st_size))


def _below(target: str, home: Path) -> str:
    """Return the path of a file inside of a folder from there; `Path.relative_to` takes several times as long."""
    prefix = os.path.join(home, "")  # noqa: PTH118 - with a slash at its end
    if not target.startswith(prefix):
        raise ValueError(f"{target} is not below {home}")
    return target[len(prefix) :]


def _file(seen: _Seen, beneath: FilesBeneath, budget: WalkBudget) -> SourceFile:
    """Return a file of the functions folder, and count its content.

    Every pass reads every file. Size and times could tell which ones are the same, but then the contents of all files would
    have to stay in memory between passes.
    """
    if seen.problem is None and seen.stamp is not None:
        budget.take_content(seen.stamp[2])
    return _load(seen, beneath)


def _load(seen: _Seen, beneath: FilesBeneath) -> SourceFile:
    """Read a file below its real folder, which holds no link any more: what was swapped for one since then is not followed."""
    if seen.problem is not None:
        return SourceFile(seen.path, None, seen.problem)
    try:
        size = seen.stamp[2] if seen.stamp else 0
        return SourceFile(seen.path, beneath.read(_below(seen.target, beneath.folder), size))
    except OSError as error:
        return SourceFile(seen.path, None, f"cannot be read: {error.strerror}")
