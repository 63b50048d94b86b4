"""Builds what reads a function's invocations: the client, what this machine has built, and every secret to be redacted."""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from kapso_sync.api.client import KapsoClient
from kapso_sync.clock import SystemClock
from kapso_sync.dataclass import dataclass
from kapso_sync.invocations.follow import Look, follow
from kapso_sync.invocations.places import InvocationPlacer, LocalBuilds
from kapso_sync.model.functions import RemoteFunction
from kapso_sync.settings import Settings
from kapso_sync.telemetry.event_bus import EventBus
from kapso_sync.wiring.engine import open_api
from kapso_sync.wiring.evidence import learn_secrets


@dataclass(frozen=True, slots=True)
class InvocationReader:
    """Reads invocations of functions; ``edge`` is as in `InvocationPlacer`."""

    api: KapsoClient
    builds: LocalBuilds
    edge: float

    def placer(self, function: RemoteFunction) -> InvocationPlacer:
        """Return what places the invocations that were read before ``function`` was."""
        return InvocationPlacer(function, self.builds, edge=self.edge)

    def follow(self, function_id: str, *, status: str | None, first: int) -> AsyncIterator[Look]:
        """Follow a function's invocations, as `kapso_sync.invocations.follow.follow` does."""
        return follow(self.api, function_id, SystemClock(), random.random, status=status, first=first)


@contextlib.asynccontextmanager
async def open_invocations(settings: Settings, bus: EventBus, folders: Sequence[Path]) -> AsyncIterator[InvocationReader]:
    """Open the settings' API; ``folders`` are the state folders of this machine, the likeliest first."""
    learn_secrets(settings, bus.redactor, folders)
    async with open_api(settings, bus) as api:
        yield InvocationReader(api, LocalBuilds(folders), settings.check_window)
