"""Defines JSON values, and reads them leniently."""

from __future__ import annotations

import json
from typing import TypeGuard

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]
"""Any JSON value."""

JsonObject = dict[str, Json]


def parse_json(body: bytes) -> Json:
    """Return the value in ``body``; raise ValueError for anything that is not JSON, absurd nesting included."""
    try:
        value: Json = json.loads(body)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return value


def dump_json(value: Json) -> bytes:
    """Return ``value`` as JSON in plain ASCII, so that lone surrogates survive."""
    return json.dumps(value, separators=(",", ":")).encode("ascii")


def is_int(value: object) -> TypeGuard[int]:
    """Return whether ``value`` is a whole number; true is not a number in JSON."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> TypeGuard[float]:
    """Return whether ``value`` is a number; true is not a number in JSON."""
    return isinstance(value, int | float) and not isinstance(value, bool)
