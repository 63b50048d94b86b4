"""Reads the files in which deploy scripts note the ids of functions, leniently: JSON of any shape that pairs names with ids."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping

from kapso_sync.dataclass import dataclass
from kapso_sync.model.json_values import Json

MAX_DEPTH = 6
"""How deep objects are searched; scripts put functions under one or two headings."""

_ID = re.compile(r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}")
_IDS = ("functionid", "fnid", "id")
_PATHS = ("localpath", "path", "file", "source", "entrypoint")


@dataclass(frozen=True, slots=True)
class RegisteredFunction:
    """One function in such a file: its key there, its id on Kapso, and the path of its code where that is noted."""

    registry: str
    key: str
    id: str
    path: str | None = None


def read_id_registry(file: str, content: bytes) -> tuple[RegisteredFunction, ...]:
    """Return the functions that a JSON file pairs with ids, in its order; empty if it is not such a file.

    Ids are UUIDs. Two shapes are known, below any headings; the words of a key may be joined in any way, and may begin with a
    prefix such as ``kapso_``:

        {"functions": {"greet": {"kapso_function_id": "88df…", "local_path": "kapso/functions/greet.js"}}}
        {"greet": "88df…"}
    """
    try:
        value: Json = json.loads(content)
    except (ValueError, RecursionError):
        return ()
    return tuple(dict.fromkeys(_functions(file, value, 0)))


def _functions(file: str, value: Json, depth: int) -> Iterator[RegisteredFunction]:
    if not isinstance(value, dict) or depth > MAX_DEPTH:
        return
    for key, item in value.items():
        if isinstance(item, str) and _ID.fullmatch(item) and not _word(key).endswith("id"):
            yield RegisteredFunction(file, key, item)
        elif isinstance(item, dict):
            found = _first(item, _IDS)
            if found is not None and _ID.fullmatch(found):
                yield RegisteredFunction(file, key, found, _first(item, _PATHS))
            yield from _functions(file, item, depth + 1)


def _first(record: Mapping[str, Json], words: tuple[str, ...]) -> str | None:
    """Return the text under the first of these words that is a key of the record."""
    texts = {_word(key).removeprefix("kapso"): item for key, item in record.items() if isinstance(item, str) and item}
    return next((texts[word] for word in words if word in texts), None)


def _word(key: str) -> str:
    return "".join(filter(str.isalnum, key)).lower()
