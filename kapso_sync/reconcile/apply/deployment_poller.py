"""Following deployments: any number of them, with one list call per poll."""

from __future__ import annotations

import asyncio
import enum
from dataclasses import dataclass
from typing import Any, Self

from kapso_sync.errors import ApiError, ApiUnauthorized
from kapso_sync.model.clock import Clock
from kapso_sync.model.functions import DeploymentStatus, RemoteFunction
from kapso_sync.model.ports import FunctionsApi

STALE_GRACE = 90.0
"""Seconds after which an old ``error`` counts as a new one: the record may show the previous status for a while."""


@dataclass(frozen=True, slots=True)
class PollPace:
    """How often running deployments are looked at, in seconds: a deployment takes 10 to 60 s, failures show early."""

    first: float = 2.0
    growth: float = 1.25
    slowest: float = 10.0


class DeploymentState(enum.Enum):
    """How a deployment stands."""

    LIVE = enum.auto()
    FAILED = enum.auto()
    GONE = enum.auto()
    TIMED_OUT = enum.auto()
    SUPERSEDED = enum.auto()


@dataclass(frozen=True, slots=True)
class EndedDeployment:
    """How a deployment ended, what the record showed then, and how long it took, in seconds."""

    verdict: DeploymentState
    record: RemoteFunction | None
    seconds: float


def deployment_state(
    baseline: RemoteFunction, record: RemoteFunction | None, elapsed: float, timeout: float
) -> DeploymentState | None:
    """Return how the deployment ended, or None while it runs. Pure.

    ``baseline`` is the record just before the deployment was asked for; server times are compared with server times only.
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


@dataclass(slots=True)
class _Waiting:
    baseline: RemoteFunction
    started: float
    ended: asyncio.Future[EndedDeployment]
    missed: int = 0


class DeploymentPoller:
    """Polls the list while at least one deployment runs; an async context manager around the pass.

    Once ``superseded`` is set, nothing is waited for any more.
    """

    def __init__(self, api: FunctionsApi, clock: Clock, timeout: float, pace: PollPace, superseded: asyncio.Event) -> None:
        self._api = api
        self._clock = clock
        self._timeout = timeout
        self._pace = pace
        self._superseded = superseded
        self._running: dict[str, _Waiting] = {}
        self._interval = pace.first
        self._poller: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._poller is not None:
            self._poller.cancel()
            await asyncio.gather(self._poller, return_exceptions=True)

    async def wait_for_end(self, baseline: RemoteFunction) -> EndedDeployment:
        """Wait until the deployment that was just asked for ends; raises `ApiUnauthorized` when the key is rejected."""
        followed = _Waiting(baseline, self._clock.monotonic(), asyncio.get_running_loop().create_future())
        self._running[baseline.id] = followed
        self._interval = self._pace.first
        if self._poller is None or self._poller.done():
            self._poller = asyncio.create_task(self._poll(), name="deployments")
        newer = asyncio.create_task(self._superseded.wait(), name="superseded")
        try:
            either: set[asyncio.Future[Any]] = {followed.ended, newer}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if followed.ended.done():
                return followed.ended.result()
            return EndedDeployment(DeploymentState.SUPERSEDED, None, self._clock.monotonic() - followed.started)
        finally:
            newer.cancel()
            self._running.pop(baseline.id, None)

    async def _poll(self) -> None:
        try:
            while self._running:
                await self._clock.sleep(self._interval)
                self._interval = min(self._interval * self._pace.growth, self._pace.slowest)
                if self._running:
                    await self._look()
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - whoever waits for a deployment must learn that nobody looks any more
            for followed in self._waiting():
                followed.ended.set_exception(error)

    async def _look(self) -> None:
        asked = self._clock.monotonic()
        try:
            records = {record.id: record for record in await self._api.list_functions()}
        except ApiUnauthorized:
            raise
        except ApiError:
            records = None
        now = self._clock.monotonic()
        for followed in self._waiting():
            elapsed = now - followed.started
            record = records.get(followed.baseline.id) if records is not None else None
            if records is not None and followed.started <= asked:
                verdict = self._judge(followed, record, elapsed)
            else:
                verdict = DeploymentState.TIMED_OUT if elapsed >= self._timeout else None
            if verdict is not None:
                followed.ended.set_result(EndedDeployment(verdict, record, elapsed))

    def _judge(self, followed: _Waiting, record: RemoteFunction | None, elapsed: float) -> DeploymentState | None:
        followed.missed = 0 if record is not None else followed.missed + 1
        if followed.missed == 1:
            return None
        return deployment_state(followed.baseline, record, elapsed, self._timeout)

    def _waiting(self) -> list[_Waiting]:
        return [followed for followed in self._running.values() if not followed.ended.done()]
