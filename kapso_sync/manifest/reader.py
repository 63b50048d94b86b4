"""Reads everything that a functions folder declares: the manifest, folders of the Kapso CLI, and both together."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from kapso_sync.credentials import CREDENTIAL
from kapso_sync.errors import Location, ManifestInvalid, Notice, Problem
from kapso_sync.manifest.checking import check
from kapso_sync.manifest.document import Document, Path, read_document
from kapso_sync.manifest.entries import (
    GUESSED_SUFFIXES,
    FileIndex,
    check_names,
    check_signatures,
    choose_file,
    file_problem,
    former_slugs,
    make_entry,
    merged,
    twins,
)
from kapso_sync.manifest.environments import Declared, declared, environment_problems, unknown_environment
from kapso_sync.manifest.layout import CliFolder, folder_notices, read_folders
from kapso_sync.manifest.misnamed import MisnamedFile, find_misnamed
from kapso_sync.manifest.schema import EntryModel, ManifestModel
from kapso_sync.model.desired import Entry, Manifest, PlainSecret, RolloutPolicy
from kapso_sync.model.json_values import canonical_json
from kapso_sync.model.ownership import without_marks
from kapso_sync.model.source import CODE_SUFFIXES, DEFAULT_FOLDER, FUNCTION_FILE, MANIFEST_NAMES, Snapshot, SourceFile

NAMED = 10
"""Maximum number of files that a warning names, or that get a warning each; unlisted ones are counted beyond it."""


def read_manifest(snapshot: Snapshot, *, expected: bool = False, environment: str | None = None) -> Manifest:
    """Return the declarations of a folder, for an environment if the manifest has any.

    ``expected``: the last good revision had a manifest file, so a missing one is an error and not an empty manifest. Raises
    `ManifestInvalid` with every problem of the manifest; a missing or unreadable file fails only its own function.
    """
    document, model = _read_file(snapshot)
    folders = list(read_folders(snapshot.files))
    paths = {*snapshot.files, *snapshot.unread}
    if document is None and (expected or not folders):
        raise ManifestInvalid([_missing(snapshot, find_misnamed(paths, ()), expected=expected)])
    views = {} if document is None else _views(document, model, folders, environment)
    view = views.get(environment if model is not None and model.environments is not None else None)
    entries = view.entries if view is not None else {}
    folders = [folder for folder in folders if view is None or folder.slug not in view.left_out]
    assembly = _Assembly(snapshot, view)
    for slug, entry in entries.items():
        assembly.add_entry(slug, entry or EntryModel(), next((f for f in folders if f.slug == slug), None))
    counts = Counter(folder.slug for folder in folders)
    for folder in folders:
        if folder.slug not in entries:
            assembly.add_folder(folder, twice=counts[folder.slug] > 1)
    assembly.notices += folder_notices(folders)
    manifest = assembly.manifest(present=document is not None)
    elsewhere = _elsewhere(snapshot.files, views.values())
    misnamed = find_misnamed(paths, [entry.file for entry in (*manifest.entries, *elsewhere)])
    return replace(
        manifest,
        elsewhere=elsewhere,
        notices=(*manifest.notices, *(Notice("misnamed-file", str(file), Location(file.path)) for file in misnamed[:NAMED])),
        misnamed=tuple(str(file) for file in misnamed if file.declares),
    )


def _views(
    document: Document, model: ManifestModel | None, folders: list[CliFolder], environment: str | None
) -> Mapping[str | None, Declared]:
    """Return the declarations for each environment, and for none. Raises `ManifestInvalid` unless all of them are valid."""
    if model is None:
        raise ManifestInvalid(sorted(document.problems, key=_position))
    slugs = {folder.slug for folder in folders}
    environments = model.environments
    problems = [*document.problems, *environment_problems(document, model, slugs)]
    if environment is not None and environments is not None and environment not in environments:
        problems.append(unknown_environment(document, environments, environment))
    views = {name: declared(document, model, name) for name in (None, *(environments or {}))}
    known = set(problems)
    for name, view in views.items():
        check_names(view.document, view.entries)
        there = sorted({*view.entries, *slugs - view.left_out})
        check_signatures(view.document, view.entries, there, view.model.defaults)
        _check_code_once(view.document, view.entries, folders)
        _check_canary(view.document, view.model, there)
        fresh = [problem for problem in view.document.problems if problem not in known]
        suffix = "" if name is None else f" (in the environment {name})"
        told = [replace(problem, message=f"{problem.message}{suffix}") for problem in fresh]
        problems += told
        known |= {*told}
    if problems:
        raise ManifestInvalid(sorted(problems, key=_position))
    return views


def _elsewhere(files: Mapping[str, SourceFile], views: Collection[Declared]) -> tuple[Entry, ...]:
    """Return an entry for each file that any environment names, of those that there are."""
    if len(views) < 2:
        return ()
    found: dict[str, Entry] = {}
    for view in views:
        for slug, entry in view.entries.items():
            location = view.document.location(("functions", slug), key=True)
            path = choose_file(slug, entry or EntryModel(), files, location)
            if isinstance(path, str) and path in files:
                found.setdefault(path, Entry(slug, path, location))
    return tuple(found.values())


def _read_file(snapshot: Snapshot) -> tuple[Document | None, ManifestModel | None]:
    found = [name for name in MANIFEST_NAMES if name in snapshot.files]
    if not found:
        return None, None
    name = found[0]
    if len(found) > 1:
        raise ManifestInvalid(
            [Problem("two-manifests", f"there are {' and '.join(found)}", Location(name), "keep one of them")]
        )
    file = snapshot.files[name]
    if file.content is None:
        raise ManifestInvalid([Problem("unreadable-file", f"{name} {file.problem}", Location(name))])
    document = read_document(name, file.content)
    if document.value is None and not document.problems:
        hint = "start with `version: 1` and `functions:`"
        document.problems.append(Problem("empty", "the manifest is empty", Location(name, 1, 1), hint))
    return document, check(document, ManifestModel)


def _missing(snapshot: Snapshot, misnamed: Sequence[MisnamedFile], *, expected: bool) -> Problem:
    where = snapshot.path or snapshot.source
    # Where there was a manifest, only another name of it explains that it is gone.
    first = next((file for file in misnamed if not expected or "/" not in file.path), None)
    if first is not None:
        text = f"no manifest in {where}, and {first.path} is not one: {first.reason}"
        return Problem("missing-manifest", text, Location(first.path), first.hint)
    if expected:
        hint = "restore it from git; if git never had it, `kapso-sync init` proposes a manifest for the code that is there"
        if not snapshot.revision.of_folder:
            hint = "revert the commit that removed it; if it is elsewhere now, --path names its folder"
        return Problem("missing-manifest", f"the manifest of the last revision is gone from {where}", None, hint)
    return Problem(
        "missing-manifest", f"no manifest.yaml in {where}, and no folder with a {FUNCTION_FILE}", None, _how_to_begin(snapshot)
    )


def _how_to_begin(snapshot: Snapshot) -> str:
    inside = [path for path in snapshot.files if path.startswith(f"{DEFAULT_FOLDER}/")]
    endings = tuple(f"/{DEFAULT_FOLDER}/{name}" for name in MANIFEST_NAMES)
    declared = sorted(path.rpartition("/")[0] for path in snapshot.files if f"/{path}".endswith(endings))
    if declared:
        return f"there is one in {declared[0]}: name that folder as the source"
    if any(map(looks_like_a_function, inside)) and not any("/" not in p and looks_like_a_function(p) for p in snapshot.files):
        return f"is the folder {DEFAULT_FOLDER} meant? Name it as the source"
    if not any(looks_like_a_function(path) for path in snapshot.files):
        smallest = "{version: 1, functions: {hello: {}}}"
        return (
            f"is --path right? The smallest manifest.yaml is `{smallest}`, with the code in hello.js or hello.ts; "
            "`kapso-sync schema` lists every key"
        )
    if not snapshot.revision.of_folder:
        return "is --path right? In a clone of it, the command `init` proposes a manifest for the code that is there"
    return "is --path right? `kapso-sync init` proposes a manifest for the code that is there"


def _check_code_once(document: Document, entries: Mapping[str, EntryModel | None], folders: list[CliFolder]) -> None:
    for folder in folders:
        entry = entries.get(folder.slug)
        if entry is not None and entry.file is not None:
            text = f"functions.{folder.slug}: its code is given here and by {folder.location.file}"
            location = document.location(("functions", folder.slug, "file"))
            hint = "remove `file` here to add to the folder, or remove the folder"
            document.problems.append(document.problem("code-twice", text, location, hint))


def _check_canary(document: Document, model: ManifestModel | None, slugs: Collection[str]) -> None:
    canary = model.defaults.rollout.canary if model and model.defaults and model.defaults.rollout else None
    if canary is not None and canary not in slugs:
        where = document.location(("defaults", "rollout", "canary"))
        text = f"defaults.rollout.canary: there is no function `{canary}`"
        document.problems.append(document.problem("unknown-canary", text, where, "name a function of this manifest"))


def _position(problem: Problem) -> tuple[float, int]:
    location = problem.location
    return (location.line, location.column) if location else (math.inf, 0)


class _Assembly:
    """The entries so far, and the unusable ones."""

    def __init__(self, snapshot: Snapshot, view: Declared | None) -> None:
        self._snapshot = snapshot
        self._files = snapshot.files
        self._view = view
        self._document = view.document if view else None
        self._defaults = view.model.defaults if view else None
        self._twins = twins(snapshot.files)
        self._index = FileIndex.of(snapshot)
        self._entries: list[Entry] = []
        self._broken: dict[str, tuple[Problem, ...]] = {}
        self._unusable_files: set[str] = set()
        self.notices: list[Notice] = []

    def add_entry(self, slug: str, entry: EntryModel, folder: CliFolder | None) -> None:
        """Add a manifest entry; one without ``file`` adds its keys to a folder of the same slug."""
        places = _Places(slug, self._document, folder)
        values = merged(entry, self._defaults)
        if folder is not None:
            if folder.problems:
                self._broken[slug] = folder.problems
                return
            values = merged(None, self._defaults) | dict(folder.values) | merged(entry, None)
            self._add(slug, folder.file, values, places)
            return
        file = choose_file(slug, entry, self._files, places.of("file"))
        if isinstance(file, Problem):
            self._broken[slug] = (places.framed(file),)
            self._unusable_files |= {f"{slug}{suffix}" for suffix in GUESSED_SUFFIXES}
        else:
            self._add(slug, file, values, places)

    def add_folder(self, folder: CliFolder, *, twice: bool) -> None:
        """Add a folder that the manifest does not name."""
        if folder.problems:
            self._broken[folder.slug] = folder.problems
        elif twice:
            hint = "give each folder its own `slug`"
            where = folder.location if folder.document is None else folder.document.location(("slug",))
            self._broken[folder.slug] = (Problem("duplicate", f"two folders have the slug `{folder.slug}`", where, hint),)
        else:
            values = merged(None, self._defaults) | dict(folder.values)
            self._add(folder.slug, folder.file, values, _Places(folder.slug, self._document, folder))

    def _add(self, slug: str, file: str, values: Mapping[str, object], places: _Places) -> None:
        location = places.of("file")
        problem = file_problem(slug, file, self._index, location) or _public_problem(slug, values, places)
        if problem is None and file in self._twins:
            others = ", ".join(self._twins[file])
            text = f"functions.{slug}: {file} and {others} differ only by case or Unicode form"
            problem = Problem("colliding-names", text, location, "rename one of them")
        if problem is not None:
            self._broken[slug] = (places.framed(problem),)
            self._unusable_files |= {file, *self._twins.get(file, ())}
            return
        policy = self._defaults.secrets_policy if self._defaults else None
        entry = make_entry(slug, file, values, places.start)
        if entry.secrets or policy == "exact":
            secrets = {name: places.of("secrets", name) for name in entry.secrets}
            entry = replace(entry, exact_secrets=policy == "exact", secret_locations=secrets)
        self.notices += _text_notices(slug, values, places)
        self._entries.append(entry)
        self.notices += _notices(entry, places)

    def manifest(self, *, present: bool) -> Manifest:
        """Return everything, sorted by slug."""
        entries = tuple(sorted(self._entries, key=lambda entry: entry.slug))
        broken, moved_from = dict(sorted(self._broken.items())), {}
        if self._view is not None:
            given = ((slug, self._view.entries.get(slug)) for slug in broken)
            former = ((slug, former_slugs(entry.moved_from)) for slug, entry in given if entry is not None)
            moved_from = {slug: slugs for slug, slugs in former if slugs is not None}
        return Manifest(
            entries,
            broken,
            tuple(self.notices),
            present,
            self._rollout(),
            unusable_files=frozenset(self._unusable_files),
            moved_from=moved_from,
        )

    def _rollout(self) -> RolloutPolicy:
        given = self._defaults.rollout if self._defaults else None
        return RolloutPolicy() if given is None else RolloutPolicy(given.canary, given.max_failures)


class _Places:
    """Where the values of one function stand: in its entry, in its folder's ``function.yaml``, or in the defaults."""

    def __init__(self, slug: str, document: Document | None, folder: CliFolder | None) -> None:
        self._slug = slug
        self._document = document
        self._folder = folder

    @property
    def start(self) -> Location:
        """Where the function is declared: its key in the manifest, else its folder's file."""
        path = ("functions", self._slug)
        if self._document is not None and path in self._document.key_places:
            return self._document.location(path, key=True)
        return self._folder.location if self._folder is not None else Location("")

    def of(self, *keys: str | int) -> Location:
        """Return the position of a value that holds for the function, or `start` if none of its files has one."""
        for document, path in self._candidates(keys):
            if path in document.places:
                return document.location(path)
        return self.start

    def _candidates(self, keys: Path) -> Iterator[tuple[Document, Path]]:
        if self._document is not None:
            yield self._document, ("functions", self._slug, *keys)
        if self._folder is not None and self._folder.document is not None:
            yield self._folder.document, ("entrypoint",) if keys == ("file",) else keys
        if self._document is not None:
            yield self._document, ("defaults", *keys)

    def framed(self, problem: Problem) -> Problem:
        """Return the problem with the line at its position."""
        documents = (self._document, self._folder.document if self._folder is not None else None)
        for document in documents:
            if document is not None and problem.location is not None and document.file == problem.location.file:
                return replace(problem, frame=document.frame(problem.location))
        return problem


