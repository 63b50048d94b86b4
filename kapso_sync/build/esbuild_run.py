"""Run esbuild with limits of memory and output, since pushed code may be of any size."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from kapso_sync.build.diagnostics import TRIED_AGAIN
from kapso_sync.container_memory import memory_for_program
from kapso_sync.process import KILLED, Ended, Limits, run_process
from kapso_sync.tools import ToolMissing

MAX_MEMORY = 1024**3
"""Most bytes of memory that one run may take, or less where the container has less.

Version 0.28 takes 20 to 200 bytes for each byte of code: this is enough for 4 MiB of the worst code and for 16 MiB of data, and
below 150 MiB it does not start. What it writes to is limited (`RLIMIT_DATA`): Go reserves 1 GiB of addresses at its start.
"""

_UNTOUCHED = 150 * 1024**2
"""Bytes of it that Go only reserves, and without which it does not start."""

MAX_MESSAGES = 1000
"""Most messages of one run; a file can make esbuild print millions."""


async def run_esbuild(
    program: Path,
    arguments: Sequence[str],
    *,
    cwd: Path,
    deadline: float,
    environment: Mapping[str, str] = MappingProxyType({}),
) -> Ended:
    """Run esbuild to its end; raises like `run_process`."""
    taken = memory_for_program(MAX_MEMORY - _UNTOUCHED, share=0.75)
    return await run_process(
        [str(program), f"--log-limit={MAX_MESSAGES}", *arguments],
        # From this on Go collects its garbage more often, so that the limit is reached late.
        environment={**environment, "GOMEMLIMIT": str(taken * 3 // 4)},
        cwd=cwd,
        deadline=deadline,
        limits=Limits(memory=_UNTOUCHED + taken),
    )


@contextlib.contextmanager
def os_errors_as_missing() -> Iterator[None]:
    """Raise `ToolMissing` for an OSError in the block: temporary files cannot be written, or no process can be started."""
    try:
        yield
    except TimeoutError:  # an OSError as well
        raise
    except OSError as error:
        where = f" at {error.filename}" if error.filename else ""
        raise no_space(f"{error.strerror or error}{where}") from error


def no_space(reason: str) -> ToolMissing:
    """Return the error for temporary files that cannot be written."""
    text = f"esbuild cannot be run here and now: {reason}"
    return ToolMissing(text, f"is the disk of temporary files full? {TRIED_AGAIN}")


def explain_silence(ended: Ended) -> str:
    """Return why esbuild ended with an error, and without a message of its own."""
    if has_crashed(ended):
        return f"esbuild crashed: it may take {MAX_MEMORY // 1024**2} MiB of memory, and what the container has left"
    if ended.status == KILLED:
        return "esbuild was killed: did the memory run out?"
    return "esbuild ended with an error and said nothing"


def has_crashed(ended: Ended) -> bool:
    """Return whether esbuild crashed by itself: then the code is to blame. If somebody else ended it, that is the machine."""
    return ended.errors.startswith((b"fatal error:", b"runtime:", b"SIGSEGV", b"panic:"))
