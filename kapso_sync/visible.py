"""Makes foreign text safe to show: no text can control a terminal or forge a line."""

from __future__ import annotations


def visible(text: str) -> str:
    r"""Return text with every character that does not print spelled out, such as ``\x1b`` or ``\u202e``; tabs stay.

    This is the one rule for slugs, messages, diffs and log values. It covers line breaks, both ranges of control characters,
    and the marks that reverse the direction of a text.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char == "\t" else repr(char)[1:-1] for char in text)


def visible_lines(text: str) -> list[str]:
    """Return the lines of a text, each of them safe to show; at least one."""
    return [visible(line) for line in text.splitlines()] or [""]
