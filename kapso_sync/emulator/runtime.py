"""The seam to whatever runs deployed code. The emulator itself runs none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from kapso_sync.emulator.values import JsonObject


@dataclass(frozen=True, slots=True)
class Call:
    """One invocation of code that is live: the code, the fields it was deployed with, its secrets, and the request."""

    function_id: str
    code: str = field(repr=False)
    fields: JsonObject
    secrets: Mapping[str, str] = field(repr=False)
    body: bytes
    content_type: str


@dataclass(frozen=True, slots=True)
class Result:
    """What the code answered."""

    status: int
    body: bytes
    content_type: str = "application/json"


class Runtime(Protocol):
    """Runs live code."""

    async def run(self, call: Call) -> Result:
        """Return what the code answers to the call."""
        ...
