"""Patterns of checks: what is compiled, and what would take all memory."""

from __future__ import annotations

import time

import pytest

from kapso_sync.manifest.patterns import MAX_DEPTH, UnusablePattern, compile_pattern

UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"


@pytest.mark.parametrize(
    "pattern",
    [
        "a{100000000}",
        "a{100000000,}",
        "(?:(?:(?:a{1000}){1000}){1000}){1000}",
        "(?:a[)]{1000}){1000}",
        "(?:[](]{1000}){1000}",
        "(?:[[:alpha:]]{1000}){1000}",
        r"(?:\(a{1000}){1000}",
        "(?x)a{1000 000}",
        "(?i:(?#)b)(?:a{1000}(?#)){1000}",
        "(?#a{1000}" * 3,
        "x{9999}" * 140,
        "(" * 400 + ")" * 400,
        "(?|" * (MAX_DEPTH + 1) + ")" * (MAX_DEPTH + 1),
    ],
)
def test_a_pattern_that_would_take_all_memory_is_refused_at_once(pattern: str) -> None:
    """However its counts are hidden."""
    started = time.process_time()
    with pytest.raises(UnusablePattern):
        compile_pattern(pattern)
    assert time.process_time() - started < 5


@pytest.mark.parametrize(
    "pattern",
    [
        UUID,
        f"{UUID} {UUID} {UUID}",
        r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z$",
        r"a{2000}",
        r"\p{Lu}{3,}\{9999999\}",
        "(?x) a b",
    ],
)
def test_usual_patterns_are_compiled(pattern: str) -> None:
    """A count multiplies only what it stands behind."""
    compile_pattern(pattern)


def test_what_is_no_pattern_says_why() -> None:
    """In the words of the compiler."""
    with pytest.raises(UnusablePattern, match="missing \\)"):
        compile_pattern("(a")
