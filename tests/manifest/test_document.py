"""YAML and JSON: text that two parsers would read differently is refused, and no text raises an unexpected exception."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapso_sync.errors import ManifestInvalid
from kapso_sync.manifest.document import read_document
from tests.manifest.folder import CODE, folder, problems_of, read

HEAD = "version: 1\nfunctions:\n"


@pytest.mark.parametrize(
    ("text", "code", "place"),
    [
        ("", "empty", (1, 1)),
        ("# nothing\n", "empty", (1, 1)),
        (f"{HEAD}  greet: [\n", "syntax", (4, 1)),
        (f"{HEAD}\tgreet: {{}}\n", "syntax", (3, 1)),
        (f"{HEAD}  greet:\n  greet:\n", "duplicate-key", (4, 3)),
        ("version: 1\nversion: 1\nfunctions: {}\n", "duplicate-key", (2, 1)),
        (f"{HEAD}  greet: &a {{}}\n  other: *a\n", "anchor", (3, 10)),
        (f"{HEAD}  greet: {{<<: {{name: x}}}}\n", "merge", (3, 11)),
        (f"{HEAD}  greet: !!python/object:os.system {{}}\n", "tag", (3, 10)),
        (f"{HEAD}  greet: {{name: !!str 5}}\n", "tag", (3, 17)),
        (f"{HEAD}  ? [a, b]\n  : {{}}\n", "key", (3, 5)),
        (f"{HEAD}  on: {{}}\n", "key", (3, 3)),
        (f"{HEAD}  12: {{}}\n", "key", (3, 3)),
        (f"{HEAD}  greet: {{}}\n---\nversion: 1\n", "documents", (4, 1)),
        (f"{HEAD}  greet: {{runtime_config: {{x: {'9' * 5000}}}}}\n", "number", (3, 31)),
        ("[" * 500, "too-deep", (1, 41)),
        ("{a: " * 500, "too-deep", (1, 161)),
        (f"{HEAD}  greet: {{name: \0}}\n", "nul", (3, 1)),
    ],
)
def test_ambiguous_or_dangerous_yaml_is_refused_with_line_and_column(text: str, code: str, place: tuple[int, int]) -> None:
    """Each line of the table is an error, not a guess."""
    first = problems_of(text)[0]
    assert first.code == code
    assert first.location is not None
    assert (first.location.line, first.location.column) == place


def test_a_yaml_alias_bomb_is_refused_without_expansion() -> None:
    """A few hundred bytes that would expand to billions of values."""
    bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{chr(98 + n)}: &{chr(98 + n)} [{','.join([f'*{chr(97 + n)}'] * 9)}]\n" for n in range(8)
    )
    assert {problem.code for problem in problems_of(bomb)} >= {"anchor", "alias"}


def test_a_byte_order_mark_and_crlf_are_accepted() -> None:
    """Editors add them, and they have no meaning."""
    text = f"\ufeff{HEAD}  greet:\n    name: Greet\n".replace("\n", "\r\n")
    assert read(text).entries[0].fields == {"name": "Greet"}


def test_a_manifest_that_is_not_utf8_is_an_error_with_its_line() -> None:
    """Latin-1 in the third line."""
    (problem,) = problems_of(HEAD.encode() + b"  greet: {name: caf\xe9}\n")
    assert (problem.code, problem.location and problem.location.line) == ("not-utf8", 3)


def test_a_json_manifest_must_be_valid_json() -> None:
    """The same models and places; syntax that only YAML allows is refused."""
    text = json.dumps({"version": 1, "functions": {"greet": {"public_endpoint": True}}}, indent=2)
    assert read(text, "manifest.json").entries[0].fields == {"public_endpoint": True}
    for wrong in ("{version: 1}", '{"version": 1,}', '{"version": NaN}', "[" * 2000, '{"a": "\t"}'):
        assert problems_of(wrong, "manifest.json")
    (twice,) = problems_of('{"version": 1, "functions": {"greet": {}, "greet": {}}}', "manifest.json")
    assert twice.code == "duplicate-key"
    (problem,) = problems_of('{\n  "version": 1,\n  "functions": {"greet": {"deploy": "no"}}\n}', "manifest.json")
    assert str(problem) == 'manifest.json:3:37: functions.greet.deploy: expected true or false, got "no"'


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("manifest.yaml", f"{HEAD}  greet:\n    name: a\x01b\n", "4:12: not valid YAML: the character U+0001 is not allowed"),
        ("manifest.json", '{"version": 1,\r "NaN": "\\"", "b": NaN}', "2:20: not valid JSON: NaN is not a JSON number"),
        ("manifest.json", '{"version": 1,\r\n "a": -Infinity}', "2:7: not valid JSON: -Infinity is not a JSON number"),
        ("manifest.json", '{"version": 1,\n "a": "b\tc"}', "2:9: not valid JSON: a text has a control character"),
        ("manifest.json", '{"version": 1,\n "a": "b', "2:7: not valid JSON: a text has no closing quote"),
    ],
)
def test_what_is_not_valid_is_told_where_it_stands(name: str, text: str, said: str) -> None:
    """Not at the beginning of the file, and in a whole sentence."""
    (problem,) = problems_of(text, name)
    assert str(problem) == f"{name}:{said}"
    assert problem.frame is not None
    shown, caret = problem.frame.split("\n")
    assert shown[caret.index("^")] in '\x01N-\t"'


@given(st.data())
def test_json_is_read_whatever_its_white_space_and_the_length_of_its_keys(data: st.DataObject) -> None:
    """YAML wants a key and its colon on one line, and no more than 1,024 characters from its beginning."""
    blank = st.text(" \t\r\n", max_size=3)
    config = data.draw(
        st.dictionaries(st.sampled_from(["a", "k" * 1100, "{", "b: c", "é"]), st.sampled_from(["x", 5, "y" * 1100]))
    )
    text = json.dumps({"version": 1, "functions": {"greet": {"runtime_config": config}}}, ensure_ascii=False)
    for between in ('":', ": ", "{", "}", ', "'):
        left, right = data.draw(blank), data.draw(blank)
        spaced = {'":': f'"{left}:', ": ": f":{left}", "{": f"{{{left}", "}": f"{left}}}{right}", ', "': f'{left},{right}"'}
        if not any(between in key for key in config):
            text = text.replace(between, spaced[between])
    assert read(text, "manifest.json").entries[0].fields == {"runtime_config": config}


def test_a_key_of_json_on_a_line_of_its_own_has_its_place() -> None:
    """Of the key and of the value."""
    (problem,) = problems_of('{"version": 1, "functions"\n  : {"greet": {"colour"\n\n:\n1}}}', "manifest.json")
    assert str(problem) == "manifest.json:2:16: functions.greet.colour: unknown key"


@pytest.mark.parametrize("text", ["just text", "- a\n- b\n", "5", "null", "true"])
def test_a_manifest_that_is_not_a_mapping_is_refused(text: str) -> None:
    """One problem, at the beginning."""
    assert problems_of(text)


def test_digits_of_other_scripts_are_text() -> None:
    """As YAML and JSON have it; a list of Python's digits would make numbers of them."""
    (entry,) = read(f"{HEAD}  greet: {{runtime_config: {{a: \u0665, b: 1\u0665, c: 15}}}}\n").entries
    assert entry.fields == {"runtime_config": {"a": "\u0665", "b": "1\u0665", "c": 15}}


