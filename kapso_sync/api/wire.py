"""Parse the API's JSON into model values, and encode request bodies: lenient when reading, strict when writing."""

from __future__ import annotations

import functools
import json
import re
import sys
import urllib.parse
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from kapso_sync.api.envelope import count_in, parse_records, unwrap
from kapso_sync.errors import ApiGarbled, Call
from kapso_sync.model.functions import (
    CODE,
    DESCRIPTION,
    FIELDS,
    SLUG,
    ConsoleLine,
    DeploymentStatus,
    FunctionList,
    GarbledRecord,
    InvocationRecord,
    RemoteFunction,
    RemoteSecret,
    SecretType,
)
from kapso_sync.model.json_values import MAX_JSON_DEPTH, Json, is_nested_within, shared_text
from kapso_sync.model.names import is_id, is_secret_name, is_slug
from kapso_sync.model.ownership import split_description
from kapso_sync.model.users import WhatsAppFlow

WRITABLE = frozenset({CODE, SLUG, "lock_version", *FIELDS})
MAX_VALUE_DEPTH = MAX_JSON_DEPTH - 2
"""Deepest nesting of a record's value: in an answer about one function, the record and an envelope are around it."""

MAX_TIME = 64
"""Characters of a time; RFC 3339 needs half of them."""

MAX_WARNING = 500
"""Characters of a warning that are shown."""

MAX_SHOWN_ID = 60
"""Longest part of a malformed id that an error shows, in characters."""


def parse_function(value: Json, call: Call) -> RemoteFunction:
    """Return one function record; raises `ApiGarbled` when its id or its slug is missing or malformed, or it is too deep."""
    record = unwrap(value)
    if not isinstance(record, dict):
        raise ApiGarbled(f"{call} answered without a function record", call=call)
    found = _function(record)
    if isinstance(found, GarbledRecord):
        raise ApiGarbled(f"{call} answered with a function whose {found.reason}", call=call)
    return found


def parse_list(records: Sequence[Json], call: Call) -> FunctionList:
    """Return the functions of a complete list, and the records that cannot be believed; raises like `parse_record`."""
    return whole_list([parse_record(record, call) for record in records])


def parse_record(record: Json, call: Call) -> RemoteFunction | GarbledRecord:
    """Return a record of a list; what is nested too deeply cannot be kept, and is garbled.

    Raises `ApiGarbled` when the record has neither id nor slug: then it is not a list of functions.
    """
    if not isinstance(record, dict) or not (isinstance(record.get("id"), str) or isinstance(record.get(SLUG), str)):
        raise ApiGarbled(f"{call} answered with a record that has no id and no slug", call=call)
    return _function(record)


def whole_list(records: Sequence[RemoteFunction | GarbledRecord]) -> FunctionList:
    """Return the whole list, made of all its records. Records that share an id or a slug and differ are garbled."""
    functions: list[RemoteFunction] = []
    garbled: list[GarbledRecord] = []
    known: dict[str, RemoteFunction] = {}
    for found in records:
        if isinstance(found, GarbledRecord):
            garbled.append(found)
        elif known.setdefault(found.id, found) is found or known[found.id] != found:
            functions.append(found)
    ids, slugs = Counter(function.id for function in functions), Counter(function.slug for function in functions)
    if len(ids) == len(slugs) == len(functions):
        return FunctionList(tuple(functions), tuple(garbled))
    for function in functions:
        shared = "id" if ids[function.id] > 1 else "slug" if slugs[function.slug] > 1 else None
        if shared is not None:
            garbled.append(GarbledRecord(function.id, function.slug, f"{shared} is that of another record", function.mark))
    kept = tuple(function for function in functions if ids[function.id] == 1 and slugs[function.slug] == 1)
    return FunctionList(kept, tuple(garbled))


def _function(record: Mapping[str, Json]) -> RemoteFunction | GarbledRecord:
    """Return a record as a function, or as garbled when its id or its slug is missing or malformed, or it is too deep."""
    function_id, slug = record.get("id"), record.get(SLUG)
    if not is_id(function_id) or not is_slug(slug):
        name, value = (SLUG, slug) if is_id(function_id) else ("id", function_id)
        return _garbled(record, f"{name} is missing" if value is None else f"{name} cannot be: {ascii(value)[:MAX_SHOWN_ID]}")
    nested = [(name, value) for name, value in record.items() if value and isinstance(value, (dict, list))]
    deep = next((name for name, value in nested if not is_nested_within(value, MAX_VALUE_DEPTH)), None)
    if deep is not None:
        return _garbled(record, f"{ascii(deep)[1:-1][:MAX_SHOWN_ID]} is nested too deeply")
    code = record.get(CODE)
    return RemoteFunction(
        id=function_id,
        slug=slug,
        status=_status(record.get("status")),
        code=code if isinstance(code, str) else None,
        fields={name: _shared(record[name]) for name in FIELDS if name in record},
        last_deployed_at=parse_time(record.get("last_deployed_at")),
        updated_at=parse_time(record.get("updated_at")),
        created_at=parse_time(record.get("created_at")),
        project_id=shared_text(project_id) if is_id(project_id := record.get("project_id")) else None,
        lock_version=count_in(record, ("lock_version",)),
        worker_address=_address(record.get("cf_worker_url")),
    )


