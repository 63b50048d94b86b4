"""Decides who owns a source's functions, and which state folder is theirs; the project is what the API key opens.

What happens when one of them changes:

    change                                owner       state folder  then
    a remote is added to a folder         the remote  same          former owners' functions stay ours, (1)
    the remote is spelled otherwise       same        same (2)      nothing; without state, marks are recognised
    the remote is renamed                 new         same (2)      as for an added one; without state, a conflict (3)
    the default branch becomes another    same (4)    same          nothing
    the folder is moved                   same (5)    new           marks are recognised
    a project's folder is named instead   same        same          nothing: it stands for its functions folder (6)
    another --path or --env               new         new           two sets of functions, a conflict names the other (3)
    the API key is rotated                same        same          nothing
    the key opens another project         same        same          refused (78) before any write
    the key opens an emptied project      same        same          refused (78) before any write, or --allow-recreate
    the state folder is lost              same        empty         marks are recognised
    another machine's state folder        same        its own       marks are recognised; both take turns

    (1) and get the new mark with their next write   (2) new for a URL   (3) with a hint: --env, --take-from, KAPSO_SYNC_OWNER
    (4) --branch adds #branch, unless it is the default branch when the state folder is made; without state that is asked again:
    what the branch wrote is recognised then, and what the default branch wrote is a conflict (3), since it may be another's
    (5) new without a remote: then a conflict (3)
    (6) outside of a work tree; not once it was synced as a functions folder itself
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from kapso_sync.dataclass import dataclass
from kapso_sync.errors import ConfigError
from kapso_sync.files import read_small
from kapso_sync.model.ownership import comparable_owner
from kapso_sync.process import run_process
from kapso_sync.urls import comparable_path, parse_remote

MAX_GIT_FILE_BYTES = 4 * 1024 * 1024
"""Maximum size of one of git's own files, such as the list of packed refs, in bytes; a larger one counts as empty."""

_SAFE = "/._-~+@"
CONFIG_TIMEOUT = 10.0
"""Seconds for git to read a configuration file, with the files that it includes."""


def remote_identity(location: str, path: str) -> str:
    """Return ``host/org/repo//path``: scheme, user, port, ``.git`` and the host's case make no difference.

    Neither does the case of the repository's path, on hosts that are known to ignore it. A repository on this machine is named
    by its path. White space and brackets are percent-encoded.
    """
    remote = parse_remote(location)
    whole = f"{remote.host}/{comparable_path(remote.host, remote.path)}" if remote.host else f"file/{remote.path}"
    return quote(f"{whole}//{path}" if path else whole, safe=_SAFE, errors="surrogateescape")


def folder_identity(folder: Path) -> str:
    """Return a folder's name and a hash of its path, for a folder without a remote."""
    digest = hashlib.sha256(str(folder).encode("utf-8", "surrogateescape")).hexdigest()
    return f"folder/{quote(folder.name or 'root', safe=_SAFE, errors='surrogateescape')}-{digest[:12]}"


@dataclass(frozen=True, slots=True)
class WorkTree:
    """A git work tree, read as text: git itself is never run in one, since its configuration may name programs.

    ``config`` is the repository's configuration file; ``head`` is the checked-out revision, such as ``main@4f1c2ab``;
    ``default_branch`` is that of the remote it was cloned from, or None.
    """

    root: Path
    config: Path
    head: str | None
    default_branch: str | None = None


def find_work_tree(folder: Path) -> WorkTree | None:
    """Return the work tree of a folder, or None."""
    for parent in (folder, *folder.parents):
        dot_git = parent / ".git"
        if dot_git.is_dir():
            return _work_tree(parent, dot_git, dot_git)
        if dot_git.is_file():
            private = _private_dir(dot_git)
            return _work_tree(parent, private, _common_dir(private))
    return None


def _work_tree(root: Path, private: Path, common: Path) -> WorkTree:
    prefix = "ref: refs/remotes/origin/"
    default = _text(common / "refs/remotes/origin/HEAD").strip()
    return WorkTree(
        root,
        common / "config",
        _head(private, common),
        default.removeprefix(prefix) if default.startswith(prefix) else None,
    )


def _private_dir(dot_git: Path) -> Path:
    return Path(dot_git.parent, _text(dot_git).removeprefix("gitdir:").strip())


def _common_dir(private: Path) -> Path:
    """Return the repository of a linked work tree."""
    return Path(private, _text(private / "commondir").strip())


def _head(private: Path, common: Path) -> str | None:
    head = _text(private / "HEAD").strip()
    if not head.startswith("ref:"):
        return head[:12] or None
    name = head.removeprefix("ref:").strip()
    commit = _text(common / name).strip() or _packed(common, name)
    branch = name.removeprefix("refs/heads/")
    return f"{branch}@{commit[:12]}" if commit else branch


def _packed(common: Path, name: str) -> str:
    lines = (line.split(" ") for line in _text(common / "packed-refs").splitlines())
    return next((parts[0] for parts in lines if len(parts) == 2 and parts[1] == name), "")


