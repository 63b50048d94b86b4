"""Checks a document against a model, and reports everything that is wrong: a location, plain words, and a suggestion.

msgspec describes the models' types and reads the document once nothing is wrong. By itself it stops at the first mistake, and a
person who writes a manifest wants all of them.
"""

from __future__ import annotations

import enum
import functools
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from kapso_sync.closest import closest
from kapso_sync.dataclass import dataclass
from kapso_sync.errors import Problem
from kapso_sync.manifest.document import Document, Path
from kapso_sync.manifest.masking import is_secret_key, is_secret_path, shown_secret_key
from kapso_sync.manifest.schema import (
    ALSO,
    DOTENV_PATTERN,
    ENVIRONMENT_PATTERN,
    FIRST,
    HEADER_PATTERN,
    HEADER_TEXT_PATTERN,
    SECRET_PATTERN,
    VARIABLE_PATTERN,
    EntryModel,
    Keys,
)
from kapso_sync.model.json_values import Json
from kapso_sync.model.names import ID_PATTERN, SLUG_PATTERN
from kapso_sync.plurals import alternatives
from kapso_sync.units import DURATION_PATTERN, PERCENTAGE_PATTERN

_Model = TypeVar("_Model")

_WORDS = {
    **dict.fromkeys(("true", "yes", "on", "y"), "true"),
    **dict.fromkeys(("false", "no", "off", "n"), "false"),
}
"""What some YAML readers take for true or false."""

_NUMBER = re.compile(r"[-+]?(?=\.?[0-9])(?:0|[1-9][0-9]*)?(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?")
_PATTERNS = {
    SLUG_PATTERN: "expected a slug: lower-case letters, digits and hyphens",
    SECRET_PATTERN: "expected a secret's name: upper-case letters, digits and underscores",
    DOTENV_PATTERN: "expected FILE#NAME",
    ENVIRONMENT_PATTERN: "expected an environment's name: letters, digits, dots, underscores and hyphens",
    HEADER_PATTERN: "expected a header's name: letters, digits and hyphens",
    HEADER_TEXT_PATTERN: "expected a header's text: printable ASCII, without spaces at its ends",
    VARIABLE_PATTERN: "expected the name of an environment variable",
    ID_PATTERN: "expected an id: letters, digits, underscores and hyphens",
    DURATION_PATTERN: "expected a duration such as 300ms, 20s or 5m",
    PERCENTAGE_PATTERN: "expected a percentage such as 50%",
}


class _Kind(enum.Enum):
    """What is wrong with a value."""

    NO_MAPPING = enum.auto()
    NO_LIST = enum.auto()
    NO_TEXT = enum.auto()
    NO_BOOLEAN = enum.auto()
    NO_NUMBER = enum.auto()
    SPELLING = enum.auto()
    TOO_MANY = enum.auto()
    UNKNOWN_KEY = enum.auto()
    MISSING_KEY = enum.auto()
    TOGETHER = enum.auto()
    OTHER = enum.auto()


@dataclass(frozen=True, slots=True)
class _Fault:
    """A value, or with ``is_key`` a key, that the model refuses; ``known`` are the keys of a model that lacks this one.

    ``expected`` says what was, as the beginning of a sentence that ends with the value; of keys together it is all of it.
    """

    path: Path
    kind: _Kind
    expected: str
    value: Json
    is_key: bool = False
    known: tuple[str, ...] = ()


