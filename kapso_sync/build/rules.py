"""Rules for code: diagnostics for code that Kapso cannot run, and notices for code that works but may surprise."""

from __future__ import annotations

from collections.abc import Iterator

from kapso_sync.build.contract import PARAMETERS, Shape, Style
from kapso_sync.build.diagnostics import TRIED_AGAIN, Diagnostic
from kapso_sync.build.graph import Closure
from kapso_sync.build.syntax import Place
from kapso_sync.errors import Location, Notice

MAX_CODE_BYTES = 2**20
"""Largest code that is uploaded, in bytes. Source: Kapso's documentation says 1 megabyte; whether 10^6 or 2^20 is not known."""

SAFE_CODE_BYTES = 10**6
"""Above this Kapso may refuse code, by the smaller meaning of a megabyte."""

SCRIPT_FORM = "declare it at the top level: `async function handler(request, env) { … }`"
_WHOLE = Place(0, 0)


def syntax_diagnostic(shape: Shape, file: str) -> Diagnostic | None:
    """Return a diagnostic for the first syntax error, or None; later errors of the parser may not be real."""
    if shape.error is None:
        return None
    if shape.confirmed:
        return Diagnostic("syntax", f"syntax error: {shape.error.text}", file, shape.error)
    near = f" near `{shape.error.text.splitlines()[0]}`" if shape.error.text.strip() else ""
    return Diagnostic("syntax", f"syntax error{near}", file, shape.error)


def limit_diagnostic(shape: Shape, file: str) -> Diagnostic:
    """Return the diagnostic for a file whose shape has a `Shape.limit`."""
    if shape.passing:
        return Diagnostic("not-read", f"the file {shape.limit}", file, Place(0, 0), TRIED_AGAIN, unavailable=True)
    hint = "is it code that people or a bundler wrote? Split it, or import less"
    return Diagnostic("too-intricate", f"the file {shape.limit}", file, Place(1, 1), hint)


def entry_diagnostics(shape: Shape, file: str, *, module: bool, asked: str) -> Iterator[Diagnostic]:
    """Yield the diagnostics about a file's handler.

    ``module``: module style was asked for; ``asked`` is the beginning of the message, such as "the manifest asks for".
    """
    first = shape.handlers[0] if shape.handlers else Place(1, 1)
    if shape.evaluated is not None:
        text, hint = "the handler is made from text, and Workers run no `eval`", "write the code itself into the file"
        yield Diagnostic("eval", text, file, shape.evaluated, hint)
    elif shape.style is Style.NONE and shape.listens is not None:
        text = 'Kapso calls a handler, and never `addEventListener("fetch", …)`'
        yield Diagnostic("no-handler", text, file, shape.listens, SCRIPT_FORM)
    elif shape.style is Style.NONE:
        yield Diagnostic("no-handler", "there is no handler", file, Place(1, 1), SCRIPT_FORM)
    if shape.style is Style.SCRIPT and shape.leaves is not None:
        text = "syntax error: `return` outside of a function"
        yield Diagnostic("syntax", text, file, shape.leaves, "put the code into the handler, or into a function")
    if shape.generator is not None:
        yield Diagnostic("generator", "the handler is a generator", file, shape.generator, "drop the `*`")
    if shape.also is not None or len(shape.handlers) > 1:
        again = shape.handlers[-1] if shape.handlers else first
        yield Diagnostic("two-handlers", "there is more than one handler", file, again, "keep one of them")
    elif shape.unanswerable is not None:
        yield unanswerable_diagnostic(shape, file, shape.unanswerable)
    if module and shape.style not in (Style.MODULE, Style.NONE):
        text = f"{asked} module style, and there is no `export default`"
        yield Diagnostic("contract", text, file, Place(1, 1), "drop one of them")


def unanswerable_diagnostic(shape: Shape, file: str, where: Place) -> Diagnostic:
    """Return the diagnostic for a handler that cannot answer a request."""
    what = "`handler`" if shape.style in (Style.SCRIPT, Style.NAMED_EXPORT) else "what the file exports"
    hint = SCRIPT_FORM if shape.style is Style.SCRIPT else "export a function, or an object with `fetch(request, env)`"
    return Diagnostic("no-fetch", f"{what} {where.text}: it cannot answer a request", file, where, hint)


