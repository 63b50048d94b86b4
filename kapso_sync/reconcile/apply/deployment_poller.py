"""Polls running deployments: any number of them, with one list call per poll."""

from __future__ import annotations

import asyncio
import enum
from dataclasses import dataclass
from typing import Self

from kapso_sync.aio import Interrupted, unless
from kapso_sync.errors import ApiError, ApiUnauthorized
from kapso_sync.model.clock import Clock
from kapso_sync.model.functions import DeploymentStatus, RemoteFunction
from kapso_sync.model.ports import FunctionsApi
from kapso_sync.retry import Backoff

STALE_GRACE = 90.0
"""Seconds after which an old ``error`` counts as a new one: the record may show the previous status for a while."""


POLL_INTERVALS = Backoff(initial=2.0, maximum=10.0, factor=1.25)
"""Seconds between two polls of running deployments: a deployment takes 10 to 60 s, and failures show early."""


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


@dataclass(slots=True)
class _Deployment:
    baseline: RemoteFunction
    started: float
    ended: asyncio.Future[EndedDeployment]
    missed: int = 0

    @property
    def names(self) -> tuple[str, str]:
        """What a record of it that cannot be believed may still show."""
        return self.baseline.id, self.baseline.slug


class DeploymentPoller:
    """Polls the list while at least one deployment runs; an async context manager around the pass.

    Once ``superseded`` is set, nothing is awaited any more.
    """

    def __init__(self, api: FunctionsApi, clock: Clock, timeout: float, intervals: Backoff, superseded: asyncio.Event) -> None:
        self._api = api
        self._clock = clock
        self._timeout = timeout
        self._intervals = intervals
        self._superseded = superseded
        self._running: dict[str, _Deployment] = {}
        self._polls = 0
        self._poller: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._poller is not None:
            self._poller.cancel()
            await asyncio.gather(self._poller, return_exceptions=True)

    async def wait_for_end(self, baseline: RemoteFunction) -> EndedDeployment:
        """Wait until the deployment that was just requested ends; raises `ApiUnauthorized` when the key is rejected."""
        deployment = _Deployment(baseline, self._clock.monotonic(), asyncio.get_running_loop().create_future())
        self._running[baseline.id] = deployment
        self._polls = 0
        if self._poller is None or self._poller.done():
            self._poller = asyncio.create_task(self._poll(), name="deployments")
        try:
            return await unless(self._superseded, self._end_of(deployment))
        except Interrupted:
            return EndedDeployment(DeploymentState.SUPERSEDED, None, self._clock.monotonic() - deployment.started)
        finally:
            self._running.pop(baseline.id, None)

    async def _end_of(self, deployment: _Deployment) -> EndedDeployment:
        return await deployment.ended

    async def _poll(self) -> None:
        try:
            while self._running:
                self._polls += 1
                await self._clock.sleep(self._intervals.delay(self._polls))
                if self._running:
                    await self._look()
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - every waiting task must learn that polling has stopped
            for deployment in self._waiting():
                deployment.ended.set_exception(error)

    async def _look(self) -> None:
        asked = self._clock.monotonic()
        try:
            listed = await self._api.list_records()
            records = {record.id: record for record in listed.functions}
            garbled = {text for record in listed.garbled for text in (record.id, record.slug)}
        except ApiUnauthorized:
            raise
        except ApiError:
            records, garbled = None, set()
        now = self._clock.monotonic()
        for deployment in self._waiting():
            elapsed = now - deployment.started
            record = records.get(deployment.baseline.id) if records is not None else None
            unknown = records is None or (record is None and not garbled.isdisjoint(deployment.names))
            if not unknown and deployment.started <= asked:
                verdict = self._judge(deployment, record, elapsed)
            else:
                verdict = DeploymentState.TIMED_OUT if elapsed >= self._timeout else None
            if verdict is not None:
                deployment.ended.set_result(EndedDeployment(verdict, record, elapsed))

    def _judge(self, deployment: _Deployment, record: RemoteFunction | None, elapsed: float) -> DeploymentState | None:
        deployment.missed = 0 if record is not None else deployment.missed + 1
        if deployment.missed == 1:
            return None
        return deployment_state(deployment.baseline, record, elapsed, self._timeout)

    def _waiting(self) -> list[_Deployment]:
        return [deployment for deployment in self._running.values() if not deployment.ended.done()]
