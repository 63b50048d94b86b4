"""The tables of docs/ as the code would write them. ``python -m tests.docs.tables`` prints them, to be pasted."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator
from enum import Enum

from kapso_sync.cli.context import _FLAGS
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


def _default(name: str, value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, float):
        return f"`{value:.0%}`" if name == "rate_share" else f"`{value:g}s`"
    return f"`{value.value if isinstance(value, Enum) else value}`"


if __name__ == "__main__":
    print("\n".join(event_rows()), "\n".join(setting_rows()), sep="\n\n")  # noqa: T201 - what it is for
