"""What people and programs get to see of a running kapso-sync: a listener to the core's events writes the log.

`logs` sets structlog up, `quiet` keeps a daemon's log short, `redact` takes secrets out of everything that leaves the program,
`metrics` counts, and `board` keeps the status that page and JSON show.
"""

from kapso_sync.telemetry.board import StatusBoard
from kapso_sync.telemetry.logs import LogListener, LogSettings, make_logger, reconcile_context
from kapso_sync.telemetry.quiet import QuietLog
from kapso_sync.telemetry.redact import Redactor

__all__ = ["LogListener", "LogSettings", "QuietLog", "Redactor", "StatusBoard", "make_logger", "reconcile_context"]