def test_an_error_shows_the_line_with_a_caret() -> None:
    """Also for very long lines, and columns beyond them."""
    document = read_document("m.yaml", ("a: " + "x" * 500 + "\n").encode())
    frame = document.frame(document.location(("a",)))
    assert frame is not None
    assert max(map(len, frame.splitlines())) < 180


PIECES = (
    "version: 1\n|functions:\n|  greet:\n|    name: |a|- |[|]|{|}|: |\n|  |&a |*a|!!x |'|\"|>\n|#|\t|? |---\n|...\n"
    '|%YAML 1.1\n|<<: |~|0x1|1e9|\u2028|\x85|é|"\\ud800"'
)
pieces = st.lists(st.sampled_from(PIECES.split("|")) | st.text(max_size=3)).map("".join)


@given(pieces | st.text() | st.just(HEAD).flatmap(lambda head: pieces.map(lambda rest: head + rest)))
def test_any_text_is_a_manifest_or_a_manifest_error(text: str) -> None:
    """The error has a place in the file."""
    for name in ("manifest.yaml", "manifest.json"):
        for problem in problems_of(text.encode("utf-8", "surrogatepass"), name):
            assert problem.location is not None
            assert problem.location.line >= 1


@given(pieces | st.text() | pieces.map(lambda rest: "a: [" + rest + "]") | pieces.map(lambda rest: HEAD + rest))
def test_any_text_is_read_the_same_without_libyaml(text: str) -> None:
    """Value, places and problems: a computer without the extension must not deploy something else."""
    content = text.encode("utf-8", "surrogatepass")
    for name in ("manifest.yaml", "manifest.json"):
        assert read_document(name, content) == read_document(name, content, libyaml=None)


def test_a_lone_surrogate_is_refused() -> None:
    """It could not be written anywhere; a whole pair is one character."""
    (problem,) = problems_of(HEAD + '  greet: {name: "\\ud800"}\n')
    assert (problem.code, problem.location and problem.location.column) == ("not-text", 17)
    whole = '{"version": 1, "functions": {"greet": {"name": "\\ud83d\\ude00"}}}'
    assert read(whole, "manifest.json").entries[0].fields == {"name": "\U0001f600"}


@given(st.binary(max_size=200))
def test_any_bytes_are_a_manifest_or_a_manifest_error(content: bytes) -> None:
    """Binary files included."""
    problems_of(content)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**17), 10**17)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.text(max_size=5), json_values, max_size=3))
def test_a_json_manifest_reads_as_the_json_module_reads_it(config: dict[str, object]) -> None:
    """Every value is the same as with the standard library."""
    text = json.dumps({"version": 1, "functions": {"greet": {"runtime_config": config}}})
    try:
        (entry,) = read(text, "manifest.json").entries
    except ManifestInvalid as error:
        assert {problem.code for problem in error.problems} <= {"number", "too-deep"}  # noqa: PT017 - the exception is one of two outcomes
    else:
        assert entry.fields["runtime_config"] == config


def test_an_unreadable_manifest_reports_the_sources_reason() -> None:
    """Too large, or a symlink out of the folder: the source's message is passed on."""
    from kapso_sync.manifest import read_manifest
    from kapso_sync.model.source import SourceFile

    large = SourceFile("manifest.yaml", None, "is 300 KiB; the limit for a manifest is 256 KiB")
    with pytest.raises(ManifestInvalid) as raised:
        read_manifest(folder({"manifest.yaml": large, "greet.js": CODE}))
    assert "is 300 KiB; the limit for a manifest is 256 KiB" in str(raised.value.problems[0])
