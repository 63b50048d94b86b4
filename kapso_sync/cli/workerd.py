"""Finds workerd, the runtime that the emulator runs functions on: optional, and never taken from a functions repository."""

from __future__ import annotations

import asyncio
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import kapso_sync
from kapso_sync.dataclass import dataclass
from kapso_sync.errors import ConfigError
from kapso_sync.model.ports import LocalStart

PACKAGE = "workerd@1.20261117.1"
"""The version that our tests run on; `package.json` pins it."""
HOW_TO_GET_IT = f"npm install --global {PACKAGE}"


@dataclass(frozen=True, slots=True)
class Workerd:
    """A binary that starts, and its version: a date."""

    path: Path
    version: str


def find_workerd(wanted: str = "auto") -> Workerd | None:
    """Return the workerd at a path; the first that starts for ``auto``; None for ``off``, or if there is none.

    ``auto`` searches our own checkout, the npm packages of the Python installation that runs us, then PATH. Raises ConfigError
    for a path that is not a workerd.
    """
    if wanted == "off":
        return None
    if wanted == "auto":
        return next((found for found in map(_look, _places()) if found), None)
    found = _look(Path(wanted).expanduser().absolute())
    if found is None:
        raise ConfigError(f"{wanted} is not a workerd that starts here", hint=f"get one with: {HOW_TO_GET_IT}")
    return found


async def start_locally(slug: str, code: str) -> LocalStart | None:
    """Start a function's code once, without network; return the runtime's error, or None where there is no workerd."""
    from kapso_sync.emulator.clock import SystemClock
    from kapso_sync.emulator.workerd.runtime import workerd_runtime

    found = await asyncio.to_thread(find_workerd)
    if found is None:
        return None
    async with workerd_runtime(found.path, clock=SystemClock()) as runtime:
        return LocalStart(await runtime.check(slug, code))


def _places() -> Iterator[Path]:
    package = f"node_modules/@cloudflare/workerd-{_platform()}/bin/workerd"
    for root in (Path(kapso_sync.__file__).parents[1], Path(sys.prefix) / "lib"):
        yield root / package
        yield root / "node_modules/workerd" / package
    on_path = shutil.which("workerd")
    if on_path is not None:
        yield Path(on_path)


def _platform() -> str:
    arm = platform.machine() in ("aarch64", "arm64")
    return f"{'darwin' if sys.platform == 'darwin' else 'linux'}-{'arm64' if arm else '64'}"


def _look(path: Path) -> Workerd | None:
    try:
        answer = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return None
    name, _, version = answer.stdout.strip().partition(" ")
    return Workerd(path, version) if answer.returncode == 0 and name == "workerd" and version else None
