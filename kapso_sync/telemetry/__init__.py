"""Logs, metrics and redaction: a listener to the core's events writes the log.

`logs` writes through structlog, `log_dedup` keeps a daemon's log short, `redact` removes secrets from everything that leaves
the program, and `metrics` counts. The package `status`, beside this one, keeps what the page and the JSON show.

Names are imported from these modules: a command that only redacts does not load structlog.
"""
