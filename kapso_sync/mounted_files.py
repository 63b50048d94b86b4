"""Reads files that an administrator mounts: settings, credentials, addresses. A byte order mark is no part of any value."""

from __future__ import annotations

import re
from pathlib import Path

from kapso_sync.errors import ConfigError
from kapso_sync.files import read_small, read_stream
from kapso_sync.permissions import describe_owner, hint_for_owner

BYTE_ORDER_MARK = "\ufeff"

MAX_FILE_BYTES = 1024 * 1024
"""Most bytes of a mounted file, whatever it is: a device may never end."""

PIPE_PATIENCE = 60.0
"""Seconds within which a pipe must end: the program behind it may ask its person for a password."""


def read_mounted(place: str, path: Path, *, missing: str, limit: int | None = None) -> bytes:
    """Return the content of a file. With a ``limit`` only a regular file of at most so many bytes is read, else a pipe too.

    Raises `ConfigError` whose message begins with ``place``: it says whose the file is if it may not be read, and otherwise
    hints at ``missing``.
    """
    try:
        # Without a limit the file may be a pipe, as a shell makes one of `--env-file <(sops decrypt …)`. A mounted file is a
        # link, which moves when the content changes.
        return read_stream(path, MAX_FILE_BYTES, PIPE_PATIENCE) if limit is None else read_small(path, limit, follow=True)
    except PermissionError as error:
        raise ConfigError(f"{place} cannot be read: {describe_owner(path)}", hint=hint_for_owner(path)) from error
    except OSError as error:
        raise ConfigError(f"{place} cannot be read: {error.strerror or error}", hint=missing) from error


def read_mounted_text(place: str, path: Path, *, missing: str, limit: int | None = None) -> str:
    """Return the UTF-8 text of a file; raises like `read_mounted`."""
    try:
        return read_mounted(place, path, missing=missing, limit=limit).decode("utf-8-sig")
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
