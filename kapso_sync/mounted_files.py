"""Reads files that an administrator mounts: settings, credentials, addresses. A byte order mark is no part of any value."""

from __future__ import annotations

import codecs
import re
from pathlib import Path

from kapso_sync.errors import ConfigError
from kapso_sync.files import read_small, read_stream
from kapso_sync.permissions import describe_owner, hint_for_owner

BYTE_ORDER_MARK = "\ufeff"
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


MAX_BYTES = 1024 * 1024
"""Maximum size of a mounted file, in bytes, unless a caller expects less."""

PIPE_PATIENCE = 60.0
"""Seconds to wait for the next byte of a pipe: the program that writes it may first ask for a passphrase."""


def read_mounted(place: str, path: Path, *, missing: str, limit: int = MAX_BYTES, pipe: bool = False) -> bytes:
    """Return the content of a regular file of at most ``limit`` bytes; with ``pipe`` it need not be a file.

    Raises `ConfigError` whose message begins with ``place``: it says whose the file is if it may not be read, and otherwise
    hints at ``missing``.
    """
    try:
        # A shell makes a pipe of `--env-file <(sops decrypt …)`, which can be read once: so no file that is read again may be
        # one. A mounted file is a link, which moves when the content changes.
        return read_stream(path, limit, PIPE_PATIENCE) if pipe else read_small(path, limit, follow=True)
    except PermissionError as error:
        raise ConfigError(f"{place} cannot be read: {describe_owner(path)}", hint=hint_for_owner(path)) from error
    except OSError as error:
        raise ConfigError(f"{place} cannot be read: {error.strerror or error}", hint=missing) from error


def read_mounted_text(place: str, path: Path, *, missing: str, limit: int = MAX_BYTES, pipe: bool = False) -> str:
    """Return the UTF-8 text of a file; raises like `read_mounted`."""
    content = read_mounted(place, path, missing=missing, limit=limit, pipe=pipe)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        lines = re.split(rb"\r\n|\n|\r", content.removeprefix(codecs.BOM_UTF8)[: error.start])
        where = "" if content.startswith(_UTF_16) else f" at line {len(lines)}, byte {len(lines[-1]) + 1}"
        raise ConfigError(f"{place} cannot be read: it is not UTF-8 text{where}", hint="save it as UTF-8") from error


_COPY_AGAIN = "copy the value again; an editor may have changed quotes or dashes"


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
                f"{place} has more than one line: more follows line {len(before)}",
                hint="keep the value alone in it: no comment, no second value",
            )
        line = f"line {len(before)}, " if len(before) > 1 else ""
        raise ConfigError(
            f"{place}: {line}character {len(before[-1]) + 1} is U+{ord(character):04X}, which no credential has",
            hint="save it as UTF-8 text" if character == "\0" else _COPY_AGAIN,
        )
    return found
