"""The compatibility promises: documents have the published fields, and nothing that was released is gone."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from kapso_sync.errors import ExitCode
from kapso_sync.model.status import DaemonStatus, status_document
from tests.docs.contract import SCHEMAS, contract
from tests.program import Ran, answering, kapso_sync, started, write_functions
from tests.served import served
from tests.server.statuses import ALL

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
        bare = tmp_path / "bare"
        write_functions(bare, {"hello": answering("hello")})
        (bare / "manifest.yaml").unlink()
        (bare / "page.js").write_text("document.title = 1;\n")
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
            ("pull", run("restore", "greet", source, "--diff")),
            ("init", run("init", str(bare))),
            ("doctor", run("doctor", "--yes")),
            ("status", run("status", source)),
            ("disown", run("disown", source)),
            ("version", run("version")),
        ]
        with started("run", source, environment={**environment, "KAPSO_SYNC_LISTEN": "127.0.0.1:0"}) as daemon:
            assert daemon.stderr is not None
            next(line for line in daemon.stderr if '"daemon.started"' in line)
            seen += [
                ("reconcile", run("reconcile", source)),
                ("reconcile", run("reconcile", source, "--wait")),
                ("status", run("status", source)),
            ]
            assert kapso_sync("suspend", "--reason", "moving", source, environment=environment).code == 0
            seen.append(("reconcile", run("reconcile", source)))
    assert {name for name, _ in seen} == {path.stem.removesuffix("-v1") for path in SCHEMAS.glob("*.json")} - {"manifest"}
    for name, ran in seen:
        assert ran.out, (name, ran.code, ran.err)
        wanted = schema(name)
        jsonschema.Draft202012Validator.check_schema(wanted)
        jsonschema.validate(ran.document, wanted if name in OPEN else closed(wanted))
    plan = next(ran.document for name, ran in seen if name == "plan")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**plan, "undocumented": 1}, closed(schema("plan")))


@pytest.mark.parametrize("status", ALL.values(), ids=ALL)
def test_the_status_document_has_the_published_fields_and_no_others(status: DaemonStatus) -> None:
    """In every state that a daemon can be in; `test_app.py` has all of these in the table of the page, too."""
    jsonschema.validate(json.loads(json.dumps(status_document(status))), closed(schema("status")))


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


def test_the_page_of_promises_names_every_command_with_json() -> None:
    """So that none prints a document without a schema."""
    table = (SCHEMAS.parent / "compatibility.md").read_text(encoding="utf-8").split("## JSON documents")[1].split("##")[0]
    printing = [name for name, options in contract()["commands"].items() if "--json" in options]
    assert {"plan", "status"} < set(printing)
    assert [name for name in printing if not re.search(rf"`{name} --json`", table)] == []
