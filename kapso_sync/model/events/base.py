"""What all events have in common: a name, a level, and who listens."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar


class Level(enum.StrEnum):
    """How loud an event is in the logs."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Base of all events."""

    name: ClassVar[str]
    level: ClassVar[Level] = Level.INFO


def fields_of(event: Event) -> dict[str, object]:
    """Return an event's fields as a log names them; the metadata of one that may not be called so here says how."""
    return {field.metadata.get("key", field.name): getattr(event, field.name) for field in dataclasses.fields(event)}


Listener = Callable[[Event], None]
"""Gets every event, at once, in order; it must neither block nor raise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionEvent(Event):
    """Base of the events about one function."""

    slug: str
    function_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure(Event):
    """Base of the events that carry an error in one line."""

    error: str
    error_type: str
    hint: str | None = None
    level: ClassVar[Level] = Level.ERROR
