"""A program is run to its end, or killed with every process that it started."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import kapso_sync
from kapso_sync.container_memory import memory_for_program
from kapso_sync.process import Limits, run_process
from kapso_sync.tools import own_copies
from tests.proc import naming

ESBUILD = next((path for path in own_copies(Path(kapso_sync.__file__).parent, Path(sys.prefix)) if path.is_file()), None)

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


@pytest.mark.parametrize("streams", ["", "</dev/null >/dev/null 2>&1"])
async def test_children_that_outlive_the_program_end_after_it(tmp_path: Path, streams: str) -> None:
    """Whether they hold the pipes open or not; exit status and output are those of the program."""
    ended = await run(f"sleep 600 {streams} & echo $! > child; echo done; exit 3", tmp_path)
    assert ended == (3, b"done\n", b"")
    assert is_gone(int((tmp_path / "child").read_text()))


async def test_a_timeout_kills_children_that_ignore_the_end_of_the_program(tmp_path: Path) -> None:
    """They keep the pipes open until then."""
    with pytest.raises(TimeoutError):
        await run("trap '' TERM; sleep 600 & echo $! > child", tmp_path, deadline=0.3)
    assert is_gone(int((tmp_path / "child").read_text()))


async def test_a_program_that_a_signal_ends_has_a_status_above_128(tmp_path: Path) -> None:
    """As in a shell; nothing of it is taken for success."""
    status, _, _ = await run("kill -KILL $$", tmp_path)
    assert status == 128 + 9


async def test_a_program_reads_nothing_from_standard_input(tmp_path: Path) -> None:
    """It is at its end, and the pipe to the guard is not handed on."""
    status, output, _ = await run("cat; ls /proc/self/fd 2>/dev/null | wc -l", tmp_path)
    assert status == 0
    assert int(output) <= 4  # the standard streams, and the folder that is listed


@pytest.mark.parametrize(("mode", "error"), [(0o600, PermissionError), (None, FileNotFoundError)])
async def test_a_program_that_cannot_be_executed_raises_the_operating_systems_error(
    tmp_path: Path, mode: int | None, error: type[OSError]
) -> None:
    """With its reason."""
    program = tmp_path / "program"
    if mode is not None:
        program.write_text("")
        program.chmod(mode)
    with pytest.raises(error) as caught:
        await run_process([str(program)], environment={}, cwd=tmp_path, deadline=1)
    assert caught.value.strerror


KILLED = """
import asyncio, pathlib, sys
from kapso_sync.process import Limits, run_process

async def main():
    folder, *command = sys.argv[1:]
    await run_process(command, environment={"PATH": "/usr/bin:/bin"}, cwd=pathlib.Path(folder), deadline=600)

