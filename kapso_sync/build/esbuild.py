"""Find an esbuild executable of the pinned version when it is first needed."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

from kapso_sync.process import run_process
from kapso_sync.tools import VERSION, ToolMissing, ToolPlaces

VERSION_TIMEOUT = 10.0
"""Timeout of `esbuild --version`, in seconds."""


@dataclass(slots=True)
class Esbuild:
    """Finds the executable when it is first needed; the version of an unchanged file is asked only once."""

    places: ToolPlaces
    _versions: dict[tuple[str, int, int, int], str] = field(default_factory=dict)

    async def find(self) -> Path:
        """Return the path of an esbuild with the pinned version; raises `ToolMissing`."""
        others: list[str] = []
        for path in self.places.candidates():
            version = await self._version(path)
            if version == VERSION:
                return path
            others.append(f"{path} {f'is {version}' if version else 'does not run'}")
        found = "; ".join(others) or "there is none"
        raise ToolMissing(
            f"esbuild {VERSION} is needed, and {found}",
            f"`npm install --global --prefix {sys.prefix} esbuild@{VERSION}`, or KAPSO_SYNC_ESBUILD with the path of one",
        )

    async def _version(self, path: Path) -> str:
        try:
            key = _identity(path)
            if key not in self._versions:
                command = [str(path), "--version"]
                ended = await run_process(command, environment={}, cwd=Path("/"), deadline=VERSION_TIMEOUT)
                self._versions[key] = ended.output.decode("utf-8", "replace").strip()[:40] if ended.status == 0 else ""
            return self._versions[key]
        except (OSError, TimeoutError):
            return ""


def _identity(path: Path) -> tuple[str, int, int, int]:
    found = path.stat()
    return os.path.realpath(path), found.st_mtime_ns, found.st_size, found.st_ino
