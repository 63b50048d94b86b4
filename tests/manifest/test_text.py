"""Writing YAML: a written value reads back unchanged, and untouched text keeps every byte."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapso_sync.manifest.document import read_document
from kapso_sync.manifest.layout import edited_file, misfit
from kapso_sync.manifest.text import Edit, edited, flow_text, scalar
from kapso_sync.model.json_values import Json, same_json

HOSTILE = [
    "<<",
    "yes",
    "010",
    "- x",
    "---",
    "...",
    "#",
    "",
    "null",
    "~",
    "a: b",
    "a #b",
    "{x}",
    "x ",
    "1e3",
    "!t",
    "&a",
    "*a",
    "=",
    "\x85",
]
TEXT = st.text(st.characters(blacklist_categories=["Cs"]), max_size=30) | st.sampled_from(HOSTILE)
SCALARS = st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False, allow_infinity=False) | TEXT
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4), max_leaves=12
)
OBJECTS = st.dictionaries(TEXT, VALUES, min_size=1, max_size=5)


def read(text: str) -> Json:
    document = read_document("x.yaml", text.encode())
    assert not document.problems, (text, document.problems)
    assert not document.ambiguous, text
    return document.value


@given(OBJECTS, st.booleans())
def test_any_json_round_trips_through_yaml(value: dict[str, Any], nested: bool) -> None:
    """Whatever spelling is chosen, our strict reader reads the same value."""
    text = edited("", [Edit((key,), item) for key, item in value.items()], nested=nested)
    assert same_json(read(text), value)


@given(OBJECTS, OBJECTS, st.booleans(), st.sampled_from(["\n", "\r\n"]))
def test_manifest_edits_change_only_the_named_keys(
    old: dict[str, Any], new: dict[str, Any], nested: bool, newline: str
) -> None:
    """In any file the other keys keep their value and their order."""
    before = edited("", [Edit(("top", key), item) for key, item in old.items()], nested=nested).replace("\n", newline)
    expected = {**old, **new}
    after = edited(before, [Edit(("top", key), item) for key, item in new.items()], nested=nested)
    value = read(after)
    assert isinstance(value, dict)
    assert same_json(value["top"], expected)
    assert list(value["top"]) == list(expected)  # type: ignore[arg-type]


@given(OBJECTS)
def test_setting_an_equal_value_changes_no_byte(value: dict[str, Any]) -> None:
    """However the value is spelled."""
    text = f"# {'-' * 10}\ntop:   {flow_text(value)}   # kept\n\n"
    assert edited(text, [Edit(("top", key), item) for key, item in value.items()]) == text


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("a: 1", "a: 1\nb: 2\n"),
        ("# only a comment\n", "# only a comment\nb: 2\n"),
        ("a:   # nothing yet\n# end\n", "a:   # nothing yet\nb: 2\n# end\n"),
        ("a: |\n  x\n\n# end\n", "a: |\n  x\nb: 2\n\n# end\n"),
        ("a:\n- 1\n- 2   # two\n", "a:\n- 1\n- 2   # two\nb: 2\n"),
        ("{a: 1}  # short\n", "{a: 1, b: 2}  # short\n"),
        ("{\n  a: 1, # one\n  c: 3\n}\n", "{\n  a: 1, # one\n  c: 3, b: 2\n}\n"),
        ('"a" : 1\r\n', '"a" : 1\r\nb: 2\r\n'),
    ],
)
def test_a_new_key_is_appended_after_the_last_one(before: str, after: str) -> None:
    """Comments stay where they are, and line endings are the file's own."""
    assert edited(before, [Edit(("b",), 2)]).rstrip("\r\n") == after.rstrip("\r\n")


@pytest.mark.parametrize("empty", ["functions:  # none yet", "functions: {}  # none yet"])
def test_an_empty_mapping_is_filled_in_place(empty: str) -> None:
    """The comment beside it stays."""
    text = edited(f"version: 1\n{empty}\n# end\n", [Edit(("functions", "b", "x"), 1), Edit(("functions", "b", "y"), 2)])
    assert text == 'version: 1\nfunctions:  # none yet\n  b:\n    x: 1\n    "y": 2\n# end\n'


