"""``kapso-sync version``: prints what a bug report needs, without importing it."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import kapso_sync
from kapso_sync.cli.plain import print_document, print_line
from kapso_sync.errors import ExitCode
from kapso_sync.tools import VERSION, ToolMissing, ToolPlaces, own_copies

LIBRARIES = ("httpx", "gitpython", "structlog", "watchfiles", "apscheduler", "msgspec", "pyyaml", "tree-sitter")


def show(*, json_output: bool) -> int:
    """Print our version, Python's, the libraries' and git's."""
    versions = {
        "kapso-sync": kapso_sync.__version__,
        "python": platform.python_version(),
        "platform": sys.platform,
        **{name: _installed(name) for name in LIBRARIES},
        "git": _git(),
        "esbuild": _esbuild(),
    }
    if json_output:
        print_document(versions)
    else:
        print_line(f"kapso-sync {versions.pop('kapso-sync')}")
        for name, value in versions.items():
            print_line(f"  {name:<12} {value}")
    return int(ExitCode.OK)


def _installed(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not found"


def _git() -> str:
    return _asked("git").removeprefix("git version ") or "not found"


def _esbuild() -> str:
    """Return the version and the path of the first esbuild found; one in the current folder is not run."""
    named = os.environ.get("KAPSO_SYNC_ESBUILD")
    own = own_copies(Path(kapso_sync.__file__).parent, Path(sys.prefix))
    path = os.environ.get("PATH", os.defpath).split(os.pathsep)
    try:
        found = next(ToolPlaces(Path(named) if named else None, own, path, [Path.cwd()]).candidates(), None)
    except ToolMissing as error:
        return error.message
    if found is None:
        return f"not found; {VERSION} is needed for what must be built"
    version = _asked(str(found)) or "does not run"
    return f"{version} ({found})" if version == VERSION else f"{version} ({found}); {VERSION} is needed"


def _asked(program: str) -> str:
    try:
        answer = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip()
