"""Deciding what is uploaded for an entry: its file byte for byte, or nothing and the reason."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from kapso_sync.build.contract import Place, Shape, Style, inspect
from kapso_sync.build.target import Target
from kapso_sync.errors import Location, Problem
from kapso_sync.model.desired import Contract, DesiredFunction, Entry, UnusableFunction
from kapso_sync.model.functions import FunctionType
from kapso_sync.model.source import CODE_SUFFIXES, SourceFile

TYPESCRIPT = (".ts", ".mts", ".cts", ".tsx")
_SHOWN = 160

SCRIPT_FORM = "declare it at the top level: `async function handler(request, env) { … }`"


@dataclass(frozen=True, slots=True)
class _Fault:
    """What keeps a file from going up as it is: for good (an error), or until a build is available (``buildable``)."""

    code: str
    message: str
    place: Place
    hint: str
    buildable: bool = False


class Builder:
    """Builds entries for one target. A file that did not change is not looked at twice."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._shapes: dict[tuple[bytes, bool], Shape] = {}

    def build(
        self, entries: Iterable[Entry], files: Mapping[str, SourceFile]
    ) -> tuple[tuple[DesiredFunction, ...], tuple[UnusableFunction, ...]]:
        """Return the functions that can be written and those that cannot, in the order of the entries."""
        good, bad = [], []
        seen: dict[tuple[bytes, bool], Shape] = {}
        for entry in entries:
            built = self._build(entry, files[entry.file].content or b"", seen)
            if isinstance(built, DesiredFunction):
                good.append(built)
            else:
                bad.append(built)
        self._shapes = seen
        return tuple(good), tuple(bad)

    def _build(self, entry: Entry, content: bytes, seen: dict[tuple[bytes, bool], Shape]) -> DesiredFunction | UnusableFunction:
        try:
            code = content.decode("utf-8")
        except UnicodeDecodeError as error:
            line = content[: error.start].count(b"\n") + 1
            return _unusable(
                entry, Problem("not-utf8", "the file is not UTF-8 text", Location(entry.file, line, 1), "save it as UTF-8")
            )
        if "\0" in code:
            line = code[: code.index("\0")].count("\n") + 1
            return _unusable(
                entry, Problem("binary", "the file holds a NUL character", Location(entry.file, line, 1), "is it code?")
            )
        if entry.function_type is FunctionType.SUPABASE_FUNCTION:
            return DesiredFunction(entry, code)
        typescript = entry.file.endswith(TYPESCRIPT)
        shape = self._shapes.get((content, typescript)) or inspect(content, typescript=typescript)
        seen[content, typescript] = shape
        fault = _error(shape, entry) or self._needs_build(shape, entry, typescript=typescript)
        return (
            DesiredFunction(entry, code)
            if fault is None
            else _unusable(entry, _problem(entry, code, fault), blocked=fault.buildable)
        )

    def _needs_build(self, shape: Shape, entry: Entry, *, typescript: bool) -> _Fault | None:
        """Return why a sound file cannot go up as it is. Raw source is never uploaded where a build is needed."""
        if typescript:
            return _build_fault("it is TypeScript", Place(1, 1), "write it in JavaScript")
        if shape.jsx is not None:
            return _build_fault("it is JSX", shape.jsx, "build the answer without it")
        if shape.imports:
            first = shape.imports[0]
            return _build_fault(f"it imports `{first.text}`", first, "put what it imports into the file")
        if shape.style is Style.MODULE and (entry.contract is Contract.SCRIPT or not self._target.modules):
            wanted = (
                "the manifest asks for script style"
                if entry.contract is Contract.SCRIPT
                else "this API base takes script style"
            )
            return _build_fault(f"it is in module style and {wanted}", _first(shape.handlers), SCRIPT_FORM)
        return None


