"""Fixtures beside a function: what is read, and what is refused with its place."""

from __future__ import annotations

import pytest

from kapso_sync.errors import ManifestInvalid
from kapso_sync.manifest import read_manifest, unlisted_files
from kapso_sync.manifest.fixtures import FetchAnswer, read_fixtures
from tests.manifest.folder import CODE, folder

MANIFEST = "version: 1\nfunctions: {greet: {file: sub/code.js}}\n"


def test_fixtures_are_read_beside_the_code_by_the_slug() -> None:
    """JSON gets its content type, what is no text in the store is JSON, and nobody takes them for forgotten code."""
    snapshot = folder(
        {
            "manifest.yaml": MANIFEST,
            "sub/code.js": CODE,
            "sub/greet.fetch.yaml": "- url: https://a.example/*\n  answer: {json: null}\n"
            "- {method: POST, url: https://b.example, answer: {status: 202, headers: {X-A: b}, text: ok}}\n",
            "sub/greet.kv.json": '{"a": "text", "b": [1, {"c": null}]}',
            "sub/greet.db.sql": "SELECT 1;\n",
            "greet.kv.yaml": "a: elsewhere\n",
        }
    )
    manifest = read_manifest(snapshot)
    fixtures = read_fixtures("greet", "sub/code.js", snapshot.files)
    assert fixtures.answers == (
        FetchAnswer("GET", "https://a.example/*", 200, {"Content-Type": "application/json"}, "null"),
        FetchAnswer("POST", "https://b.example", 202, {"X-A": "b"}, "ok"),
    )
    assert (fixtures.values, fixtures.script) == ({"a": "text", "b": '[1,{"c":null}]'}, "SELECT 1;\n")
    assert unlisted_files(snapshot, frozenset({"sub/code.js"})) == ()
    assert manifest.notices == ()


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("greet.fetch.yaml", "url: x\n", "greet.fetch.yaml:1:1: the file: expected a list, got a mapping"),
        ("greet.fetch.yaml", "", "greet.fetch.yaml:1:1: the file: expected a list, got nothing"),
        ("greet.kv.yaml", "a: b\nc: yes\n", "greet.kv.yaml:2:4: c: not every YAML reader takes yes for text"),
        ("greet.kv.yaml", "a: {b: [0o17]}\n", "greet.kv.yaml:1:9: a.b[0]: not every YAML reader takes 0o17 for text"),
        ("greet.kv.json", f'{{"a": {"1" * 5001}}}', "greet.kv.json:1:7: a number of 5001 digits is not read"),
        ("greet.fetch.yaml", "- {url: x}\n", "greet.fetch.yaml:1:3: [0].answer: is required"),
        (
            "greet.fetch.yaml",
            "- {url: x, answer: {json: 1, text: a}}\n",
            "greet.fetch.yaml:1:20: [0].answer: expected `json` or",
        ),
        (
            "greet.fetch.yaml",
            "- {url: x, answer: {status: 99}}\n",
            "greet.fetch.yaml:1:29: [0].answer.status: expected at least 200",
        ),
        ("greet.fetch.yaml", "- {url: x, answer: {statis: 200}}\n", "greet.fetch.yaml:1:21: [0].answer.statis: unknown key"),
        ("greet.fetch.yaml", "- [", "greet.fetch.yaml:"),
        ("greet.kv.yaml", "- a\n", "greet.kv.yaml:1:1: expected a mapping of keys to values"),
        ("greet.kv.yaml", f"{'a' * 513}: 1\n", "greet.kv.yaml:1:1: expected a key of 1 to 512 bytes"),
        ("greet.db.sql", b"\xff", "greet.db.sql: greet.db.sql is not UTF-8 text"),
    ],
)
def test_an_invalid_fixture_names_file_line_and_column(name: str, text: str | bytes, said: str) -> None:
    """As the manifest's own mistakes."""
    snapshot = folder({"manifest.yaml": "version: 1\nfunctions: {greet: {}}\n", "greet.js": CODE, name: text})
    with pytest.raises(ManifestInvalid) as caught:
        read_fixtures("greet", "greet.js", snapshot.files)
    assert str(caught.value.problems[0]).startswith(said)


def test_two_files_for_one_fixture_are_an_error() -> None:
    """Nobody could say which of them counts."""
    files = {"greet.kv.yaml": "a: b\n", "greet.kv.json": "{}"}
    snapshot = folder({"manifest.yaml": "version: 1\nfunctions: {greet: {}}\n", "greet.js": CODE, **files})
    with pytest.raises(ManifestInvalid, match=r"there are greet.kv.yaml and greet.kv.json"):
        read_fixtures("greet", "greet.js", snapshot.files)
