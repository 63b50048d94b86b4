"""Encodes the records of the state folder as JSON: msgspec reads and writes the model's own dataclasses.

Unknown keys are ignored and missing ones take their defaults, so that programs of two versions can read each other's rows.
Every ``decode_…`` raises ValueError for anything that is not such a record.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, TypeVar, cast

import msgspec

from kapso_sync.model.functions import RemoteFunction, Version
from kapso_sync.model.json_values import Json, shared_text
from kapso_sync.model.state import (
    DeploymentWatch,
    Intent,
    InventoryRecord,
    MissingFunction,
    QuotaRefusal,
    RenameRecord,
)

_T = TypeVar("_T")


def encode_record(record: InventoryRecord) -> str:
    """Return an inventory record as JSON."""
    return _text(record)


def decode_record(text: str) -> InventoryRecord:
    """Return the inventory record.

    Equal texts and nested values in its contents, and in those of records shortly before it, are one object: copies of them
    would be a third of the memory of thousands of records.
    """
    record = _read(InventoryRecord, text)
    live = () if record.live is None else (record.live.content,)
    try:
        for content in (record.wanted, record.stored, *live):
            _share(cast("dict[str, Json]", content))
    except RecursionError as error:
        raise ValueError(f"not a record: {error}") from error
    return record


def encode_intent(intent: Intent) -> str:
    """Return an intent as JSON, without its number, which is the row's."""
    document = _plain(intent)
    del document["id"]
    return _text(document)


def decode_intent(number: int, text: str) -> Intent:
    """Return the intent with its number."""
    return replace(_read(Intent, text), id=number)


def encode_quota(quota: QuotaRefusal) -> str:
    """Return a quota refusal as JSON."""
    return _text(quota)


def decode_quota(text: str) -> QuotaRefusal:
    """Return the quota refusal."""
    return _read(QuotaRefusal, text)


def encode_renames(renames: Mapping[str, RenameRecord]) -> str:
    """Return the journal of each ``moved_from``, by slug, as JSON."""
    return json.dumps(_plain(renames), sort_keys=True)


def decode_renames(text: str) -> Mapping[str, RenameRecord]:
    """Return the journal of each ``moved_from``, by slug."""
    return _read(dict[str, RenameRecord], text)


def encode_missing(missing: Iterable[MissingFunction]) -> str:
    """Return the functions that git does not list as JSON."""
    return _text([*missing])


def decode_missing(text: str) -> Mapping[str, MissingFunction]:
    """Return the functions that git does not list, by id."""
    return {function.function_id: function for function in _read(list[MissingFunction], text)}


def encode_version(remote: RemoteFunction) -> str:
    """Return a record's code and fields as JSON; the record must have come with its code."""
    fields = {**remote.fields, "description": remote.text}
    return _text({"code": remote.code, "fields": fields})


def decode_version(text: str) -> Version:
    """Return the code and fields."""
    return _read(Version, text)


def encode_watch(watch: DeploymentWatch) -> str:
    """Return a watch as JSON."""
    return _text(watch)


def decode_watch(text: str) -> DeploymentWatch:
    """Return the watch."""
    return _read(DeploymentWatch, text)


def _text(value: object) -> str:
    return json.dumps(_plain(value), default=datetime.isoformat)


def _plain(value: object) -> Any:
    """Return what JSON has for a value, but times as they are: msgspec's spelling of them is not that of released versions."""
    return msgspec.to_builtins(value, builtin_types=(datetime,))


def _read(kind: type[_T], text: str) -> _T:
    """Return a value of this type.

    What msgspec's reader does not take, Python's may: lone surrogates, which JSON can carry, and numbers beyond a float.
    """
    try:
        try:
            return msgspec.json.decode(text, type=kind)
        except msgspec.DecodeError:
            return msgspec.convert(json.loads(text), kind)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f"not a record: {error}") from error


def _share(content: dict[str, Json]) -> None:
    """Replace texts and nested values by equal ones that were read before; nobody else has this content yet."""
    for name, value in content.items():
        if isinstance(value, str):
            content[name] = shared_text(value)
        elif isinstance(value, dict | list):
            content[name] = _one_value(json.dumps(value))


@functools.lru_cache(maxsize=64)
def _one_value(text: str) -> Json:
    value: Json = json.loads(text)
    return value