def _notices(entry: Entry, places: _Places) -> Iterator[Notice]:
    for what, given, wait in (
        ("secrets", entry.secrets, "they wait"),
        ("checks", entry.checks, "they wait"),
        ("watch", entry.watch, "it waits"),
    ):
        if given and not entry.deploy:
            text = f"functions.{entry.slug}.{what}: {wait}, since `deploy` is false"
            yield Notice("not-applied", text, places.of(what))
    for number, asked in enumerate(entry.checks):
        if entry.deploy and not asked.after_deployment:
            text = f"functions.{entry.slug}.checks[{number}]: the command `test` alone sends it, since Kapso invokes with POST"
            yield Notice("check-not-sent", text, places.of("checks", number, "method"))
    for name, source in entry.secrets.items():
        if isinstance(source, PlainSecret) and CREDENTIAL.search(canonical_json(source.value)):
            text = f"functions.{entry.slug}.secrets.{name}: the value looks like a credential; use `env` or `file`"
            yield Notice("credential-value", text, places.of("secrets", name))


def _public_problem(slug: str, values: Mapping[str, object], places: _Places) -> Problem | None:
    """Return why a function cannot be public, or None; Kapso refuses it with a 422. Source: Kapso's public documentation."""
    if values.get("function_type") != "supabase_function" or values.get("public_endpoint") is not True:
        return None
    text = f"functions.{slug}.public_endpoint: a supabase_function cannot be called without an API key"
    return Problem("public-endpoint", text, places.of("public_endpoint"), "remove it, or make it a cloudflare_worker")


