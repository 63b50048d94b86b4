"""Decides how everything is printed: width, colour, progress, logs, and how foreign text is made safe.

rich wraps and colours. A pipe without colour needs neither, and does not load it.
"""

from __future__ import annotations

import functools
import io
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TextIO, cast

from kapso_sync.cli.plain import write_text
from kapso_sync.dataclass import dataclass
from kapso_sync.model import events
from kapso_sync.telemetry.redact import Redactor
from kapso_sync.visible import json_text, safe_json_text, visible, visible_code, without_commands

if TYPE_CHECKING:
    from rich.console import Console as RichConsole
    from rich.progress import Progress as Bars
    from rich.text import Text

DEFAULT_WIDTH = 80
"""Columns of a terminal that does not say how wide it is."""

MIN_WIDTH = 20
"""Columns below which lines are not wrapped any further."""

MAX_NAMES = 24
"""How many names of a group a terminal shows; a pipe shows all of them."""

_IN_ASCII = str.maketrans({"✓": "+", "✗": "x", "─": "-", "…": "...", "“": '"', "”": '"', "→": "->", "·": "-"})
"""What our own texts hold beyond ASCII, for streams that cannot show it; the stream replaces everything else."""

_COMMAND = re.compile(r"(?<![^\s`])[^\s`]*+`[^`]*`[^\s`]*")
"""Text in backquotes, with what touches it; looked for at the start of words alone, so that a long word costs one look."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a line. ``whole``: people copy it, so it is never broken."""

    text: str
    style: str = ""
    whole: bool = False


Part = str | tuple[str, str] | Piece
"""A text, a text with its style, or a `Piece`."""


def whole(text: str, style: str = "") -> Piece:
    """Return a part of a line that is never broken, such as a path with spaces."""
    return Piece(text, style, whole=True)


def uses_colour(environment: Mapping[str, str], *, terminal: bool) -> bool:
    """Return whether output is coloured: NO_COLOR goes before FORCE_COLOR, that before TERM=dumb, else a terminal decides."""
    if environment.get("NO_COLOR"):
        return False
    if environment.get("FORCE_COLOR"):
        return True
    return terminal and environment.get("TERM") != "dumb"


def shows_progress(environment: Mapping[str, str], *, terminal: bool) -> bool:
    """Return whether a progress bar may be drawn: on a terminal that can move its cursor, and never in CI."""
    in_ci = environment.get("CI", "").lower() not in ("", "0", "false")
    return terminal and environment.get("TERM") != "dumb" and not in_ci


