"""Reads files that an administrator mounts: settings, credentials, addresses. A byte order mark is no part of any value."""

from __future__ import annotations

import re
from pathlib import Path

from kapso_sync.errors import ConfigError
from kapso_sync.permissions import describe_owner, hint_for_owner

BYTE_ORDER_MARK = "\ufeff"


def read_mounted_text(place: str, path: Path, *, missing: str, most: int | None = None) -> str:
    """Return the UTF-8 text of a file, at most ``most`` bytes of it.

    Raises `ConfigError` whose message begins with ``place``: it says whose the file is if it may not be read, and otherwise
    hints at ``missing``.
    """
    try:
        with path.open("rb") as file:
            content = file.read() if most is None else file.read(most)
    except PermissionError as error:
        raise ConfigError(f"{place} cannot be read: {describe_owner(path)}", hint=hint_for_owner(path)) from error
    except OSError as error:
        raise ConfigError(f"{place} cannot be read: {error.strerror}", hint=missing) from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{place} cannot be read: it is not UTF-8 text", hint="save it as UTF-8") from error


def header_value(place: str, text: str) -> str:
    """Return a credential that an HTTP header can carry: without a byte order mark, and without blanks and line ends around it.

    Raises `ConfigError` that names the place and the position of what no credential has, and never shows the value.
    """
    text = text.removeprefix(BYTE_ORDER_MARK)
    found = text.strip(" \t\r\n")
    begin = text.index(found)
    for offset, character in enumerate(found, start=begin):
        if "!" <= character <= "~" or character == " ":
            continue
        before = re.split(r"\r\n|\n|\r", text[:offset])
        if character in "\r\n":
            raise ConfigError(
                f"{place} has more than one line: line {len(before)} is not the last",
                hint="keep the value alone in it: no comment, no second value",
            )
        line = f"line {len(before)}, " if len(before) > 1 else ""
        raise ConfigError(
            f"{place}: {line}character {len(before[-1]) + 1} is U+{ord(character):04X}, which no key has",
            hint="copy the value again; an editor may have changed quotes or dashes",
        )
    return found
