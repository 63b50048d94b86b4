"""Renders the status as JSON and as a page; what did not change since the last answer is not rendered again.

With a thousand functions, each answer would hold the event loop for longer than the rest of a pass does. The status of a
function is a frozen value, and stays the same object until something about it changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from kapso_sync.model.status import DaemonStatus, FunctionStatus, function_document, status_document
from kapso_sync.server.access import encode_json
from kapso_sync.server.listing import Listing, ages_of, function_card
from kapso_sync.server.page import WHOLE, render_page
from kapso_sync.server.sessions import STRANGER, Viewer


class StatusRenderer:
    """Renders each status of one daemon, for all clients; it keeps what it rendered of the functions of the last one."""

    def __init__(self) -> None:
        self._documents: dict[str, tuple[FunctionStatus, str]] = {}
        self._cards: dict[str, tuple[FunctionStatus, tuple[str, ...], str]] = {}

    def document(self, status: DaemonStatus, *, trusted: bool) -> bytes:
        """Return the JSON of a status, as `status_document` has it.

        Console lines may hold people's data: they are empty unless the caller is ``trusted``, as on the page.
        """
        known, self._documents = self._documents, {}
        for function in status.functions:
            kept = known.get(function.slug)
            if kept is None or kept[0] is not function:
                kept = (function, encode_json(function_document(function)))
            self._documents[function.slug] = kept
        functions = ",".join(text if trusted else _public(function, text) for function, text in self._documents.values())
        members = (
            f"{encode_json(name)}:{f'[{functions}]' if name == 'functions' else encode_json(value)}"
            for name, value in status_document(status, []).items()
        )
        return f"{{{','.join(members)}}}".encode("utf-8", "replace")

    def page(self, status: DaemonStatus, listing: Listing = WHOLE, viewer: Viewer = STRANGER, done: str = "") -> bytes:
        """Return the page."""
        text = render_page(status, self._cards_of, listing=listing, viewer=viewer, done=done)
        if len(self._cards) > len(status.functions):
            known = {function.slug for function in status.functions}
            self._cards = {slug: card for slug, card in self._cards.items() if slug in known}
        return text.encode("utf-8", "replace")

    def _cards_of(self, functions: Sequence[FunctionStatus], now: datetime) -> str:
        for function in functions:
            ages, kept = ages_of(function, now), self._cards.get(function.slug)
            if kept is None or kept[0] is not function or kept[1] != ages:
                self._cards[function.slug] = (function, ages, function_card(function, now))
        return "\n".join(self._cards[function.slug][2] for function in functions)


def _public(function: FunctionStatus, text: str) -> str:
    """Return the JSON of a function, which is ``text``, without console lines."""
    evidence = function.evidence
    if evidence is None or not evidence.console:
        return text
    return encode_json(function_document(replace(function, evidence=replace(evidence, console=()))))
