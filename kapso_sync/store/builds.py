"""Keeps builds in the state folder: a file per build, named by its key, bounded in number and age."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from kapso_sync.errors import Location
from kapso_sync.model.builds import Built
from kapso_sync.model.desired import Notice

FOLDER = "builds"
MAX_BUILDS = 4000
"""Most builds that are kept; the ones that were not used for longest go first."""

MAX_AGE = timedelta(days=60)
"""How long an unused build is kept."""


class BuildFolder:
    """Reads builds below a state folder, and with ``writes`` keeps new ones. A file that cannot be read counts as not there."""

    def __init__(self, state: Path, now: datetime, *, writes: bool) -> None:
        self._folder = state / FOLDER
        self._writes = writes
        if writes:
            self._drop_old(now)

    def get(self, key: str) -> Built | None:
        """Return what was built for a key."""
        path = self._folder / f"{key}.json"
        try:
            built = _decoded(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if self._writes:
            with contextlib.suppress(OSError):
                os.utime(path)
        return built

    def put(self, key: str, built: Built) -> None:
        """Keep what was built for a key, where this folder may be written."""
        if not self._writes:
            return
        part = self._folder / f"{key}.{os.getpid()}.part"
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(_encoded(built), file, ensure_ascii=True)
            part.replace(self._folder / f"{key}.json")
        except OSError:
            with contextlib.suppress(OSError):
                part.unlink()

    def _drop_old(self, now: datetime) -> None:
        with contextlib.suppress(OSError):
            for part in self._folder.glob("*.part"):
                part.unlink()
            found = sorted(((path.stat().st_mtime, path) for path in self._folder.iterdir()), reverse=True)
            for number, (used, path) in enumerate(found):
                if number >= MAX_BUILDS or used < (now - MAX_AGE).timestamp():
                    path.unlink()


def _encoded(built: Built) -> dict[str, Any]:
    return {
        "sha256": hashlib.sha256(built.code.encode()).hexdigest(),
        "code": built.code,
        "inputs": [list(pair) for pair in built.inputs],
        "notices": [
            [notice.code, notice.message, *((where.file, where.line, where.column) if (where := notice.location) else ())]
            for notice in built.notices
        ],
    }


def _decoded(data: Any) -> Built:
    """Return a build; raises ValueError for one that is not whole."""
    code = str(data["code"])
    if hashlib.sha256(code.encode()).hexdigest() != data["sha256"]:
        raise ValueError("the file is damaged")
    notices = tuple(Notice(kind, text, Location(*where) if where else None) for kind, text, *where in data["notices"])
    return Built(code, tuple((str(path), str(digest)) for path, digest in data["inputs"]), notices)
