"""Deep JSON from outside never takes Python's stack."""

from __future__ import annotations

import json

import pytest

from kapso_sync.api.wire import MAX_ANSWER_DEPTH, MAX_FIELD_DEPTH, decode, parse_function
from kapso_sync.errors import ApiGarbled, Call
from kapso_sync.model.desired import Check
from kapso_sync.model.functions import Invocation, Json, is_nested_within, same_json
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
    for depth in (MAX_ANSWER_DEPTH + 1, 100_000):
        with pytest.raises(ApiGarbled):
            decode(b"[" * depth + b"]" * depth, CALL, 200)
    assert decode(b"[" * MAX_ANSWER_DEPTH + b"]" * MAX_ANSWER_DEPTH, CALL, 200)


def test_what_a_record_may_hold_comes_back_from_the_state_folder() -> None:
    """A record that were too deep for it would make the whole state unreadable."""
    record = {"id": "id-greet", "slug": "greet", "runtime_config": nested(MAX_FIELD_DEPTH)}
    kept = owned(remote("greet", runtime_config=parse_function(record, CALL).fields["runtime_config"]))
    assert decode_record(encode_record(kept)) == kept
    with pytest.raises(ApiGarbled, match="runtime_config is nested deeper than 100 levels"):
        parse_function({**record, "runtime_config": nested(MAX_FIELD_DEPTH + 1)}, CALL)


@pytest.mark.parametrize("depth", [400, 980])
def test_a_check_reads_a_deep_answer_as_text(depth: int) -> None:
    """A function cannot end a pass by what it answers."""
    answer = Invocation(200, "application/json", json.dumps({"data": 1}).replace("1", "[" * depth + "]" * depth))
    assert check_mismatch(Check(None, json={"a": 1}), answer, wrapped=True) == 'JSON with {"a":1}'
    assert check_mismatch(Check(None, text="[["), answer, wrapped=True) is None
