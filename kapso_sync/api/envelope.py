"""Reads the envelope of an answer: its JSON, the records and the paging of a list, or the text of an error."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Mapping

from kapso_sync.api.json_answers import TooMuch, read_json
from kapso_sync.credentials import LONG_TOKEN, MASK, MASKED
from kapso_sync.dataclass import dataclass
from kapso_sync.errors import AnswerTooLarge, ApiGarbled, Call
from kapso_sync.model.json_values import MAX_JSON_DEPTH, Json, is_nested_within

MESSAGE_LIMIT = 300
"""Longest part of an answer that an error shows, in characters."""


def decode(body: bytes, call: Call, status: int, *, cut: bool = False) -> Json:
    """Return an answer's JSON; raises `ApiGarbled`, which says if the answer was a web page or empty, and `AnswerTooLarge`.

    With ``cut``, JSON that is nested too deeply is accepted: it comes back with `CUT_DEPTH` levels, which `wire.parse_list`
    notices in each record by itself.
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


def parse_records(value: Json, call: Call) -> list[Json]:
    """Return the records of a list answer, bare or inside an object; raises `ApiGarbled` when there is no list."""
    found = unwrap(value)
    if isinstance(found, dict):
        lists = [item for item in found.values() if isinstance(item, list)]
        found = lists[0] if len(lists) == 1 else found
    if not isinstance(found, list):
        raise ApiGarbled(f"{call} answered without a list", call=call)
    return found


def require_about(value: Json, function_id: str, call: Call) -> None:
    """Raise `ApiGarbled` when an answer says that it is about another function than the one that was asked for.

    Answers about deployments, secrets and invocations name the function in ``function_id``; not all of them do.
    """
    answer = unwrap(value)
    about = answer.get("function_id") if isinstance(answer, dict) else None
    if about is not None and about != function_id:
        raise ApiGarbled(f"{call} answered about another function than the one that was asked for", call=call)


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
        total=count_in(meta, ("total", "total_count", "count", "total_entries")),
        pages=count_in(meta, ("total_pages", "pages", "last_page")),
        next_page=any(following) if following else None,
    )


def count_in(meta: Mapping[str, Json], names: tuple[str, ...]) -> int | None:
    """Return the first count under one of these names, or None."""
    for name in names:
        number = meta.get(name)
        if isinstance(number, int) and not isinstance(number, bool) and number >= 0:
            return number
    return None


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
    line = LONG_TOKEN.sub(MASK, MASKED.sub(MASK, scrub(" ".join(scrub(text).split()))))
    return line if len(line) <= MESSAGE_LIMIT else f"{line[:MESSAGE_LIMIT]}…"


def _joined(reasons: object) -> str:
    return ", ".join(map(str, reasons)) if isinstance(reasons, list) else str(reasons)
