"""Puts the fixtures of functions in place of the world: `test` runs with them, and `validate` finds what is wrong with them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from kapso_sync.errors import Location, ManifestInvalid, Problem
from kapso_sync.manifest.fixtures import Fixtures, read_fixtures
from kapso_sync.model.desired import Desired
from kapso_sync.model.functions import Json
from kapso_sync.model.source import SourceFile

if TYPE_CHECKING:
    from kapso_sync.emulator.values import JsonObject
    from kapso_sync.emulator.workerd.d1 import Database
    from kapso_sync.emulator.workerd.kv import KeyValues


def fixture_problems(desired: Desired, files: Mapping[str, SourceFile]) -> tuple[Problem, ...]:
    """Return all problems of the fixtures beside functions, also of those that have no checks, or code that is invalid."""
    named = [(function.slug, function.entry.file) for function in desired.functions]
    named += [(function.slug, function.file) for function in desired.unusable if function.file is not None]
    return tuple(problem for slug, file in sorted(named) for problem in _problems(slug, file, files))


def _problems(slug: str, file: str, files: Mapping[str, SourceFile]) -> Iterator[Problem]:
    try:
        fixtures = read_fixtures(slug, file, files)
        if fixtures.script_file is not None:
            from kapso_sync.emulator.workerd.d1 import Database  # few sources have SQL, and the module takes time to import

            load_script(Database(), fixtures)
    except ManifestInvalid as error:
        yield from error.problems


def load_script(database: Database, fixtures: Fixtures) -> None:
    """Fill ``env.DB`` with what the fixtures' SQL makes; raises `ManifestInvalid`."""
    if fixtures.script_file is None:
        return
    try:
        database.load(fixtures.script)
    except (sqlite3.Error, sqlite3.Warning, ValueError) as error:
        where = Location(fixtures.script_file)
        raise ManifestInvalid([Problem("fixture", f"SQLite refuses it: {error}", where, "correct the SQL")]) from error


def load_values(store: KeyValues, fixtures: Fixtures) -> None:
    """Fill ``env.KV`` with the fixtures' values."""
    from kapso_sync.emulator.workerd.kv import Value

    for key, value in fixtures.values.items():
        store.put(key, Value(value.encode("utf-8", "replace")))


def outbound_of(fixtures: Fixtures, *, network: bool) -> JsonObject:
    """Return what `fetch` gets, as `Call.outbound` has it; ``network``: what no fixture answers goes out."""
    rules: list[Json] = [
        {
            "method": answer.method,
            "url": answer.url,
            "status": answer.status,
            "headers": dict(answer.headers),
            "body": answer.body,
        }
        for answer in fixtures.answers
    ]
    refusal = (
        f"fetch of {{request}} is refused: tests make no requests. Add the URL and its answer to {fixtures.fetch_file}, "
        "or allow all requests with --network"
    )
    return {"rules": rules, "refusal": refusal, "network": network}