def imported_files(entries: Iterable[Entry], files: Mapping[str, SourceFile]) -> frozenset[str]:
    """Return the entries' files and every file below the folder that they reach by relative imports."""
    reached: set[str] = set()
    pending = [entry.file for entry in entries]
    while pending:
        path = pending.pop()
        file = files.get(path)
        if path in reached or file is None:
            continue
        reached.add(path)
        if (
            file.content is None
            or not path.endswith(CODE_SUFFIXES)
            or (b"import" not in file.content and b"from" not in file.content)
        ):
            continue
        shape = inspect(file.content, typescript=path.endswith(TYPESCRIPT))
        pending += [found for place in shape.imports if (found := _resolve(path, place.text, files)) is not None]
    return frozenset(reached)


def _resolve(importer: str, specifier: str, files: Mapping[str, SourceFile]) -> str | None:
    if not specifier.startswith("."):
        return None
    parts: list[str] = list(PurePosixPath(importer).parent.parts)
    for part in specifier.split("/"):
        if part == "..":
            if not parts:
                return None
            parts.pop()
        elif part not in (".", ""):
            parts.append(part)
    base = "/".join(parts)
    endings = ("", *CODE_SUFFIXES, ".json", *(f"/index{suffix}" for suffix in CODE_SUFFIXES))
    return next((base + ending for ending in endings if base + ending in files), None)


def _error(shape: Shape, entry: Entry) -> _Fault | None:  # noqa: PLR0911 - one rule after the other
    """Return what is wrong with the file itself."""
    if shape.error is not None:
        near = f" near `{shape.error.text.splitlines()[0]}`" if shape.error.text.strip() else ""
        return _Fault("syntax", f"syntax error{near}", shape.error, "the code cannot be parsed from here on")
    if shape.style is Style.COMMONJS:
        return _Fault("commonjs", "`module.exports` does not work on Kapso", _first(shape.handlers), SCRIPT_FORM)
    if shape.requires:
        return _Fault(
            "require", "`require` does not work on Kapso", shape.requires[0], "remove it; Workers have the Web's own APIs"
        )
    if shape.style is Style.NONE:
        return _Fault("no-handler", "there is no handler", Place(1, 1), SCRIPT_FORM)
    if shape.style is Style.NAMED_EXPORT:
        return _Fault(
            "named-export", "`handler` is a named export", _first(shape.handlers), "write `export default`, or drop `export`"
        )
    if shape.generator is not None:
        return _Fault("generator", "the handler is a generator", shape.generator, "drop the `*`")
    if shape.also is not None or len(shape.handlers) > 1:
        again = shape.handlers[-1] if shape.handlers else Place(1, 1)
        return _Fault("two-handlers", "there is more than one handler", again, "keep one of them")
    if entry.contract is Contract.MODULE and shape.style is not Style.MODULE:
        return _Fault(
            "contract",
            "the manifest says `contract: module`, and there is no `export default`",
            Place(1, 1),
            "drop one of them",
        )
    return None


def _build_fault(reason: str, place: Place, instead: str) -> _Fault:
    hint = f"this version uploads plain JavaScript only: {instead}"
    return _Fault("needs-build", f"{reason}, which needs a build that is not available", place, hint, buildable=True)


def _problem(entry: Entry, code: str, fault: _Fault) -> Problem:
    place = fault.place
    lines = code.splitlines()
    frame = None
    if 0 < place.line <= len(lines):
        margin = f"{place.line:>4} | "
        frame = f"{margin}{lines[place.line - 1][:_SHOWN]}\n{' ' * (len(margin) + place.column - 1)}^"
    return Problem(fault.code, fault.message, Location(entry.file, place.line, place.column), fault.hint, frame)


def _unusable(entry: Entry, problem: Problem, *, blocked: bool = False) -> UnusableFunction:
    return UnusableFunction(entry.slug, entry.file, (problem,), blocked)


def _first(places: tuple[Place, ...]) -> Place:
    return places[0] if places else Place(1, 1)
