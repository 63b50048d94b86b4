"""Defines the ownership mark: a suffix of a function's description that says who owns it.

`` [kapso-sync:<owner>#<check>]`` or `` [kapso-sync:<owner>#<check> protected]``. The check binds the mark to the slug, so that
a function which somebody duplicated in the dashboard, description and all, is unowned.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

_MARK = re.compile(
    r" ?\[kapso-sync:(?P<owner>[^\[\]\s]+)#(?P<check>[0-9a-f]{6})"
    r"(?: [0-9a-f-]{1,10}\.[0-9a-f-]{1,8}\.[0-9a-f-]{1,8}=?)?(?P<protected> protected)?\]\s*\Z"
)
"""What was last applied may follow the check: a newer version writes it, and this one reads past it."""


def check_of(owner: str, slug: str) -> str:
    """Return the first six hex digits of sha256(owner, newline, slug)."""
    return hashlib.sha256(f"{owner}\n{slug}".encode()).hexdigest()[:6]


@dataclass(frozen=True, slots=True)
class Mark:
    """A mark as it was read; it is valid only for the slug whose check it carries."""

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


def split_description(description: str | None) -> tuple[str, Mark | None]:
    """Return a description's own text and its mark, if it ends with one; a null description is an empty text."""
    text = description or ""
    match = _MARK.search(text)
    if match is None:
        return text, None
    return text[: match.start()], Mark(match["owner"], match["check"], match["protected"] is not None)


def without_marks(text: str) -> str:
    """Return a text without any marks at its end: Kapso's own tools copy descriptions, ours included, and may double them."""
    while (shorter := split_description(text))[1] is not None:
        text = shorter[0]
    return text
