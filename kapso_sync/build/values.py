"""Tells what the value of a name can be without running the code, and so whether it can answer a request."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from kapso_sync.build.scopes import GLOBALS, Scopes
from kapso_sync.build.syntax import FUNCTIONS, member, nodes, unwrapped

if TYPE_CHECKING:
    from tree_sitter import Node

_SETS_FETCH = re.compile(rb"\bthis\s*(?:\.\s*fetch\b|\[)|\bassign\s*\(\s*this\b|\bdefineProperty\s*\(\s*this\b")
_FREEZES = (b"Object.freeze", b"Object.seal", b"Object.preventExtensions")
_VALUES = {
    "string": "a string",
    "template_string": "a string",
    "number": "a number",
    "true": "a boolean",
    "false": "a boolean",
    "null": "null",
    "undefined": "undefined",
    "regex": "a regular expression",
    "array": "a list",
}
"""Kinds of expressions that are no function and have no `fetch`, in words."""

_OPERATORS = {
    **dict.fromkeys((b"-", b"+", b"~"), "a number"),
    **dict.fromkeys((b"!", b"delete"), "a boolean"),
    b"typeof": "a string",
    b"void": "undefined",
}
"""What operators with one operand make, in words."""

CLASSES = frozenset({"class", "class_declaration", "abstract_class_declaration"})
_MAKES_ANYTHING = frozenset({b"Proxy", b"Function", b"Object"})
"""Classes of the runtime whose instances may be called, or may have a `fetch`."""

MAX_PARENTS = 20
"""Maximum number of classes that extend each other which are looked at."""

MAX_STEPS = 100
"""Maximum number of expressions around a name that are looked at: beyond, the name may be used in any way."""


class Values:
    """The values of a file's top-level names.

    ``known`` are their nodes by name. ``is_entrypoint`` tells whether a class extends the runtime's own class, which has no
    `fetch`. The descriptions that are returned continue a sentence that starts with the value.
    """

    def __init__(self, known: Mapping[bytes, Node], scopes: Scopes, is_entrypoint: Callable[[Node], bool]) -> None:
        self._values = known
        self._scopes = scopes
        self._is_entrypoint = is_entrypoint
        self._walked: set[int] = set()

    def constant(self, node: Node | None) -> tuple[Node | None, list[bytes]]:
        """Return the value of an expression, and the names that it was found through."""
        names: list[bytes] = []
        for _ in range(10):
            node = unwrapped(node)
            if node is None:
                break
            callee = node.child_by_field_name("function") if node.type == "call_expression" else None
            if callee is not None and callee.text in _FREEZES:
                arguments = node.child_by_field_name("arguments")
                node = next((each for each in arguments.named_children if each.type != "comment"), None) if arguments else None
            elif node.type in ("identifier", "shorthand_property_identifier") and (node.text or b"") in self._values:
                names.append(node.text or b"")
                self._walked.add(node.id)
                node = self._values[node.text or b""]
            else:
                name = node.child_by_field_name("name") if node.type.endswith("_declaration") else None
                names += [name.text or b""] if name is not None else []
                break
        is_unknown = node is None or (node.type == "variable_declarator" and not _is_unassigned(node))
        return (None if is_unknown else node), names

    def may_change(self, name: bytes) -> bool:
        """Return whether a top-level value may get properties after it was made: it is assigned to, or given to a function."""
        return any(changes(node) for node in self._scopes.uses(name) if node.id not in self._walked)

    def object_without_fetch(self, value: Node) -> str | None:
        """Return what is wrong with an object that cannot answer, or None if it has a `fetch`, or may have one."""
        if any(child.type == "spread_element" or _has_computed_name(child) for child in value.named_children):
            return None
        found = member(value, b"fetch")
        if found is None:
            return None if _SETS_FETCH.search(value.text or b"") else "is an object without `fetch`"
        inner, names = self.constant(found) if found.type not in FUNCTIONS else (found, [])
        what = None if inner is None else "an object" if inner.type == "object" else simple_value(inner)
        if what is None or any(self.may_change(name) for name in names):
            return None
        return f"is an object whose `fetch` is {what}"

    def instance_without_fetch(self, value: Node) -> str | None:
        """Return what is wrong with a new object that cannot answer, or None if it has a `fetch`, or may have one."""
        made, names = self.constant(value.child_by_field_name("constructor"))
        if made is None or any(self.may_change(name) for name in names):
            return None
        if made.type in CLASSES:
            return "is an instance of a class without `fetch`" if self.class_without_fetch(made) is not None else None
        name = made.text or b""
        is_of_runtime = made.type == "identifier" and name in GLOBALS - _MAKES_ANYTHING and not self._scopes.declares(name)
        return f"is a `{name.decode()}`" if is_of_runtime else None

    def class_without_fetch(self, value: Node, depth: int = 0) -> str | None:
        """Return what is wrong with a class that cannot answer, or None if it has a `fetch`, or may have one."""
        body = value.child_by_field_name("body")
        decorated = any(child.type == "decorator" for child in value.children)
        if body is None or decorated or _may_have_fetch(body) or not self._has_parent_without_fetch(value, depth):
            return None
        return "is a class without `fetch`"

    def _has_parent_without_fetch(self, value: Node, depth: int) -> bool:
        """Return whether a class has no parent that has a `fetch`, or may have one."""
        parent = next((child for child in value.children if child.type == "class_heritage"), None)
        if parent is None or self._is_entrypoint(parent) or b"extends" not in (parent.text or b""):
            return True
        named = list(nodes(parent, ("identifier",)))
        if len(named) != 1 or b"(" in (parent.text or b"") or depth > MAX_PARENTS:
            return False
        found, names = self.constant(named[0])
        if found is None or found.type not in CLASSES or any(self.may_change(name) for name in names):
            return False
        return self.class_without_fetch(found, depth + 1) is not None


def simple_value(node: Node) -> str | None:
    """Return a description of a value that is not a function and has no `fetch`, else None."""
    if node.type == "unary_expression":
        return _OPERATORS.get(node.children[0].text or b"")
    return "undefined" if node.type == "variable_declarator" else _VALUES.get(node.type)


def _is_unassigned(declarator: Node) -> bool:
    name = declarator.child_by_field_name("name")
    return declarator.child_by_field_name("value") is None and name is not None and name.type == "identifier"


def changes(name: Node) -> bool:
    """Return whether the use of a name may change the value, or hand it to code that may."""
    for _ in range(MAX_STEPS):
        parent = name.parent
        call = parent.parent if parent is not None and parent.type == "arguments" else None
        callee = call.child_by_field_name("function") if call is not None else None
        if call is not None and callee is not None and callee.text in _FREEZES:
            name = call
        elif parent is not None and parent.type in ("satisfies_expression", "as_expression", "parenthesized_expression"):
            name = parent
        else:
            return _changes_in(parent, name)
    return True


def _changes_in(parent: Node | None, name: Node) -> bool:
    if parent is None or parent.type in ("export_statement", "export_specifier", "class_declaration"):
        return False
    if parent.type in ("class_heritage", "extends_clause"):
        return False
    if parent.type == "new_expression":
        return parent.child_by_field_name("constructor") != name
    if parent.type == "variable_declarator":
        return parent.child_by_field_name("value") == name
    members = ("member_expression", "subscript_expression")
    steps = 0
    while parent is not None and parent.type in members and steps < MAX_STEPS:
        if (parent.text or b"").endswith(b".prototype"):
            return True
        name, parent, steps = parent, parent.parent, steps + 1
    if parent is None or name.type not in members or parent.type in members:
        return True
    return parent.type == "assignment_expression" and parent.child_by_field_name("right") != name


def _has_computed_name(part: Node) -> bool:
    key = part.child_by_field_name("key") or part.child_by_field_name("name")
    return key is not None and key.type == "computed_property_name"


def _may_have_fetch(body: Node) -> bool:
    """Return whether the instances of a class have a `fetch`, or may get one."""
    for part in body.named_children:
        name = part.child_by_field_name("name") or part.child_by_field_name("property")
        static = any(child.type == "static" for child in part.children)
        if (
            name is not None
            and not static
            and (name.type == "computed_property_name" or name.text in (b"fetch", b'"fetch"', b"'fetch'"))
        ):
            return True
    return _SETS_FETCH.search(body.text or b"") is not None
