"""Builds what reads a function's invocations: the client, what this machine has built, and every secret to be redacted."""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from kapso_sync.api import KapsoClient
from kapso_sync.clock import SystemClock
from kapso_sync.errors import ConfigError
from kapso_sync.invocations.follow import Look, follow
from kapso_sync.invocations.places import InvocationPlacer, LocalBuilds
from kapso_sync.model.functions import RemoteFunction
from kapso_sync.settings import Settings
from kapso_sync.store.daemon_files import DaemonFiles
from kapso_sync.telemetry import EventBus, Redactor
from kapso_sync.wiring.building import make_secret_reader
from kapso_sync.wiring.engine import open_api


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


def learn_secrets(settings: Settings, redactor: Redactor, folders: Sequence[Path]) -> None:
    """Make the redactor know every secret that an invocation may hold.

    That may be any secret of a function, and no manifest is read that says which there are. So it is every value that these
    settings allow a function to have, and every credential of kapso-sync's own; ``folders`` are state folders.
    """
    read: list[Callable[[], str | None]] = [
        settings.git_password,
        settings.webhook_key,
        settings.admin_key,
        settings.commit_status_key,
        *(DaemonFiles(folder).read_token for folder in folders),
    ]
    for credential in read:
        # One that cannot be read is none that this process could show, and nothing here needs it.
        with contextlib.suppress(ConfigError, OSError, ValueError):
            redactor.add(credential())
    make_secret_reader(settings, redactor).learn_all()
