"""Find which functions a workflow, a WhatsApp Flow or a webhook uses, from the API's answers; pure functions without I/O.

Kapso refers to a function by id (``function_id``, ``data_endpoint_function_id``), by slug or name (``function_slug``,
``function_name`` in a workflow's nodes and an agent's tools), by the URL that invokes it, which contains the id, and by the
address of its worker. A URL or a whole request may also be a part of a longer text, and a text may be JSON itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from kapso_sync.model.functions import Json, RemoteFunction, parse_json_text
from kapso_sync.model.users import FunctionUser, FunctionUsers, UserKind, is_named_in

_BY_NAME = frozenset({"function_slug", "function_name"})


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
        texts, names = _texts(reference.content)
        for function in functions:
            if is_named_in(function, texts) or not names.isdisjoint((function.slug, function.name)):
                users[function.id].append(FunctionUser(reference.kind, reference.name))
    return {function_id: tuple(dict.fromkeys(found)) for function_id, found in users.items()}


def _texts(content: Json) -> tuple[str, set[str]]:
    """Return all texts of a document, joined and casefolded, and the slugs and names by which it refers to functions."""
    texts, names = [], set()
    for key, value in _strings(content):
        texts.append(value)
        if key in _BY_NAME and value:
            names.add(value)
    return "\n".join(texts).casefold(), names


def _strings(content: Json) -> Iterator[tuple[str | None, str]]:
    pending: list[tuple[str | None, Json]] = [(None, content)]
    while pending:
        key, item = pending.pop()
        if isinstance(item, str):
            yield key, item
            if any(name in item for name in _BY_NAME) and not isinstance(value := parse_json_text(item), str):
                pending.append((None, value))
        elif isinstance(item, dict):
            pending += item.items()
        elif isinstance(item, list):
            pending += ((key, value) for value in item)
