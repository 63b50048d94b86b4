"""Refuses regular expressions that take more memory to compile than a daemon has."""

from __future__ import annotations

import math
import re

MAX_SIZE = 20_000
"""Most parts of a pattern, each counted as often as it must match: the compiler makes about 500 bytes of each."""

MAX_DEPTH = 50
"""Most groups of a pattern inside each other."""

_TOKEN = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\[\](){}\\])*\]|\{(\d*)(?:,\d*)?\}|.", re.DOTALL)
_COUNT = re.compile(r"\{(\d+)")
_COMMENT = "(?#"
_VERBOSE = re.compile(r"\(\?[a-zA-Z0-9-]*x")


class UnusablePattern(ValueError):
    """A pattern is not compiled. The text says why."""


def compile_pattern(pattern: str) -> None:
    """Raise `UnusablePattern` if a pattern is none, or one that would not fit.

    ``a{100000000}`` has 12 characters, and its compiled form 4 GB: the compiler repeats a part as often as it must match.
    """
    if _size(pattern) > MAX_SIZE:
        raise UnusablePattern(f"its counts in braces make more than {MAX_SIZE:,} parts")
    import regex  # noqa: PLC0415 - few manifests have patterns, and it takes more than a megabyte

    try:
        regex.compile(pattern)
    except regex.error as error:
        raise UnusablePattern(str(error)) from None
    except RecursionError:
        raise UnusablePattern("its groups are nested too deeply") from None


def _size(pattern: str) -> float:
    """Return about how many parts a pattern has when each is written out as often as it must match; never too few.

    >>> _size("a{3}"), _size("(?:a{3}b){10}") > 40
    (3.0, True)
    """
    sizes, last = [0.0], 0.0
    for token in _TOKEN.finditer(pattern):
        text = token[0]
        if text == "[":
            return _upper_bound(pattern)  # a set with brackets in it, whose end only the compiler knows
        if text == "(":
            sizes.append(0.0)
            if len(sizes) > MAX_DEPTH:
                raise UnusablePattern(f"more than {MAX_DEPTH} of its groups are inside each other")
        elif text == ")" and len(sizes) > 1:
            last = sizes.pop() + 1
            sizes[-1] += last
        elif token[1] is not None:
            times = max(1, int(token[1] or 0))
            sizes[-1] += last * (times - 1)
            last *= times
        else:
            last = 1.0
            sizes[-1] += last
    spaced = _VERBOSE.search(pattern) is not None or _COMMENT in pattern
    return _upper_bound(pattern) if spaced else sum(sizes)


def _upper_bound(pattern: str) -> float:
    """Return the size of a pattern in which each count multiplies all the others, as far as it can be read at all."""
    if _VERBOSE.search(pattern) is not None and "{" in pattern:
        return math.inf
    return len(pattern) * math.prod(float(max(1, int(count))) for count in _COUNT.findall(pattern))
