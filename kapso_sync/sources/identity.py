"""Decides who owns a source's functions, and which state folder is theirs; the project is what the API key opens.

What happens when one of them changes:

    change                                owner       state folder  then
    a remote is added to a folder         the remote  same          former owners' functions stay ours, (1)
    the remote is spelled otherwise       same        same (2)      nothing; without state, marks are recognised
    the remote is renamed                 new         same (2)      as for an added one; without state, a conflict (3)
    the default branch becomes another    new (4)     same          as for an added remote
    the folder is moved                   same (5)    new           marks are recognised
    a project's folder is named instead   same        same          nothing: it stands for its functions folder (6)
    another --path or --env               new         new           two sets of functions, a conflict names the other (3)
    the API key is rotated                same        same          nothing
    the key opens another project         same        same          refused (78) before any write
    the key opens an emptied project      same        same          refused (78) before any write, or --allow-recreate
    the state folder is lost              same        empty         marks are recognised
    another machine's state folder        same        its own       marks are recognised; both take turns

    (1) and get the new mark with their next write   (2) new for a URL   (3) with a hint: --env, --take-from, KAPSO_SYNC_OWNER
    (6) outside of a work tree; not once it was synced as a functions folder itself
    (4) where --branch is given: with #branch, unless it is the default   (5) new without a remote: then a conflict (3)
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from kapso_sync.urls import comparable_path, parse_remote

_SAFE = "/._-~+@"
_ORIGIN = re.compile(r'^\s*\[remote\s+"origin"\]\s*$')
_SECTION = re.compile(r"^\s*\[")
_URL = re.compile(r"^\s*url\s*=\s*(?P<url>\S.*?)\s*$")


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

    ``origin`` is the remote's URL; ``head`` is the checked-out revision, such as ``main@4f1c2ab``.
    """

    root: Path
    origin: str | None
    head: str | None


def find_work_tree(folder: Path) -> WorkTree | None:
    """Return the work tree of a folder, or None."""
    for parent in (folder, *folder.parents):
        dot_git = parent / ".git"
        if dot_git.is_dir():
            return WorkTree(parent, _origin(dot_git / "config"), _head(dot_git, dot_git))
        if dot_git.is_file():
            private = _private_dir(dot_git)
            common = _common_dir(private)
            return WorkTree(parent, _origin(common / "config"), _head(private, common))
    return None


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
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def _origin(config: Path) -> str | None:
    inside = False
    for line in _text(config).splitlines():
        if _SECTION.match(line):
            inside = bool(_ORIGIN.match(line))
        elif inside and (match := _URL.match(line)):
            return match["url"].strip('"')
    return None


def owner_of_folder(
    root: Path, tree: WorkTree | None, home: Callable[[], str], *, named: str | None, env: str | None
) -> tuple[str, bool]:
    """Return the owner of a folder's functions, and whether it stays the same when the folder moves.

    ``named`` is the owner in the settings. Without one, a work tree's remote is the owner, else the folder's own path.
    ``home`` returns the functions folder inside ``root``; it is only called for a work tree.
    """
    if named:
        owner, stable = named, True
    elif tree is not None and tree.origin is not None:
        inside = root.relative_to(tree.root).as_posix()
        path = "/".join(part for part in (inside if inside != "." else "", home()) if part)
        owner, stable = remote_identity(tree.origin, path), True
    else:
        owner, stable = folder_identity(root), False
    return with_environment(owner, env), stable


def owner_of_repository(location: str, home: str, *, named: str | None, branch: str | None, env: str | None) -> str:
    """Return the owner of a repository's functions; ``branch`` is given if it is not the default branch."""
    owner = named or remote_identity(location, home)
    if branch is not None and not named:
        owner += f"#{quote(branch, safe=_SAFE)}"
    return with_environment(owner, env)


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
