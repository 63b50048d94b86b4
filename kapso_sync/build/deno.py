"""Rules for the code of a `supabase_function`: Deno runs it as it is, and one file is all that goes up."""

from __future__ import annotations

import re
from collections.abc import Iterator

from kapso_sync.build.contract import Import, Shape, Style
from kapso_sync.build.diagnostics import Diagnostic
from kapso_sync.build.packages import NODE_BUILT_INS
from kapso_sync.build.rules import syntax_diagnostic
from kapso_sync.build.syntax import Place
from kapso_sync.errors import Location, Notice

_LOADED = re.compile(r"(?:npm|jsr|node|https?|data|blob):", re.IGNORECASE)
"""Schemes that Deno loads by itself. Source: https://docs.deno.com/runtime/fundamentals/modules/"""


def deno_diagnostics(shape: Shape, file: str) -> Iterator[Diagnostic]:
    """Yield the diagnostics about a file that goes up alone, byte for byte."""
    broken = syntax_diagnostic(shape, file)
    if broken is not None:
        yield broken
        return
    for item in shape.imports:
        fault = _import_diagnostic(item, file)
        if fault is not None:
            yield fault
    if shape.sloppy is not None:
        text = f"the code {shape.sloppy.text}: that works only in sloppy mode, and Deno runs strict modules"
        yield Diagnostic("strict-mode", text, file, shape.sloppy, "declare names with `const`, `let` or `var`")
    if shape.style is Style.COMMONJS:
        where = shape.handlers[0] if shape.handlers else Place(1, 1)
        yield Diagnostic("commonjs", "`module.exports` does not exist in Deno", file, where, "call `Deno.serve(…)`")
    for where in shape.requires:
        yield Diagnostic("require", "`require` does not exist in Deno", file, where, "write `import`")


def deno_notices(shape: Shape, file: str) -> Iterator[Notice]:
    """Yield the notices about a `supabase_function`: Node's modules by their bare names, and code that serves nothing."""
    if shape.error is not None:
        return
    for item in shape.imports:
        if item.specifier in NODE_BUILT_INS and not item.types:
            text = f"older versions of Deno find `{item.specifier}` only as `node:{item.specifier}`"
            yield Notice("bare-built-in", text, Location(file, item.place.line, item.place.column))
    if not shape.deno:
        yield Notice("no-server", "there is no `Deno.serve(…)`: nothing would answer", Location(file, 1, 1))


def _import_diagnostic(item: Import, file: str) -> Diagnostic | None:
    """Return why Deno cannot load an import, or None; imports of types are dropped before the code runs."""
    name = item.specifier
    if item.types or name is None or _LOADED.match(name):
        return None
    if name.startswith(("./", "../", "/", "file:")) or name in (".", ".."):
        text = f"`{name}` does not go up: a supabase_function is one file, byte for byte"
        return Diagnostic("import-outside", text, file, item.place, "put its code into this file, or import it by a URL")
    if name in NODE_BUILT_INS:
        return None
    if re.match(r"[A-Za-z][\w+.-]*:", name):
        hint = "Deno loads npm:, jsr:, node: and https: imports"
        return Diagnostic("import-url", f"Deno cannot load `{name}`", file, item.place, hint)
    text = f"`{name}` needs an import map, and only this file goes up"
    hint = f"write `npm:{name}`, or `jsr:` for a package of JSR, or import it by a URL"
    return Diagnostic("import-bare", text, file, item.place, hint)
