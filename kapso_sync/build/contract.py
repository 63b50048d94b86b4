"""The shape of a code file: how it presents its handler, what it imports, and where its syntax breaks."""

from __future__ import annotations

import enum
import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import tree_sitter
import tree_sitter_javascript
import tree_sitter_typescript

HANDLER = b"handler"


class Style(enum.Enum):
    """How a file presents its handler."""

    SCRIPT = "script"
    MODULE = "module"
    NAMED_EXPORT = "named export"
    COMMONJS = "CommonJS"
    NONE = "no handler"


@dataclass(frozen=True, slots=True)
class Place:
    """A place in the code, from 1, and the text there."""

    line: int
    column: int
    text: str = ""


@dataclass(frozen=True, slots=True)
class Shape:
    """What a file looks like. ``handlers`` are the places that declare one, ``imports`` the specifiers and where they stand."""

    style: Style
    handlers: tuple[Place, ...] = ()
    imports: tuple[Place, ...] = ()
    requires: tuple[Place, ...] = ()
    generator: Place | None = None
    error: Place | None = None
    also: Style | None = None
    jsx: Place | None = None


def inspect(code: bytes, *, typescript: bool = False) -> Shape:
    """Return the shape of a file; never raises, whatever the bytes are."""
    root = _parser(typescript=typescript).parse(code).root_node
    if root.has_error:
        return Shape(Style.NONE, error=_first_error(root, code))
    found = _Found()
    for node in root.children:
        found.take(node)
    requires = tuple(_calls(root, b"require")) if b"require" in code else ()
    dynamic = tuple(_calls(root, b"import")) if b"import" in code else ()
    jsx = next(_nodes(root, "jsx_element", "jsx_self_closing_element"), None) if b"</" in code or b"/>" in code else None
    return replace(found.shape((*found.imports, *dynamic), requires), jsx=_place(jsx) if jsx is not None else None)


@functools.cache
def _parser(*, typescript: bool) -> tree_sitter.Parser:
    grammar = tree_sitter_typescript.language_typescript() if typescript else tree_sitter_javascript.language()
    return tree_sitter.Parser(tree_sitter.Language(grammar))


class _Found:
    """What the top level of a file declares."""

    def __init__(self) -> None:
        self.imports: list[Place] = []
        self._script: list[Place] = []
        self._default: list[Place] = []
        self._named: list[Place] = []
        self._commonjs: list[Place] = []
        self._generator: Place | None = None

    def take(self, node: tree_sitter.Node) -> None:
        """Look at one top-level statement."""
        if node.type == "import_statement":
            self._import(node.child_by_field_name("source"))
        elif node.type == "export_statement":
            self._export(node)
        elif node.type == "expression_statement":
            self._expression(node)
        else:
            self._script += self._declared(node)

    def _import(self, source: tree_sitter.Node | None) -> None:
        if source is not None:
            self.imports.append(_place(source, (source.text or b"")[1:-1]))

    def _export(self, node: tree_sitter.Node) -> None:
        self._import(node.child_by_field_name("source"))
        if any(child.type == "default" for child in node.children):
            self._default.append(_place(node))
            value = node.child_by_field_name("value") or node.child_by_field_name("declaration")
            if value is not None and value.type.startswith("generator_function"):
                self._generator = _place(value)
            return
        declaration = node.child_by_field_name("declaration")
        if declaration is not None:
            self._named += self._declared(declaration)
        for clause in node.children:
            for specifier in clause.children if clause.type == "export_clause" else ():
                name = specifier.child_by_field_name("alias") or specifier.child_by_field_name("name")
                if name is not None and name.text == b"default":
                    self._default.append(_place(specifier))
                elif name is not None and name.text == HANDLER:
                    self._named.append(_place(specifier))

    def _declared(self, node: tree_sitter.Node) -> list[Place]:
        """Return where a declaration declares ``handler``."""
        if node.type in ("function_declaration", "generator_function_declaration"):
            name = node.child_by_field_name("name")
            if name is None or name.text != HANDLER:
                return []
            if node.type.startswith("generator"):
                self._generator = _place(node)
            return [_place(name)]
        if node.type not in ("lexical_declaration", "variable_declaration"):
            return []
        names = [child.child_by_field_name("name") for child in node.children if child.type == "variable_declarator"]
        return [_place(name) for name in names if name is not None and name.text == HANDLER]

    def _expression(self, node: tree_sitter.Node) -> None:
        assignment = node.children[0] if node.children else None
        if assignment is None or assignment.type != "assignment_expression":
            return
        left = assignment.child_by_field_name("left")
        text = (left.text or b"") if left is not None else b""
        if text == b"module.exports" or text.startswith((b"module.exports.", b"exports.")):
            self._commonjs.append(_place(assignment))

    def shape(self, imports: tuple[Place, ...], requires: tuple[Place, ...]) -> Shape:
        """Return the whole."""
        by_style = {
            Style.MODULE: self._default,
            Style.NAMED_EXPORT: self._named,
            Style.COMMONJS: self._commonjs,
            Style.SCRIPT: self._script,
        }
        if self._default:
            # A module may well declare the handler that it exports.
            by_style.pop(Style.SCRIPT)
        given = [style for style, places in by_style.items() if places]
        style = given[0] if given else Style.NONE
        return Shape(
            style=style,
            handlers=tuple(by_style.get(style, ())),
            imports=imports,
            requires=requires,
            generator=self._generator,
            also=given[1] if len(given) > 1 else None,
        )


def _calls(root: tree_sitter.Node, name: bytes) -> Iterator[Place]:
    """Yield calls of a function by this name, with the text of a literal first argument."""
    for node in _nodes(root, "call_expression"):
        function = node.child_by_field_name("function")
        if function is None or function.text != name:
            continue
        arguments = node.child_by_field_name("arguments")
        first = arguments.named_children[0] if arguments is not None and arguments.named_children else None
        text = (first.text or b"")[1:-1] if first is not None and first.type == "string" else b""
        yield _place(node, text)


def _nodes(root: tree_sitter.Node, *types: str) -> Iterator[tree_sitter.Node]:
    """Yield the nodes of these types, in order; the walk does not recurse."""
    pending = [root]
    while pending:
        node = pending.pop()
        pending += reversed(node.children)
        if node.type in types:
            yield node


def _first_error(root: tree_sitter.Node, code: bytes) -> Place:
    """Return the first place that the parser could not make sense of."""
    pending = [root]
    while pending:
        node = pending.pop()
        if node.is_error or node.is_missing:
            return _place(node, b"" if node.is_missing else code[node.start_byte : node.end_byte][:40])
        pending += reversed([child for child in node.children if child.has_error or child.is_missing])
    return _place(root)


def _place(node: tree_sitter.Node, text: bytes = b"") -> Place:
    return Place(node.start_point.row + 1, node.start_point.column + 1, text.decode("utf-8", "replace"))
