"""Renders the status as JSON and as a page; what did not change since the last answer is not rendered again.

With a thousand functions, each answer would hold the event loop for longer than the rest of a pass does. The status of a
function is a frozen value, and stays the same object until something about it changes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import NamedTuple

from kapso_sync.model.status import DaemonStatus, FunctionStatus, function_document, status_document
from kapso_sync.process_memory import trim_malloc
from kapso_sync.server.access import encode_json
from kapso_sync.server.listing import Listing, ages_of, function_card
from kapso_sync.server.page import WHOLE, render_page
from kapso_sync.server.sessions import STRANGER, Viewer

KEPT_SECONDS = 30.0
"""Seconds without a request after which the renderer drops what it has rendered; a monitor asks more often."""


class _Document(NamedTuple):
    """The JSON of a function, for who is trusted and for all others."""

    function: FunctionStatus
    trusted: bytes
    public: bytes


class StatusRenderer:
    """Renders each status of one daemon, for all clients, in an event loop.

    It keeps what it rendered of the functions of the last one while somebody asks: a thousand of them take 1 MB or more.
    """

    def __init__(self) -> None:
        self._forgetting: asyncio.TimerHandle | None = None
        self._documents: dict[str, _Document] = {}
        self._listed: tuple[FunctionStatus, ...] = ()
        self._cards: dict[str, tuple[FunctionStatus, tuple[str, ...], str]] = {}

    def document(self, status: DaemonStatus, *, trusted: bool) -> bytes:
        """Return the JSON of a status, as `status_document` has it.

        Console lines may hold people's data: they are empty unless the caller is ``trusted``, as on the page.
        """
        self._keep_for_a_while()
        if status.functions is not self._listed:
            self._documents = {function.slug: self._document(function) for function in status.functions}
            self._listed = status.functions
        functions = [each.trusted if trusted else each.public for each in self._documents.values()] or [b""]
        functions[0] = b'"functions":[' + functions[0]
        functions[-1] += b"]"
        members: list[bytes] = []
        for name, value in status_document(status, []).items():
            member = f"{encode_json(name)}:{encode_json(value)}".encode("utf-8", "replace")
            members += functions if name == "functions" else [member]
        members[0] = b"{" + members[0]
        members[-1] += b"}"
        return b",".join(members)  # the one copy of what may be megabytes

    def _document(self, function: FunctionStatus) -> _Document:
        """Return the JSON of a function, encoded once for as long as nothing about it changes."""
        known = self._documents.get(function.slug)
        if known is not None and known.function is function:
            return known
        text = _encoded(function)
        evidence = function.evidence
        if evidence is None or not evidence.console:
            return _Document(function, text, text)
        return _Document(function, text, _encoded(replace(function, evidence=replace(evidence, console=()))))

    def page(self, status: DaemonStatus, listing: Listing = WHOLE, viewer: Viewer = STRANGER, done: str = "") -> bytes:
        """Return the page."""
        self._keep_for_a_while()
        text = render_page(status, self._cards_of, listing=listing, viewer=viewer, done=done)
        if len(self._cards) > len(status.functions):
            known = {function.slug for function in status.functions}
            self._cards = {slug: card for slug, card in self._cards.items() if slug in known}
        return text.encode("utf-8", "replace")

    def _keep_for_a_while(self) -> None:
        if self._forgetting is not None:
            self._forgetting.cancel()
        self._forgetting = asyncio.get_running_loop().call_later(KEPT_SECONDS, self._forget)

    def _forget(self) -> None:
        self._documents, self._listed, self._cards, self._forgetting = {}, (), {}, None
        trim_malloc()

    def _cards_of(self, functions: Sequence[FunctionStatus], now: datetime) -> str:
        for function in functions:
            ages, kept = ages_of(function, now), self._cards.get(function.slug)
            if kept is None or kept[0] is not function or kept[1] != ages:
                self._cards[function.slug] = (function, ages, function_card(function, now))
        return "\n".join(self._cards[function.slug][2] for function in functions)


def _encoded(function: FunctionStatus) -> bytes:
    return encode_json(function_document(function)).encode("utf-8", "replace")
