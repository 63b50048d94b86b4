"""The list of functions is read while git transfers a revision, and what a pass uses of it is never old."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from kapso_sync.errors import Location, ManifestInvalid, Problem, SourceUnavailable
from kapso_sync.model.events import ApiCalled
from kapso_sync.model.source import Revision, Snapshot
from kapso_sync.reconcile.cycle import PassRequest
from kapso_sync.reconcile.observe import MAX_LIST_AGE, EarlierList
from tests.builders import desired, want
from tests.reconcile.passes import Bench


class _Transferring:
    """A source with a new revision, which is being transferred until ``during`` has ended."""

    def __init__(self, during: Callable[[], Awaitable[None]]) -> None:
        self._during = during

    async def fetch(self, on_transfer: Callable[[], None] = lambda: None) -> Snapshot:
        on_transfer()
        await self._during()
        return Snapshot("test", Revision("c0ffee"))

    async def moved(self, *, keep: bool = True) -> bool:  # noqa: ARG002 - there is nothing to keep
        return True

    def forget(self) -> None:
        pass


async def _until_listed(bench: Bench) -> None:
    async with asyncio.timeout(5):
        while not bench.api.count("GET", "/functions"):  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0)


async def test_the_list_is_read_while_git_transfers_a_revision(bench: Bench) -> None:
    """Here git waits for the list: if the list waited for git, the pass would never end. It is asked for once."""
    bench.source = _Transferring(lambda: _until_listed(bench))
    plan = await bench.plan(desired(want("greet")))
    assert [step.action for step in plan.steps] == ["create"]
    assert bench.api.count("GET", "/functions") == 1


async def test_a_list_that_became_old_during_a_transfer_is_read_again(bench: Bench) -> None:
    """What somebody created meanwhile is seen."""

    async def during() -> None:
        await _until_listed(bench)
        bench.api.world.create({"slug": "greet", "name": "greet", "code": "x"})
        await bench.clock.sleep(MAX_LIST_AGE + 1)

    bench.source = _Transferring(during)
    plan = await bench.plan(desired(want("greet")))
    assert [step.action for step in plan.steps] == ["blocked"]
    assert bench.api.count("GET", "/functions") == 2


async def test_the_list_is_read_while_code_is_built(bench: Bench) -> None:
    """Once the manifest is read, a build that takes long keeps nobody from asking."""
    bench.during_build = lambda: _until_listed(bench)
    plan = await bench.plan(desired(want("greet")))
    assert [step.action for step in plan.steps] == ["create"]
    assert bench.api.count("GET", "/functions") == 1


async def test_a_manifest_that_cannot_be_read_costs_no_call(bench: Bench) -> None:
    """A daemon meets it at each look."""

    async def during() -> None:
        await asyncio.sleep(0)
        raise ManifestInvalid([Problem("syntax", "it cannot be read", Location("manifest.yaml"))])

    bench.before_manifest = during
    with pytest.raises(ManifestInvalid):
        await bench.plan(desired(want("greet")))
    assert bench.api.log == []


async def test_a_transfer_that_fails_is_the_error_whatever_became_of_the_list(bench: Bench) -> None:
    """No request is left behind."""
    running = asyncio.all_tasks()

    async def during() -> None:
        await _until_listed(bench)
        raise SourceUnavailable("the line broke")

    bench.source = _Transferring(during)
    with pytest.raises(SourceUnavailable, match="the line broke"):
        await bench.plan(desired(want("greet")))
    assert asyncio.all_tasks() == running


@pytest.mark.parametrize("age", [0.0, MAX_LIST_AGE + 1])
@pytest.mark.parametrize("current", [False, True])
async def test_an_earlier_list_is_used_while_it_is_young_and_goes_with_the_state(
    bench: Bench, *, age: float, current: bool
) -> None:
    """Else the list is read again; what was called for it counts in any case."""
    listed = await bench.api.list_records()
    call = ApiCalled(method="GET", route="/functions", status=200, duration_ms=1)
    earlier = EarlierList((call,), listed, bench.clock.monotonic(), lambda: current)
    await bench.clock.sleep(age)
    before = len(bench.api.log)
    report = await bench.sync(desired(want("greet")), PassRequest(earlier=earlier))
    made = [entry[0] for entry in bench.api.log[before:]]
    assert (report.count("create"), report.api_calls) == (1, len(made) + 1)
    assert made[0] == ("POST" if current and not age else "GET")
    assert bench.events.index(call) == 1, "it is logged after the pass has begun"
