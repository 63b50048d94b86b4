"""Resolve names to the scopes that declare them, and find code that only sloppy mode runs: a script without `"use strict"`."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from dataclasses import field
from typing import TYPE_CHECKING

from kapso_sync.build.syntax import FUNCTIONS, MAX_NESTING, nodes
from kapso_sync.dataclass import dataclass

if TYPE_CHECKING:
    from tree_sitter import Node

_BLOCKS = frozenset({"statement_block", "for_statement", "for_in_statement", "switch_body", "catch_clause"})
_NAMED = frozenset(
    {
        "class_declaration",
        "abstract_class_declaration",
        "enum_declaration",
        "internal_module",
        "module",
        "function_signature",
        "function_declaration",
        "generator_function_declaration",
    }
)
_DECLARATIONS = frozenset({"variable_declaration", "lexical_declaration", "using_declaration"})
_WRITES = {
    "assignment_expression": "left",
    "augmented_assignment_expression": "left",
    "update_expression": "argument",
    "for_in_statement": "left",
}
_JSX = frozenset({"jsx_element", "jsx_self_closing_element"})
_NAMES = frozenset({"identifier", "shorthand_property_identifier"})
_ONE_OF = {"assignment_pattern": "left", "object_assignment_pattern": "left", "pair_pattern": "value"}
_PARAMETERS = frozenset({"required_parameter", "optional_parameter"})
_PATTERNS = frozenset(
    {"array_pattern", "object_pattern", "rest_pattern", "formal_parameters", "parenthesized_expression", "non_null_expression"}
)
_VISITED = (
    FUNCTIONS
    | _BLOCKS
    | _NAMED
    | _DECLARATIONS
    | _WRITES.keys()
    | _JSX
    | _NAMES
    | frozenset({"class", "class_static_block", "import_statement", "import_alias", "call_expression", "with_statement"})
    | frozenset({"unary_expression", "number", "escape_sequence", "member_expression", "labeled_statement", "if_statement"})
    | frozenset({"ambient_declaration"})
)
"""Kinds of nodes that matter here."""

_STRICT_WORDS = frozenset(
    {b"implements", b"interface", b"let", b"package", b"private", b"protected", b"public", b"static", b"yield"}
)
"""Words that are names in sloppy mode and reserved in strict mode."""

_READ_ONLY = frozenset({b"NaN", b"Infinity"})
_GLOBAL_PROPERTY = re.compile(rb"\b(?:globalThis|self)\s*(?:\?\.|\.|\[\s*[\"'`])\s*((?:[\w$]|[^\x00-\x7f])+)")
_DEFINES_GLOBALS = re.compile(rb"\b(?:assign|defineProperty|defineProperties)\s*\(\s*(?:globalThis|self)\b")

_GLOBALS = """
AbortController AbortSignal AggregateError Array ArrayBuffer Atomics BigInt BigInt64Array BigUint64Array Blob Boolean Buffer
ByteLengthQueuingStrategy Cloudflare CompressionStream CountQueuingStrategy Crypto CryptoKey CustomEvent DOMException DataView
Date DecompressionStream Error EvalError Event EventSource EventTarget ExtendableEvent FetchEvent File FinalizationRegistry
Float16Array Float32Array Float64Array FormData Function HTMLRewriter Headers Int16Array Int32Array Int8Array Intl Iterator
JSON Map Math MessageChannel MessageEvent MessagePort Number Object Performance Promise Proxy RangeError ReadableStream
ReferenceError Reflect RegExp Request Response Set SharedArrayBuffer String SubtleCrypto Symbol SyntaxError TextDecoder
TextDecoderStream TextEncoder TextEncoderStream TransformStream TypeError URIError URL URLPattern URLSearchParams Uint16Array
Uint32Array Uint8Array Uint8ClampedArray WeakMap WeakRef WeakSet WebAssembly WebSocket WebSocketPair WorkerGlobalScope
WritableStream addEventListener atob btoa caches clearImmediate clearInterval clearTimeout console crypto decodeURI
decodeURIComponent dispatchEvent encodeURI encodeURIComponent escape fetch global globalThis isFinite isNaN navigator origin
parseFloat parseInt performance process queueMicrotask removeEventListener reportError scheduler self setImmediate setInterval
setTimeout structuredClone unescape exports module require
"""
GLOBALS = frozenset(name.encode() for name in _GLOBALS.split())
"""Names that exist before a Worker's code runs, with and without the flag `nodejs_compat`, and those of a CommonJS file."""


