"""Runs a command's coroutine until it ends or a signal ends it, and prints errors."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from kapso_sync.errors import ExitCode, KapsoSyncError, ManifestInvalid, Problem


def run_to_end(work: Callable[[], Coroutine[Any, Any, int]]) -> int:
    """Run a coroutine until it ends or a signal ends it; return the exit code.

    The first SIGINT or SIGTERM cancels the work; its call in flight is journaled. A second one exits at once.
    """
    return asyncio.run(_with_signals(work))


async def _with_signals(work: Callable[[], Coroutine[Any, Any, int]]) -> int:
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(work())
    received: list[int] = []

    def stop(number: int) -> None:
        if received:
            os._exit(128 + number)
        received.append(number)
        task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop, number)
    try:
        return await task
    except asyncio.CancelledError:
        if not received:
            raise
        sys.stderr.write("interrupted: writes in progress are journaled; the next sync resumes them\n")
        return 128 + received[0]
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


def print_error(error: KapsoSyncError) -> ExitCode:
    """Print an error and its hint to stderr; return the exit code."""
    if isinstance(error, ManifestInvalid):
        for problem in error.problems:
            print_problem(problem)
    else:
        sys.stderr.write(f"error: {error.message}\n")
        if error.hint:
            sys.stderr.write(f"hint: {error.hint}\n")
    return error.exit_code


def print_problem(problem: Problem) -> None:
    """Print a problem of the source to stderr, with its line and its hint."""
    sys.stderr.write(f"error: {problem}\n")
    for line in (problem.frame or "").splitlines():
        sys.stderr.write(f"  {line}\n")
    if problem.hint:
        sys.stderr.write(f"hint: {problem.hint}\n")
