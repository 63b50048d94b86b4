"""Measures how similar two pieces of code are. Pure, and fast enough for many pairs."""

from __future__ import annotations

from collections import Counter

SIMILAR = 0.9
"""From this similarity on, two functions may be one function under two names."""

SIZES = 0.8
"""Code with a smaller share of the other one's lines is not compared: it cannot reach `SIMILAR`."""

MAX_COMPARED_LINES = 5_000
"""Code with more lines is similar only if it is equal."""


def similarity(left: str | None, right: str | None) -> float:
    """Return the share of lines, from 0 to 1, that two codes have in common, in any order and indentation.

    Unknown code has nothing in common with any other. Linear in the number of lines.
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
