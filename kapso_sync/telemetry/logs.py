"""Configures structlog: one JSON object per line, or a console for people; the redactor processes every line last."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, MutableMapping
from typing import Any, Literal, TextIO

import structlog
from structlog.contextvars import bind_contextvars, clear_contextvars, merge_contextvars
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import FilteringBoundLogger, Processor

from kapso_sync.dataclass import dataclass
from kapso_sync.model.clock import Clock
from kapso_sync.model.events import Event, FunctionEvent, Level, SourceChanged, SourceUnchanged, fields_of
from kapso_sync.telemetry.redact import Redactor
from kapso_sync.visible import safe_json, visible, without_commands


@dataclass(frozen=True, slots=True)
class LogSettings:
    """``level`` is that of `Level`, or ``off``. ``form`` auto means console on a terminal and JSON elsewhere.

    ``colour`` colours the console form.
    """

    level: str = "info"
    form: Literal["auto", "json", "console"] = "auto"
    colour: bool = False


def make_logger(settings: LogSettings, stream: TextIO, clock: Clock, redactor: Redactor) -> FilteringBoundLogger:
    """Return a logger that writes to ``stream``; nothing global is configured."""
    console = settings.form == "console" or (settings.form == "auto" and stream.isatty())
    renderer: Processor = (
        structlog.dev.ConsoleRenderer(colors=settings.colour, pad_event_to=24, sort_keys=False)
        if console
        else structlog.processors.JSONRenderer()
    )
    processors: list[Processor] = [
        merge_contextvars,
        structlog.processors.add_log_level,
        _timestamp(clock),
        structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False)),
        redactor,
        *((_one_line,) if console else ()),
        renderer,
    ]
    logger: FilteringBoundLogger = structlog.wrap_logger(
        _Stream(stream, without_commands if console else safe_json),
        processors=processors,
        # No event is critical, so this level writes nothing.
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.CRITICAL if settings.level == "off" else getattr(logging, settings.level.upper())
        ),
        cache_logger_on_first_use=False,
    )
    return logger


class LogListener:
    """Writes each event as one line: its name, its level, and every field that is not None."""

    def __init__(self, logger: FilteringBoundLogger) -> None:
        self._logger = logger
        self._author: str | None = None

    def __call__(self, event: Event) -> None:
        """Log an event at its own level."""
        self.write(event, event.level)

    def notice(self, event: Event) -> None:
        """Bind the source's revision to every following line of the pass."""
        if isinstance(event, SourceChanged | SourceUnchanged):
            bind_contextvars(revision=event.revision)
        if isinstance(event, SourceChanged):
            self._author = event.author

    def write(self, event: Event, level: Level) -> None:
        """Log an event at this level."""
        self.notice(event)
        values = fields_of(event)
        # structlog calls a line's name `event`, like its own parameter; our fields keep clear of it.
        fields = {name: value for name, value in values.items() if value is not None and name != "event"}
        if isinstance(event, FunctionEvent) and event.level is Level.ERROR and self._author is not None:
            fields["author"] = self._author
        getattr(self._logger, str(level))(event.name, **fields)


@contextlib.contextmanager
def reconcile_context(reconcile_id: str) -> Iterator[None]:
    """Bind the pass's id to every line that is logged within."""
    clear_contextvars()
    bind_contextvars(reconcile_id=reconcile_id)
    try:
        yield
    finally:
        clear_contextvars()


class _Stream:
    """The output. A closed or broken stream loses the line, and never stops the program. ``safe`` completes each line."""

    def __init__(self, stream: TextIO, safe: Callable[[str], str]) -> None:
        self._stream = stream
        self._safe = safe

    def msg(self, line: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(self._safe(line).encode("utf-8", "replace").decode("utf-8") + "\n")
            self._stream.flush()

    debug = info = warning = error = critical = msg


def _timestamp(clock: Clock) -> Processor:
    def stamp(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        moment = clock.now().isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return {"timestamp": moment, "level": event.pop("level", None), "event": event.pop("event", None), **event}

    return stamp


def _one_line(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Spell out control characters, so that no value can forge a line or control the terminal."""
    return {key: visible(value) if isinstance(value, str) else value for key, value in event.items()}
