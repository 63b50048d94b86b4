"""Deployments in progress: when each ends, and with which result.

Nothing runs in the background. Each deployment has an end time, and every access to the emulated project first ends the
deployments that are due. So a deployment ends on time with any clock, even if the emulator was not running at that time.
"""

from __future__ import annotations

import dataclasses
from datetime import datetime

from kapso_sync.emulator.records import Deployment
from kapso_sync.emulator.storage import Storage

INTERRUPTED = "The emulator ended while it compiled the code"


class Deployments:
    """The deployments that have started and not ended, in the order of their requests."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._running = {item.id: item for item in map(Deployment.from_document, storage.load("deployment"))}
        self._held: set[str] = set()

    @property
    def running(self) -> tuple[Deployment, ...]:
        """The deployments in progress, oldest request first."""
        return tuple(self._running.values())

    def start(self, deployment: Deployment, *, held: bool = False) -> None:
        """Start a deployment; ``held``: it does not end before `release`, and fails if the emulator ends before that."""
        self._running[deployment.id] = deployment
        if held:
            self._held.add(deployment.id)
            deployment = dataclasses.replace(deployment, failure=INTERRUPTED)
        self._storage.save("deployment", deployment.id, deployment.to_document())

    def release(self, deployment: Deployment, failure: str | None, now: datetime) -> None:
        """Let a held deployment end, at its end time or now if that is later; do nothing if it was dropped.

        It ends with ``failure``, or with success if that is None.
        """
        if deployment.id in self._running:
            self._held.discard(deployment.id)
            ends_at = deployment.ends_at and max(deployment.ends_at, now)
            self.start(dataclasses.replace(deployment, failure=failure, ends_at=ends_at))

    def due(self, now: datetime) -> list[tuple[datetime, Deployment]]:
        """Return the deployments that are due at ``now``, each with its end time, in the order of their end times."""
        free = [item for item in self.running if item.id not in self._held]
        due = [(item.ends_at, item) for item in free if item.ends_at is not None and item.ends_at <= now]
        return sorted(due, key=lambda pair: pair[0])

    def end(self, item: Deployment) -> None:
        """Remove a deployment after its result was saved, or if its result is not needed."""
        del self._running[item.id]
        self._held.discard(item.id)
        self._storage.drop("deployment", item.id)

    def drop(self, function_id: str) -> None:
        """Remove the deployments of a function that was deleted."""
        for item in self.running:
            if item.function_id == function_id:
                self.end(item)

    def clear(self) -> None:
        """Remove all deployments."""
        for item in self.running:
            self.end(item)
