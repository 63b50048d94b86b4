"""Inspect a JavaScript or TypeScript file: how it declares its handler, its imports, and its first syntax error."""

from __future__ import annotations

import enum
import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import field, replace
from typing import TYPE_CHECKING, Any

from kapso_sync.build.scopes import Scopes, imported_names
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
from kapso_sync.build.values import CLASSES, MAX_STEPS, Values, changes, simple_value
from kapso_sync.credentials import CREDENTIAL
from kapso_sync.dataclass import dataclass

if TYPE_CHECKING:
    from tree_sitter import Node

HANDLER = b"handler"
_MADE_OF = (b"handler", b"default", b"fetch")
"""The properties of ``module.exports`` that hold a handler."""

_IMPORT_CALL = re.compile(rb"\bimport\s*\(")
_IMPORT_META = re.compile(rb"\bimport\s*\.\s*meta\b")
_JSX_COMMENT = re.compile(rb"@(jsx|jsxFrag|jsxRuntime|jsxImportSource)[^\S\r\n]+([^\s*]+)")
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
class Element:
    """The first JSX element or fragment of a scope: its place, and the names that are in scope there."""

    place: Place
    names: frozenset[str]
    fragment: bool


@dataclass(frozen=True, slots=True)
class Jsx:
    """The JSX of a file: its elements, and the values of its ``@jsx…`` comments by name."""

    elements: tuple[Element, ...]
    comments: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Shape:
    """The properties of a file that matter for checking and building it.

    ``handlers`` are the places that declare a handler. ``exports``: the file has any export. ``local``: the handler is a
    top-level name that is not exported. ``parameters`` (their number) and ``returns`` (it can return a value) are None if the
    handler's function cannot be found in the file. ``also`` is a second style in the same file. Each place is the first one:
    ``error`` is a syntax error (``confirmed``: its text is esbuild's message), ``awaits`` an ``await`` at the top level,
    ``evaluated`` a handler that is made from text, ``unanswerable`` a value that no request can be given to, ``modern`` syntax
    that Workers run only after a build, ``listens`` a handler in the format of service workers, ``meta`` an ``import.meta``.
    ``limit`` says what there is too much of in the file, as the end of a sentence; then nothing else of it is known.
    ``passing``: it is not the file's fault, so the next pass looks again.

    ``forwards`` is the specifier of a file, and its export that this file exports as its default; ``*`` is the whole file.
    ``useless`` are exports by name that cannot answer a request. ``names`` are all names that the file exports, None if not all
    of them are known.

    ``module``: the file is an ECMAScript module, which runs in strict mode. Of any other file, ``sloppy`` is the first place
    that only sloppy mode runs, and ``sloppy_built`` the first one that a build does not rewrite. ``undeclared`` is an
    assignment that throws an error when it runs, since the file runs in strict mode. ``shadows``: a name at the top level hides
    CommonJS's own `module`. ``leaves`` is a `return` at the top level.
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
    confirmed: bool = False
    also: Style | None = None
    jsx: Jsx | None = None
    awaits: Place | None = None
    evaluated: Place | None = None
    parameters: int | None = None
    returns: bool | None = None
    process_env: Place | None = None
    credentials: tuple[Place, ...] = ()
    deno: bool = False
    unanswerable: Place | None = None
    forwards: tuple[str, str] | None = None
    useless: Mapping[str, Place] = field(default_factory=dict)
    names: frozenset[str] | None = None
    modern: Place | None = None
    listens: Place | None = None
    meta: Place | None = None
    module: bool = False
    sloppy: Place | None = None
    sloppy_built: Place | None = None
    undeclared: Place | None = None
    shadows: bool = False
    leaves: Place | None = None
    limit: str | None = None
    passing: bool = False


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
    if found.too_deep:
        return Shape(Style.NONE, limit=f"is nested deeper than {MAX_NESTING} functions and blocks")
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
        self._scopes = Scopes(root, code)
        self._is_module = False
        self._imports: list[Import] = []
        self._script: list[Place] = []
        self._default: list[Place] = []
        self._named: list[Place] = []
        self._commonjs: list[Place] = []
        self._handler: Node | None = None
        self._values: dict[bytes, Node] = {}
        self._exports = 0
        self._exported: dict[str, Node] = {}
        self._imported: dict[bytes, tuple[str, str]] = {}
        self._forwards: tuple[str, str] | None = None
        self._module_exports: Place | None = None
        self._known = Values(self._values, self._scopes, self._is_entrypoint)
        self._passes_on = False

    @property
    def too_deep(self) -> bool:
        """Whether functions and blocks are nested deeper than people write."""
        return self._scopes.too_deep

    @property
    def exports(self) -> int:
        """How many statements export something."""
        return self._exports

    def take(self, node: Node) -> None:
        """Read one top-level statement."""
        if node.type in ("import_statement", "export_statement"):
            commonjs = any(child.type in ("import_require_clause", "=") for child in node.children)
            self._is_module = self._is_module or not commonjs
        if node.type == "import_statement":
            self._import(node)
        elif node.type == "export_statement":
            self._export(node)
        elif node.type == "expression_statement":
            self._expression(node)
        elif len(self._script) < MAX_PLACES:
            self._script += self._declared(node)

    def _place(self, node: Node, text: str | bytes = b"") -> Place:
        return place(node, self._code, text.encode() if isinstance(text, str) else text)

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
        if text is not None:
            self._remember_imported(node, text.decode("utf-8", "replace"))
        names = frozenset((name.text or b"").decode("utf-8", "replace") for name in imported_names(node))
        self._imports.append(
            Import(self._place(source), None if text is None else text.decode("utf-8", "replace"), names, types)
        )

    def _remember_imported(self, node: Node, specifier: str) -> None:
        """Remember which export of another file each name stands for, and whether this file exports one as its own default.

        The whole of the other file is the export ``*``.
        """
        kinds = ("import_clause", "import_specifier", "namespace_import", "export_specifier", "namespace_export")
        for part in nodes(node, kinds):
            local = part.child_by_field_name("name")
            exported = (local.text or b"").decode("utf-8", "replace") if local is not None else "*"
            alias = part.child_by_field_name("alias") or local
            if part.type in ("import_clause", "namespace_import"):
                names = [child.text or b"" for child in part.children if child.type == "identifier"]
                meant = "default" if part.type == "import_clause" else "*"
                self._imported |= dict.fromkeys(names, (specifier, meant))
            elif part.type == "import_specifier" and alias is not None:
                self._imported[alias.text or b""] = specifier, exported
            elif part.type == "export_specifier" and alias is not None and alias.text == b"default":
                self._forwards = specifier, exported
            elif part.type == "namespace_export" and any(child.text == b"default" for child in part.named_children):
                self._forwards = specifier, "*"
                self._default.append(self._place(node))

    def _export(self, node: Node) -> None:
        self._exports += 1
        if self._exports > MAX_IMPORTS:
            return
        self._import(node)
        value = node.child_by_field_name("value") or node.child_by_field_name("declaration")
        kinds = {child.type for child in node.children}
        self._passes_on = self._passes_on or node.child_by_field_name("source") is not None
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
            self._remember_exported(value)
        foreign = node.child_by_field_name("source") is not None
        for clause in node.children if "type" not in kinds else ():
            for specifier in clause.children if clause.type == "export_clause" else ():
                self._specifier(specifier, foreign=foreign)

    def _remember_exported(self, declaration: Node) -> None:
        """Remember the values that a declaration exports, by name."""
        for part in declaration.named_children if declaration.type.endswith("_declaration") else ():
            name = part.child_by_field_name("name") if part.type == "variable_declarator" else None
            if name is not None and name.type == "identifier":
                self._exported[(name.text or b"").decode("utf-8", "replace")] = name
        name = declaration.child_by_field_name("name")
        if name is not None:
            self._exported[(name.text or b"").decode("utf-8", "replace")] = declaration

    def _specifier(self, node: Node, *, foreign: bool) -> None:
        local = node.child_by_field_name("name")
        name = node.child_by_field_name("alias") or local
        text = (name.text or b"").strip(b"\"'") if name is not None else b""
        if text in (b"default", HANDLER):
            (self._default if text == b"default" else self._named).append(self._place(node))
            self._handler = None if foreign else local
        if local is not None and not foreign:
            self._exported[text.decode("utf-8", "replace")] = local

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
        given = self._handler if style is not Style.SCRIPT and self._handler else self._values.get(HANDLER)
        handler = self._resolve(given)
        function = self._function(handler)
        meta = self._meta()
        strict = self._is_module or meta is not None or self._has_strict_directive()
        sloppy = [] if strict else self._scopes.sloppy()
        where = {Style.MODULE: self._default, Style.NAMED_EXPORT: self._named, Style.SCRIPT: self._script}
        commonjs = self._commonjs or ([self._module_exports] if self._module_exports else [])
        return Shape(
            style=style,
            handlers=tuple(where.get(style, commonjs[:1] if style is Style.COMMONJS else ()))[:MAX_PLACES],
            imports=(*self._imports, *itertools.islice(self._import_calls(), MAX_IMPORTS + 1)),
            requires=tuple(
                self._place(node) for node in itertools.islice(self._scopes.undeclared_calls(b"require"), MAX_PLACES)
            ),
            form=self._style_form(style, handler),
            exports=self._exports > 0 or self._module_exports is not None,
            local=style is Style.SCRIPT or (style is Style.COMMONJS and not self._commonjs),
            generator=self._place(function) if function is not None and _is_generator(function) else None,
            error=first_error(self._root, self._code) if self._root.has_error else None,
            also=also,
            jsx=self._jsx(),
            awaits=self._awaits(),
            evaluated=self._evaluated(style, handler),
            parameters=_parameters(function) if function is not None else None,
            returns=_returns(function) if function is not None else None,
            process_env=self._process_env(),
            credentials=tuple(itertools.islice(_credentials(self._code), MAX_PLACES)),
            unanswerable=self._unanswerable(style, given),
            forwards=self._forwarded(given),
            useless=dict(self._useless()),
            names=frozenset(self._exported) if self._is_module and not self._passes_on else None,
            modern=self._first(("decorator",), b"@"),
            listens=self._listens(),
            meta=meta,
            module=self._is_module or meta is not None,
            sloppy=next((self._place(each.node, each.problem) for each in sloppy), None),
            sloppy_built=next((self._place(each.node, each.problem) for each in sloppy if not each.rewritten), None),
            undeclared=next((self._place(n, name) for n, name in self._scopes.undeclared_writes()), None) if strict else None,
            shadows=b"module" in self._values,
            leaves=next((self._place(node) for node in at_top_level(self._root, ("return_statement",))), None),
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

    def _style_form(self, style: Style, handler: Node | None) -> Form:
        if style is Style.COMMONJS:
            return Form.UNCLEAR
        return self._form(handler) if style in (Style.MODULE, Style.NAMED_EXPORT) else Form.FUNCTION

    def _form(self, node: Node | None) -> Form:
        if node is None:
            return Form.UNCLEAR
        if node.type in FUNCTIONS:
            return Form.FUNCTION
        if node.type in CLASSES:
            return Form.CLASS
        return Form.FETCH if node.type == "object" and member(node, b"fetch") is not None else Form.UNCLEAR

    def _unanswerable(self, style: Style, handler: Node | None) -> Place | None:
        """Return the place of a handler that cannot answer a request, with what it is as text, or None if it may answer."""
        if style is Style.NONE or handler is None:
            return None
        value, names = self._known.constant(handler)
        names += [HANDLER] if handler is self._values.get(HANDLER) else []
        if value is None or any(self._known.may_change(name) for name in names):
            return None
        simple = simple_value(value)
        if simple is not None:
            return self._place(value, f"is {simple}")
        if value.type == "identifier" and style is Style.MODULE:
            return None if self._scopes.knows(value.text or b"") else self._place(value, "is declared nowhere")
        if value.type == "new_expression":
            what = self._known.instance_without_fetch(value)
            return None if what is None else self._place(value, what)
        if value.type == "object":
            what = "is an object" if style is Style.SCRIPT else self._known.object_without_fetch(value)
            return None if what is None else self._place(value, what)
        if value.type in CLASSES:
            what = "is a class, which needs `new`" if style is Style.SCRIPT else self._known.class_without_fetch(value)
            return None if what is None else self._place(value, what)
        return None

    def _forwarded(self, handler: Node | None) -> tuple[str, str] | None:
        """Return another file and its export that the handler is, unless this file may change it."""
        node = unwrapped(handler)
        name = node.text or b"" if node is not None and node.type == "identifier" else b""
        imported = self._imported.get(name)
        if imported is not None and not any(changes(each) for each in self._scopes.uses(name) if not _is_imported(each)):
            return imported
        return self._forwards

    def _useless(self) -> Iterator[tuple[str, Place]]:
        """Yield the exports with a name that cannot answer a request, each with what it is."""
        for name, value in itertools.islice(self._exported.items(), MAX_PLACES):
            where = self._unanswerable(Style.NAMED_EXPORT, value)
            if where is not None:
                yield name, where

    def _is_entrypoint(self, parent: Node) -> bool:
        """Return whether a class extends the runtime's own base class, which has no `fetch`."""
        named = [node.text for node in nodes(parent, ("identifier",))]
        imported = any("WorkerEntrypoint" in item.names for item in self._imports if item.specifier == "cloudflare:workers")
        return imported and named == [b"WorkerEntrypoint"]

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
                name = None if text is None else text.decode("utf-8", "replace")
                yield Import(self._place(node), name, types=_is_type(node))

    def _jsx(self) -> Jsx | None:
        elements = tuple(
            Element(self._place(node), frozenset(name.decode("utf-8", "replace") for name in names), _is_fragment(node))
            for node, names in itertools.islice(self._scopes.elements(_is_fragment), MAX_PLACES)
        )
        if not elements:
            return None
        comments = (node.text or b"" for node in nodes(self._root, ("comment",))) if b"@jsx" in self._code else ()
        found = (pair for comment in comments for pair in _JSX_COMMENT.findall(comment))
        return Jsx(elements, {name.decode(): value.decode("utf-8", "replace") for name, value in found})

    def _first(self, types: tuple[str, ...], *signs: bytes) -> Place | None:
        """Return the place of the first node of these types; without one of the ``signs`` in the code there is none."""
        if not any(sign in self._code for sign in signs):
            return None
        return next((self._place(node) for node in nodes(self._root, types)), None)

    def _meta(self) -> Place | None:
        if not _IMPORT_META.search(self._code):
            return None
        found = nodes(self._root, ("meta_property",))
        return next((self._place(node) for node in found if (node.text or b"").startswith(b"import")), None)

    def _listens(self) -> Place | None:
        if b"addEventListener" not in self._code:
            return None
        found = ((node, node.child_by_field_name("arguments")) for node in self._scopes.undeclared_calls(b"addEventListener"))
        return next((self._place(n) for n, given in found if given is not None and b"fetch" in (given.text or b"")[:8]), None)

    def _has_strict_directive(self) -> bool:
        for node in self._root.children:
            text = node.children[0] if node.type == "expression_statement" and node.children else None
            if text is not None and text.type == "string":
                if string_text(text) == b"use strict":
                    return True
            elif node.type not in ("comment", "hash_bang_line"):
                return False
        return False

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


