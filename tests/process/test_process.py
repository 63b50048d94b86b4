"""Programs are run to their end, or ended with everything they started."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from kapso_sync.process import run_process

LINGERING = "sleep 600 & echo $! > child; wait"


def is_gone(pid: int) -> bool:
    """Tell whether a process ended; where nobody reaps it, its entry stays."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


async def run(script: str, folder: Path, deadline: float = 10.0) -> tuple[int, bytes, bytes]:
    ended = await run_process(["/bin/sh", "-c", script], environment={"ONLY": "this"}, cwd=folder, deadline=deadline)
    return ended.status, ended.output, ended.errors


async def test_run_process_returns_status_and_output(tmp_path: Path) -> None:
    """Status, both streams, in the folder and the environment that were given, and no other."""
    script = "echo $ONLY $HOME; pwd; echo wrong >&2; exit 3"
    assert await run(script, tmp_path) == (3, f"this\n{tmp_path}\n".encode(), b"wrong\n")


async def test_a_program_that_is_not_there_is_an_error_of_the_system(tmp_path: Path) -> None:
    """Whoever asked knows best what to say of it."""
    with pytest.raises(FileNotFoundError):
        await run_process(["/nowhere/program"], environment={}, cwd=tmp_path, deadline=1)


async def test_at_the_deadline_the_whole_group_ends(tmp_path: Path) -> None:
    """Helpers that hold the pipes included."""
    with pytest.raises(TimeoutError):
        await run(LINGERING, tmp_path, deadline=0.3)
    assert is_gone(int((tmp_path / "child").read_text()))


async def test_helpers_that_outlive_the_program_end_with_it(tmp_path: Path) -> None:
    """At the deadline, since the pipes stay open until then."""
    with pytest.raises(TimeoutError):
        await run("sleep 600 & echo $! > child", tmp_path, deadline=0.3)
    assert is_gone(int((tmp_path / "child").read_text()))


@pytest.mark.parametrize("turns", range(0, 30, 3))
async def test_a_cancelled_process_leaves_nothing_behind(tmp_path: Path, turns: int) -> None:
    """Even while the program is being started."""
    task = asyncio.create_task(run(LINGERING, tmp_path))
    for _ in range(turns):
        await asyncio.sleep(0.0005)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 5)
    child = tmp_path / "child"
    assert not child.exists() or not child.read_text().strip() or is_gone(int(child.read_text()))
