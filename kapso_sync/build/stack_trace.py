"""Find the places in an uploaded function's code that a stack trace of V8 names, and write their source places into it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

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
    found: list[Frame] = []
    for text in texts:
        for line in text.splitlines():
            match = _frame(line)
            if match is not None and len(found) < MAX_FRAMES:
                place = int(match["line"]), int(match["column"])
                found.append(Frame(match["name"] or "", match["file"], *place))
    return tuple(found)


def own_frames(frames: Iterable[Frame], slug: str) -> tuple[Frame, ...]:
    """Return the frames in the function's own code: those in ``<slug>.js``, or in the only file that any frame names.

    A function is uploaded as one file. How Kapso's runtime names it is not documented.
    """
    by_file: dict[str, list[Frame]] = {}
    for frame in frames:
        by_file.setdefault(frame.file, []).append(frame)
    own = by_file.get(f"{slug}.js") or (next(iter(by_file.values())) if len(by_file) == 1 else [])
    return tuple(own)


def fits(frames: Iterable[Frame], code: str) -> bool:
    r"""Return whether all frames can be places in this code.

    Other code, or the same code behind lines that a runtime puts before it, has something else at most of these places. V8
    names the beginning of a word or of a sign, in a function whose name the code holds further up.

    >>> fits([Frame("handler", "greet.js", 2, 9)], "function handler() {\n  throw new Error('no');\n}")
    True
    >>> fits([Frame("handler", "greet.js", 2, 10)], "function handler() {\n  throw new Error('no');\n}")
    False
    """
    lines = code.split("\n")
    return all(_fits(frame, lines) for frame in frames)


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


def _fits(frame: Frame, lines: list[str]) -> bool:
    if not 0 < frame.line <= len(lines):
        return False
    text = lines[frame.line - 1]
    if not text.isascii():
        units = text.encode("utf-16-le", "surrogatepass")[: 2 * (frame.column - 1)]
        column = len(units.decode("utf-16-le", "replace"))
    else:
        column = frame.column - 1
    here, before = text[column : column + 1], text[max(column - 1, 0) : column]
    if not here or here.isspace() or (_IN_WORD.match(here) and _IN_WORD.match(before)):
        return False
    return all(any(_has_word(above, name) for above in lines[frame.line - 1 :: -1]) for name in _names(frame))


def _names(frame: Frame) -> Iterator[str]:
    """Yield the name of a frame's function: ``total`` of ``async Order.total [as sum]``; nothing if it is no plain word."""
    name = _ALIAS.sub("", frame.name).rpartition(" ")[2].rpartition(".")[2]
    if _IDENTIFIER.fullmatch(name):
        yield name


def _has_word(text: str, word: str) -> bool:
    return word in text and re.search(rf"(?<![\w$]){re.escape(word)}(?![\w$])", text) is not None
