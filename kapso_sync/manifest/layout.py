"""How a functions folder says what it says: which file holds which key of which function. For those who write into it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from kapso_sync.manifest.checking import check
from kapso_sync.manifest.document import read_document
from kapso_sync.manifest.folders import CliFolder, read_folders
from kapso_sync.manifest.schema import ManifestModel
from kapso_sync.manifest.text import Edit, edited
from kapso_sync.model.functions import Json, same_json
from kapso_sync.model.source import MANIFEST_NAMES, SourceFile

EMPTY_MANIFEST = "version: 1\nfunctions:\n"
_BOM = "\ufeff"


@dataclass(frozen=True, slots=True)
class Layout:
    """A sound folder's manifest, as plain values, and its CLI folders by slug. ``manifest`` is its file, if there is one.

    In an environment, ``defaults`` and ``entries`` are as they are in force there, ``home`` leads to where its own keys stand,
    and ``left_out`` are slugs that it does not have.
    """

    manifest: str | None = None
    defaults: Mapping[str, Json] = field(default_factory=dict)
    entries: Mapping[str, Mapping[str, Json]] = field(default_factory=dict)
    folders: Mapping[str, CliFolder] = field(default_factory=dict)
    home: tuple[str, ...] = ()
    left_out: frozenset[str] = frozenset()

    @property
    def empty(self) -> bool:
        """Tell whether the folder declares nothing at all."""
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
    """Return how a folder is laid out, for an environment where the manifest knows it; one that `read_manifest` takes."""
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
    """Return what is in force of two; secrets are taken together by name."""
    secrets = {**_mapping(below.get("secrets")), **_mapping(above.get("secrets"))}
    return {**below, **above, **({"secrets": secrets} if secrets else {})}


def edited_file(name: str, old: bytes | None, edits: Iterable[Edit]) -> bytes:
    """Return a manifest, or a ``function.yaml``, with the edits made; ``old`` None begins a new manifest."""
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
    """Return why a manifest cannot hold this value of a function, in one line, or None when it comes back as it is."""
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
