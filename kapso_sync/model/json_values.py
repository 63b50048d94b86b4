"""Defines JSON values: their one spelling, their equality, and how deeply they may be nested."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
    """Any JSON value."""
else:
    Json = Any  # msgspec reads this, and knows no alias that names itself; what it makes of JSON is JSON anyway


MAX_SHARED = 100
"""Characters of a text that is shared: more than an id or a digest has."""

_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def canonical_json(value: Json | Mapping[str, Json]) -> str:
    """Return one spelling for equal JSON values: sorted keys, no spaces."""
    return _CANONICAL.encode(value)


def is_json_text(text: str) -> bool:
    """Return whether a text is JSON."""
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def parse_json_text(text: str) -> Json:
    """Return the JSON value of a text, or the text itself if it is not JSON."""
    try:
        value: Json = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value


def same_json(left: Json, right: Json) -> bool:
    """Return whether two JSON values are equal; unlike ``==``, ``1`` is not ``true``, but ``1`` is ``1.0``.

    It does not recurse, since answers may be nested deeper than Python's stack.
    """
    if type(left) is str and type(right) is str:
        return left == right
    pending = [(left, right)]
    while pending:
        one, other = pending.pop()
        if isinstance(one, dict) and isinstance(other, dict):
            if one.keys() != other.keys():
                return False
            pending += [(item, other[key]) for key, item in one.items()]
        elif isinstance(one, list) and isinstance(other, list):
            if len(one) != len(other):
                return False
            pending += zip(one, other, strict=True)
        elif (one is not other) if isinstance(one, bool) or isinstance(other, bool) else one != other:
            return False
    return True


MAX_JSON_DEPTH = 100
"""Deepest nesting of JSON that is kept or sent: Rails, which Kapso's own errors are in the form of, reads no deeper JSON by
default. Reading and writing the state folder takes Python's stack, which has room for several hundred levels."""


def is_nested_within(value: Json | Mapping[str, Json], depth: int) -> bool:
    """Return whether objects and lists are nested at most ``depth`` levels; a plain value has none."""
    level: list[Mapping[str, Json] | list[Json]] = [value] if isinstance(value, Mapping | list) else []
    for _ in range(depth):
        # What a decoder makes is of exactly these types. A list of a thousand functions has twenty thousand values.
        inside = (each for item in level for each in (item if type(item) is list else item.values()))  # type: ignore[union-attr]
        level = [each for each in inside if type(each) in _NESTING]  # type: ignore[misc]
        if not level:
            return True
    return not level


_NESTING = frozenset({dict, list})


def shared_text(text: str) -> str:
    """Return one object for equal short texts that follow each other closely: a thousand functions have few types and modes."""
    return _shared(text) if len(text) <= MAX_SHARED else text


@functools.lru_cache(maxsize=64)
def _shared(text: str) -> str:
    return text
