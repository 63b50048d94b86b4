"""Encodes the records of the state folder as JSON: pydantic reads and writes the model's own dataclasses.

Unknown keys are ignored and missing ones take their defaults, so that programs of two versions can read each other's rows.
Every ``decode_…`` raises ValueError for anything that is not such a record.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, TypeVar

from pydantic import TypeAdapter

from kapso_sync.model.functions import RemoteFunction, Version
from kapso_sync.model.state import DeploymentWatch, Intent, InventoryRecord, MissingFunction, QuotaRefusal, RenameRecord

_T = TypeVar("_T")


def _adapter(kind: type[_T]) -> TypeAdapter[_T]:
    """Return what reads and writes values of a type; it is made when first used, and takes hundreds of kilobytes."""
    return _made(kind)  # type: ignore[arg-type] # every type is hashable


@functools.cache
def _made(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def encode_record(record: InventoryRecord) -> str:
    """Return an inventory record as JSON."""
    return _text(_adapter(InventoryRecord).dump_python(record))


def decode_record(text: str) -> InventoryRecord:
    """Return the inventory record.

    pydantic's own parser gives equal keys and short texts one object, which is a third of the memory of thousands of records.
    It knows no lone surrogates, which JSON can carry: then Python's reads the text.
    """
    adapter = _adapter(InventoryRecord)
    try:
        return adapter.validate_json(text)
    except ValueError:
        return adapter.validate_python(json.loads(text))


def encode_intent(intent: Intent) -> str:
    """Return an intent as JSON, without its number, which is the row's."""
    return _text(_adapter(Intent).dump_python(intent, exclude={"id"}))


def decode_intent(number: int, text: str) -> Intent:
    """Return the intent with its number."""
    return replace(_adapter(Intent).validate_python(json.loads(text)), id=number)


def encode_quota(quota: QuotaRefusal) -> str:
    """Return a quota refusal as JSON."""
    return _text(_adapter(QuotaRefusal).dump_python(quota))


def decode_quota(text: str) -> QuotaRefusal:
    """Return the quota refusal."""
    return _adapter(QuotaRefusal).validate_python(json.loads(text))


def encode_renames(renames: Mapping[str, RenameRecord]) -> str:
    """Return the journal of each ``moved_from``, by slug, as JSON."""
    return json.dumps(_adapter(dict[str, RenameRecord]).dump_python(dict(renames)), sort_keys=True)


def decode_renames(text: str) -> Mapping[str, RenameRecord]:
    """Return the journal of each ``moved_from``, by slug."""
    return _adapter(dict[str, RenameRecord]).validate_python(json.loads(text))


def encode_missing(missing: Iterable[MissingFunction]) -> str:
    """Return the functions that git does not list as JSON."""
    return _text(_adapter(list[MissingFunction]).dump_python(list(missing)))


def decode_missing(text: str) -> Mapping[str, MissingFunction]:
    """Return the functions that git does not list, by id."""
    return {function.function_id: function for function in _adapter(list[MissingFunction]).validate_python(json.loads(text))}


def encode_version(remote: RemoteFunction) -> str:
    """Return a record's code and fields as JSON; the record must have come with its code."""
    fields = {**remote.fields, "description": remote.text}
    return _text({"code": remote.code, "fields": fields})


def decode_version(text: str) -> Version:
    """Return the code and fields."""
    return _adapter(Version).validate_python(json.loads(text))


def encode_watch(watch: DeploymentWatch) -> str:
    """Return a watch as JSON."""
    return _text(_adapter(DeploymentWatch).dump_python(watch))


def decode_watch(text: str) -> DeploymentWatch:
    """Return the watch."""
    return _adapter(DeploymentWatch).validate_python(json.loads(text))


def _text(document: object) -> str:
    return json.dumps(document, default=_moment)


def _moment(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(type(value).__name__)
