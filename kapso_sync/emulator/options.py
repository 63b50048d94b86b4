"""What one can ask of an emulator: how it is served, and how it behaves where Kapso's documentation leaves room."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self

from kapso_sync.emulator.errors import BehaviourInvalid, EmulatorError
from kapso_sync.emulator.values import is_int, is_number

DEFAULT_KEY = "kapso-emulator-key"


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What the documentation of the Functions API leaves open; each field picks one of the possible ways.

    ``slug_changes``: an update may change the slug; otherwise it keeps the old one and says nothing.
    ``list_code``: the list carries ``code``. ``double_wrap``: answers come as ``{"data": {"data": …}}``.
    ``normalise_code``: what the server does to code before it stores it: nothing, strip white space at the end (``rstrip``),
    or turn CRLF into LF (``newlines``).
    ``quota_answer``: a deployment beyond the quota is refused with 422, or accepted and ends in ``error``.
    ``secrets_shape``: secrets come as ``{"data": […]}`` or as ``{"data": {"secrets": […]}}``.
    ``workflows``: the workflow routes exist.
    ``paging``: lists honour ``page``, ``limit`` and ``per_page``; otherwise they answer everything at once.
    ``page_size`` is the default and the largest size of a page. ``list_meta``: a list of more than one page carries ``meta``.
    ``error_moves_updated_at``: a failed deployment moves ``updated_at``.
    ``edge_stale``: seconds after a deployment for which invocations are still answered by the code and fields before it.
    """

    slug_changes: bool = True
    list_code: bool = True
    double_wrap: bool = False
    normalise_code: Literal["off", "rstrip", "newlines"] = "off"
    quota_answer: Literal["refuse", "error"] = "refuse"
    secrets_shape: Literal["list", "object"] = "list"
    workflows: bool = True
    paging: bool = True
    page_size: int = 100
    list_meta: bool = True
    error_moves_updated_at: bool = True
    edge_stale: float = 0.0

    def changed(self, changes: Mapping[str, object]) -> Self:
        """Return a copy with ``changes`` applied; raises BehaviourInvalid for an unknown name or a value of the wrong kind."""
        hints = typing.get_type_hints(type(self))
        for name, value in changes.items():
            if name not in hints:
                raise BehaviourInvalid(f"unknown behaviour {name!r}", hint="known are: " + ", ".join(hints))
            _check(name, hints[name], value)
        return dataclasses.replace(self, **dict(changes))  # type: ignore[arg-type]  # each value was checked above


def _check(name: str, hint: object, value: object) -> None:
    if hint is bool:
        fits, expected = isinstance(value, bool), "true or false"
    elif hint is int:
        fits, expected = is_int(value) and value > 0, "a whole number above 0"
    elif hint is float:
        fits, expected = is_number(value) and value >= 0, "a number of seconds"
    else:
        choices = typing.get_args(hint)
        fits, expected = value in choices, "one of " + ", ".join(choices)
    if not fits:
        raise BehaviourInvalid(f"behaviour {name}: expected {expected}, got {value!r}")


@dataclass(frozen=True, slots=True)
class EmulatorOptions:
    """How an emulator is served and what it starts with.

    ``port`` 0 picks a free one. ``data``: folder in which everything survives a restart; None keeps it in memory.
    ``faults``: a YAML file with fault rules. ``rate_limit`` requests are answered in each window of ``window`` seconds.
    ``deploy_delay``: seconds a deployment takes, or a range to draw from. ``quota``: how many functions may be deployed; None
    for no limit. ``workerd``: the binary that compiles and runs what is deployed; None: code is only parsed, and not run.
    ``network``: functions that run reach public addresses. Raises EmulatorError for a rate limit that allows nothing.
    """

    port: int = 0
    host: str = "127.0.0.1"
    api_key: str = DEFAULT_KEY
    data: Path | None = None
    faults: Path | None = None
    rate_limit: int = 1000
    window: float = 60.0
    deploy_delay: float | tuple[float, float] = 0.5
    quota: int | None = None
    workerd: Path | None = None
    network: bool = False
    behaviour: Behaviour = field(default_factory=Behaviour)

    def __post_init__(self) -> None:
        if self.rate_limit < 1 or self.window <= 0:
            raise EmulatorError("the rate limit needs at least one request in a window longer than 0 seconds")
