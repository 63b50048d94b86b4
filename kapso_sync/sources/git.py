"""Reads a git repository as a source.

It keeps a bare, shallow mirror of one branch, tag or commit, and reads the blobs of one commit's tree.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from kapso_sync.errors import KapsoSyncError, SourceMissing, SourceUnavailable, StateUnusable
from kapso_sync.model import events
from kapso_sync.model.source import (
    CODE_LIMIT,
    DEFAULT_FOLDER,
    PROJECT_FILE,
    REMOTE_MAP,
    Revision,
    Snapshot,
    SourceFile,
)
from kapso_sync.permissions import describe_owner, hint_for_owner
from kapso_sync.sources.command import Git, GitFailed
from kapso_sync.sources.file_rules import MAX_UNREAD_NAMES, check_count, is_entered, is_read, too_large
from kapso_sync.sources.spec import SourceSpec

if TYPE_CHECKING:
    from git.objects import Blob, Commit, Tree

MAX_PACKS = 50
"""Maximum number of packs in the mirror. Each fetch adds one; beyond it, the shallow mirror is created again."""

_OURS = "refs/kapso-sync/head"
_COMMIT_ID = re.compile(r"[0-9a-f]{7,40}")
_LINK, _SUBMODULE = 0o120000, 0o160000
_REFUSED = re.compile(
    r"authentication failed|could not read (username|password)|permission denied|access denied|\b40[13]\b"
    r"|host key verification failed|terminal prompts disabled",
    re.IGNORECASE,
)
_NAMELESS = "No user exists for uid"
"""What ssh says, and ends, when its user has no line in /etc/passwd."""
_MISSING = re.compile(
    r"repository .*not found|does not appear to be a git repository|not found: did you run|\b404\b", re.IGNORECASE
)
_DISK = re.compile(r"no space left on device|disk quota exceeded|read-only file system", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Head:
    """The remote's answer: the ref to fetch, its commit (None if only a fetch can tell), and the default branch."""

    ref: str
    commit: str | None
    default_branch: str | None


