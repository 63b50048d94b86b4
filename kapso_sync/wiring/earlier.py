"""Hands over what was asked of Kapso to learn that a pass is due to that pass: the list is not read twice."""

from __future__ import annotations

import contextlib
from dataclasses import replace

from kapso_sync.api.pages import functions_request
from kapso_sync.api.wire import parse_list
from kapso_sync.errors import ApiError
from kapso_sync.model.functions import FunctionList
from kapso_sync.reconcile.observe import EarlierList
from kapso_sync.session import Session
from kapso_sync.wiring.unchanged import DuePass


def earlier_list(due: DuePass, session: Session) -> EarlierList:
    """Return what a pass of this session has of Kapso already; a list that cannot be parsed is read again."""
    functions: FunctionList | None = None
    listed = due.take_list()
    if listed is not None:
        with contextlib.suppress(ApiError):
            functions = replace(parse_list(listed.records, functions_request().call), digest=listed.digest)
    recorded = due.recorded
    return EarlierList(due.happened, functions, due.read_at, lambda: recorded is not None and session.follows(recorded))
