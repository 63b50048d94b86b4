"""Refuses to work in another project than the one that the repository or the state folder names. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from kapso_sync.errors import StateForeign
from kapso_sync.model.functions import RemoteFunction
from kapso_sync.model.source import PROJECT_FILE
from kapso_sync.model.state import ReconcilerState
from kapso_sync.plurals import counted


def require_same_project(functions: Iterable[RemoteFunction], state: ReconcilerState, named: str | None) -> None:
    """Raise `StateForeign` when the records are of another project than we know; ``named`` is what the repository says."""
    projects = {remote.project_id for remote in functions if remote.project_id}
    if not projects:
        return
    for known, where in ((named, f"the repository's {PROJECT_FILE} names"), (state.project_id, "the state folder belongs to")):
        if known is not None and known not in projects:
            raise StateForeign(
                f"the API key opens project {min(projects)}, but {where} project {known}",
                hint=f"use a key of project {known}; or, if the change is meant, another KAPSO_SYNC_STATE_DIR and project file",
            )


def require_not_emptied(state: ReconcilerState) -> None:
    """Raise `StateForeign` if Kapso shows no functions but once showed some: the key may open another project."""
    if not state.owned and state.project_id is None:
        return
    project = f"project {state.project_id}" if state.project_id else "another project"
    known = f"{counted(len(state.owned), 'function')} of {project}" if state.owned else f"{project}, which had some"
    raise StateForeign(
        f"the API key opens an empty project, but the state folder knows {known}",
        hint="is it the right key? If they were really deleted, `kapso-sync sync --allow-recreate` creates those that git has",
    )
