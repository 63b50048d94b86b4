"""Defines fault rules: which requests fail, and how."""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml
from yaml.constructor import ConstructorError, SafeConstructor

from kapso_sync.emulator.options import FaultsInvalid
from kapso_sync.emulator.values import Json, JsonObject, is_int, is_number

What = Literal[
    "status",
    "html",
    "drop_before",
    "drop_after",
    "hang_before",
    "hang_after",
    "drip",
    "truncate",
    "garbage",
    "redirect",
    "empty_list",
    "repeat_page",
    "missing_page",
    "deploy_fails",
    "deploy_hangs",
]
WHATS: tuple[str, ...] = typing.get_args(What)

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
ROUTES = (
    "/functions",
    "/functions/{id}",
    "/functions/{id}/deploy",
    "/functions/{id}/invoke",
    "/functions/{id}/secrets",
    "/functions/{id}/secrets/{name}",
    "/functions/{id}/invocations",
    "/workflows",
    "/workflows/{id}/definition",
    "/flows",
    "/flows/{id}/definition",
    "/whatsapp/flows",
    "/whatsapp/flows/{id}/data_endpoint",
    "/whatsapp/webhooks",
)
"""The route templates of the Functions API, below either base."""

_NEEDS_ANSWER = ("drip", "truncate", "empty_list", "repeat_page", "missing_page", "deploy_fails", "deploy_hangs")
_LISTS = ("/functions", "/workflows", "/flows", "/whatsapp/flows", "/whatsapp/webhooks")
_ONLY_FOR: dict[str, tuple[str, tuple[str, ...]]] = {
    "empty_list": ("GET", _LISTS),
    "repeat_page": ("GET", _LISTS),
    "missing_page": ("GET", _LISTS),
    "deploy_fails": ("POST", ("/functions/{id}/deploy",)),
    "deploy_hangs": ("POST", ("/functions/{id}/deploy",)),
}
_LATER_PAGES = ("repeat_page", "missing_page")


