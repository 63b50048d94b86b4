"""Makes and changes inputs by their structure, so that they get deeper than random bytes would."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any, TypeVar

from tests.fuzz.archive import pack, unpack
from tests.fuzz.promises import CANARY, FORGED

_T = TypeVar("_T")

TEXTS = (
    "",
    " ",
    "greet",
    "a" * 300,
    "é",
    "e\u0301",
    "🦊",
    "\0",
    "\x1b[31mred\x1b[0m",
    "\x9b31m",
    f"first\n{FORGED}",
    f"first\r{FORGED}",
    f"first\x85{FORGED}\u2028{FORGED}",
    "\u202egnp.exe",
    "\ufeff",
    "\ud800",
    "\udfff\ud800",
    "..",
    "../..",
    "/etc/passwd",
    "../canary",
    f"../{CANARY}"[:-4],
    "%2e%2e%2f",
    "a/b",
    "a\\b",
    "`kapso-sync sync`",
    "[bold]x[/bold]",
    "<script>",
    "{{x}}",
    "${HOME}",
    "null",
    "yes",
    "0x1F",
    "1e5",
    "12:30:45",
    "2026-01-01",
    "[kapso-sync:example.com/acme/flows#1a2b3c]",
    "x" * 5000,
    "\n" * 50,
    "$(id)",
    "::warning file=a::b",
    "##[error]x",
)
"""Texts that programs trip over."""

NUMBERS = (0, 1, -1, 2, 100, 255, 599, 2**31, 2**53 + 1, 2**63, -(2**63), 10**30, 0.5, -0.0, 1e308, 5e-324)
TIMES = (
    "2026-01-01T00:00:00Z",
    "2026-01-01T00:00:05.123456Z",
    "2026-01-01",
    "0001-01-01T00:00:00+23:59",
    "9999-12-31T23:59:59-23:59",
    "9999-12-31T23:59:59.999999",
    "2026-W01-1",
    "20260101T000000",
    "2026-01-01T24:00:00Z",
    "1969-12-31T23:59:59Z",
    "now",
)
RAW = (
    "1e400",
    "-1e400",
    "NaN",
    "Infinity",
    "1" + "0" * 400,
    "1" + "0" * 5000,
    "1E+2",
    "-0",
)
"""JSON that no Python value is written as."""

DEPTHS = (3, 30, 41, 64, 90, 200, 330, 480, 700, 960, 990, 2000, 100_000)


class Draw:
    """Draws from a random source; what it draws depends on the seed alone."""

    def __init__(self, random: Random) -> None:
        self.random = random

    def pick(self, items: Sequence[_T]) -> _T:
        """Return one of the items."""
        return items[self.random.randrange(len(items))]

    def chance(self, probability: float) -> bool:
        """Return True with this probability."""
        return self.random.random() < probability

    def several(self, items: Sequence[_T], most: int = 4) -> list[_T]:
        """Return some of the items, in random order."""
        return self.random.sample(list(items), min(len(items), self.random.randint(0, most)))

    def text(self) -> str:
        """Return a text that programs trip over, sometimes two in one."""
        text = self.pick(TEXTS)
        return text + self.pick(TEXTS) if self.chance(0.15) else text

    def json(self, depth: int = 0) -> Any:
        """Return any JSON value; what starts with ``@`` is written as something special by `dumps`."""
        kind = self.random.randrange(12 if depth < 3 else 8)
        if kind == 0:
            return None
        if kind == 1:
            return self.chance(0.5)
        if kind == 2:
            return self.pick(NUMBERS)
        if kind == 3:
            return self.pick(TIMES)
        if kind == 4:
            return f"@raw:{self.pick(RAW)}"
        if kind == 5:
            return f"@{self.pick(('lists', 'objects'))}:{self.pick(DEPTHS)}"
        if kind < 8:
            return self.text()
        if kind < 10:
            return [self.json(depth + 1) for _ in range(self.random.randint(0, 4))]
        return {self.text(): self.json(depth + 1) for _ in range(self.random.randint(0, 4))}

    def object(self, usual: Mapping[str, Callable[[], Any] | Any], odd: float = 0.12) -> dict[str, Any]:
        """Return an object with the usual keys; some have an odd value, some are missing, and some are added."""
        made: dict[str, Any] = {}
        for name, value in usual.items():
            if not self.chance(odd / 2):
                made[name] = self.json() if self.chance(odd) else value() if callable(value) else value
        if self.chance(odd):
            made[self.text()] = self.json()
        return made


_SPECIAL = re.compile(r'"@(raw|lists|objects):([^"\\]*)"')


def dumps(value: Any, *, ascii_only: bool = True) -> bytes:
    """Return JSON; lone surrogates are escaped, and special texts are written out."""
    text = json.dumps(value, ensure_ascii=ascii_only)
    return _SPECIAL.sub(_special, text).encode("utf-8", "surrogatepass")


def _special(found: re.Match[str]) -> str:
    kind, what = found.groups()
    if kind == "raw":
        return what
    depth = int(what) if what.isdigit() and len(what) < 7 else 3
    return "[" * depth + "]" * depth if kind == "lists" else '{"a":' * depth + "1" + "}" * depth


def mutated(data: bytes, draw: Draw, tokens: Sequence[bytes], make: Callable[[Draw], bytes]) -> bytes:
    """Return an input like this one: another token, line or JSON value at one or a few places."""
    if not data or draw.chance(0.08):
        return make(draw)
    for _ in range(draw.pick((1, 1, 1, 2, 4))):
        sections = unpack(data)
        if sections and draw.chance(0.9):
            number = draw.random.randrange(len(sections))
            name, content = sections[number]
            if draw.chance(0.08):
                name = draw.text() or name
            else:
                content = _piece(content, draw, tokens)
            sections[number] = (name, content)
            if draw.chance(0.1):
                sections += [(f"{name}{draw.pick(('', 'x'))}", content)]
            data = b"".join(pack({each: body}) for each, body in sections if each)
        else:
            data = _piece(data, draw, tokens)
    return data


def _piece(content: bytes, draw: Draw, tokens: Sequence[bytes]) -> bytes:
    if content.lstrip()[:1] in (b"{", b"[") and draw.chance(0.7):
        try:
            value = json.loads(content)
        except (ValueError, RecursionError):
            value = None
        if value is not None:
            try:
                return dumps(_other_json(value, draw), ascii_only=draw.chance(0.5))
            except RecursionError:
                return content
    way = draw.random.randrange(8)
    lines = content.split(b"\n")
    place = draw.random.randrange(len(lines))
    if way == 0:
        lines.insert(place, draw.pick(lines))
    elif way == 1:
        del lines[place]
    elif way == 2:
        lines[place] = lines[place] + lines[draw.random.randrange(len(lines))]
    elif way == 3:
        lines[place] = b"  " + lines[place] if draw.chance(0.5) else lines[place].lstrip()
    elif way < 7:
        words = re.split(rb"([^A-Za-z0-9_./-]+)", lines[place])
        number = draw.random.randrange(len(words))
        words[number] = _token(draw, tokens)
        lines[place] = b"".join(words)
    else:
        data = bytearray(content)
        for _ in range(draw.random.randint(1, 4)):
            spot = draw.random.randrange(len(data) + 1)
            data[spot : spot + draw.random.randrange(3)] = draw.random.randbytes(draw.random.randrange(4))
        return bytes(data)
    return b"\n".join(lines)


def _token(draw: Draw, tokens: Sequence[bytes]) -> bytes:
    if tokens and draw.chance(0.6):
        return draw.pick(tokens)
    if draw.chance(0.3):
        return dumps(draw.json(), ascii_only=draw.chance(0.5))
    return draw.text().encode("utf-8", "surrogatepass")


def _other_json(value: Any, draw: Draw) -> Any:
    """Return the value with one place in it changed."""
    if isinstance(value, dict) and value and draw.chance(0.85):
        key = draw.pick(list(value))
        way = draw.random.randrange(10)
        if way == 0:
            return {name: item for name, item in value.items() if name != key}
        if way == 1:
            return {**value, draw.text(): value[key]}
        if way == 2:
            return {**value, key: value[draw.pick(list(value))]}
        return {**value, key: _other_json(value[key], draw)}
    if isinstance(value, list) and value and draw.chance(0.85):
        place = draw.random.randrange(len(value))
        way = draw.random.randrange(8)
        if way == 0:
            return value[:place] + value[place + 1 :]
        if way == 1:
            return [*value, value[place]]
        if way == 2:
            return value * draw.pick((2, 21, 101))
        return [*value[:place], _other_json(value[place], draw), *value[place + 1 :]]
    if isinstance(value, str) and draw.chance(0.3):
        return value + draw.text()
    return draw.json()
