"""Proposes a manifest for a folder that has code and none: which files are functions, and under which slugs. Pure.

`procedure.propose` reads what this needs, and `planner` beside it plans a pull, for functions that are on Kapso alone.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath

from kapso_sync.build.contract import Shape, Style
from kapso_sync.dataclass import dataclass
from kapso_sync.manifest.id_registry import RegisteredFunction
from kapso_sync.manifest.layout import edited_file
from kapso_sync.manifest.text import Edit
from kapso_sync.model.functions import RemoteFunction
from kapso_sync.model.pull import FileChange
from kapso_sync.model.source import MANIFEST_NAMES

INDEX = "index"
"""The stem of the file that holds the code of a function in a folder of its own."""

_WORD_ENDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


@dataclass(frozen=True, slots=True)
class CodeFile:
    """A file that may be a function: what it declares, and which files import it."""

    path: str
    shape: Shape
    importers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ProposedFunction:
    """A function of the proposal. ``remarks`` say what a plan would do with it, and why."""

    slug: str
    file: str
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Proposal:
    """A manifest to write, and the files that it leaves out, each with the reason.

    ``change`` is None when the folders of a Kapso CLI declare every function already. ``elsewhere`` are slugs that are on Kapso
    only, or None without an API key.
    """

    change: FileChange | None
    functions: tuple[ProposedFunction, ...]
    left_out: Mapping[str, str]
    elsewhere: tuple[str, ...] | None = None


def propose(
    code: Iterable[CodeFile],
    taken: frozenset[str],
    functions: Sequence[RemoteFunction] | None,
    registered: Sequence[RegisteredFunction] = (),
) -> Proposal:
    """Return a manifest for the code files.

    ``taken`` are the slugs of CLI folders. ``functions`` are those on Kapso, or None without an API key: a file that is named
    like one gets its slug, however the words are joined. For example ``verifyToken.js``, where Kapso has ``verify-token``,
    becomes

        functions:
          verify-token:
            file: verifyToken.js

    A function that is ``registered`` under an id has the slug that it has on Kapso, whatever its file is called.
    """
    left_out: dict[str, str] = {}
    chosen: dict[str, str] = {}
    remarks: dict[str, tuple[str, ...]] = {}
    for file in sorted(code, key=_preference):
        reason = _why_left_out(file)
        known, remark = _registered_slug(file.path, registered, functions)
        slug = known or _remote_slug(_stem(file.path), functions or ()) or _slug(_stem(file.path))
        if reason is None and not slug:
            reason = f"no slug can be made of its name; list it yourself, with `file: {file.path}`"
        if reason is None and slug in taken:
            reason = f"a folder of the Kapso CLI has the slug `{slug}`"
        if reason is None and slug in chosen:
            reason = f"{chosen[slug]} has the slug `{slug}`"
        if reason is None:
            chosen[slug] = file.path
            remarks[slug] = remark
        else:
            left_out[file.path] = reason
    proposed = tuple(ProposedFunction(slug, chosen[slug], remarks[slug]) for slug in sorted(chosen))
    edits = [Edit(("functions", function.slug, "file"), function.file) for function in proposed]
    name = MANIFEST_NAMES[0]
    change = FileChange(name, None, edited_file(name, None, edits)) if proposed else None
    return Proposal(change, proposed, dict(sorted(left_out.items())))


def _preference(file: CodeFile) -> tuple[bool, bool, bool, str]:
    """Sort key: a file whose name is the slug comes first, a file before a folder, and source before what is built of it."""
    stem, suffix = _stem(file.path), PurePosixPath(file.path).suffix
    return stem != _slug(stem), "/" in file.path, suffix not in (".ts", ".mts", ".cts", ".tsx"), file.path


def _why_left_out(file: CodeFile) -> str | None:
    """Return why a file is not a function, or None; what declares a top-level handler cannot be meant for an import."""
    if not file.path.isprintable():
        return "its name has characters that do not print; rename it"
    if file.importers and file.shape.style is not Style.SCRIPT:
        return f"{file.importers[0]} imports it"
    if file.shape.style is Style.NONE and file.shape.error is None and not file.shape.deno:
        return "it declares no handler"
    pure = PurePosixPath(file.path)
    if len(pure.parts) > 1 and (len(pure.parts) > 2 or pure.stem != INDEX):
        return f"it lies in a sub-folder; if it is a function, list it yourself, with `file: {file.path}`"
    return None


def _stem(path: str) -> str:
    pure = PurePosixPath(path)
    return pure.stem if pure.parent == PurePosixPath() else pure.parent.name


def _slug(name: str) -> str:
    """Return the slug of a file's name: words in lower case, joined by hyphens, letters without their accents.

    >>> _slug("GrößePrüfen_v2")
    'grosse-prufen-v2'
    """
    plain = unicodedata.normalize("NFKD", _WORD_ENDS.sub("-", unicodedata.normalize("NFC", name)).casefold())
    letters = "".join(char for char in plain if not unicodedata.combining(char))
    return re.sub(r"[^a-z0-9]+", "-", letters).strip("-")


def _remote_slug(name: str, functions: Sequence[RemoteFunction]) -> str | None:
    """Return the slug on Kapso that a file's name means, or None if there is none, or more than one."""
    wanted = _letters(name)
    exact = [remote.slug for remote in functions if remote.slug == name]
    alike = [remote.slug for remote in functions if wanted in (_letters(remote.slug), _letters(remote.name or ""))]
    found = exact or alike
    return found[0] if len(found) == 1 and wanted else None


def _registered_slug(
    path: str, registered: Sequence[RegisteredFunction], functions: Sequence[RemoteFunction] | None
) -> tuple[str | None, tuple[str, ...]]:
    """Return the slug of the function whose id is noted for a file, or None, and what there is to say of the note.

    A note is of this file if its path ends with the file's, or, without a path, if its key is named like the file.
    """
    parts, stem = PurePosixPath(path).parts, _letters(_stem(path))
    notes = [each for each in registered if each.path is not None and PurePosixPath(each.path).parts[-len(parts) :] == parts]
    notes = notes or [each for each in registered if each.path is None and _letters(each.key) == stem]
    if not notes:
        return None, ()
    ids = {each.id.lower() for each in notes}
    registries = " and ".join(sorted({each.registry for each in notes}))
    if functions is None:
        return None, (f"{registries} has its id: with an API key, `init` takes the slug that it has on Kapso",)
    slugs = sorted({remote.slug for remote in functions if remote.id.lower() in ids})
    if len(slugs) == 1:
        return slugs[0], ()
    if slugs:
        return None, (f"{registries} has ids of more than one function for it: {', '.join(slugs)}; the slug is a guess",)
    return None, (f"the id that {registries} has for it is not on Kapso",)


def _letters(name: str) -> str:
    return "".join(filter(str.isalnum, name)).lower()