def check(document: Document, model: type[_Model]) -> _Model | None:
    """Return the document as a model; what is wrong is added to its problems, and then the result may be None.

    Where YAML has a problem already, nothing else is said. A document that is not complete has nothing to check.
    """
    if document.problems and not document.is_complete:
        return None
    described = _described(model)  # type: ignore[arg-type] # every type is hashable
    faults = _faults(described, document.value, ())
    found = [_problem(document, fault) for fault in faults]
    faulty = {fault.path for fault in faults}
    for path in _nulls(document.value) if document.value is not None else ():
        entry = path[:-1] == ("functions",) or (len(path) == 4 and path[0] == "environments" and path[2] == "functions")
        if not entry and not _free(path) and path not in faulty:
            text = f"{dotted(path)}: nothing is given"
            found.append(document.problem("empty", text, document.location(path, key=True), "give a value, or remove the key"))
    told = {problem.location for problem in document.problems}
    document.problems += [problem for problem in (*found, *ambiguities(document, faulty)) if problem.location not in told]
    return None if faults else msgspec.convert(document.value, model)


@functools.cache
def _described(model: Any) -> inspect.Type:
    return inspect.type_info(model)


def _meant(text: str) -> str | None:
    """Return the number or boolean that a text is to the readers that do not take it for text, as we read it, or None."""
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if not _NUMBER.fullmatch(text):
        return None
    number = float(text)
    return (shown(number) if "." in text or number % 1 else f"{number:.0f}") if abs(number) < 1e15 else None


def ambiguities(document: Document, faulty: AbstractSet[Path] = frozenset()) -> list[Problem]:
    """Return the problems of scalars that YAML readers disagree on, without those of ``faulty`` values."""
    return [
        document.problem(
            "ambiguous",
            f"{dotted(path)}: not every YAML reader takes {'it' if is_secret_path(path) else text} for text",
            document.location(path),
            _hint_to_quote(path, text),
        )
        for path, text in document.ambiguous.items()
        if path not in faulty
    ]


def _hint_to_quote(path: Path, text: str) -> str:
    if is_secret_path(path):
        return "quote it"
    meant = _meant(text) if _free(path) else None  # elsewhere it is known to be a text
    return f'quote it: "{text}"' if meant is None else f'write {meant}, or quote it, if it is text: "{text}"'


def dotted(path: Path) -> str:
    """Return a path as text: ``functions.pay.checks[0].expect``."""
    text, is_secret = "", False
    for key in path:
        part = shown_secret_key(key) if is_secret and isinstance(key, str) else key
        is_secret = is_secret or (isinstance(key, str) and is_secret_key(key))
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text or "the file"


def shown(value: Json) -> str:
    """Return a value for a message: short, on one line."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _faults(kind: inspect.Type, value: Json, path: Path) -> Sequence[_Fault]:
    """Return what is wrong with a value, in the order of the model's keys; what is inside of a wrong value is not looked at."""
    look = _LOOKS.get(type(kind))
    return () if look is None else look(kind, value, path)


def _in_metadata(kind: inspect.Metadata, value: Json, path: Path) -> Sequence[_Fault]:
    rules = kind.extra or {}
    first, also = rules.get(FIRST), rules.get(ALSO)
    return (
        (_refused(first(value), value, path) if first is not None else ())
        or _faults(kind.type, value, path)
        or (_refused(also(value), value, path) if also is not None else ())
    )


def _in_union(kind: inspect.UnionType, value: Json, path: Path) -> Sequence[_Fault]:
    """Look at a value as the type that it is, of several that are allowed; of a value that is none of them, name them all."""
    for each in kind.types:
        if _is_of(each, value):
            return _faults(each, value, path)
    given = [each for each in kind.types if not isinstance(each, inspect.NoneType)]
    if len(given) > 1:
        expected = f"expected {alternatives(_NAMES.get(type(each), 'false') for each in map(_without_rules, given))}"
        return [_Fault(path, _Kind.NO_MAPPING, expected, value)]
    return _faults(given[0], value, path)


def _without_rules(kind: inspect.Type) -> inspect.Type:
    return _without_rules(kind.type) if isinstance(kind, inspect.Metadata) else kind


_NAMES = {inspect.StrType: "text", inspect.ListType: "a list", inspect.StructType: "a mapping"}
"""What the parts of a union are called; the others are ``false``."""


