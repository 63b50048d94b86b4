"""Reads a commit, and the files of its tree, from git's objects, each of them bounded and checked against its id.

`kapso_sync.sources.git` brings the objects; what is here takes no network and starts no command.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from kapso_sync.dataclass import dataclass
from kapso_sync.errors import InvalidSource
from kapso_sync.model.source import CODE_LIMIT, CONFIG_COUNT_LIMIT, LOCK_FILE, SourceFile
from kapso_sync.sources.file_rules import MAX_UNREAD_NAMES, configurations, is_entered, is_read, too_large
from kapso_sync.sources.walk import WalkBudget, WalkLimits

if TYPE_CHECKING:
    from git import Repo
    from git.objects import Blob, Tree

_LINK, _SUBMODULE = 0o120000, 0o160000

MAX_OBJECT_BYTES = {"commit": 1024**2, "tag": 1024**2, "tree": WalkLimits().folder}
"""Most bytes of an object that is no file. Compressed, a thousand times as many can be pushed."""

MAX_TEXT_BYTES = 1000
"""Most bytes of a commit's subject and of its author that are decoded: some encodings take the square of the length."""

MAX_ENCODING_NAME = 40
"""Most bytes of an encoding's name that are looked at: Python remembers each name that it was asked for."""

MAX_SUBJECT = 200
"""Most characters of a commit's subject that are kept."""

_WRITTEN_AT = re.compile(rb" (\d{1,20}) [+-]?\d+ *\Z")


@dataclass(frozen=True, slots=True)
class CommitHead:
    """What is shown of a commit, and the id of its tree; None for what it does not say."""

    tree: str
    subject: str | None
    author: str | None
    committed_at: datetime | None


def read_commit(repository: Repo, commit_id: str) -> CommitHead:
    """Return the head of a commit; raises `InvalidSource` for one that is too large, and ValueError for one that is damaged."""
    head, _, message = read_raw(repository, commit_id, "commit").partition(b"\n\n")
    tree, author, committer, encoding = (_header(head, name) for name in (b"tree", b"author", b"committer", b"encoding"))
    name = encoding[:MAX_ENCODING_NAME].decode("ascii", "replace") or "utf-8"
    subject = _decoded(message.lstrip(), name).splitlines()[:1]
    written = _WRITTEN_AT.search(committer[-MAX_TEXT_BYTES:])
    return CommitHead(
        tree=tree.decode("ascii"),
        subject=subject[0][:MAX_SUBJECT] if subject else None,
        author=_name_in(_decoded(author, name)),
        committed_at=None if written is None else commit_time(int(written[1])),
    )


def _header(head: bytes, name: bytes) -> bytes:
    """Return the value of a commit's first header of this name; empty without one."""
    found = re.search(rb"^" + name + rb" (.*)$", head, re.MULTILINE)
    return b"" if found is None else found[1]


def _decoded(text: bytes, encoding: str) -> str:
    """Return the beginning of a text, in the encoding that its author named if there is such a one."""
    text = text[:MAX_TEXT_BYTES]
    try:
        return text.decode(encoding, "replace").strip()
    except (LookupError, ValueError):  # ValueError: an encoding such as `idna`, which has rules of its own
        return text.decode("utf-8", "replace").strip()


def _name_in(author: str) -> str | None:
    """Return the name in an author's line, ``Ada <ada@example.com> 1700000000 +0000``; without one, the address."""
    name, _, rest = author.partition("<")
    return name.strip() or rest.partition(">")[0].strip() or None


