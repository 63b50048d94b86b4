"""Finds what is the same for many functions, so that it is printed once, with their number."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeVar

_T = TypeVar("_T")


def group_by(items: Iterable[_T], key: Callable[[_T], Hashable]) -> list[list[_T]]:
    """Return the items in groups with the same key, each group at the place of its first item."""
    groups: dict[Hashable, list[_T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return list(groups.values())


def shared_hints(items: Iterable[_T], hint: Callable[[_T], str | None]) -> tuple[str, ...]:
    """Return the hint that all of several items have, to be printed once, at the end; nothing unless all have the same.

    At the end it seems to belong to every item, so one that only some of them have is printed below each of those.
    """
    first, *others = [hint(item) for item in items] or [None]
    return (first,) if first and others and all(other == first for other in others) else ()


_PLACE = re.compile(r"(\S+?:\d+(?::\d+)?): ")


def split_place(text: str) -> tuple[str, str]:
    """Return the place at the start of a text, such as ``greet.js:2:22``, and the rest; the place may be empty."""
    found = _PLACE.match(text)
    return (found[1], text[found.end() :]) if found else ("", text)


def without_slug(text: str | None, slug: str) -> str:
    """Return a text with SLUG in place of a function's own slug, so that it reads the same for every function."""
    return re.sub(rf"(?<![\w-]){re.escape(slug)}(?![\w-])", "SLUG", text or "")


def common_text(texts: Sequence[str | None], slug: str) -> str:
    """Return the text of a group: the one that all have, or that of its first function with SLUG in place of its slug."""
    return texts[0] or "" if len(set(texts)) == 1 else without_slug(texts[0], slug)
