"""Running another program: a process group of its own, a deadline, nothing inherited, nothing left behind."""

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
    """How a program ended, and what it said."""

    status: int
    output: bytes = field(repr=False)
    errors: bytes = field(repr=False)


async def run_process(command: Sequence[str], *, environment: Mapping[str, str], cwd: Path, deadline: float) -> Ended:
    """Run a program to its end, with this environment and no other, and return what it said.

    Raises `TimeoutError` after ``deadline`` seconds, and `OSError` when it cannot be started. Whatever happens, the whole
    process group is gone when this returns.
    """
    starting = asyncio.ensure_future(
        asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment,
            cwd=cwd,
            start_new_session=True,
        )
    )
    try:
        # Cut off in here, asyncio would kill the program alone, and wait for the helpers that hold its pipes.
        process = await asyncio.shield(starting)
    except asyncio.CancelledError:
        await _end(await starting)
        raise
    try:
        async with asyncio.timeout(deadline):
            output, errors = await process.communicate()
    finally:
        await _end(process)
    return Ended(process.returncode or 0, output, errors)


async def _end(process: asyncio.subprocess.Process) -> None:
    """Leave no process of the group behind: helpers outlive their parent, and hold its pipes open."""
    pipes = (process.stdout, process.stderr)
    if process.returncode is None or any(pipe is not None and not pipe.at_eof() for pipe in pipes):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.communicate()
