"""Turns validation errors of the models into problems for people: a location, plain words, and a suggestion."""

from __future__ import annotations

import difflib
import json
import re
import types
import typing
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any, TypeVar

from pydantic import BaseModel, RootModel, ValidationError

from kapso_sync.errors import Problem
from kapso_sync.manifest.document import Document, Path
from kapso_sync.manifest.schema import (
    DOTENV_PATTERN,
    ENVIRONMENT_PATTERN,
    HEADER_PATTERN,
    HEADER_TEXT_PATTERN,
    SECRET_PATTERN,
    VARIABLE_PATTERN,
)
from kapso_sync.model.json_values import Json
from kapso_sync.model.names import SLUG_PATTERN

_Model = TypeVar("_Model", bound=BaseModel)

_BOOLEAN_WORDS = frozenset({"yes", "no", "on", "off", "y", "n"})
_PATTERNS = {
    SLUG_PATTERN: "expected a slug: lower-case letters, digits and hyphens",
    SECRET_PATTERN: "expected a secret's name: upper-case letters, digits and underscores",
    DOTENV_PATTERN: "expected FILE#NAME",
    ENVIRONMENT_PATTERN: "expected an environment's name: letters, digits, dots, underscores and hyphens",
    HEADER_PATTERN: "expected a header's name: letters, digits and hyphens",
    HEADER_TEXT_PATTERN: "expected a header's text: printable ASCII, without spaces at its ends",
    VARIABLE_PATTERN: "expected the name of an environment variable",
}


def check(document: Document, model: type[_Model]) -> _Model | None:
    """Return the document as a model; validation errors are added to its problems, and then the result may be None."""
    checked = None
    faulty: set[Path] = set()
    try:
        checked = model.model_validate(document.value)
    except ValidationError as error:
        for item in error.errors(include_url=False):
            path = _path(item["loc"], document.value)
            faulty.add(path)
            document.problems.append(_problem(document, model, path, item))
    for path in _nulls(document.value) if document.value is not None else ():
        entry = path[:-1] == ("functions",) or (len(path) == 4 and path[0] == "environments" and path[2] == "functions")
        if not entry and not _free(path) and path not in faulty:
            text = f"{dotted(path)}: nothing is given"
            document.problems.append(
                document.problem("empty", text, document.location(path, key=True), "give a value, or remove the key")
            )
    document.problems += ambiguities(document, faulty)
    return checked


def ambiguities(document: Document, faulty: AbstractSet[Path] = frozenset()) -> list[Problem]:
    """Return the problems of scalars that YAML readers disagree on, without those of ``faulty`` values."""
    return [
        document.problem(
            "ambiguous",
            f"{dotted(path)}: not every YAML reader takes {text} for text",
            document.location(path),
            f'quote it: "{text}"',
        )
        for path, text in document.ambiguous.items()
        if path not in faulty
    ]


def dotted(path: Path) -> str:
    """Return a path as text: ``functions.pay.checks[0].expect``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text or "the file"


def shown(value: Json) -> str:
    """Return a value for a message: short, on one line."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}…"


def did_you_mean(word: str, known: typing.Iterable[str]) -> str | None:
    """Return the known word that is closest."""
    return next(iter(difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)), None)


def _path(loc: tuple[int | str, ...], value: Json) -> Path:
    """Drop the parts of pydantic's path that are not in the document: names of union branches, and ``[key]``."""
    path: list[str | int] = []
    for part in loc:
        if isinstance(value, dict) and part in value:
            path.append(part)
            value = value[str(part)]
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            path.append(part)
            value = value[part]
        elif isinstance(part, int) and isinstance(value, str):
            continue  # a text that may stand for a list of one
        elif part != "[key]" and loc.index(part) == len(loc) - 1:
            path.append(part)
    return tuple(path)


def _problem(document: Document, model: type[BaseModel], path: Path, item: Mapping[str, Any]) -> Problem:
    kind = str(item["type"])
    name, value = dotted(path), item["input"]
    if kind == "extra_forbidden":
        return _unknown_key(document, model, path)
    if kind == "missing":
        text = f"{name}: is required"
        return document.problem(
            "missing", text, document.location(path[:-1]), "add `version: 1`" if path == ("version",) else None
        )
    if path == ("version",):
        text = f"version: expected 1, the only version there is, got {shown(value)}"
        return document.problem("version", text, document.location(path), "a newer kapso-sync may know it")
    is_key = item["loc"][-1:] == ("[key]",)
    expected = _EXPECTED[kind](item) if kind in _EXPECTED else str(item["msg"])
    text = f"{name}: {expected}" + (
        "" if kind == "string_pattern_mismatch" and is_key else f", got {_got(document, path, value, kind)}"
    )
    return document.problem("value", text, document.location(path, key=is_key), _hint(path, kind, value))


def _got(document: Document, path: Path, value: Json, kind: str) -> str:
    if isinstance(value, dict | list) and kind == "too_long":
        return f"{len(value)}"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    return "nothing" if value is None else f'"{document.ambiguous[path]}"' if path in document.ambiguous else shown(value)