def file_diagnostics(shape: Shape, file: str, *, script: bool) -> Iterator[Diagnostic]:
    """Yield the diagnostics about any file that becomes part of a function; ``script``: the function runs in script style."""
    if shape.style is Style.COMMONJS and file.endswith((".mjs", ".mts")):
        where, hint = shape.handlers[0] if shape.handlers else Place(1, 1), "write `export default`, or name the file .cjs"
        yield Diagnostic("commonjs", "`module.exports` does not exist in a file of this name", file, where, hint)
    hint = "write `import`, or drop it; Workers have the Web's own APIs"
    for where in shape.requires:
        yield Diagnostic("require", "`require` does not work on Kapso", file, where, hint)
    if script and shape.awaits is not None:
        text = "`await` at the top level does not work in script style"
        yield Diagnostic("top-level-await", text, file, shape.awaits, "await inside of the handler")


def sloppy_diagnostic(shape: Shape, file: str) -> Diagnostic | None:
    """Return a diagnostic if a file that becomes a part of strict code works only in sloppy mode, or None."""
    if shape.sloppy_built is None:
        return None
    text = f"the code {shape.sloppy_built.text}: that works only in sloppy mode, and this becomes a part of code in strict mode"
    return Diagnostic("strict-mode", text, file, shape.sloppy_built, "declare names with `const`, `let` or `var`")


def built_in_diagnostics(closure: Closure) -> Iterator[Diagnostic]:
    """Yield a diagnostic for each import of a runtime module, which only module style allows."""
    for file, where in closure.built_ins:
        text = f"`{where.text}` is part of the runtime, and script style imports nothing"
        yield Diagnostic("built-in", text, file, where, "use the Web's own APIs, or `contract: module` in the manifest")


def size_diagnostic(code: str, file: str, *, minified: bool = False) -> Diagnostic | None:
    """Return a diagnostic if the code is too large to upload, or None; ``minified``: it is as small as a build makes it."""
    size = len(code.encode("utf-8", "surrogatepass"))
    if size <= MAX_CODE_BYTES:
        return None
    text = f"the code to upload has {size:,} bytes, and Kapso takes {MAX_CODE_BYTES:,}"
    hint = "import less of it: what is not used is left out of a build"
    return Diagnostic("too-large", text, file, _WHOLE, hint if minified else f"{hint}; or `minify: true` in the manifest")


def size_notices(size: int, file: str) -> Iterator[Notice]:
    """Yield a notice if code of so many bytes may be too large."""
    if SAFE_CODE_BYTES < size <= MAX_CODE_BYTES:
        text = f"the code to upload has {size:,} bytes: Kapso may refuse more than {SAFE_CODE_BYTES:,}"
        yield _notice("large", text, file, _WHOLE)


def notices(shape: Shape, file: str) -> Iterator[Notice]:
    """Yield the notices about any file that becomes part of a function."""
    yield from credential_notices(shape, file)
    if shape.undeclared is not None:
        text = (
            f"`{shape.undeclared.text}` is declared nowhere: assigning it throws an error, since this file runs in strict mode"
        )
        yield _notice("undeclared", text, file, shape.undeclared)
    if shape.meta is not None:
        yield _notice("import-meta", "`import.meta` is empty on Workers", file, shape.meta)
    if shape.process_env is not None:
        text = "`process.env` is empty on Kapso: secrets come as the handler's second parameter"
        yield _notice("process-env", text, file, shape.process_env)


def credential_notices(shape: Shape, file: str) -> Iterator[Notice]:
    """Yield a notice for each text that looks like a credential."""
    for where in shape.credentials:
        yield _notice("credential", "this looks like a credential: anyone who reads git has it; use a secret", file, where)


def entry_notices(shape: Shape, closure: Closure, file: str) -> Iterator[Notice]:
    """Yield the notices about how an entry's file handles requests."""
    where = shape.handlers[0] if shape.handlers else Place(1, 1)
    if shape.error is not None:
        return
    if shape.returns is False:
        yield _notice("no-answer", "the handler never returns anything; it must return a `Response`", file, where)
    if shape.parameters is not None and shape.parameters > PARAMETERS:
        text = f"the handler has {shape.parameters} parameters; Kapso gives it two, request and env: `ctx` may be missing"
        yield _notice("parameters", text, file, where)
    for importer, place in closure.built_ins:
        text = f"`{place.text}` is there only where the runtime's compatibility flags allow it"
        yield _notice("built-in", text, importer, place)


def _notice(code: str, message: str, file: str, where: Place) -> Notice:
    return Notice(code, message, Location(file, where.line, where.column))
