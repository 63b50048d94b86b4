"""Runs an event loop, and waits for the first of several things; asyncio has no such call that leaves no task behind."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Coroutine, Generator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

_T = TypeVar("_T")


async def first_of(*awaitables: Awaitable[object]) -> None:
    """Wait until one of these ends, cancel the others, and wait until they have ended. Its error is raised, if it failed."""
    tasks = [asyncio.ensure_future(awaitable) for awaitable in awaitables]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


async def until_end(work: Coroutine[Any, Any, _T]) -> _T:
    """Return the result of the work; if the caller is cancelled, the work still goes on to its end before this raises.

    A thread cannot be cancelled: without this it would work on while what it works on is taken away.
    """
    working = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(working)
    finally:
        if not working.done():
            await asyncio.wait({working})


class Interrupted(Exception):
    """The event came before the work was done."""


async def unless(event: asyncio.Event, work: Coroutine[Any, Any, _T]) -> _T:
    """Return the result of the work, or cancel it and raise `Interrupted` if the event is set before the work is done."""
    working = asyncio.create_task(work)
    try:
        await first_of(event.wait(), _ended(working))
        if working.done():
            return working.result()
        raise Interrupted
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)


async def _ended(task: asyncio.Task[Any]) -> None:
    """Wait for a task without cancelling it, and without raising its error."""
    await asyncio.wait({task})


@asynccontextmanager
async def interrupted_by(*events: asyncio.Event) -> AsyncIterator[None]:
    """Cancel the block and raise `Interrupted` once one of these events is set."""

    async def watch() -> None:
        await first_of(*(event.wait() for event in events))
        deadline.reschedule(asyncio.get_running_loop().time())

    deadline = asyncio.timeout(None)
    try:
        async with deadline:
            watcher = asyncio.create_task(watch(), name="interrupt")
            try:
                yield
            finally:
                watcher.cancel()
                await asyncio.gather(watcher, return_exceptions=True)
    except TimeoutError as error:
        if deadline.expired():
            raise Interrupted from error
        raise


SLICE = 0.002
"""Seconds after which work in slices lets other tasks run: a probe or a page is answered between two slices."""


async def in_slices(work: Generator[None, None, _T]) -> _T:
    """Return the result of a long computation; before it and at each ``yield`` in it, other tasks get their turn."""
    loop = asyncio.get_running_loop()
    await asyncio.sleep(0)
    turn = loop.time() + SLICE
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: _T = end.value
            return result
        if loop.time() >= turn:
            await asyncio.sleep(0)
            turn = loop.time() + SLICE


def run_loop(work: Coroutine[Any, Any, _T], *, collects: bool = True) -> _T:
    """Run a coroutine in an event loop of its own, as `asyncio.run` does, and collect garbage from now on.

    What a start loads stays until the end, so it is never looked at: modules are most of what a short command has. Without
    ``collects``, more of them are still to be loaded.
    """
    if collects and not gc.isenabled():
        gc.freeze()
        gc.enable()
    return asyncio.run(work)
