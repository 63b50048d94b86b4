"""Redacts secrets in everything that leaves the program: known values, and texts that look like credentials."""

from __future__ import annotations

import base64
import json
import re
import sys
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from typing import Any
from urllib.parse import quote, quote_plus

from kapso_sync.credentials import MASK, MASKED

MIN_LENGTH = 6
"""Minimum length of a known secret: a shorter one would match parts of ordinary words."""

MIN_LINE_LENGTH = 8
"""Minimum length of one line of a secret with several lines."""

MAX_VALUES = 50_000
"""Maximum number of known spellings; the oldest, probably of rotated values, are dropped first."""

BLOCK = 12
"""A piece of a secret is found by any of its blocks of this many characters."""

MIN_BLOCKED_LENGTH = 16
"""A secret below this length is only searched for as a whole."""

PREFIX = 3
"""Characters at the beginning of a spelling or a block by which the places are found where it may stand."""

MIN_PIECE = 16
"""A piece of a secret with at least this many characters, or with half of a shorter secret, is redacted."""

MIN_END, MAX_END = 4, MIN_PIECE
"""Numbers of characters of each end of a shortened secret that are looked for; a longer end is found as a piece."""

_KEYS = re.compile(r"(?i)^(?:x-)?api[-_]?key$|authorization|password|passwd|secret$|token$|^cookie$|signature")


MAX_ROUNDS = 6
"""Maximum number of times that escapes are undone in a text, as in JSON in a URL in a web page."""

_ESCAPE = re.compile(
    r"""(?x)
    (?P<url>(?:%[0-9A-Fa-f]{2})+)
    | (?P<units>(?:\\+u[0-9A-Fa-f]{4})+)
    | \\+(?:x(?P<byte>[0-9A-Fa-f]{2})|U(?P<point>[0-9A-Fa-f]{8})|(?P<letter>[bfnrt]))?
    | &(?:\#(?P<decimal>[0-9]{1,7})|\#[xX](?P<hex>[0-9A-Fa-f]{1,6})|(?P<name>amp|lt|gt|quot|apos));
    """
)
"""The escapes of URLs, of JSON, JavaScript and Python, and of HTML and XML.

Each JSON in JSON doubles the backslashes of the one before, so any number of them counts as one, and is dropped before a
character that stands for itself.
"""

_LETTERS = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_CODE_POINTS = {"byte": 16, "point": 16, "hex": 16, "decimal": 10}
_NAMES = {"amp": "&", "lt": "<", "gt": ">", "quot": '"', "apos": "'"}
"""What no text of XML or HTML has as it is; `html` has the names of 2,000 characters, which take half a megabyte."""

_URL_ESCAPE = re.compile(r"%[0-9A-F]{2}")
_MARKUP = re.compile(r"[<>&]")
_HTML = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#x27;"})
"""What `html.escape` does."""

_WHITE_SPACE = re.compile(r"\s+")
_SHORTENED = re.compile(r"\.{2,}|…|\*{2,}|\[(?:\.{3}|…)\]")
"""What stands for the middle of a text that was shortened."""


def _base64_spellings(raw: bytes, encode: Callable[[bytes], bytes]) -> Iterator[str]:
    """Yield what base64 shows of a secret, whatever stands before and behind it, as in ``user:secret``.

    Each byte moves the letters of those behind it. So there are three alignments, in which the first and the last letters also
    depend on the neighbours, and are left out.
    """
    yield encode(raw).decode("ascii").rstrip("=")
    for before, dropped in ((0, 0), (1, 2), (2, 3)):
        whole = raw[: len(raw) - (len(raw) + before) % 3]
        if len(whole) >= MIN_LENGTH:
            yield encode(b"\0" * before + whole).decode("ascii")[dropped:]


def _json_spellings(value: str) -> set[str]:
    """Return a text as JSON writes it, without quotation marks.

    PHP also escapes slashes, and Rails what HTML gives a meaning.
    """
    found = {json.dumps(value, ensure_ascii=False)[1:-1], json.dumps(value)[1:-1]}
    found |= {text.replace("/", "\\/") for text in found}
    return found | {_MARKUP.sub(lambda sign: f"\\u{ord(sign[0]):04x}", text) for text in found}


