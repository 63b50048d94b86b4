"""Decides which files of a functions folder are read, and their limits; the same for folders and for git."""

from __future__ import annotations

import re
from collections.abc import Iterable

from kapso_sync.model.source import (
    CODE_LIMIT,
    CODE_SUFFIXES,
    CONFIG_LIMIT,
    FUNCTION_FILE,
    LOCK_FILE,
    LOCK_LIMIT,
    MANIFEST_LIMIT,
    MANIFEST_NAMES,
    NOT_FOLLOWED,
    TEXT_SUFFIXES,
)

MAX_UNREAD_NAMES = 2_000
"""Maximum number of names that a snapshot keeps of files that are not read."""


MAX_NAME_BYTES = 255
"""Longest name of a file on the usual file systems; in git's objects a name has no limit."""

_CONFIGURES = re.compile(r"package\.json|(?!\.)[\w.-]*(?:ts|js)config[\w.-]*\.json")


def configurations(names: Iterable[str]) -> list[str]:
    """Return those names of a folder above the functions folder that are read to configure builds, the most important first.

    ``tsconfig.json`` may extend others beside it, such as ``tsconfig.base.json``.
    """
    first = ("tsconfig.json", "jsconfig.json", "package.json")
    found = (name for name in names if len(name) <= MAX_NAME_BYTES and _CONFIGURES.fullmatch(name))
    return sorted(found, key=lambda name: (name not in first, name))


def is_read(name: str) -> bool:
    """Return whether a file of this name is read: code, a manifest, or text that code imports."""
    return not name.startswith(".") and name.endswith((*CODE_SUFFIXES, *TEXT_SUFFIXES))


def is_entered(name: str) -> bool:
    """Return whether a folder of this name is searched."""
    return not name.startswith(".") and name not in NOT_FOLLOWED


def too_large(path: str, size: int) -> str | None:
    """Return why a file of this size is not read, as the end of a sentence that starts with its name, or None."""
    name = path.rpartition("/")[2]
    manifest = name == FUNCTION_FILE or path in MANIFEST_NAMES
    limit, kind = (MANIFEST_LIMIT, "a manifest") if manifest else (CODE_LIMIT, "a code file")
    if name == LOCK_FILE:
        limit, kind = LOCK_LIMIT, "a lock file"
    if path.startswith("../"):
        limit, kind = CONFIG_LIMIT, "a configuration file above the functions folder"
    if size <= limit:
        return None
    return f"is {_human(size)}; the limit for {kind} is {_human(limit)}"


def _human(size: int) -> str:
    """Return the size rounded up, so that one byte above a limit does not read like the limit itself."""
    factor, unit = (1024, "KiB") if size < 1024 * 1024 else (1024 * 1024, "MiB")
    tenths = -(-size * 10 // factor)
    return f"{tenths / 10:g} {unit}"
