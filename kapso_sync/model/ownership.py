"""Defines the ownership mark: a suffix of a function's description that says who owns it.

`` [kapso-sync:<owner>#<check>]`` or `` [kapso-sync:<owner>#<check> protected]``. The check binds the mark to the slug, so that
a function which somebody duplicated in the dashboard, description and all, is unowned. A mark is written as a suffix and read
anywhere: people write behind it in the dashboard, and Kapso's own tools copy it into files.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from kapso_sync.urls import comparable_path

_MARK = re.compile(
    r" ?\[kapso-sync:(?P<owner>[^\[\]\s]+)#(?P<check>[0-9a-f]{6})"
    r"(?: [0-9a-f-]{1,10}\.[0-9a-f-]{1,8}\.[0-9a-f-]{1,8}=?)?(?P<protected> protected)?\](?:\s+\Z)?"
)
"""A digest of the last applied content may follow the check: a newer version writes it, and this one skips it."""


def check_of(owner: str, slug: str) -> str:
    """Return the first six hex digits of sha256(owner, newline, slug)."""
    return hashlib.sha256(f"{owner}\n{slug}".encode()).hexdigest()[:6]


def comparable_owner(owner: str) -> str:
    """Return an owner in the spelling in which owners are compared: some forges take a repository's path in any case.

    >>> comparable_owner("github.com/Acme/flows//Functions@test")
    'github.com/acme/flows//Functions@test'
    """
    host, slash, rest = owner.partition("/")
    repository = re.match(r"[^#@]*?(?=//|[#@]|$)", rest)
    path = repository.group() if repository is not None else ""
    return f"{host}{slash}{comparable_path(host, path)}{rest[len(path) :]}"


@dataclass(frozen=True, slots=True)
class Mark:
    """A mark in a description; it is valid only for the slug that its check was made for."""

    owner: str
    check: str
    protected: bool = False

    def valid_for(self, slug: str) -> bool:
        """Return whether the mark was made for this slug."""
        return self.check == check_of(self.owner, slug)

    def __str__(self) -> str:
        """The suffix as it is written."""
        return f" [kapso-sync:{self.owner}#{self.check}{' protected' if self.protected else ''}]"


def mark_for(owner: str, slug: str, *, protected: bool = False) -> Mark:
    """Return the mark that ``owner`` writes on the function ``slug``."""
    return Mark(owner, check_of(owner, slug), protected)


def marks_in(description: str | None) -> tuple[Mark, ...]:
    """Return all marks in a description, in order."""
    found = _MARK.finditer(description or "")
    return tuple(Mark(match["owner"], match["check"], match["protected"] is not None) for match in found)


def split_description(description: str | None) -> tuple[str, Mark | None]:
    """Return a description's own text, without any mark, and its last mark if there is one; null is an empty text.

    A mark that was doubled counts as protected if one of the two is.

    >>> split_description("Greets [kapso-sync:acme/flows#1a2b3c] and waves")
    ('Greets and waves', Mark(owner='acme/flows', check='1a2b3c', protected=False))
    """
    text, marks = description or "", marks_in(description)
    if not marks:
        return text, None
    last = marks[-1]
    protected = any(mark.protected for mark in marks if (mark.owner, mark.check) == (last.owner, last.check))
    return without_marks(text), Mark(last.owner, last.check, protected)


def without_marks(text: str) -> str:
    """Return a text without any mark, wherever it stands."""
    while (shorter := _MARK.sub("", text)) != text:
        text = shorter
    return text


def is_marked(description: str | None, mark: Mark) -> bool:
    """Return whether a description ends with this mark and holds no other one."""
    text = description or ""
    marks = list(_MARK.finditer(text))
    return len(marks) == 1 and marks[0].end() == len(text) and split_description(text)[1] == mark
