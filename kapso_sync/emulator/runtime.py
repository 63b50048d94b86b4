"""Defines the interface to the program that compiles and runs deployed code; `workerd` implements it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from kapso_sync.emulator.values import JsonObject

ConsoleLine = tuple[str, str]
"""The level of a console line, such as ``log`` or ``error``, and its text."""


@dataclass(frozen=True, slots=True)
class Call:
    """One invocation of live code: the code, the fields it was deployed with, its secrets, and the request.

    ``deployment`` names the deployment that made the code live: the code's own variables end with it. ``ctx``: the handler
    gets a third argument. ``headers`` are the request's headers for the function, without the key and those of the connection.
    ``outbound`` says what `fetch` gets in place of the network: ``rules`` of ``method``, ``url``, ``status``, ``headers`` and
    ``body``, and the ``refusal`` of all else, in which ``{request}`` stands for method and URL.
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
    method: str = "POST"
    outbound: JsonObject | None = None

    @property
    def content_type(self) -> str:
        """The content type of the request, or empty."""
        return self.headers.get("content-type", "")


@dataclass(frozen=True, slots=True)
class Result:
    """The answer of the code; ``failed``: there is none, and the body is the runtime's own error, in JSON.

    ``content_type`` is empty if the code set none. ``console`` is its console output.
    """

    status: int
    body: bytes
    content_type: str = "application/json"
    failed: bool = False
    console: tuple[ConsoleLine, ...] = ()


class Runtime(Protocol):
    """Compiles deployed code, and runs live code."""

    async def check(self, slug: str, code: str) -> str | None:
        """Start the code once and return why it does not start, or None."""
        ...

    async def run(self, call: Call) -> Result:
        """Run the code and return its answer; a failure of any kind is a Result too."""
        ...

    def forget(self) -> None:
        """Delete the data that functions keep outside themselves: the project was reset."""
        ...
