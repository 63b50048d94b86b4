"""Builds every object from Settings: the one place that knows them all.

`session` builds what a sync or a plan needs, `building` what turns a source's files into functions, `reading` tells what a
source says and what is wrong with it.
"""

from kapso_sync.wiring.reading import SourceReport, read_source
from kapso_sync.wiring.session import (
    EventBus,
    PassOverrides,
    Session,
    find_state_folder,
    open_api,
    open_session,
)

__all__ = [
    "EventBus",
    "PassOverrides",
    "Session",
    "SourceReport",
    "find_state_folder",
    "open_api",
    "open_session",
    "read_source",
]
