"""Deep JSON from outside never takes Python's stack."""

from __future__ import annotations

import json

import pytest

from kapso_sync.api.envelope import CUT_DEPTH, decode, parse_records
from kapso_sync.api.wire import MAX_VALUE_DEPTH, parse_function, parse_list
from kapso_sync.errors import ApiGarbled, Call
from kapso_sync.model.desired import Check
from kapso_sync.model.functions import GarbledRecord, Invocation
from kapso_sync.model.json_values import MAX_JSON_DEPTH, Json, is_nested_within, same_json
from kapso_sync.reconcile.apply.checks import check_mismatch
from kapso_sync.store.codec import decode_record, encode_record
from tests.builders import owned, remote

CALL = Call("GET", "/functions/{id}")


def nested(depth: int, kind: str = "object") -> Json:
    """An object in an object, or a list in a list, so many levels deep."""
    value: Json = 1
    for _ in range(depth):
        value = {"a": value} if kind == "object" else [value]
    return value


@pytest.mark.parametrize("kind", ["object", "list"])
def test_values_deeper_than_the_stack_are_compared(kind: str) -> None:
    """Equal and unequal ones."""
    assert same_json(nested(5000, kind), nested(5000, kind))
    assert not same_json(nested(5000, kind), nested(4999, kind))
    assert not same_json([1, True], [1, 1])
    assert same_json({"a": [1.0, None]}, {"a": [1, None]})
    assert not same_json({"a": 1}, {"b": 1})
    assert not same_json([1], [1, 1])


def test_the_depth_of_a_value_is_counted_in_levels() -> None:
    assert is_nested_within("text", 0)
    assert is_nested_within(nested(3), 3)
    assert not is_nested_within(nested(4), 3)
    assert not is_nested_within([1, {"a": [[]]}], 3)


def test_an_answer_that_is_too_deep_is_garbled() -> None:
    """Whether or not the JSON reader gave up already."""
    for depth in (MAX_JSON_DEPTH + 1, 100_000):
        with pytest.raises(ApiGarbled):
            decode(b"[" * depth + b"]" * depth, CALL, 200)
    assert decode(b"[" * MAX_JSON_DEPTH + b"]" * MAX_JSON_DEPTH, CALL, 200)


def list_of(value: bytes) -> bytes:
    """A list with a function whose ``runtime_config`` is this, between two others, with brackets and quotes in texts."""
    return (
        rb'{"data": [{"id": "id-a", "slug": "a", "code": "[[{\"{\\"}, {"id": "id-b", "slug": "b", "runtime_config": '
        + value
        + rb', "code": "x"}, {"id": "id-c", "slug": "c", "code": "]}\""}], "meta": {"total": 3}}'
    )


@pytest.mark.parametrize("depth", [MAX_VALUE_DEPTH + 1, CUT_DEPTH - 3, CUT_DEPTH, 1000, 100_000])
@pytest.mark.parametrize("pieces", [(b"[", b"1", b"]"), (b'{"a":', b'"}"', b"}"), (b'[{"b\\\\":[', b'{"c": 1}', b"]}, 2]")])
def test_a_record_of_a_list_that_is_too_deep_costs_only_that_record(depth: int, pieces: tuple[bytes, bytes, bytes]) -> None:
    """Whether or not the JSON reader would have given up; a control is one level less deep."""
    opening, inner, closing = pieces
    found = parse_list(
        parse_records(decode(list_of(opening * depth + inner + closing * depth), CALL, 200, cut=True), CALL), CALL
    )
    assert [(function.slug, function.code) for function in found.functions] == [("a", '[[{"{\\'), ("c", ']}"')]
    assert found.garbled == (GarbledRecord("id-b", "b", "runtime_config is nested too deeply"),)


def test_a_record_of_a_list_that_is_deep_enough_is_kept_whole() -> None:
    """The control of the test above."""
    value = b"[" * MAX_VALUE_DEPTH + b"]" * MAX_VALUE_DEPTH
    found = parse_list(parse_records(decode(list_of(value), CALL, 200, cut=True), CALL), CALL)
    assert found.garbled == ()
    assert found.functions[1].fields["runtime_config"] == json.loads(value)


@pytest.mark.parametrize(
    "body", [b"[" * 1000, b"[" * 1000 + b"]" * 999, b"]" * 1000, b'{"a' + b"[" * 1000, b"[" * 500 + b"}" * 500]
)
def test_deep_text_that_is_no_json_stays_garbled_when_it_is_cut(body: bytes) -> None:
    with pytest.raises(ApiGarbled):
        decode(body, CALL, 200, cut=True)


def test_what_a_record_may_hold_comes_back_from_the_state_folder() -> None:
    """A record that were too deep for it would make the whole state unreadable."""
    record = {"id": "id-greet", "slug": "greet", "runtime_config": nested(MAX_VALUE_DEPTH)}
    kept = owned(remote("greet", runtime_config=parse_function(record, CALL).fields["runtime_config"]))
    assert decode_record(encode_record(kept)) == kept
    with pytest.raises(ApiGarbled, match="runtime_config is nested too deeply"):
        parse_function({**record, "runtime_config": nested(MAX_VALUE_DEPTH + 1)}, CALL)


@pytest.mark.parametrize("depth", [400, 980])
def test_a_check_reads_a_deep_answer_as_text(depth: int) -> None:
    """A function cannot end a pass by what it answers."""
    answer = Invocation(200, "application/json", json.dumps({"data": 1}).replace("1", "[" * depth + "]" * depth))
    assert check_mismatch(Check(None, json={"a": 1}), answer, wrapped=True) == 'JSON with {"a":1}'
    assert check_mismatch(Check(None, text="[["), answer, wrapped=True) is None
