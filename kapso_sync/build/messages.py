"""What esbuild says, as values: its errors and warnings with file, line and column."""

from __future__ import annotations

import re
from dataclasses import dataclass

from kapso_sync.build.diagnostics import Diagnostic
from kapso_sync.build.syntax import Place
from kapso_sync.errors import Location
from kapso_sync.model.desired import Notice

_HEAD = re.compile(r"^[✘▲] \[(ERROR|WARNING)\] (.*?)(?: \[([a-z0-9-]+)\])?$")
_PLACE = re.compile(r"^    (\S.*?):(\d+):(\d+):$")


@dataclass(frozen=True, slots=True)
class Message:
    """One message. The line counts from 1, the column from 0, as esbuild does."""

    text: str
    file: str | None
    line: int = 0
    column: int = 0
    error: bool = False

    def fault(self, entry: str) -> Diagnostic:
        """Return an error as what is wrong with an entry."""
        place = Place(self.line, self.column + 1) if self.file else Place(0, 0)
        return Diagnostic("build", self.text, self.file or entry, place, "esbuild cannot build it like this")

    def notice(self) -> Notice:
        """Return a warning as one of ours."""
        return Notice("build", self.text, Location(self.file, self.line, self.column + 1) if self.file else None)


def read_messages(output: str) -> list[Message]:
    """Return the messages in what esbuild printed."""
    messages: list[Message] = []
    for block in re.split(r"^(?=[✘▲] \[)", output, flags=re.MULTILINE):
        lines = block.split("\n")
        head = _HEAD.match(lines[0])
        if head is None:
            continue
        place = _PLACE.match(lines[2]) if len(lines) > 2 else None
        error = head[1] == "ERROR"
        if place is None:
            messages.append(Message(head[2], None, error=error))
        else:
            messages.append(Message(head[2], place[1], int(place[2]), int(place[3]), error=error))
    return messages
