"""The seam to whatever compiles and runs deployed code. The emulator itself does neither; `workerd` does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from kapso_sync.emulator.values import JsonObject

ConsoleLine = tuple[str, str]
"""The level that was written at, such as ``log`` or ``error``, and the text."""


@dataclass(frozen=True, slots=True)
class Call:
    """One invocation of code that is live: the code, the fields it was deployed with, its secrets, and the request.

    ``deployment`` names the deployment that made the code live: what the code keeps in variables of its own ends with it.
    ``ctx``: the handler gets a third argument.
    ``headers`` are those of the request that concern the function, the key and the connection left out.
    """

    function_id: str
    slug: str
    deployment: str
    code: str = field(repr=False)
    fields: JsonObject
    secrets: Mapping[str, str] = field(repr=False)
    url: str
    headers: Mapping[str, str]
    body: bytes
    ctx: bool = False

    @property
    def content_type(self) -> str:
        """The content type of the request, empty where it has none."""
        return self.headers.get("content-type", "")


@dataclass(frozen=True, slots=True)
class Result:
    """What the code answered; ``failed``: nothing, and the body is an error of the runtime's own, in JSON.

    ``content_type`` is empty where the code named none. ``console``: what it wrote meanwhile.
    """

    status: int
    body: bytes
    content_type: str = "application/json"
    failed: bool = False
    console: tuple[ConsoleLine, ...] = ()


class Runtime(Protocol):
    """Compiles code when it is deployed, and runs what is live."""

    async def check(self, slug: str, code: str) -> str | None:
        """Start the code once and return why it does not start, or None."""
        ...

    async def run(self, call: Call) -> Result:
        """Return what the code answers to the call; a failure of any kind is a Result too."""
        ...

    def forget(self) -> None:
        """Empty what functions keep outside themselves: the project was reset."""
        ...
