"""Polls running deployments: any number of them, with one list call per poll."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import math
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import Self

from kapso_sync.aio import Interrupted, unless
from kapso_sync.dataclass import dataclass
from kapso_sync.errors import ApiError, ApiGarbled, ApiNotFound, ApiUnauthorized
from kapso_sync.model.clock import Clock
from kapso_sync.model.functions import DeploymentStatus, RemoteFunction
from kapso_sync.model.ports import FunctionsApi
from kapso_sync.retry import Backoff

STALE_GRACE = 90.0
"""Seconds after which an old ``error`` counts as a new one: the record may show the previous status for a while."""


POLL_INTERVALS = Backoff(initial=2.0, maximum=10.0, factor=1.1)
"""Seconds between two polls of running deployments: a deployment takes 10 to 60 s, and failures show early."""

POLL_SHARE = 0.05
"""Most of our share of the rate limit that is spent on polls; a larger project's list takes several calls."""

MAX_SEEN = 50
"""How many of the newest durations count for the next ones."""

ENOUGH_SEEN = 5
"""With this many durations of a pass, those of earlier passes no longer count."""


class DeploymentState(enum.Enum):
    """The state of a deployment."""

    LIVE = enum.auto()
    FAILED = enum.auto()
    GONE = enum.auto()
    TIMED_OUT = enum.auto()
    SUPERSEDED = enum.auto()


@dataclass(frozen=True, slots=True)
class EndedDeployment:
    """The end of a deployment: its state, the function's record then, and its duration in seconds."""

    verdict: DeploymentState
    record: RemoteFunction | None
    seconds: float


def deployment_state(
    baseline: RemoteFunction, record: RemoteFunction | None, elapsed: float, timeout: float
) -> DeploymentState | None:
    """Return the end of the deployment, or None while it runs. Pure.

    ``baseline`` is the record just before the deployment was requested; server times are compared with server times only.
    """
    if record is None:
        return DeploymentState.GONE
    if record.status is DeploymentStatus.DEPLOYED and _deployed_since(baseline, record):
        return DeploymentState.LIVE
    if record.status is DeploymentStatus.ERROR and _failed_since(baseline, record, elapsed):
        return DeploymentState.FAILED
    return DeploymentState.TIMED_OUT if elapsed >= timeout else None


def _deployed_since(baseline: RemoteFunction, record: RemoteFunction) -> bool:
    if record.last_deployed_at is None:
        return baseline.status is not DeploymentStatus.DEPLOYED
    return baseline.last_deployed_at is None or record.last_deployed_at > baseline.last_deployed_at


def _failed_since(baseline: RemoteFunction, record: RemoteFunction, elapsed: float) -> bool:
    if baseline.status is not DeploymentStatus.ERROR or elapsed >= STALE_GRACE:
        return True
    return None not in (record.updated_at, baseline.updated_at) and record.updated_at > baseline.updated_at  # type: ignore[operator]