class GitSource:
    """Reads a git repository through a mirror of its own in the folder ``mirror``."""

    def __init__(self, spec: SourceSpec, mirror: Path, git: Git, emit: events.Listener) -> None:
        self._spec = spec
        self._mirror = mirror
        self._git = git
        self._emit = emit
        self._last: Snapshot | None = None
        self._first: Snapshot | None = None
        self._found: _Head | None = None
        self._contents: dict[bytes, bytes] = {}

    async def home(self) -> str:
        """Return the functions folder inside the repository, empty for its root; raises like `fetch`.

        If the settings name none, the repository is read to find out, and the next fetch returns what was read.
        """
        if self._spec.path is not None:
            return self._spec.path
        self._first = await self._current()
        return self._first.path

    async def default_branch(self) -> str | None:
        """Return the branch that the remote's HEAD names; raises `SourceUnavailable` or `SourceMissing`."""
        return (await self._head()).default_branch

    async def fetch(self) -> Snapshot:
        """Return the wanted revision; nothing is fetched when the mirror has it already.

        Raises `SourceUnavailable` when the remote does not answer or refuses us, `SourceMissing` when the repository, the
        branch, the ref or the functions folder is not there, `StateUnusable` when the mirror cannot be written.
        """
        snapshot, self._first = self._first or await self._current(), None
        previous = self._last.revision.id if self._last else None
        revision = snapshot.revision
        if revision.id == previous:
            self._emit(events.SourceUnchanged(revision=revision.id))
        else:
            self._emit(
                events.SourceChanged(revision=revision.id, previous=previous, subject=revision.subject, author=revision.author)
            )
        self._last = snapshot
        return snapshot

    async def moved(self, *, keep: bool = True) -> bool:
        """Return whether the ref points to another commit than the last one read, by one ``ls-remote``.

        With ``keep`` the next fetch, which must follow at once, uses this answer. Raises like `fetch`.
        """
        head = await self._head()
        if self._last is not None and head.commit == self._last.revision.id:
            return False
        self._found = head if keep else None
        return True

    async def _current(self) -> Snapshot:
        head, self._found = self._found or await self._head(), None
        if self._last is not None and head.commit == self._last.revision.id:
            return self._last
        try:
            return await self._read(head)
        except OSError as error:
            raise StateUnusable(
                f"{self._mirror} cannot be used: {error.strerror}", hint="git needs a folder of its own for its mirror"
            ) from error

    async def _head(self) -> _Head:
        """Ask the remote, with one ``ls-remote``, for the commit of the ref."""
        branch, ref = self._spec.branch, self._spec.ref
        patterns = ["HEAD"]
        patterns += [f"refs/heads/{branch}"] if branch else []
        patterns += [f"refs/tags/{ref}", f"refs/tags/{ref}^{{}}"] if ref else []
        text = await self._remote(["ls-remote", "--symref", "--", self._spec.location, *patterns])
        commits: dict[str, str] = {}
        default_branch = None
        for line in text.splitlines():
            value, _, name = line.partition("\t")
            if value.startswith("ref:") and name == "HEAD":
                default_branch = value.removeprefix("ref:").strip().removeprefix("refs/heads/")
            else:
                commits[name] = value
        if ref is not None:
            tag = f"refs/tags/{ref}"
            if tag in commits:
                return _Head(tag, commits.get(f"{tag}^{{}}", commits[tag]), default_branch)
            if _COMMIT_ID.fullmatch(ref):
                return _Head(ref, ref if len(ref) == 40 else None, default_branch)
            raise SourceMissing(
                f"{self._spec.location} has no tag or commit {ref}", hint="--branch names a branch, --ref a tag or commit"
            )
        name = f"refs/heads/{branch}" if branch else "HEAD"
        if name not in commits:
            what = f"branch {branch}" if branch else "commit yet"
            raise SourceMissing(f"{self._spec.location} has no {what}", hint="push the branch, or name another with --branch")
        return _Head(name, commits[name], default_branch)

    async def _read(self, head: _Head) -> Snapshot:
        """Fetch what is missing and read it; a broken mirror is wiped and created again, once."""
        try:
            commit = await self._obtain(head)
            return await asyncio.to_thread(self._snapshot, commit)
        except (GitFailed, _Broken):
            await asyncio.to_thread(_wipe, self._mirror)
        try:
            commit = await self._obtain(head)
            return await asyncio.to_thread(self._snapshot, commit)
        except GitFailed as error:
            raise self._explain(error) from error
        except _Broken as error:
            raise SourceUnavailable(f"the repository cannot be read: {error}", hint="run git fsck on the remote") from error

    async def _obtain(self, head: _Head) -> str:
        """Return the full id of the wanted commit, present in the mirror."""
        if sum(1 for _ in self._mirror.glob("objects/pack/*.pack")) > MAX_PACKS:
            await asyncio.to_thread(_wipe, self._mirror)
        if not (self._mirror / "HEAD").is_file():
            self._mirror.mkdir(parents=True, exist_ok=True, mode=0o700)
            await self._git.run(["init", "--quiet", "--bare", "--initial-branch=unused", "--", str(self._mirror)])
        if head.commit is not None and await self._has(head.commit):
            return head.commit
        try:
            await self._fetch("--depth=1", f"+{head.ref}:{_OURS}")
        except GitFailed:
            if not _COMMIT_ID.fullmatch(head.ref):
                raise
            # Servers need not hand out a bare commit id: then it is looked for in the history of all branches.
            depth = ["--unshallow"] if (self._mirror / "shallow").exists() else []
            await self._fetch(*depth, "+refs/heads/*:refs/kapso-sync/heads/*")
        wanted = head.commit or (head.ref if _COMMIT_ID.fullmatch(head.ref) else _OURS)
        try:
            commit = await self._in_mirror("rev-parse", "--verify", "--quiet", "--end-of-options", f"{wanted}^{{commit}}")
        except GitFailed as error:
            if _COMMIT_ID.fullmatch(wanted) and head.ref == wanted:
                raise SourceMissing(f"{self._spec.location} has no commit {wanted}", hint="is it pushed?") from error
            raise
        return commit.strip()

    async def _has(self, commit: str) -> bool:
        try:
            await self._in_mirror("cat-file", "-e", f"{commit}^{{tree}}")
        except GitFailed:
            return False
        return True

    async def _fetch(self, *arguments: str) -> None:
        command = ["fetch", "--quiet", "--no-tags", "--force", "--no-write-fetch-head", "--no-auto-gc"]
        options = [argument for argument in arguments if argument.startswith("--")]
        refs = [argument for argument in arguments if not argument.startswith("--")]
        await self._git.run([f"--git-dir={self._mirror}", *command, *options, "--", self._spec.location, *refs], network=True)

    async def _in_mirror(self, *arguments: str) -> str:
        return await self._git.run([f"--git-dir={self._mirror}", *arguments])

    async def _remote(self, arguments: list[str]) -> str:
        try:
            return await self._git.run(arguments, network=True)
        except GitFailed as error:
            raise self._explain(error) from error

    def _explain(self, error: GitFailed) -> SourceUnavailable | SourceMissing | StateUnusable:
        where = self._spec.location
        # What the server says about its own disk comes as `remote: …`.
        if _DISK.search(error.text) and "remote:" not in error.text:
            return StateUnusable(
                f"{self._mirror} cannot be written: {error.text}",
                hint=f"free space for the mirror of the source: `df -h {self._git.home}` shows its disk",
            )
        if _NAMELESS in error.text:
            return SourceUnavailable(
                f"{where} cannot be fetched, since ssh wants a name for the user: {error.text}",
                hint="run as a user that /etc/passwd lists (in the image: 10001), mount an /etc/passwd that does, or use https",
            )
        key = self._git.ssh_key_file
        if key is not None and "Load key" in error.text and not os.access(key, os.R_OK):
            return SourceUnavailable(
                f"{where} cannot be fetched, since KAPSO_SYNC_GIT_SSH_KEY_FILE {key} cannot be read: {describe_owner(key)}",
                hint=hint_for_owner(key),
            )
        if _REFUSED.search(error.text):
            return SourceUnavailable(
                f"{where} refuses us: {error.text}",
                hint="look at KAPSO_SYNC_GIT_TOKEN(_FILE), KAPSO_SYNC_GIT_SSH_KEY_FILE and KAPSO_SYNC_GIT_KNOWN_HOSTS_FILE",
            )
        if _MISSING.search(error.text):
            return SourceMissing(
                f"{where} is not a repository that we can read: {error.text}", hint="is the URL right, and the token allowed?"
            )
        return SourceUnavailable(f"{where} cannot be fetched: {error.text}", hint="try again; a daemon does so by itself")

    def _snapshot(self, commit_id: str) -> Snapshot:
        # GitPython takes a tenth of a second to import, and only a git source needs it.
        import git  # noqa: PLC0415

        repository = None
        try:
            repository = git.Repo(self._mirror, expand_vars=False)
            repository.git.update_environment(**self._git.reading_environment(self._mirror))
            commit = repository.commit(commit_id)
            _content(commit)
            tree, path = self._home(commit.tree)
            fresh: dict[bytes, bytes] = {}
            unread: list[str] = []
            files = {file.path: file for file in _files(tree, self._contents, fresh, unread)}
            self._contents = fresh
            remote_map, project = (_cli_file(commit.tree, name) for name in (REMOTE_MAP, PROJECT_FILE))
            author, message = commit.author.name, str(commit.message)
            revision = Revision(
                commit.hexsha,
                subject=message.splitlines()[0][:200] if message.strip() else None,
                author=author,
                committed_at=datetime.fromtimestamp(commit.committed_date, UTC),
            )
        except KapsoSyncError:
            raise
        except Exception as error:  # a damaged pack fails in a dozen ways, zlib.error and struct.error among them
            raise _Broken(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}") from error
        finally:
            if repository is not None:
                repository.close()
        return Snapshot(self._spec.location, revision, path, files, remote_map, project, frozenset(unread))

    def _home(self, root: Tree) -> tuple[Tree, str]:
        path = self._spec.path
        if path is None:
            path = DEFAULT_FOLDER if any(tree.name == DEFAULT_FOLDER for tree in root.trees) else ""
        tree = root
        _content(tree)
        for name in path.split("/") if path else []:
            found = next((child for child in tree.trees if child.name == name), None)
            if found is None:
                other = next((child for child in tree if str(child.path).rpartition("/")[2] == name), None)
                what = f"has no folder {path}" if other is None else f"has no folder {path}: {other.path} {_kind(other)}"
                raise SourceMissing(f"{self._spec.location} {what}", hint="--path names the functions folder inside it")
            tree = found
            _content(tree)
        return tree, path


