"""The daemon's side of its HTTP API: status, passes, suspension and tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from kapso_sync.advice import Advise, as_it_is
from kapso_sync.daemon.lease_notes import ReplicaRequest
from kapso_sync.daemon.service import DaemonService
from kapso_sync.daemon.settings_reload import SettingsReloader
from kapso_sync.daemon.triggers import Trigger
from kapso_sync.dataclass import dataclass
from kapso_sync.model.events import WebhookRefused
from kapso_sync.model.function_view import BackupView, FunctionRecord, InvocationsView
from kapso_sync.model.policies import PassOverrides
from kapso_sync.model.status import DaemonStatus, FunctionStatus


class FunctionViews(Protocol):
    """What the state folder knows of a function, given by its slug and its id."""

    async def record(self, slug: str, function_id: str | None) -> FunctionRecord:
        """Return what is known of it."""
        ...

    async def backup(self, slug: str, function_id: str | None, backup_id: str) -> BackupView | None:
        """Return one of its backups, or None."""
        ...


class RecentInvocations(Protocol):
    """What Kapso knows of a function's invocations."""

    async def read(self, function_id: str, slug: str) -> InvocationsView:
        """Return the newest ones. Raises `KapsoSyncError`."""
        ...


@dataclass(frozen=True, slots=True)
class FunctionReaders:
    """What reads the details of one function, when somebody looks at it."""

    views: FunctionViews
    invocations: RecentInvocations


class StatusChanges(Protocol):
    """What the status tracker lets others wait for."""

    async def changed(self) -> None:
        """Wait for the next change of the status."""
        ...

    async def passed(self) -> int:
        """Wait for the end of the next pass, and return its exit code."""
        ...


class DaemonController:
    """Implements what the server calls.

    ``metrics`` returns the metrics text and its content type. ``advise`` completes the commands in the status.
    """

    def __init__(
        self,
        service: DaemonService,
        settings: SettingsReloader,
        *,
        metrics: Callable[[], tuple[bytes, str]],
        changes: StatusChanges,
        functions: FunctionReaders,
        advise: Advise = as_it_is,
    ) -> None:
        self._service = service
        self._settings = settings
        self.metrics = metrics
        self._changes = changes
        self._functions = functions
        self._advise = advise
        self._advised: tuple[object, object, tuple[FunctionStatus, ...]] = (None, None, ())

    def status(self) -> DaemonStatus:
        """Return the status now."""
        status, settings = self._service.status(), self._settings.current
        if self._advised[0] is not status.functions or self._advised[1] is not settings:
            functions = tuple(function.advised(self._advise) for function in status.functions)
            self._advised = status.functions, settings, functions
        return status.advised(self._advise, self._advised[2])

    def unhealthy(self) -> str | None:
        """Return what is wrong with the daemon itself, or None if it is healthy."""
        return self._service.unhealthy()

    def started(self) -> bool:
        """Return whether the daemon has read the source at least once, even if it was invalid."""
        return self._service.started

    async def changed(self) -> None:
        """Wait for the next change of the status."""
        await self._changes.changed()

    async def passed(self) -> int:
        """Wait until the next pass ends, and return its exit code."""
        return await self._changes.passed()

    def watched(self) -> tuple[str, str | None]:
        """Return the source's address and, if one is configured, its branch or tag."""
        settings = self._settings.current
        return self._service.status().source, settings.branch or settings.ref

    def moved_to(self) -> str | None:
        """Return the address to which the git server redirects us, if it does."""
        return self._service.moved_to

    def webhook_secret(self) -> str | None:
        """Return the secret that signs the webhook's pushes, or None if there is no webhook. Raises `ConfigError`."""
        return self._settings.current.webhook_key()

    def admin_token(self) -> str:
        """Return the admin token that commands must send. Raises `ConfigError` and `StateUnusable`."""
        return self._service.admin_token()

    async def function_record(self, function: FunctionStatus) -> FunctionRecord:
        """Return what the state folder knows of a function."""
        return await self._functions.views.record(function.slug, function.function_id)

    async def function_backup(self, function: FunctionStatus, backup_id: str) -> BackupView | None:
        """Return a backup of a function, or None if there is none with this id."""
        return await self._functions.views.backup(function.slug, function.function_id, backup_id)

    async def function_invocations(self, function_id: str, slug: str) -> InvocationsView:
        """Return the newest invocations of a function, which costs calls. Raises `KapsoSyncError`."""
        return await self._functions.invocations.read(function_id, slug)

    async def request_after_push(self) -> None:
        """Request a pass because of a push, here or at the leader. Raises `LeaseError`."""
        await self._service.request(ReplicaRequest(Trigger.WEBHOOK))

    def push_refused(self, refused: WebhookRefused) -> None:
        """Report that a push was refused."""
        self._service.push_refused(refused)

    def look_for_changes(self) -> None:
        """Look at the source, here, and reconcile only if it has changed."""
        self._service.look_for_changes()

    async def request_reconcile(self, overrides: PassOverrides) -> None:
        """Request a pass that does what a person allows, here or at the leader. Raises `LeaseError`."""
        await self._service.request(ReplicaRequest(Trigger.PERSON, overrides))

    async def suspend(self, reason: str, seconds: float | None) -> None:
        """Stop writing until `resume`, or for ``seconds``. Raises `StateUnusable` and `LeaseError`."""
        await self._service.suspend(reason, seconds)

    async def resume(self) -> None:
        """Start writing again. Raises `StateUnusable` and `LeaseError`."""
        await self._service.resume()
