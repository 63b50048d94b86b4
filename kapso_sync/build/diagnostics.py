"""Diagnostics about code, esbuild's messages as diagnostics, and code frames that show the place of an error."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import replace

from kapso_sync.build.syntax import Place
from kapso_sync.dataclass import dataclass
from kapso_sync.errors import Location, Notice, Problem

_HEAD = re.compile(r"^[✘▲] \[(ERROR|WARNING)\] (.*?)(?: \[([a-z0-9-]+)\])?$")
TRIED_AGAIN = "the next pass tries again"
"""The hint where nothing is wrong with the code."""

_PLACE = re.compile(r"^    (.+?):(\d+):(\d+):$")
_OF_RUN = re.compile(r"Failed to (?:write|create|make) ")
"""How esbuild begins a message about a file that it cannot write."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message of esbuild; as esbuild does, lines count from 1 and columns from 0.

    ``of_run``: it is an error of the run itself, such as a full disk or a kill, and says nothing about code.
    """

    text: str
    file: str | None
    line: int = 0
    column: int = 0
    error: bool = False
    of_run: bool = False

    def located(self, content: bytes) -> Message:
        """Return the message with its column in characters of the file's content; esbuild counts bytes."""
        lines = content.split(b"\n")
        if not 0 < self.line <= len(lines):
            return self
        return replace(self, column=len(lines[self.line - 1][: self.column].decode("utf-8", "replace")))

    def fault(self, entry: str) -> Diagnostic:
        """Return an error message as a diagnostic of the entry."""
        if self.of_run:
            return Diagnostic("build", self.text, entry, Place(0, 0), TRIED_AGAIN, unavailable=True)
        place = Place(self.line, self.column + 1) if self.file else Place(0, 0)
        return Diagnostic("build", self.text, self.file or entry, place, "esbuild cannot build it like this")

    def notice(self) -> Notice:
        """Return a warning message as a notice."""
        return Notice("build", self.text, Location(self.file, self.line, self.column + 1) if self.file else None)


def read_messages(output: str) -> list[Message]:
    """Return the messages in esbuild's output."""
    messages: list[Message] = []
    for block in re.split(r"^(?=[✘▲] \[)", output, flags=re.MULTILINE):
        lines = block.split("\n")
        head = _HEAD.match(lines[0])
        if head is None:
            continue
        place = _PLACE.match(lines[2]) if len(lines) > 2 else None
        error = head[1] == "ERROR"
        if place is None:
            messages.append(Message(head[2], None, error=error, of_run=error and _OF_RUN.match(head[2]) is not None))
        else:
            messages.append(Message(head[2], place[1], int(place[2]), int(place[3]), error=error))
    return messages


CONTEXT = 2
"""Number of lines that are shown before the line of the error."""

_SHOWN, _BEFORE = 160, 100
"""At most 160 characters of a long line are shown, and at most 100 of them before the place."""


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One reason why a file cannot be used: a code, a message, the place, and a hint how to fix it, if there is more to say.

    ``unavailable``: the file may be right, and what it needs is not to be had here and now.
    """

    code: str
    message: str
    file: str
    place: Place
    hint: str | None = None
    unavailable: bool = False

    def problem(self, content: bytes | None) -> Problem:
        """Return the diagnostic as a problem with the lines around the place; ``content`` is the file's content, if known."""
        frame = code_frame(content.decode("utf-8", "replace"), self.place) if content is not None else None
        return Problem(self.code, self.message, Location(self.file, self.place.line, self.place.column), self.hint, frame)


def code_frame(code: str, place: Place) -> str | None:
    """Return the line of a place with a caret below it, after the lines before it; None if there is no such line."""
    lines = code.split("\n")
    if not 0 < place.line <= len(lines):
        return None
    skip = max(0, place.column - 1 - _BEFORE)
    first = max(1, place.line - CONTEXT)
    shown = [
        f"{number:>4} | {_printable(lines[number - 1][skip:][:_SHOWN])}".rstrip() for number in range(first, place.line + 1)
    ]
    before = _printable(lines[place.line - 1][skip : place.column - 1])
    return "\n".join([*shown, " " * (len("   1 | ") + _width(before)) + "^"])


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text)


def _width(text: str) -> int:
    """Return the width of a text on a terminal, in columns."""
    return sum(0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)
