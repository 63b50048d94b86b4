"""Reads a git repository as a source.

It keeps a bare, shallow mirror of one branch, tag or commit, and reads the blobs of one commit's tree. With a verifier, the
commit must be signed as wanted, or the annotated tag where one is named, before anything of it is read. What was read stays the
snapshot of this process until the remote shows another commit: a key that is removed later does not take it back.
"""

from __future__ import annotations

import asyncio
import contextlib
import mmap
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from kapso_sync.dataclass import dataclass
from kapso_sync.errors import (
    ConfigError,
    KapsoSyncError,
    SourceDenied,
    SourceMissing,
    SourceRefused,
    SourceUnavailable,
    SourceUnverified,
    StateUnusable,
)
from kapso_sync.model import events
from kapso_sync.model.source import (
    DEFAULT_FOLDER,
    PROJECT_FILE,
    REMOTE_MAP,
    Above,
    Revision,
    Snapshot,
)
from kapso_sync.permissions import make_private
from kapso_sync.retry import Backoff
from kapso_sync.sources.command import Git, GitFailed
from kapso_sync.sources.failures import RemoteContext, explain, is_network_failure, is_out_of_memory
from kapso_sync.sources.git_tree import (
    TreeReader,
    base_name,
    describe_kind,
    object_digest,
    read_commit,
    read_object,
    read_raw,
    root_tree,
)
from kapso_sync.sources.kept_snapshot import KeptSnapshot
from kapso_sync.sources.signatures import (
    SignatureRefused,
    SignatureVerifier,
    SignedContent,
    split_commit,
    split_tag,
    tag_target,
)
from kapso_sync.sources.spec import SourceSpec
from kapso_sync.sources.walk import WalkBudget

if TYPE_CHECKING:
    from git import Repo
    from git.objects import Tree

MAX_PACKS = 50
"""Maximum number of packs in the mirror. Each fetch adds one; beyond it, what is still used is packed into one."""

DENIED_BACKOFF = Backoff(initial=30.0, maximum=600.0)
"""How long a remote that refused us is not asked again: sshd and forges lock out addresses that knock too often."""

MAX_NESTED_TAGS = 8
"""Maximum number of tags that may name each other before one names a commit."""

_OURS = "refs/kapso-sync/head"
_COMMIT_ID = re.compile(r"[0-9a-f]{7,40}")
_FULL_ID = re.compile(r"[0-9a-f]{40}")
_SHA256_ID = re.compile(r"[0-9a-f]{64}")
_REDIRECTED = re.compile(r"returned error: 30[12378]")
MAX_LISTED_REFS = 10

OnTransfer = Callable[[], None]
"""Called before something is fetched."""


@dataclass(frozen=True, slots=True)
class _Head:
    """The remote's answer: the ref to fetch, its commit (None if only a fetch can tell), and the default branch.

    ``tag`` is the id of the tag object if the ref is an annotated tag.
    """

    ref: str
    commit: str | None
    default_branch: str | None
    tag: str | None = None


@dataclass(frozen=True, slots=True)
class _Found:
    """A commit in the mirror, by its full id, and the id of the tag object that names it, if one was asked for."""

    commit: str
    tag: str | None = None


