"""Moments and durations as people say them."""

from __future__ import annotations

from datetime import datetime


def time_tag(moment: datetime | None, now: datetime) -> str:
    """Return a moment as a ``<time>`` with relative words; the exact moment is in its attributes."""
    if moment is None:
        return "at an unknown time"
    seconds = (moment - now).total_seconds()
    words = f"in {span(seconds)}" if seconds > 0 else f"{span(-seconds)} ago"
    exact = moment.isoformat(timespec="seconds").replace("+00:00", "Z")
    return f'<time datetime="{exact}" title="{exact}">{words}</time>'


def span(seconds: float) -> str:
    """Return a duration in one or two units: ``45 s``, ``3 min``, ``2 h 5 min``, ``4 days``."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    parts, rest = list[str](), whole
    for name, size in (("day", 86400), ("h", 3600), ("min", 60)):
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count} {name}{'s' if name == 'day' and count > 1 else ''}")
    # Beside days nobody asks for minutes, nor for hours.
    return parts[0] if whole >= 86400 else " ".join(parts)


def took(seconds: float) -> str:
    """Return how long something took, with tenths where they count."""
    return f"{seconds:.1f} s" if seconds < 10 else span(seconds)


def counted(number: int, noun: str) -> str:
    """Return ``1 function`` or ``2 functions``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
