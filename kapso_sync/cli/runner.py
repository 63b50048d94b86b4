"""Runs a command's coroutine until it ends or a signal ends it, and prints errors."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from kapso_sync.aio import run_loop
from kapso_sync.cli.console import Console, stderr_console
from kapso_sync.cli.grouping import group_by, shared_hints
from kapso_sync.errors import ExitCode, KapsoSyncError, ManifestInvalid, Problem
from kapso_sync.process import STOP_LIMIT, end_in_time


def run_to_end(
    work: Callable[[], Coroutine[Any, Any, int]],
    stop_limit: float = STOP_LIMIT,
    *,
    journaled: bool = False,
    last: bool = True,
) -> int:
    """Run a coroutine until it ends or a signal ends it; return the exit code.

    The first SIGINT or SIGTERM cancels the work. A second one exits at once, and so does the process ``stop_limit`` seconds
    after the first one. ``journaled``: the work writes to Kapso, and the next sync resumes a write that was cut.
    ``last``: the command ends with this work. Otherwise a signal that comes until its end still ends the command.
    """
    return run_loop(_with_signals(work, stop_limit, journaled=journaled, last=last), collects=last)


_TURNS = 3
"""Turns of the event loop after which the handler of a signal that came before them has run."""


async def _with_signals(work: Callable[[], Coroutine[Any, Any, int]], stop_limit: float, *, journaled: bool, last: bool) -> int:
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(work())
    received: list[int] = []

    def stop(number: int) -> None:
        if received:
            os._exit(128 + number)
        received.append(number)
        end_in_time(128 + number, stop_limit)
        task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop, number)
    try:
        code = await task
        for _ in range(0 if last else _TURNS):
            await asyncio.sleep(0)
        if last or not received:
            return code
    except asyncio.CancelledError:
        if not received:
            raise
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
    what = ": writes in progress are journaled; the next sync resumes them" if journaled else ""
    stderr_console().line(f"interrupted{what}")
    return 128 + received[0]


async def until_stopped(work: Coroutine[Any, Any, None]) -> None:
    """Run work that changes nothing until SIGINT or SIGTERM, which ends it normally; it never needs a second signal."""
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(work)
    signals = (signal.SIGINT, signal.SIGTERM)
    stopped = False

    def stop() -> None:
        nonlocal stopped
        stopped = True
        task.cancel()

    for number in signals:
        loop.add_signal_handler(number, stop)
    try:
        await task
    except asyncio.CancelledError:
        if not stopped:
            raise
    finally:
        for number in signals:
            loop.remove_signal_handler(number)


def print_error(error: KapsoSyncError) -> ExitCode:
    """Print an error and its hint to stderr; return the exit code."""
    console = stderr_console()
    if isinstance(error, ManifestInvalid):
        print_problems(console, error.problems)
    else:
        console.error(error.message, error.hint)
    return error.exit_code


def print_problems(console: Console, problems: Sequence[Problem]) -> None:
    """Print problems of the source, with their lines of code; what is the same for several of them is printed once."""
    groups = group_by(problems, lambda problem: (problem.message, problem.hint))
    shared = shared_hints([group for group in groups if group[0].count == 1], lambda group: group[0].hint)
    for group in groups:
        first = group[0]
        if len(group) == 1:
            console.error(str(first))
        else:
            places = [str(problem.location) for problem in group if problem.location]
            console.error(f"{first.message}, in {len(group)} places: {console.names(places)}")
        for line in (first.frame or "").splitlines():
            console.verbatim(line, indent=2)
        if first.hint and first.hint not in shared:
            console.hint(first.hint)
    for hint in shared:
        console.hint(hint)
