"""Runs subprocesses with a deadline, a clean environment, and no process left behind; ends our own process in time."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

STOP_LIMIT = 9.0
"""Seconds after a signal in which the process ends, whatever a thread does: Kubernetes and systemd send SIGKILL soon after."""


def end_in_time(status: int, limit: float = STOP_LIMIT) -> None:
    """End this process with ``status`` in ``limit`` seconds, if it still runs: Python would wait for a stuck thread."""
    timer = threading.Timer(limit, os._exit, (status,))
    timer.daemon = True
    timer.start()


@dataclass(frozen=True, slots=True)
class Ended:
    """The result of a program: its exit status, its standard output and its standard error."""

    status: int
    output: bytes = field(repr=False)
    errors: bytes = field(repr=False)


async def run_process(
    command: Sequence[str], *, environment: Mapping[str, str], cwd: Path, deadline: float, stdin: bytes | None = None
) -> Ended:
    """Run a program to its end, with only this environment and input, and return its exit status and output.

    ``stdin`` is what the program reads; None: nothing. A program may end before it has read all of it.

    Raises `TimeoutError` after ``deadline`` seconds, and `OSError` if the program cannot be started. In every case the whole
    process group has ended when this function returns.
    """
    starting = asyncio.ensure_future(
        asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL if stdin is None else asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment,
            cwd=cwd,
            start_new_session=True,
        )
    )
    try:
        # Without the shield, asyncio would on cancellation kill only the program, and wait for helpers that hold its pipes.
        process = await asyncio.shield(starting)
    except asyncio.CancelledError:
        await _end(await starting)
        raise
    try:
        async with asyncio.timeout(deadline):
            output, errors = await process.communicate(stdin)
    finally:
        await _end(process)
    return Ended(process.returncode or 0, output, errors)


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill all processes of the group: helpers can live longer than their parent, and hold its pipes open."""
    pipes = (process.stdout, process.stderr)
    if process.returncode is None or any(pipe is not None and not pipe.at_eof() for pipe in pipes):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.communicate()
