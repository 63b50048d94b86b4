"""Finds what is the same for many functions, so that it is printed once, with their number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from typing import TypeVar

_T = TypeVar("_T")


def group_by(items: Iterable[_T], key: Callable[[_T], Hashable]) -> list[list[_T]]:
    """Return the items in groups with the same key, each group at the place of its first item."""
    groups: dict[Hashable, list[_T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return list(groups.values())


def shared_hints(items: Iterable[_T], hint: Callable[[_T], str | None]) -> tuple[str, ...]:
    """Return the hints that more than one item has, in order; they are printed once, at the end."""
    counts = Counter(found for item in items if (found := hint(item)))
    return tuple(text for text, count in counts.items() if count > 1)
