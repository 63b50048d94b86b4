"""A program is run to its end, or killed with every process that it started."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kapso_sync.process import run_process

PATH = {"PATH": os.environ["PATH"]}
LINGERING = "sleep 600 & echo $! > child; wait"


def is_gone(pid: int) -> bool:
    """Return whether a process has ended, or ends within seconds: a killed one may still have to be scheduled once."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    with os.fdopen(handle):
        return bool(select.select([handle], [], [], 5.0)[0])


async def run(script: str, folder: Path, deadline: float = 10.0) -> tuple[int, bytes, bytes]:
    ended = await run_process(["/bin/sh", "-c", script], environment={"ONLY": "this"}, cwd=folder, deadline=deadline)
    return ended.status, ended.output, ended.errors


async def test_a_program_returns_exit_status_and_output(tmp_path: Path) -> None:
    """Both streams, in the given folder and with the given environment, and no other variable."""
    script = "echo $ONLY $HOME; pwd; echo wrong >&2; exit 3"
    assert await run(script, tmp_path) == (3, f"this\n{tmp_path}\n".encode(), b"wrong\n")


async def test_a_program_reads_what_it_is_given_or_nothing(tmp_path: Path) -> None:
    """More than a pipe holds; a program that reads none of it ends all the same; without input there is an end at once."""
    for script, stdin, status, output in (
        ("exec wc -c", b"x" * 300_000, 0, b"300000\n"),
        ("exit 3", b"x" * 300_000, 3, b""),
        ("exec wc -c", None, 0, b"0\n"),
    ):
        ended = await run_process(["/bin/sh", "-c", script], environment=PATH, cwd=tmp_path, deadline=10, stdin=stdin)
        assert (ended.status, ended.output) == (status, output)


async def test_a_missing_program_raises_the_operating_systems_error(tmp_path: Path) -> None:
    """The caller knows best what to report."""
    with pytest.raises(FileNotFoundError):
        await run_process(["/nowhere/program"], environment={}, cwd=tmp_path, deadline=1)


async def test_a_timeout_kills_the_whole_process_group(tmp_path: Path) -> None:
    """Child processes that hold the pipes included."""
    with pytest.raises(TimeoutError):
        await run(LINGERING, tmp_path, deadline=0.3)
    assert is_gone(int((tmp_path / "child").read_text()))


async def test_a_timeout_kills_children_that_outlive_the_program(tmp_path: Path) -> None:
    """They keep the pipes open until then."""
    with pytest.raises(TimeoutError):
        await run("sleep 600 & echo $! > child", tmp_path, deadline=0.3)
    assert is_gone(int((tmp_path / "child").read_text()))


@pytest.mark.parametrize("turns", range(0, 30, 3))
async def test_a_cancelled_program_leaves_no_process(tmp_path: Path, turns: int) -> None:
    """Even while the program is being started."""
    task = asyncio.create_task(run(LINGERING, tmp_path))
    for _ in range(turns):
        await asyncio.sleep(0.0005)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 5)
    child = tmp_path / "child"
    assert not child.exists() or not child.read_text().strip() or is_gone(int(child.read_text()))


def test_a_signal_ends_a_command_in_time_although_a_thread_is_stuck() -> None:
    """Python itself would wait for the thread; what ends by itself has its own exit code, and is not waited for."""
    script = (
        "import asyncio, sys, time\n"
        "from kapso_sync.cli.runner import run_to_end\n"
        "async def work():\n"
        "    print('working', flush=True)\n"
        "    await asyncio.to_thread(time.sleep, float(sys.argv[1]))\n"
        "    return 7\n"
        "sys.exit(run_to_end(work, 0.2))\n"
    )
    assert subprocess.run([sys.executable, "-c", script, "0"], check=False, stdout=subprocess.DEVNULL).returncode == 7
    with subprocess.Popen([sys.executable, "-c", script, "600"], stdout=subprocess.PIPE) as stuck:
        assert stuck.stdout is not None
        assert stuck.stdout.readline() == b"working\n"
        stuck.send_signal(signal.SIGTERM)
        assert stuck.wait(20) == 128 + signal.SIGTERM
