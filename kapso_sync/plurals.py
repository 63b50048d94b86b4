"""Writes a number and its noun."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """Return ``1 function`` or ``2 functions``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
