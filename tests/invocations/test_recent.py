"""The invocations that the page shows: asked for when somebody looks, seldom, without bodies and secrets."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from kapso_sync.errors import KapsoSyncError
from kapso_sync.invocations.recent import KEPT, MAX_ASKING, MAX_KEPT, MAX_TEXT, RecentInvocations
from kapso_sync.model.function_view import InvocationsView
from kapso_sync.model.functions import ConsoleLine, InvocationRecord
from tests.builders import moment
from tests.clock import VirtualClock
from tests.world import WorldApi, new_world

ROUTE = "/functions/{id}/invocations"


class Bench:
    """A function on a world in memory, and what asks about it."""

    def __init__(self, folder: Path) -> None:
        self.clock = VirtualClock()
        self.world = new_world(self.clock)
        self.functions = [self.world.create({"name": f"greet {number}", "code": "x"}) for number in range(MAX_ASKING + 1)]
        self.api: Api | None = Api(self.world)
        self.secrets: list[str] = []
        self.recent = RecentInvocations(
            lambda: self.api, lambda: folder, self.clock, self.redact, lambda: self.secrets.append("topsecret"), lambda: 60.0
        )

    def redact(self, text: str) -> str:
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return text

    def invoke(self, status: int = 200, number: int = 0) -> None:
        self.world.record_invocation(self.functions[number], {"card": "topsecret-body"}, status)

    async def read(self, number: int = 0) -> InvocationsView:
        return await self.recent.read(self.functions[number].id, self.functions[number].slug)

    @property
    def calls(self) -> int:
        assert self.api is not None
        return self.api.count("GET", ROUTE)


class Api(WorldApi):
    """The world's API, whose answers can be held back, or replaced."""

    held: asyncio.Event | None = None
    records: tuple[InvocationRecord, ...] | None = None

    async def list_invocations(
        self, function_id: str, *, limit: int = 10, status: str | None = None
    ) -> tuple[InvocationRecord, ...]:
        found = await super().list_invocations(function_id, limit=limit, status=status)
        if self.held is not None:
            await self.held.wait()
        return found if self.records is None else self.records


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


async def test_each_look_is_one_call_and_a_reload_within_seconds_none(bench: Bench) -> None:
    """The newest comes first, and is there once the answer is old."""
    bench.invoke(200)
    bench.invoke(500)
    shown = await bench.read()
    assert [(each.status_code, each.succeeded) for each in shown.invocations] == [(500, False), (200, True)]
    bench.invoke(201)
    assert await bench.read() is shown
    assert bench.calls == 1
    await bench.clock.sleep(KEPT)
    assert [each.status_code for each in (await bench.read()).invocations] == [201, 500, 200]
    assert bench.calls == 2


async def test_several_people_who_look_at_once_cost_one_call(bench: Bench) -> None:
    """Nobody can use up the minute's calls by opening the page often."""
    bench.invoke()
    answers = await asyncio.gather(*(bench.read() for _ in range(10)))
    assert len({id(each) for each in answers}) == bench.calls == 1


async def test_only_a_few_functions_are_asked_about_at_once(bench: Bench) -> None:
    """The next one is told to come back; the answer of those that wait is not lost."""
    assert bench.api is not None
    bench.api.held = asyncio.Event()
    first = [asyncio.ensure_future(bench.read(number)) for number in range(MAX_ASKING)]
    await asyncio.sleep(0)
    with pytest.raises(KapsoSyncError, match="others are being asked about"):
        await bench.read(MAX_ASKING)
    bench.api.held.set()
    await asyncio.gather(*first)
    await bench.read(MAX_ASKING)
    assert bench.calls == MAX_ASKING + 1


async def test_a_failure_is_kept_as_well(bench: Bench) -> None:
    """Reloading the page does not hammer an API that does not answer."""
    assert bench.api is not None
    bench.functions[0] = replace(bench.functions[0], id="id-of-nothing")
    for _ in range(3):
        with pytest.raises(KapsoSyncError):
            await bench.read()
    assert bench.calls == 1


async def test_who_waits_too_long_is_told_and_the_answer_is_kept(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The call itself is not cancelled."""
    assert bench.api is not None
    monkeypatch.setattr("kapso_sync.invocations.recent.TIMEOUT", 0.01)
    bench.api.held = asyncio.Event()
    with pytest.raises(KapsoSyncError, match="has not answered"):
        await bench.read()
    bench.api.held.set()
    await bench.read()
    assert bench.calls == 1


async def test_bodies_are_never_shown_and_secrets_are_redacted(bench: Bench) -> None:
    """In console lines, traces and errors, also where a secret stands at the end of what is shown."""
    assert bench.api is not None
    console = (
        ConsoleLine("log", "token topsecret"),
        ConsoleLine("error", "Error: topsecret", None, "Error: topsecret\n    at greet (greet.js:1:2)"),
        ConsoleLine("log", "x" * (MAX_TEXT - 4) + "topsecret" + "y" * 5000),
    )
    record = InvocationRecord("i", 500, 3.0, "Error: topsecret", moment(1), console, {"card": "topsecret"}, "topsecret")
    bench.api.records = (record, replace(record, console=(), error="Error: other"))
    first, second = (await bench.read()).invocations
    assert "topsecret" not in repr(first.lines) + repr(second.lines)
    assert [(line.level, line.text[:16]) for line in first.lines] == [
        ("log", "token ***"),
        ("error", "Error: ***\n    a"),
        ("log", "x" * 16),
    ]
    assert len(first.lines[2].text) == MAX_TEXT + 1
    assert [line.text for line in second.lines] == ["Error: other"]
    assert "card" not in repr(first)


async def test_answers_are_kept_of_few_functions(bench: Bench) -> None:
    """However many are looked at."""
    for number in range(MAX_KEPT + 5):
        function = bench.world.create({"name": f"other {number}", "code": "x"})
        await bench.recent.read(function.id, function.slug)
    assert (len(bench.recent._kept), len(bench.recent._asking)) == (MAX_KEPT, 0)


async def test_without_an_open_session_nothing_is_asked(bench: Bench) -> None:
    """Such as while a git server does not answer at the start."""
    bench.api = None
    with pytest.raises(KapsoSyncError, match="not open"):
        await bench.read()
