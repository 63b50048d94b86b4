"""Makes entries of validated models: applies defaults and checks paths; a missing file fails only its own function."""

from __future__ import annotations

import bisect
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

from kapso_sync.dataclass import dataclass
from kapso_sync.errors import Location, Problem
from kapso_sync.manifest.document import Document, Path
from kapso_sync.manifest.schema import CheckModel, EntryModel, SecretModel, SharedModel, WatchModel
from kapso_sync.model.desired import (
    NOTHING,
    Check,
    CheckMethod,
    CheckSignature,
    DotenvSecret,
    Entry,
    EnvSecret,
    FileSecret,
    KeepSecret,
    PlainSecret,
    SecretSource,
    WatchPolicy,
)
from kapso_sync.model.functions import DESCRIPTION, FIELDS
from kapso_sync.model.json_values import Json, canonical_json
from kapso_sync.model.ownership import without_marks
from kapso_sync.model.policies import Contract, DriftPolicy
from kapso_sync.model.source import CODE_SUFFIXES, NOT_FOLLOWED, Snapshot, SourceFile, refused_parent
from kapso_sync.units import parse_duration, parse_percentage

_PUT_IT_THERE = "put the file itself into the functions folder"

GUESSED_SUFFIXES = (".ts", ".js")
"""Suffixes of the file ``<slug>`` that an entry without ``file`` means."""


def merged(entry: SharedModel | None, defaults: SharedModel | None) -> dict[str, object]:
    """Return an entry's keys merged with the defaults. A mapping or list of the entry replaces the default's as a whole."""
    values: dict[str, object] = {}
    for model in (defaults, entry):
        if model is not None:
            values |= {name: value for name, value in model.given().items() if name in EntryModel.__struct_fields__}
    return values


def former_slugs(moved_from: str | list[str] | None) -> tuple[str, ...] | None:
    """Return the slugs of a ``moved_from``, of which one stands for a list of one; None if nothing is given."""
    return None if moved_from is None else (moved_from,) if isinstance(moved_from, str) else tuple(moved_from)


def make_entry(slug: str, file: str, values: Mapping[str, object], location: Location) -> Entry:
    """Return the entry for these merged keys."""
    fields: dict[str, Json] = {name: values[name] for name in FIELDS if name in values}  # type: ignore[misc]
    if isinstance(text := fields.get(DESCRIPTION), str):
        fields[DESCRIPTION] = without_marks(text)
    minify, flow = values.get("minify"), values.get("whatsapp_flow")
    protected, deploy, drift, moved_from = (values.get(name) for name in ("protected", "deploy", "drift", "moved_from"))
    secrets: Mapping[str, SecretModel] = values.get("secrets") or {}  # type: ignore[assignment]
    checks: list[CheckModel] = values.get("checks") or []  # type: ignore[assignment]
    watch = values.get("watch")
    return Entry(
        slug=slug,
        file=file,
        location=location,
        fields=fields or NOTHING,
        contract=Contract(str(values.get("contract", Contract.AUTO))),
        deploy=deploy is not False,
        protected=None if protected is None else bool(protected),
        drift=None if drift is None else DriftPolicy(str(drift)),
        moved_from=former_slugs(moved_from),  # type: ignore[arg-type]
        secrets={name: _secret(model) for name, model in secrets.items()} or NOTHING,
        checks=tuple(map(_check, checks)),
        minify=minify is True,
        whatsapp_flow=None if flow is None else str(flow),
        watch=_watch(watch) if isinstance(watch, WatchModel) else None,
    )


def _check(model: CheckModel) -> Check:
    expect = model.expect
    sign = model.sign
    check = Check(
        model.request,
        expect.status,
        expect.json_,
        expect.text,
        expect.matches,
        method=CheckMethod(model.method or CheckMethod.POST),
        headers=tuple((model.headers or {}).items()),
        body=model.text,
        sign=None if sign is None else CheckSignature(sign.header, sign.secret, sign.prefix or ""),
    )
    return check if model.timeout is None else replace(check, timeout=model.timeout)


def _watch(model: WatchModel) -> WatchPolicy:
    given: dict[str, Any] = {}
    if model.for_ is not None:
        given["period"] = parse_duration(model.for_)
    if model.failures is not None:
        given["failures"] = model.failures
    if model.ratio is not None:
        given["percent"] = parse_percentage(model.ratio)
    return WatchPolicy(**given)


