"""Checks the syntax of code, and whether it is a script or a module."""

from __future__ import annotations

import tree_sitter
import tree_sitter_javascript


def syntax_error(code: str) -> str | None:
    """Return the position of the first syntax error, such as ``syntax error at line 3, column 9``, or None.

    The grammar takes scripts and modules alike.
    """
    node = _parse(code)
    if not node.has_error:
        return None
    while not (node.is_error or node.is_missing):
        node = next(child for child in node.children if child.has_error or child.is_missing)
    return f"syntax error at line {node.start_point.row + 1}, column {node.start_point.column + 1}"


def is_module(code: str) -> bool:
    """Return whether code imports or exports anything at top level; otherwise it is a script."""
    if "import" not in code and "export" not in code:
        return False
    return any(child.type in ("import_statement", "export_statement") for child in _parse(code).children)


def _parse(code: str) -> tree_sitter.Node:
    parser = tree_sitter.Parser(tree_sitter.Language(tree_sitter_javascript.language()))
    return parser.parse(code.encode("utf-8", "surrogatepass")).root_node