class TreeReader:
    """Reads the files of a repository's tree within a budget.

    ``known`` are contents by their object's id, which are not read again. ``unread`` are the paths of files of kinds that are
    not read.
    """

    def __init__(self, root: Tree, known: Mapping[bytes, bytes], budget: WalkBudget) -> None:
        self._root = root
        self._known = known
        self._budget = budget
        self._contents: dict[bytes, bytes] = {}
        self.unread: list[str] = []

    def files(self, home: Tree) -> Iterator[SourceFile]:
        """Yield the files of a folder, by their paths below it."""
        pending = [("", home)]
        while pending:
            prefix, tree = pending.pop()
            self._budget.enter(prefix, tree.size)
            read_object(tree)
            for item in tree:
                self._budget.look()
                name = base_name(item)
                path = f"{prefix}{name}"
                if item.type == "tree":
                    if is_entered(name):
                        pending.append((f"{path}/", item))
                elif is_read(name) or (item.mode in (_SUBMODULE, _LINK) and is_entered(name)):
                    self._budget.take_file()
                    yield self._file(path, item)
                elif is_entered(name) and len(self.unread) < MAX_UNREAD_NAMES:
                    self.unread.append(path)

    def lock_files_above(self, path: str) -> Iterator[tuple[str, SourceFile]]:
        """Yield each lock file between the root and the functions folder at ``path``, with the path of its folder."""
        for folder, tree in self._trees_above(path):
            item = next((blob for blob in tree.blobs if blob.name == LOCK_FILE), None)
            if item is not None:
                yield folder, self._file(f"{folder}/{LOCK_FILE}".removeprefix("/"), item)

    def configs_above(self, path: str) -> Iterator[SourceFile]:
        """Yield the configuration files above the functions folder at ``path``, by their paths from there, nearest first."""
        count = 0
        for height, (_, tree) in enumerate(reversed(list(self._trees_above(path))), 1):
            blobs = {str(blob.name): blob for blob in tree.blobs}
            for name in configurations(blobs)[: CONFIG_COUNT_LIMIT - count]:
                count += 1
                yield self._file("../" * height + name, blobs[name])

    def plain_file(self, path: str) -> bytes | None:
        """Return a file below the root; None where there is none, a link, or more than code may have."""
        item: Tree | Blob = self._root
        for name in PurePosixPath(path).parts:
            if item.type != "tree":
                return None
            read_object(item)
            found = next((child for child in item if base_name(child) == name), None)
            if found is None:
                return None
            item = found
        fits = item.type == "blob" and item.mode not in (_LINK, _SUBMODULE) and item.size <= CODE_LIMIT
        return read_object(item) if fits else None

    def _trees_above(self, path: str) -> Iterator[tuple[str, Tree]]:
        """Yield the folders from the root to the one above ``path``, each with its path."""
        tree, folder = self._root, ""
        for name in path.split("/") if path else []:
            yield folder, tree
            tree, folder = tree / name, f"{folder}/{name}".removeprefix("/")

    def _file(self, path: str, blob: Blob) -> SourceFile:
        if blob.mode in (_SUBMODULE, _LINK):
            return SourceFile(path, None, describe_kind(blob))
        content = self._contents.get(blob.binsha)
        if content is None:
            content = self._known.get(blob.binsha)
            if content is None:
                problem = too_large(path, blob.size)
                if problem is not None:
                    return SourceFile(path, None, problem)
                content = read_object(blob)
            self._budget.take_content(len(content))
            self._contents[blob.binsha] = content
        return SourceFile(path, content)


def root_tree(repository: Repo, tree_id: str) -> Tree:
    """Return a commit's tree by its id; one that the library looks up by itself has no path, and nor has what is in it."""
    from git.objects import Tree  # noqa: PLC0415 - slow to import, and only a git source needs it

    return Tree(repository, bytes.fromhex(tree_id), path="")


def base_name(item: Tree | Blob) -> str:
    """Return an entry's name in its folder; the library gives a submodule none of its own."""
    return str(item.path).rpartition("/")[2]


def describe_kind(item: Tree | Blob) -> str:
    """Return what an object is that is no folder, as the end of a sentence that begins with its path."""
    kinds = {
        _SUBMODULE: "is a submodule, which is not followed",
        _LINK: "is a symbolic link, which is not followed in a repository",
    }
    return kinds.get(item.mode, "is a file")


def read_object(item: Tree | Blob) -> bytes:
    """Return an object's bytes, checked against its id: the library checks no sums, and a bad disk would deploy garbage.

    Raises `InvalidSource` for a folder whose list is too long; whoever reads a file has looked at its size.
    """
    _bound(item.type, item.hexsha, item.size)
    return _checked(item.data_stream.read(), item.type, item.hexsha)


def read_raw(repository: Repo, object_id: str, kind: str) -> bytes:
    """Return the bytes of a commit or a tag object, checked against its id.

    Raises `InvalidSource` for one that is too large, and ValueError for another kind of object.
    """
    binary = bytes.fromhex(object_id)
    _bound(kind, object_id, repository.odb.info(binary).size)
    return _checked(repository.odb.stream(binary).read(), kind, object_id)


def _bound(kind: str, object_id: str, size: int) -> None:
    limit = MAX_OBJECT_BYTES.get(kind)
    if limit is not None and size > limit:
        text = f"the {kind} {object_id[:12]} has {size:,} bytes, and may have {limit // 1024**2} MiB"
        raise InvalidSource(text, hint=f"`git cat-file -p {object_id[:12]}` shows it; it has to be written again, with less")


def object_digest(kind: str, content: bytes) -> bytes:
    """Return the id that git gives an object of this kind and content."""
    return hashlib.sha1(f"{kind} {len(content)}\0".encode() + content, usedforsecurity=False).digest()


def _checked(content: bytes, kind: str, object_id: str) -> bytes:
    if object_digest(kind, content).hex() != object_id:
        raise ValueError(f"{kind} {object_id} is damaged")
    return content


def commit_time(seconds: int) -> datetime | None:
    """Return a commit's time; None if no calendar shows it."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None
