"""PyYAML's two parsers: they read the same, and what the manifest's former parser read."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kapso_sync.manifest.document import Document, read_document
from kapso_sync.manifest.text import Edit, edited
from kapso_sync.manifest.yaml_events import LIBYAML, JsonLoader, Loader, PythonLoader, loaders

ROOT = Path(__file__).parents[2]
CASES: list[dict[str, Any]] = json.loads((Path(__file__).parent / "yaml_cases.json").read_text(encoding="utf-8"))
"""Texts, and what was made of them with ruamel.yaml 0.19.1 (``old``). ``new`` is what differs now, and ``why`` the reason."""


def result(document: Document) -> dict[str, Any]:
    """Return what was read in the form of the cases."""
    return {
        "value": document.value,
        "places": " ".join(f"{line}:{column}" for line, column in document.places.values()),
        "keys": " ".join(f"{line}:{column}" for line, column in document.key_places.values()),
        "ambiguous": [*document.ambiguous.values()],
        "problems": [f"{str(p.location).partition(':')[2]} {p.code}: {p.message}" for p in document.problems],
    }


@pytest.mark.parametrize("libyaml", [LIBYAML, None], ids=["libyaml", "python"])
def test_yaml_is_read_as_it_was_with_the_former_parser(libyaml: Loader | None) -> None:
    """Values, places, and errors to the letter, but for the differences that the cases give a reason for."""
    nothing: dict[str, Any] = {"value": None, "places": "", "keys": "", "ambiguous": [], "problems": []}
    wrong = []
    for case in CASES:
        document = read_document(case.get("file", "m.yaml"), case["text"].encode(), libyaml=libyaml)
        if result(document) != {**nothing, **case["old"], **case.get("new", {})}:
            wrong.append((case["text"], result(document)))
    assert not wrong
    assert all("why" in case for case in CASES if "new" in case)


def test_usual_manifests_are_parsed_by_libyaml() -> None:
    """Which takes a tenth of the time. What the two may read differently is left to the parser in Python."""
    assert LIBYAML is not None, "PyYAML's wheels have the extension"
    text = (ROOT / "functions.example" / "manifest.yaml").read_text(encoding="utf-8")
    assert loaders(text) == (LIBYAML, PythonLoader)
    assert loaders('{"a":"Hello!"}', is_json=True) == (LIBYAML, JsonLoader)
    for odd in ("a:\tb", "a: !t b", "? a", "a: |#", "a: \ufeff"):
        assert loaders(odd) == (PythonLoader,)


WITHOUT_EXTENSION = """
import sys
sys.modules["yaml._yaml"] = None
from kapso_sync.manifest.text import Edit, edited
from kapso_sync.manifest.yaml_events import LIBYAML
assert LIBYAML is None
print(edited(sys.argv[1], [Edit(("functions", "greet", "name"), "new"), Edit(("version",), 2)]), end="")
"""


def test_a_pyyaml_without_its_extension_makes_the_same_edits() -> None:
    """As where no wheel fits and there is no compiler."""
    text = "version: 1\nfunctions:\n  \U0001f600: {a: '\u00e9'}  # kept\n  greet:\n    file: |\n      x\n\n    name: old # 1\n"
    ran = subprocess.run([sys.executable, "-c", WITHOUT_EXTENSION, text], capture_output=True, check=True, cwd=ROOT)
    assert ran.stdout.decode() == edited(text, [Edit(("functions", "greet", "name"), "new"), Edit(("version",), 2)])
    assert ran.stdout.decode() == text.replace("version: 1", "version: 2").replace("old", "new")


@pytest.mark.parametrize("char", ["\x85", "\u2028", "\u2029"])
def test_a_line_end_of_yaml_1_1_alone_is_refused_with_its_place(char: str) -> None:
    """It would end a comment for one reader, and not for the next. Escaped, and in JSON, it is text."""
    (problem,) = read_document("m.yaml", f"a: 1\r\n# b{char}c: 2\n".encode()).problems
    escaped = f"\\u{ord(char):04x}"
    assert str(problem).startswith("m.yaml:2:4: not valid YAML: U+")
    assert problem.hint == f"remove it, or write {escaped} in double quotes"
    assert read_document("m.yaml", f'a: "{escaped}"'.encode()).value == {"a": char}
    assert read_document("m.json", f'{{"a": "{char}"}}'.encode()).value == {"a": char}


@pytest.mark.parametrize("version", ["1.1", "1.2", "1.3"])
def test_a_directive_may_name_any_minor_version(version: str) -> None:
    """As YAML says; the next major version is an error."""
    assert read_document("m.yaml", f"%YAML {version}\n---\na: 1\n".encode()).value == {"a": 1}
    (problem,) = read_document("m.yaml", b"%YAML 2.0\n---\na: 1\n").problems
    assert str(problem).startswith("m.yaml:1:1: not valid YAML: found incompatible YAML document")
