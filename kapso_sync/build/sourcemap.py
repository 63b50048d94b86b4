"""Read source maps: from a place in code that esbuild printed to the place in the code that it was printed from."""

from __future__ import annotations

import bisect
import json
from collections.abc import Callable, Iterator, Sequence
from operator import itemgetter

from kapso_sync.build.syntax import Place
from kapso_sync.errors import Location

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
        at = bisect.bisect_right(line, column, key=itemgetter(0)) - 1
        if not line:
            return Place(1, 1, place.text)
        _, _, row, start = line[max(at, 0)]
        text = self._source[row] if row < len(self._source) else ""
        return Place(row + 1, _characters(text, start) + 1, place.text)


class BundleMap:
    """The map of built code with any number of sources, as `make_bundle_map` wrote it. Columns count UTF-16 units, as V8's."""

    def __init__(self, text: str) -> None:
        """Read the map; raises ValueError if it is none."""
        try:
            document = json.loads(text)
            self._sources = [str(source) for source in document["sources"]]
            self._lines = list(_segments(document["mappings"]))
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            raise ValueError("this is not a source map") from error

    def original(self, line: int, column: int) -> Location | None:
        """Return the place in the source of a place in the code, both from 1; None if no source has it."""
        segments = self._lines[line - 1] if 0 < line <= len(self._lines) else []
        at = bisect.bisect_right(segments, column - 1, key=itemgetter(0)) - 1
        if at < 0:
            return None
        _, source, row, start = segments[at]
        file = self._sources[source] if 0 <= source < len(self._sources) else ""
        return Location(file, row + 1, start + 1) if file else None


def make_bundle_map(content: bytes, place: Callable[[str], str], *, head: int, dropped: int | None) -> str | None:
    """Return the map of built code, made from the map of esbuild's bundle; None if the bundle is not what we know.

    ``place`` returns the path of one of the map's sources in the repository, or nothing for a file that we wrote. The code has
    ``head`` lines before the bundle, and lacks the bundle's line with the index ``dropped``, which maps nothing.
    """
    document = json.loads(content)
    lines = document["mappings"].split(";")
    if dropped is not None and dropped < len(lines):
        if lines[dropped]:
            return None
        del lines[dropped]
    made = {
        "version": 3,
        "sources": [place(source) for source in document["sources"]],
        "mappings": ";" * head + ";".join(lines),
    }
    return json.dumps(made, ensure_ascii=True)


def _segments(mappings: str) -> Iterator[list[tuple[int, int, int, int]]]:
    """Yield for each printed line its segments: printed column, source, source line, source column, all from 0."""
    source = row = column = 0
    for line in mappings.split(";"):
        found, printed = [], 0
        for segment in filter(None, line.split(",")):
            numbers = _numbers(segment)
            printed += numbers[0]
            if len(numbers) >= 4:
                source, row, column = source + numbers[1], row + numbers[2], column + numbers[3]
                found.append((printed, source, row, column))
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
