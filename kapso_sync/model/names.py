"""Defines which texts can be ids, slugs and names of secrets on Kapso."""

from __future__ import annotations

import re
from typing import TypeGuard

SLUG_PATTERN = "^[a-z0-9-]+$"
"""Kapso's rule for slugs, and the manifest's."""

MAX_SLUG = 255

ID_PATTERN = r"^[A-Za-z0-9_-]{1,100}$"
_ID = re.compile(ID_PATTERN[1:-1])
_SLUG = re.compile(f"{SLUG_PATTERN[1:-2]}{{1,{MAX_SLUG}}}")
_SECRET_NAME = re.compile(r"[A-Za-z0-9_-]{1,255}")


def is_id(value: object) -> TypeGuard[str]:
    """Return whether a value can be an id of Kapso's; nothing else ever becomes a part of a URL."""
    return isinstance(value, str) and _ID.fullmatch(value) is not None


def is_slug(value: object) -> TypeGuard[str]:
    """Return whether a value can be a function's slug."""
    return isinstance(value, str) and _SLUG.fullmatch(value) is not None


def is_secret_name(value: object) -> TypeGuard[str]:
    """Return whether a value can be a secret's name; Kapso documents capitals, digits and ``_``, and more is read here."""
    return isinstance(value, str) and _SECRET_NAME.fullmatch(value) is not None
