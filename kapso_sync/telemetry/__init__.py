"""Logs, metrics and redaction: a listener to the core's events writes the log.

`logs` writes through structlog, `log_dedup` keeps a daemon's log short, `redact` removes secrets from everything that leaves
the program, and `metrics` counts. The package `status`, beside this one, keeps what the page and the JSON show.
"""

from kapso_sync.telemetry.event_bus import EventBus
from kapso_sync.telemetry.log_dedup import DeduplicatingLog
from kapso_sync.telemetry.logs import LogListener, LogSettings, reconcile_context
from kapso_sync.telemetry.redact import Redactor

__all__ = ["DeduplicatingLog", "EventBus", "LogListener", "LogSettings", "Redactor", "reconcile_context"]