def _escaped_spellings(value: str) -> set[str]:
    r"""Return a text as most programs escape it once.

    Undoing escapes finds them as well, but not where a neighbour makes another escape of the first sign, as the backslash of
    `C:\\name` does, nor where the text without escapes is too short to be looked for.
    """
    spellings = {quote_plus(value, errors="replace"), repr(value)[1:-1], *_json_spellings(value)}
    for safe in ("", "!'()*", "/"):
        escaped = quote(value, safe=safe, errors="replace")
        spellings |= {escaped, _URL_ESCAPE.sub(lambda found: found[0].lower(), escaped)}
    return spellings | {value.translate(_HTML), value.translate(_HTML).replace("&#x27;", "&#39;")}


def _unescaped(found: re.Match[str]) -> str:
    """Return what an escape stands for."""
    kind, shown = found.lastgroup, found[found.lastgroup or 0]
    if kind == "url":
        return bytes.fromhex(shown.replace("%", "")).decode("utf-8", "replace")
    if kind == "units":
        return bytes.fromhex(shown.replace("\\", "").replace("u", "")).decode("utf-16-be", "surrogatepass")
    if kind in _CODE_POINTS:
        point = int(shown, _CODE_POINTS[kind])
        return chr(point) if point <= sys.maxunicode else ""
    return _LETTERS.get(shown) or _NAMES.get(shown, "")


def _without_escapes(text: str) -> Iterator[str]:
    """Yield a text with its escapes undone, and those again that were escaped themselves, until there are none."""
    for _ in range(MAX_ROUNDS):
        text, count = _ESCAPE.subn(_unescaped, text)
        if not count:
            return
        yield text


def _plain(value: str) -> str:
    """Return a text without escapes. A secret may hold what looks like one, so it is compared without them as well."""
    return [value, *_without_escapes(value)][-1]