@dataclass(frozen=True, slots=True)
class PollPace:
    """When running deployments are looked at; times are in seconds.

    ``typical`` is the time in which a quarter of this base's deployments were seen to end, or None. ``intervals`` are the
    pauses from then on.
    """

    intervals: Backoff = POLL_INTERVALS
    typical: float | None = None

    def due(self, deployment: RunningDeployment, spacing: float) -> float:
        """Return when a deployment is to be looked at next, on the monotonic clock. Pure.

        The first look comes early, for code that fails at once, unless looks are so dear (``spacing``: seconds that the rate
        limit's share leaves between two of them) that it would delay the one that matters. A deployment that began at 0 s on a
        base where they take 20 s is looked at after 2, 20, 22.2 … s; where nothing is known, after 2, 4.2, 6.6 … s.
        """
        typical = self.typical or 0.0
        if deployment.looked_at is None and (not typical or spacing <= typical / 2):
            return deployment.started + self.intervals.delay(1)
        before = deployment.started if deployment.looked_at is None else deployment.looked_at
        return max(deployment.started + typical, before + self.intervals.delay(deployment.late_looks + 1))

    def next_due(self, running: Iterable[RunningDeployment], spacing: float) -> float:
        """Return when the next look is due: what began together is looked at together, once.

        With a first pause of 2 s, deployments that are due at 20.0, 20.3, 20.9 and 31 s are looked at after 20.9 s.
        """
        due = [self.due(deployment, spacing) for deployment in running]
        together = min(due) + self.intervals.initial / 2
        return max(at for at in due if at <= together)

    def with_seen(self, seconds: Sequence[float]) -> PollPace:
        """Return the pace after deployments were seen to take so long; one alone counts as much as all before."""
        if not seconds:
            return self
        # A quarter has ended by then. Others only seem to take longer: they waited for the rate limit after their write.
        newest = sorted(seconds[-MAX_SEEN:])[len(seconds[-MAX_SEEN:]) // 4]
        if self.typical is not None and len(seconds) < ENOUGH_SEEN:
            newest = (self.typical + newest) / 2
        return replace(self, typical=round(newest, 1))


@dataclass(slots=True)
class RunningDeployment:
    """A deployment that is awaited: when it began, and when it was last seen running, on the monotonic clock in seconds.

    ``late_looks`` counts the looks since it should have ended; ``missed`` those in a row that did not show the function.
    """

    baseline: RemoteFunction
    started: float
    ended: asyncio.Future[EndedDeployment]
    looked_at: float | None = None
    late_looks: int = 0
    missed: int = 0

    @property
    def names(self) -> tuple[str, str]:
        """What a record of it that cannot be believed may still show."""
        return self.baseline.id, self.baseline.slug


def _seconds_taken(deployment: RunningDeployment, record: RemoteFunction, now: float) -> float:
    """Return what a deployment took that was just seen to have ended; it ended at some time since the look before.

    Kapso's own times say more than that: from the write before the deployment to its end. The deployment may have been
    requested long after the write, so they count within those bounds only.
    """
    earliest = 0.0 if deployment.looked_at is None else deployment.looked_at - deployment.started
    latest = now - deployment.started
    written, ended = deployment.baseline.updated_at, record.last_deployed_at
    if written is None or ended is None:
        return (earliest + latest) / 2
    return min(max((ended - written).total_seconds(), earliest), latest)


@dataclass(frozen=True, slots=True)
class _Look:
    """What one look showed: records by function id, and ids and slugs of records that cannot be believed."""

    records: Mapping[str, RemoteFunction]
    unknown: AbstractSet[str] = frozenset()


class DeploymentPoller:
    """Polls while at least one deployment runs; an async context manager around the pass.

    One list call shows all of them. Looks take at most `POLL_SHARE` of the calls that may be spent, so that writes get the
    rest. Once ``superseded`` is set, nothing is awaited any more.
    """

    def __init__(self, api: FunctionsApi, clock: Clock, timeout: float, pace: PollPace, superseded: asyncio.Event) -> None:
        self._api = api
        self._clock = clock
        self._timeout = timeout
        self._initial_pace = pace
        self._superseded = superseded
        self._running: dict[str, RunningDeployment] = {}
        self._seen: list[float] = []
        self._allowed_at = clock.monotonic()
        self._allowed_calls = math.inf
        self._begun = asyncio.Event()
        self._poller: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._poller is not None:
            self._poller.cancel()
            await asyncio.gather(self._poller, return_exceptions=True)

    @property
    def pace(self) -> PollPace:
        """The pace by the deployments that were seen so far."""
        return self._initial_pace.with_seen(self._seen)

    async def wait_for_end(self, baseline: RemoteFunction) -> EndedDeployment:
        """Wait until the deployment that was just requested ends; raises `ApiUnauthorized` when the key is rejected."""
        deployment = RunningDeployment(baseline, self._clock.monotonic(), asyncio.get_running_loop().create_future())
        self._running[baseline.id] = deployment
        self._begun.set()
        if self._poller is None or self._poller.done():
            self._poller = asyncio.create_task(self._poll(), name="deployments")
        try:
            return await unless(self._superseded, self._end_of(deployment))
        except Interrupted:
            return EndedDeployment(DeploymentState.SUPERSEDED, None, self._clock.monotonic() - deployment.started)
        finally:
            self._running.pop(baseline.id, None)

    async def _end_of(self, deployment: RunningDeployment) -> EndedDeployment:
        return await deployment.ended

    async def _poll(self) -> None:
        try:
            while waiting := self._waiting():
                self._begun.clear()
                pause = self._next_look(waiting) - self._clock.monotonic()
                if pause > 0:
                    # A deployment that begins meanwhile may be due before the others.
                    with contextlib.suppress(Interrupted):
                        await unless(self._begun, self._clock.sleep(pause))
                else:
                    await self._look()
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - every waiting task must learn that polling has stopped
            for deployment in self._waiting():
                deployment.ended.set_exception(error)

    def _next_look(self, waiting: Sequence[RunningDeployment]) -> float:
        """Return the time of the next look: when the first deployment is due, if the share of the rate limit allows it.

        What is not spent is saved for one more look, so that the last deployment need not wait for its turn. Of 80 calls a
        minute four are for looks: with a list of one call, one look in 15 s, or two after 30 s.
        """
        pace, per_second = self.pace, self._api.budget.per_second
        if per_second is None:
            return pace.next_due(waiting, 0.0)
        now, calls = self._clock.monotonic(), self._look_calls(waiting)
        refilled = POLL_SHARE * per_second
        self._allowed_calls = min(self._allowed_calls + (now - self._allowed_at) * refilled, 2.0 * calls)
        self._allowed_at = now
        due = pace.next_due(waiting, calls / refilled)
        return max(due, now + (calls - self._allowed_calls) / refilled)

    def _look_calls(self, waiting: Sequence[RunningDeployment]) -> int:
        """Return how many calls the next look takes: the list's, or one for each deployment if those are fewer."""
        return min(len(waiting), self._api.budget.list_calls)

    async def _look(self) -> None:
        asked = self._clock.monotonic()
        try:
            look = await self._read()
        except ApiUnauthorized:
            raise
        except ApiError:
            look = None
        now = self._clock.monotonic()
        typical = self.pace.typical or 0.0
        for deployment in self._waiting():
            elapsed = now - deployment.started
            record = look.records.get(deployment.baseline.id) if look is not None else None
            unknown = look is None or (record is None and not look.unknown.isdisjoint(deployment.names))
            if not unknown and deployment.started <= asked:
                verdict = self._judge(deployment, record, elapsed)
            else:
                verdict = DeploymentState.TIMED_OUT if elapsed >= self._timeout else None
            if verdict is DeploymentState.LIVE and record is not None:
                self._seen.append(_seconds_taken(deployment, record, now))
            if verdict is not None:
                deployment.ended.set_result(EndedDeployment(verdict, record, elapsed))
            else:
                deployment.late_looks += elapsed >= typical
                deployment.looked_at = now

    async def _read(self) -> _Look:
        """Read the list, or the few functions that are deployed if those are fewer calls; raises `ApiError`."""
        waiting = self._waiting()
        self._allowed_calls -= self._look_calls(waiting)
        if len(waiting) >= self._api.budget.list_calls:
            listed = await self._api.list_records()
            unknown = {text for record in listed.garbled for text in (record.id, record.slug)}
            return _Look({record.id: record for record in listed.functions}, unknown)
        looks = await asyncio.gather(*(self._read_one(deployment.baseline.id) for deployment in waiting))
        return _Look(
            {function_id: record for look in looks for function_id, record in look.records.items()},
            {name for look in looks for name in look.unknown},
        )

    async def _read_one(self, function_id: str) -> _Look:
        try:
            return _Look({function_id: await self._api.get_function(function_id)})
        except ApiNotFound:
            return _Look({})
        except ApiGarbled:
            return _Look({}, {function_id})

    def _judge(self, deployment: RunningDeployment, record: RemoteFunction | None, elapsed: float) -> DeploymentState | None:
        deployment.missed = 0 if record is not None else deployment.missed + 1
        if deployment.missed == 1:
            return None
        return deployment_state(deployment.baseline, record, elapsed, self._timeout)

    def _waiting(self) -> list[RunningDeployment]:
        return [deployment for deployment in self._running.values() if not deployment.ended.done()]
