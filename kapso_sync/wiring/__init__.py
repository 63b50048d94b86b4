"""Builds every object from Settings: the one place that knows them all.

`session` builds what a sync or a plan needs.
"""

from kapso_sync.wiring.session import (
    Exceptions,
    Logging,
    Session,
    find_state_folder,
    open_api,
    open_session,
    read_desired,
)

__all__ = ["Exceptions", "Logging", "Session", "find_state_folder", "open_api", "open_session", "read_desired"]
