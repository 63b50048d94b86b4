"""Inspect a JavaScript or TypeScript file: how it declares its handler, its imports, and its first syntax error."""

from __future__ import annotations

import enum
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from tree_sitter import Node

from kapso_sync.build.syntax import (
    FUNCTIONS,
    MAX_NESTING,
    MAX_NODES,
    Grammar,
    Place,
    at_top_level,
    calls,
    first_error,
    is_nested_too_deeply,
    member,
    nodes,
    parse,
    place,
    string_text,
    unwrapped,
)
from kapso_sync.credentials import CREDENTIAL

HANDLER = b"handler"
_MADE_OF = (b"handler", b"default", b"fetch")
"""The properties of ``module.exports`` that hold a handler."""

_IMPORT_CALL = re.compile(rb"\bimport\s*\(")


PARAMETERS = 2
"""A handler gets the request and its environment; Kapso's documentation promises no context as a third parameter."""


class Style(enum.Enum):
    """How a file declares or exports its handler."""

    SCRIPT = "script"
    MODULE = "module"
    NAMED_EXPORT = "named export"
    COMMONJS = "CommonJS"
    NONE = "no handler"


class Form(enum.Enum):
    """How to call the value that a module exports; ``UNCLEAR``: known only at run time."""

    FUNCTION = enum.auto()
    FETCH = enum.auto()
    CLASS = enum.auto()
    UNCLEAR = enum.auto()


@dataclass(frozen=True, slots=True)
class Import:
    """One import: its place, its specifier, the names it binds, and whether it imports only types.

    The specifier is None if it is known only at run time. ``unused``: TypeScript whose names are nowhere used as values, so
    that a build removes the import.
    """

    place: Place
    specifier: str | None
    names: frozenset[str] = frozenset()
    types: bool = False
    unused: bool = False


@dataclass(frozen=True, slots=True)
class Shape:
    """The properties of a file that matter for checking and building it.

    ``handlers`` are the places that declare a handler. ``exports``: the file has any export. ``local``: the handler is a
    top-level name that is not exported. ``parameters`` (their number) and ``returns`` (it can return a value) are None if the
    handler's function cannot be found in the file. ``also`` is a second style in the same file. Each place is the first one:
    ``error`` is a syntax error, ``awaits`` an ``await`` at the top level, ``evaluated`` a handler that is made from text.
    ``limit`` says what there is too much of in the file, as the end of a sentence; then nothing else of it is known.
    """

    style: Style
    handlers: tuple[Place, ...] = ()
    imports: tuple[Import, ...] = ()
    requires: tuple[Place, ...] = ()
    form: Form = Form.FUNCTION
    exports: bool = False
    local: bool = False
    generator: Place | None = None
    error: Place | None = None
    also: Style | None = None
    jsx: Place | None = None
    awaits: Place | None = None
    evaluated: Place | None = None
    parameters: int | None = None
    returns: bool | None = None
    process_env: Place | None = None
    credentials: tuple[Place, ...] = ()
    deno: bool = False
    limit: str | None = None


MAX_PLACES = 20
"""Maximum number of places of one kind of mistake that are looked for in a file."""

MAX_IMPORTS = 1000
"""Maximum number of imports of one file, and of its exports."""


def inspect(code: bytes, grammar: Grammar = Grammar.JAVASCRIPT) -> Shape:
    """Return the shape of a file; never raises, for any bytes.

    If ``error`` is set, the other values are the best that can be found in spite of the error.
    """
    if is_nested_too_deeply(code):
        return Shape(Style.NONE, limit=f"is nested deeper than {MAX_NESTING} brackets")
    root = parse(code, grammar)
    if root.descendant_count > MAX_NODES:
        return Shape(Style.NONE, limit=f"has more than {MAX_NODES:,} parts")
    found = _Found(root, code)
    for node in root.children:
        found.take(node)
    shape = found.shape()
    if grammar is not Grammar.JAVASCRIPT and any(item.names for item in shape.imports):
        used = _value_names(root)
        imports = (replace(item, unused=bool(item.names) and item.names.isdisjoint(used)) for item in shape.imports)
        shape = replace(shape, imports=tuple(imports))
    if len(shape.imports) > MAX_IMPORTS or found.exports > MAX_IMPORTS:
        return Shape(Style.NONE, limit=f"has more than {MAX_IMPORTS} imports or exports")
    return shape


