"""Whether workflows use our functions, as far as the API lets us look. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from kapso_sync.model.state import Owned

References = Mapping[str, tuple[str, ...]]
"""The names of workflows by what they refer to: a function's id, slug or name."""


def users_of(references: References, function_id: str, slug: str, name: str | None) -> tuple[str, ...]:
    """Return the names of the workflows that use a function, each once."""
    found = [user for key in (function_id, slug, name) if key is not None for user in references.get(key, ())]
    return tuple(dict.fromkeys(found))


def unused_functions(owned: Iterable[Owned], references: References) -> tuple[str, ...]:
    """Return the slugs of those functions that no workflow uses, in order."""
    return tuple(
        sorted(
            function.slug
            for function in owned
            if not users_of(references, function.function_id, function.slug, _text(function.stored.get("name")))
        )
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
