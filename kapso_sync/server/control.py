"""What the server may ask of the daemon behind it, and the limits that it keeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from kapso_sync.model.status import DaemonStatus


class DaemonControl(Protocol):
    """The daemon, as far as the server needs it."""

    def status(self) -> DaemonStatus:
        """Return the status now."""
        ...

    def unhealthy(self) -> str | None:
        """Return what is wrong with the daemon itself, or None."""
        ...

    def started(self) -> bool:
        """Return whether the source was read once, whatever it showed."""
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

    def webhook_secret(self) -> str | None:
        """Return the secret that pushes are signed with; None: no webhook. Raises `ConfigError`."""
        ...

    def admin_token(self) -> str:
        """Return the token that commands need. Raises `ConfigError` and `StateUnusable`."""
        ...

    def request_after_push(self) -> None:
        """Request a pass because of a push."""
        ...

    def request_reconcile(self) -> None:
        """Request a pass because a person asked."""
        ...

    def retry_quarantined(self, slugs: Sequence[str]) -> None:
        """Lift the quarantine of these functions in the next pass."""
        ...

    def suspend(self, reason: str, seconds: float | None) -> None:
        """Write nothing until `resume`, or for this many seconds. Raises `StateUnusable`."""
        ...

    def resume(self) -> None:
        """Write again. Raises `StateUnusable`."""
        ...


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """Times are in seconds.

    ``heartbeat``: a quiet event stream says this often that it is alive. ``gather``: changes within this time are one event.
    ``streams``: event streams at a time. ``deliveries``: webhook delivery ids that are remembered, to answer a replay without
    another pass. ``head_timeout`` and ``body_timeout``: how long a request's head and body may take to arrive.
    """

    heartbeat: float = 15.0
    gather: float = 0.2
    streams: int = 100
    deliveries: int = 1000
    head_timeout: float = 10.0
    body_timeout: float = 10.0