class GitSource:
    """Reads a git repository through a mirror of its own in the folder ``mirror``; None as ``verifier``: signed or not.

    A remote that refused us is asked again when its credentials change, or after a delay that grows.
    """

    def __init__(
        self,
        spec: SourceSpec,
        mirror: Path,
        git: Git,
        emit: events.Listener,
        verifier: SignatureVerifier | None = None,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._spec = spec
        self._mirror = mirror
        self._git = git
        self._emit = emit
        self._verifier = verifier
        self._last: Revision | None = None
        self._first: Snapshot | None = None
        self._kept = KeptSnapshot(mirror)
        self._found: _Head | None = None
        self._monotonic = monotonic
        self._denied: _Denied | None = None
        self._offered: tuple[object, ...] = ()

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

    async def fetch(self, on_transfer: OnTransfer = lambda: None) -> Snapshot:
        """Return the wanted revision; nothing is fetched when the mirror has it already.

        ``on_transfer`` is called before something is fetched that will certainly be read.

        Raises `SourceUnavailable` when the remote does not answer or refuses us, `SourceUnverified` when the revision is not
        signed as wanted, `SourceMissing` when the repository, the branch, the ref or the functions folder is not there,
        `StateUnusable` when the mirror cannot be written.
        """
        snapshot, self._first = self._first or await self._current(on_transfer), None
        previous = self._last.id if self._last else None
        revision = snapshot.revision
        if revision.id == previous:
            self._emit(events.SourceUnchanged(revision=revision.id))
        else:
            self._emit(
                events.SourceChanged(
                    revision=revision.id,
                    previous=previous,
                    subject=revision.subject,
                    author=revision.author,
                    signer=revision.signer,
                )
            )
        self._last = revision
        return snapshot

    async def moved(self, *, keep: bool = True) -> bool:
        """Return whether the ref points to another commit than the last one read, by one ``ls-remote``.

        With ``keep`` the next fetch, which must follow at once, uses this answer. Without it a commit that is not signed as
        wanted does not count: it must not end the work on the last one. Raises like `fetch`.
        """
        head = await self._head()
        if self._was_read(head) is not None:
            return False
        self._found = head if keep else None
        return keep or await self._may_be_read(head)

    def forget(self) -> None:
        """Forget what `moved` has kept for a fetch."""
        self._found = None

    async def _may_be_read(self, head: _Head) -> bool:
        if self._verifier is None:
            return True
        try:
            await self._verify(self._verifier, await self._obtain(head))
        except SourceUnverified:
            return False
        except (GitFailed, _Broken, OSError):
            pass  # The next fetch mends the mirror, or says what is wrong.
        return True

    async def _current(self, on_transfer: OnTransfer = lambda: None) -> Snapshot:
        head, self._found = self._found or await self._head(), None
        if (last := self._was_read(head)) is not None:
            kept = await asyncio.to_thread(self._kept.load, last.id)
            if kept is not None:
                return kept
        try:
            snapshot = await self._read(head, on_transfer)
        except OSError as error:
            raise StateUnusable(
                f"{self._mirror} cannot be used: {error.strerror}", hint="git needs a folder of its own for its mirror"
            ) from error
        await asyncio.to_thread(self._kept.keep, snapshot)
        return snapshot

    def _was_read(self, head: _Head) -> Revision | None:
        """Return the last revision if it is of this head; an id names the same commit for ever, also a short one or a tag's."""
        if self._last is not None and (head.commit == self._last.id or _COMMIT_ID.fullmatch(head.ref)):
            return self._last
        return None

    async def _head(self) -> _Head:
        """Ask the remote, with one ``ls-remote``, for the commit of the ref."""
        branch, ref = self._spec.branch, self._spec.ref
        patterns = ["HEAD"]
        patterns += [f"refs/heads/{branch}"] if branch else []
        patterns += [f"refs/tags/{ref}", f"refs/tags/{ref}^{{}}"] if ref else []
        text = await self._ask(*patterns)
        commits: dict[str, str] = {}
        default_branch = None
        for line in text.splitlines():
            value, _, name = line.partition("\t")
            if value.startswith("ref:") and name == "HEAD":
                default_branch = value.removeprefix("ref:").strip().removeprefix("refs/heads/")
            else:
                commits[name] = value
        if any(map(_SHA256_ID.fullmatch, commits.values())):
            raise SourceRefused(
                f"{self._spec.location} names its commits by SHA-256, and only SHA-1 repositories are read",
                hint="push the functions to a repository that `git init --object-format=sha1` made",
            )
        if ref is not None:
            tag = f"refs/tags/{ref}"
            if tag in commits:
                peeled = commits.get(f"{tag}^{{}}")
                return _Head(tag, peeled or commits[tag], default_branch, commits[tag] if peeled else None)
            commit = ref.lower()
            if _COMMIT_ID.fullmatch(commit):
                return _Head(commit, commit if len(commit) == 40 else None, default_branch)
            raise SourceMissing(
                f"{self._spec.location} has no tag or commit {ref}", hint="--branch names a branch, --ref a tag or commit"
            )
        name = f"refs/heads/{branch}" if branch else "HEAD"
        if name not in commits:
            raise await self._no_branch()
        return _Head(name, commits[name], default_branch)

    async def _no_branch(self) -> SourceMissing:
        """Return the error for a branch that is not there, or a HEAD that names none."""
        where, branch = self._spec.location, self._spec.branch
        if branch is not None:
            return SourceMissing(f"{where} has no branch {branch}", hint="push the branch, or name another with --branch")
        refs = sorted(line.partition("\t")[2] for line in (await self._ask("refs/heads/*", "refs/tags/*")).splitlines())
        names = [name.removeprefix("refs/heads/") for name in refs if name.startswith("refs/heads/")]
        tags = [name.removeprefix("refs/tags/") for name in refs if name.startswith("refs/tags/") and not name.endswith("^{}")]
        if names:
            return SourceMissing(
                f"the HEAD of {where} names a branch that does not exist",
                hint=f"set the repository's default branch, or name one with --branch: {_listed(names)}",
            )
        if tags:
            return SourceMissing(f"{where} has tags, and no branch", hint=f"name a tag with --ref: {_listed(tags)}")
        return SourceMissing(f"{where} has no commit yet", hint="push the branch, or name another with --branch")

    async def _read(self, head: _Head, on_transfer: OnTransfer) -> Snapshot:
        """Fetch what is missing and read it; a broken mirror is wiped and created again, once."""
        try:
            return await self._obtain_verified(head, on_transfer)
        except GitFailed as error:
            if is_network_failure(error.text) or is_out_of_memory(error.text):
                raise self._explain(error) from error
            await asyncio.to_thread(_wipe, self._mirror)
        except _Broken:
            await asyncio.to_thread(_wipe, self._mirror)
        try:
            return await self._obtain_verified(head, on_transfer)
        except GitFailed as error:
            raise self._explain(error) from error
        except _Broken as error:
            raise SourceUnavailable(f"the repository cannot be read: {error}", hint="run git fsck on the remote") from error

    async def _obtain_verified(self, head: _Head, on_transfer: OnTransfer) -> Snapshot:
        found = await self._obtain(head, on_transfer)
        signer = None if self._verifier is None else await self._verify(self._verifier, found)
        return await asyncio.to_thread(self._snapshot, found.commit, signer)

    async def _verify(self, verifier: SignatureVerifier, found: _Found) -> str:
        """Return who signed the tag object, or without one the commit; raises `SourceUnverified` if nobody did who may."""
        commit, tag = found.commit, found.tag
        what = f"commit {commit[:12]}" if tag is None else f"tag {self._spec.ref} at commit {commit[:12]}"
        try:
            signed = await asyncio.to_thread(self._signed_content, tag, commit)
            return await verifier.verify(signed)
        except SignatureRefused as refused:
            raise SourceUnverified(
                f"{what} is not read: {refused.reason}", commit=commit, signer=refused.signer, hint=refused.hint
            ) from refused
        except ConfigError as error:  # at the start it was good: whoever mounts the file may put it back
            raise SourceUnavailable(f"{what} cannot be verified: {error.message}", hint=error.hint) from error

    def _signed_content(self, tag: str | None, commit: str) -> SignedContent:
        """Return what must be signed; raises `SignatureRefused`."""
        with self._repository() as repository:
            if tag is None:
                return split_commit(read_raw(repository, commit, "commit"))
            content = read_raw(repository, tag, "tag")
            target = tag_target(content)
            if target.name != self._spec.ref:
                # Whoever may push, and has no key, could give an old release the name of a new one.
                raise SignatureRefused(
                    f"its signature is for the tag {target.name}", hint="tags cannot be renamed: make a new one"
                )
            for _ in range(MAX_NESTED_TAGS):
                if target.kind != "tag":
                    break
                target = tag_target(read_raw(repository, target.id, "tag"))
            # The remote said which commit the tag names; the tag itself has to say the same.
            if (target.kind, target.id) != ("commit", commit):
                raise SignatureRefused(f"the tag names {target.kind} {target.id[:12]}")
            return split_tag(content)

    async def _obtain(self, head: _Head, on_transfer: OnTransfer = lambda: None) -> _Found:
        """Return the wanted commit, present in the mirror, and with a verifier the tag object as well.

        The ref may have moved since the remote was asked. Then its new commit is what was fetched, and what is wanted.
        """
        await asyncio.to_thread(_remove_leftovers, self._mirror)
        if sum(1 for _ in self._mirror.glob("objects/pack/*.pack")) > MAX_PACKS:
            await self._repack()
        if not (self._mirror / "HEAD").is_file():
            make_private(self._mirror)
            await self._git.run(["init", "--quiet", "--bare", "--initial-branch=unused", "--", str(self._mirror)])
        if (found := await self._present(head)) is not None:
            return found
        if self._verifier is None:  # else nobody knows yet whether it may be read, and nothing is done for it
            on_transfer()
        try:
            await self._fetch("--depth=1", f"+{head.ref}:{_OURS}")
        except GitFailed:
            if not _COMMIT_ID.fullmatch(head.ref):
                raise
            # Servers need not hand out a bare commit id: then it is looked for in the history of all branches.
            depth = ["--unshallow"] if (self._mirror / "shallow").exists() else []
            await self._fetch(*depth, "+refs/heads/*:refs/kapso-sync/heads/*")
        return _at_head(self._mirror, head) or await self._present(head) or await self._fetched(head)

    async def _present(self, head: _Head) -> _Found | None:
        """Return what the remote said if the mirror has all of it, else None."""
        if head.commit is None or not await asyncio.to_thread(_may_have, self._mirror, head.commit):
            return None
        tag = head.tag if self._verifier is not None else None
        named = f"{head.commit}^{{commit}}"
        found = await self._look_up(named, f"{named}^{{tree}}", *(() if tag is None else (tag,)))
        commit = found[0]
        return None if commit is None or None in found else _Found(commit, tag)

    async def _fetched(self, head: _Head) -> _Found:
        """Return what the last fetch brought, whatever the remote said before it."""
        is_id = _COMMIT_ID.fullmatch(head.ref) is not None
        wanted = head.ref if is_id else _OURS
        try:
            commit = await self._parse(f"{wanted}^{{commit}}")
        except GitFailed as error:
            if is_id:
                raise SourceMissing(f"{self._spec.location} has no commit {wanted}", hint="is it pushed?") from error
            if "expected commit type" in error.text:
                what = f"{self._spec.ref or head.ref} of {self._spec.location}"
                raise SourceMissing(f"{what} names no commit, but a single file or folder", hint="tag a commit") from error
            raise
        named = commit if is_id else await self._parse(_OURS)
        return _Found(commit, named if named != commit else None)

    async def _parse(self, name: str) -> str:
        return (await self._in_mirror("rev-parse", "--verify", "--quiet", "--end-of-options", name)).strip()

    async def _repack(self) -> None:
        """Pack the mirror into one pack of what the last commit needs; where that fails, the mirror is fetched again."""
        try:
            await self._in_mirror("repack", "-a", "-d", "-q")
            await self._in_mirror("prune", "--expire=now")
        except GitFailed:
            await asyncio.to_thread(_wipe, self._mirror)

    async def _look_up(self, *names: str) -> list[str | None]:
        """Return the full ids of objects in the mirror, None for each that is not there; one process finds all of them."""
        asked = "".join(f"{name}\n" for name in names).encode()
        try:
            text = await self._git.run([f"--git-dir={self._mirror}", "cat-file", "--batch-check=%(objectname)"], stdin=asked)
        except GitFailed:
            return [None for _ in names]
        lines = text.splitlines()
        return (
            [line if _FULL_ID.fullmatch(line) else None for line in lines]
            if len(lines) == len(names)
            else [None for _ in names]
        )

    async def _fetch(self, *arguments: str) -> None:
        command = ["fetch", "--quiet", "--no-tags", "--force", "--no-write-fetch-head", "--no-auto-gc"]
        options = [argument for argument in arguments if argument.startswith("--")]
        refs = [argument for argument in arguments if not argument.startswith("--")]
        await self._git.run([f"--git-dir={self._mirror}", *command, *options, "--", self._git.location, *refs], network=True)

    async def _in_mirror(self, *arguments: str) -> str:
        return await self._git.run([f"--git-dir={self._mirror}", *arguments])

    async def _ask(self, *patterns: str) -> str:
        """Return what ``ls-remote`` says of these refs; a redirect within the host is followed from then on."""
        self._raise_if_denied()
        try:
            return await self._list(*patterns)
        except GitFailed as error:
            if _REDIRECTED.search(error.text) and await self._follow():
                with self._explained():
                    return await self._list(*patterns)
            self._git.use_location(self._spec.location)
            raise self._explain(error) from error

    async def _list(self, *patterns: str) -> str:
        text = await self._git.run(["ls-remote", "--symref", "--", self._git.location, *patterns], network=True)
        self._denied = None
        return text

    async def _follow(self) -> bool:
        """Use the address to which the server redirects, and report it; return whether there is one."""
        target = await self._git.find_redirect()
        if target is None:
            return False
        self._git.use_location(target)
        hint = f"let the source be {target}: the redirect may end, and commit statuses are set at the configured address"
        self._emit(events.SourceMoved(source=self._spec.location, moved_to=target, hint=hint))
        return True

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except GitFailed as error:
            raise self._explain(error) from error

    def _explain(self, error: GitFailed) -> KapsoSyncError:
        credentials = self._git.credentials
        found = explain(
            error.text,
            RemoteContext(self._spec.location, self._mirror, credentials.ssh_key_file, credentials.known_hosts_file),
        )
        if isinstance(found, SourceDenied):
            times = self._denied.times + 1 if self._denied is not None else 1
            until = self._monotonic() + DENIED_BACKOFF.delay(times)
            self._denied = _Denied(found, times, until, self._offered)
        return found

    def _raise_if_denied(self) -> None:
        denied = self._denied
        # A file that changes while the remote answers holds credentials that it did not refuse.
        self._offered = self._git.credentials_version()
        if denied is None or self._monotonic() >= denied.until:
            return
        if denied.credentials == self._offered:
            raise SourceDenied(denied.error.message, hint=denied.error.hint)

    @contextlib.contextmanager
    def _repository(self) -> Iterator[Repo]:
        """Open the mirror with a library until the block ends; raises `_Broken` for what is not readable in it."""
        # GitPython takes a tenth of a second to import, and only a git source needs it.
        import git  # noqa: PLC0415

        repository = None
        try:
            repository = git.Repo(self._mirror, expand_vars=False)
            repository.git.update_environment(**self._git.reading_environment(self._mirror))
            yield repository
        except (KapsoSyncError, SignatureRefused):
            raise
        except Exception as error:  # a damaged pack fails in a dozen ways, zlib.error and struct.error among them
            raise _Broken(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}") from error
        finally:
            if repository is not None:
                repository.close()

    def _snapshot(self, commit_id: str, signer: str | None) -> Snapshot:
        with self._repository() as repository:
            commit = read_commit(repository, commit_id)
            root = root_tree(repository, commit.tree)
            tree, path = self._home(root)
            known = {} if self._last is None else _by_id(self._kept.load(self._last.id))
            reader = TreeReader(root, known, WalkBudget(path or "the repository", self._monotonic))
            files = {file.path: file for file in reader.files(tree)}
            lock_files = dict(reader.lock_files_above(path))
            configs = {file.path: file for file in reader.configs_above(path)}
            remote_map, project = (reader.plain_file(name) for name in (REMOTE_MAP, PROJECT_FILE))
            revision = Revision(
                commit_id,
                subject=commit.subject,
                author=commit.author,
                committed_at=commit.committed_at,
                signer=signer,
            )
        return Snapshot(
            self._spec.location,
            revision,
            path,
            files,
            remote_map=remote_map,
            project_file=project,
            lock_files=lock_files,
            above=Above(path, configs),
            unread=frozenset(reader.unread),
        )

    def _home(self, root: Tree) -> tuple[Tree, str]:
        path, tree = self._spec.path, root
        read_object(tree)
        if path is None:
            path = DEFAULT_FOLDER if any(tree.name == DEFAULT_FOLDER for tree in root.trees) else ""
        for name in path.split("/") if path else []:
            found = next((child for child in tree.trees if child.name == name), None)
            if found is None:
                other = next((child for child in tree if base_name(child) == name), None)
                what = (
                    f"has no folder {path}" if other is None else f"has no folder {path}: {other.path} {describe_kind(other)}"
                )
                raise SourceMissing(f"{self._spec.location} {what}", hint="--path names the functions folder inside it")
            tree = found
            read_object(tree)
        return tree, path


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:MAX_LISTED_REFS]) + (", …" if len(names) > MAX_LISTED_REFS else "")


