"""The queue of requests for a pass: a trigger only requests a pass and carries no work, and no trigger is lost."""

from __future__ import annotations

import asyncio
import enum

from kapso_sync.aio import first_of
from kapso_sync.model.clock import Clock


class Trigger(enum.StrEnum):
    """The reason for a pass; logs and status show the values."""

    FILES = "files"
    POLL = "poll"
    RESCAN = "rescan"
    INTERVAL = "interval"
    WEBHOOK = "webhook"
    RETRY = "retry"
    SECRETS = "secrets"
    START = "start"
    PERSON = "reconcile"
    RESUME = "resume"
    LEASE = "lease"
    WATCH = "watch"


ONLY_IF_SOURCE_MOVED = frozenset({Trigger.FILES, Trigger.POLL, Trigger.RESCAN})
"""Triggers that ask for a pass only if the source shows another revision."""

MAY_MEAN_NEW_REVISION = ONLY_IF_SOURCE_MOVED | {Trigger.WEBHOOK, Trigger.PERSON}
"""Triggers after which the source may show another revision."""

ASKED_BY_PEOPLE = frozenset({Trigger.PERSON, Trigger.RESUME})
"""Triggers that reset every backoff: everything is retried at once."""


class TriggerQueue:
    """Holds every trigger that was requested since the last `drain`, each one once, in order."""

    def __init__(self) -> None:
        self._pending: dict[Trigger, None] = {}
        self._woken = asyncio.Event()
        self._requests = 0

    def request(self, trigger: Trigger) -> None:
        """Request a pass."""
        self._pending[trigger] = None
        self._requests += 1
        self._woken.set()

    def wake(self) -> None:
        """End the current `wait`, without a request for a pass."""
        self._requests += 1
        self._woken.set()

    @property
    def requests(self) -> int:
        """How many requests there were so far, `wake` included."""
        return self._requests

    @property
    def pending(self) -> frozenset[Trigger]:
        """The triggers that are not drained yet."""
        return frozenset(self._pending)

    def drain(self) -> tuple[Trigger, ...]:
        """Return the pending triggers in order, and clear them."""
        triggers, self._pending = tuple(self._pending), {}
        return triggers

    async def wait(self, clock: Clock, seconds: float, *, only_new: bool = False) -> None:
        """Wait for a request, for at most ``seconds``; returns at once if one is pending, unless ``only_new``."""
        if self._pending and not only_new:
            return
        self._woken.clear()
        await first_of(self._woken.wait(), clock.sleep(seconds))

    async def more_than(self, requests: int) -> None:
        """Wait until the number of requests is above ``requests``, drained or not."""
        while self._requests <= requests:
            self._woken.clear()
            await self._woken.wait()
