"""Parse the API's JSON into model values, and encode request bodies: lenient when reading, strict when writing."""

from __future__ import annotations

import contextlib
import json
import re
import sys
import urllib.parse
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from kapso_sync.api.json_answers import TooMuch, read_json
from kapso_sync.credentials import LONG_TOKEN, MASKED
from kapso_sync.errors import AnswerTooLarge, ApiGarbled, Call
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
from kapso_sync.model.json_values import MAX_JSON_DEPTH, Json, is_nested_within
from kapso_sync.model.names import is_id, is_secret_name, is_slug
from kapso_sync.model.ownership import split_description
from kapso_sync.model.users import WhatsAppFlow

WRITABLE = frozenset({CODE, SLUG, "lock_version", *FIELDS})
MAX_VALUE_DEPTH = MAX_JSON_DEPTH - 2
"""Deepest nesting of a record's value: in an answer about one function, the record and an envelope are around it."""

MESSAGE_LIMIT = 300
"""Longest part of an answer that an error shows, in characters."""

MAX_WARNING = 500
"""Characters of a warning that are shown."""

MAX_SHOWN_ID = 60
"""Longest part of a malformed id that an error shows, in characters."""


def decode(body: bytes, call: Call, status: int, *, cut: bool = False) -> Json:
    """Return an answer's JSON; raises `ApiGarbled`, which says if the answer was a web page or empty, and `AnswerTooLarge`.

    With ``cut``, JSON that is nested too deeply is no error: it comes back with `CUT_DEPTH` levels, which `parse_list` notices
    in each record by itself.
    """
    try:
        return _loads_cut(body) if cut else _loads(body)
    except TooMuch as error:
        raise AnswerTooLarge(f"{call} answered with {error}", call=call, status=status) from None
    except (ValueError, RecursionError):
        page = body.lstrip()[:15].lower().startswith((b"<!doctype", b"<html"))
        what = "a web page" if page else "nothing" if not body.strip() else "something that is not JSON"
        raise ApiGarbled(f"{call} answered {status} with {what}", call=call, status=status) from None


def _loads(body: bytes) -> Json:
    """Return the JSON of a body; raises ValueError or RecursionError. What is read here is compared by recursion later."""
    value = read_json(body)
    if not is_nested_within(value, MAX_JSON_DEPTH):
        raise ValueError(f"nested deeper than {MAX_JSON_DEPTH} levels")
    return value


CUT_DEPTH = 2 * MAX_JSON_DEPTH
"""Levels that are left of JSON that is cut: too many for any record, and few enough to be read by recursion."""

_BRACKET_OR_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\Z)|[\[\]{}]', re.DOTALL)
"""A string that does not end is one as well: else each quote in it would be looked at as the beginning of another one."""


def _loads_cut(body: bytes) -> Json:
    """Return the JSON of a body with null for what is deeper than `CUT_DEPTH`; raises like `_loads` for what is no JSON."""
    with contextlib.suppress(RecursionError):
        value = read_json(body)
        if is_nested_within(value, CUT_DEPTH):
            return value
    pieces: list[bytes] = []
    level = kept = 0
    for found in _BRACKET_OR_STRING.finditer(body):
        if found[0] in (b"[", b"{"):
            if level == CUT_DEPTH:
                pieces += [body[kept : found.start()], b"null"]
            level += 1
        elif found[0] in (b"]", b"}"):
            level -= 1
            if level == CUT_DEPTH:
                kept = found.end()
    return read_json(b"".join((*pieces, body[kept:])))


def unwrap(value: Json) -> Json:
    """Return the value inside one or more layers of ``{"data": …}``, or the value itself."""
    while isinstance(value, dict) and "data" in value and "id" not in value:
        value = value["data"]
    return value


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
        fields={name: record[name] for name in FIELDS if name in record},
        last_deployed_at=parse_time(record.get("last_deployed_at")),
        updated_at=parse_time(record.get("updated_at")),
        created_at=parse_time(record.get("created_at")),
        endpoint_url=_text(record.get("endpoint_url")),
        project_id=project_id if is_id(project_id := record.get("project_id")) else None,
        lock_version=_count(record, ("lock_version",)),
        worker_address=_address(record.get("cf_worker_url")),
    )


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
        status_code=_count(record, ("status_code",)),
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


def parse_records(value: Json, call: Call) -> list[Json]:
    """Return the records of a list answer, bare or inside an object; raises `ApiGarbled` when there is no list."""
    found = unwrap(value)
    if isinstance(found, dict):
        lists = [item for item in found.values() if isinstance(item, list)]
        found = lists[0] if len(lists) == 1 else found
    if not isinstance(found, list):
        raise ApiGarbled(f"{call} answered without a list", call=call)
    return found


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


def require_about(value: Json, function_id: str, call: Call) -> None:
    """Raise `ApiGarbled` when an answer says that it is about another function than the one that was asked for.

    Answers about deployments, secrets and invocations name the function in ``function_id``; not all of them do.
    """
    answer = unwrap(value)
    about = answer.get("function_id") if isinstance(answer, dict) else None
    if about is not None and about != function_id:
        raise ApiGarbled(f"{call} answered about another function than the one that was asked for", call=call)


def _secret_type(value: Json) -> SecretType:
    try:
        return SecretType(str(value))
    except ValueError:
        return SecretType.TEXT


