"""Inspects a large file in a process of its own, with limits: code that was pushed must cost the daemon nothing.

The parser takes up to a thousand bytes of memory for each byte of hostile code, holds the interpreter's lock meanwhile, and has
no time limit.
"""

from __future__ import annotations

import contextlib
import os
import resource
import sys
import time
from pathlib import Path

import msgspec

from kapso_sync.build.contract import Shape, Style, inspect
from kapso_sync.build.syntax import Grammar
from kapso_sync.container_memory import memory_for_program
from kapso_sync.process import KILLED, Limits, run_process

MAX_MEMORY = 384 * 1024 * 1024
"""Address space of the process, in bytes, or less where the container has less; minified code of 1 MiB takes a third of it."""

MAX_ANSWER = 8 * 1024 * 1024
"""Most bytes of a shape, as JSON."""

CPU_SECONDS = 15
"""Most time of a processor for one file. A bundle of 1 MiB takes 1 s on a quick machine, and 5 s on a slow one that is busy."""

DEADLINE = 60.0
"""Seconds until the process must have ended, on a machine that has other things to do as well."""


async def inspect_apart(code: bytes, grammar: Grammar) -> Shape:
    """Return the shape of a file, as `inspect` does; a file that takes too much has a `Shape.limit`.

    If the machine is to blame, the shape is `Shape.passing`: the process could not be started, or somebody else ended it.
    """
    command = [sys.executable, "-P", "-m", "kapso_sync.build.inspection", grammar.name]
    environment = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "PYTHONDONTWRITEBYTECODE": "1"}
    began = time.monotonic()
    try:
        ended = await run_process(
            command, environment=environment, cwd=Path("/"), deadline=DEADLINE, stdin=code, limits=Limits(output=MAX_ANSWER)
        )
    except TimeoutError:
        return _unfinished()
    except OSError as error:
        return _not_now(error.strerror or str(error))
    # The limit of processor time ends it in the same way, and not before that time.
    if ended.status == KILLED and time.monotonic() - began < CPU_SECONDS:
        return _not_now("the process was killed: did the memory run out?")
    return _unfinished() if ended.status else read_shape(ended.output)


def read_shape(answer: bytes) -> Shape:
    """Return the shape that the process wrote. It may have done so with the code in charge, so anything else is a limit."""
    try:
        return msgspec.json.decode(answer, type=Shape)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return _unfinished()


def _unfinished() -> Shape:
    limit = f"cannot be read within {CPU_SECONDS} s, {MAX_MEMORY // 1024**2} MiB of memory, and what the container has left"
    return Shape(Style.NONE, limit=limit)


def _not_now(reason: str) -> Shape:
    return Shape(Style.NONE, limit=f"cannot be read here and now: {reason}", passing=True)


def main() -> None:
    """Inspect the code on stdin, and write its shape to stdout as JSON."""
    limits = (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_CPU, CPU_SECONDS),
        (resource.RLIMIT_AS, min(MAX_MEMORY, _address_space() + memory_for_program(MAX_MEMORY))),
    )
    for limit, value in limits:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(limit, (value, value))
    shape = inspect(sys.stdin.buffer.read(), Grammar[sys.argv[1]])
    sys.stdout.buffer.write(msgspec.json.encode(shape))


def _address_space() -> int:
    """Return the bytes of addresses that this process has already; `MAX_MEMORY` where the system does not say it."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    except (OSError, ValueError, IndexError):
        return MAX_MEMORY


if __name__ == "__main__":
    main()
