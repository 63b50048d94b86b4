"""Reads the JSON of answers so that the size of an answer bounds what it costs: memory, and time of the event loop.

A list of nothing, ``[],[],[]``, takes twenty bytes of memory for each of its own, and Python's decoder holds the interpreter's
lock until it has read everything, in whatever thread.
"""

from __future__ import annotations

import json
import re
from json.scanner import py_make_scanner  # type: ignore[attr-defined]

from kapso_sync.model.json_values import Json

SMALL = 384 * 1024
"""Bytes of an answer that is read without a look at how many values it has; a page of a hundred functions of 3 KiB."""

MODEST = 1024 * 1024
MODEST_VALUES = 100_000
"""The C decoder reads an answer within these limits, of bytes and of values, at once and in a few milliseconds: a page of
a hundred functions takes a third of a millisecond, and seven in Python."""

MAX_VALUES = 1_000_000
"""Most commas, brackets and strings of an answer; a list of a thousand functions has less than a tenth."""

MAX_STRING_BYTES = 8 * 1024 * 1024
"""Most bytes of one string: 1 MiB of code, of which JSON may make six times as much."""

_STEP = 1024 * 1024
"""Bytes that are looked at without giving other threads a turn."""

_BETWEEN = re.compile(rb'[^"\[{,]*+')
_INSIDE = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
_QUOTE, _BACKSLASH = b'"\\'


class TooMuch(ValueError):
    """JSON holds more than an answer may; the text finishes a sentence about the answer."""


def read_json(body: bytes) -> Json:
    """Return the JSON of a body, in a thread unless it is `quickly_read`; raises ValueError, `TooMuch` and RecursionError."""
    if quickly_read(body):
        decoder: type[json.JSONDecoder] = json.JSONDecoder
    else:
        _check(body)
        decoder = _Decoder
    value: Json = json.loads(body, cls=decoder)
    return value


def quickly_read(body: bytes) -> bool:
    """Return whether a body is read in a few milliseconds; a thread would hold the interpreter's lock for as long.

    It has few bytes, or few values for sure: the commas, brackets and quotes inside of strings are counted as well.
    """
    if len(body) <= SMALL:
        return True
    return len(body) <= MODEST and sum(map(body.count, (b",", b"[", b"{", b'"'))) <= MODEST_VALUES


class _Decoder(json.JSONDecoder):
    """Decodes in Python, string by string, and so lets other threads run in between; C would hold the lock until its end."""

    def __init__(self) -> None:
        super().__init__()
        self.scan_once = py_make_scanner(self)


def _check(body: bytes) -> None:
    """Raise `TooMuch` for more values than `MAX_VALUES`, or for a longer string, whether or not the body is JSON otherwise."""
    at = count = 0
    while at < len(body):
        end = min(at + _STEP, len(body))
        found = _end_of(_BETWEEN, body, at, end)
        if found - at == _STEP:
            raise TooMuch(f"more than {_STEP // 1024**2} MiB of a number, or of nothing")
        count += 1
        if count > MAX_VALUES:
            raise TooMuch(f"more than {MAX_VALUES:,} values")
        at = _end_of_string(body, found + 1) if body[found : found + 1] == b'"' else found + 1


def _end_of_string(body: bytes, start: int) -> int:
    """Return where a string ends, after its quote."""
    at = start
    while at < len(body):
        found = _end_of(_INSIDE, body, at, min(at + _STEP, len(body)))
        if found - start > MAX_STRING_BYTES:
            raise TooMuch(f"a string of more than {MAX_STRING_BYTES // 1024**2} MiB")
        if found < len(body) and body[found] == _QUOTE:
            return found + 1
        # A backslash that stands alone is the last byte of the step, or of the body.
        at = found + 2 if found < len(body) and body[found] == _BACKSLASH else found
    return at


def _end_of(pattern: re.Pattern[bytes], body: bytes, at: int, end: int) -> int:
    found = pattern.match(body, at, end)
    return found.end() if found is not None else at
