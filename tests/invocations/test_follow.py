"""Following a function's invocations: each once, in the order of time, with few calls, through an outage."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

import pytest

from kapso_sync.emulator.records import Function
from kapso_sync.errors import ApiNotFound
from kapso_sync.invocations.follow import MAX_LISTED, POLL_INTERVAL, Look, follow
from kapso_sync.model.functions import CallBudget
from tests.clock import VirtualClock
from tests.world import Fate, WorldApi, new_world

Event = Callable[[], object]


class Bench:
    """A function on a world in memory, and what happens between two looks, by their number."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.world = new_world(self.clock)
        self.function: Function = self.world.create({"name": "greet", "code": "x"})
        self.api = WorldApi(self.world)
        self.count = 0

    def invoke(self, times: int = 1, status: int = 200) -> None:
        """Let the function be invoked; each call has a number."""
        for _ in range(times):
            self.count += 1
            self.world.record_invocation(self.function, self.count, status)

    async def looks(self, *events: Event, status: str | None = None, first: int = 10) -> list[Look]:
        """Return what the looks yield when one of the events happens before each."""
        found: list[Look] = []
        events[0]()
        pauses = _Pauses(self.clock, list(events[1:]))
        looks = follow(self.api, self.function.id, pauses, lambda: 0.5, status=status, first=first)
        with contextlib.suppress(_Enough):
            while True:
                found.append(await anext(looks))
        return found

    @property
    def looked(self) -> int:
        return self.api.count("GET", "/functions/{id}/invocations")


class _Enough(Exception):
    """Nothing happens any more."""


class _Pauses(VirtualClock):
    """A clock in whose pauses things happen."""

    def __init__(self, clock: VirtualClock, events: list[Event]) -> None:
        super().__init__()
        self._clock = clock
        self._events = events

    async def sleep(self, seconds: float) -> None:
        await self._clock.sleep(seconds)
        if not self._events:
            raise _Enough
        self._events.pop(0)()


def numbers(looks: Sequence[Look]) -> list[list[object]]:
    return [[record.request_body for record in look.new] for look in looks]


def nothing() -> None:
    """Nobody invokes it."""


async def test_each_invocation_is_shown_once_and_oldest_first() -> None:
    """The newest ones first of all, then what comes; a quiet time yields nothing."""
    bench = Bench()
    looks = await bench.looks(lambda: bench.invoke(5), nothing, lambda: bench.invoke(2), nothing, bench.invoke, first=3)
    assert numbers(looks) == [[3, 4, 5], [6, 7], [8]]
    assert not any(look.missed for look in looks)
    assert bench.looked == 5, "one call a look"


async def test_more_than_an_answer_holds_between_two_looks_is_said() -> None:
    """Nineteen are all of them; of twenty-five the oldest five are not to be had, and none is shown twice."""
    bench = Bench()
    most = MAX_LISTED - 1
    looks = await bench.looks(nothing, lambda: bench.invoke(most), lambda: bench.invoke(25), lambda: bench.invoke(most))
    assert [look.missed for look in looks] == [False, True, False]
    assert numbers(looks) == [[*range(1, 20)], [*range(25, 45)], [*range(45, 64)]]


async def test_only_failed_ones_are_asked_for() -> None:
    """Kapso itself leaves out the others, so that twenty successes hide no failure."""
    bench = Bench()

    def busy() -> None:
        bench.invoke(status=500)
        bench.invoke(30)

    looks = await bench.looks(nothing, busy, busy, status="failed")
    assert numbers(looks) == [[1], [32]]
    assert not any(look.missed for look in looks)


async def test_an_outage_is_reported_once_and_survived() -> None:
    """It is asked less and less often; what came meanwhile is shown."""
    bench = Bench()
    bench.api.fate = lambda call, *_: Fate.UNAVAILABLE if 2 <= call <= 5 else Fate.FINE
    looks = await bench.looks(bench.invoke, nothing, nothing, nothing, bench.invoke, nothing, bench.invoke)
    assert [(look.outage is not None, look.recovered) for look in looks] == [
        (False, False),
        (True, False),
        (False, True),
        (False, False),
    ]
    assert numbers(looks) == [[1], [], [2], [3]]
    assert bench.clock.monotonic() > POLL_INTERVAL * 3 + 1 + 2 + 4 + 8 - 1


async def test_a_deleted_function_ends_it() -> None:
    """Any other refusal does as well."""
    bench = Bench()
    with pytest.raises(ApiNotFound):
        await bench.looks(bench.invoke, lambda: bench.world.delete(bench.function), nothing)


@pytest.mark.parametrize(("per_second", "pause"), [(None, POLL_INTERVAL), (80 / 60, 7.5), (800 / 60, POLL_INTERVAL)])
async def test_looks_leave_the_rate_limit_to_others(per_second: float | None, pause: float) -> None:
    """A tenth of our share is spent on looks: with 80 calls a minute, one each 7.5 s."""

    class Slow(WorldApi):
        @property
        def budget(self) -> CallBudget:
            return CallBudget(per_second=per_second)

    bench = Bench()
    bench.api = Slow(bench.world)
    await bench.looks(*[nothing] * 4)
    assert bench.clock.monotonic() == pytest.approx(4 * pause)


async def test_what_shows_up_behind_dropped_records_is_not_new() -> None:
    """Kapso may drop records; older ones, which were there before the first look, then fill its answer."""
    bench = Bench()

    def slowly() -> None:
        for _ in range(30):
            bench.invoke()
            bench.clock._elapsed += 1

    def drop() -> None:
        bench.world._invocations[bench.function.id].pop()

    looks = await bench.looks(slowly, drop, bench.invoke, first=1)
    assert numbers(looks) == [[30], [31]]