class Console:
    """Prints lines to one stream.

    A terminal gets lines that are wrapped at words. Anything else gets one line for each `line`, so that grep works. Every text
    is made `visible`, nothing in it is markup, and no line is a command to a CI system. Nothing else writes to these streams.
    ``redactor`` removes the secrets of this process from everything but the log, whose lines went through it before.
    """

    def __init__(self, stream: TextIO, environment: Mapping[str, str], redactor: Redactor | None = None) -> None:
        self._redactor = redactor or Redactor()
        self.terminal = stream.isatty()
        self.colour = uses_colour(environment, terminal=self.terminal)
        self.progress = shows_progress(environment, terminal=self.terminal)
        self._stream = stream
        self._columns = environment.get("COLUMNS", "")

    @functools.cached_property
    def _rich(self) -> RichConsole:
        from rich.console import Console as RichConsole

        return RichConsole(
            file=self._stream,
            color_system="standard" if self.colour else None,
            no_color=not self.colour,
            force_terminal=self.terminal,
            force_interactive=self.progress,
            highlight=False,
            markup=False,
            emoji=False,
            soft_wrap=True,
        )

    @property
    def _is_plain(self) -> bool:
        """Whether lines are neither wrapped nor coloured."""
        return not (self.terminal or self.colour)

    @property
    def width(self) -> int | None:
        """The columns of the terminal; None if lines are not wrapped."""
        if not self.terminal:
            return None
        if self._columns.isdecimal() and len(self._columns) < 6 and int(self._columns):
            return max(MIN_WIDTH, int(self._columns))
        try:
            columns = os.get_terminal_size(self._stream.fileno()).columns
        except (OSError, ValueError):
            columns = 0
        return max(MIN_WIDTH, columns or DEFAULT_WIDTH)

    def line(self, *parts: Part, style: str = "", indent: int = 0, hang: int = 2) -> None:
        """Print one line. On a terminal its continuations are indented by ``hang`` more columns than its start."""
        if self._is_plain:
            self._print_plainly("".join(self._shown(_piece(part).text) for part in parts), indent)
            return
        text, unbroken = _assemble(parts, style, self._shown)
        for number, piece in enumerate(_wrapped(text, unbroken, self.width, indent, indent + hang)):
            self._draw(piece, indent if number == 0 else indent + hang)

    def verbatim(self, text: str, style: str = "", indent: int = 0) -> None:
        """Print a line of code or of a diff, which is never wrapped."""
        self._print(self._shown(text, visible_code), style, indent)

    def document(self, document: Mapping[str, Any]) -> None:
        """Print one JSON document."""
        self._write(json_text(self._redactor.document(document)))

    def json_line(self, document: Mapping[str, Any]) -> None:
        """Print one of many JSON documents on a line of its own, at once: a program may wait for it."""
        self._write(json_text(self._redactor.document(document), indent=None))
        self.flush()

    def markdown(self, text: str) -> None:
        """Print a page of Markdown, whose texts are safe already."""
        self._write(self.safe_markdown(text))

    def safe_markdown(self, text: str) -> str:
        """Return a page of Markdown as it is printed: without secrets, and without a line that a runner obeys."""
        lines = self._redactor.text(text.removesuffix("\n")).split("\n")
        return "\n".join(map(without_commands, lines))

    def annotation(self, line: str) -> None:
        """Print a command to GitHub's runner, whose values are escaped already."""
        self._write(self._redactor.text(line))

    def json_text(self, text: str) -> None:
        """Print JSON that somebody else has written, as it is written; it can be read as JSON, and controls no terminal."""
        self._write(safe_json_text(self._redactor.text(text)))

    def _write(self, text: str) -> None:
        write_text(self._stream, text)

    def blank(self) -> None:
        """Print an empty line."""
        self._print("")

    def title(self, text: str) -> None:
        """Print a heading, on a terminal with a rule behind it."""
        if self._is_plain:
            self._print_plainly(self._shown(text))
            return
        from rich.cells import cell_len
        from rich.text import Text

        rule = " " + "─" * max(0, self.width - cell_len(text) - 1) if self.width else ""
        self._draw(Text.assemble((self._shown(text), "bold"), (self._shown(rule), "green")))

    def error(self, message: str, hint: str | None = None) -> None:
        """Print an error, and what to do about it."""
        self.line(("error: ", "bold red"), message)
        if hint:
            self.hint(hint)

    def warning(self, message: str) -> None:
        """Print a warning."""
        self.line(("warning: ", "yellow"), message)

    def hint(self, text: str, indent: int = 0) -> None:
        """Print what can be done."""
        self.line(("hint: ", "cyan"), text, indent=indent)

    def names(self, names: Sequence[str]) -> str:
        """Return names in a row; a terminal shows the first ones and the number of the others."""
        if self.width is None or len(names) <= MAX_NAMES:
            return ", ".join(names)
        return f"{', '.join(names[:MAX_NAMES])} and {len(names) - MAX_NAMES} more"

    def log_stream(self) -> TextIO:
        """Return a stream for log lines, which are printed above a progress bar rather than into it."""
        return cast("TextIO", _LogStream(self, self._stream))

    def log(self, text: str) -> None:
        """Print lines of the log, which are safe already and may be coloured."""
        if self.terminal:
            from rich.text import Text

            self._rich.print(Text.from_ansi(text.removesuffix("\n")))
        else:
            self._stream.write(text)

    def bars(self) -> Bars:
        """Return a progress bar that vanishes when it stops."""
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bars

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        return Bars(*columns, console=self._rich, transient=True, redirect_stdout=False, redirect_stderr=False)

    def flush(self) -> None:
        """Write everything out."""
        self._stream.flush()

    def _shown(self, text: str, spelled: Callable[[str], str] = visible) -> str:
        """Return a text without secrets and control characters, in characters that the stream's encoding has."""
        text = spelled(self._redactor.text(text))
        try:
            text.encode(getattr(self._stream, "encoding", None) or "utf-8")
        except UnicodeEncodeError:
            return text.translate(_IN_ASCII)
        return text

    def _print(self, text: str, style: str = "", indent: int = 0) -> None:
        if self._is_plain:
            self._print_plainly(text, indent)
            return
        from rich.text import Text

        self._draw(Text(text, style), indent)

    def _print_plainly(self, text: str, indent: int = 0) -> None:
        safe = without_commands(text)
        self._write(" " * indent + safe if safe else safe)
        self.flush()  # as rich does: a reader of the pipe sees each line at once

    def _draw(self, text: Text, indent: int = 0) -> None:
        from rich.text import Text

        safe = without_commands(text.plain)
        if safe != text.plain:
            text = Text(safe, text.style)
        self._rich.print(Text.assemble(" " * indent, text) if indent and text.plain else text)


