"""A Lease in memory and electors on a virtual clock: faults and delays are what a test says."""

from __future__ import annotations

import asyncio
import contextlib
import copy
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

from kapso_sync.aio import first_of
from kapso_sync.daemon.lease import Elector, ElectorCallbacks, Leadership, Lease, new_lease
from kapso_sync.errors import LeaseConflict, LeaseError, LeaseMissing
from kapso_sync.model import events
from tests.virtual_time import LoopClock

T = TypeVar("T")
NAME = "apps/kapso-sync"


@dataclass
class SkewedClock:
    """The clock of another machine: it runs at another speed, and its wall clock is wrong."""

    clock: LoopClock
    rate: float = 1.0
    ahead: float = 0.0

    def monotonic(self) -> float:
        return self.ahead + self.clock.monotonic() * self.rate

    def now(self) -> datetime:
        return datetime.fromtimestamp(1_800_000_000 + self.ahead * 1000 + self.monotonic(), tz=self.clock.now().tzinfo)

    async def sleep(self, seconds: float) -> None:
        await self.clock.sleep(seconds / self.rate)


@dataclass(frozen=True)
class Delivery:
    """What happens to one request: seconds on the way there and back, and whether request or answer is lost.

    ``stopped_before`` and ``stopped_after``: seconds for which the sender's process stands still meanwhile.
    """

    there: float = 0.01
    back: float = 0.01
    lost: bool = False
    answer_lost: bool = False
    stopped_before: float = 0.0
    stopped_after: float = 0.0


@dataclass
class LeaseInMemory:
    """The API server: it stores one Lease, with optimistic locking."""

    document: dict[str, Any] | None = None
    version: int = 0

    def stored(self, document: Mapping[str, Any]) -> Lease:
        self.version += 1
        self.document = copy.deepcopy(dict(document))
        self.document["metadata"]["resourceVersion"] = str(self.version)
        return self.read()

    def read(self) -> Lease:
        assert self.document is not None
        return Lease(copy.deepcopy(self.document))

    @property
    def holder(self) -> str:
        return self.read().holder if self.document is not None else ""


@dataclass
class LeaseLink:
    """One replica's connection to the store: requests fare as in ``left``, and after those as usual."""

    store: LeaseInMemory
    clock: LoopClock
    rate: float = 1.0
    left: list[Delivery] = field(default_factory=list)
    usual: Delivery = Delivery()
    failure: LeaseError | None = None
    asked: list[str] = field(default_factory=list)
    travelling: list[asyncio.Task[None]] = field(default_factory=list)
    name: str = NAME

    async def read(self, timeout: float) -> Lease | None:
        return await self._ask("get", lambda: self.store.read() if self.store.document is not None else None, timeout)

    async def create(self, change: Callable[[Lease], Lease], timeout: float) -> Lease:
        document = change(new_lease("kapso-sync", "apps")).document

        def create() -> Lease:
            if self.store.document is not None:
                raise LeaseConflict("it exists")
            return self.store.stored(document)

        return await self._ask("create", create, timeout)

    async def replace(self, lease: Lease, timeout: float) -> Lease:
        document = copy.deepcopy(dict(lease.document))

        def update() -> Lease:
            if self.store.document is None:
                raise LeaseMissing("there is none")
            if document["metadata"]["resourceVersion"] != self.store.document["metadata"]["resourceVersion"]:
                raise LeaseConflict("it was modified")
            return self.store.stored(document)

        return await self._ask("update", update, timeout)

    async def annotate(self, annotations: Mapping[str, str | None], timeout: float) -> Lease:
        def patch() -> Lease:
            if self.store.document is None:
                raise LeaseMissing("there is none")
            lease = self.store.read()
            merged = {**lease.annotations, **annotations}
            return self.store.stored(lease.annotated({key: text for key, text in merged.items() if text is not None}).document)

        return await self._ask("patch", patch, timeout)

    async def close(self) -> None:
        pass

    async def _ask(self, verb: str, act: Callable[[], T], timeout: float) -> T:
        self.asked.append(verb)
        if self.failure is not None:
            raise self.failure
        delivery = self.left.pop(0) if self.left else self.usual
        await self.clock.sleep(delivery.stopped_before)
        answer: asyncio.Future[T | LeaseError] = asyncio.get_running_loop().create_future()

        async def travel() -> None:
            await self.clock.sleep(delivery.there)
            if delivery.lost:
                return
            try:
                result: T | LeaseError = act()
            except LeaseError as error:
                result = error
            await self.clock.sleep(delivery.back)
            if not delivery.answer_lost and not answer.done():
                answer.set_result(result)

        # A request goes on after its sender has lost patience.
        self.travelling.append(asyncio.create_task(travel()))
        await first_of(asyncio.wait({answer}), self.clock.sleep(timeout / self.rate))
        await self.clock.sleep(delivery.stopped_after)
        if not answer.done():
            answer.cancel()
            raise LeaseError("no answer")
        result = answer.result()
        if isinstance(result, LeaseError):
            raise result
        return result


