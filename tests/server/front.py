"""The HTTP server over a status that the test sets, without a daemon."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx
from starlette.routing import Route

from kapso_sync.errors import KapsoSyncError
from kapso_sync.model.events import WebhookRefused
from kapso_sync.model.function_view import BackupView, FunctionRecord, InvocationsView
from kapso_sync.model.policies import PassOverrides
from kapso_sync.model.status import DaemonStatus, FunctionStatus
from kapso_sync.server.app import make_app
from kapso_sync.server.control import ServerLimits
from kapso_sync.server.serve import serving
from tests.clock import VirtualClock
from tests.server.statuses import BACKUP, GOOD, INVOCATIONS, RECORD

TOKEN = "the-admin-token-of-this-test"
SECRET = "the-webhook-secret"


@dataclass
class DaemonStub:
    """The status that the server shows, and the requests that it got."""

    status: DaemonStatus = GOOD
    problem: str | None = None
    ready: bool = True
    secret: str | None = SECRET
    watched: tuple[str, str | None] = ("https://github.com/acme/flows", None)
    moved_to: str | None = None
    public: bool = False
    renderings: int = 0
    triggers: list[str] = field(default_factory=list)
    overrides: PassOverrides = field(default_factory=PassOverrides)
    refusals: list[WebhookRefused] = field(default_factory=list)
    suspensions: list[tuple[str, float | None]] = field(default_factory=list)
    failure: KapsoSyncError | None = None
    defect: Exception | None = None
    unreachable: KapsoSyncError | None = None
    change: asyncio.Event = field(default_factory=asyncio.Event)
    passed: asyncio.Event = field(default_factory=asyncio.Event)
    clock: VirtualClock = field(default_factory=VirtualClock)
    limits: ServerLimits = field(default_factory=ServerLimits)
    url: str = ""
    record: FunctionRecord = RECORD
    backup: BackupView = BACKUP
    invocations: InvocationsView = INVOCATIONS
    reads: list[str] = field(default_factory=list)
    token: str = TOKEN
    views: Any = None
    token_failure: KapsoSyncError | None = None

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


@dataclass(frozen=True)
class Control:
    """The daemon that a server asks: what the stub says, and notes of what was asked."""

    stub: DaemonStub

    def status(self) -> DaemonStatus:
        return self.stub.shown()

    def unhealthy(self) -> str | None:
        return self.stub.problem

    def started(self) -> bool:
        return self.stub.ready

    def metrics(self) -> tuple[bytes, str]:
        self.stub.renderings += 1
        return b"kapso_sync_suspended 0\n", "text/plain"

    async def changed(self) -> None:
        await self.stub.change.wait()
        self.stub.change.clear()

    async def passed(self) -> int:
        await self.stub.passed.wait()
        return 0

    def watched(self) -> tuple[str, str | None]:
        return self.stub.watched

    def moved_to(self) -> str | None:
        return self.stub.moved_to

    def webhook_secret(self) -> str | None:
        return self.stub.webhook_secret()

    def admin_token(self) -> str:
        if self.stub.token_failure is not None:
            raise self.stub.token_failure
        return self.stub.token

    async def function_record(self, function: FunctionStatus) -> FunctionRecord:
        self.stub.reads.append(f"record {function.slug}")
        return self.stub.record

    async def function_backup(self, function: FunctionStatus, backup_id: str) -> BackupView | None:
        self.stub.reads.append(f"backup {function.slug}")
        return self.stub.backup if self.stub.backup.summary.id == backup_id else None

    async def function_invocations(self, function_id: str, slug: str) -> InvocationsView:
        self.stub.reads.append(f"invocations {function_id} {slug}")
        if self.stub.failure is not None:
            raise self.stub.failure
        return self.stub.invocations

    async def request_after_push(self) -> None:
        if self.stub.unreachable is not None:
            raise self.stub.unreachable
        self.stub.triggers.append("webhook")

    def push_refused(self, refused: WebhookRefused) -> None:
        self.stub.refusals.append(refused)

    def look_for_changes(self) -> None:
        self.stub.triggers.append("look")

    async def request_reconcile(self, overrides: PassOverrides) -> None:
        self.stub.overrides |= overrides
        self.stub.triggers.append("reconcile")

    async def suspend(self, reason: str, seconds: float | None) -> None:
        self.stub.suspend(reason, seconds)

    async def resume(self) -> None:
        self.stub.triggers.append("resume")


@contextlib.asynccontextmanager
async def open_server(stub: DaemonStub) -> AsyncIterator[httpx.AsyncClient]:
    """Serve it on loopback, and yield a client of it."""
    app = make_app(Control(stub), stub.clock, public=stub.public, limits=stub.limits)
    stub.views = next(
        getattr(route.endpoint, "__self__", None) for route in app.routes if isinstance(route, Route) and route.path == "/"
    )
    async with serving(app, "127.0.0.1", 0, limits=stub.limits) as url:
        stub.url = url
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=20) as client:
            yield client


@contextlib.asynccontextmanager
async def connected(
    stub: DaemonStub, address: str = "127.0.0.1"
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A bare connection to it from an address of this machine, for what no client would send."""
    port = int(stub.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
    try:
        yield reader, writer
    finally:
        writer.close()
