"""Says whose a file is that this process may not read, and what to do, for error messages."""

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
