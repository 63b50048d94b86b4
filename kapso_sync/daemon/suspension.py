"""Suspends and resumes the daemon; the state folder keeps a suspension, so that a restart does not end it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import timedelta

from kapso_sync.daemon.loop import Loop
from kapso_sync.errors import StateUnusable
from kapso_sync.model.clock import Clock
from kapso_sync.model.status import Suspension
from kapso_sync.store.daemon_files import DaemonFiles


class Suspensions:
    """The suspension in effect.

    ``files`` returns the state folder's files. ``show`` is called with the suspension in effect, or None.
    """

    def __init__(self, clock: Clock, files: Callable[[], DaemonFiles], show: Callable[[Suspension | None], None]) -> None:
        self.current: Suspension | None = None
        self._clock = clock
        self._files = files
        self._show = show

    def suspend(self, reason: str, seconds: float | None, loop: Loop | None) -> None:
        """Stop writing until `resume`, or for ``seconds``.

        Raises `StateUnusable` if the suspension cannot be saved; then nothing is suspended.
        """
        now = self._clock.now()
        suspension = Suspension(reason, now, None if seconds is None else now + timedelta(seconds=seconds))
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