def _hint(path: Path, kind: str, value: Json) -> str | None:
    if kind in ("model_type", "dict_type", "list_type"):
        return _shape_hint(path, value)
    if kind == "string_pattern_mismatch" and path[-2:-1] == ("functions",):
        slug = re.sub(r"[^a-z0-9]+", "-", str(path[-1]).lower()).strip("-")
        return f"did you mean `{slug}`?" if re.fullmatch(SLUG_PATTERN, slug) else None
    if kind == "string_pattern_mismatch" and path[-2:-1] == ("secrets",):
        name = re.sub(r"[^A-Z0-9]+", "_", str(path[-1]).upper()).strip("_")
        return f"did you mean `{name}`?" if re.fullmatch(SECRET_PATTERN, name) else None
    if kind == "bool_type" and isinstance(value, str) and value.lower() in _BOOLEAN_WORDS | {"true", "false"}:
        return "write true or false, without quotes"
    if kind == "string_type" and isinstance(value, bool | int | float):
        return f'quote it, if it is text: "{shown(value)}"'
    return None


def _shape_hint(path: Path, value: Json) -> str | None:
    """Return how a value has to be written that is of another shape, such as a text in place of a mapping."""
    key, above = str(path[-1]) if path else "", path[-2] if len(path) > 1 else None
    match key, value:
        case name, str() if above == "secrets":
            return f"write `{{env: {name}}}`, and replace a credential that git has seen"
        case _, bool() | int() | float() if above == "secrets":
            return f"write `{{value: {shown(value)}}}` for plain configuration"
        case "secrets", list():
            return "write each name with the place of its value: `NAME: {env: NAME}`"
        case "expect", int() if not isinstance(value, bool):
            return f"write `{{status: {value}}}`"
        case "expect", str():
            return "write `{text: …}`, with a part of the answer"
        case "checks", dict():
            return "checks are a list: begin each with `- `"
        case "functions", list():
            return "write each function as a key, such as `greet:`, with its own keys below"
        case _, str() if above == "functions":
            return "write `{file: …}`, with the path of its code"
        case "watch", True:
            return "write `{}` for a watch with the defaults"
    return None


def _unknown_key(document: Document, model: type[BaseModel], path: Path) -> Problem:
    owner = _model_at(model, path[:-1])
    known = [field.alias or name for name, field in owner.model_fields.items()] if owner else []
    meant = did_you_mean(str(path[-1]), known)
    hint = f"did you mean `{meant}`?" if meant else f"known here: {', '.join(known)}"
    return document.problem("unknown-key", f"{dotted(path)}: unknown key", document.location(path, key=True), hint)


def _model_at(model: type[BaseModel], path: Path) -> type[BaseModel] | None:
    current: Any = model
    for part in path:
        if isinstance(current, type) and issubclass(current, RootModel):
            current = _core(current.model_fields["root"].annotation)
        if isinstance(current, type) and issubclass(current, BaseModel):
            fields = {field.alias or name: field.annotation for name, field in current.model_fields.items()}
            current = _core(fields.get(str(part)))
        else:
            current = _core(typing.get_args(current)[-1]) if typing.get_args(current) else None
    return current if isinstance(current, type) and issubclass(current, BaseModel) else None


def _core(annotation: Any) -> Any:
    """Return an annotation without ``None`` and ``Annotated``."""
    if typing.get_origin(annotation) is typing.Annotated:
        return _core(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return _core(next(arg for arg in typing.get_args(annotation) if arg is not type(None)))
    return annotation


_EXPECTED: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "bool_type": lambda _: "expected true or false",
    "string_type": lambda _: "expected text",
    "int_type": lambda _: "expected a whole number",
    "dict_type": lambda _: "expected a mapping",
    "model_type": lambda _: "expected a mapping",
    "list_type": lambda _: "expected a list",
    "one_source": lambda item: str(item["msg"]),
    "literal_error": lambda item: f"expected {item['ctx']['expected'].replace(chr(39), '')}",
    "string_pattern_mismatch": lambda item: _PATTERNS.get(item["ctx"]["pattern"], "expected another spelling"),
    "string_too_short": lambda _: "expected some text",
    "too_long": lambda item: f"expected at most {item['ctx']['max_length']}",
    "string_too_long": lambda item: f"expected at most {item['ctx']['max_length']} characters",
    "greater_than_equal": lambda item: f"expected at least {item['ctx']['ge']}",
    "less_than_equal": lambda item: f"expected at most {item['ctx']['le']}",
}


def _free(path: Path) -> bool:
    """Return whether a path is inside the user's own JSON, where null is a value."""
    if "runtime_config" in path[:-1] or "request" in path[2:]:
        return True
    return "json" in path[2:] and bool({"expect", "answer"} & set(path))


def _nulls(value: Json, path: Path = ()) -> typing.Iterator[Path]:
    if value is None:
        yield path
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _nulls(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _nulls(item, (*path, index))