def _text(path: Path) -> str:
    try:
        return read_small(path, MAX_GIT_FILE_BYTES).decode("utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


async def find_origin(tree: WorkTree) -> str | None:
    """Return the URL of a work tree's remote ``origin``, or else of its only remote; None: it has none, or several.

    git reads the file, since only git knows its syntax. It is handed the file as data, in an environment of its own, and
    starts no program for that. Included files are read wherever they lie, as git does: only this value of them is used.

    An abbreviation, such as ``gh:acme/flows``, is spelled out by ``url.*.insteadOf``, that of the user's configuration as well.
    A whole address stays as it is: where one machine fetches it from is no name for it. Raises `ConfigError` if git is not
    installed.
    """
    if not tree.config.is_file():
        return None
    own = ("--file", str(tree.config), "--includes", "--null", "--get-regexp", r"^remote\..*\.url$")
    isolated = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull}
    remotes: dict[str, str] = {}
    for key, _, url in (entry.partition("\n") for entry in await _configured(tree, own, isolated)):
        if url:
            remotes.setdefault(key.removeprefix("remote.").removesuffix(".url"), url)  # git fetches from the first of several
    origin = remotes.get("origin") or (next(iter(remotes.values())) if len(remotes) == 1 else None)
    if origin is None or "://" in origin or "@" in origin:
        return origin
    inherited = {name: os.environ[name] for name in ("XDG_CONFIG_HOME", *isolated) if name in os.environ}
    anywhere = ("--includes", "--null", "--get-regexp", r"^url\..*\.insteadof$")
    found = [entry.partition("\n") for entry in await _configured(tree, anywhere, inherited)]
    prefixes = {prefix: key.removeprefix("url.").removesuffix(".insteadof") for key, _, prefix in found if prefix}
    longest = max((prefix for prefix in prefixes if origin.startswith(prefix)), key=len, default="")
    return prefixes.get(longest, "") + origin.removeprefix(longest)


async def _configured(tree: WorkTree, arguments: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """Return what ``git config`` prints about a work tree's repository, by which conditional includes are judged."""
    whole = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": os.environ.get("HOME", "/"),
        "LC_ALL": "C",
        "GIT_DIR": str(tree.config.parent),
        **environment,
    }
    try:
        ended = await run_process(["git", "config", *arguments], environment=whole, cwd=Path("/"), deadline=CONFIG_TIMEOUT)
    except FileNotFoundError as error:
        raise ConfigError(
            "git is not installed, or not on PATH, and the owner is named after the remote in .git/config",
            hint="install git, or set KAPSO_SYNC_OWNER",
        ) from error
    except TimeoutError:
        raise ConfigError(
            f"{tree.config} cannot be read within {CONFIG_TIMEOUT:g} s", hint="which files does it include?"
        ) from None
    return ended.output.decode("utf-8", "replace").split("\0")[:-1] if ended.status == 0 else []


def owner_of_folder(
    root: Path, tree: WorkTree | None, origin: str | None, home: Callable[[], str], *, named: str | None, env: str | None
) -> tuple[str, bool]:
    """Return the owner of a folder's functions, and whether it stays the same when the folder moves.

    ``named`` is the owner in the settings. Without one, a work tree's remote ``origin`` is the owner, else the folder's own
    path. ``home`` returns the functions folder inside ``root``; it is only called for a work tree. Raises `ConfigError` for an
    origin that is no address.
    """
    if named:
        owner, stable = named, True
    elif tree is not None and origin is not None:
        inside = root.relative_to(tree.root).as_posix()
        path = "/".join(part for part in (inside if inside != "." else "", home()) if part)
        owner, stable = origin_identity(tree, origin, path), True
    else:
        owner, stable = folder_identity(root), False
    return with_environment(owner, env), stable


def origin_identity(tree: WorkTree, origin: str, path: str) -> str:
    """Return `remote_identity` of a work tree's origin; a relative one is a path from the work tree. Raises `ConfigError`."""
    try:
        remote = parse_remote(origin)
    except ValueError as error:
        raise ConfigError(
            f"the remote origin in {tree.config} is not an address: {error}", hint="correct it, or set KAPSO_SYNC_OWNER"
        ) from error
    local = remote.scheme == "file" and "://" not in origin
    return remote_identity(os.path.normpath(tree.root / origin) if local else origin, path)


@dataclass(frozen=True, slots=True)
class RepositoryOwners:
    """The owners that a repository's functions may have: ``plain``, or, on a branch that is not the default, ``of_branch``.

    Others may change the default branch at any time, and the owner must stay. So the one that was used first is kept.
    """

    plain: str
    of_branch: str

    def known(self, former: Sequence[str]) -> str | None:
        """Return the first of ``former`` that is one of these, in this spelling; None: none is."""
        comparable = {comparable_owner(owner): owner for owner in (self.plain, self.of_branch)}
        return next((comparable[spelling] for spelling in map(comparable_owner, former) if spelling in comparable), None)


def owners_of_repository(identity: str, *, branch: str | None, env: str | None) -> RepositoryOwners:
    """Return the owners of a repository's functions; ``identity`` names repository and path, ``branch`` is in the settings."""
    on_branch = identity if branch is None else f"{identity}#{quote(branch, safe=_SAFE)}"
    return RepositoryOwners(with_environment(identity, env), with_environment(on_branch, env))


def with_environment(owner: str, env: str | None) -> str:
    """Return the owner of one environment's functions."""
    return f"{owner}@{env}" if env else owner


def state_folder_name(parts: Mapping[str, str | None]) -> str:
    """Return the folder's name: a readable beginning from ``parts["source"]``, and a hash of all parts."""
    digest = hashlib.sha256(
        "\0".join(f"{name}={parts[name] or ''}" for name in sorted(parts)).encode("utf-8", "surrogateescape")
    ).hexdigest()
    readable = re.sub(r"[^A-Za-z0-9.-]+", "-", (parts["source"] or "").rpartition("/")[2]).strip("-.")[:40]
    return f"{readable or 'source'}-{digest[:16]}"
