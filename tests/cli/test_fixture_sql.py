"""The SQL of fixtures, where it takes long: a pull request must not hold `validate`, which runs on every commit."""

from __future__ import annotations

import asyncio
import time

import pytest

from kapso_sync.cli.fixtures import script_problems
from kapso_sync.manifest.fixtures import Fixtures

ENDLESS = "SELECT 1;\nWITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c;\n"
INSIDE_ONE_STEP = "SELECT instr(zeroblob(1900000), zeroblob(950000) || x'01')"


def scripts(**by_slug: str) -> dict[str, Fixtures]:
    return {slug: Fixtures(f"{slug}.fetch.yaml", script=sql, script_file=f"{slug}.db.sql") for slug, sql in by_slug.items()}


async def test_the_sql_of_all_fixtures_has_one_budget() -> None:
    """What has no time left is a problem of its own. A control: what comes before is loaded."""
    started = time.monotonic()
    found = await script_problems(scripts(good="SELECT 1", long=ENDLESS, a=ENDLESS, b="SELECT 1"), budget=0.3)
    assert time.monotonic() - started < 3
    said = {slug: [str(problem) for problem in problems] for slug, problems in found.items()}
    assert said["long"][0].startswith("long.db.sql:2:1: its SQL did not end in 0.")
    unread = "its SQL was not tried: that of the fixtures before it took too long"
    assert said == {"long": said["long"], "a": [f"a.db.sql: {unread}"], "b": [f"b.db.sql: {unread}"]}


async def test_a_cancelled_validate_does_not_wait_for_sql() -> None:
    """So SIGTERM and SIGINT end it at once, also while SQLite is inside one step."""
    work = asyncio.create_task(script_problems(scripts(a=INSIDE_ONE_STEP, b=INSIDE_ONE_STEP)))
    await asyncio.wait({work}, timeout=0.1)
    started = time.monotonic()
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    await asyncio.get_running_loop().shutdown_default_executor()
    assert time.monotonic() - started < 2
