"""Builds the answers of the Functions API: the data envelope, pages of lists, errors, and the function record."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from kapso_sync.emulator.options import Behaviour
from kapso_sync.emulator.records import CLOUDFLARE, Function, stamp
from kapso_sync.emulator.runtime import ConsoleLine
from kapso_sync.emulator.values import Json, JsonObject, dump_json
from kapso_sync.emulator.world import EmulatedProject

T = TypeVar("T")

WHATSAPP_PAGE = 20
"""Default page size of Flows and webhooks."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer. ``console`` is the console output of the code that gave it, which is not sent."""

    status: int
    body: bytes = b""
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    console: Sequence[ConsoleLine] = ()


@dataclass(frozen=True, slots=True)
class PageRequest:
    """The requested part of a list; invalid numbers are ignored."""

    number: int
    size: int

    @classmethod
    def read(cls, query: Mapping[str, str], behaviour: Behaviour) -> PageRequest:
        """Read ``page``, and ``per_page`` or ``limit``, which mean the same."""
        size = positive(query.get("per_page")) or positive(query.get("limit")) or behaviour.page_size
        return cls(positive(query.get("page")) or 1, min(size, behaviour.page_size))


def positive(text: str | None) -> int | None:
    """Return a query parameter as a number above 0, or None."""
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 10 and int(text) > 0 else None


def json_answer(status: int, value: Json, headers: Mapping[str, str] | None = None) -> Answer:
    """Return an answer with a JSON body."""
    return Answer(status, dump_json(value), headers=headers or {})


def error_answer(status: int, message: str) -> Answer:
    """Return ``{"error": message}``."""
    return json_answer(status, {"error": message})


def data_answer(status: int, value: Json, behaviour: Behaviour, meta: JsonObject | None = None) -> Answer:
    """Return ``{"data": value}``, with ``meta`` if there is any, wrapped once more if the behaviour says so."""
    envelope: JsonObject = {"data": value}
    if meta is not None:
        envelope["meta"] = meta
    return json_answer(status, {"data": envelope} if behaviour.double_wrap else envelope)


def list_answer(
    items: Sequence[T],
    query: Mapping[str, str],
    behaviour: Behaviour,
    show: Callable[[T], Json],
    fault: str | None = None,
) -> Answer:
    """Return one page of a list, or what ``fault`` makes of it.

    If there is more than one page, ``meta`` has ``page``, ``per_page``, ``total_pages`` and ``total_count``. A page that is
    missing or repeats the one before it keeps its own ``meta``.
    """
    if fault == "empty_list":
        return data_answer(200, [], behaviour)
    if not behaviour.paging:
        return data_answer(200, [show(item) for item in items], behaviour)
    page = PageRequest.read(query, behaviour)
    number = page.number - (fault == "repeat_page")
    part = [] if fault == "missing_page" else items[(number - 1) * page.size : number * page.size]
    shown: list[Json] = [show(item) for item in part]
    pages = math.ceil(len(items) / page.size)
    meta: JsonObject = {"page": page.number, "per_page": page.size, "total_pages": pages, "total_count": len(items)}
    return data_answer(200, shown, behaviour, meta if behaviour.list_meta and pages > 1 else None)


def paged_answer(items: Sequence[Json], query: Mapping[str, str], behaviour: Behaviour, fault: str | None = None) -> Answer:
    """Return one page of a list that always comes in pages, with ``meta`` and the headers that say the same."""
    if fault == "empty_list":
        return data_answer(200, [], behaviour)
    size = min(positive(query.get("per_page")) or WHATSAPP_PAGE, behaviour.page_size)
    number = positive(query.get("page")) or 1
    first = (number - 1 - (fault == "repeat_page")) * size
    part: list[Json] = [] if fault == "missing_page" else list(items[first : first + size])
    pages = math.ceil(len(items) / size)
    meta: JsonObject = {"page": number, "per_page": size, "total_pages": pages, "total_count": len(items)}
    headers = {"X-Total": len(items), "X-Total-Pages": pages, "X-Page": number, "X-Per-Page": size}
    answer = data_answer(200, part, behaviour, meta if behaviour.list_meta else None)
    return replace(answer, headers={name: str(value) for name, value in headers.items()})


def show_function(function: Function, world: EmulatedProject, origin: str, *, code: bool = True) -> JsonObject:
    """Return the record as the Functions API shows it; ``origin`` is the scheme and host of the request."""
    host = f"{function.slug}.{world.project_id[:8]}.workers.dev"
    record: JsonObject = {
        "id": function.id,
        "name": function.name,
        "slug": function.slug,
        "description": function.description,
        "code": function.code,
        "function_type": function.function_type,
        "status": world.behaviour.status_word if function.status == "deployed" else function.status,
        "version": function.version,
        "last_deployed_at": stamp(function.last_deployed_at),
        "runtime_config": function.runtime_config,
        "public_endpoint": function.public_endpoint,
        "invoke_response_mode": function.invoke_response_mode,
        "project_id": world.project_id,
        "created_by_id": world.created_by_id,
        "endpoint_url": f"{origin}/platform/v1/functions/{function.id}/invoke",
        "cf_worker_url": f"https://{host}" if function.function_type == CLOUDFLARE else None,
        "created_at": stamp(function.created_at),
        "updated_at": stamp(function.updated_at),
    }
    if world.behaviour.lock_version != "absent":
        record["lock_version"] = function.lock_version
    hidden = {*world.behaviour.unknown_fields, *([] if code else ["code"])}
    return {name: value for name, value in record.items() if name not in hidden}