asyncio.run(main())
"""


def kill_while_waiting(folder: Path, *command: str) -> None:
    """Have another process run a program, and kill that process once the program reads from ``pipe.js``, which never ends."""
    os.mkfifo(folder / "pipe.js")
    runner = subprocess.Popen([sys.executable, "-c", KILLED, str(folder), *command])
    try:
        with os.fdopen(open_for_reader(folder / "pipe.js")):
            assert len(naming(str(folder))) >= 3, "a control: runner, guard and program"
            runner.send_signal(signal.SIGKILL)
            runner.wait(20)
            until(lambda: not naming(str(folder)))
    finally:
        runner.kill()
        runner.wait(20)


def open_for_reader(pipe: Path) -> int:
    """Return a descriptor of the writing end as soon as there is a reader."""
    deadline = time.monotonic() + 20
    while True:
        try:
            return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's /proc")
def test_sigkill_of_this_process_ends_the_program_and_its_children(tmp_path: Path) -> None:
    """Nothing can be cleaned up then, and the program waits for a pipe; so does a child without any stream of ours."""
    os.mkfifo(tmp_path / "other")
    script = f"trap '' TERM INT HUP; cat {tmp_path}/other </dev/null >/dev/null 2>&1 & cat {tmp_path}/pipe.js"
    kill_while_waiting(tmp_path, "/bin/sh", "-c", script)


@pytest.mark.skipif(sys.platform != "linux" or ESBUILD is None, reason="needs Linux's /proc, and esbuild: npm ci")
def test_sigkill_of_this_process_ends_an_esbuild_that_reads_a_pipe(tmp_path: Path) -> None:
    """The real one."""
    kill_while_waiting(tmp_path, str(ESBUILD), "--bundle", f"{tmp_path}/pipe.js", f"--outfile={tmp_path}/out.js")


@pytest.mark.parametrize("turns", range(0, 30, 3))
async def test_a_cancelled_program_leaves_no_process(tmp_path: Path, turns: int) -> None:
    """Even while the program is being started."""
    task = asyncio.create_task(run(LINGERING, tmp_path))
    for _ in range(turns):
        await asyncio.sleep(0.0005)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 20)
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


async def test_a_program_that_takes_too_much_memory_ends(tmp_path: Path) -> None:
    """And one that takes less does not; the limit is one of each program alone."""
    taking = [sys.executable, "-c", "print(len(bytearray(200 * 1024**2)))"]
    limits = Limits(memory=100 * 1024**2)
    ended = await run_process(taking, environment={}, cwd=tmp_path, deadline=10, limits=limits)
    assert (ended.status, ended.output, b"MemoryError" in ended.errors) == (1, b"", True)
    ended = await run_process(taking, environment={}, cwd=tmp_path, deadline=10)
    assert (ended.status, ended.output) == (0, b"209715200\n")


async def test_of_endless_output_only_the_beginning_is_kept(tmp_path: Path) -> None:
    """The program runs to its end, as if somebody had read all of it."""
    script = "head -c 3000000 /dev/zero; head -c 3000000 /dev/zero >&2; exit 3"
    command = ["/bin/sh", "-c", script]
    ended = await run_process(command, environment=PATH, cwd=tmp_path, deadline=10, limits=Limits(output=100_000))
    assert (ended.status, ended.output, ended.errors) == (3, bytes(100_000), bytes(100_000))


@pytest.mark.skipif(not Path("/proc/self/oom_score_adj").exists(), reason="Linux has it")
async def test_where_memory_is_used_up_the_kernel_kills_programs_first(tmp_path: Path) -> None:
    """Their score is the highest there is, and ours stays as it was."""
    ours = Path("/proc/self/oom_score_adj").read_text(encoding="ascii")
    ended = await run_process(["cat", "/proc/self/oom_score_adj"], environment=PATH, cwd=tmp_path, deadline=10)
    assert ended.output == b"1000\n"
    assert Path("/proc/self/oom_score_adj").read_text(encoding="ascii") == ours


def container(folder: Path, files: dict[str, str], own: str) -> tuple[Path, Path]:
    """Write the files of control groups, and of a process's own."""
    for name, text in files.items():
        (folder / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "groups" / name).write_text(text, encoding="ascii")
    (folder / "own").write_text(own, encoding="ascii")
    return folder / "groups", folder / "own"


MIB = 1024 * 1024
FIRST = {"memory/memory.limit_in_bytes": f"{256 * MIB}\n", "memory/memory.usage_in_bytes": f"{156 * MIB}\n"}
SECOND = {"a/b/memory.max": f"{256 * MIB}\n", "a/b/memory.current": f"{96 * MIB}\n", "a/memory.max": "max\n"}


@pytest.mark.parametrize(
    ("files", "own", "wanted"),
    [
        ({}, "", 1024),
        (SECOND, "0::/a/b\n", 160 - 32),
        (SECOND | {"a/b/memory.stat": f"anon 5\ninactive_file {15 * MIB}\nactive_file {5 * MIB}\n"}, "0::/a/b\n", 180 - 32),
        (SECOND | {"a/memory.max": f"{100 * MIB}", "a/memory.current": f"{99 * MIB}"}, "0::/a/b\n", 48),
        (SECOND, "0::/elsewhere\n", 1024),
        ({"memory.max": f"{200 * MIB}", "memory.current": "0"}, "0::/as/the/host/names/it\n", 200 - 32),
        (FIRST, "9:cpu:/\n4:memory:/docker/c0ffee\n0::/\n", 100 - 32),
        (FIRST, "4:memory:/../..\n", 100 - 32),
        (FIRST, "4:memoryless:/\nnonsense\n", 1024),
        ({"memory.max": "max", "memory.current": "1"}, "0::/\n", 1024),
        ({"memory.max": "x", "memory.current": "1"}, "0::/\n", 1024),
    ],
)
def test_a_program_may_take_what_the_container_has_left(files: dict[str, str], own: str, wanted: int, tmp_path: Path) -> None:
    """By the narrowest of its control groups, of either version, the file cache left out; without a limit, all it wants."""
    groups, group = container(tmp_path, files, own)
    assert memory_for_program(1024 * MIB, groups=groups, own=group) == wanted * MIB
    half = wanted if wanted in (48, 1024) else max(48, wanted // 2)
    assert memory_for_program(1024 * MIB, share=0.5, groups=groups, own=group) == half * MIB
