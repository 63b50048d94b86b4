"""Run a subprocess in its own process group, with a deadline, a clean environment, and no process left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


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
