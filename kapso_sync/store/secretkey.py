"""Stores the key of the digests of secrets: created once, readable only by its owner."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from kapso_sync.files import read_small

NAME = "secret-key"
LENGTH = 32


def read_key(folder: Path) -> bytes | None:
    """Return the state folder's key, or None if there is no complete one."""
    try:
        key = read_small(folder / NAME, LENGTH)
    except OSError:
        return None
    return key if len(key) == LENGTH else None


def make_key(folder: Path, random: Callable[[int], bytes]) -> bytes:
    """Create a key and store it; raises OSError."""
    key = random(LENGTH)
    part = folder / f".{NAME}.part"
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(key)
        file.flush()
        os.fsync(file.fileno())
    part.replace(folder / NAME)
    return key
