"""Sends each destination one message about what changed since its last one, and not too often."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from kapso_sync.errors import ConfigError, StateUnusable
from kapso_sync.model import events
from kapso_sync.model.clock import Clock
from kapso_sync.model.functions import Json
from kapso_sync.model.status import DaemonStatus
from kapso_sync.notifications.destinations import Destination
from kapso_sync.notifications.issues import OpenIssues, changes, decode, encode, open_issues, passing_issues
from kapso_sync.notifications.messages import Message, MessageContext, compose_message
from kapso_sync.retry import Backoff
from kapso_sync.store.json_file import PrivateJsonFile

BACKOFF = Backoff(initial=10.0, maximum=900.0)
"""Seconds before a message that was refused is sent again."""

CLOSE_TIMEOUT = 2.0
"""Seconds that messages in flight may take to arrive when the daemon stops."""

Send = Callable[[Destination, Message], Awaitable[str | None]]
"""Sends a message; returns what went wrong, or None."""


@dataclass(frozen=True, slots=True)
class NotifierDeps:
    """What a notifier works with. ``interval``: seconds between two messages to one destination, at least."""

    status: Callable[[], DaemonStatus]
    destinations: Callable[[], tuple[Destination, ...]]
    context: Callable[[DaemonStatus], MessageContext]
    interval: Callable[[], float]
    redact: Callable[[str], str]
    emit: events.Listener


@dataclass
class _Outbox:
    """One destination: the issues it received last, those that opened and closed since, and how the last attempts ended."""

    destination: Destination
    told: OpenIssues
    passing: OpenIssues = field(default_factory=dict)
    due_at: float = 0.0
    failures: int = 0
    error: str | None = None
    sending: asyncio.Task[None] | None = None


class Notifier:
    """A worker. What each destination received is kept in ``file``, so that a restart sends nothing twice."""

    def __init__(self, deps: NotifierDeps, send: Send, file: PrivateJsonFile, clock: Clock) -> None:
        self.woken = asyncio.Event()
        self._deps = deps
        self._transport = send
        self._file = file
        self._clock = clock
        kept = file.read()
        self._issues = decode(kept.get("standing"))
        told = kept.get("told")
        self._told: dict[str, OpenIssues] = (
            {key: decode(value) for key, value in told.items()} if isinstance(told, dict) else {}
        )
        self._outboxes: dict[str, _Outbox] = {}
        self._context = MessageContext("")
        self._addresses_error: str | None = None

    def update(self) -> float | None:
        """Compare the status with what was sent, and send what is due; return in how many seconds the next message is due."""
        status = self._deps.status()
        if not status.reconciling:
            self._read_destinations()
            now = open_issues(status, self._issues)
            for outbox in self._outboxes.values():
                outbox.passing = {**outbox.passing, **passing_issues(self._issues, now, outbox.told)}
            self._context = self._deps.context(status)
            if now != self._issues:
                self._issues = now
                self._keep()
        waits = [wait for wait in map(self._send_if_due, self._outboxes.values()) if wait is not None]
        return min(waits) if waits else None

    async def close(self) -> None:
        """Wait a moment for messages in flight; the next daemon sends those that do not arrive."""
        sending = [outbox.sending for outbox in self._outboxes.values() if outbox.sending is not None]
        if sending:
            await asyncio.wait(sending, timeout=CLOSE_TIMEOUT)
        for task in sending:
            task.cancel()
        await asyncio.gather(*sending, return_exceptions=True)

    def _read_destinations(self) -> None:
        """Read the addresses again; if the file cannot be read, the previous addresses stay in effect."""
        try:
            found = self._deps.destinations()
        except ConfigError as error:
            if self._addresses_error != error.message:
                self._addresses_error = error.message
                self._deps.emit(events.NotificationFailed(destination="addresses", error=error.message, hint=error.hint))
            return
        self._addresses_error = None
        for key in self._outboxes.keys() - {destination.key for destination in found}:
            if self._outboxes[key].sending is None:
                del self._outboxes[key]
                self._told.pop(key, None)
        for destination in found:
            box = self._outboxes.setdefault(destination.key, _Outbox(destination, self._told.get(destination.key, {})))
            box.destination = destination

    def _send_if_due(self, outbox: _Outbox) -> float | None:
        if outbox.sending is not None:
            return None
        found = changes(outbox.told, self._issues, outbox.passing)
        if not found:
            return None
        wait = outbox.due_at - self._clock.monotonic()
        if wait > 0:
            return wait
        message = compose_message(found, self._context, self._deps.redact)
        outbox.sending = asyncio.create_task(self._send(outbox, message, len(found)), name="message")
        return None

    async def _send(self, outbox: _Outbox, message: Message, count: int) -> None:
        saying, passing = self._issues, outbox.passing
        try:
            error = await self._transport(outbox.destination, message)
            if error is None:
                outbox.told = self._told[outbox.destination.key] = saying
                outbox.passing = {key: issue for key, issue in outbox.passing.items() if key not in passing}
                outbox.due_at = self._clock.monotonic() + self._deps.interval()
                self._keep()
                self._arrived(outbox, count)
            else:
                self._refused(outbox, error)
        finally:
            outbox.sending = None
            self.woken.set()

    def _arrived(self, outbox: _Outbox, count: int) -> None:
        if outbox.failures:
            ended = events.FailureEnded(failure="notification.failed", times=outbox.failures, error=outbox.error)
            outbox.failures, outbox.error = 0, None
            self._deps.emit(ended)
        self._deps.emit(events.NotificationSent(destination=outbox.destination.label, changes=count))

    def _refused(self, outbox: _Outbox, error: str) -> None:
        outbox.failures += 1
        delay = BACKOFF.delay(outbox.failures)
        outbox.due_at = self._clock.monotonic() + max(delay, self._deps.interval())
        if error != outbox.error:
            outbox.error = error
            hint = "messages to it wait, and are sent as one once it accepts them"
            self._deps.emit(events.NotificationFailed(destination=outbox.destination.label, error=error, hint=hint))

    def _keep(self) -> None:
        if not self._outboxes:
            return
        told: dict[str, Json] = {key: encode(value) for key, value in self._told.items()}
        with contextlib.suppress(StateUnusable):  # the next pass reports it; here it may cost one message too many
            self._file.write({"standing": encode(self._issues), "told": told})
