"""Answers read leniently, requests written strictly."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapso_sync.api.envelope import MESSAGE_LIMIT, decode, error_text, parse_paging, parse_records
from kapso_sync.api.wire import encode_function, parse_function, parse_invocations, parse_time
from kapso_sync.errors import ApiGarbled, Call
from kapso_sync.model.functions import DeploymentStatus
from kapso_sync.model.json_values import Json

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
def test_any_json_response_decodes_or_raises_an_api_error(value: Json) -> None:
    """Whatever JSON a server or a proxy sends, no other exception is raised."""
    for parse in (parse_function, parse_records):
        with contextlib.suppress(ApiGarbled):
            parse(value, CALL)
    parse_paging(value).more(1)


@given(st.binary())
def test_any_bytes_decode_or_are_garbled(body: bytes) -> None:
    """Invalid UTF-8, broken JSON, an empty body."""
    with contextlib.suppress(ApiGarbled):
        decode(body, CALL, 200)
    error_text(body)


def test_deeply_nested_json_is_garbled() -> None:
    """The parser raises RecursionError, which must not reach the caller."""
    with pytest.raises(ApiGarbled):
        decode(b"[" * 100_000, CALL, 200)
    assert error_text(b"[" * 100_000) is None


@pytest.mark.parametrize(
    ("body", "said"),
    [(b"", "with nothing"), (b" <!DOCTYPE html><html>", "with a web page"), (b"oops", "with something that is not JSON")],
)
def test_a_response_without_json_is_described_in_the_error(body: bytes, said: str) -> None:
    """A wrong address usually answers with a web page."""
    with pytest.raises(ApiGarbled, match=said):
        decode(body, CALL, 200)


@pytest.mark.parametrize("wrapped", [RECORD, {"data": RECORD}, {"data": {"data": RECORD}}])
def test_a_record_is_found_in_any_response_envelope(wrapped: Json) -> None:
    """Both bases wrap records, one of them sometimes twice."""
    function = parse_function(wrapped, CALL)
    assert (function.id, function.slug, function.status, function.code) == ("id-1", "greet", DeploymentStatus.DEPLOYED, "x")
    assert function.fields == {"name": "Greet"}


@pytest.mark.parametrize(
    "wrapped", [[RECORD], {"data": [RECORD]}, {"data": {"data": [RECORD]}}, {"data": {"functions": [RECORD]}}]
)
def test_a_list_is_found_in_any_response_envelope(wrapped: Json) -> None:
    """The same for lists."""
    assert parse_records(wrapped, CALL) == [RECORD]


@pytest.mark.parametrize(
    "broken", [{}, {"id": "x"}, {"slug": "x"}, {"id": "", "slug": "x"}, {"id": 7, "slug": "x"}, [], None, "x"]
)
def test_a_record_without_id_or_slug_is_garbled(broken: Json) -> None:
    """Without them nothing can be done safely."""
    with pytest.raises(ApiGarbled):
        parse_function(broken, CALL)


def test_missing_or_unexpected_record_fields_are_unknown() -> None:
    """A list without code, an unknown status, a time that is not a time."""
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
def test_timestamps_always_have_a_time_zone(text: Json, moment: datetime | None) -> None:
    """They are compared with each other, and a time without a zone would raise an exception."""
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
def test_every_pagination_format_says_whether_there_is_a_next_page(meta: Json, more: bool | None) -> None:
    """Each format in use says whether there is another page, or nothing."""
    bodies: list[Json] = [{"data": [], "meta": meta}, {"data": {"data": [], "pagination": meta}}]
    for body in bodies:
        assert parse_paging(body).more(1) is more


@given(st.dictionaries(st.sampled_from(["code", "slug", "name", "description", "runtime_config"]), values))
def test_a_request_body_holds_exactly_the_given_attributes(payload: dict[str, Json]) -> None:
    """Nothing is added and nothing is left out."""
    assert encode_function(payload) == {"function": payload}


def test_an_attribute_that_may_not_be_sent_raises_before_the_request() -> None:
    """It is a mistake in this program, found before the request is sent."""
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
def test_server_error_messages_are_one_redacted_line(body: Json, said: str | None) -> None:
    """In every common error format, without secrets."""
    assert error_text(json.dumps(body).encode()) == said


def test_server_error_messages_are_truncated() -> None:
    """A stack trace in a response is not a useful message."""
    said = error_text(json.dumps({"error": "ab " * 500}).encode())
    assert said is not None
    assert len(said) == MESSAGE_LIMIT + 1


def test_half_a_surrogate_pair_in_an_error_is_replaced() -> None:
    """No stream and no database takes it; what else is there stays."""
    assert error_text(b'{"error": "bad \\ud800 caf\\u00e9"}') == "bad ? café"


@pytest.mark.parametrize("number", ["1" + "0" * 400, "1e999", "NaN", "-Infinity", "true", '"12"'])
def test_a_duration_that_no_float_holds_is_left_out(number: str) -> None:
    """Python's reader takes more for numbers than can be rounded and shown."""
    body = f'{{"data": [{{"id": "a", "duration_ms": {number}}}, {{"id": "b", "duration_ms": 12}}]}}'.encode()
    found = parse_invocations(decode(body, CALL, 200), CALL)
    assert [record.duration_ms for record in found] == [None, 12.0]


def test_records_share_what_is_equal() -> None:
    """A thousand functions have few types, one project, and often one time; each record is JSON of its own."""
    often = {"function_type": "cloudflare_worker", "project_id": "project-1", "updated_at": "2026-01-01T00:00:00Z"}
    first, second = (
        parse_function(json.loads(json.dumps({**RECORD, "id": name, "slug": name, **often})), CALL) for name in ("one", "two")
    )
    assert first.fields["function_type"] is second.fields["function_type"]
    assert first.project_id is second.project_id
    assert first.updated_at is second.updated_at
    assert first.id is not second.id
