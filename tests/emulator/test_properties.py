"""What must hold of the emulator for any input."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from kapso_sync.emulator.answers import list_answer
from kapso_sync.emulator.faults import Rule
from kapso_sync.emulator.limiter import FixedWindow
from kapso_sync.emulator.options import Behaviour, EmulatorOptions
from kapso_sync.emulator.storage import MemoryStorage
from kapso_sync.emulator.values import parse_json
from kapso_sync.emulator.world import EmulatedProject
from tests.clock import VirtualClock

SECONDS = st.integers(0, 20)
STEPS = st.lists(st.one_of(st.tuples(st.just("deploy"), SECONDS), st.tuples(st.just("wait"), SECONDS)), max_size=20)


@given(STEPS)
def test_live_code_is_that_of_the_deployment_that_ended_last(steps: list[tuple[str, int]]) -> None:
    """However deployments overlap, and as the code was when that deployment was requested."""

    async def scenario() -> None:
        clock = VirtualClock()
        world = EmulatedProject(EmulatorOptions(), clock=clock, storage=MemoryStorage())
        function = world.create({"name": "f", "code": "start"})
        ends: list[tuple[float, int, str]] = []
        for number, (step, seconds) in enumerate(steps):
            if step == "wait":
                await clock.sleep(seconds)
            else:
                code = f"const version = {number};"
                world.update(function, {"code": code})
                world.deploy(function, delay=seconds)
                ends.append((clock.monotonic() + seconds, number, code))
            over = [end for end in ends if end[0] <= clock.monotonic()]
            assert world.live_code()["f"] == (max(over)[2] if over else None)
            assert len(world.deployments) == len(ends) - len(over)

    asyncio.run(scenario())


@given(st.lists(st.floats(0, 7), max_size=40), st.integers(1, 5), st.sampled_from([1.0, 2.5, 10.0]))
def test_no_rate_limit_window_admits_more_than_its_limit(pauses: list[float], limit: int, seconds: float) -> None:
    """Whatever the times, each window serves its first requests up to the limit, and refuses the others."""

    async def scenario() -> None:
        clock = VirtualClock()
        limiter = FixedWindow(limit, seconds, clock)
        asked: dict[int, int] = {}
        for pause in pauses:
            await clock.sleep(pause)
            window = int(clock.monotonic() // seconds)
            asked[window] = asked.get(window, 0) + 1
            allowance = limiter.take()
            assert allowance.allowed == (asked[window] <= limit)
            assert allowance.remaining == max(limit - asked[window], 0)

    asyncio.run(scenario())


@given(st.lists(st.integers(), max_size=60), st.integers(1, 20), st.integers(1, 30))
def test_all_pages_together_are_the_list(items: list[int], page_size: int, asked: int) -> None:
    """Following the pages gives every item once, in order, for any size of page."""
    behaviour = Behaviour(page_size=page_size)

    def pages() -> Iterator[list[int]]:
        number, total = 1, 1
        while number <= total:
            answer = list_answer(items, {"page": str(number), "limit": str(asked)}, behaviour, lambda item: item)
            body = parse_json(answer.body)
            assert isinstance(body, dict)
            data, meta = body["data"], body.get("meta", {"total_pages": 1})
            assert isinstance(data, list)
            assert isinstance(meta, dict)
            assert len(data) <= min(asked, page_size)
            yield [item for item in data if isinstance(item, int)]
            total = int(str(meta["total_pages"]))
            number += 1

    assert [item for page in pages() for item in page] == items


@given(st.integers(1, 9), st.integers(1, 9))
def test_fault_rule_with_times_applies_exactly_that_often(count: int, times: int) -> None:
    """Given enough requests."""
    for rule in (Rule("status", nth=count, times=times), Rule("status", every=count, times=times), Rule("status", times=times)):
        assert sum(rule.strikes(number) for number in range(1, 200)) == times
