"""Reads the files of one commit's tree from git's objects, each of them checked against its id.

`kapso_sync.sources.git` brings the objects; what is here takes no network and starts no command.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from kapso_sync.model.source import CODE_LIMIT, CONFIG_COUNT_LIMIT, LOCK_FILE, SourceFile
from kapso_sync.sources.file_rules import MAX_UNREAD_NAMES, configurations, is_entered, is_read, too_large
from kapso_sync.sources.walk import WalkBudget

if TYPE_CHECKING:
    from git import Repo
    from git.objects import Blob, Commit, Tree

_LINK, _SUBMODULE = 0o120000, 0o160000


class TreeReader:
    """Reads the files of a repository's tree within a budget.

    ``known`` are contents by their object's id, which are not read again; ``contents`` are those that this tree has. ``unread``
    are the paths of files of kinds that are not read.
    """

    def __init__(self, root: Tree, known: Mapping[bytes, bytes], budget: WalkBudget) -> None:
        self._root = root
        self._known = known
        self._budget = budget
        self.contents: dict[bytes, bytes] = {}
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
            children = item if item.type == "tree" else ()
            found = next((child for child in children if base_name(child) == name), None)
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
        content = self.contents.get(blob.binsha)
        if content is None:
            content = self._known.get(blob.binsha)
            if content is None:
                problem = too_large(path, blob.size)
                if problem is not None:
                    return SourceFile(path, None, problem)
                content = read_object(blob)
            self._budget.take_content(len(content))
            self.contents[blob.binsha] = content
        return SourceFile(path, content)


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


def read_object(item: Commit | Tree | Blob) -> bytes:
    """Return an object's bytes, checked against its id: the library checks no sums, and a bad disk would deploy garbage."""
    return _checked(item.data_stream.read(), item.type, item.hexsha)


def read_raw(repository: Repo, object_id: str, kind: str) -> bytes:
    """Return the bytes of a commit or a tag object, checked against its id; raises ValueError for another kind of object."""
    stream = repository.odb.stream(bytes.fromhex(object_id))
    return _checked(stream.read(), kind, object_id)


def _checked(content: bytes, kind: str, object_id: str) -> bytes:
    digest = hashlib.sha1(f"{kind} {len(content)}\0".encode() + content, usedforsecurity=False)
    if digest.hexdigest() != object_id:
        raise ValueError(f"{kind} {object_id} is damaged")
    return content


def commit_time(seconds: int) -> datetime | None:
    """Return a commit's time; None if no calendar shows it, or if it is 0, by which the library means what is no number."""
    try:
        return None if seconds == 0 else datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None
