"""``kapso-sync version``: what a bug report needs, without importing any of it."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from importlib import metadata

import kapso_sync
from kapso_sync.errors import ExitCode

LIBRARIES = ("httpx", "gitpython", "structlog", "watchfiles", "apscheduler", "pydantic", "ruamel.yaml", "tree-sitter")


def show(*, json_output: bool) -> int:
    """Print our version, Python's, the libraries' and git's."""
    versions = {
        "kapso-sync": kapso_sync.__version__,
        "python": platform.python_version(),
        "platform": sys.platform,
        **{name: _installed(name) for name in LIBRARIES},
        "git": _git(),
    }
    if json_output:
        print(json.dumps(versions, indent=2))
    else:
        print(f"kapso-sync {versions.pop('kapso-sync')}")
        for name, value in versions.items():
            print(f"  {name:<12} {value}")
    return int(ExitCode.OK)


def _installed(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not found"


def _git() -> str:
    try:
        answer = subprocess.run(["git", "--version"], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return "not found"
    return answer.stdout.strip().removeprefix("git version ") or "not found"
