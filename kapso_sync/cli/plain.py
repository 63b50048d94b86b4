"""Prints without wrapping or colour, for commands that start too fast to load a console; as safe as `console`."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Mapping
from types import TracebackType
from typing import TextIO

from kapso_sync.visible import json_text, visible, visible_code, without_commands


def print_line(text: str) -> None:
    """Print one line of text to stdout."""
    write_text(sys.stdout, without_commands(visible(text)))


def print_document(document: Mapping[str, object]) -> None:
    """Print one JSON document to stdout."""
    write_text(sys.stdout, json_text(document))


def write_text(stream: TextIO, text: str) -> None:
    """Write a text that is safe already, and a line break, to a stream; what UTF-8 cannot encode becomes ``?``."""
    stream.write(f"{text.encode('utf-8', 'replace').decode('utf-8')}\n")


def print_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print an exception that nobody caught to stderr, as `sys.excepthook` does; its message may be foreign text."""
    for line in "".join(traceback.format_exception(kind, error, trace)).removesuffix("\n").split("\n"):
        write_text(sys.stderr, without_commands(visible_code(line)))
