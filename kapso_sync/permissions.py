"""Whose files are: says it of one that this process may not read, and makes folders that nobody else may."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def describe_owner(path: Path) -> str:
    """Return the end of a sentence that begins with a path which cannot be read."""
    ours = os.geteuid()
    try:
        found = path.stat()
    except OSError:
        return f"uid {ours} may not enter a folder above it"
    return f"it belongs to uid {found.st_uid} with mode {stat.S_IMODE(found.st_mode):04o}, and this process is uid {ours}"


def hint_for_owner(path: Path) -> str:
    """Return what makes a file readable; a bind mount and a Compose secret keep owner and mode of the file on the host."""
    return f"where it comes from: `chown {os.geteuid()} {path.name}`, since a mount keeps owner and mode; or run as its owner"


def make_private(folder: Path) -> None:
    """Create a folder, and what is missing above it, for this user alone, whatever the umask. Raises OSError."""
    for missing in reversed([path for path in folder.parents if not path.exists()]):
        missing.mkdir(mode=0o700, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)


def is_ours(path: Path) -> bool:
    """Return whether a file belongs to this user, and nobody else may write it; a link does not count."""
    try:
        found = path.lstat()
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022
