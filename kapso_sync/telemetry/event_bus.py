"""Passes each event to the log and to all other listeners."""

from __future__ import annotations

import dataclasses
from typing import TextIO

from kapso_sync.advice import Advise, as_it_is
from kapso_sync.model import events
from kapso_sync.model.clock import Clock
from kapso_sync.telemetry.log_dedup import DeduplicatingLog
from kapso_sync.telemetry.logs import LogListener, LogSettings
from kapso_sync.telemetry.redact import Redactor


class EventBus:
    """Logs events to ``stream``, and calls the other listeners. ``redactor`` knows this process's secrets.

    ``quiet``: log like a daemon, which writes nothing while nothing happens. ``advise`` completes the commands in hints.
    """

    def __init__(
        self,
        settings: LogSettings,
        stream: TextIO,
        clock: Clock,
        redactor: Redactor,
        *,
        quiet: bool = False,
        advise: Advise = as_it_is,
    ) -> None:
        self.redactor = redactor
        self._advise = advise
        self._stream = stream
        self._clock = clock
        self._quiet = quiet
        self._others: tuple[events.Listener, ...] = ()
        self._log: tuple[events.Listener, ...] = ()
        self.configure(settings)

    def configure(self, settings: LogSettings) -> None:
        """Use these log settings from now on."""
        log = LogListener(settings, self._stream, self._clock, self.redactor)
        self._log = (log.notice, DeduplicatingLog(log.write, self._clock)) if self._quiet else (log,)

    def add(self, *listeners: events.Listener) -> None:
        """Add listeners, which are called after the log."""
        self._others += listeners

    def emit(self, event: events.Event) -> None:
        """Call every listener with the event."""
        advised = self._advised(event)
        for listener in self._log:
            listener(advised)
        for listener in self._others:
            listener(event)

    def _advised(self, event: events.Event) -> events.Event:
        texts = {name: getattr(event, name, None) for name in ("hint", "message")}
        completed = {name: self._advise(text) for name, text in texts.items() if isinstance(text, str)}
        return dataclasses.replace(event, **completed) if completed else event
