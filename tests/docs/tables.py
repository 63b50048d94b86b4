"""The tables of docs/ as the code would write them. ``python -m tests.docs.tables`` prints them, to be pasted."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Collection, Iterator, Mapping
from enum import Enum
from typing import Any

from kapso_sync.cli.context import _FLAGS
from kapso_sync.manifest import json_schema
from kapso_sync.model import events
from kapso_sync.settings import Settings, variable


def event_rows() -> Iterator[str]:
    """A row of docs/logs.md for each event, by name."""
    classes = [event for event in vars(events).values() if inspect.isclass(event) and issubclass(event, events.Event)]
    for event in sorted(classes, key=lambda event: str(getattr(event, "name", ""))):
        if isinstance(getattr(event, "name", None), str):
            fields = " ".join(map(_field, dataclasses.fields(event)))
            meaning = " ".join(str(inspect.getdoc(event)).split()).replace("``", "`")
            yield f"| `{event.name}` | {event.level} | {fields} | {meaning} |"


def _field(field: dataclasses.Field[object]) -> str:
    return f"`{field.metadata.get('key', field.name)}`" + ("?" if field.default is None else "")


def setting_rows() -> Iterator[str]:
    """A row of docs/settings.md for each setting, in the order of the code."""
    for name, field in Settings.model_fields.items():
        flag = f"`{_FLAGS[name][0].partition('/')[0]}`" if name in _FLAGS else "`SOURCE`" if name == "source" else ""
        yield f"| `{variable(name)}` | {flag} | {_default(name, field.default)} | {field.description} |"


def manifest_rows() -> Iterator[str]:
    """A row of docs/manifest.md for each key of the manifest, with the text that editors show."""
    schema: Any = json_schema()
    models = schema["$defs"]
    shared = models["EntryModel"]["properties"].keys() & models["DefaultsModel"]["properties"].keys()
    yield from _keys("", schema, ())
    yield from _keys("functions.SLUG.", models["EntryModel"], ())
    yield from _keys("functions.SLUG.secrets.NAME.", models["SecretModel"], ())
    yield from _keys("functions.SLUG.checks[].", models["CheckModel"], ())
    yield from _keys("functions.SLUG.checks[].expect.", models["ExpectModel"], ())
    yield from _keys("defaults.", models["DefaultsModel"], shared)
    yield from _keys("defaults.rollout.", models["RolloutModel"], ())
    yield from _keys("environments.NAME.", models["EnvironmentModel"], ())


def _keys(place: str, model: Any, without: Collection[str]) -> Iterator[str]:
    for name, key in model["properties"].items():
        if name not in without:
            yield f"| `{place}{name}` | {_values(key)} | {key['description']} |"


def _values(key: Mapping[str, Any]) -> str:
    """What a key takes, in words: the alternatives of an enumeration, the bounds of a number."""
    if "enum" in key:
        return " or ".join(f"`{each}`" for each in key["enum"])
    if "const" in key:
        return f"`{str(key['const']).lower()}`"
    if "anyOf" in key:
        return " or ".join(map(_values, key["anyOf"]))
    if key.get("$ref", "").endswith("JsonValue"):
        return "any"
    low, high = key.get("minimum", key.get("exclusiveMinimum")), key.get("maximum")
    bounds = "" if low is None else f", {low} or more" if high is None else f" {low}" if low == high else f", {low} to {high}"
    words = {"string": "text", "boolean": "`true` or `false`", "integer": "number", "number": "number", "array": "list"}
    return words.get(key.get("type", "object"), "keys") + bounds


def _default(name: str, value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, float):
        return f"`{value:.0%}`" if name == "rate_share" else f"`{value:g}s`"
    return f"`{value.value if isinstance(value, Enum) else value}`"


if __name__ == "__main__":
    print("\n".join(event_rows()), "\n".join(setting_rows()), "\n".join(manifest_rows()), sep="\n\n")  # noqa: T201 - what it is for