def _is_of(kind: inspect.Type, value: Json) -> bool:
    if isinstance(kind, inspect.Metadata):
        return _is_of(kind.type, value)
    if isinstance(kind, inspect.LiteralType):
        return any(value is each for each in kind.values if isinstance(each, bool))
    return type(value) is _PYTHON.get(type(kind))


_PYTHON = {
    inspect.NoneType: type(None),
    inspect.StrType: str,
    inspect.ListType: list,
    inspect.DictType: dict,
    inspect.StructType: dict,
}
"""The Python type of a value, by msgspec's; a union of the models has at most one of each."""


def _in_model(kind: inspect.StructType, value: Json, path: Path) -> Sequence[_Fault]:
    if not isinstance(value, dict):
        return [_Fault(path, _Kind.NO_MAPPING, "expected a mapping", value)]
    known = _known_keys(kind.cls)
    faults: list[_Fault] = []
    for name, field in known.items():
        if name in value:
            faults += _faults(field.type, value[name], (*path, name))
        elif field.required:
            faults.append(_Fault((*path, name), _Kind.MISSING_KEY, "is required", None))
    if kind.forbid_unknown_fields and not value.keys() <= known.keys():
        unknown = [key for key in value if key not in known]
        faults += [_Fault((*path, key), _Kind.UNKNOWN_KEY, "unknown key", value[key], known=tuple(known)) for key in unknown]
    wrong = kind.cls.rule(value) if issubclass(kind.cls, Keys) and not faults else None
    return faults if wrong is None else [_Fault(path, _Kind.TOGETHER, wrong, value)]


@functools.cache
def _known_keys(model: type[msgspec.Struct]) -> Mapping[str, inspect.Field]:
    """Return the fields of a model by their keys; a manifest asks for those of one model a thousand times."""
    described = inspect.type_info(model)
    return {field.encode_name: field for field in described.fields} if isinstance(described, inspect.StructType) else {}


def _in_mapping(kind: inspect.DictType, value: Json, path: Path) -> Sequence[_Fault]:
    if not isinstance(value, dict):
        return [_Fault(path, _Kind.NO_MAPPING, "expected a mapping", value)]
    if kind.max_length is not None and len(value) > kind.max_length:
        return [_Fault(path, _Kind.TOO_MANY, f"expected at most {kind.max_length}", value)]
    faults: list[_Fault] = []
    for key, item in value.items():
        below = (*path, key)
        faults += [replace(fault, is_key=True) for fault in _faults(kind.key_type, key, below)]
        faults += _faults(kind.value_type, item, below)
    return faults


def _in_list(kind: inspect.ListType, value: Json, path: Path) -> Sequence[_Fault]:
    if not isinstance(value, list):
        return [_Fault(path, _Kind.NO_LIST, "expected a list", value)]
    if kind.max_length is not None and len(value) > kind.max_length:
        return [_Fault(path, _Kind.TOO_MANY, f"expected at most {kind.max_length}", value)]
    return [fault for number, item in enumerate(value) for fault in _faults(kind.item_type, item, (*path, number))]


def _in_text(kind: inspect.StrType, value: Json, path: Path) -> Sequence[_Fault]:
    if not isinstance(value, str):
        return [_Fault(path, _Kind.NO_TEXT, "expected text", value)]
    if kind.min_length is not None and len(value) < kind.min_length:
        return _refused("expected some text", value, path)
    if kind.max_length is not None and len(value) > kind.max_length:
        return _refused(f"expected at most {kind.max_length} characters", value, path)
    if kind.pattern is not None and not re.fullmatch(kind.pattern, value):  # Python's `$` lets a line end follow
        return [_Fault(path, _Kind.SPELLING, _PATTERNS.get(kind.pattern, "expected another spelling"), value)]
    return ()


def _in_boolean(_: inspect.BoolType, value: Json, path: Path) -> Sequence[_Fault]:
    return () if isinstance(value, bool) else [_Fault(path, _Kind.NO_BOOLEAN, "expected true or false", value)]


