"""Decides who owns the functions of a source: the name that stands in every function's ownership mark."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from kapso_sync.sources.identity import WorkTree, folder_identity, remote_identity


def owner_of_folder(
    root: Path, tree: WorkTree | None, home: Callable[[], str], *, named: str | None, env: str | None
) -> tuple[str, bool]:
    """Return who owns what a folder holds, and whether that stays when the folder moves.

    ``named`` is the owner that the settings name. Without one, a work tree's remote is the owner, else the folder's own path.
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
    """Return who owns what a repository holds; ``branch`` is given where it is not the default branch."""
    owner = named or remote_identity(location, home)
    if branch is not None and not named:
        owner += f"#{branch}"
    return with_environment(owner, env)


def with_environment(owner: str, env: str | None) -> str:
    """Return the owner of one environment's functions."""
    return f"{owner}@{env}" if env else owner