class _Broken(Exception):
    """The mirror is damaged."""


def _kind(item: Tree | Blob) -> str:
    """Return what an object is that is no folder, as the end of a sentence that begins with its path."""
    kinds = {
        _SUBMODULE: "is a submodule, which is not followed",
        _LINK: "is a symbolic link, which is not followed in a repository",
    }
    return kinds.get(item.mode, "is a file")


def _files(home: Tree, known: Mapping[bytes, bytes], fresh: dict[bytes, bytes], unread: list[str]) -> Iterator[SourceFile]:
    """Yield the files of a tree; contents that are ``known`` by their object's id are not read again.

    ``unread`` gets the paths of files of other kinds.
    """
    pending, count = [("", home)], 0
    while pending:
        prefix, tree = pending.pop()
        for item in tree:
            name = str(item.path).rpartition("/")[2]  # a submodule has no name of its own to ask for
            path = f"{prefix}{name}"
            if item.type == "tree":
                if is_entered(name):
                    _content(item)
                    pending.append((f"{path}/", item))
            elif is_read(name) or (item.mode in (_SUBMODULE, _LINK) and is_entered(name)):
                count += 1
                check_count(count, str(home.path) or "the repository")
                yield _file(path, item, known, fresh)
            elif is_entered(name) and len(unread) < MAX_UNREAD_NAMES:
                unread.append(path)


