"""Collects the evidence of a failed check, watch or start: the console's lines, with places in the source where known.

Whatever failed, on Kapso or on this machine, its texts are redacted and then bounded by `evidence_of` alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from kapso_sync.build.stack_trace import frames_in, own_frames
from kapso_sync.dataclass import dataclass
from kapso_sync.errors import Location
from kapso_sync.invocations.places import (
    Code,
    InvocationPlacer,
    LocalBuilds,
    PlacedInvocation,
    Places,
    Uncertain,
    place_all,
    replaced,
    spellings,
    texts_of,
)
from kapso_sync.model.evidence import MAX_LINES, Evidence, bounded, count_lines, cut_line, labelled, redacted_start
from kapso_sync.model.functions import ConsoleLine, InvocationRecord, RemoteFunction
from kapso_sync.model.ports import FunctionsApi
from kapso_sync.visible import visible, visible_lines

MAX_ENTRIES = 50
"""Most entries of a console that are looked at, the last ones: more would not be shown."""


@dataclass(frozen=True, slots=True)
class LocalEvidenceCollector:
    """An `EvidenceCollector` that looks into the state folders of this machine.

    ``builds`` know the source maps; ``edge`` is as in `InvocationPlacer`; ``redact`` removes secrets from texts, and ``learn``
    makes it know every secret that a function may have.
    """

    api: FunctionsApi
    builds: LocalBuilds
    edge: float
    redact: Callable[[str], str]
    learn: Callable[[], None]

    async def of_invocation(self, function: RemoteFunction, file: str, record: InvocationRecord) -> Evidence:
        """Return the evidence of an invocation."""
        placed = await asyncio.to_thread(self._placer(function).place, record)
        return evidence_of(placed, function.slug, file, self.redact)

    async def of_watched(self, function_id: str, slug: str, record: InvocationRecord) -> tuple[str, Evidence]:
        """Return an invocation's error in one line, and its evidence; the function is read if a trace names places in it."""
        # A pass has read the secrets of what it checks; a watch may be older than this process.
        self.learn()
        (placed,) = await place_all(self.api, (function_id, slug), [record], self._placer)
        return error_text(placed, self.redact), evidence_of(placed, slug, None, self.redact)

    async def of_start(self, slug: str, file: str, code: str, error: str) -> Evidence:
        """Return the evidence of code that did not start."""
        build = await asyncio.to_thread(self.builds.build, spellings(code))
        found = Code(code, None) if build is None else Code(build.code, build.source_map)
        return evidence_of(place_in(InvocationRecord("", error=error), slug, found), slug, file, self.redact)

    def _placer(self, function: RemoteFunction) -> InvocationPlacer:
        return InvocationPlacer(function, self.builds, edge=self.edge)


def place_in(record: InvocationRecord, slug: str, code: Code) -> PlacedInvocation:
    """Return an invocation of code that is known to have run, with its places in the source if there is a map."""
    try:
        return code.place(record, slug)
    except Uncertain as reason:
        return PlacedInvocation(record, Places.UPLOADED, str(reason))


def error_text(placed: PlacedInvocation, redact: Callable[[str], str]) -> str:
    """Return an invocation's error in one line, without its place: ``TypeError: no price``."""
    record = placed.record
    texts = (redacted_start(text, redact) for text in texts_of(record))
    said = next((line.strip() for text in texts for line in text.splitlines() if line.strip()), "")
    return cut_line(visible(said.removeprefix("Uncaught ") or f"status {record.status_code}"))


def evidence_of(placed: PlacedInvocation, slug: str, file: str | None, redact: Callable[[str], str]) -> Evidence:
    """Return the evidence of an invocation; ``file`` is the function's code in the source, None where that is not known."""
    record, before = _end_of(placed.record)
    place = None
    if placed.places is Places.AS_WRITTEN:
        frames = own_frames(frames_in(texts_of(placed.record)), slug)
        if frames:
            written = file or frames[0].file
            place = str(Location(written, frames[0].line, frames[0].column))
            record = replaced(record, frames[0].file, lambda line, column: Location(written, line, column))
    elif placed.places is Places.SOURCE:
        place = str(placed.first) if placed.first is not None else None
    lines: list[str] = []
    for line in record.console:
        lines += labelled(visible(line.level), visible_lines(redacted_start(_whole(line), redact)))
    said = placed.record.error
    if said and record.error and not any((line.stack or line.message).startswith(said) for line in placed.record.console):
        lines += labelled("error", visible_lines(redacted_start(record.error, redact)))
    if placed.reason is not None:
        lines.append(f"(places are those of the uploaded code: {placed.reason})")
    return Evidence(bounded(lines, before), place)


def _end_of(record: InvocationRecord) -> tuple[InvocationRecord, int]:
    """Return an invocation with the last lines of its console that may be shown, and how many lines of text came before.

    Only they are redacted, and led back to the source: a function may write much more.
    """
    shown, lines, before = [], 0, 0
    for line in reversed(record.console[-MAX_ENTRIES:]):
        count = count_lines(_whole(line))
        if lines < MAX_LINES:
            shown.append(line)
            lines += count
        else:
            before += count
    return replace(record, console=tuple(reversed(shown))), before


def _whole(line: ConsoleLine) -> str:
    """Return message and stack once each: V8 begins a stack with the error's text, which the message often is."""
    if not line.stack:
        return line.message
    stack = line.stack
    return stack if stack.startswith(line.message) else f"{line.message}\n{stack}"
