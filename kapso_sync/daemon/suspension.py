"""Suspends and resumes the daemon; the state folder or the Lease, keeps a suspension, so that a restart does not end it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Protocol

from kapso_sync.daemon.loop import Loop
from kapso_sync.errors import StateUnusable
from kapso_sync.model.clock import Clock
from kapso_sync.model.status import Suspension


def suspension_from(now: datetime, reason: str, seconds: float | None) -> Suspension:
    """Return a suspension that begins now; ``seconds`` None: until somebody resumes."""
    return Suspension(reason, now, None if seconds is None else now + timedelta(seconds=seconds))


class SuspensionStore(Protocol):
    """Keeps a suspension; every method that writes raises `StateUnusable`."""

    def remember_suspension(self, suspension: Suspension) -> None:
        """Keep the suspension."""
        ...

    def forget_suspension(self) -> None:
        """Remove the suspension."""
        ...

    def suspension(self) -> Suspension | None:
        """Return the suspension that is kept, even if its time is over."""
        ...


class KeptOnLease:
    """The store of a replica: it keeps nothing, because the Lease does."""

    def remember_suspension(self, suspension: Suspension) -> None:
        """Do nothing."""

    def forget_suspension(self) -> None:
        """Do nothing."""

    def suspension(self) -> Suspension | None:
        """Return None."""
        return None


class Suspensions:
    """The suspension in effect.

    ``files`` returns what keeps it: the state folder's files, or `KeptOnLease`. ``show`` is called with the suspension in
    effect, or None.
    """

    def __init__(self, clock: Clock, files: Callable[[], SuspensionStore], show: Callable[[Suspension | None], None]) -> None:
        self.current: Suspension | None = None
        self._clock = clock
        self._files = files
        self._show = show

    def suspend(self, reason: str, seconds: float | None, loop: Loop | None) -> None:
        """Stop writing until `resume`, or for ``seconds``.

        Raises `StateUnusable` if the suspension cannot be saved; then nothing is suspended.
        """
        suspension = suspension_from(self._clock.now(), reason, seconds)
        self._files().remember_suspension(suspension)
        self._set(suspension)
        if loop is not None:
            loop.suspend(suspension)

    def resume(self, loop: Loop | None) -> None:
        """Start writing again, beginning with a pass. Raises `StateUnusable`."""
        self._files().forget_suspension()
        self._set(None)
        if loop is not None:
            loop.resume()

    def adopt(self, suspension: Suspension | None, loop: Loop | None) -> None:
        """Put a suspension of all replicas into effect, or end it (None); it is kept elsewhere."""
        if suspension == self.current:
            return
        self._set(suspension)
        if loop is not None and suspension is not None:
            loop.suspend(suspension)
        elif loop is not None:
            loop.resume()

    def restore(self, loop: Loop) -> bool:
        """Apply the suspension from before a restart or a settings reload; return whether there is one.

        A suspension that was requested while another state folder was in use counts as well.
        """
        suspension = self.current or self._files().suspension()
        if suspension is None or (suspension.until is not None and suspension.until <= self._clock.now()):
            self.expired()
            return False
        self._files().remember_suspension(suspension)
        self._set(suspension)
        loop.suspend(suspension)
        return True

    def expired(self) -> None:
        """Remove the suspension, because its time is over."""
        self._set(None)
        with contextlib.suppress(StateUnusable):
            self._files().forget_suspension()

    def _set(self, suspension: Suspension | None) -> None:
        self.current = suspension
        self._show(suspension)
