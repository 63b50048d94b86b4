"""Runs programs with a deadline, a clean environment, and no process that outlives this one; ends our own process in time.

A guard, which is a shell, starts the program and reads from a pipe whose other end only we hold. The kernel closes that end
when we end, also by SIGKILL, and then the guard kills the whole group: the program, and the helpers that it started, such as
git's remote helper or ssh. ``PR_SET_PDEATHSIG`` would reach the program alone, not its helpers, and there is none on macOS.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from pathlib import Path

from kapso_sync.dataclass import dataclass

STOP_LIMIT = 9.0
"""Seconds after a signal in which the process ends, whatever a thread does: Kubernetes and systemd send SIGKILL soon after."""

KILLED = 128 + signal.SIGKILL
"""The exit status of a program that was killed, as the kernel does where memory is used up."""

_CHUNK = 64 * 1024

_GUARD = """
exec 3<&0 4<"$1" </dev/null
{ echo 1000 >/proc/self/oom_score_adj; } 2>/dev/null
[ -z "$2" ] || ulimit -d "$2" 2>/dev/null
shift 2
"$@" <&4 3<&- 4<&- &
child=$!
exec 4<&-
{ read -r _; kill -KILL 0; } <&3 2>/dev/null &
exec 3<&-
wait "$child"
status=$?
trap '' TERM
kill -TERM 0
wait
exit "$status"
"""
"""Runs its arguments after the first two, and kills its process group when its own standard input ends. Those two are the file
to read as standard input, and the most KiB of memory that a process may write to. When the program has ended, what that left
behind ends too. Where memory is used up, the kernel looks at `oom_score_adj`, and kills one of these before it kills us. The
guard waits for what it started, so that no zombie is left to process 1 of a container. Every process of the group
holds the standard output, so the end of that output says that all have ended."""


def end_in_time(status: int, limit: float = STOP_LIMIT) -> None:
    """End this process with ``status`` in ``limit`` seconds, if it still runs: Python would wait for a stuck thread."""
    timer = threading.Timer(limit, os._exit, (status,))
    timer.daemon = True
    timer.start()


@dataclass(frozen=True, slots=True)
class Ended:
    """The result of a program: its exit status (128 and more for a signal), its standard output and its standard error."""

    status: int
    output: bytes = field(repr=False)
    errors: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a program: the memory that each of its processes can write to, and what is kept of each output, in bytes.

    The system enforces the former, None being no limit: Linux does, macOS does not.
    """

    memory: int | None = None
    output: int = 64 * 1024 * 1024


async def run_process(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    cwd: Path,
    deadline: float,
    stdin: bytes | None = None,
    limits: Limits = Limits(),
) -> Ended:
    """Run a program to its end, with only this environment and input, and return its exit status and output.

    ``stdin`` is what the program reads; None: nothing. A program may end before it has read all of it.

    Raises `TimeoutError` after ``deadline`` seconds, and `OSError` if the program cannot be started. In every case the whole
    process group has ended when this function returns, and it ends with this process, however that ends.
    """
    program = _find(command[0], environment)
    with contextlib.ExitStack() as stack:
        alive, ours = os.pipe()
        stack.callback(os.close, ours)
        given = stack.enter_context(_file_with(stdin)) if stdin is not None else None
        starting = asyncio.ensure_future(_start([program, *command[1:]], alive, given, environment, cwd, limits.memory))
        try:
            # Without the shield, asyncio would on cancellation kill only the guard, and wait for helpers that hold its pipes.
            process = await asyncio.shield(starting)
        except asyncio.CancelledError:
            await _end(await starting)
            raise
        try:
            async with asyncio.timeout(deadline):
                output, errors, _ = await asyncio.gather(
                    _read(process.stdout, limits.output), _read(process.stderr, limits.output), process.wait()
                )
        finally:
            await _end(process)
    return Ended(process.returncode or 0, output, errors)


async def _read(stream: asyncio.StreamReader | None, limit: int) -> bytes:
    """Read a stream to its end, and return the first ``limit`` bytes of it."""
    kept = bytearray()
    while stream is not None and (chunk := await stream.read(_CHUNK)):
        kept += chunk[: limit - len(kept)]
    return bytes(kept)


@contextlib.contextmanager
def _file_with(content: bytes) -> Iterator[int]:
    """Yield the descriptor of a file that has no name, with this content."""
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.seek(0)
        yield file.fileno()


def _find(program: str, environment: Mapping[str, str]) -> str:
    """Return the path of a program; raises OSError if there is none, which the shell would only say in words."""
    found = shutil.which(program, path=environment.get("PATH", os.defpath))
    if found is None:
        number = errno.EACCES if Path(program).is_file() else errno.ENOENT
        raise OSError(number, os.strerror(number), program)
    return found


async def _start(
    command: Sequence[str], alive: int, given: int | None, environment: Mapping[str, str], cwd: Path, memory: int | None
) -> asyncio.subprocess.Process:
    """Start the guard with the reading end of the pipe, which is closed here; ``given`` is the program's input, or nothing."""
    stdin = os.devnull if given is None else f"/dev/fd/{given}"
    kibibytes = "" if memory is None else str(memory // 1024)
    try:
        return await asyncio.create_subprocess_exec(
            *("/bin/sh", "-c", _GUARD, "kapso-sync-guard", stdin, kibibytes, *command),
            stdin=alive,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment,
            cwd=cwd,
            start_new_session=True,
            pass_fds=() if given is None else (given,),
        )
    finally:
        os.close(alive)


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill all processes of the group: helpers can live longer than their parent, and hold its pipes open."""
    pipes = (process.stdout, process.stderr)
    if process.returncode is None or any(pipe is not None and not pipe.at_eof() for pipe in pipes):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.communicate()
