"""Reads the fixtures of a function: what `fetch`, ``env.KV`` and ``env.DB`` are when its checks run on this machine.

They lie beside its code, are named by its slug, and are never uploaded.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import field
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from kapso_sync.dataclass import dataclass
from kapso_sync.errors import Location, ManifestInvalid, Problem
from kapso_sync.manifest.checking import ambiguities, check
from kapso_sync.manifest.document import read_document
from kapso_sync.manifest.schema import HEADER_PATTERN, HeaderText, Strict
from kapso_sync.model.json_values import Json, canonical_json
from kapso_sync.model.source import SourceFile

MAX_ANSWERS = 200
"""Most answers of one function's `fetch`."""

MAX_KEY = 512
"""Longest key of ``env.KV``, in bytes."""


class AnswerModel(Strict, frozen=True, kw_only=True):
    """The answer to a request of the function."""

    status: Annotated[int, Meta(ge=200, le=599)] = 200
    headers: dict[Annotated[str, Meta(pattern=HEADER_PATTERN)], HeaderText] = msgspec.field(default_factory=dict)
    json_: Json | UnsetType = msgspec.field(default=UNSET, name="json")
    text: str | None = None

    @staticmethod
    def rule(given: Mapping[str, Json]) -> str | None:
        """One body."""
        return "expected `json` or `text`, and both are given" if {"json", "text"} <= given.keys() else None


class FetchModel(Strict, frozen=True, kw_only=True):
    """A request of the function, and its answer."""

    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] = "GET"
    url: Annotated[str, Meta(min_length=1, max_length=2000)]
    answer: AnswerModel


FETCHES: type[list[FetchModel]] = Annotated[list[FetchModel], Meta(max_length=MAX_ANSWERS)]  # type: ignore[assignment]
"""The answers that `fetch` gives."""


@dataclass(frozen=True, slots=True)
class FetchAnswer:
    """The answer of `fetch` to a method and to URLs of a pattern, in which ``*`` stands for any text."""

    method: str
    url: str
    status: int
    headers: Mapping[str, str]
    body: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Fixtures:
    """The fixtures of one function. ``values`` are those of ``env.KV`` by key, and ``script`` is the SQL of ``env.DB``.

    ``fetch_file`` is where an answer of `fetch` belongs, whether or not there is such a file.
    """

    fetch_file: str
    answers: tuple[FetchAnswer, ...] = ()
    values: Mapping[str, str] = field(default_factory=dict, repr=False)
    script: str = field(default="", repr=False)
    script_file: str | None = None


def read_fixtures(slug: str, file: str, files: Mapping[str, SourceFile]) -> Fixtures:
    """Return the fixtures beside a function's code, ``file``; raises `ManifestInvalid` with all that is wrong with them."""
    paths = fixture_files(slug, file)
    places = {kind: [name for name in names if name in files] for kind, names in paths.items()}
    problems = [
        Problem("two-files", f"there are {' and '.join(found)}", Location(found[0]), "keep one of them")
        for found in places.values()
        if len(found) > 1
    ]
    answers: tuple[FetchAnswer, ...] = ()
    values: Mapping[str, str] = {}
    script = ""
    for kind, found in places.items():
        for name in found[:1]:
            content = files[name].content
            if content is None:
                problems.append(Problem("unreadable-file", f"{name} {files[name].problem}", Location(name)))
            elif kind == "fetch":
                answers = _answers(name, content, problems)
            elif kind == "kv":
                values = _values(name, content, problems)
            else:
                script = _script(name, content, problems)
    if problems:
        raise ManifestInvalid(problems)
    script_file = next(iter(places["db"]), None)
    return Fixtures(paths["fetch"][0], answers, values, script, script_file)


def fixture_files(slug: str, file: str) -> Mapping[str, tuple[str, ...]]:
    """Return the paths that the fixtures of a function with its code in ``file`` may have, by kind."""
    stem = posixpath.join(posixpath.dirname(file), slug)
    suffixes = ("yaml", "yml", "json")
    return {
        "fetch": tuple(f"{stem}.fetch.{suffix}" for suffix in suffixes),
        "kv": tuple(f"{stem}.kv.{suffix}" for suffix in suffixes),
        "db": (f"{stem}.db.sql",),
    }


def _answers(name: str, content: bytes, problems: list[Problem]) -> tuple[FetchAnswer, ...]:
    document = read_document(name, content)
    models = check(document, FETCHES)
    problems += document.problems
    return tuple(map(_answer, models)) if models is not None and not document.problems else ()


def _answer(model: FetchModel) -> FetchAnswer:
    answer = model.answer
    headers = dict(answer.headers)
    body = answer.text or ""
    if answer.json_ is not UNSET:
        body = json.dumps(answer.json_)
        if "content-type" not in {header.lower() for header in headers}:
            headers["Content-Type"] = "application/json"
    return FetchAnswer(model.method, model.url, answer.status, headers, body)


def _values(name: str, content: bytes, problems: list[Problem]) -> Mapping[str, str]:
    document = read_document(name, content)
    problems += document.problems
    if document.problems:
        return {}
    if not isinstance(document.value, dict):
        problems.append(Problem("value", "expected a mapping of keys to values", Location(name, 1, 1)))
        return {}
    too_long = [key for key in document.value if not key or len(key.encode("utf-8", "surrogatepass")) > MAX_KEY]
    problems += [
        Problem("value", f"expected a key of 1 to {MAX_KEY} bytes", document.location((key,), key=True)) for key in too_long
    ]
    problems += ambiguities(document)
    return {key: _text(value) for key, value in document.value.items()}


def _text(value: Json) -> str:
    return value if isinstance(value, str) else canonical_json(value)


def _script(name: str, content: bytes, problems: list[Problem]) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        problems.append(Problem("encoding", f"{name} is not UTF-8 text", Location(name)))
        return ""


def contents_of(slug: str, file: str, files: Mapping[str, SourceFile]) -> Iterator[tuple[str, bytes | None]]:
    """Yield the fixtures' files that there are, with their contents."""
    for names in fixture_files(slug, file).values():
        for name in names:
            if name in files:
                yield name, files[name].content
