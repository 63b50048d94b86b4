"""Parse JavaScript and TypeScript with tree-sitter, and walk the syntax tree."""

from __future__ import annotations

import enum
import functools
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from kapso_sync.dataclass import dataclass

if TYPE_CHECKING:
    from tree_sitter import Language, Node

FUNCTIONS = frozenset(
    {
        "function_declaration",
        "generator_function_declaration",
        "function_expression",
        "generator_function",
        "arrow_function",
        "method_definition",
    }
)
_WRAPPINGS = frozenset(
    {"parenthesized_expression", "satisfies_expression", "as_expression", "non_null_expression", "type_assertion"}
)
_OWN_SCOPE = FUNCTIONS | {"class_body", "internal_module", "module"}


class Grammar(enum.Enum):
    """The language a file is written in; TypeScript with JSX is a language of its own."""

    JAVASCRIPT = enum.auto()
    TYPESCRIPT = enum.auto()
    TSX = enum.auto()

    @classmethod
    def of(cls, path: str) -> Grammar:
        """Return the grammar for a file of this name."""
        if path.endswith(".tsx"):
            return cls.TSX
        return cls.TYPESCRIPT if path.endswith((".ts", ".mts", ".cts")) else cls.JAVASCRIPT


@dataclass(frozen=True, slots=True)
class Place:
    """A place in the code, in lines and characters from 1, and the text there."""

    line: int
    column: int
    text: str = ""


MAX_NESTING = 500
"""Deepest nesting of brackets: the parser takes hundreds of bytes for each, and what people write has a few dozen."""

MAX_NODES = 1_000_000
"""Most nodes of a syntax tree; 1 MiB of minified code has about half as many."""

_NO_BRACKETS = bytes(set(range(256)) - set(b"([{}])"))


def is_nested_too_deeply(code: bytes) -> bool:
    """Return whether more than `MAX_NESTING` brackets are open at once; those in strings and comments count as well."""
    depth = 0
    for bracket in code.translate(None, _NO_BRACKETS):
        if bracket in b"([{":
            depth += 1
            if depth > MAX_NESTING:
                return True
        elif depth:
            depth -= 1
    return False


def parse(code: bytes, grammar: Grammar) -> Node:
    """Return the root of the code's syntax tree; never raises, for any bytes."""
    from tree_sitter import Parser  # noqa: PLC0415 - most files were parsed by an earlier process

    return Parser(_language(grammar)).parse(code).root_node


@functools.cache
def _language(grammar: Grammar) -> Language:
    from tree_sitter import Language  # noqa: PLC0415

    if grammar is Grammar.JAVASCRIPT:
        import tree_sitter_javascript  # noqa: PLC0415

        return Language(tree_sitter_javascript.language())
    import tree_sitter_typescript as typescript  # noqa: PLC0415

    return Language(typescript.language_tsx() if grammar is Grammar.TSX else typescript.language_typescript())


def place(node: Node, code: bytes, text: bytes = b"") -> Place:
    """Return where a node begins; the tree counts bytes, people count characters."""
    before = code[node.start_byte - node.start_point.column : node.start_byte]
    return Place(node.start_point.row + 1, len(before.decode("utf-8", "replace")) + 1, text.decode("utf-8", "replace"))


def nodes(root: Node, types: Collection[str], *, outside: Collection[str] = ()) -> Iterator[Node]:
    """Yield the nodes of these types, in order, but none below a node of the types ``outside``; the walk does not recurse."""
    pending = [root]
    while pending:
        node = pending.pop()
        if node.type in types:
            yield node
        if node.type not in outside or node is root:
            pending += reversed(node.children)


def at_top_level(root: Node, types: Collection[str]) -> Iterator[Node]:
    """Yield the nodes of these types that run when the file is loaded."""
    return nodes(root, types, outside=_OWN_SCOPE)


def calls(root: Node, name: bytes) -> Iterator[tuple[Node, Node | None]]:
    """Yield the calls of a function by this name, each with its first argument."""
    for node in nodes(root, ("call_expression",)):
        function = node.child_by_field_name("function")
        if function is not None and function.text == name:
            arguments = node.child_by_field_name("arguments")
            named = arguments.named_children if arguments is not None else []
            yield node, next((argument for argument in named if argument.type != "comment"), None)


def string_text(node: Node | None) -> bytes | None:
    """Return the text between the quotes of a string, with escapes as they are written, or None for anything else."""
    if node is None or node.type not in ("string", "template_string"):
        return None
    return None if any(child.type == "template_substitution" for child in node.children) else (node.text or b"")[1:-1]


def unwrapped(node: Node | None) -> Node | None:
    """Return an expression without parentheses and TypeScript's type annotations around it."""
    while node is not None and node.type in _WRAPPINGS:
        node = next((child for child in node.named_children if child.type not in ("comment", "type_arguments")), None)
    return node


def member(node: Node, name: bytes) -> Node | None:
    """Return the value of an object's property or method of this name; a shorthand property is its own value."""
    for child in node.named_children:
        if child.type == "shorthand_property_identifier" and child.text == name:
            return child
        key = child.child_by_field_name("key" if child.type == "pair" else "name")
        if key is not None and (key.text or b"").strip(b"\"'") == name:
            return child.child_by_field_name("value") if child.type == "pair" else child
    return None


def first_error(root: Node, code: bytes) -> Place:
    """Return the first place that the parser could not parse."""
    pending = [root]
    while pending:
        node = pending.pop()
        if node.is_error or node.is_missing:
            return place(node, code, b"" if node.is_missing else code[node.start_byte : node.end_byte][:40])
        pending += reversed([child for child in node.children if child.has_error or child.is_missing])
    return place(root, code)
