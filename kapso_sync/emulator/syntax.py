"""Whether code is JavaScript: what a deployment fails on."""

from __future__ import annotations

import tree_sitter
import tree_sitter_javascript


def syntax_error(code: str) -> str | None:
    """Return where the first syntax error is, such as ``syntax error at line 3, column 9``, or None.

    The grammar takes scripts and modules alike.
    """
    parser = tree_sitter.Parser(tree_sitter.Language(tree_sitter_javascript.language()))
    node = parser.parse(code.encode("utf-8", "surrogatepass")).root_node
    if not node.has_error:
        return None
    while not (node.is_error or node.is_missing):
        node = next(child for child in node.children if child.has_error or child.is_missing)
    return f"syntax error at line {node.start_point.row + 1}, column {node.start_point.column + 1}"
