"""Answers read leniently, requests written strictly."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapso_sync.api.wire import (
    MESSAGE_LIMIT,
    decode,
    encode_function,
    error_text,
    parse_function,
    parse_paging,
    parse_records,
    parse_time,
)
from kapso_sync.errors import ApiGarbled, Call
from kapso_sync.model.functions import DeploymentStatus, Json

CALL = Call("GET", "/functions")
RECORD: dict[str, Json] = {"id": "id-1", "slug": "greet", "status": "deployed", "code": "x", "name": "Greet"}

values: st.SearchStrategy[Json] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["data", "id", "slug", "meta", "total", "next", "status", "functions"]) | st.text(), inner
        )
    ),
    max_leaves=12,
)


@given(values)
def test_any_answer_is_a_value_or_our_own_error(value: Json) -> None:
    """Whatever JSON a server or a proxy makes up, nothing else comes out of it."""
    for parse in (parse_function, parse_records):
        with contextlib.suppress(ApiGarbled):
            parse(value, CALL)
    parse_paging(value).more(1)


@given(st.binary())
def test_any_bytes_decode_or_are_garbled(body: bytes) -> None:
    """Invalid UTF-8, broken JSON, nothing at all."""
    with contextlib.suppress(ApiGarbled):
        decode(body, CALL, 200)
    error_text(body)


def test_deep_nesting_is_garbled() -> None:
    """It raises RecursionError in the parser, and must not here."""
    with pytest.raises(ApiGarbled):
        decode(b"[" * 100_000, CALL, 200)
    assert error_text(b"[" * 100_000) is None


@pytest.mark.parametrize(
    ("body", "said"),
    [(b"", "with nothing"), (b" <!DOCTYPE html><html>", "with a web page"), (b"oops", "with something that is not JSON")],
)
def test_an_answer_that_is_not_json_is_described(body: bytes, said: str) -> None:
    """A wrong address usually answers with a web page."""
    with pytest.raises(ApiGarbled, match=said):
        decode(body, CALL, 200)


@pytest.mark.parametrize("wrapped", [RECORD, {"data": RECORD}, {"data": {"data": RECORD}}])
def test_a_record_is_found_in_any_wrapping(wrapped: Json) -> None:
    """Both bases wrap, one of them sometimes twice."""
    function = parse_function(wrapped, CALL)
    assert (function.id, function.slug, function.status, function.code) == ("id-1", "greet", DeploymentStatus.DEPLOYED, "x")
    assert function.fields == {"name": "Greet"}


@pytest.mark.parametrize(
    "wrapped", [[RECORD], {"data": [RECORD]}, {"data": {"data": [RECORD]}}, {"data": {"functions": [RECORD]}}]
)
def test_a_list_is_found_in_any_wrapping(wrapped: Json) -> None:
    """The same for lists."""
    assert parse_records(wrapped, CALL) == [RECORD]


@pytest.mark.parametrize(
    "broken", [{}, {"id": "x"}, {"slug": "x"}, {"id": "", "slug": "x"}, {"id": 7, "slug": "x"}, [], None, "x"]
)
def test_a_record_without_id_or_slug_is_garbled(broken: Json) -> None:
    """Without them nothing can be done safely."""
    with pytest.raises(ApiGarbled):
        parse_function(broken, CALL)


def test_missing_or_odd_fields_of_a_record_are_unknown() -> None:
    """A list without code, a status from the future, a time that is none."""
    function = parse_function({"id": "1", "slug": "a", "status": "paused", "code": None, "updated_at": "soon"}, CALL)
    assert (function.status, function.code, function.updated_at, function.fields) == (DeploymentStatus.UNKNOWN, None, None, {})


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-01-02T03:04:05Z", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("2026-01-02T03:04:05.678901+00:00", datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)),
        ("2026-01-02T03:04:05", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("yesterday", None),
        (1234567890, None),
        (None, None),
    ],
)
def test_times_always_have_a_zone(text: Json, moment: datetime | None) -> None:
    """They are compared with each other, so one without a zone would be a crash."""
    assert parse_time(text) == moment


@pytest.mark.parametrize(
    ("meta", "more"),
    [
        ({"total_pages": 2}, True),
        ({"total_pages": 1}, False),
        ({"has_more": True}, True),
        ({"next_page": None}, False),
        ({"next_cursor": "abc"}, True),
        ({"total": 5}, None),
        ({"pages": True}, None),
        ({"total_pages": -1}, None),
    ],
)
def test_every_kind_of_paging_metadata_is_read(meta: Json, more: bool | None) -> None:
    """Each of the spellings in use says whether there is another page, or nothing."""
    bodies: list[Json] = [{"data": [], "meta": meta}, {"data": {"data": [], "pagination": meta}}]
    for body in bodies:
        assert parse_paging(body).more(1) is more


@given(st.dictionaries(st.sampled_from(["code", "slug", "name", "description", "runtime_config"]), values))
def test_encoded_request_bodies_decode_to_the_payload(payload: dict[str, Json]) -> None:
    """The body holds exactly the attributes that were given."""
    assert encode_function(payload) == {"function": payload}


def test_unknown_attributes_are_never_sent() -> None:
    """An attribute that is not ours to send is a mistake in this program, found before it leaves."""
    with pytest.raises(ValueError, match="not an attribute of a function: id, secrets"):
        encode_function({"slug": "a", "secrets": {}, "id": "x"})


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"error": "Not found"}, "Not found"),
        ({"error": "Invalid", "message": "slug is taken"}, "Invalid: slug is taken"),
        ({"errors": {"slug": ["is taken", "is long"], "code": "is odd"}}, "slug is taken, is long; code is odd"),
        ({"errors": ["a", "b"]}, "a, b"),
        ({"error": 7}, None),
        ([1], None),
        ({"error": "line\n  break"}, "line break"),
        ({"error": "token sk_live_abcdefghijklmnop refused"}, "token [redacted] refused"),
    ],
)
def test_server_error_texts_become_one_clean_line(body: Json, said: str | None) -> None:
    """In whichever of the usual shapes, without secrets."""
    assert error_text(json.dumps(body).encode()) == said


def test_long_server_error_texts_are_cut() -> None:
    """A stack trace in an answer is no message."""
    said = error_text(json.dumps({"error": "ab " * 500}).encode())
    assert said is not None
    assert len(said) == MESSAGE_LIMIT + 1