def _by_id(snapshot: Snapshot | None) -> dict[bytes, bytes]:
    """Return the contents of a snapshot by the ids that git has for them."""
    if snapshot is None:
        return {}
    files = chain(snapshot.files.values(), snapshot.lock_files.values(), snapshot.above.files.values())
    contents = (file.content for file in files)
    return {object_digest("blob", content): content for content in contents if content is not None}


class _Broken(Exception):
    """The mirror is damaged."""


@dataclass(frozen=True, slots=True)
class _Denied:
    """The remote refused these credentials so many times in a row; it is not asked again before ``until``, a monotonic time."""

    error: SourceDenied
    times: int
    until: float
    credentials: tuple[object, ...]


def _remove_leftovers(mirror: Path) -> None:
    """Remove what a killed git left: locks, which would stop the next one, and parts of packs, which nothing reads."""
    if mirror.is_dir():
        for pattern in ("*.lock", "refs/**/*.lock", "objects/pack/tmp_*", "objects/pack/*.keep", "objects/tmp_*"):
            for path in mirror.glob(pattern):
                path.unlink(missing_ok=True)


def _may_have(mirror: Path, object_id: str) -> bool:
    """Return False for an object that is not in the mirror for sure: then git need not be asked, which takes a process.

    What has these bytes among the ids of a pack is nearly always the object itself.
    """
    if (mirror / "objects" / object_id[:2] / object_id[2:]).exists():
        return True
    wanted = bytes.fromhex(object_id)
    try:
        for path in mirror.glob("objects/pack/*.idx"):
            with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as ids:
                if ids.find(wanted) >= 0:
                    return True
    except (OSError, ValueError):
        return True
    return False


def _at_head(mirror: Path, head: _Head) -> _Found | None:
    """Return the commit of a branch if the last fetch brought the one that the remote had named before, else None.

    git has then made sure that all of it is there. A mirror may keep its refs in other ways than as files.
    """
    if head.commit is None or head.tag is not None or not head.ref.startswith(("HEAD", "refs/heads/")):
        return None
    try:
        fetched = (mirror / _OURS).read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None
    return _Found(head.commit) if fetched == head.commit else None


def _wipe(folder: Path) -> None:
    """Empty a folder, but keep the folder itself: it may be a mount point."""
    for item in folder.iterdir() if folder.is_dir() else ():
        if item.is_dir() and not item.is_symlink():
            shutil.rmtree(item, ignore_errors=True)
        else:
            item.unlink(missing_ok=True)
