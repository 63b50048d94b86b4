"""Redacts secrets in everything that leaves the program: known values, and texts that look like credentials."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, MutableMapping
from typing import Any
from urllib.parse import quote, quote_plus

from kapso_sync.credentials import MASKED

MASK = "[redacted]"
MIN_LENGTH = 6
"""A known secret below this length is not searched for: it would take ordinary words apart."""

MIN_LINE_LENGTH = 8
"""Likewise for one line of a secret that has several."""

MAX_VALUES = 50_000
"""So many spellings are known at a time; the oldest, of values that have long been changed, go first."""

_KEYS = re.compile(r"(?i)^(?:x-)?api[-_]?key$|authorization|password|passwd|secret$|token$|^cookie$|signature")


class Redactor:
    """Knows the secrets of this process; a structlog processor, and a plain function for any text."""

    def __init__(self) -> None:
        self._known: dict[str, None] = {}
        self._pattern: re.Pattern[str] | None = None

    def add(self, value: str | None) -> None:
        """Learn a secret, in every spelling that it may take on its way out: whole, each of its lines, and on one line."""
        if value is None or len(value) < MIN_LENGTH or value in self._known:
            return
        for part in (*value.splitlines(), " ".join(value.split())):
            if part != value and len(part.strip()) >= MIN_LINE_LENGTH:
                self._learn(part.strip())
        self._learn(value)

    def _learn(self, value: str) -> None:
        raw = value.encode("utf-8", "surrogatepass")
        spellings = {
            value,
            quote(value, safe="", errors="replace"),
            quote_plus(value, errors="replace"),
            json.dumps(value)[1:-1],
        }
        spellings |= {json.dumps(value, ensure_ascii=False)[1:-1], repr(value)[1:-1], raw.hex()}
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            spellings.add(encode(raw).decode("ascii").rstrip("="))
        self._known |= dict.fromkeys(spelling for spelling in spellings if len(spelling) >= MIN_LENGTH)
        while len(self._known) > MAX_VALUES:
            self._known.pop(next(iter(self._known)))
        self._pattern = None

    def text(self, text: str) -> str:
        """Return the text without secrets."""
        if self._known and self._pattern is None:
            longest_first = sorted(self._known, key=len, reverse=True)
            self._pattern = re.compile("|".join(map(re.escape, longest_first)))
        if self._pattern is not None:
            text = self._pattern.sub(MASK, text)
        return MASKED.sub(MASK, text)

    def value(self, value: Any) -> Any:
        """Return any value of a log line without secrets, made of what JSON knows."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, bool | int | float | None):
            return value
        if isinstance(value, Mapping):
            return {self.text(str(key)): MASK if _KEYS.search(str(key)) else self.value(item) for key, item in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self.value(item) for item in value]
        return self.text(str(value))

    def __call__(self, _logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """Redact a whole log line; the last processor before the renderer."""
        clean: MutableMapping[str, Any] = self.value(event)
        return clean
