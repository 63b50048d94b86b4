"""Builds every object from Settings, and does nothing else: the one place that knows all the other packages.

`source` decides what is read and where its state is, `building` builds the reader and builder of functions, `engine` builds
what a pass needs, and `daemon` and `notifications` build what runs around the passes. `git_source`, `npm` and `executor` are
imported only where a source is a repository, its packages come from a registry, or a command writes.
"""

from kapso_sync.session import Session
from kapso_sync.telemetry import EventBus
from kapso_sync.wiring.engine import make_event_bus, open_api, open_session
from kapso_sync.wiring.source import SourceReport, find_state_folder, read_source

__all__ = [
    "EventBus",
    "Session",
    "SourceReport",
    "find_state_folder",
    "make_event_bus",
    "open_api",
    "open_session",
    "read_source",
]
