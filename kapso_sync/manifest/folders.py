"""Folders of the Kapso CLI: ``<folder>/function.yaml`` beside the code it names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from kapso_sync.errors import Location, Problem
from kapso_sync.manifest.checking import check, did_you_mean
from kapso_sync.manifest.document import read_document
from kapso_sync.manifest.entries import path_problem
from kapso_sync.manifest.schema import SLUG_PATTERN, FolderModel
from kapso_sync.model.desired import Notice
from kapso_sync.model.source import FUNCTION_FILE, SourceFile

IGNORED_BY_KAPSO = frozenset({"runtime", "memory", "timeout"})
DEFAULT_ENTRYPOINTS = ("index.js", "index.ts")


@dataclass(frozen=True, slots=True)
class CliFolder:
    """One folder: its slug, its code's path, and its managed fields; or the problems that keep it from being used.

    ``remarks`` are what its ``function.yaml`` says in vain.
    """

    slug: str
    location: Location
    file: str = ""
    values: Mapping[str, object] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    remarks: tuple[str, ...] = ()


def read_folders(files: Mapping[str, SourceFile]) -> Iterator[CliFolder]:
    """Yield every direct sub-folder with a ``function.yaml``, in order of name."""
    for path in sorted(files):
        folder, _, name = path.partition("/")
        if name == FUNCTION_FILE:
            yield _read_folder(folder, path, files)


def _read_folder(folder: str, path: str, files: Mapping[str, SourceFile]) -> CliFolder:
    start = Location(path, 1, 1)
    file = files[path]
    if file.content is None:
        return CliFolder(folder, start, problems=(Problem("unreadable-file", f"{path} {file.problem}", start),))
    document = read_document(path, file.content)
    model = check(document, FolderModel) if not document.problems else None
    slug = model.slug if model is not None and model.slug is not None else folder
    if not re.fullmatch(SLUG_PATTERN, slug):
        hint = "give a `slug` of lower-case letters, digits and hyphens"
        document.problems.append(Problem("slug", f"the folder's name `{slug}` is not a slug", start, hint))
    if model is None or document.problems:
        return CliFolder(slug, start, problems=tuple(document.problems))
    entrypoint = model.entrypoint or next(
        (name for name in DEFAULT_ENTRYPOINTS if f"{folder}/{name}" in files), DEFAULT_ENTRYPOINTS[0]
    )
    wrong = path_problem(entrypoint)
    if wrong is not None:
        place = document.location(("entrypoint",))
        return CliFolder(slug, start, problems=(document.problem("path", f"entrypoint: {entrypoint!r} {wrong}", place),))
    managed = {name: getattr(model, name) for name in model.model_fields_set - {"slug", "entrypoint"}}
    remarks = tuple(_remarks(document.value if isinstance(document.value, dict) else {}))
    return CliFolder(slug, start, f"{folder}/{entrypoint}", managed, remarks=remarks)


def _remarks(value: Mapping[str, object]) -> Iterator[str]:
    for key in value:
        if key in IGNORED_BY_KAPSO:
            yield f"`{key}` has no effect on Kapso"
        elif key not in FolderModel.model_fields:
            meant = did_you_mean(key, FolderModel.model_fields)
            yield f"`{key}` is not known" + (f"; did you mean `{meant}`?" if meant else "")


def folder_notices(folders: Sequence[CliFolder]) -> Iterator[Notice]:
    """Yield one warning for each remark, however many folders it concerns."""
    places: dict[str, list[Location]] = {}
    for folder in folders:
        for remark in folder.remarks:
            places.setdefault(remark, []).append(folder.location)
    for remark, found in places.items():
        others = f", and in {len(found) - 1} more" if len(found) > 1 else ""
        yield Notice("ignored-key", f"{remark}{others}", Location(found[0].file))