def _text_notices(slug: str, values: Mapping[str, object], places: _Places) -> Iterator[Notice]:
    """Yield a warning for a mark in a description, and for keys that Kapso's own tools would spell otherwise."""
    text = values.get("description")
    if isinstance(text, str) and without_marks(text) != text:
        said = f"functions.{slug}.description: an ownership mark in it is left out; kapso-sync writes it itself"
        yield Notice("mark-in-text", said, places.of("description"))
    config = values.get("runtime_config")
    for name in sorted(config) if isinstance(config, dict) else ():
        if re.search(r"[a-z][A-Z]", name):
            said = f"functions.{slug}.runtime_config.{name}: Kapso's own tools spell keys in snake_case"
            yield Notice("camel-case", said, places.of("runtime_config", name))


def unlisted_files(snapshot: Snapshot, used: frozenset[str]) -> tuple[Notice, ...]:
    """Return a warning that names code files which no entry uses; folders of the Kapso CLI may hold tests and fixtures."""
    cli_folders = {path.partition("/")[0] for path in snapshot.files if path.partition("/")[2] == FUNCTION_FILE}
    unused = [
        path
        for path in sorted(snapshot.files)
        if path not in used and path.partition("/")[0] not in cli_folders and looks_like_a_function(path)
    ]
    if not unused:
        return ()
    more = f" and {len(unused) - NAMED} more" if len(unused) > NAMED else ""
    plural = "files are" if len(unused) > 1 else "file is"
    return (Notice("unlisted-file", f"{len(unused)} code {plural} named by no entry: {', '.join(unused[:NAMED])}{more}"),)


def looks_like_a_function(path: str) -> bool:
    """Return whether a path is a code file that is not a declaration of types, a test, or a tool's settings."""
    name = PurePosixPath(path).name
    return name.endswith(CODE_SUFFIXES) and not re.search(r"\.(?:d|test|spec|config)\.[cm]?[jt]sx?$", name)
