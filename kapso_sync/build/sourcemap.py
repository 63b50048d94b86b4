"""Read a source map: from a place in code that esbuild printed to the place in the code that it was printed from."""

from __future__ import annotations

import bisect
import json
from collections.abc import Iterator, Sequence

from kapso_sync.build.syntax import Place

_DIGITS = {char: value for value, char in enumerate("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")}


class SourceMap:
    """The map of one printed file with one source; ECMA-426 defines the format."""

    def __init__(self, content: bytes, printed: str, source: str) -> None:
        """Read the map; ``printed`` and ``source`` are the two texts, since maps count columns in UTF-16 units."""
        self._lines = list(_segments(json.loads(content)["mappings"]))
        self._printed = printed.split("\n")
        self._source = source.split("\n")

    def original(self, place: Place) -> Place:
        """Return the place in the source; a place that the map does not know is the beginning of the file."""
        line = self._lines[place.line - 1] if 0 < place.line <= len(self._lines) else []
        shown = self._printed[place.line - 1] if 0 < place.line <= len(self._printed) else ""
        column = _units(shown[: place.column - 1])
        at = bisect.bisect_right(line, (column, len(self._source), 0)) - 1
        if not line:
            return Place(1, 1, place.text)
        _, row, start = line[max(at, 0)]
        text = self._source[row] if row < len(self._source) else ""
        return Place(row + 1, _characters(text, start) + 1, place.text)


def _segments(mappings: str) -> Iterator[list[tuple[int, int, int]]]:
    """Yield for each printed line its segments: printed column, source line, source column, all from 0."""
    row = column = 0
    for line in mappings.split(";"):
        found, printed = [], 0
        for segment in filter(None, line.split(",")):
            numbers = _numbers(segment)
            printed += numbers[0]
            if len(numbers) >= 4:
                row, column = row + numbers[2], column + numbers[3]
                found.append((printed, row, column))
        yield found


def _numbers(segment: str) -> Sequence[int]:
    """Return the base64 VLQ numbers of a segment: five bits a digit, lowest first; the first bit is the sign."""
    numbers: list[int] = []
    value = shift = 0
    for char in segment:
        digit = _DIGITS[char]
        value |= (digit & 31) << shift
        shift += 5
        if not digit & 32:
            numbers.append(-(value >> 1) if value & 1 else value >> 1)
            value = shift = 0
    return numbers


def _units(text: str) -> int:
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def _characters(text: str, units: int) -> int:
    return len(text.encode("utf-16-le", "surrogatepass")[: units * 2].decode("utf-16-le", "replace"))
