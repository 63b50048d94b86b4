"""Puts an invocation that failed into a few lines: its error with the place in the source, its console lines, its stack."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime

from kapso_sync.build.stack_trace import frames_in
from kapso_sync.invocations.places import PlacedInvocation, Places
from kapso_sync.model.functions import InvocationRecord
from kapso_sync.visible import visible, visible_lines

MAX_LINES = 20
"""Most lines of an invocation that are kept."""

MAX_LINE = 300
"""Most characters of a line that are kept."""

MAX_TEXT = 16 * 1024
"""Most characters of an error, a message or a stack that are looked at; a secret beyond them is not in the lines either."""


def error_text(placed: PlacedInvocation, redact: Callable[[str], str]) -> str:
    """Return an invocation's error in one line, with its place: ``TypeError: no price (lib/total.ts:6:23)``."""
    record = placed.record
    texts = [redact(text[:MAX_TEXT]) for text in _texts(record)]
    said = next((line.strip() for text in texts for line in text.splitlines() if line.strip()), "")
    said = said.removeprefix("Uncaught ") or f"status {record.status_code}"
    frames = frames_in(texts)
    inside = f" ({frames[0].file}:{frames[0].line}:{frames[0].column})" if frames and placed.places is not None else ""
    built = " of the uploaded code" if inside and placed.places is Places.UPLOADED else ""
    return f"{_cut(visible(said))}{inside[:-1]}{built})" if inside else _cut(visible(said))


def evidence_lines(placed: PlacedInvocation, redact: Callable[[str], str]) -> tuple[str, ...]:
    """Return an invocation in at most `MAX_LINES` lines, without secrets, and without the bodies of request and answer."""
    record = placed.record
    duration = "" if record.duration_ms is None else f", {record.duration_ms:.0f} ms"
    lines = [f"{_time(record.created_at)}: status {record.status_code or 'unknown'}{duration}"]
    # As a whole, since a secret may have several lines.
    for label, text in _parts(record):
        shown = visible_lines(redact(text[:MAX_TEXT]))
        lines += [_cut(f"{label}{line}" if number == 0 else line) for number, line in enumerate(shown)]
    if placed.reason is not None:
        lines.append(_cut(f"places are those of the uploaded code: {placed.reason}"))
    if len(lines) > MAX_LINES:
        return (*lines[: MAX_LINES - 1], f"… and {len(lines) - MAX_LINES + 1} lines more")
    return tuple(lines)


def _parts(record: InvocationRecord) -> Iterator[tuple[str, str]]:
    """Yield the label and the text of each console line, and the error if none of them says it."""
    if record.error and not any((line.stack or line.message).startswith(record.error) for line in record.console):
        yield "", record.error
    for line in record.console:
        yield f"{line.level}: ", line.message
        if line.stack and line.stack != line.message:
            # V8 begins a trace with the error's text, which the message often is.
            yield "", line.stack.removeprefix(f"{line.message}\n")


def _texts(record: InvocationRecord) -> Iterator[str]:
    """Yield the texts that say what went wrong, the best one first."""
    errors = [line for line in record.console if line.level == "error"]
    traces = [text for line in errors for text in (line.message, line.stack or "") if frames_in([text])]
    yield from traces
    yield from ([record.error] if record.error else [])
    yield from (line.message for line in errors)


def _cut(text: str) -> str:
    return text if len(text) <= MAX_LINE else f"{text[: MAX_LINE - 1]}…"


def _time(moment: datetime | None) -> str:
    return "at an unknown time" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S} UTC"
