"""A server over a status that a test holds in its hands, without a daemon behind it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import httpx

from kapso_sync.errors import KapsoSyncError
from kapso_sync.model.status import DaemonStatus
from kapso_sync.server.app import ServerDeps, make_app
from kapso_sync.server.serve import serving
from tests.clock import VirtualClock
from tests.server.statuses import GOOD

TOKEN = "the-admin-token-of-this-test"
SECRET = "the-webhook-secret"


@dataclass
class Front:
    """What the server was asked, and what it may say."""

    status: DaemonStatus = GOOD
    problem: str | None = None
    ready: bool = True
    secret: str | None = SECRET
    watched: tuple[str, str | None] = ("https://github.com/acme/flows", None)
    public: bool = False
    triggers: list[str] = field(default_factory=list)
    lifted: list[str] = field(default_factory=list)
    suspensions: list[tuple[str, float | None]] = field(default_factory=list)
    failure: KapsoSyncError | None = None
    defect: Exception | None = None
    change: asyncio.Event = field(default_factory=asyncio.Event)
    passed: asyncio.Event = field(default_factory=asyncio.Event)
    clock: VirtualClock = field(default_factory=VirtualClock)
    url: str = ""

    def deps(self) -> ServerDeps:
        async def passed() -> int:
            await self.passed.wait()
            return 0

        async def changed() -> None:
            await self.change.wait()
            self.change.clear()

        return ServerDeps(
            status=self.shown,
            unhealthy=lambda: self.problem,
            ready=lambda: self.ready,
            metrics=lambda: (b"kapso_sync_suspended 0\n", "text/plain"),
            changed=changed,
            passed=passed,
            webhook_secret=self.webhook_secret,
            admin_token=lambda: TOKEN,
            trigger=self.triggers.append,
            lift=self.lifted.extend,
            suspend=self.suspend,
            resume=lambda: self.triggers.append("resume"),
            watched=lambda: self.watched,
            clock=self.clock,
            public=self.public,
        )

    def shown(self) -> DaemonStatus:
        if self.defect is not None:
            raise self.defect
        return self.status

    def webhook_secret(self) -> str | None:
        if self.failure is not None:
            raise self.failure
        return self.secret

    def suspend(self, reason: str, seconds: float | None) -> None:
        if self.failure is not None:
            raise self.failure
        self.suspensions.append((reason, seconds))


@contextlib.asynccontextmanager
async def open_front(front: Front) -> AsyncIterator[httpx.AsyncClient]:
    """Serve it on loopback, and yield a client of it."""
    async with serving(make_app(front.deps()), "127.0.0.1", 0) as url:
        front.url = url
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=5) as client:
            yield client


@contextlib.asynccontextmanager
async def connected(front: Front) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A bare connection to it, for what no client would send."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(front.url.rpartition(":")[2]))
    try:
        yield reader, writer
    finally:
        writer.close()
