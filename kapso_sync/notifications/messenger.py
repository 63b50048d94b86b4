"""The messenger: tells each destination what changed since it was last told, once, and not too often."""

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
from kapso_sync.notifications.messages import Message, MessageContext, compose_message
from kapso_sync.notifications.standing import OpenIssues, changes, decode, encode, open_issues, passing_issues
from kapso_sync.store.json_file import PrivateJsonFile

INITIAL_DELAY, MAX_DELAY = 10.0, 900.0
"""Seconds before a message that was not taken is tried again, at first and at most."""

CLOSE_TIMEOUT = 2.0
"""Seconds that messages in flight get when the daemon ends."""

Send = Callable[[Destination, Message], Awaitable[str | None]]
"""Hands a message over; returns what went wrong, or None."""


@dataclass(frozen=True, slots=True)
class NotifierDeps:
    """What a messenger works with. ``interval``: least seconds between two messages to one destination."""

    status: Callable[[], DaemonStatus]
    destinations: Callable[[], tuple[Destination, ...]]
    background: Callable[[DaemonStatus], MessageContext]
    interval: Callable[[], float]
    redact: Callable[[str], str]
    emit: events.Listener


@dataclass
class _Outbox:
    """One destination: what it was told, what came and went since, and how the last attempts ended."""

    destination: Destination
    told: OpenIssues
    passing: OpenIssues = field(default_factory=dict)
    due_at: float = 0.0
    failures: int = 0
    error: str | None = None
    sending: asyncio.Task[None] | None = None


class Notifier:
    """Looks between passes. What a destination was told is kept in ``note``, so that a restart tells nothing twice."""

    def __init__(self, desk: NotifierDeps, deliver: Send, note: PrivateJsonFile, clock: Clock) -> None:
        self.woken = asyncio.Event()
        self._desk = desk
        self._deliver = deliver
        self._note = note
        self._clock = clock
        kept = note.read()
        self._standing = decode(kept.get("standing"))
        told = kept.get("told")
        self._told: dict[str, OpenIssues] = (
            {key: decode(value) for key, value in told.items()} if isinstance(told, dict) else {}
        )
        self._outboxes: dict[str, _Outbox] = {}
        self._background = MessageContext("")
        self._trouble: str | None = None

    def look(self) -> float | None:
        """Take note of what changed and send what is due; return in how many seconds something else is."""
        status = self._desk.status()
        if not status.reconciling:
            self._note_destinations()
            now = open_issues(status, self._standing)
            for outbox in self._outboxes.values():
                outbox.passing = {**outbox.passing, **passing_issues(self._standing, now, outbox.told)}
            self._background = self._desk.background(status)
            if now != self._standing:
                self._standing = now
                self._keep()
        waits = [wait for wait in map(self._send_if_due, self._outboxes.values()) if wait is not None]
        return min(waits) if waits else None

    async def close(self) -> None:
        """Give what is in flight a moment to arrive; what does not is told by the next daemon."""
        sending = [outbox.sending for outbox in self._outboxes.values() if outbox.sending is not None]
        if sending:
            await asyncio.wait(sending, timeout=CLOSE_TIMEOUT)
        for task in sending:
            task.cancel()
        await asyncio.gather(*sending, return_exceptions=True)

    def _note_destinations(self) -> None:
        """Read the addresses again; a file that cannot be read leaves those of before in force."""
        try:
            found = self._desk.destinations()
        except ConfigError as error:
            if self._trouble != error.message:
                self._trouble = error.message
                self._desk.emit(events.NotificationFailed(destination="addresses", error=error.message, hint=error.hint))
            return
        self._trouble = None
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
        found = changes(outbox.told, self._standing, outbox.passing)
        if not found:
            return None
        wait = outbox.due_at - self._clock.monotonic()
        if wait > 0:
            return wait
        message = compose_message(found, self._background, self._desk.redact)
        outbox.sending = asyncio.create_task(self._send(outbox, message, len(found)), name="message")
        return None

    async def _send(self, outbox: _Outbox, message: Message, count: int) -> None:
        saying, passing = self._standing, outbox.passing
        try:
            error = await self._deliver(outbox.destination, message)
            if error is None:
                outbox.told = self._told[outbox.destination.key] = saying
                outbox.passing = {key: trouble for key, trouble in outbox.passing.items() if key not in passing}
                outbox.due_at = self._clock.monotonic() + self._desk.interval()
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
            self._desk.emit(ended)
        self._desk.emit(events.NotificationSent(destination=outbox.destination.label, changes=count))

    def _refused(self, outbox: _Outbox, error: str) -> None:
        outbox.failures += 1
        pause = min(INITIAL_DELAY * 2.0 ** min(outbox.failures - 1, 16), MAX_DELAY)
        outbox.due_at = self._clock.monotonic() + max(pause, self._desk.interval())
        if error != outbox.error:
            outbox.error = error
            hint = "messages to it wait, and are told together once it takes one"
            self._desk.emit(events.NotificationFailed(destination=outbox.destination.label, error=error, hint=hint))

    def _keep(self) -> None:
        if not self._outboxes:
            return
        told: dict[str, Json] = {key: encode(value) for key, value in self._told.items()}
        with contextlib.suppress(StateUnusable):  # the next pass says so; here it may cost one message too many
            self._note.write({"standing": encode(self._standing), "told": told})
