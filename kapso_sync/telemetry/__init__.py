"""What people and programs get to see of a running kapso-sync: a listener to the core's events writes the log.

`logs` sets structlog up, `redact` takes secrets out of everything that leaves the program.
"""

from kapso_sync.telemetry.logs import LogListener, LogSettings, make_logger, reconcile_context
from kapso_sync.telemetry.redact import Redactor

__all__ = ["LogListener", "LogSettings", "Redactor", "make_logger", "reconcile_context"]
