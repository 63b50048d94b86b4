"""Finds where a functions folder holds each key of each function: in the manifest, or in a folder of the Kapso CLI.

`reader` reads the CLI's folders with it, and `pull` and `restore` edit the files that it finds.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import field, replace

from kapso_sync.closest import closest
from kapso_sync.dataclass import dataclass
from kapso_sync.errors import Location, Notice, Problem, first_problems
from kapso_sync.manifest.checking import check
from kapso_sync.manifest.document import Document, read_document
from kapso_sync.manifest.entries import path_problem
from kapso_sync.manifest.schema import FolderModel, ManifestModel
from kapso_sync.manifest.text import Edit, edited
from kapso_sync.model.json_values import Json, same_json
from kapso_sync.model.names import is_slug
from kapso_sync.model.source import FUNCTION_FILE, MANIFEST_NAMES, SourceFile

SCHEMA_FILE = "manifest.schema.json"
"""The file beside a new manifest whose schema its first line names; a relative name is the same for everybody who clones it."""

EMPTY_MANIFEST = f"# yaml-language-server: $schema={SCHEMA_FILE}\nversion: 1\nfunctions:\n"
_BOM = "\ufeff"


@dataclass(frozen=True, slots=True)
class Layout:
    """The manifest of a valid folder, as plain values, and its CLI folders by slug.

    ``manifest`` is its file, if there is one. In an environment, ``defaults`` and ``entries`` are those in effect, ``home`` is
    the path of its own keys, and ``left_out`` are slugs that it does not have.
    """

    manifest: str | None = None
    defaults: Mapping[str, Json] = field(default_factory=dict)
    entries: Mapping[str, Mapping[str, Json]] = field(default_factory=dict)
    folders: Mapping[str, CliFolder] = field(default_factory=dict)
    home: tuple[str, ...] = ()
    left_out: frozenset[str] = frozenset()

    @property
    def empty(self) -> bool:
        """Return whether the folder declares nothing at all."""
        return self.manifest is None and not self.folders

    def said(self, slug: str, key: str) -> Json:
        """Return the folder's value for a function's key, from the closest place that has one; None if none has."""
        folder = self.folders.get(slug)
        places: tuple[Mapping[str, object], ...] = (
            self.entries.get(slug, {}),
            folder.values if folder else {},
            self.defaults,
        )
        return next((place[key] for place in places if place.get(key) is not None), None)  # type: ignore[return-value]


def read_layout(files: Mapping[str, SourceFile], environment: str | None = None) -> Layout:
    """Return the layout of a folder that `read_manifest` accepts, for an environment if the manifest has it."""
    folders = {folder.slug: folder for folder in read_folders(files)}
    name = next((name for name in MANIFEST_NAMES if name in files), None)
    value = read_document(name, files[name].content or b"").value if name is not None else None
    known = _mapping(value)
    entries = {slug: _mapping(entry) for slug, entry in _mapping(known.get("functions")).items()}
    layout = Layout(manifest=name, defaults=_mapping(known.get("defaults")), entries=entries, folders=folders)
    environments = _mapping(known.get("environments"))
    if environment is None or environment not in environments:
        return layout
    given = _mapping(environments[environment])
    own = {slug: _mapping(entry) for slug, entry in _mapping(given.get("functions")).items()}
    defaults = _above(layout.defaults, _mapping(given.get("defaults")))
    inherited = {"secrets": defaults["secrets"]} if "secrets" in defaults else {}
    above = {slug: _above({**inherited, **entries.get(slug, {})}, entry) for slug, entry in own.items() if "secrets" in entry}
    return replace(
        layout,
        defaults=defaults,
        entries={slug: _above(entries.get(slug, {}), own.get(slug, {})) for slug in {**entries, **own}} | above,
        home=("environments", environment),
        left_out=frozenset(slug for slug, entry in _mapping(given.get("functions")).items() if not isinstance(entry, dict)),
    )


def _mapping(value: object) -> Mapping[str, Json]:
    return value if isinstance(value, dict) else {}


def _above(below: Mapping[str, Json], above: Mapping[str, Json]) -> Mapping[str, Json]:
    """Return the merge of two mappings; secrets are merged by name."""
    secrets = {**_mapping(below.get("secrets")), **_mapping(above.get("secrets"))}
    return {**below, **above, **({"secrets": secrets} if secrets else {})}


def edited_file(name: str, old: bytes | None, edits: Iterable[Edit]) -> bytes:
    """Return a manifest, or a ``function.yaml``, with the edits made.

    ``old`` None creates a new manifest, whose first line leads editors to the schema. A file that exists gets no such line: it
    is somebody's own, and may name another schema elsewhere.
    """
    if old is None:
        return edited(EMPTY_MANIFEST, edits).encode()
    text = old.decode("utf-8-sig")
    if name.endswith(".json"):
        return _edited_json(text, edits).encode()
    mark = _BOM if old.startswith(_BOM.encode()) else ""
    return (mark + edited(text, edits, nested="/" in name)).encode()


def _edited_json(text: str, edits: Iterable[Edit]) -> str:
    value = json.loads(text)
    for edit in edits:
        place = value
        for key in edit.path[:-1]:
            if not isinstance(place.get(key), dict):
                place[key] = {}
            place = place[key]
        place[edit.path[-1]] = edit.value
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def misfit(slug: str, key: str, value: Json) -> str | None:
    """Return why a manifest cannot hold this value, in one line, or None if it reads back the same."""
    try:
        content = edited(EMPTY_MANIFEST, [Edit(("functions", slug, key), value)]).encode()
    except (UnicodeEncodeError, RecursionError, ValueError):
        return "it cannot be written as YAML"
    document = read_document(MANIFEST_NAMES[0], content)
    if document.value is not None and not document.problems:
        check(document, ManifestModel)
    if document.problems:
        return document.problems[0].message
    functions = document.value.get("functions") if isinstance(document.value, dict) else None
    entry = functions.get(slug) if isinstance(functions, dict) else None
    same = isinstance(entry, dict) and same_json(entry.get(key), value)
    return None if same else "it does not come back as it is"


IGNORED_BY_KAPSO = frozenset({"runtime", "memory", "timeout"})
DEFAULT_ENTRYPOINTS = ("index.js", "index.ts")


@dataclass(frozen=True, slots=True)
class CliFolder:
    """One folder: its slug, its code's path, and its managed fields; or the problems that make it unusable.

    ``remarks`` are keys of its ``function.yaml`` without effect. ``document`` is that file, if it could be read.
    """

    slug: str
    location: Location
    file: str = ""
    values: Mapping[str, object] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    remarks: tuple[str, ...] = ()
    document: Document | None = field(default=None, repr=False, compare=False)


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
    model = check(document, FolderModel)
    slug = model.slug if model is not None and model.slug is not None else folder
    if not is_slug(slug):
        hint = "give a `slug` of lower-case letters, digits and hyphens"
        document.problems.append(Problem("slug", f"the folder's name `{slug}` is not a slug", start, hint))
    if model is None or document.problems:
        return CliFolder(slug, start, problems=first_problems(document.problems))
    entrypoint = model.entrypoint or next(
        (name for name in DEFAULT_ENTRYPOINTS if f"{folder}/{name}" in files), DEFAULT_ENTRYPOINTS[0]
    )
    wrong = path_problem(entrypoint)
    if wrong is not None:
        place = document.location(("entrypoint",))
        return CliFolder(slug, start, problems=(document.problem("path", f"entrypoint: {entrypoint!r} {wrong}", place),))
    managed = {name: value for name, value in model.given().items() if name not in ("slug", "entrypoint")}
    remarks = tuple(_remarks(document.value if isinstance(document.value, dict) else {}))
    return CliFolder(slug, start, f"{folder}/{entrypoint}", managed, remarks=remarks, document=document)


def _remarks(value: Mapping[str, object]) -> Iterator[str]:
    for key in value:
        if key in IGNORED_BY_KAPSO:
            yield f"`{key}` has no effect on Kapso"
        elif key not in FolderModel.__struct_fields__:
            meant = closest(key, FolderModel.__struct_fields__)
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
