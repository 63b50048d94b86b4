"""Find the places in an uploaded function's code that a stack trace of V8 names, and write their source places into it."""

from __future__ import annotations

import bisect
import itertools
import re
from collections.abc import Callable, Iterable, Sequence

from kapso_sync.dataclass import dataclass
from kapso_sync.errors import Location

MAX_FRAME = 1000
"""Maximum number of characters of a line that is read as a frame of a trace."""

MAX_FRAMES = 1000
"""Most frames of one invocation that are looked at; V8 writes 10 for an error."""

_FRAME = re.compile(
    r"(?P<before>\s*at (?:(?P<name>.*) \()?)(?P<file>(?:file://)?[^\s():]+\.m?[jt]s):(?P<line>\d{1,9}):(?P<column>\d{1,9})(?P<after>\)?\s*)"
)
"""Source: https://v8.dev/docs/stack-trace-api. ``eval at …`` holds two places, and matches nowhere."""

_ALIAS = re.compile(r" \[as [^\]]*\]$")
_IDENTIFIER = re.compile(r"[A-Za-z_$][\w$]*")
_IN_WORD = re.compile(r"[\w$]")
_WORD = re.compile(r"[\w$]+")
_TWO_UNITS = re.compile(r"[\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class Frame:
    """A place that one line of a trace names: the function's name, empty for none, and the file, line and column there.

    Lines and columns count from 1, and columns count UTF-16 units.
    """

    name: str
    file: str
    line: int
    column: int


def frames_in(texts: Iterable[str]) -> tuple[Frame, ...]:
    """Return the frames in texts, in their order."""
    matches = (_frame(line) for text in texts for line in text.splitlines())
    frames = (
        Frame(match["name"] or "", match["file"], int(match["line"]), int(match["column"]))
        for match in matches
        if match is not None
    )
    return tuple(itertools.islice(frames, MAX_FRAMES))


def own_frames(frames: Iterable[Frame], slug: str) -> tuple[Frame, ...]:
    """Return the frames in the function's own code: those in ``<slug>.js``, or in the only file that any frame names.

    A function is uploaded as one file. How Kapso's runtime names it is not documented.
    """
    by_file: dict[str, list[Frame]] = {}
    for frame in frames:
        by_file.setdefault(frame.file, []).append(frame)
    own = by_file.get(f"{slug}.js") or (next(iter(by_file.values())) if len(by_file) == 1 else [])
    return tuple(own)


class CodeIndex:
    r"""Tells which frames can be places in one code.

    The function writes both the code and the traces. So every line of the code is read once at most, however many frames name
    it, and a frame costs two look-ups.

    >>> index = CodeIndex("function handler() {\n  throw new Error('no');\n}")
    >>> index.fits([Frame("handler", "greet.js", 2, 9)])
    True
    >>> index.fits([Frame("handler", "greet.js", 2, 10)])
    False
    """

    def __init__(self, code: str) -> None:
        self._lines = code.split("\n")
        self._first_line: dict[str, int] = {}
        self._words_read = 0
        self._wide: dict[int, Sequence[int]] = {}

    def fits(self, frames: Iterable[Frame]) -> bool:
        """Return whether all frames can be places in this code.

        Other code, or the same code behind lines that a runtime puts before it, has something else at most of these places. V8
        names the beginning of a word or of a sign, in a function whose name the code holds further up.
        """
        return all(self._is_start(frame.line, frame.column) and self._is_named_above(frame) for frame in frames)

    def _is_start(self, number: int, column: int) -> bool:
        """Return whether a word or a sign begins at a place."""
        if not 0 < number <= len(self._lines):
            return False
        text = self._lines[number - 1]
        at = column - 1
        if not text.isascii():
            at -= bisect.bisect_right(self._ends_of_wide(number), at)
        here, before = text[at : at + 1], text[max(at - 1, 0) : at]
        return bool(here) and not here.isspace() and not (_IN_WORD.match(here) and _IN_WORD.match(before))

    def _ends_of_wide(self, number: int) -> Sequence[int]:
        """Return the columns, in UTF-16 units from 0, behind each character of a line that has two units."""
        ends = self._wide.get(number)
        if ends is None:
            matches = _TWO_UNITS.finditer(self._lines[number - 1])
            ends = self._wide[number] = [match.end() + count for count, match in enumerate(matches, 1)]
        return ends

    def _is_named_above(self, frame: Frame) -> bool:
        """Return whether the code up to a frame's line has the name of its function, if that is a plain word."""
        name = _plain_name(frame.name)
        if name is None:
            return True
        while name not in self._first_line and self._words_read < frame.line:
            new = set(_WORD.findall(self._lines[self._words_read])).difference(self._first_line)
            self._words_read += 1
            self._first_line.update(dict.fromkeys(new, self._words_read))
        return self._first_line.get(name, frame.line + 1) <= frame.line


def with_places(text: str, file: str, place: Callable[[int, int], Location | None]) -> str:
    """Return a text in which the frames of one file name the places that ``place`` returns for their lines and columns."""
    return "\n".join(_placed(line, file, place) for line in text.splitlines())


def _placed(line: str, file: str, place: Callable[[int, int], Location | None]) -> str:
    match = _frame(line)
    if match is None or match["file"] != file:
        return line
    found = place(int(match["line"]), int(match["column"]))
    return line if found is None else f"{match['before']}{found}{match['after']}"


def _frame(line: str) -> re.Match[str] | None:
    return _FRAME.fullmatch(line) if len(line) <= MAX_FRAME and line.lstrip().startswith("at ") else None


def _plain_name(name: str) -> str | None:
    """Return the function's name in a frame, such as ``total`` in ``async Order.total [as sum]``, or None if it is no word."""
    plain = _ALIAS.sub("", name).rpartition(" ")[2].rpartition(".")[2]
    return plain if _IDENTIFIER.fullmatch(plain) else None