def test_removing_a_key_removes_only_its_own_lines() -> None:
    """Equal parts of a replaced mapping keep their spelling."""
    before = "c:\n  a: 'x'   # kept\n  # kept too\n  b:\n    - 1\n  d: 0.50\n"
    assert edited(before, [Edit(("c",), {"a": "x", "d": 0.5, "e": 1})]) == before.replace("  b:\n    - 1\n", "") + "  e: 1\n"


def test_a_json_manifest_stays_json() -> None:
    """Keys keep their order; text that is not ASCII stays readable."""
    made = edited_file("manifest.json", b'{"version": 1, "functions": {"a": {}}}', [Edit(("functions", "b", "name"), "\u00e9")])
    assert made.decode().startswith('{\n  "version": 1,\n  "functions": {\n    "a": {},\n')
    assert '"name": "\u00e9"' in made.decode()


def test_the_first_line_names_the_schema_only_where_somebody_wrote_it() -> None:
    """Editors look for it there; a manifest that exists keeps its own, or none."""
    edits = [Edit(("functions", "b", "name"), "x")]
    for head in ("", "# yaml-language-server: $schema=./mine.json\n"):
        made = edited_file("manifest.yaml", f"{head}version: 1\n".encode(), edits).decode()
        assert made == f"{head}version: 1\nfunctions:\n  b:\n    name: x\n"


def test_a_byte_order_mark_is_kept() -> None:
    """Some editors need it."""
    assert edited_file("manifest.yaml", b"\xef\xbb\xbfversion: 1\n", [Edit(("a",), 1)]) == b"\xef\xbb\xbfversion: 1\na: 1\n"


@pytest.mark.parametrize(
    "text", ["yes", "010", "1e3", "12:30:45", "2026-01-01", "~", "", " x", "x:", "a: b", "a #b", "- a", "*a", "<<"]
)
def test_ambiguous_yaml_text_is_quoted(text: str) -> None:
    """It is then text for every YAML parser."""
    assert scalar(text) == f'"{text}"'


@pytest.mark.parametrize("text", ["Hello, world (v2)", "path/to.js", "Funci\u00f3n \u26a1", "a:b"])
def test_plain_text_is_written_without_quotes(text: str) -> None:
    """As a person would write it."""
    assert scalar(text) == text


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("name", "", "expected some text"),
        ("public_endpoint", "yes", "expected true or false"),
        ("function_type", "other", "expected"),
        ("runtime_config", [1], "expected a mapping"),
        ("runtime_config", {"a": float("nan")}, "does not come back"),
        ("runtime_config", {"\ud800": 1}, "surrogate"),
    ],
)
def test_a_value_that_a_manifest_cannot_hold_is_an_error(key: str, value: Json, said: str) -> None:
    """With the reader's reason."""
    assert said in str(misfit("x", key, value))


@pytest.mark.parametrize("char", ["\x7f", "\x85", "\x9b", "\u2028", "\u2029", "\ufffe", "\uffff"])
def test_what_json_takes_for_text_and_yaml_does_not_is_read_as_json_says(char: str) -> None:
    """YAML's parser gives the positions; it would refuse these, or fold the line. They are read, and written, in keys too."""
    content = json.dumps({"version": 1, f"a {char}": f" {char} b"}, ensure_ascii=False).encode()
    found = read_document("manifest.json", content)
    assert (found.problems, found.value) == ([], {"version": 1, f"a {char}": f" {char} b"})
    again = read_document("manifest.json", edited_file("manifest.json", content, [Edit(("b",), f"{char} c")]))
    assert again.value == {"version": 1, f"a {char}": f" {char} b", "b": f"{char} c"}
    assert read_document("manifest.json", f'{{"a":{char} 1}}'.encode()).problems[0].code == "syntax"
