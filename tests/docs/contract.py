"""What scripts, dashboards and alerts rely on, as one document: ``python -m tests.docs.contract`` prints it.

At each release its output is kept in ``tests/golden/vX.Y.Z/contract.json``, and stays there.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from kapso_sync.cli.app import app
from kapso_sync.clock import SystemClock
from kapso_sync.errors import ExitCode
from kapso_sync.model.events import Event, declared_fields
from kapso_sync.settings import VARIABLES
from kapso_sync.status.tracker import StatusTracker
from kapso_sync.telemetry.metrics import Metrics

SCHEMAS = Path(__file__).parents[2] / "docs" / "schemas"


def contract() -> dict[str, Any]:
    """Return every public name: exit codes, commands and options, settings, events and fields, metrics, JSON documents."""
    return {
        "exit_codes": {code.name: int(code) for code in ExitCode},
        "commands": {name: options_of(command) for name, command in sorted(app.commands.items())},
        "settings": sorted(VARIABLES),
        "events": dict(sorted(events())),
        "metrics": sorted(Metrics("0", StatusTracker(SystemClock(), "0", "x").status).names),
        "documents": {
            path.stem: sorted(fields_of(json.loads(path.read_text(encoding="utf-8"))))
            for path in sorted(SCHEMAS.glob("*.json"))
        },
    }


def options_of(command: click.Command) -> list[str]:
    """Return the options of a command, by all their names."""
    return sorted(name for option in command.params if isinstance(option, click.Option) for name in option.opts)


def events() -> list[tuple[str, list[str]]]:
    """Return every event's name, with the names of its fields in a log."""
    found, pending = [], [Event]
    while pending:
        kind = pending.pop()
        pending += kind.__subclasses__()
        if getattr(kind, "name", None):
            found.append((kind.name, sorted(item.metadata.get("key", item.name) for item in declared_fields(kind))))
    return found


def fields_of(schema: dict[str, Any], path: str = "", root: dict[str, Any] | None = None) -> set[str]:
    """Return every field that a schema names, as a path, with its type."""
    root = schema if root is None else root
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        # The manifest's own definitions may name each other; each is walked once, under its name.
        return {f"{path}: {name}"} if path else fields_of(root["$defs"][name], path, root)
    kinds = schema.get("type", "any")
    found = {f"{path or '.'}: {'|'.join([kinds] if isinstance(kinds, str) else sorted(kinds))}"}
    for name, below in schema.get("properties", {}).items():
        found |= fields_of(below, f"{path}.{name}", root)
    for name, below in schema.get("$defs", {}).items():
        found |= fields_of(below, f"{path}#{name}", root)
    if isinstance(schema.get("items"), dict):
        found |= fields_of(schema["items"], f"{path}[]", root)
    for below in schema.get("anyOf", []):
        found |= fields_of(below, path, root)
    return found


if __name__ == "__main__":
    print(json.dumps(contract(), indent=1))  # noqa: T201 - that is what it is for