def _secret(model: SecretModel) -> SecretSource:
    if model.keep:
        return KeepSecret()
    if model.env is not None:
        return EnvSecret(model.env, json=model.json_ is True)
    if model.file is not None:
        return FileSecret(model.file, json=model.json_ is True)
    if model.dotenv is not None:
        file, _, name = model.dotenv.rpartition("#")
        return DotenvSecret(file, name)
    return PlainSecret(model.value if isinstance(model.value, str | dict | list) else canonical_json(model.value))


MAX_PATH = 4096
"""Longest path of a file, in characters; Linux takes no more bytes than that."""

SHOWN_PATH = 200


def choose_file(slug: str, entry: EntryModel, files: Mapping[str, SourceFile], location: Location) -> str | Problem:
    """Return the path of an entry's code, or the problem with it."""
    if entry.file is not None:
        wrong = path_problem(entry.file)
        if wrong is not None:
            text = f"functions.{slug}.file: {entry.file[:SHOWN_PATH]!r} {wrong}"
            return Problem("path", text, location, "name a file inside the folder")
        return "/".join(_parts(entry.file))
    found = [f"{slug}{suffix}" for suffix in GUESSED_SUFFIXES if f"{slug}{suffix}" in files]
    if len(found) == 1:
        return found[0]
    wanted = " and ".join(found) if found else " nor ".join(f"{slug}{suffix}" for suffix in GUESSED_SUFFIXES)
    if found:
        return Problem("two-files", f"functions.{slug}: both {wanted} exist", location, "say which one with `file`")
    return Problem(
        "missing-file", f"functions.{slug}: neither {wanted} exists", location, "add it, or name the code with `file`"
    )


def path_problem(path: str) -> str | None:
    """Return why a path is refused, as the end of a sentence, or None."""
    if len(path) > MAX_PATH:
        return f"is longer than {MAX_PATH} characters"
    if path.startswith("/") or path[1:2] == ":":
        return "is absolute"
    if "\\" in path:
        return "has a backslash; use forward slashes"
    if ".." in _parts(path):
        return "leads out of the folder"
    if not path.isprintable() and any(ord(char) < 32 for char in path):
        return "has a control character"
    return None if _parts(path) else "names no file"


def _parts(path: str) -> list[str]:
    """Return the names in a relative path, as a `PurePosixPath` has them, which takes ten times as long."""
    return [name for name in path.split("/") if name not in ("", ".")]


@dataclass(frozen=True, slots=True)
class FileIndex:
    """The files of a snapshot, to look up what a path that is not there may mean; thousands of entries may name one."""

    snapshot: Snapshot
    by_folded: Mapping[str, str]
    paths: Sequence[str]

    @classmethod
    def of(cls, snapshot: Snapshot) -> FileIndex:
        """Return the index of a snapshot."""
        return cls(snapshot, {folded(path): path for path in snapshot.files}, sorted(snapshot.files))

    def first_below(self, folder: str) -> str | None:
        """Return the first file in a folder, or None."""
        place = bisect.bisect_left(self.paths, f"{folder}/")
        return self.paths[place] if place < len(self.paths) and self.paths[place].startswith(f"{folder}/") else None


def file_problem(slug: str, path: str, index: FileIndex, location: Location) -> Problem | None:
    """Return why an entry's file cannot be used, or None."""
    file = index.snapshot.files.get(path)
    if file is None:
        return _absent(f"functions.{slug}: {path}", path, index, location)
    if file.content is None:
        return Problem("unreadable-file", f"functions.{slug}: {path} {file.problem}", location)
    return None


