"""Sends one request at a time to one receiver, and reports a failure once and its end once.

`notifier` has one for each destination, `commit_status_reporter` one for the forge.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import field

from kapso_sync.dataclass import dataclass
from kapso_sync.model import events
from kapso_sync.model.clock import Clock

CLOSE_TIMEOUT = 2.0
"""Seconds that a request in flight may take to arrive when the daemon stops."""


@dataclass
class Outbox:
    """The request in flight, how the last ones ended, and when the next may start.

    ``failure`` is the name of the event by which the owner reports a failure. ``woken`` is set when a request ended.
    """

    clock: Clock
    emit: events.Listener
    woken: asyncio.Event
    failure: str
    failures: int = 0
    _error: str | None = None
    _not_before: float = 0.0
    _sending: asyncio.Task[None] | None = field(default=None, repr=False)

    @property
    def busy(self) -> bool:
        """Whether a request is in flight."""
        return self._sending is not None

    @property
    def wait(self) -> float:
        """Seconds until the next request may start."""
        return max(0.0, self._not_before - self.clock.monotonic())

    def delay(self, seconds: float) -> None:
        """Let the next request start in that many seconds, and not earlier."""
        self._not_before = self.clock.monotonic() + seconds

    def start(self, request: Coroutine[None, None, None], name: str) -> None:
        """Run a request, which must not raise, in the background."""
        self._sending = asyncio.create_task(self._run(request), name=name)

    async def _run(self, request: Coroutine[None, None, None]) -> None:
        try:
            await request
        finally:
            self._sending = None
            self.woken.set()

    def succeeded(self) -> None:
        """Record that a request arrived; report the end of earlier failures."""
        if self.failures:
            ended = events.FailureEnded(failure=self.failure, times=self.failures, error=self._error)
            self.failures, self._error = 0, None
            self.emit(ended)

    def failed(self, error: str) -> bool:
        """Record that a request failed; return whether the error is another one than before, and must be reported."""
        self.failures += 1
        known, self._error = self._error, error
        return error != known

    async def close(self) -> None:
        """Wait a moment for the request in flight, then cancel it."""
        task = self._sending
        if task is not None:
            await asyncio.wait({task}, timeout=CLOSE_TIMEOUT)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
