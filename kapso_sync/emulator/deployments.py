"""Deployments under way: which there are, when each ends, and how.

Nothing runs in the background. A deployment has a time at which it ends; whoever looks at the world first lets those end that
are due. So it ends on time under any clock, and also when the emulator was not running meanwhile.
"""

from __future__ import annotations

import dataclasses
from datetime import datetime

from kapso_sync.emulator.records import Deployment
from kapso_sync.emulator.storage import Storage

INTERRUPTED = "The emulator ended while it compiled the code"


class Deployments:
    """The deployments that have begun and not ended, in the order they were asked for."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._running = {item.id: item for item in map(Deployment.from_document, storage.load("deployment"))}
        self._held: set[str] = set()

    @property
    def running(self) -> tuple[Deployment, ...]:
        """Those under way, oldest request first."""
        return tuple(self._running.values())

    def start(self, deployment: Deployment, *, held: bool = False) -> None:
        """Begin one; ``held``: it does not end before `release`, and fails when the emulator ends before that."""
        self._running[deployment.id] = deployment
        if held:
            self._held.add(deployment.id)
            deployment = dataclasses.replace(deployment, failure=INTERRUPTED)
        self._storage.save("deployment", deployment.id, deployment.to_document())

    def release(self, deployment: Deployment, failure: str | None, now: datetime) -> None:
        """Let one that was held end, with ``failure`` or well, at its time or now; one dropped meanwhile stays gone."""
        if deployment.id in self._running:
            self._held.discard(deployment.id)
            ends_at = deployment.ends_at and max(deployment.ends_at, now)
            self.start(dataclasses.replace(deployment, failure=failure, ends_at=ends_at))

    def due(self, now: datetime) -> list[tuple[datetime, Deployment]]:
        """Return those whose time is over by ``now``, each with its end, in the order they end."""
        free = [item for item in self._running.values() if item.id not in self._held]
        due = [(item.ends_at, item) for item in free if item.ends_at is not None and item.ends_at <= now]
        return sorted(due, key=lambda pair: pair[0])

    def end(self, item: Deployment) -> None:
        """Forget one: what came of it has been kept, or nobody wants to know."""
        del self._running[item.id]
        self._held.discard(item.id)
        self._storage.drop("deployment", item.id)

    def drop(self, function_id: str) -> None:
        """Forget those of a function that was deleted."""
        for item in self.running:
            if item.function_id == function_id:
                self.end(item)

    def clear(self) -> None:
        """Forget all."""
        for item in self.running:
            self.end(item)