@dataclass(frozen=True, slots=True)
class Paging:
    """Paging data of a list answer, under any of the known key names; None if the answer does not have it."""

    total: int | None = None
    pages: int | None = None
    next_page: bool | None = None

    def more(self, number: int) -> bool | None:
        """Return whether there are pages after page ``number``, counted from 1; None if the answer does not say."""
        return number < self.pages if self.pages is not None else self.next_page

    def last_page(self, records: int) -> int:
        """Return the number of the last page, as the first one with ``records`` records announces it; 1 if it does not."""
        if self.pages is not None:
            return max(1, self.pages)
        return 1 if self.total is None or not records else -(-self.total // records)


def parse_paging(value: Json) -> Paging:
    """Return the paging data in the ``meta`` of a list answer."""
    meta = None
    while isinstance(value, dict) and not isinstance(meta, dict):
        meta, value = value.get("meta") or value.get("pagination") or value.get("paging"), value.get("data")
    if not isinstance(meta, dict):
        return Paging()
    following = [bool(meta[name]) for name in ("has_more", "next_page", "next", "next_cursor") if name in meta]
    return Paging(
        total=_count(meta, ("total", "total_count", "count", "total_entries")),
        pages=_count(meta, ("total_pages", "pages", "last_page")),
        next_page=any(following) if following else None,
    )


def _count(meta: Mapping[str, Json], names: tuple[str, ...]) -> int | None:
    for name in names:
        number = meta.get(name)
        if isinstance(number, int) and not isinstance(number, bool) and number >= 0:
            return number
    return None


def parse_time(value: Json) -> datetime | None:
    """Return an RFC 3339 time as an aware datetime, or None for anything else; a time without a zone is in UTC."""
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def encode_function(payload: Mapping[str, Json]) -> Json:
    """Return the request body for a create or an update; raises ValueError for an attribute that is not writable."""
    unknown = payload.keys() - WRITABLE
    if unknown:
        raise ValueError(f"not an attribute of a function: {', '.join(sorted(unknown))}")
    return {"function": dict(payload)}


def error_text(body: bytes, scrub: Callable[[str], str] = str) -> str | None:
    """Return the text of an error answer in one line, from ``error``, ``message``, or Rails-style ``errors``; None without one.

    ``scrub`` gets the whole text before it is joined to one line and cut, so that no half of a secret stays in the text.
    """
    value = _json_object(body)
    if value is None:
        return None
    errors = value.get("errors")
    if isinstance(errors, dict):
        return _one_line("; ".join(f"{name} {_joined(reasons)}" for name, reasons in errors.items()), scrub)
    if isinstance(errors, list):
        return _one_line(_joined(errors), scrub)
    parts = [part for part in (value.get("error"), value.get("message")) if isinstance(part, str) and part]
    return _one_line(": ".join(dict.fromkeys(parts)), scrub) if parts else None


def is_json_error(body: bytes) -> bool:
    """Return whether an answer is Kapso's own refusal: JSON with a reason, and not a proxy's page."""
    value = _json_object(body)
    return value is not None and bool(value.get("error") or value.get("errors"))


_TAKEN = re.compile(r"\btaken\b|already (?:exists|in use)|must be unique", re.IGNORECASE)


def is_name_taken(body: bytes) -> bool:
    """Return whether a refusal of a secret says that its *name* is taken; the refusal of a value does not count."""
    value = _json_object(body)
    if value is None:
        return False
    errors = value.get("errors")
    if isinstance(errors, dict):
        return any(_TAKEN.search(_joined(reasons)) for name, reasons in errors.items() if name in ("name", "base"))
    said = " ".join(str(value.get(name)) for name in ("error", "message"))
    return bool(re.search(r"\bname\b", said, re.IGNORECASE) and _TAKEN.search(said))


MAX_QUOTE = 12
"""An error that quotes a piece of the request with at least this many characters is shown without that piece."""


def without_request(text: str, body: Json) -> str:
    """Return an error's text without the quoted pieces of the request: each line of its texts, and each text as a whole."""
    for piece in sorted(_pieces(body), key=len, reverse=True):
        for spelling in {piece, json.dumps(piece)[1:-1], json.dumps(piece, ensure_ascii=False)[1:-1]}:
            if spelling in text:
                text = text.replace(spelling, "…")
    return text


def _pieces(body: Json) -> set[str]:
    found: set[str] = set()
    pending = [body]
    while pending:
        item = pending.pop()
        if isinstance(item, str):
            found |= {line.strip() for line in (item, *item.splitlines()) if len(line.strip()) >= MAX_QUOTE}
        elif isinstance(item, dict):
            pending += item.values()
        elif isinstance(item, list):
            pending += item
    return found


def _json_object(body: bytes) -> Mapping[str, Json] | None:
    try:
        value = _loads(body)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _one_line(text: str, scrub: Callable[[str], str]) -> str:
    # JSON can carry half of a surrogate pair, which no database and no stream takes.
    text = text.encode("utf-8", "replace").decode("utf-8")
    line = LONG_TOKEN.sub("[redacted]", MASKED.sub("[redacted]", scrub(" ".join(scrub(text).split()))))
    return line if len(line) <= MESSAGE_LIMIT else f"{line[:MESSAGE_LIMIT]}…"


def _joined(reasons: object) -> str:
    return ", ".join(map(str, reasons)) if isinstance(reasons, list) else str(reasons)


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
