"""Defines the ownership mark: a suffix of a function's description that says who owns it.

`` [kapso-sync:<owner>#<check> <applied>]`` or `` [kapso-sync:<owner>#<check> <applied> protected]``. The check binds the mark
to the slug, so that a function which somebody duplicated in the dashboard, description and all, is unowned. ``applied`` are
digests of what was last written; older marks have none. A mark is written as a suffix and read anywhere: people write behind
it in the dashboard, and Kapso's own tools copy it into files.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Sequence
from dataclasses import replace

from kapso_sync.dataclass import dataclass
from kapso_sync.model.json_values import shared_text
from kapso_sync.urls import comparable_path

_MARK = re.compile(
    r" ?\[kapso-sync:(?P<owner>[^\[\]\s]+)#(?P<check>[0-9a-f]{6})"
    r"(?: (?P<code>-|[0-9a-f]{10})\.(?P<fields>-|[0-9a-f]{8})\.(?P<secrets>-|[0-9a-f]{8})(?P<running>=)?)?"
    r"(?P<protected> protected)?\](?:\s+\Z)?"
)


@dataclass(frozen=True, slots=True)
class AppliedDigests:
    """Digests of what was last written to a function: its code, its managed fields, and its secrets; None: there is none.

    ``running``: that content was known to run when the mark was written. Its text is ``<code>.<fields>.<secrets>``, with ``-``
    for None, and ``=`` behind it if it was running.
    """

    code: str | None
    fields: str | None
    secrets: str | None = None
    running: bool = False

    def __str__(self) -> str:
        """The digests as a mark has them."""
        parts = (part if part is not None else "-" for part in (self.code, self.fields, self.secrets))
        return f"{'.'.join(parts)}{'=' if self.running else ''}"


@functools.lru_cache(maxsize=64)  # each step of a pass asks several times for each function
def check_of(owner: str, slug: str) -> str:
    """Return the first six hex digits of sha256(owner, newline, slug)."""
    return hashlib.sha256(f"{owner}\n{slug}".encode("utf-8", "surrogatepass")).hexdigest()[:6]


@functools.lru_cache(maxsize=256)
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
    """A mark in a description; it is valid only for the slug that its check was made for.

    Marks with other ``applied`` digests say the same about the owner.
    """

    owner: str
    check: str
    protected: bool = False
    applied: AppliedDigests | None = None

    def valid_for(self, slug: str) -> bool:
        """Return whether the mark was made for this slug."""
        return self.check == check_of(self.owner, slug)

    def claims_like(self, other: Mark) -> bool:
        """Return whether two marks say the same, whatever was applied."""
        return (self.owner, self.check, self.protected) == (other.owner, other.check, other.protected)

    def __str__(self) -> str:
        """The suffix as it is written."""
        applied = f" {self.applied}" if self.applied is not None else ""
        return f" [kapso-sync:{self.owner}#{self.check}{applied}{' protected' if self.protected else ''}]"


def mark_for(owner: str, slug: str, *, protected: bool = False, applied: AppliedDigests | None = None) -> Mark:
    """Return the mark that ``owner`` writes on the function ``slug``."""
    return Mark(owner, check_of(owner, slug), protected, applied)


def marks_in(description: str | None) -> tuple[Mark, ...]:
    """Return all marks in a description, in order."""
    return tuple(map(_mark, _MARK.finditer(description or "")))


def _mark(match: re.Match[str]) -> Mark:
    applied = None
    if match["code"] is not None:
        code, fields, secrets = (None if match[part] == "-" else match[part] for part in ("code", "fields", "secrets"))
        applied = AppliedDigests(code, fields, secrets, match["running"] is not None)
    return Mark(shared_text(match["owner"]), match["check"], match["protected"] is not None, applied)


def split_description(description: str | None) -> tuple[str, Mark | None]:
    """Return a description's own text, without any mark, and its last mark if there is one; null is an empty text.

    A mark that was doubled counts as protected if one of the two is.

    >>> split_description("Greets [kapso-sync:acme/flows#1a2b3c] and waves")
    ('Greets and waves', Mark(owner='acme/flows', check='1a2b3c', protected=False, applied=None))
    """
    text, marks = description or "", marks_in(description)
    return (without_marks(text), last_mark(marks)) if marks else (text, None)


def last_mark(marks: Sequence[Mark]) -> Mark | None:
    """Return the last mark, if there is one; it counts as protected if it is doubled, and one of the two is."""
    if not marks:
        return None
    last = marks[-1]
    protected = any(mark.protected for mark in marks if (mark.owner, mark.check) == (last.owner, last.check))
    return last if last.protected == protected else replace(last, protected=protected)


def without_marks(text: str) -> str:
    """Return a text without any mark, wherever it stands."""
    while (shorter := _MARK.sub("", text)) != text:
        text = shorter
    return text


def without_digests(description: str) -> str:
    """Return a description whose mark says nothing of what was applied."""
    text, mark = split_description(description)
    return text if mark is None else f"{text}{replace(mark, applied=None)}"


def is_marked(description: str | None, mark: Mark) -> bool:
    """Return whether a description ends with this mark, whatever was applied, and holds no other one."""
    text = description or ""
    marks = list(_MARK.finditer(text))
    if len(marks) != 1 or marks[0].end() != len(text):
        return False
    return _mark(marks[0]).claims_like(mark)
