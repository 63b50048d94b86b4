"""Masks the values of secrets in what the control API shows: requests, console output, and the state."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from urllib.parse import quote, quote_plus

from kapso_sync.emulator.values import Json, JsonObject

MASK = "[redacted]"
MIN_LENGTH = 6
"""Minimum length of a value that is searched for in other texts: a shorter one would match parts of ordinary words."""


class SecretMask:
    """Knows every value that a secret ever had, also in a call that was refused."""

    def __init__(self) -> None:
        self._spellings: set[str] = set()
        self._pattern: re.Pattern[str] | None = None

    def learn(self, value: Json) -> None:
        """Learn a secret: a text, or the texts and numbers in an object or a list."""
        for text in _texts(value):
            spellings = {spelling for spelling in _spellings(text) if len(spelling) >= MIN_LENGTH}
            if not spellings <= self._spellings:
                self._spellings |= spellings
                self._pattern = None

    def text(self, text: str) -> str:
        """Return a text without any known value."""
        if not self._spellings:
            return text
        if self._pattern is None:
            longest_first = sorted(self._spellings, key=len, reverse=True)
            self._pattern = re.compile("|".join(map(re.escape, longest_first)))
        return self._pattern.sub(MASK, text)

    def json(self, value: Json) -> Json:
        """Return a JSON value in which no text has a known value."""
        if not self._spellings:
            return value
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.text(name): self.json(item) for name, item in value.items()}
        return [self.json(item) for item in value] if isinstance(value, list) else value


def without_secret(body: Json) -> Json:
    """Return the body of a request to a secret route, of which only the name is shown."""
    secret = body.get("secret") if isinstance(body, dict) else None
    name = secret.get("name") if isinstance(secret, dict) else None
    if body is None or not isinstance(name, str):
        return None if body is None else MASK
    shown: JsonObject = {"name": name, "value": MASK}
    return {"secret": shown}


def _texts(value: Json) -> Iterator[str]:
    if isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif value is not None and not isinstance(value, bool):
        yield str(value)


def _spellings(text: str) -> Iterator[str]:
    """Yield a text, and each of its lines, as it stands in JSON, in JSON within JSON, and in a URL too."""
    for part in (text, *text.splitlines()):
        yield part
        for plain in (True, False):
            escaped = json.dumps(part, ensure_ascii=plain)[1:-1]
            yield escaped
            yield json.dumps(escaped, ensure_ascii=plain)[1:-1]
        yield quote(part, safe="", errors="replace")
        yield quote_plus(part, errors="replace")