def moved(shape: Shape, move: Callable[[Place], Place], original: Shape) -> Shape:
    """Return a shape of printed code with its places in the original code; credentials and types come from ``original``."""
    places: dict[str, Any] = {
        name: None if where is None else move(where) for name in _PLACES for where in (getattr(shape, name),)
    }
    known = {item.specifier for item in shape.imports}
    types = (replace(item, types=True) for item in original.imports if item.specifier not in known)
    comments = original.jsx.comments if original.jsx is not None else {}
    jsx = shape.jsx
    return replace(
        shape,
        handlers=tuple(map(move, shape.handlers)),
        imports=(*(replace(item, place=move(item.place), names=frozenset()) for item in shape.imports), *types),
        requires=tuple(map(move, shape.requires)),
        credentials=original.credentials,
        jsx=jsx and Jsx(tuple(replace(each, place=move(each.place)) for each in jsx.elements), comments),
        **places,
    )


_PLACES = (
    *("generator", "awaits", "evaluated", "process_env", "unanswerable", "modern", "listens", "meta", "sloppy"),
    *("sloppy_built", "undeclared", "leaves"),
)


_TYPES = frozenset({"type_annotation", "type_arguments", "type_alias_declaration", "interface_body", "ambient_declaration"})


def _is_type(node: Node) -> bool:
    """Return whether an `import("…")` names a type, so that a build removes it."""
    above = node.parent
    for _ in range(MAX_STEPS):
        if above is None or above.type in ("statement_block", "program"):
            return False
        if above.type in _TYPES:
            return True
        above = above.parent
    return False


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


def _is_imported(name: Node) -> bool:
    """Return whether a name stands in the import that binds it."""
    return name.parent is not None and name.parent.type in ("import_clause", "import_specifier", "namespace_import")


def _is_fragment(element: Node) -> bool:
    opening = element.child_by_field_name("open_tag")
    return opening is not None and opening.child_by_field_name("name") is None


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
