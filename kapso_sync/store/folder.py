"""Decides whether a state folder is used: what lies in it is trusted, so nobody else may have written it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from kapso_sync.errors import StateExposed
from kapso_sync.permissions import make_private


def open_private(folder: Path) -> None:
    """Create a state folder, or take others' rights to read it away. Raises `StateExposed` if it is not ours, and OSError."""
    make_private(folder)
    require_private(folder)
    mode = stat.S_IMODE(folder.stat().st_mode)
    if mode & 0o077:
        folder.chmod(mode & ~0o077)


def require_private(folder: Path) -> None:
    """Raise `StateExposed` if a state folder exists and others own it, may write it, or put a link in its place."""
    try:
        reason = _why_exposed(folder)
    except OSError:
        return  # there is none, or it cannot be entered: who opens it says so
    if reason is not None:
        raise StateExposed(
            f"the state folder {folder} is not used, as others may have written it: {reason}",
            hint="move it away, since no function is lost with it; or set KAPSO_SYNC_STATE_DIR to a folder of this user's",
        )


def is_private(folder: Path) -> bool:
    """Return whether `require_private` accepts a folder."""
    try:
        require_private(folder)
    except StateExposed:
        return False
    return True


def who_may_write_root(root: Path) -> str | None:
    """Return who else may write the folder that holds the state folders, for a warning, or None.

    A mount point is left out: a volume of Kubernetes or Docker is often writable for all, and only its containers see it.
    """
    try:
        found = root.stat()
    except OSError:
        return None
    if os.path.ismount(os.path.realpath(root)):
        return None
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o022:
        return f"others may write it (mode {mode:04o})"
    return f"it belongs to uid {found.st_uid}" if found.st_uid not in (0, os.geteuid()) else None


def _why_exposed(folder: Path) -> str | None:
    ours, link, found = os.geteuid(), folder.lstat(), folder.stat()
    if link.st_uid != ours and stat.S_ISLNK(link.st_mode):
        return f"it is a link of uid {link.st_uid}, and this process is uid {ours}"
    if found.st_uid != ours:
        return f"it belongs to uid {found.st_uid}, and this process is uid {ours}"
    if not stat.S_ISDIR(found.st_mode):
        return "it is not a folder"
    mode = stat.S_IMODE(found.st_mode)
    return f"its mode is {mode:04o}" if mode & 0o022 and not _is_volume_group(folder, found) else None


def _is_volume_group(folder: Path, found: os.stat_result) -> bool:
    """Return whether only the group of a volume may write too: Kubernetes gives it that right at each mount (``fsGroup``)."""
    root = folder.parent
    is_group = not found.st_mode & 0o002 and bool(found.st_mode & stat.S_ISGID) and found.st_gid == root.stat().st_gid
    return is_group and os.path.ismount(os.path.realpath(root))
