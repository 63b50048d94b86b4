"""Writes a number and its noun, and a duration."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """Return ``1 function`` or ``2 functions``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


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
