"""Read the few options of a ``tsconfig.json`` that change the meaning of TypeScript code; all others are ignored."""

from __future__ import annotations

import json

from kapso_sync.build.diagnostics import Diagnostic
from kapso_sync.build.syntax import Grammar, Place, first_error, is_nested_too_deeply, member, nodes, parse, string_text

NAME = "tsconfig.json"
MAX_BYTES = 64 * 1024
OPTIONS = (
    "experimentalDecorators",
    "jsx",
    "jsxFactory",
    "jsxFragmentFactory",
    "jsxImportSource",
    "target",
    "useDefineForClassFields",
    "verbatimModuleSyntax",
)
"""Options that are used; ``target`` only decides whether class fields are defined or assigned."""


def read_options(content: bytes | None) -> tuple[str, Diagnostic | None]:
    """Return the options as JSON for esbuild, and a diagnostic if the file has a syntax error.

    Comments and trailing commas are allowed: the JavaScript grammar parses the file, because every tsconfig is a valid
    JavaScript expression.
    """
    if content is None:
        return "{}", None
    code = b"(" + content.removeprefix(b"\xef\xbb\xbf").rstrip() + b"\n)"
    if len(code) > MAX_BYTES or is_nested_too_deeply(code):
        return "{}", Diagnostic("tsconfig", "too large, or nested too deeply", NAME, Place(1, 1), "keep what TypeScript needs")
    root = parse(code, Grammar.JAVASCRIPT)
    if root.has_error:
        where = first_error(root, code)
        place = Place(where.line, where.column - (where.line == 1))
        return "{}", Diagnostic("tsconfig", "syntax error", NAME, place, "TypeScript would not read it either")
    whole = next(nodes(root, ("object",)), None)
    options = member(whole, b"compilerOptions") if whole is not None else None
    found: dict[str, object] = {}
    for name in OPTIONS if options is not None and options.type == "object" else ():
        value = member(options, name.encode()) if options is not None else None
        text = string_text(value)
        if value is not None and value.type in ("true", "false"):
            found[name] = value.type == "true"
        elif text is not None and text != b"preserve":
            found[name] = text.decode("utf-8", "replace")
    return json.dumps({"compilerOptions": found} if found else {}, sort_keys=True), None
