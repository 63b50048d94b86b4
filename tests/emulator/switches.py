"""The table of the emulator's switches, as the documentation shows it."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator

from kapso_sync.emulator.options import Behaviour


def switch_rows() -> Iterator[str]:
    """A row for each switch: its name, what it may be (the default first), and what it means."""
    hints = typing.get_type_hints(Behaviour)
    for field in dataclasses.fields(Behaviour):
        choices = typing.get_args(hints[field.name])
        if hints[field.name] is bool:
            values = [str(field.default).lower(), str(not field.default).lower()]
        elif hints[field.name] == tuple[str, ...]:
            values = ["", "A,B"]
        elif choices:
            values = [str(field.default), *(str(choice) for choice in choices if choice != field.default)]
        else:
            values = [str(field.default)]
        shown = " ".join(f"`{value}`" if value else "none" for value in values)
        yield f"| `{field.name}` | {shown} | {field.metadata['meaning']} |"
