"""What the watcher takes of the kernel: a watch for each folder that is read; and what it does where the kernel has no more."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kapso_sync.clock import SystemClock
from kapso_sync.daemon.watcher import FileWatcher

pytestmark = pytest.mark.e2e
PATIENCE = 20.0
"""Seconds an awaited change may take: generous, for a machine that is busy."""

_SCRIPT = """
import asyncio, json, sys
from pathlib import Path
from kapso_sync.clock import SystemClock
from kapso_sync.daemon.watcher import FileWatcher

async def main():
    noticed, troubles = asyncio.Event(), []
    root = Path(sys.argv[1])
    watcher = FileWatcher(root, noticed.set, debounce=0.05, clock=SystemClock(), on_trouble=troubles.append)
    task = asyncio.create_task(watcher.run())
    async with asyncio.timeout(20):
        if sys.argv[2] == "limited":
            await noticed.wait()
        for number in range(2):
            await asyncio.sleep(1.2)
            noticed.clear()
            (root / "folder-7" / "words.js").write_text(str(number))
            await noticed.wait()
    task.cancel()
    print(json.dumps(troubles))

asyncio.run(main())
"""


def watch_with(limit: str, value: int, root: Path, how: str = "limited") -> list[str]:
    """Watch in a user namespace with a limit of its own; both changes must be noticed. Returns what was reported."""
    namespace = ["unshare", "--user", "--map-root-user"]
    shell = f'echo {value} > /proc/sys/user/{limit} && exec "$@"'
    if (
        shutil.which("unshare") is None
        or subprocess.run([*namespace, "sh", "-c", shell, "sh", "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("no user namespace with a limit of its own can be made here")
    ran = subprocess.run(
        [*namespace, "sh", "-c", shell, "sh", sys.executable, "-c", _SCRIPT, str(root), how],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
    troubles: list[str] = json.loads(ran.stdout)
    return troubles


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Thirty folders that are read."""
    for number in range(30):
        (tmp_path / "flows" / f"folder-{number}").mkdir(parents=True)
    return tmp_path / "flows"


@pytest.mark.parametrize(
    ("limit", "value", "reason"),
    [
        ("max_inotify_watches", 5, "OS file watch limit reached"),
        ("max_inotify_instances", 0, "Error creating recommended watcher: Too many open files (os error 24)"),
    ],
)
def test_where_the_kernels_limit_is_reached_files_are_polled(limit: str, value: int, reason: str, folder: Path) -> None:
    """The real limit, and the real library: changes are noticed, and the reason is said once."""
    assert watch_with(limit, value, folder) == [f"watching files failed: {reason}; files are polled every second from now on"]


def test_a_limit_that_is_enough_is_no_trouble(folder: Path) -> None:
    """The positive control: 31 watches are enough for 31 folders, however many there are in node_modules."""
    for name in ("node_modules", ".git", ".venv", "folder-1/node_modules"):
        for number in range(40):
            (folder / name / f"package-{number}").mkdir(parents=True)
    assert watch_with("max_inotify_watches", 31, folder, "enough") == []


def watches() -> int:
    """The inotify watches of this process."""
    found = 0
    for handle in Path("/proc/self/fdinfo").iterdir():
        try:
            found += handle.read_text().count("inotify wd:")
        except OSError:
            continue
    return found


async def test_only_the_folders_that_are_read_are_watched(tmp_path: Path) -> None:
    """A repository with packages and a history: of it all the root, and the functions folder with what is below it."""
    root = tmp_path / "repository"
    for name in (
        "node_modules/a/b",
        ".git/objects/00",
        ".venv/lib",
        "web/src",
        "functions/greet/lib",
        "functions/node_modules/c",
    ):
        (root / name).mkdir(parents=True)
    (root / "functions/..2026/shared").mkdir(parents=True)
    (root / "functions/shared").symlink_to("..2026/shared")
    noticed = asyncio.Event()
    before = watches()
    watcher = FileWatcher(
        root, noticed.set, debounce=0.05, clock=SystemClock(), on_trouble=pytest.fail, inside=lambda: "functions"
    )
    task = asyncio.create_task(watcher.run())
    try:
        async with asyncio.timeout(PATIENCE):
            while watches() == before:  # noqa: ASYNC110 - the kernel tells nobody
                await asyncio.sleep(0.05)
            await asyncio.sleep(0.2)
            # the root, functions, greet, greet/lib, and the real folder behind the link
            assert watches() - before == 5
            for path in ("functions/greet/lib/a.js", "functions/..2026/shared/b.js", "functions/greet/new/c.js"):
                noticed.clear()
                (root / path).parent.mkdir(exist_ok=True)
                (root / path).write_text("x")
                await noticed.wait()
            while watches() - before < 6:  # noqa: ASYNC110 - the new folder is watched as well
                await asyncio.sleep(0.05)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
