"""Which of our functions nothing uses, as far as the API lets us look. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from kapso_sync.model.state import Owned
from kapso_sync.model.users import FunctionUsers


def unused_functions(owned: Iterable[Owned], users: FunctionUsers) -> tuple[str, ...]:
    """Return the slugs of those functions that were looked up and have no user, in order."""
    return tuple(sorted(function.slug for function in owned if users.get(function.function_id) == ()))