def _file(path: str, blob: Blob, known: Mapping[bytes, bytes], fresh: dict[bytes, bytes]) -> SourceFile:
    if blob.mode in (_SUBMODULE, _LINK):
        return SourceFile(path, None, _kind(blob))
    content = known.get(blob.binsha)
    if content is None:
        problem = too_large(path, blob.size)
        if problem is not None:
            return SourceFile(path, None, problem)
        content = _content(blob)
    fresh[blob.binsha] = content
    return SourceFile(path, content)


def _cli_file(root: Tree, path: str) -> bytes | None:
    """Return a file of the Kapso CLI at the same commit, or None, also for a file that is not a plain one."""
    item: Tree | Blob = root
    for name in PurePosixPath(path).parts:
        children = item if item.type == "tree" else ()
        found = next((child for child in children if str(child.path).rpartition("/")[2] == name), None)
        if found is None:
            return None
        item = found
    fits = item.type == "blob" and item.mode not in (_LINK, _SUBMODULE) and item.size <= CODE_LIMIT
    return _content(item) if fits else None


def _content(item: Commit | Tree | Blob) -> bytes:
    """Return an object's bytes, checked against its id: the library checks no sums, and a bad disk would deploy garbage."""
    content: bytes = item.data_stream.read()
    digest = hashlib.sha1(f"{item.type} {len(content)}\0".encode() + content, usedforsecurity=False).digest()
    if digest != item.binsha:
        raise ValueError(f"{item.type} {item.hexsha} is damaged")
    return content


def _wipe(folder: Path) -> None:
    """Empty a folder, but keep the folder itself: it may be a mount point."""
    for item in folder.iterdir() if folder.is_dir() else ():
        if item.is_dir() and not item.is_symlink():
            shutil.rmtree(item, ignore_errors=True)
        else:
            item.unlink(missing_ok=True)
