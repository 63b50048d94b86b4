"""The compatibility promises: documents have the published fields, and nothing that was released is gone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from kapso_sync.errors import ExitCode
from tests.docs.contract import SCHEMAS, contract
from tests.program import Ran, answering, kapso_sync, write_functions
from tests.served import served

GOLDEN = Path(__file__).parents[1] / "golden"
OPEN = {"history", "version", "manifest"}
"""Documents with keys that no schema can list: the fields of events, the names of libraries; the manifest is no output."""


def schema(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((SCHEMAS / f"{name}-v1.json").read_text(encoding="utf-8"))
    return document


def closed(part: Any) -> Any:
    """The same schema without room for a field that it does not name."""
    if isinstance(part, list):
        return [closed(item) for item in part]
    if not isinstance(part, dict):
        return part
    made = {key: closed(value) for key, value in part.items()}
    return made | {"additionalProperties": False} if "properties" in part else made


@pytest.mark.e2e
def test_json_documents_have_the_published_fields_and_no_others(tmp_path: Path) -> None:
    """Of a project with a drift, a mistake, a stray file, backups and invocations. A field that no schema names is found."""
    with served() as kapso:
        environment = kapso.environment(tmp_path / "state")
        folder = tmp_path / "functions"
        source = str(folder)

        def run(*arguments: str) -> Ran:
            return kapso_sync(*arguments, "--json", environment=environment)

        write_functions(folder, {"greet": answering("hello"), "part": answering("bye")})
        seen: list[tuple[str, Ran]] = [("sync", run("sync", source))]
        (folder / "part.js").write_text("async function handler(\n")
        (folder / "stray.js").write_text("export default 1;\n")
        kapso.edit("greet", code=answering("by hand"))
        seen += [
            ("validate", run("validate", source)),
            ("test", run("test", source)),
            ("plan", run("plan", source)),
            ("sync", run("sync", source)),
            ("invoke", run("invoke", "greet", "--data", "{}")),
            ("logs", run("logs", "greet")),
            ("history", run("history", "greet", source)),
            ("pull", run("pull", source, "--diff")),
            ("disown", run("disown", source)),
            ("version", run("version")),
        ]
    assert {name for name, _ in seen} == {path.stem.removesuffix("-v1") for path in SCHEMAS.glob("*.json")} - {"manifest"}
    for name, ran in seen:
        wanted = schema(name)
        jsonschema.Draft202012Validator.check_schema(wanted)
        jsonschema.validate(ran.document, wanted if name in OPEN else closed(wanted))
    plan = next(ran.document for name, ran in seen if name == "plan")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**plan, "undocumented": 1}, closed(schema("plan")))


def lost(before: Any, now: Any, path: str = "") -> list[str]:
    """What a released contract has and this one lacks, or has with another meaning."""
    if isinstance(before, Mapping):
        gone = [f"{path}.{key}" for key in before if key not in now]
        return gone + [name for key in before if key in now for name in lost(before[key], now[key], f"{path}.{key}")]
    if isinstance(before, list):
        return [f"{path}: {item}" for item in before if item not in now]
    return [] if before == now else [f"{path}: {before} is now {now}"]


@pytest.mark.parametrize("version", sorted(path.parent.name for path in GOLDEN.glob("v*/contract.json")))
def test_nothing_that_was_released_is_gone(version: str) -> None:
    """Exit codes, options, settings, events, metrics and fields of documents: additions only."""
    released = json.loads((GOLDEN / version / "contract.json").read_text(encoding="utf-8"))
    assert lost(released, contract()) == []


def test_a_lost_name_and_another_meaning_are_found() -> None:
    """The comparison above is no empty one."""
    now = contract()
    without = {**now, "settings": now["settings"][1:]}
    assert lost(now, without) == [f".settings: {now['settings'][0]}"]
    other = {**now, "exit_codes": {**now["exit_codes"], "USAGE": 2}}
    assert lost(now, other) == [".exit_codes.USAGE: 64 is now 2"]
    assert lost(now, {**now, "events": {}})[0] == f".events.{next(iter(now['events']))}"


def test_the_page_of_promises_names_every_published_schema() -> None:
    text = (SCHEMAS.parent / "compatibility.md").read_text(encoding="utf-8")
    for path in SCHEMAS.glob("*.json"):
        assert f"schemas/{path.name}" in text
    assert all(f"| {int(code)} |" in text for code in ExitCode)
