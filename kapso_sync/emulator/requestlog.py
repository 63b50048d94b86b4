"""Keeps a log of the requests to the emulator."""

from __future__ import annotations

import dataclasses
from collections import deque
from dataclasses import dataclass, field
from datetime import datetime

from kapso_sync.emulator.clock import rfc3339
from kapso_sync.emulator.masking import without_secret
from kapso_sync.emulator.values import Json, JsonObject

KEPT = 50_000


@dataclass(slots=True)
class Entry:
    """One request, in the order of arrival. ``route`` is the matched template, without the base, or None.

    ``status`` is that of the answer that was meant to be sent; None while there is none, and for requests that never get one.
    ``size`` is the body's size in bytes, and ``body`` its JSON, or None. ``console`` is the output of an invoked function:
    levels and texts. ``user_agent`` is the header of that name.
    """

    seq: int
    time: datetime
    method: str
    path: str
    base: str | None
    route: str | None
    query: dict[str, str]
    key_ok: bool
    size: int
    body: Json = field(repr=False, default=None)
    status: int | None = None
    fault: str | None = None
    console: list[Json] = field(default_factory=list)
    user_agent: str | None = None

    def to_json(self) -> JsonObject:
        """Return the entry as the control API shows it: of a secret only the name."""
        shown: JsonObject = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        body = without_secret(self.body) if "/secrets" in self.path.lower() else self.body
        return shown | {"time": rfc3339(self.time), "body": body}


class RequestLog:
    """The latest requests. `clear` does not reset the numbers, so a number never means two requests."""

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque(maxlen=KEPT)
        self._last = 0

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All entries kept, oldest first."""
        return tuple(self._entries)

    def next_seq(self) -> int:
        """Return the number of the next request."""
        self._last += 1
        return self._last

    def add(self, entry: Entry) -> None:
        """Keep an entry."""
        self._entries.append(entry)

    def clear(self) -> None:
        """Forget all entries."""
        self._entries.clear()
