"""Puts the fixtures of functions in place of the world: `test` runs with them, and `validate` finds what is wrong with them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from kapso_sync.errors import Location, ManifestInvalid, Problem
from kapso_sync.manifest.document import Document
from kapso_sync.manifest.fixtures import Fixtures, read_fixtures
from kapso_sync.model.desired import Desired
from kapso_sync.model.json_values import Json
from kapso_sync.model.source import SourceFile

if TYPE_CHECKING:
    from kapso_sync.emulator.values import JsonObject
    from kapso_sync.emulator.workerd.d1 import Database
    from kapso_sync.emulator.workerd.kv import KeyValues


SQL_BUDGET = 15.0
"""Seconds that the SQL of all fixtures takes together in `validate`: each may take some, and there may be hundreds."""


async def fixture_problems(desired: Desired, files: Mapping[str, SourceFile]) -> tuple[Problem, ...]:
    """Return all problems of the fixtures beside functions, also of those that have no checks, or code that is invalid."""
    named = [(function.slug, function.entry.file) for function in desired.functions]
    named += [(function.slug, function.file) for function in desired.unusable if function.file is not None]
    problems: dict[str, tuple[Problem, ...]] = {}
    scripts: dict[str, Fixtures] = {}
    for slug, file in sorted(named):
        try:
            fixtures = read_fixtures(slug, file, files)
        except ManifestInvalid as error:
            problems[slug] = error.problems
        else:
            if fixtures.script_file is not None:
                scripts[slug] = fixtures
    problems |= await script_problems(scripts) if scripts else {}
    return tuple(problem for slug in sorted(problems) for problem in problems[slug])


async def script_problems(scripts: Mapping[str, Fixtures], budget: float = SQL_BUDGET) -> dict[str, tuple[Problem, ...]]:
    """Return the problems of fixtures' SQL, by the slug of its function; all of it takes ``budget`` seconds at most."""
    from kapso_sync.emulator.workerd.d1 import Database  # few sources have SQL, and the module takes time to import

    def load_all() -> dict[str, tuple[Problem, ...]]:
        problems: dict[str, tuple[Problem, ...]] = {}
        ends = time.monotonic() + budget
        for slug, fixtures in scripts.items():
            try:
                load_script(database, fixtures, ends - time.monotonic())
            except ManifestInvalid as error:
                problems[slug] = error.problems
        return problems

    with contextlib.closing(Database()) as database:
        # In a thread, so that a signal ends this at once: the thread ends with the database that it waits for.
        return await asyncio.to_thread(load_all)


def load_script(database: Database, fixtures: Fixtures, budget: float = SQL_BUDGET) -> None:
    """Let ``env.DB`` be what the fixtures' SQL makes, in ``budget`` seconds at most; raises `ManifestInvalid`."""
    if fixtures.script_file is None:
        return
    from kapso_sync.emulator.workerd.d1 import ScriptRefused
    from kapso_sync.emulator.workerd.sqlite_worker import LONGEST_QUERY

    document = Document(fixtures.script_file, fixtures.script)
    limits = f"a fixture's SQL may take {LONGEST_QUERY:g} s, and that of all fixtures {SQL_BUDGET:g} s together"
    if budget <= 0:
        said = "its SQL was not tried: that of the fixtures before it took too long"
        raise ManifestInvalid([Problem("fixture", said, Location(document.file), limits)])
    seconds = min(budget, LONGEST_QUERY)
    started = time.monotonic()
    try:
        database.load(fixtures.script, seconds)
    except ScriptRefused as error:
        late = time.monotonic() - started >= seconds
        said, hint = (
            (f"its SQL did not end in {seconds:.2g} s", limits) if late else (f"SQLite refuses it: {error}", "correct the SQL")
        )
        where = Location(document.file, error.line, error.column)
        raise ManifestInvalid([document.problem("fixture", said, where, hint)]) from error


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
