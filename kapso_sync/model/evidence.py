"""Defines the evidence of a failure: the last lines of the console, and the place in the source that threw."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from kapso_sync.dataclass import dataclass
from kapso_sync.model.json_values import Json

MAX_LINES = 20
"""Most lines of one piece of evidence: it stands in a log line, on the page and in a message."""

MAX_LINE = 200
"""Most characters of a line."""

MAX_REDACTED = 64 * 1024
"""Most characters of a text that are redacted, before it is cut to those that are shown."""

BEHIND = 4096
"""Characters at the end of a longer one that are never shown: a secret that goes on behind them is not recognised."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a failed run left behind.

    ``console`` are the last lines of its console and the trace of its error, without secrets, each on one line and short.
    ``place`` is the file, line and column of the source that the trace begins with; None where it is not known.
    """

    console: tuple[str, ...] = ()
    place: str | None = None

    @property
    def document(self) -> Json:
        """The JSON that documents show."""
        return {"place": self.place, "console": [*self.console]}


def bounded(lines: Sequence[str], before: int = 0) -> tuple[str, ...]:
    """Return the last lines, and how many came before, ``before`` of them not among these; long lines are cut."""
    kept = lines if before + len(lines) <= MAX_LINES else lines[max(0, len(lines) - MAX_LINES + 1) :]
    left_out = before + len(lines) - len(kept)
    head = (f"… {left_out} lines before these",) if left_out else ()
    return (*head, *map(cut_line, kept))


def cut_line(line: str) -> str:
    """Return a line, cut if it is long."""
    return line if len(line) <= MAX_LINE else f"{line[: MAX_LINE - 1]}…"


def redacted_start(text: str, redact: Callable[[str], str], most: int = MAX_REDACTED) -> str:
    """Return the beginning of a text without secrets; ``most`` is the maximum number of characters that are looked at."""
    clean = redact(text[:most])
    return clean if len(text) <= most else clean[:-BEHIND]


def count_lines(text: str) -> int:
    """Return the number of lines of what `redacted_start` returns, at least one, if no secret in it has several."""
    start = text if len(text) <= MAX_REDACTED else text[: MAX_REDACTED - BEHIND]
    return max(1, len(start.splitlines()))


def labelled(level: str, lines: Iterable[str]) -> list[str]:
    """Return the lines of one console line, with its level before the first one."""
    return [f"{level if number == 0 else '':<5} {line}".rstrip() for number, line in enumerate(lines)]