@dataclass(slots=True)
class Scope:
    """The names that one function, block or file declares; ``function``: `var` declares its names here.

    ``hoisted`` are the functions of blocks below, which sloppy mode makes visible in the whole function.
    """

    parent: Scope | None
    function: bool
    names: set[bytes] = field(default_factory=set)
    hoisted: set[bytes] = field(default_factory=set)
    depth: int = field(init=False)

    def __post_init__(self) -> None:
        """Count the scopes around this one."""
        self.depth = self.parent.depth + 1 if self.parent is not None else 0

    def declares(self, name: bytes, *, sloppy: bool = False) -> bool:
        """Return whether this scope or one around it declares a name."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.names or (sloppy and name in scope.hoisted):
                return True
            scope = scope.parent
        return False

    def visible(self) -> frozenset[bytes]:
        """Return all names that this scope or one around it declares."""
        found: set[bytes] = set()
        scope: Scope | None = self
        while scope is not None:
            found |= scope.names
            scope = scope.parent
        return frozenset(found)

    def for_var(self) -> Scope:
        """Return the scope in which `var` declares its names."""
        scope = self
        while not scope.function and scope.parent is not None:
            scope = scope.parent
        return scope


@dataclass(frozen=True, slots=True)
class Sloppy:
    """Code that only sloppy mode runs: its node, and what it does, as the end of a sentence.

    ``rewritten``: a build writes it in a way that strict mode runs as well.
    """

    node: Node
    problem: str
    rewritten: bool = False


class Scopes:
    """The scopes of one file. Names may be declared after they are used, so everything is resolved after one walk.

    ``too_deep``: more than `MAX_NESTING` scopes are inside each other, which brackets do not show; then nothing else is known.
    """

    def __init__(self, root: Node, code: bytes) -> None:
        self._root = root
        self._code = code
        self._top = Scope(None, function=True)
        self._writes: list[tuple[Node, Scope]] = []
        self._jsx: list[tuple[Node, Scope]] = []
        self._calls: list[tuple[Node, Scope]] = []
        self._names: list[tuple[Node, Scope]] = []
        self._hoisted: set[bytes] = set()
        self._bodies: set[int] = set()
        self._found: list[Sloppy] = []
        self._ambient: list[Scope] = []
        self.too_deep = False
        self._walk()

    def undeclared_writes(self) -> Iterator[tuple[Node, bytes]]:
        """Yield the places that assign to a name which neither the file nor the runtime declares, each with the name."""
        promised = {name for scope in self._ambient for name in scope.names}
        for node, scope in self._writes:
            name = node.text or b""
            if (
                not scope.declares(name, sloppy=True)
                and name not in promised
                and name not in GLOBALS
                and not self._is_property_of_global(name)
            ):
                yield node, name

    def declares(self, name: bytes) -> bool:
        """Return whether the file declares a name at its top level."""
        return self._top.declares(name, sloppy=True)

    def knows(self, name: bytes) -> bool:
        """Return whether a name at the top level may mean something when the code runs."""
        promised = any(name in scope.names for scope in self._ambient)
        return promised or self.declares(name) or name in GLOBALS or self._is_property_of_global(name)

    def uses(self, name: bytes) -> Iterator[Node]:
        """Yield the nodes that name a variable, its declarations included, whatever scope declares it."""
        return (node for node, _ in self._names if node.text == name)

    def undeclared_calls(self, name: bytes) -> Iterator[Node]:
        """Yield the calls of a function by this name that the file does not declare."""
        for node, scope in self._calls:
            function = node.child_by_field_name("function")
            if function is not None and function.text == name and not scope.declares(name):
                yield node

    def elements(self, kind: Callable[[Node], bool]) -> Iterator[tuple[Node, frozenset[bytes]]]:
        """Yield the first JSX element of each kind in each scope, with all names that are in scope there."""
        seen: set[tuple[int, bool]] = set()
        for node, scope in self._jsx:
            key = id(scope), kind(node)
            if key not in seen:
                seen.add(key)
                yield node, scope.visible() | self._properties_of_global

    def sloppy(self) -> list[Sloppy]:
        """Return everything that works in sloppy mode only, in the order of the file."""
        writes = [Sloppy(n, f"assigns `{_shown(name)}`, which is declared nowhere") for n, name in self.undeclared_writes()]
        outside = "outside of the block that declares it"
        uses = [Sloppy(node, f"uses `{_shown(node.text)}` {outside}") for node in self._uses_outside_of_blocks()]
        found = [*self._found, *writes, *uses]
        return sorted(found, key=lambda each: each.node.start_byte)

    def _walk(self) -> None:
        """Visit each node once, with a cursor: a list of the children of a large node would block other threads for long."""
        cursor, scope = self._root.walk(), self._top
        outside: list[Scope] = []
        while True:
            node = cursor.node
            inner = self._enter(node, scope) if node is not None and node.type in _VISITED else scope
            if inner.depth > MAX_NESTING:
                self.too_deep = True
                return
            if cursor.goto_first_child():
                outside.append(scope)
                scope = inner
                continue
            while not cursor.goto_next_sibling():
                if not cursor.goto_parent():
                    return
                scope = outside.pop()

    def _enter(self, node: Node, scope: Scope) -> Scope:
        """Read one node, and return the scope of what is inside of it."""
        kind = node.type
        self._declare_name(node, scope)
        inner = scope
        if kind in FUNCTIONS:
            inner = self._function(node, scope)
            body = node.child_by_field_name("body")
            self._bodies |= {body.id} if body is not None else set()
        elif kind == "class":
            name = node.child_by_field_name("name")
            inner = Scope(scope, function=False, names={name.text or b""} if name is not None else set())
        elif kind == "class_static_block":
            inner = Scope(scope, function=True)
        elif kind == "ambient_declaration":
            inner = Scope(scope, function=True)
            self._ambient.append(inner)
        elif kind in _BLOCKS and node.id not in self._bodies:
            inner = Scope(scope, function=False)
        self._take(node, inner)
        return inner

    def _declare_name(self, node: Node, scope: Scope) -> None:
        """Declare the name of a function, class, enum or namespace where it stands."""
        if node.type not in _NAMED:
            return
        name = node.child_by_field_name("name")
        if name is None:
            return
        text = name.text or b""
        if node.type.endswith("function_declaration") and not scope.function:
            self._hoisted.add(text)
            scope.for_var().hoisted.add(text)
        scope.names.add(text)
        self._check_name(name)

    def _function(self, node: Node, outside: Scope) -> Scope:
        inner = Scope(outside, function=True)
        if node.type != "arrow_function":
            inner.names.add(b"arguments")
        name = node.child_by_field_name("name")
        if name is not None and node.type in ("function_expression", "generator_function"):
            inner.names.add(name.text or b"")
        given = node.child_by_field_name("parameters") or node.child_by_field_name("parameter")
        for parameter in bound_names(given) if given is not None else ():
            text = parameter.text or b""
            if text in inner.names and text != b"arguments":
                self._found.append(Sloppy(parameter, f"has two parameters named `{_shown(text)}`"))
            inner.names.add(text)
            self._check_name(parameter)
        return inner

    def _take(self, node: Node, scope: Scope) -> None:
        """Declare the names of a statement, or remember the node."""
        kind = node.type
        if kind in _DECLARATIONS:
            target = scope.for_var() if kind == "variable_declaration" else scope
            for child in node.named_children:
                name = child.child_by_field_name("name") if child.type == "variable_declarator" else None
                self._declare(name, target)
        elif kind == "for_in_statement":
            declared = node.child_by_field_name("kind")
            if declared is not None:
                self._declare(node.child_by_field_name("left"), scope.for_var() if declared.type == "var" else scope)
            else:
                self._write(node, scope)
        elif kind == "catch_clause":
            self._declare(node.child_by_field_name("parameter"), scope)
        elif kind in ("import_statement", "import_alias"):
            for name in imported_names(node, types=False):
                scope.names.add(name.text or b"")
        elif kind in _WRITES:
            self._write(node, scope)
        elif kind in _JSX:
            self._jsx.append((node, scope))
        elif kind == "call_expression":
            self._calls.append((node, scope))
            self._called_at_once(node)
        elif kind in _NAMES:
            self._names.append((node, scope))
        else:
            self._strict_errors(node)

    def _declare(self, pattern: Node | None, scope: Scope) -> None:
        for name in bound_names(pattern) if pattern is not None else ():
            scope.names.add(name.text or b"")
            self._check_name(name)

    def _write(self, node: Node, scope: Scope) -> None:
        target = node.child_by_field_name(_WRITES[node.type])
        for name in bound_names(target) if target is not None else ():
            if name.text in _READ_ONLY:
                self._found.append(Sloppy(name, f"assigns `{_shown(name.text)}`, which cannot change"))
            else:
                self._writes.append((name, scope))
                self._check_name(name)

    def _check_name(self, name: Node) -> None:
        if name.text in _STRICT_WORDS:
            self._found.append(Sloppy(name, f"uses the reserved word `{_shown(name.text)}` as a name"))
        elif name.text in (b"eval", b"arguments"):
            self._found.append(Sloppy(name, f"changes `{_shown(name.text)}`"))

    def _strict_errors(self, node: Node) -> None:
        kind = node.type
        if kind == "with_statement":
            self._found.append(Sloppy(node, "uses `with`"))
        elif kind in ("labeled_statement", "if_statement"):
            parts = (node.child_by_field_name("body"), node.child_by_field_name("consequence"))
            if any(part is not None and part.type == "function_declaration" for part in parts):
                self._found.append(Sloppy(node, "declares a function as the body of a label or an `if`"))
        elif kind == "unary_expression":
            operator, operand = node.children[0], node.child_by_field_name("argument")
            if operator.type == "delete" and operand is not None and operand.type == "identifier":
                self._found.append(Sloppy(node, f"deletes the variable `{_shown(operand.text)}`"))
        elif kind == "number":
            text = node.text or b""
            if len(text) > 1 and text[:1] == b"0" and text[1:].isdigit():
                self._found.append(Sloppy(node, f"has the number `{_shown(text)}` with a leading zero", rewritten=True))
        elif kind == "escape_sequence":
            text = (node.text or b"")[1:]
            if text[:1].isdigit() and text != b"0" and node.parent is not None and node.parent.type == "string":
                self._found.append(Sloppy(node, f"has the octal escape `{_shown(node.text)}`", rewritten=True))
        elif kind == "member_expression" and node.text in (b"arguments.callee", b"arguments.caller"):
            self._found.append(Sloppy(node, f"uses `{_shown(node.text)}`"))

    def _called_at_once(self, call: Node) -> None:
        """Remember a function that is called where it is written and uses `this`: in sloppy mode that is the global object."""
        function = call.child_by_field_name("function")
        while function is not None and function.type == "parenthesized_expression":
            function = next((child for child in function.named_children if child.type != "comment"), None)
        if function is None or function.type not in ("function_expression", "generator_function"):
            return
        body = function.child_by_field_name("body")
        pending = [body] if body is not None else []
        while pending:
            node = pending.pop()
            if node.type == "this":
                self._found.append(Sloppy(node, "uses `this` for the global object"))
                return
            if node.type == "arrow_function" or node.type not in FUNCTIONS | {"class_body"}:
                pending += reversed(node.children)

    def _uses_outside_of_blocks(self) -> Iterator[Node]:
        """Yield the names that only sloppy mode resolves, to a function which a block declares."""
        for node, scope in self._names if self._hoisted else ():
            name = node.text or b""
            if name in self._hoisted and not scope.declares(name) and scope.declares(name, sloppy=True):
                yield node

    def _is_property_of_global(self, name: bytes) -> bool:
        """Return whether the file makes a name a property of the global object, so that strict mode may assign it."""
        return self._defines_globals or name in self._properties_of_global

    @functools.cached_property
    def _defines_globals(self) -> bool:
        return _DEFINES_GLOBALS.search(self._code) is not None

    @functools.cached_property
    def _properties_of_global(self) -> frozenset[bytes]:
        return frozenset(_GLOBAL_PROPERTY.findall(self._code))


def bound_names(pattern: Node) -> Iterator[Node]:
    """Yield the names that a pattern, or a list of parameters, binds or assigns."""
    pending = [pattern]
    while pending:
        node = pending.pop()
        kind = node.type
        if kind in ("identifier", "shorthand_property_identifier_pattern"):
            yield node
        elif kind in _PARAMETERS or kind in _ONE_OF:
            part = node.child_by_field_name("pattern" if kind in _PARAMETERS else _ONE_OF[kind])
            pending += [part] if part is not None else []
        elif kind in _PATTERNS:
            pending += reversed(node.named_children)


def imported_names(statement: Node, *, types: bool = True) -> Iterator[Node]:
    """Yield the names that an import binds; ``types``: also those that are there for type checkers only."""
    kinds = ("import_clause", "import_specifier", "namespace_import", "import_require_clause", "import_alias")
    for part in nodes(statement, kinds):
        if not types and any(child.type in ("type", "typeof") for each in (statement, part) for child in each.children):
            continue
        if part.type == "import_specifier":
            name = part.child_by_field_name("alias") or part.child_by_field_name("name")
            if name is not None:
                yield name
        else:
            yield from [child for child in part.children if child.type == "identifier"][:1]


def _shown(text: bytes | None) -> str:
    return (text or b"").decode("utf-8", "replace")