@dataclass
class Contender:
    """One replica in the election: its clock, its connection, and what it reported."""

    elector: Elector
    leadership: Leadership
    link: LeaseLink
    told: list[events.Event]
    acquired: int = 0
    lost: int = 0

    def names(self) -> list[str]:
        return [event.name for event in self.told]


@dataclass
class Election:
    """Replicas that share a Lease; ``overlaps`` are the moments at which more than one was allowed to write."""

    clock: LoopClock = field(default_factory=LoopClock)
    store: LeaseInMemory = field(default_factory=LeaseInMemory)
    contenders: list[Contender] = field(default_factory=list)
    overlaps: list[float] = field(default_factory=list)
    steps: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    others: list[asyncio.Task[None]] = field(default_factory=list)

    def join(self, identity: str, *, rate: float = 1.0, ahead: float = 0.0, deliveries: Sequence[Delivery] = ()) -> Contender:
        clock = SkewedClock(self.clock, rate, ahead)
        link = LeaseLink(self.store, self.clock, rate, list(deliveries))
        leadership, told = Leadership(clock, identity), list[events.Event]()

        def on_acquired(_: Lease) -> None:
            contender.acquired += 1
            self.look()

        def on_lost() -> None:
            contender.lost += 1

        callbacks = ElectorCallbacks(lambda _: self.look(), on_acquired, on_lost)
        elector = Elector(link, identity, leadership, clock=clock, emit=told.append, callbacks=callbacks)
        contender = Contender(elector, leadership, link, told)
        self.contenders.append(contender)
        return contender

    def start(self, contender: Contender, *, after: float = 0.0, stops: Mapping[int, float] | None = None) -> None:
        """Let it take part; ``stops`` are pauses in seconds after its nth step, as SIGSTOP and SIGCONT make them."""

        async def run() -> None:
            await self.clock.sleep(after)
            step = 0
            while True:
                pause = await contender.elector.step()
                await self.clock.sleep(pause / contender.link.rate + (stops or {}).get(step, 0.0))
                step += 1

        self.steps[contender.elector.identity] = asyncio.create_task(run())

    def kill(self, contender: Contender) -> None:
        """Let it do nothing any more; what it has sent travels on."""
        self.steps.pop(contender.elector.identity).cancel()

    async def stop(self, contender: Contender) -> None:
        """End it as SIGTERM does."""
        task = self.steps.pop(contender.elector.identity)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await contender.elector.release()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something beside, which may fail with the API."""

        async def run() -> None:
            with contextlib.suppress(LeaseError):
                await work

        self.others.append(asyncio.create_task(run()))

    def look(self) -> None:
        """Note an overlap. It can only begin when somebody acquires the Lease: from then on, time only ends a leadership."""
        if sum(contender.leadership.leading for contender in self.contenders) > 1:
            self.overlaps.append(self.clock.monotonic())

    @property
    def leaders(self) -> list[str]:
        return [contender.elector.identity for contender in self.contenders if contender.leadership.leading]

    async def end(self) -> None:
        tasks = [
            *self.steps.values(),
            *self.others,
            *(task for contender in self.contenders for task in contender.link.travelling),
        ]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def election() -> AsyncIterator[Election]:
    """An election that ends with the block."""
    running = Election()
    try:
        yield running
    finally:
        await running.end()
