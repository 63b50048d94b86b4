"""Updates a function without overwriting what somebody saved since it was read. `writer` and `slug_parking` use it."""

from __future__ import annotations

from collections.abc import Mapping

from kapso_sync.errors import ApiConflict, ApiRejected, Call, LockVersionRefused
from kapso_sync.model.functions import RemoteFunction, agree
from kapso_sync.model.json_values import Json
from kapso_sync.model.ports import FunctionsApi

FUNCTION_TYPE = "function_type"
"""Kapso documents it for a create only: an update may take it, ignore it, or be refused because of it."""


async def update_unchanged(api: FunctionsApi, read: RemoteFunction, payload: Mapping[str, Json]) -> RemoteFunction:
    """Update a function if it still is what was ``read``, and return Kapso's answer; raises `ApiConflict` if it is not.

    If records carry ``lock_version``, Kapso itself compares. On a base without it, or one that refuses it, the function is
    read again right before the update; only an edit between these two calls can be lost. A refused update with a function type
    is sent once more without it, since the refusal may not say why; the answer then shows the type that Kapso kept.
    """
    try:
        return await _update(api, read, payload)
    except ApiRejected as refused:
        rest = {name: value for name, value in payload.items() if name != FUNCTION_TYPE}
        if len(rest) == len(payload) or refused.status not in (400, 422):
            raise
    return await (_update(api, read, rest) if rest else api.get_function(read.id))


async def _update(api: FunctionsApi, read: RemoteFunction, payload: Mapping[str, Json]) -> RemoteFunction:
    if read.lock_version is not None and api.takes_lock_version:
        try:
            return await api.update_function(read.id, payload, lock_version=read.lock_version)
        except LockVersionRefused:
            pass
    if _changed(read, await api.get_function(read.id)):
        call = Call("GET", "/functions/{id}")
        raise ApiConflict("somebody saved it since it was read", call=call, hint="the next pass tries again")
    return await api.update_function(read.id, payload)


def _changed(before: RemoteFunction, now: RemoteFunction) -> bool:
    """Return whether code or a field differs; if the list has no code, the time of the last change decides."""
    if before.code is None or now.code is None:
        return before.updated_at is None or before.updated_at != now.updated_at
    return before.code != now.code or not agree(before.fields, now.fields, tuple(before.fields))
