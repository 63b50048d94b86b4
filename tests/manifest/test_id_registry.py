"""Files of ids as deploy scripts write them: both shapes are read, and nothing in them can stop a reader."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapso_sync.manifest.id_registry import MAX_DEPTH, RegisteredFunction, read_id_registry

ID = "88dfc487-0f8f-4bde-89b8-b67d84bfbd69"
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.just(ID),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["id", "functionId", "file", "greet", ""]), inner),
)


@pytest.mark.parametrize(
    ("document", "found"),
    [
        ({"greet": ID}, [RegisteredFunction("ids.json", "greet", ID)]),
        ({"on_shared": ID, "invoke_url": "https://api.example/x"}, [RegisteredFunction("ids.json", "on_shared", ID)]),
        ({"functions": {"greet": {"id": ID}}}, [RegisteredFunction("ids.json", "greet", ID)]),
        (
            {"a": {"b": {"greet": {"kapso_function_id": ID, "id": "7", "local_path": "f/greet.js"}}}},
            [RegisteredFunction("ids.json", "greet", ID, "f/greet.js")],
        ),
        ({"workflow_id": ID, "greet": {"function_id": "88dfc487"}, "ids": [ID]}, []),
        ([{"greet": ID}], []),
    ],
)
def test_names_are_read_with_the_ids_beside_them(document: object, found: list[RegisteredFunction]) -> None:
    """Under any headings; ids of other things, shortened ones and lists are not taken for a function's."""
    assert list(read_id_registry("ids.json", json.dumps(document).encode())) == found


def test_headings_are_searched_to_a_limit() -> None:
    """With the last level that is read as the control."""

    def nested(levels: int) -> bytes:
        return b'{"heading":' * levels + json.dumps({"greet": ID}).encode() + b"}" * levels

    assert len(read_id_registry("ids.json", nested(MAX_DEPTH))) == 1
    assert read_id_registry("ids.json", nested(MAX_DEPTH + 1)) == ()
    assert read_id_registry("ids.json", nested(100_000)) == ()


@given(json_values.map(json.dumps).map(str.encode) | st.binary())
def test_any_content_is_read_without_an_error(content: bytes) -> None:
    """What is found has a key and an id."""
    assert all(each.id == ID for each in read_id_registry("ids.json", content))
