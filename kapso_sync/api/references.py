"""Find which functions a workflow, a WhatsApp Flow or a webhook uses, from the API's answers; pure functions without I/O.

Kapso refers to a function by id (``function_id``, ``data_endpoint_function_id``), by slug or name (``function_slug``,
``function_name`` in a workflow's nodes and an agent's tools), by the URL that invokes it, which contains the id, and by the
address of its worker. A URL or a whole request may also be a part of a longer text, and a text may be JSON itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import field

from kapso_sync.dataclass import dataclass
from kapso_sync.model.functions import RemoteFunction
from kapso_sync.model.json_values import Json
from kapso_sync.model.users import FunctionUser, FunctionUsers, UserKind, is_named_in

_BY_NAME = re.compile(r"function_?(?:slug|name)s?", re.IGNORECASE)
"""The keys whose values are slugs or names of functions, in any spelling; a text that has one may be JSON, or hold some."""


@dataclass(frozen=True, slots=True)
class Reference:
    """One workflow definition, Flow or webhook, as the API returned it; ``name`` is its display name."""

    kind: UserKind
    name: str
    content: Json = field(repr=False)


def users_in(references: Iterable[Reference], functions: Sequence[RemoteFunction]) -> FunctionUsers:
    """Return the users of each function, by function id."""
    users: dict[str, list[FunctionUser]] = {function.id: [] for function in functions}
    for reference in references:
        texts, names, spoken = _texts(reference.content)
        for function in functions:
            if is_named_in(function, texts) or _is_called(function, names, spoken):
                users[function.id].append(FunctionUser(reference.kind, reference.name))
    return {function_id: tuple(dict.fromkeys(found)) for function_id, found in users.items()}


def _is_called(function: RemoteFunction, names: set[str], spoken: str) -> bool:
    """Return whether a function is referred to by slug or name.

    In a text that names functions, such as a request with placeholders or a prompt, its slug counts as a word anywhere.
    """
    slug = function.slug.casefold()
    if slug in names or function.name.strip().casefold() in names:
        return True
    return slug in spoken and re.search(rf"(?<![a-z0-9-]){re.escape(slug)}(?![a-z0-9-])", spoken) is not None


def _texts(content: Json) -> tuple[str, set[str], str]:
    """Return all texts of a document, the slugs and names of functions in it, and the texts that speak of functions.

    Everything is casefolded, and texts are joined.
    """
    texts, names, spoken = [], set(), []
    for key, value in _strings(content):
        texts.append(value)
        if key is not None and _BY_NAME.fullmatch(key) and value:
            names.add(value.strip().casefold())
        elif _BY_NAME.search(value):
            spoken.append(value)
    return "\n".join(texts).casefold(), names, "\n".join(spoken).casefold()


def _strings(content: Json) -> Iterator[tuple[str | None, str]]:
    """Yield every text of a document, keys included, with the key that it is a value of, also as a member of a list."""
    pending: list[tuple[str | None, Json]] = [(None, content)]
    while pending:
        key, item = pending.pop()
        if isinstance(item, str):
            yield key, item
        elif isinstance(item, dict):
            pending += ((None, name) for name in item)
            pending += item.items()
        elif isinstance(item, list):
            pending += ((key, value) for value in item)