class _Found:
    """Collects the declarations at the top level of a file."""

    def __init__(self, root: Node, code: bytes) -> None:
        self._root = root
        self._code = code
        self._imports: list[Import] = []
        self._script: list[Place] = []
        self._default: list[Place] = []
        self._named: list[Place] = []
        self._commonjs: list[Place] = []
        self._handler: Node | None = None
        self._values: dict[bytes, Node] = {}
        self._exports = 0
        self._module_exports: Place | None = None

    @property
    def exports(self) -> int:
        """How many statements export something."""
        return self._exports

    def take(self, node: Node) -> None:
        """Read one top-level statement."""
        if node.type == "import_statement":
            self._import(node)
        elif node.type == "export_statement":
            self._export(node)
        elif node.type == "expression_statement":
            self._expression(node)
        elif len(self._script) < MAX_PLACES:
            self._script += self._declared(node)

    def _place(self, node: Node) -> Place:
        return place(node, self._code)

    def _import(self, node: Node) -> None:
        if len(self._imports) > MAX_IMPORTS:
            return
        source = node.child_by_field_name("source")
        if source is None:
            clause = next((child for child in node.children if child.type == "import_require_clause"), None)
            source = clause.child_by_field_name("source") if clause is not None else None
        if source is None:
            return
        text = string_text(source)
        types = any(child.type in ("type", "typeof") for child in node.children)
        names = frozenset((name.text or b"").decode("utf-8", "replace") for name in _bound(node))
        self._imports.append(
            Import(self._place(source), None if text is None else text.decode("utf-8", "replace"), names, types)
        )

    def _export(self, node: Node) -> None:
        self._exports += 1
        if self._exports > MAX_IMPORTS:
            return
        self._import(node)
        value = node.child_by_field_name("value") or node.child_by_field_name("declaration")
        kinds = {child.type for child in node.children}
        if "default" in kinds:
            if value is None or value.type not in ("interface_declaration", "function_signature"):
                self._default.append(self._place(node))
                self._handler = value
                self._remember(value)
        elif "=" in kinds:
            self._commonjs.append(self._place(node))
            self._handler = next((child for child in node.named_children if child.type != "comment"), None)
        elif value is not None:
            self._named += self._declared(value)
        for clause in node.children if "type" not in kinds else ():
            for specifier in clause.children if clause.type == "export_clause" else ():
                self._specifier(specifier)

    def _specifier(self, node: Node) -> None:
        local = node.child_by_field_name("name")
        name = node.child_by_field_name("alias") or local
        text = (name.text or b"").strip(b"\"'") if name is not None else b""
        if text in (b"default", HANDLER):
            (self._default if text == b"default" else self._named).append(self._place(node))
            self._handler = local

    def _declared(self, node: Node) -> list[Place]:
        """Remember the names of a declaration, and return the places where it declares ``handler``."""
        if node.type in ("lexical_declaration", "variable_declaration"):
            found = []
            for child in node.named_children:
                name = child.child_by_field_name("name") if child.type == "variable_declarator" else None
                value = child.child_by_field_name("value")
                if name is not None and name.type == "identifier":
                    self._values.setdefault(name.text or b"", value if value is not None else child)
                    found += [self._place(name)] if name.text == HANDLER else []
            return found
        name = node.child_by_field_name("name")
        self._remember(node)
        is_function = node.type in ("function_declaration", "generator_function_declaration")
        return [self._place(name)] if is_function and name is not None and name.text == HANDLER else []

    def _remember(self, node: Node | None) -> None:
        name = node.child_by_field_name("name") if node is not None else None
        if node is not None and name is not None and node.type.endswith("_declaration"):
            self._values.setdefault(name.text or b"", node)

    def _expression(self, node: Node) -> None:
        assignment = node.children[0] if node.children else None
        if assignment is None or assignment.type != "assignment_expression":
            return
        left, right = assignment.child_by_field_name("left"), unwrapped(assignment.child_by_field_name("right"))
        text = (left.text or b"") if left is not None else b""
        if text != b"module.exports" and not text.startswith((b"module.exports.", b"exports.")):
            return
        where = self._place(assignment)
        self._module_exports = self._module_exports or where
        if text != b"module.exports":
            found = right if text.rpartition(b".")[2] in _MADE_OF else None
        elif right is not None and right.type == "object":
            given = [member(right, name) for name in _MADE_OF]
            found = next((value for value in given if value is not None), None)
        else:
            found = right
        if found is not None:
            self._commonjs.append(where)
            self._handler = self._handler or found

    def shape(self) -> Shape:
        """Return the shape of the whole file."""
        style, also = self._style()
        handler = self._resolve(self._handler if style is not Style.SCRIPT and self._handler else self._values.get(HANDLER))
        function = self._function(handler)
        where = {Style.MODULE: self._default, Style.NAMED_EXPORT: self._named, Style.SCRIPT: self._script}
        commonjs = self._commonjs or ([self._module_exports] if self._module_exports else [])
        return Shape(
            style=style,
            handlers=tuple(where.get(style, commonjs[:1] if style is Style.COMMONJS else ()))[:MAX_PLACES],
            imports=(*self._imports, *itertools.islice(self._import_calls(), MAX_IMPORTS + 1)),
            requires=tuple(self._place(node) for node, _ in itertools.islice(self._calls(b"require"), MAX_PLACES)),
            form=self._form(handler) if style is Style.MODULE else Form.UNCLEAR if style is Style.COMMONJS else Form.FUNCTION,
            exports=self._exports > 0 or self._module_exports is not None,
            local=style is Style.SCRIPT or (style is Style.COMMONJS and not self._commonjs),
            generator=self._place(function) if function is not None and _is_generator(function) else None,
            error=first_error(self._root, self._code) if self._root.has_error else None,
            also=also,
            jsx=self._first(("jsx_element", "jsx_self_closing_element"), b"</", b"/>"),
            awaits=self._awaits(),
            evaluated=self._evaluated(style, handler),
            parameters=_parameters(function) if function is not None else None,
            returns=_returns(function) if function is not None else None,
            process_env=self._process_env(),
            credentials=tuple(itertools.islice(_credentials(self._code), MAX_PLACES)),
            deno=b"Deno.serve" in self._code or next(self._calls(b"serve"), None) is not None or bool(self._default),
        )

    def _style(self) -> tuple[Style, Style | None]:
        """Return the style, and the second style if there are two."""
        given = [
            style
            for style, places in (
                (Style.MODULE, self._default),
                (Style.NAMED_EXPORT, self._named),
                (Style.COMMONJS, self._commonjs),
            )
            if places
        ]
        if not given and self._script:
            given = [Style.COMMONJS if self._module_exports is not None else Style.SCRIPT]
        return (given[0] if given else Style.NONE), (given[1] if len(given) > 1 else None)

    def _resolve(self, node: Node | None) -> Node | None:
        """Return the value of a top-level name, after at most 5 steps from name to name; other nodes are returned unchanged."""
        for _ in range(5):
            node = unwrapped(node)
            if node is None or node.type not in ("identifier", "shorthand_property_identifier"):
                break
            node = self._values.get(node.text or b"")
        return node

    def _form(self, node: Node | None) -> Form:
        if node is None:
            return Form.UNCLEAR
        if node.type in FUNCTIONS:
            return Form.FUNCTION
        if node.type in ("class_declaration", "class", "abstract_class_declaration"):
            return Form.CLASS
        return Form.FETCH if node.type == "object" and member(node, b"fetch") is not None else Form.UNCLEAR

    def _function(self, node: Node | None) -> Node | None:
        """Return the function that handles a request, or None if it cannot be found in the file."""
        if node is not None and node.type == "object":
            node = self._resolve(member(node, b"fetch"))
        return node if node is not None and node.type in FUNCTIONS else None

    def _calls(self, name: bytes) -> Iterator[tuple[Node, Node | None]]:
        return calls(self._root, name) if name + b"(" in self._code or name + b" (" in self._code else iter(())

    def _import_calls(self) -> Iterator[Import]:
        if _IMPORT_CALL.search(self._code):
            for node, argument in calls(self._root, b"import"):
                text = string_text(argument)
                yield Import(self._place(node), None if text is None else text.decode("utf-8", "replace"))

    def _first(self, types: tuple[str, ...], *signs: bytes) -> Place | None:
        """Return the place of the first node of these types; without one of the ``signs`` in the code there is none."""
        if not any(sign in self._code for sign in signs):
            return None
        return next((self._place(node) for node in nodes(self._root, types)), None)

    def _awaits(self) -> Place | None:
        if b"await" not in self._code:
            return None
        for node in at_top_level(self._root, ("await_expression", "for_in_statement")):
            if node.type == "await_expression" or any(child.type == "await" for child in node.children):
                return self._place(node)
        return None

    def _evaluated(self, style: Style, handler: Node | None) -> Place | None:
        """Return the place where the handler is made from text, by `eval` or the constructor `Function`, or None."""
        if handler is not None:
            return self._place(handler) if _is_evaluation(handler) else None
        if style is not Style.NONE or (b"eval" not in self._code and b"Function" not in self._code):
            return None
        found = nodes(self._root, ("call_expression", "new_expression"))
        return next((self._place(node) for node in found if _is_evaluation(node)), None)

    def _process_env(self) -> Place | None:
        if b"process" not in self._code:
            return None
        found = nodes(self._root, ("member_expression",))
        return next((self._place(node) for node in found if node.text == b"process.env"), None)