class Redactor:
    """Knows the secrets of this process; a structlog processor, and a plain function for any text."""

    def __init__(self) -> None:
        self._known: dict[str, None] = {}
        self._spellings: dict[str, list[str]] | None = None
        self._starts = re.compile(r"(?!)")
        self._ends: dict[tuple[str, str], tuple[str, ...]] = {}
        self._begins: set[str] = set()
        self._blocks: dict[str, tuple[str, ...]] = {}

    def add(self, value: str | None) -> None:
        """Learn a secret in all its spellings: whole, each of its lines, and on one line."""
        if value is None or len(value) < MIN_LENGTH or value in self._known:
            return
        for part in (*value.splitlines(), " ".join(value.split())):
            if part != value and len(part.strip()) >= MIN_LINE_LENGTH:
                self._learn(part.strip())
        if len(value.strip()) >= MIN_LENGTH:
            self._learn(value.strip())
        self._learn(value)
        spellings = {value, _plain(value)}
        self._learn_blocks(spellings | {_WHITE_SPACE.sub("", spelling) for spelling in spellings})

    def _learn(self, value: str) -> None:
        raw, plain = value.encode("utf-8", "surrogatepass"), _plain(value)
        spellings = {value, plain, plain.replace(" ", "+")}
        if len(value) >= MIN_BLOCKED_LENGTH:
            spellings |= {case for spelling in spellings for case in (spelling.upper(), spelling.lower())}
        spellings |= {raw.hex(), raw.hex().upper(), *_escaped_spellings(value)}
        for text in {value, *_json_spellings(value)}:
            for encode in (base64.b64encode, base64.urlsafe_b64encode):
                spellings |= set(_base64_spellings(text.encode("utf-8", "surrogatepass"), encode))
        self._known |= dict.fromkeys(spelling for spelling in spellings if len(spelling) >= MIN_LENGTH)
        while len(self._known) > MAX_VALUES:
            self._known.pop(next(iter(self._known)))
        self._spellings = None

    def _learn_blocks(self, spellings: set[str]) -> None:
        """Learn the blocks of a secret: an answer may quote it cut at its beginning, at its end, or in the middle."""
        for spelling in spellings:
            if len(spelling) < MIN_BLOCKED_LENGTH:
                continue
            starts = (*range(0, len(spelling) - BLOCK + 1, BLOCK), len(spelling) - BLOCK)
            for block in {spelling[start : start + BLOCK] for start in starts}:
                self._blocks[block] = (*self._blocks.get(block, ()), spelling)
            ends = spelling[:MIN_END], spelling[-MIN_END:]
            self._ends[ends] = (*self._ends.get(ends, ()), spelling)
        while len(self._blocks) > MAX_VALUES:
            self._blocks.pop(next(iter(self._blocks)))
        while len(self._ends) > MAX_VALUES:
            self._ends.pop(next(iter(self._ends)))
        self._begins = {begin for begin, _ in self._ends}
        self._spellings = None

    def text(self, text: str) -> str:
        """Return the text without secrets."""
        if self._known:
            text = _masked(text, [*self._found(text), *self._found_in_other_spellings(text)])
        return MASKED.sub(MASK, text)

    def _found(self, text: str, shortest: int = 0) -> Iterator[tuple[int, int]]:
        """Yield where a text has secrets of at least this length, or pieces of them."""
        spellings = self._index() if self._spellings is None else self._spellings
        places = [found.start() for found in self._starts.finditer(text)]
        done = 0
        for at in places:
            if at >= done and (whole := _first_at(text, at, spellings.get(text[at : at + PREFIX], ()))) is not None:
                done = at + len(whole)
                if len(whole) >= shortest:
                    yield at, done
        if self._blocks:
            yield from self._pieces(text, places)
            yield from self._shortened(text)

    def _index(self) -> dict[str, list[str]]:
        """Return the known spellings by their first characters, longest first, and prepare the pattern of all beginnings.

        A diff may have a megabyte: looking at each of its characters in Python would take seconds.
        """
        self._spellings = found = defaultdict[str, list[str]](list)
        for spelling in sorted(self._known, key=len, reverse=True):
            found[spelling[:PREFIX]].append(spelling)
        self._starts = _any_of({*found, *(block[:PREFIX] for block in self._blocks)})
        return found

    def _found_in_other_spellings(self, text: str) -> Iterator[tuple[int, int]]:
        r"""Yield where a text has secrets that are escaped, or broken into lines.

        Of the secret `a"b/c-d` a server quotes `{\"error\":\"a\\\"b\\/c-d\"}`, PHP's JSON in JSON. Without escapes that is
        `{"error":"a"b/c-d"}`, where the secret is found; then its place is counted back to the text as it was.
        """
        rounds = [text, *_without_escapes(text)]
        plain = rounds.pop()
        found = [*(self._found(plain) if rounds else ()), *self._found_across_white_space(plain)]
        while found and rounds:
            found = _places_with_escapes(rounds.pop(), found)
        yield from found

    def _found_across_white_space(self, text: str) -> Iterator[tuple[int, int]]:
        """Yield where a text has secrets that are broken into lines, as base64 often is, or indented."""
        joined = "".join(text.split())
        if len(joined) < len(text) and (found := list(self._found(joined, MIN_BLOCKED_LENGTH))):
            places = [at for at, character in enumerate(text) if not character.isspace()]
            for start, end in found:
                yield places[start], places[end - 1] + 1

    def _pieces(self, text: str, places: Iterable[int]) -> Iterator[tuple[int, int]]:
        """Yield where a text has pieces of secrets that are too long to be there by chance.

        Of the secret `hunter2-hunter2-hunter2-hunter2` a server quotes the first 20 characters: the block `hunter2-hunt` is
        found, grows to the right as long as both agree, and the 20 characters are more than half of the secret. ``places`` is
        where a block may begin.
        """
        least = 0
        for at in places:
            if at < least:
                continue
            pieces = [_common_piece(text, at, secret) for secret in self._blocks.get(text[at : at + BLOCK], ())]
            start, end = max(pieces, key=lambda piece: piece[1] - piece[0], default=(at, at))
            if end > start:
                yield start, end
            least = end - BLOCK

    def _shortened(self, text: str) -> Iterator[tuple[int, int]]:
        """Yield where a text has both ends of a secret around dots or stars, if they are half of it or long.

        Of the secret `hunter2-hunter3-hunter4` a server quotes `hunter…hunter4`: 13 of 23 characters.
        """
        for gap in _SHORTENED.finditer(text):
            left, right = gap.span()
            starts = range(max(0, left - MAX_END), left - MIN_END + 1)
            for start in [start for start in starts if text[start : start + MIN_END] in self._begins]:
                for end in range(right + MIN_END, min(len(text), right + MAX_END) + 1):
                    for secret in self._ends.get((text[start : start + MIN_END], text[end - MIN_END : end]), ()):
                        is_long = left - start + end - right >= min(MIN_PIECE, len(secret) // 2)
                        if is_long and secret.startswith(text[start:left]) and secret.endswith(text[right:end]):
                            yield start, end

    def value(self, value: Any) -> Any:
        """Return any value of a log line without secrets, as JSON types; a field that is named like a secret is masked."""
        return self._json(value, lambda key: _KEYS.search(key) is not None)

    def document(self, value: Any) -> Any:
        """Return any JSON document without secrets. Its keys are our own, and a key such as ``secret`` holds a name."""
        return self._json(value, lambda _: False)

    def _json(self, value: Any, masked: Callable[[str], bool]) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, bool | int | float | None):
            return MASK if json.dumps(value) in self._known else value
        if isinstance(value, Mapping):
            return {self.text(str(key)): MASK if masked(str(key)) else self._json(item, masked) for key, item in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self._json(item, masked) for item in value]
        return self.text(str(value))

    def __call__(self, _logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """Redact a whole log line; the last processor before the renderer."""
        clean: MutableMapping[str, Any] = self.value(event)
        return clean


def _any_of(prefixes: Iterable[str]) -> re.Pattern[str]:
    """Return a pattern that finds every place where one of these texts of `PREFIX` characters stands."""
    tree: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for prefix in prefixes:
        tree[prefix[0]][prefix[1]].add(prefix[2])
    branches = (
        f"{re.escape(first)}(?={'|'.join(f'{re.escape(second)}[{_class(thirds)}]' for second, thirds in seconds.items())})"
        for first, seconds in tree.items()
    )
    return re.compile("|".join(branches) or r"(?!)")


def _class(characters: Iterable[str]) -> str:
    return "".join(map(re.escape, sorted(characters)))


def _first_at(text: str, at: int, spellings: Iterable[str]) -> str | None:
    return next((spelling for spelling in spellings if text.startswith(spelling, at)), None)


def _places_with_escapes(text: str, found: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    r"""Return where the places stand in a text that were found after one round of escapes was undone in it.

    `say \"hi\"` became `say "hi"`: the place from 5 to 7 is `hi`, which stands from 6 to 8. A place that begins or ends within
    one escape, as `%C3%A9%26` is one, has all of it.
    """
    starts, origins = [0], [0]  # of the pieces: those of even number are as they were, those of odd number replaced
    at = origin = 0
    for escape in _ESCAPE.finditer(text):
        start, end = escape.span()
        at += start - origin
        starts.append(at)
        at += len(_unescaped(escape))
        starts.append(at)
        origins += (start, end)
        origin = end
    origins.append(len(text))
    places = []
    for start, end in found:
        first, last = bisect_right(starts, start) - 1, bisect_right(starts, end - 1) - 1
        begin = origins[first] if first % 2 else origins[first] + start - starts[first]
        stop = origins[last + 1] if last % 2 else origins[last] + end - starts[last]
        places.append((begin, stop))
    return places


def _masked(text: str, found: list[tuple[int, int]]) -> str:
    """Return a text with these places masked; places that overlap become one."""
    kept, done = [], 0
    for start, end in sorted(found):
        if start >= done:
            kept += [text[done:start], MASK]
        done = max(done, end)
    return "".join((*kept, text[done:]))


def _common_piece(text: str, at: int, secret: str) -> tuple[int, int]:
    """Return start and end of the longest piece that a text shares with a secret around a block; empty if too short.

    ``at`` is where the block stands in the text.
    """
    shift = secret.find(text[at : at + BLOCK]) - at
    start, end = at, at + BLOCK
    while start > 0 and start + shift > 0 and text[start - 1] == secret[start - 1 + shift]:
        start -= 1
    while end < len(text) and end + shift < len(secret) and text[end] == secret[end + shift]:
        end += 1
    return (start, end) if end - start >= max(BLOCK, min(MIN_PIECE, len(secret) // 2)) else (at, at)
