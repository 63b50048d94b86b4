"""Measures how similar two pieces of code are. Pure, and fast enough for many pairs."""

from __future__ import annotations

from collections import Counter

SIMILAR = 0.9
"""From here on two functions may be one under two names."""

SIZES = 0.8
"""A shorter code with less than this share of the longer one's lines is not compared: it cannot reach `ALIKE`."""

MAX_COMPARED_LINES = 5_000
"""Lines beyond which only equal code counts as alike."""


def similarity(left: str | None, right: str | None) -> float:
    """Return from 0 to 1 how many lines two codes share, whatever their order and indentation; unknown code is like nothing.

    Linear in the lines.
    """
    if left is None or right is None:
        return 0.0
    if left == right:
        return 1.0
    mine, theirs = _lines(left), _lines(right)
    few, many = sorted((mine.total(), theirs.total()))
    if not few or few < SIZES * many or many > MAX_COMPARED_LINES:
        return 0.0
    return 2.0 * (mine & theirs).total() / (few + many)


def _lines(code: str) -> Counter[str]:
    return Counter(stripped for line in code.splitlines() if (stripped := line.strip()))
