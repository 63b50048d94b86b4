"""Writes events through structlog: one JSON object per line, or a console for people; the redactor processes every line last.

structlog is imported with the first line, since many commands log nothing, and without the libraries that none of our lines
needs.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, TextIO

from kapso_sync.dataclass import dataclass
from kapso_sync.model.clock import Clock
from kapso_sync.model.events import Event, FunctionEvent, Level, SourceChanged, SourceUnchanged, fields_of
from kapso_sync.telemetry.redact import Redactor
from kapso_sync.units import timestamp
from kapso_sync.visible import safe_json, visible, without_commands

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger, Processor

_LEVELS = {str(level): getattr(logging, level.name) for level in Level} | {"off": logging.CRITICAL}
"""The levels of settings as numbers. No event is critical, so ``off`` writes nothing."""

_EXTRAS = ("rich", "greenlet")

_NO_PASS: Mapping[str, str] = MappingProxyType({})

_context: ContextVar[Mapping[str, str]] = ContextVar("log context", default=_NO_PASS)
"""Fields of every line of a pass."""


@dataclass(frozen=True, slots=True)
class LogSettings:
    """``level`` is that of `Level`, or ``off``. ``form`` auto means console on a terminal and JSON elsewhere.

    ``colour`` colours the console form.
    """

    level: str = "info"
    form: Literal["auto", "json", "console"] = "auto"
    colour: bool = False


class LogListener:
    """Writes each event to ``stream`` as one line: its name, its level, and every field that is not None."""

    def __init__(self, settings: LogSettings, stream: TextIO, clock: Clock, redactor: Redactor) -> None:
        self._level = _LEVELS[settings.level.lower()]
        console = settings.form == "console" or (settings.form == "auto" and stream.isatty())
        output = _Stream(stream, without_commands if console else safe_json)
        colour = settings.colour if console else None
        self._logger = functools.cache(lambda: _make_logger(output, self._level, clock, redactor, colour))
        self._author: str | None = None

    def __call__(self, event: Event) -> None:
        """Log an event at its own level."""
        self.write(event, event.level)

    def notice(self, event: Event) -> None:
        """Bind the source's revision to every following line of the pass, and to none outside of one."""
        if isinstance(event, SourceChanged | SourceUnchanged) and (context := _context.get()) is not _NO_PASS:
            _context.set({**context, "revision": event.revision})
        if isinstance(event, SourceChanged):
            self._author = event.author

    def write(self, event: Event, level: Level) -> None:
        """Log an event at this level."""
        self.notice(event)
        if _LEVELS[str(level)] < self._level:
            return
        values = fields_of(event)
        # structlog calls a line's name `event`, like its own parameter; our fields keep clear of it.
        fields = {name: value for name, value in values.items() if value is not None and name != "event"}
        if isinstance(event, FunctionEvent) and event.level is Level.ERROR and self._author is not None:
            fields["author"] = self._author
        getattr(self._logger(), str(level))(event.name, **fields)


@contextlib.contextmanager
def reconcile_context(reconcile_id: str) -> Iterator[None]:
    """Bind the pass's id to every line that is logged within."""
    _context.set({"reconcile_id": reconcile_id})
    try:
        yield
    finally:
        _context.set(_NO_PASS)


def _make_logger(output: _Stream, level: int, clock: Clock, redactor: Redactor, colour: bool | None) -> FilteringBoundLogger:
    """Return a logger; nothing global is configured. ``colour`` None: it writes JSON, in place of lines for a console."""
    with _without_extras():
        import structlog  # noqa: PLC0415 - see above
        from structlog.tracebacks import ExceptionDictTransformer  # noqa: PLC0415

    renderer: Processor = (
        structlog.processors.JSONRenderer()
        if colour is None
        else structlog.dev.ConsoleRenderer(colors=colour, pad_event_to=24, sort_keys=False)
    )
    processors: list[Processor] = [
        _with_context,
        structlog.processors.add_log_level,
        _timestamp(clock),
        structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False)),
        redactor,
        *(() if colour is None else (_one_line,)),
        renderer,
    ]
    logger: FilteringBoundLogger = structlog.wrap_logger(
        output,
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=False,
    )
    return logger


@contextlib.contextmanager
def _without_extras() -> Iterator[None]:
    """Hide from structlog what it loads wherever it is installed: rich for tracebacks, 3 MB, and greenlet, 1 MB."""
    loaded = {name: sys.modules.get(name) for name in _EXTRAS}
    sys.modules.update(dict.fromkeys(_EXTRAS))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name, module in loaded.items():
            sys.modules.pop(name, None)
            if module is not None:
                sys.modules[name] = module


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


def _with_context(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return {**event, **{name: value for name, value in _context.get().items() if name not in event}}


def _timestamp(clock: Clock) -> Processor:
    def stamp(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        moment = timestamp(clock.now())
        return {"timestamp": moment, "level": event.pop("level", None), "event": event.pop("event", None), **event}

    return stamp


def _one_line(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Spell out control characters, so that no value can forge a line or control the terminal."""
    return {key: visible(value) if isinstance(value, str) else value for key, value in event.items()}