def _value_names(root: Node) -> frozenset[str]:
    """Return the names that a file uses as values, outside its imports; a build removes names that are used only as types."""
    kinds = ("identifier", "shorthand_property_identifier")
    found = nodes(root, kinds, outside=("import_statement",))
    return frozenset(
        (node.text or b"").decode("utf-8", "replace")
        for node in found
        if node.parent is None or node.parent.type not in ("nested_type_identifier", "type_query")
    )


def _credentials(code: bytes) -> Iterator[Place]:
    text = code.decode("utf-8", "replace")
    for found in CREDENTIAL.finditer(text):
        yield Place(text.count("\n", 0, found.start()) + 1, found.start() - text.rfind("\n", 0, found.start()))


def _bound(node: Node) -> Iterator[Node]:
    for part in nodes(node, ("import_clause", "import_specifier", "namespace_import", "import_require_clause")):
        if part.type == "import_specifier":
            name = part.child_by_field_name("alias") or part.child_by_field_name("name")
            if name is not None:
                yield name
        else:
            yield from (child for child in part.children if child.type == "identifier")


def _is_generator(function: Node) -> bool:
    return function.type.startswith("generator") or any(child.type == "*" for child in function.children)


def _is_evaluation(node: Node) -> bool:
    field = {"call_expression": "function", "new_expression": "constructor"}.get(node.type)
    callee = node.child_by_field_name(field) if field is not None else None
    names = (b"Function",) if node.type == "new_expression" else (b"eval", b"Function")
    return callee is not None and callee.text in names


def _parameters(function: Node) -> int:
    listed = function.child_by_field_name("parameters")
    if listed is None:
        return 1 if function.child_by_field_name("parameter") is not None else 0
    given = [child for child in listed.named_children if child.type != "comment"]
    return len([child for child in given if not (child.text or b"").startswith(b"this")])


def _returns(function: Node) -> bool:
    """Return whether a function can return a value."""
    body = function.child_by_field_name("body")
    if body is None or body.type != "statement_block":
        return True
    found = nodes(body, ("return_statement",), outside=FUNCTIONS)
    return any(child.type != "comment" for node in found for child in node.named_children)
