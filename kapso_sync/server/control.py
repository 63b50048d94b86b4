"""Defines the calls of the server to the daemon, and the server's limits."""

from __future__ import annotations

from typing import Protocol

from kapso_sync.dataclass import dataclass
from kapso_sync.model.events import WebhookRefused
from kapso_sync.model.function_view import BackupView, FunctionRecord, InvocationsView
from kapso_sync.model.policies import PassOverrides
from kapso_sync.model.status import DaemonStatus, FunctionStatus


class DaemonControl(Protocol):
    """The daemon, as far as the server needs it."""

    def status(self) -> DaemonStatus:
        """Return the status now."""
        ...

    def unhealthy(self) -> str | None:
        """Return why the daemon itself is unhealthy, or None."""
        ...

    def started(self) -> bool:
        """Return whether the source was read once, with any result."""
        ...

    def metrics(self) -> tuple[bytes, str]:
        """Return the metrics and their content type."""
        ...

    async def changed(self) -> None:
        """Wait for the next change of the status."""
        ...

    async def passed(self) -> int:
        """Wait until the next pass ends, and return its exit code."""
        ...

    def watched(self) -> tuple[str, str | None]:
        """Return the source's address and, if one is configured, its branch or tag."""
        ...

    def moved_to(self) -> str | None:
        """Return the address to which the git server redirects us, if it does."""
        ...

    def webhook_secret(self) -> str | None:
        """Return the secret that pushes are signed with; None: no webhook. Raises `ConfigError`."""
        ...

    def admin_token(self) -> str:
        """Return the token that commands need. Raises `ConfigError` and `StateUnusable`."""
        ...

    async def function_record(self, function: FunctionStatus) -> FunctionRecord:
        """Return what the state folder knows of a function."""
        ...

    async def function_backup(self, function: FunctionStatus, backup_id: str) -> BackupView | None:
        """Return a backup of a function, or None if there is none with this id."""
        ...

    async def function_invocations(self, function_id: str, slug: str) -> InvocationsView:
        """Return the newest invocations of a function, which costs calls. Raises `KapsoSyncError`."""
        ...

    async def request_after_push(self) -> None:
        """Request a pass because of a push. Raises `LeaseError` if the leader cannot be told."""
        ...

    def push_refused(self, refused: WebhookRefused) -> None:
        """Report that a push was refused."""
        ...

    def look_for_changes(self) -> None:
        """Look at the source, and reconcile only if it has changed."""
        ...

    async def request_reconcile(self, overrides: PassOverrides) -> None:
        """Request a pass that does what a person allows. Raises `LeaseError` if the leader cannot be told."""
        ...

    async def suspend(self, reason: str, seconds: float | None) -> None:
        """Write nothing until `resume`, or for this many seconds. Raises `StateUnusable` and `LeaseError`."""
        ...

    async def resume(self) -> None:
        """Write again. Raises `StateUnusable` and `LeaseError`."""
        ...


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """The limits of the server; times are in seconds, sizes in bytes.

    ``heartbeat`` is the interval of keep-alive messages in a quiet event stream. ``gather``: changes within this time are one
    event. ``streams`` is the maximum number of event streams, ``metrics_age`` how old the metrics may be that are shown. A
    webhook that was taken and comes again within ``replay_window`` is a replay; ``deliveries`` is how many are remembered for
    that. ``head_timeout`` and ``body_timeout`` are how long a request's head and body may take to arrive, ``unread_timeout``
    how long a client may leave an answer unread. ``connections`` is the maximum number of connections, ``connections_each``
    that of one address, and ``bodies`` the memory for all bodies that are arriving.

    ``session`` is how long somebody is signed in to the page, ``sessions`` how many are at once. Within ``guess_window`` an
    address may send ``guesses`` wrong tokens, and all together ``guesses_in_all``. ``page_size`` is the number of functions on
    a page.
    """

    heartbeat: float = 15.0
    gather: float = 0.2
    streams: int = 100
    metrics_age: float = 1.0
    replay_window: float = 60.0
    deliveries: int = 1000
    head_timeout: float = 10.0
    body_timeout: float = 10.0
    unread_timeout: float = 60.0
    connections: int = 500
    connections_each: int = 250
    bodies: int = 16 * 1024 * 1024
    session: float = 3600.0
    sessions: int = 100
    guesses: int = 5
    guesses_in_all: int = 100
    guess_window: float = 60.0
    page_size: int = 100
