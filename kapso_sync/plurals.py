"""Writes a number and its noun, a duration, and alternatives."""

from __future__ import annotations

from collections.abc import Iterable


def counted(number: int, noun: str) -> str:
    """Return ``1 function`` or ``2 functions``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def alternatives(words: Iterable[str]) -> str:
    """Return ``a``, ``a or b``, or ``a, b or c``; there must be one word."""
    *others, last = words
    return f"{', '.join(others)} or {last}" if others else last


def span(seconds: float) -> str:
    """Return a duration in one or two units: ``45 s``, ``3 min``, ``2 h 5 min``, ``4 days``."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    parts, rest = list[str](), whole
    for name, size in (("day", 86400), ("h", 3600), ("min", 60)):
        count, rest = divmod(rest, size)
        if count:
            parts.append(counted(count, name) if name == "day" else f"{count} {name}")
    # A duration of a day or more is shown in whole days.
    return parts[0] if whole >= 86400 else " ".join(parts)