def _in_choice(kind: inspect.LiteralType, value: Json, path: Path) -> Sequence[_Fault]:
    if any(value == each and type(value) is type(each) for each in kind.values):
        return ()
    choices = alternatives(each if isinstance(each, str) else shown(each) for each in kind.values)
    return _refused(f"expected {choices}", value, path)


def _in_whole_number(kind: inspect.IntType, value: Json, path: Path) -> Sequence[_Fault]:
    if isinstance(value, bool) or not isinstance(value, int):
        return [_Fault(path, _Kind.NO_NUMBER, "expected a whole number", value)]
    return _refused(_out_of_range(kind, value), value, path)


def _in_number(kind: inspect.FloatType, value: Json, path: Path) -> Sequence[_Fault]:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return [_Fault(path, _Kind.NO_NUMBER, "expected a number", value)]
    return _refused(_out_of_range(kind, value), value, path)


def _out_of_range(kind: inspect.IntType | inspect.FloatType, value: float) -> str | None:
    """Return the limit that a number is beyond; one that is not a number is beyond all of them."""
    if kind.gt is not None and not value > kind.gt:
        return f"expected more than {kind.gt}"
    if kind.ge is not None and not value >= kind.ge:
        return f"expected at least {kind.ge}"
    if kind.le is not None and not value <= kind.le:
        return f"expected at most {kind.le}"
    return None


def _refused(expected: str | None, value: Json, path: Path) -> Sequence[_Fault]:
    return () if expected is None else [_Fault(path, _Kind.OTHER, expected, value)]


_LOOKS: Mapping[type[inspect.Type], Callable[[Any, Json, Path], Sequence[_Fault]]] = {
    inspect.Metadata: _in_metadata,
    inspect.UnionType: _in_union,
    inspect.StructType: _in_model,
    inspect.DictType: _in_mapping,
    inspect.ListType: _in_list,
    inspect.StrType: _in_text,
    inspect.BoolType: _in_boolean,
    inspect.LiteralType: _in_choice,
    inspect.IntType: _in_whole_number,
    inspect.FloatType: _in_number,
}
"""What looks at a value of each type; the types that are not here take any value."""


def _problem(document: Document, fault: _Fault) -> Problem:
    path, value, name = fault.path, fault.value, dotted(fault.path)
    if fault.kind is _Kind.UNKNOWN_KEY:
        meant = closest(str(path[-1]), fault.known)
        known = f"did you mean `{meant}`?" if meant else f"known here: {', '.join(fault.known)}"
        place = document.location(path, key=True)
        return document.problem("unknown-key", f"{name}: unknown key", place, _misplaced_key(path, fault.known) or known)
    if fault.kind is _Kind.MISSING_KEY:
        hint = "add `version: 1`" if path == ("version",) else None
        return document.problem("missing", f"{name}: is required", document.location(path[:-1]), hint)
    if path == ("version",):
        text = f"version: expected 1, the only version there is, got {_got(document, fault)}"
        is_newer = isinstance(value, int) and value > 1
        return document.problem(
            "version", text, document.location(path), "a newer kapso-sync may know it" if is_newer else "write `version: 1`"
        )
    silent = fault.kind is _Kind.TOGETHER or (fault.kind is _Kind.SPELLING and fault.is_key)
    got = "" if silent else f", got {_got(document, fault)}"
    return document.problem("value", f"{name}: {fault.expected}{got}", document.location(path, key=fault.is_key), _hint(fault))


def _misplaced_key(path: Path, known: Sequence[str]) -> str | None:
    """Return a hint for a key that is known one level deeper, or None."""
    key, above = str(path[-1]), str(path[-2]) if len(path) > 1 else ""
    if path[-3:-2] == ("functions",) and above in _known_keys(EntryModel):
        return _below_the_function(above)
    if "secrets" in known and is_secret_key(key) and re.fullmatch(SECRET_PATTERN, key):
        return "a secret stands below `secrets`, and is indented deeper"
    return None


