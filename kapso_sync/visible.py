"""Makes foreign text safe to show: no text can control a terminal, forge a line, or give a command to a CI system."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

_TAB_WIDTH = 4

_COMMAND_MARK = re.compile(r"##(?=\w*\[)")
"""What makes a command of any part of a line: ``##[error]`` on GitHub, ``##vso[…]`` on Azure, ``##teamcity[…]`` on TeamCity."""


def visible(text: str) -> str:
    r"""Return text with every character that does not print spelled out, such as ``\x1b`` or ``\u202e``.

    This is the one rule for slugs, messages, diffs and log values. It covers line breaks, tabs, both ranges of control
    characters, lone surrogates, and the marks that reverse the direction of a text.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def visible_code(text: str) -> str:
    """Return a line of code like `visible`, with tabs as spaces: they are everywhere in code, and mean nothing else there."""
    return visible(text.expandtabs(_TAB_WIDTH))


def visible_lines(text: str) -> list[str]:
    """Return the lines of a text, each of them safe to show; at least one."""
    return [visible_code(line) for line in text.splitlines()] or [""]


def without_commands(line: str) -> str:
    r"""Return a line that no CI system takes for a command, such as ``\x3a:error::`` for ``::error::``.

    Source: GitHub's runner (`ActionCommand.cs`) drops the spaces before a line, and takes it for a command if it starts with
    ``::``, or has ``##[`` anywhere.
    """
    line = _COMMAND_MARK.sub(r"#\\x23", line)
    start = len(line) - len(line.lstrip())
    return f"{line[:start]}\\x3a{line[start + 1 :]}" if line.startswith("::", start) else line


def json_text(document: Mapping[str, object], *, indent: int | None = 2) -> str:
    """Return a JSON document in ASCII without control characters, and without commands of CI systems in its texts."""
    return safe_json(json.dumps(document, indent=indent))


def safe_json(text: str) -> str:
    """Return JSON in ASCII with the same values, and with what terminals and CI systems heed escaped."""
    return _COMMAND_MARK.sub(r"#\\u0023", text.replace("\x7f", "\\u007f"))


def safe_json_text(text: str) -> str:
    r"""Return JSON as it is written, with the same values, and each character that does not print as ``\uXXXX``.

    Only texts may hold such characters, but for the white space between values, which stays one space for one.
    """
    shown = "".join(char if char.isprintable() or char == "\n" else _escaped(char) for char in text)
    return _COMMAND_MARK.sub(r"#\\u0023", shown)


def _escaped(char: str) -> str:
    return " " if char in "\t\r" else json.dumps(char)[1:-1] if char != "\x7f" else "\\u007f"