def stdout_console(redactor: Redactor | None = None) -> Console:
    """Return the console for reports."""
    return Console(sys.stdout, os.environ, redactor)


def stderr_console(redactor: Redactor | None = None) -> Console:
    """Return the console for errors, progress and logs."""
    return Console(sys.stderr, os.environ, redactor)


class _LogStream(io.TextIOBase):
    """A stream whose lines go through a console."""

    def __init__(self, console: Console, stream: TextIO) -> None:
        self._console = console
        self._under = stream

    def write(self, text: str) -> int:
        self._console.log(text)
        return len(text)

    def flush(self) -> None:
        self._under.flush()

    def isatty(self) -> bool:
        return self._console.terminal


class Progress:
    """A listener that counts deployments; the bar appears with the first one and vanishes at the end."""

    def __init__(self, console: Console) -> None:
        self._bars = console.bars() if console.progress else None
        self._started: set[str] = set()
        self._ended: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bars is not None:
            self._bars.stop()

    def listen(self, event: events.Event) -> None:
        """Count deployments."""
        if self._bars is None:
            return
        if isinstance(event, events.DeployStarted):
            self._started.add(event.slug)
        elif isinstance(event, events.DeploySucceeded | events.DeployFailed | events.DeployTimedOut):
            self._started.add(event.slug)
            self._ended.add(event.slug)
        else:
            return
        if not self._bars.tasks:
            self._bars.add_task("deploying", total=None)
            self._bars.start()
        self._bars.update(self._bars.tasks[0].id, completed=len(self._ended), total=len(self._started))


def _piece(part: Part) -> Piece:
    return part if isinstance(part, Piece) else Piece(*((part,) if isinstance(part, str) else part))


def _assemble(parts: Sequence[Part], style: str, shown: Callable[[str], str]) -> tuple[Text, list[tuple[int, int]]]:
    """Return the text of a line, each part as it is ``shown``, and the ranges in it that must not be broken."""
    from rich.text import Text

    text, unbroken = Text(style=style), list[tuple[int, int]]()
    for part in parts:
        piece = _piece(part)
        begin = len(text)
        text.append(shown(piece.text), piece.style or None)
        if piece.whole:
            unbroken.append((begin, len(text)))
    return text, unbroken


def _wrapped(text: Text, unbroken: Sequence[tuple[int, int]], width: int | None, first: int, rest: int) -> Iterator[Text]:
    """Yield the lines of a text, for a first line that starts in column ``first`` and others that start in ``rest``."""
    from rich.cells import cell_len

    if width is None or first + cell_len(text.plain) <= width:
        yield text
        return
    plain, breaks, column, end = text.plain, list[int](), first, 0
    for begin, stop in _words(plain, unbroken, width - rest):
        gap, size = cell_len(plain[end:begin]), cell_len(plain[begin:stop])
        if end and column + gap + size > width:
            breaks.append(begin)
            column = rest + size
        else:
            column += gap + size
        end = stop
    for line in text.divide(breaks):
        line.rstrip()
        yield line


def _words(plain: str, unbroken: Sequence[tuple[int, int]], room: int) -> Iterator[tuple[int, int]]:
    """Yield the ranges between which a line may be broken: words, commands in backquotes, and what is ``whole``."""
    from rich.cells import cell_len

    commands = [
        match.span() for match in _COMMAND.finditer(plain) if cell_len(match[0]) <= room or match[0].startswith("`kapso-sync ")
    ]
    kept, end = sorted([*unbroken, *commands]), 0
    for match in re.finditer(r"\S+", plain):
        begin, stop = match.span()
        if begin < end:
            continue
        for low, high in kept:
            if low < stop and begin < high:
                stop = max(stop, high)
        yield begin, stop
        end = stop
