"""Whether an answer is what a check expects. Pure, but for the patience of the regular expression engine."""

from __future__ import annotations

import json
from dataclasses import dataclass

import regex

from kapso_sync.model.desired import Check
from kapso_sync.model.functions import Invocation, Json, canonical_json, same_json

SHOWN = 200
"""So many characters of an expectation and of an answer are shown."""

SEARCHED = 1024 * 1024
PATIENCE = 1.0
"""Characters of an answer that a regular expression is tried on, and the seconds it may take: some never end."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A check that failed: its number in the manifest, from 1, what was expected, and what came."""

    number: int
    expected: str
    answer: str

    def __str__(self) -> str:
        return f"check {self.number} failed: expected {self.expected}, got {self.answer}"


def check_mismatch(check: Check, answer: Invocation, *, wrapped: bool) -> str | None:
    """Return what was expected and did not come, or None. ``wrapped``: Kapso puts the function's answer into ``data``."""
    if check.status is None and not 200 <= answer.status < 300:
        return "a success"
    if check.status is not None and answer.status != check.status:
        return f"status {check.status}"
    value, text = _read(answer, wrapped=wrapped)
    if check.json is not None and not includes(check.json, value):
        return f"JSON with {short(canonical_json(check.json))}"
    if check.text is not None and check.text not in text:
        return f"the text {short(check.text)!r}"
    if check.matches is not None and not _found(check.matches, text):
        return f"a match of {short(check.matches)!r}"
    return None


def failed_invocation_id(answer: Invocation) -> str | None:
    """Return the id in Kapso's envelope around an answer that is no success, or None where the answer is the function's own.

    Source: Kapso's documentation: ``500 {"error", "detail"?, "invocation_id"?}``.
    """
    if answer.status != 500:
        return None
    try:
        value = json.loads(answer.text)
    except (ValueError, RecursionError):
        return None
    found = value.get("invocation_id") if isinstance(value, dict) and "error" in value else None
    return found if isinstance(found, str) and found else None


def describe(answer: Invocation) -> str:
    """Return an answer in a few words."""
    return (
        f"status {answer.status}, {short(answer.text)!r}" if answer.text.strip() else f"status {answer.status}, an empty body"
    )


def includes(wanted: Json, given: Json) -> bool:
    """Tell whether everything wanted is in what was given; lists must be of one length, objects may hold more."""
    if isinstance(wanted, dict):
        return isinstance(given, dict) and all(name in given and includes(wanted[name], given[name]) for name in wanted)
    if isinstance(wanted, list):
        return (
            isinstance(given, list)
            and len(wanted) == len(given)
            and all(includes(one, other) for one, other in zip(wanted, given, strict=True))
        )
    return same_json(wanted, given)


def short(text: str) -> str:
    """Return a text on one line, cut."""
    line = " ".join(text.split())
    return line if len(line) <= SHOWN else f"{line[: SHOWN - 1]}…"


def _read(answer: Invocation, *, wrapped: bool) -> tuple[Json, str]:
    try:
        value: Json = json.loads(answer.text)
    except (ValueError, RecursionError):
        return None, answer.text
    if not (wrapped and isinstance(value, dict) and "data" in value):
        return value, answer.text
    inner = value["data"]
    return inner, inner if isinstance(inner, str) else canonical_json(inner)


def _found(pattern: str, text: str) -> bool:
    try:
        return regex.search(pattern, text[:SEARCHED], timeout=PATIENCE) is not None
    except TimeoutError:
        return False