@dataclass(frozen=True, slots=True)
class Rule:
    """One fault and the requests that it strikes.

    ``method``, ``route`` (a template such as ``/functions/{id}/deploy``) and ``slug`` (of the requested or created function)
    select the requests; None means any. Of those, ``nth`` selects the nth and, with ``times``, the ones after it; ``every``
    selects every Nth, at most ``times`` of them; without either, all or the first ``times``.

    ``when`` says whether the fault strikes ``before`` the request takes effect, or ``after``. ``drop`` and ``hang`` have it in
    their name; faults that garble an answer come after.

    ``status`` and ``body`` are those of a ``status``, ``html`` or ``redirect``; ``headers`` are added to a ``status``.
    ``location`` is the target of a ``redirect``. ``seconds`` pass between the bytes of a ``drip``. ``message`` is the error of
    a failing deployment.
    """

    what: What
    method: str | None = None
    route: str | None = None
    slug: str | None = None
    nth: int | None = None
    every: int | None = None
    times: int | None = None
    when: Literal["before", "after"] = "before"
    status: int | None = None
    body: Json = None
    headers: Mapping[str, str] = field(default_factory=dict)
    location: str | None = None
    seconds: float = 0.5
    message: str = "runtime outage"

    @property
    def acts_first(self) -> bool:
        """Return whether the request takes effect before the fault strikes."""
        return (
            self.what in _NEEDS_ANSWER or self.what.endswith("_after") or (self.when == "after" and "_before" not in self.what)
        )

    def matches(self, request: Asked) -> bool:
        """Return whether the rule matches this request."""
        return (
            self.method in (None, request.method)
            and self.route in (None, request.route)
            and self.slug in (None, request.slug)
            and (self.what not in _LATER_PAGES or request.page > 1)
            and self._makes_sense_for(request)
        )

    def _makes_sense_for(self, request: Asked) -> bool:
        if self.what not in _ONLY_FOR:
            return True
        method, routes = _ONLY_FOR[self.what]
        return request.method == method and request.route in routes

    def strikes(self, count: int) -> bool:
        """Return whether it strikes the ``count``-th matching request."""
        if self.nth is not None:
            return self.nth <= count < self.nth + (self.times or 1)
        every = self.every or 1
        return count % every == 0 and (self.times is None or count // every <= self.times)


@dataclass(frozen=True, slots=True)
class Asked:
    """The parts of a request that rules match."""

    method: str
    route: str | None
    slug: str | None = None
    page: int = 1


class Faults:
    """The rules in force, and how often each has matched. Every rule counts every match; the first that strikes is applied."""

    def __init__(self, rules: Sequence[Rule] = ()) -> None:
        self._rules: tuple[Rule, ...] = ()
        self._matched: list[int] = []
        self.replace(rules)

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules in force."""
        return self._rules

    @property
    def wants_slug(self) -> bool:
        """Return whether any rule matches slugs."""
        return any(rule.slug is not None for rule in self._rules)

    def replace(self, rules: Sequence[Rule]) -> None:
        """Replace the rules; counting starts again."""
        self._rules = tuple(rules)
        self._matched = [0] * len(self._rules)

    def strike(self, request: Asked) -> Rule | None:
        """Count a request and return the fault that strikes it, if any."""
        struck: Rule | None = None
        for index, rule in enumerate(self._rules):
            if rule.matches(request):
                self._matched[index] += 1
                if struck is None and rule.strikes(self._matched[index]):
                    struck = rule
        return struck


Place = Callable[[int | None, str | None], str]
"""Names a rule (by index) or one of its keys in a message, such as ``faults.yaml:4:11: faults[1].nth``."""


def name_place(index: int | None, key: str | None) -> str:
    """Return the position in rules that come from no file: ``faults[1].nth``."""
    return "faults" + ("" if index is None else f"[{index}]") + ("" if key is None else f".{key}")


def read_rules(document: object, place: Place = name_place) -> tuple[Rule, ...]:
    """Return the rules in ``{"faults": [{…}, …]}``; raises FaultsInvalid for the first mistake."""
    if not isinstance(document, Mapping) or set(document) != {"faults"} or not isinstance(document["faults"], list):
        raise FaultsInvalid(f"{place(None, None)}: expected a mapping with one key, faults, that holds a list of rules")
    return tuple(_rule(index, item, place) for index, item in enumerate(document["faults"]))


def show_rule(rule: Rule) -> JsonObject:
    """Return a rule as JSON, without default values."""
    shown: JsonObject = {"what": rule.what}
    for item in dataclasses.fields(rule):
        value = getattr(rule, item.name)
        if item.name != "what" and value not in (item.default, {}):
            shown[item.name] = value
    return shown


def _rule(index: int, item: object, place: Place) -> Rule:
    if not isinstance(item, Mapping):
        raise FaultsInvalid(f"{place(index, None)}: expected a mapping, got {item!r}")
    for key, value in item.items():
        check = _CHECKS.get(str(key))
        if check is None:
            raise FaultsInvalid(f"{place(index, str(key))}: unknown key", hint="known are: " + ", ".join(_CHECKS))
        expected = check(value)
        if expected is not None:
            raise FaultsInvalid(f"{place(index, str(key))}: expected {expected}, got {value!r}")
    if "what" not in item:
        raise FaultsInvalid(f"{place(index, None)}: the key what is missing", hint="one of: " + ", ".join(WHATS))
    if item.get("nth") is not None and item.get("every") is not None:
        raise FaultsInvalid(f"{place(index, 'every')}: give nth or every, not both")
    return Rule(**item)


def _one_of(choices: Sequence[str]) -> Callable[[object], str | None]:
    return lambda value: None if value in choices else "one of " + ", ".join(choices)


def _count(value: object) -> str | None:
    return None if is_int(value) and value > 0 else "a whole number above 0"


def _text(value: object) -> str | None:
    return None if isinstance(value, str) else "a text"


def _status(value: object) -> str | None:
    return None if is_int(value) and 200 <= value <= 599 else "a status code from 200 to 599"


def _seconds(value: object) -> str | None:
    return None if is_number(value) and value >= 0 else "a number of seconds"


def _header(value: object) -> str | None:
    fits = isinstance(value, str) and value.isascii() and value.isprintable()
    return None if fits else "a text of printable ASCII characters"


def _headers(value: object) -> str | None:
    fits = isinstance(value, Mapping) and all(_header(part) is None for pair in value.items() for part in pair)
    return None if fits else "a mapping of texts to texts (quote numbers), in printable ASCII characters"


_CHECKS: dict[str, Callable[[object], str | None]] = {
    "what": _one_of(WHATS),
    "method": _one_of(METHODS),
    "route": _one_of(ROUTES),
    "slug": _text,
    "nth": _count,
    "every": _count,
    "times": _count,
    "when": _one_of(("before", "after")),
    "status": _status,
    "body": lambda _: None,
    "headers": _headers,
    "location": _header,
    "seconds": _seconds,
    "message": _text,
}


def read_fault_file(path: Path) -> tuple[Rule, ...]:
    """Return the rules in the file; raises FaultsInvalid, naming ``file:line:column``."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FaultsInvalid(f"cannot read {path}: {error}", hint="--faults names a YAML file") from error
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        document = None if root is None else loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        raise FaultsInvalid(f"{where}: {error.problem or 'not YAML'}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise FaultsInvalid(f"{path}: not YAML that can be read: {error}") from error

    def place(index: int | None, key: str | None) -> str:
        return f"{path}{_position(root, index, key)}: {name_place(index, key)}"

    return read_rules(document, place)


class _Loader(SafeConstructor, yaml.BaseLoader):
    """Takes plain scalars for what JSON and YAML 1.2 take them: ``yes``, ``010`` and dates are text. Refuses duplicate keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Return a mapping's value."""
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and (key.tag, key.value) in seen:
                raise ConstructorError(None, None, f'found duplicate key "{key.value}"', key.start_mark)
            seen |= {(key.tag, key.value)} if isinstance(key, yaml.ScalarNode) else set()
        return super().construct_mapping(node, deep)


for _type, _pattern, _starts in (
    ("null", r"(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("bool", r"(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)$", list("-+0123456789")),
    ("float", r"[-+]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?$", list("-+.0123456789")),
    ("merge", r"<<$", ["<"]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_type}", re.compile(_pattern), _starts)


def _position(root: yaml.Node | None, index: int | None, key: str | None) -> str:
    """Return the position of a rule or of one of its keys, as ``:line:column``; empty for the whole file."""
    if root is None or index is None:
        return ""
    rules = next(value for name, value in root.value if name.value == "faults")
    rule = rules.value[index]
    names = [name for name, _ in rule.value if name.value == key] if isinstance(rule, yaml.MappingNode) else []
    mark = (names or [rule])[0].start_mark
    return f":{mark.line + 1}:{mark.column + 1}"
