"""Builds the event bus, which writes the log."""

from __future__ import annotations

from typing import TextIO

from kapso_sync.advice import Advise, as_it_is
from kapso_sync.clock import SystemClock
from kapso_sync.settings import Settings
from kapso_sync.telemetry.event_bus import EventBus
from kapso_sync.telemetry.logs import LogSettings
from kapso_sync.telemetry.redact import Redactor


def make_event_bus(  # noqa: PLR0913 - each is something that another caller decides
    settings: Settings,
    stream: TextIO,
    *,
    level: str = "info",
    quiet: bool = False,
    advise: Advise = as_it_is,
    colour: bool = False,
    redactor: Redactor | None = None,
) -> EventBus:
    """Return the event bus, which logs to ``stream``; ``level`` is the default level.

    ``redactor`` is the one that everything else of this process is printed through, where there is one.
    """
    logs = log_settings(settings, level, colour=colour)
    return EventBus(logs, stream, SystemClock(), redactor or Redactor(), quiet=quiet, advise=advise)


def log_settings(settings: Settings, level: str = "info", *, colour: bool = False) -> LogSettings:
    """Return the log settings; ``level`` is the default level."""
    return LogSettings(settings.log_level or level, settings.log_format, colour)
