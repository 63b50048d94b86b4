"""Write the code around a function: turn a file that is not a module into a module, and a bundle into a script."""

from __future__ import annotations

import json
import re

from kapso_sync.build.contract import PARAMETERS, Form, Shape, Style
from kapso_sync.dataclass import dataclass

_EXPORT = re.compile(r"export\s*\{\s*([^\s{}]+) as default\s*\};?\s*$")
_CALLS = {
    Form.FUNCTION: "{name}({args})",
    Form.FETCH: "{name}.fetch({args})",
    Form.CLASS: "new {name}({ctx}, env).fetch(request)",
    Form.UNCLEAR: 'typeof {name} === "function" ? {name}({args}) : {name}.fetch({args})',
}
_CTX = "ctx ?? { waitUntil: (work) => void Promise.resolve(work).catch(() => {}), passThroughOnException() {} }"
"""Kapso promises no context, but code may use one. So it gets a minimal context that does no harm: work that is passed to
``waitUntil`` continues as long as the runtime allows it, and a warning says so."""


SCRIPT_HANDLER = "kapso_sync_handler"
"""A variable that a plain script hands its handler over in: it may have a `module` of its own."""


def appended(shape: Shape, *, sloppy: bool = False) -> str:
    """Return the code to add at the end of a file, so that its handler can be imported from another file.

    ``sloppy``: the file must stay a script or a CommonJS module, which an `export` would end.
    """
    if not shape.local:
        return ""
    if sloppy and shape.style is Style.SCRIPT:
        return f"\n{SCRIPT_HANDLER} = handler;\n"
    return "\nmodule.exports = handler;\n" if shape.style is Style.COMMONJS else "\nexport { handler as default };\n"


def wrapper(shape: Shape, file: str, *, sloppy: bool = False) -> str:
    """Return a module that exports the file's handler by default, or a sloppy script that returns it.

    ``file`` is the path from the wrapper to the file.
    """
    source = json.dumps(file)
    value = "file_exports.handler ?? file_exports.default ?? file_exports"
    if sloppy and shape.style is Style.SCRIPT:
        return f"require({source});\n"
    if sloppy:
        return f"const file_exports = require({source});\nreturn {value};\n"
    if shape.style is Style.COMMONJS:
        return (
            f"const file_exports = require({source});\nconst file_handler = {value};\nexport {{ file_handler as default }};\n"
        )
    name = "handler" if shape.style is Style.NAMED_EXPORT else "default"
    return f"export {{ {name} as default }} from {source};\n"


BANNER = "// Built by kapso-sync from "
"""How all built code begins; a file that goes up as it is is the source itself."""


@dataclass(frozen=True, slots=True)
class Finished:
    """Code to upload; ``head`` is the number of lines in it before the bundle's first line."""

    code: str
    head: int


def finished(bundle: str, file: str, shape: Shape, *, script: bool, sloppy: bool = False) -> Finished:
    """Return the code to upload, made from a bundle with one default export; raises ValueError for any other bundle.

    A script puts the bundle into a function, so that its names cannot clash with names outside. ``shape`` is the entry's shape.
    ``sloppy``: the bundle returns the handler, and must not become strict.
    """
    end = _EXPORT.search(bundle)
    if end is None and not sloppy:
        raise ValueError("the bundle has no default export")
    source = "".join(char if char.isprintable() else "?" for char in file)
    banner = f"{BANNER}{source}: edit that file, not this.\n"
    if not script:
        return Finished(banner + bundle, 1)
    body = bundle.rstrip("\n") if end is None else bundle[: end.start()].rstrip("\n")
    if sloppy and shape.style is Style.SCRIPT:
        body = f"let {SCRIPT_HANDLER};\n{body}\nreturn {SCRIPT_HANDLER};"
    # The banner, the function around the bundle, and one of its two possible first lines.
    head = 2 + (end is not None or (sloppy and shape.style is Style.SCRIPT))
    body = body if end is None else f'"use strict";\n{body}\nreturn {end[1]};'
    name = "built"
    while re.search(rf"(?<![\w$]){re.escape(name)}(?![\w$])", body):
        name += "_"
    wants_ctx = shape.parameters is None or shape.parameters > PARAMETERS
    args = f"request, env, {_CTX}" if wants_ctx else "request, env"
    call = _CALLS[shape.form].format(name=name, args=args, ctx=_CTX)
    return Finished(
        f"{banner}const {name} = (() => {{\n{body}\n}})();\n"
        f"async function handler(request, env, ctx) {{\n  return {call};\n}}\n",
        head,
    )