def _shared(value: Json) -> Json:
    return shared_text(value) if isinstance(value, str) else value


def _garbled(record: Mapping[str, Json], reason: str) -> GarbledRecord:
    description = record.get(DESCRIPTION)
    mark = split_description(description)[1] if isinstance(description, str) else None
    return GarbledRecord(_text(record.get("id")) or "", _text(record.get(SLUG)) or "", reason, mark)


def parse_flow(record: Mapping[str, Json], flow_id: str) -> WhatsAppFlow:
    """Return a WhatsApp Flow; a function's id that cannot be counts as none."""
    function_id = record.get("data_endpoint_function_id")
    return WhatsAppFlow(flow_id, function_id if is_id(function_id) else None)


def parse_warning(value: Json) -> str | None:
    """Return the warning in an answer's ``data``, in one line, or None."""
    data = value.get("data") if isinstance(value, dict) else None
    warning = data.get("warning") if isinstance(data, dict) else None
    return " ".join(warning.split())[:MAX_WARNING] or None if isinstance(warning, str) else None


def parse_invocations(value: Json, call: Call) -> tuple[InvocationRecord, ...]:
    """Return the invocations in the answer's order; raises `ApiGarbled` when there is no list."""
    records = parse_records(value, call)
    found = tuple(_invocation(record) for record in records if isinstance(record, dict))
    if len(found) < len(records):
        raise ApiGarbled(f"{call}: an invocation is not an object", call=call)
    return found


def _invocation(record: Mapping[str, Json]) -> InvocationRecord:
    lines = record.get("console_logs")
    return InvocationRecord(
        id=_text(record.get("id")) or "",
        status_code=count_in(record, ("status_code",)),
        duration_ms=_milliseconds(record.get("duration_ms")),
        error=_text(record.get("error_message")),
        created_at=parse_time(record.get("created_at")),
        console=tuple(_console_line(line) for line in lines if isinstance(line, dict)) if isinstance(lines, list) else (),
        request_body=record.get("request_body"),
        response_body=record.get("response_body"),
    )


def _milliseconds(value: Json) -> float | None:
    """Return a finite number, or None for anything else: JSON has numbers that no float can hold, and Python's reader NaN."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < sys.float_info.max:
        return None
    return float(value)


def _console_line(line: Mapping[str, Json]) -> ConsoleLine:
    message = line.get("message")
    return ConsoleLine(
        level=_text(line.get("level")) or "log",
        message=message if isinstance(message, str) else json.dumps(message),
        logged_at=parse_time(line.get("logged_at")),
        stack=_text(line.get("stack")),
    )


def parse_secrets(value: Json, call: Call) -> tuple[RemoteSecret, ...]:
    """Return the secrets of a list answer, each name once; raises `ApiGarbled` when there is no list.

    Names that cannot be are left out: such a secret is left alone, whatever the manifest says about others.
    """
    found: dict[str, RemoteSecret] = {}
    for record in parse_records(value, call):
        name, kind = (record.get("name"), record.get("type")) if isinstance(record, dict) else (record, None)
        if is_secret_name(name):
            found.setdefault(name, RemoteSecret(name, _secret_type(kind)))
    return tuple(found.values())


def _secret_type(value: Json) -> SecretType:
    try:
        return SecretType(str(value))
    except ValueError:
        return SecretType.TEXT


def parse_time(value: Json) -> datetime | None:
    """Return an RFC 3339 time as an aware datetime, or None for anything else; a time without a zone is in UTC."""
    return _time(value) if isinstance(value, str) and len(value) <= MAX_TIME else None


@functools.lru_cache(maxsize=64)  # a function's times are often the same
def _time(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def encode_function(payload: Mapping[str, Json]) -> Json:
    """Return the request body for a create or an update; raises ValueError for an attribute that is not writable."""
    unknown = payload.keys() - WRITABLE
    if unknown:
        raise ValueError(f"not an attribute of a function: {', '.join(sorted(unknown))}")
    return {"function": dict(payload)}


def _status(value: Json) -> DeploymentStatus:
    if value == "active":  # seen in place of "deployed"
        return DeploymentStatus.DEPLOYED
    try:
        return DeploymentStatus(str(value))
    except ValueError:
        return DeploymentStatus.UNKNOWN


def _address(url: Json) -> str | None:
    """Return a URL's host and path, or None where it is no URL."""
    if not isinstance(url, str):
        return None
    plain = _PLAIN_URL.fullmatch(url)
    if plain is not None:
        return plain[1].rstrip("/")
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError:
        return None
    return f"{parts.netloc}{parts.path}".rstrip("/") or None if parts.netloc else None


_PLAIN_URL = re.compile(r"https?://([A-Za-z0-9.-]+(?:/[A-Za-z0-9._/-]*)?)")
"""A URL that needs no parser, which takes ten times as long: there is one in each record of the list."""


def _text(value: Json) -> str | None:
    return value if isinstance(value, str) and value else None