def _absent(said: str, path: str, index: FileIndex, location: Location) -> Problem:
    """Return why a file was not read; a person who sees it in the folder must not be told that it does not exist."""
    snapshot = index.snapshot
    above = refused_parent(path, snapshot.files)
    if above is not None:
        return Problem("unreadable-file", f"{said} is not read: {above.path} {above.problem}", location, _PUT_IT_THERE)
    skipped = next((part for part in PurePosixPath(path).parts if part.startswith(".") or part in NOT_FOLLOWED), None)
    if skipped is not None:
        return Problem("unreadable-file", f"{said} is not read, since {skipped} is left out", location, _PUT_IT_THERE)
    if path in snapshot.unread:
        hint = f"code ends with {', '.join(CODE_SUFFIXES)}"
        return Problem("unreadable-file", f"{said} is of a kind that is not read", location, hint)
    inside = index.first_below(path)
    if inside is not None:
        return Problem("missing-file", f"{said} is a folder", location, f"name a file in it, such as {inside}")
    close = index.by_folded.get(folded(path))
    hint = f"there is {close}: names are compared exactly" if close else "add the file, or correct the name"
    return Problem("missing-file", f"{said} does not exist", location, hint)


def twins(files: Mapping[str, SourceFile]) -> Mapping[str, tuple[str, ...]]:
    """Return, by path, the other files that differ only by case or Unicode form: some file systems take them for one file."""
    groups: dict[str, list[str]] = {}
    for path in sorted(files):
        groups.setdefault(folded(path), []).append(path)
    return {
        path: tuple(other for other in group if other != path) for group in groups.values() if len(group) > 1 for path in group
    }


def folded(path: str) -> str:
    """Return a path as a case-insensitive file system compares it."""
    return unicodedata.normalize("NFC", path).casefold()


def check_names(document: Document, entries: Mapping[str, EntryModel | None]) -> None:
    """Report duplicate names and WhatsApp Flows, and impossible ``moved_from``."""
    names: dict[str, str] = {}
    flows: dict[str, str] = {}
    sources: dict[str, str] = {}
    for slug, entry in entries.items():
        if entry is None:
            continue
        _once(document, names, (slug, "name"), entry.name)
        _once(document, flows, (slug, "whatsapp_flow"), entry.whatsapp_flow)
        for source in former_slugs(entry.moved_from) or ():
            _once(document, sources, (slug, "moved_from"), source)
        if slug in (former_slugs(entry.moved_from) or ()):
            location = document.location(("functions", slug, "moved_from"))
            text = f"functions.{slug}.moved_from: it is the function's own slug"
            document.problems.append(document.problem("moved-from", text, location, "remove it"))


def check_signatures(
    document: Document, entries: Mapping[str, EntryModel | None], slugs: Iterable[str], defaults: SharedModel | None
) -> None:
    """Report checks that are signed with a secret whose text the manifest does not give; ``slugs`` are all functions."""
    for slug in slugs:
        entry = entries.get(slug)
        values = merged(entry, defaults)
        secrets: Mapping[str, SecretModel] = values.get("secrets") or {}  # type: ignore[assignment]
        checks: list[CheckModel] = values.get("checks") or []  # type: ignore[assignment]
        inherited = entry is None or entry.checks is None
        for number, check in enumerate(checks):
            wrong = None if check.sign is None else _unusable_key(secrets.get(check.sign.secret))
            if check.sign is None or wrong is None:
                continue
            below: Path = ("checks", number, "sign", "secret")
            where = document.location((*(("defaults",) if inherited else ("functions", slug)), *below))
            text = f"functions.{slug}.checks[{number}].sign.secret: {wrong[0].format(name=check.sign.secret)}"
            document.problems.append(document.problem("sign-secret", text, where, wrong[1]))


def _unusable_key(secret: SecretModel | None) -> tuple[str, str] | None:
    """Return why a secret cannot sign a check, and what to do; None: it can."""
    if secret is None:
        return "the function has no secret `{name}`", "add it to `secrets`, with where its value comes from"
    if secret.keep:
        return (
            "the value of `{name}` is on Kapso alone, so nothing can be signed with it",
            "give it with `env`, `file` or `dotenv`",
        )
    if secret.json_ or not isinstance(secret.value, str | None):
        return "`{name}` is JSON, and a signature needs a text", "sign with a secret that is a text"
    return None


def _once(document: Document, seen: dict[str, str], where: tuple[str, str], value: str | None) -> None:
    slug, key = where
    if value is None:
        return
    if value in seen:
        first = document.location(("functions", seen[value], key))
        text = f"functions.{slug}.{key}: `{value}` is given in line {first.line} as well"
        document.problems.append(
            document.problem("duplicate", text, document.location(("functions", slug, key)), "make them differ")
        )
    seen.setdefault(value, slug)
