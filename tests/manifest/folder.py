"""A functions folder in memory, and short ways to read its manifest."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from kapso_sync.errors import ManifestInvalid, Problem
from kapso_sync.manifest import read_manifest
from kapso_sync.model.desired import Entry, Manifest
from kapso_sync.model.source import Revision, Snapshot, SourceFile

CODE = "async function handler() { return new Response('x'); }\n"


def folder(files: Mapping[str, str | bytes | SourceFile], unread: Collection[str] = ()) -> Snapshot:
    """A snapshot of these files, beside others of kinds that are not read."""
    made = {
        path: content
        if isinstance(content, SourceFile)
        else SourceFile(path, content if isinstance(content, bytes) else content.encode())
        for path, content in files.items()
    }
    return Snapshot("test", Revision("c0ffee"), files=made, unread=frozenset(unread))


def read(manifest: str | bytes, name: str = "manifest.yaml", **files: str) -> Manifest:
    """Read a manifest beside ``greet.js`` and other files, named without their ``.js``."""
    code = {f"{stem}.js": text for stem, text in {"greet": CODE, **files}.items()}
    return read_manifest(folder({name: manifest, **code}))


def entry_of(lines: str, **files: str) -> Entry:
    """The only entry of a manifest whose function ``greet`` has these lines."""
    (entry,) = read(f"version: 1\nfunctions:\n  greet:\n{_indented(lines)}", **files).entries
    return entry


def problems_of(manifest: str | bytes, name: str = "manifest.yaml") -> tuple[Problem, ...]:
    """Everything that is wrong with a manifest."""
    try:
        read(manifest, name)
    except ManifestInvalid as error:
        return error.problems
    return ()


def said_of(lines: str) -> list[str]:
    """What is wrong with the function ``greet`` of these lines, which begin in line 4, column 5."""
    return [str(problem) for problem in problems_of(f"version: 1\nfunctions:\n  greet:\n{_indented(lines)}")]


def _indented(lines: str) -> str:
    return "".join(f"    {line}\n" for line in lines.splitlines())
