"""Reads durations and percentages, as settings and manifests spell them, and writes times as JSON has them."""

from __future__ import annotations

import re
from datetime import UTC, datetime

MAX_DURATION = 7 * 24 * 3600.0
"""Longest duration that anybody may name, in seconds."""

DURATION_PATTERN = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h|d))+$"
PERCENTAGE_PATTERN = "^[0-9]{1,3}%$"

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?(?:ms|s|m|h|d))+")
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")


def timestamp(moment: datetime) -> str:
    """Return a moment in UTC as RFC 3339 spells it, with milliseconds: ``2026-11-30T12:00:00.000Z``."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_duration(value: object) -> float:
    """Return the seconds of ``300ms``, ``20s``, ``5m``, ``1h30m``; raises ValueError for no text, zero, or more than a week."""
    if not isinstance(value, str) or not _DURATION.fullmatch(value.strip()):
        raise ValueError("expected a duration such as 300ms, 20s or 5m")
    seconds = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(value))
    if not 0 < seconds <= MAX_DURATION:
        raise ValueError("expected a duration above zero and of at most 7d")
    return seconds


def parse_percentage(value: object) -> int:
    """Return the number of ``80%``, from 1 to 100; raises ValueError."""
    match = re.fullmatch("([0-9]{1,3})%", str(value).strip())
    if match is None or not 1 <= int(match[1]) <= 100:
        raise ValueError("expected a percentage from 1% to 100%")
    return int(match[1])