def _below_the_function(key: str) -> str:
    return f"indent `{key}` below the function that it belongs to"


def _got(document: Document, fault: _Fault) -> str:
    path, value = fault.path, fault.value
    if isinstance(value, dict | list) and fault.kind is _Kind.TOO_MANY:
        return f"{len(value)}"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, str | int | float) and is_secret_path(path[:-1] if fault.is_key else path):
        return _kind_of(value)
    if path in document.ambiguous and not fault.is_key:
        return f'"{document.ambiguous[path]}"'
    return "nothing" if value is None else shown(value)


def _kind_of(value: bool | float | str) -> str:
    """Return what a value is, where it may be a credential that the manifest should not hold."""
    return "a text" if isinstance(value, str) else shown(value) if isinstance(value, bool) else "a number"


def _hint(fault: _Fault) -> str | None:
    path, value = fault.path, fault.value
    match fault.kind:
        case _Kind.NO_MAPPING | _Kind.NO_LIST:
            return _shape_hint(path, value)
        case _Kind.SPELLING if path[-2:-1] == ("functions",):
            if path[-1] in _known_keys(EntryModel):
                return _below_the_function(str(path[-1]))
            slug = re.sub(r"[^a-z0-9]+", "-", str(path[-1]).lower()).strip("-")
            return f"did you mean `{slug}`?" if re.fullmatch(SLUG_PATTERN, slug) else None
        case _Kind.SPELLING if path[-2:-1] == ("secrets",):
            key = str(path[-1])
            name = re.sub(r"[^A-Z0-9]+", "_", key.upper()).strip("_")
            is_name = re.fullmatch(SECRET_PATTERN, name) and shown_secret_key(key) == key
            return f"did you mean `{name}`?" if is_name else None
        case _Kind.NO_BOOLEAN if isinstance(value, str) and value.lower() in _WORDS:
            return "write true or false, without quotes"
        case _Kind.NO_TEXT if isinstance(value, bool | int | float):
            return "quote it, if it is text" if is_secret_path(path) else f'quote it, if it is text: "{shown(value)}"'
        case _Kind.NO_NUMBER if isinstance(value, str) and not is_secret_path(path):
            number = _meant(value)
            return f"write {number}" if number is not None and number not in _WORDS.values() else None
    return None


def _shape_hint(path: Path, value: Json) -> str | None:
    """Return how a value has to be written that is of another shape, such as a text in place of a mapping."""
    key, above = str(path[-1]) if path else "", path[-2] if len(path) > 1 else None
    if above == "functions" and key in _known_keys(EntryModel):
        return _below_the_function(key)
    may_be_false = key == "watch" or (above == "functions" and path[0] == "environments")
    match key, value:
        case _, str() if may_be_false and _WORDS.get(value.lower()) == "false":
            return "write false, without quotes"
        case name, str() if above == "secrets":
            name = name if re.fullmatch(SECRET_PATTERN, name) else "NAME"
            return f"write `{{env: {name}}}`, and replace a credential that git has seen"
        case _, bool() | int() | float() if above == "secrets":
            given = shown(value) if isinstance(value, bool) else "…"
            return f"write `{{value: {given}}}` for plain configuration"
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
        case "watch", True | str() if _WORDS.get(str(value).lower()) == "true":
            return "write `{}` for a watch with the defaults"
    return None


def _free(path: Path) -> bool:
    """Return whether a path is inside the user's own JSON, where null is a value."""
    if "runtime_config" in path[:-1] or "request" in path[2:]:
        return True
    return "json" in path[2:] and bool({"expect", "answer"} & set(path))


def _nulls(value: Json, path: Path = ()) -> Iterator[Path]:
    if value is None:
        yield path
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _nulls(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _nulls(item, (*path, index))
