"""The JSON Schema agrees with the reader: an editor and kapso-sync give the same verdict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapso_sync.manifest import json_schema
from kapso_sync.manifest.document import read_document
from tests.manifest.folder import problems_of
from tests.program import kapso_sync

ROOT = Path(__file__).parents[2]
VALIDATOR = jsonschema.Draft202012Validator(json_schema())
EXAMPLE = ROOT / "functions.example" / "manifest.yaml"
HEAD = "version: 1\nfunctions:\n  greet:\n    "


def accepts(text: str) -> bool:
    return bool(VALIDATOR.is_valid(read_document("m.yaml", text.encode()).value))


def test_the_published_schema_is_what_the_command_prints() -> None:
    """Its id stays as long as the manifest's version does: another version gets another id, and another file."""
    assert json_schema()["$id"] == "urn:kapso-sync:manifest:1"
    assert (ROOT / "docs/schemas/manifest-v1.json").read_text(encoding="utf-8") == kapso_sync("schema").out
    assert not accepts("version: 2\nfunctions: {greet: {}}\n")


def undescribed(schema: Any, place: str = "") -> list[str]:
    """The places below a schema that an editor could explain, and that have no text: keys, and what keys by name hold."""
    found = []
    for kind in ("$defs", "properties", "patternProperties"):
        for name, inner in schema.get(kind, {}).items():
            if kind != "$defs" and not {"description", "$ref"} & inner.keys():
                found.append(f"{place}/{name}")
            found += undescribed(inner, f"{place}/{name}")
    return found


def test_every_key_has_a_hover_text() -> None:
    """Also functions, environments and secrets, whose keys are names, by what they hold. A control: one key without a text."""
    schema: Any = json_schema()
    assert undescribed(schema) == []
    assert all("description" in model for model in schema["$defs"].values())
    del schema["$defs"]["CheckModel"]["properties"]["timeout"]["description"]
    assert undescribed(schema) == ["/CheckModel/timeout"]


def test_the_example_manifest_is_valid_by_the_schema() -> None:
    """People copy it first."""
    assert accepts(EXAMPLE.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "line",
    [
        "public_endpoint: 'yes'",
        "name: 5",
        "name: ''",
        "name:",
        "zzz: 1",
        "contract: other",
        "drift: 1",
        "moved_from: Not_A_Slug",
        "moved_from: [Not_A_Slug]",
        "runtime_config: 5",
        "secrets: {lower: {env: A}}",
        "secrets: {A: {}}",
        "secrets: {A: {env: X, json: null}}",
        "secrets: {A: {env: X, file: y}}",
        "checks: [{request: {}}]",
        "checks: [{expect: {status: 99}}]",
        "checks: [{request: 1, text: a, expect: {}}]",
        "checks: [{method: GET, text: a, expect: {}}]",
        "checks: [{headers: {X-Forwarded-For: a}, expect: {}}]",
        "checks: [{headers: {hOsT: a}, expect: {}}]",
        "checks: [{headers: {X_Y: a}, expect: {}}]",
        "checks: [{sign: {header: Cookie, secret: A}, expect: {}}]",
        "checks: [{sign: {header: X-Sig}, expect: {}}]",
    ],
)
def test_schema_and_reader_refuse_the_same_entries(line: str) -> None:
    """An editor underlines what the reader refuses."""
    assert problems_of(HEAD + line + "\n")
    assert not accepts(HEAD + line + "\n")


@pytest.mark.parametrize(
    "text", ["version: 2\n", "functions: {}\n", "version: '1'\n", "version: 1\nfunctions: {Not_A_Slug: {}}\n"]
)
def test_schema_and_reader_refuse_the_same_top_level_keys(text: str) -> None:
    """Version and slugs as well."""
    assert problems_of(text)
    assert not accepts(text)


@pytest.mark.parametrize(
    ("environments", "sound"),
    [
        ("{}", True),
        ("{staging: {defaults: {deploy: false}, functions: {greet: {name: X}, other: {file: greet.js}}}}", True),
        ("{staging: {functions: {greet: false}}}", True),
        ("{staging: {functions: {greet: null}}}", True),
        ("{staging: {functions: {greet: true}}}", False),
        ("{staging: {functions: {Greet: {}}}}", False),
        ("{staging: {zzz: 1}}", False),
        ("{staging: null}", False),
        ("{a b: {}}", False),
        ("[]", False),
    ],
)
def test_schema_and_reader_agree_on_environments(environments: str, sound: bool) -> None:
    """Each is as strict as the manifest itself; false or null excludes a function."""
    text = f"version: 1\nfunctions: {{greet: {{}}}}\nenvironments: {environments}\n"
    assert (accepts(text), not problems_of(text)) == (sound, sound)


lines = st.sampled_from(
    [
        "name: Greet",
        "description: ''",
        "public_endpoint: true",
        "runtime_config: {a: null, b: [1]}",
        "function_type: supabase_function",
        "invoke_response_mode: wrapped",
        "contract: module",
        "deploy: false",
        "protected: true",
        "drift: report",
        "moved_from: old",
        "moved_from: [older, oldest]",
        "moved_from: []",
        "file: greet.js",
        "secrets: {A: {env: B}, C: {value: ''}}",
        "checks: [{request: null, expect: {json: null}}, {expect: {}}]",
        "deploy: 1",
        "name: null",
        "checks: {}",
        "file: ''",
    ]
)


@given(st.lists(lines, unique_by=lambda line: line.split(":")[0], max_size=6))
def test_the_schema_accepts_what_the_reader_accepts(chosen: list[str]) -> None:
    """For any combination of keys."""
    text = "version: 1\nfunctions:\n  greet:\n" + "".join(f"    {line}\n" for line in chosen)
    assert accepts(text) == (not problems_of(text))
