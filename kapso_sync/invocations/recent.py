"""Asks Kapso for the newest invocations of a function when a person wants to see them, and never by itself."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path

from kapso_sync.errors import KapsoSyncError
from kapso_sync.invocations.follow import MAX_LISTED
from kapso_sync.invocations.places import InvocationPlacer, LocalBuilds, PlacedInvocation, place_all
from kapso_sync.model.clock import Clock
from kapso_sync.model.function_view import InvocationLine, InvocationsView, InvocationView
from kapso_sync.model.ports import FunctionsApi

KEPT = 10.0
"""Seconds in which the same answer is shown again: a person who reloads, or several who look, cost one call."""

MAX_KEPT = 32
"""How many functions' answers are kept."""

MAX_ASKING = 2
"""Most functions that are asked about at once: passes come first."""

TIMEOUT = 10.0
"""Seconds that a person waits; an answer that comes later is shown to the next one who looks."""

MAX_TEXT = 4000
"""Most characters of one text of an invocation that are shown."""

_BEHIND = 1000


class RecentInvocations:
    """Reads the invocations for the page, with the daemon's own client, so that all calls share one rate limit.

    ``api`` is None while no session is open. ``prepare`` makes ``redact`` know every secret that a function may have.
    ``edge`` is as in `InvocationPlacer`.
    """

    def __init__(
        self,
        api: Callable[[], FunctionsApi | None],
        folder: Callable[[], Path],
        clock: Clock,
        redact: Callable[[str], str],
        prepare: Callable[[], None],
        edge: Callable[[], float],
    ) -> None:
        self._api = api
        self._folder = folder
        self._clock = clock
        self._redact = redact
        self._prepare = prepare
        self._edge = edge
        self._kept: OrderedDict[str, tuple[float, asyncio.Task[InvocationsView]]] = OrderedDict()
        self._asking: dict[str, asyncio.Task[InvocationsView]] = {}

    async def read(self, function_id: str, slug: str) -> InvocationsView:
        """Return the newest invocations. Raises `KapsoSyncError`, also where it takes too long."""
        kept = self._kept.get(function_id)
        if kept is not None and self._clock.monotonic() < kept[0] + KEPT:
            return kept[1].result()
        task = self._asking.get(function_id)
        if task is None:
            if len(self._asking) >= MAX_ASKING:
                raise KapsoSyncError("others are being asked about right now", hint="load the page again in a few seconds")
            task = self._asking[function_id] = asyncio.ensure_future(self._ask(function_id, slug))
            task.add_done_callback(lambda done: self._asked(function_id, done))
        # A request that is cancelled would leave its connection unusable, so that the call goes on.
        await asyncio.wait({task}, timeout=TIMEOUT)
        if not task.done():
            raise KapsoSyncError(
                f"Kapso has not answered within {TIMEOUT:.0f} s, or this minute's calls are used up",
                hint="load the page again in a while",
            )
        return task.result()

    def _asked(self, function_id: str, task: asyncio.Task[InvocationsView]) -> None:
        del self._asking[function_id]
        if task.cancelled():
            return
        task.exception()  # seen here, should nobody wait for it any more; a failure is kept as well, since it cost calls
        self._kept[function_id] = (self._clock.monotonic(), task)
        self._kept.move_to_end(function_id)
        while len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)

    async def _ask(self, function_id: str, slug: str) -> InvocationsView:
        api = self._api()
        if api is None:
            raise KapsoSyncError("the source is not open at the moment", hint="load the page again in a while")
        listed = await api.list_invocations(function_id, limit=MAX_LISTED)
        builds = LocalBuilds([self._folder()])
        placed = await place_all(
            api, (function_id, slug), listed, lambda function: InvocationPlacer(function, builds, edge=self._edge())
        )
        self._prepare()
        return InvocationsView(self._clock.now(), tuple(map(self._shown, placed)))

    def _shown(self, placed: PlacedInvocation) -> InvocationView:
        record = placed.record
        lines = tuple(InvocationLine(level, self._text(text)) for level, text in _lines(placed))
        return InvocationView(record.created_at, record.status_code, record.duration_ms, lines, placed.reason)

    def _text(self, text: str) -> str:
        """Return the beginning of a text without secrets; one at its end is looked for in what follows as well."""
        clean = self._redact(text[: MAX_TEXT + _BEHIND])
        return clean if len(clean) <= MAX_TEXT and len(text) <= MAX_TEXT + _BEHIND else f"{clean[:MAX_TEXT]}…"


def _lines(placed: PlacedInvocation) -> Iterator[tuple[str, str]]:
    """Yield the level and text of each line; V8 begins a trace with the error's text, which the message often is."""
    record = placed.record
    for line in record.console:
        stack = line.stack or ""
        yield line.level, stack if stack.startswith(line.message) else "\n".join(filter(None, (line.message, stack)))
    if record.error and not any((line.stack or line.message).startswith(record.error) for line in record.console):
        yield "error", record.error
