"""Sends each destination one message about the changes since its last one, and limits how often."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import field

from kapso_sync.dataclass import dataclass
from kapso_sync.errors import ConfigError, StateUnusable
from kapso_sync.model import events
from kapso_sync.model.clock import Clock
from kapso_sync.model.json_values import Json
from kapso_sync.model.status import DaemonStatus
from kapso_sync.notifications.destinations import Destination
from kapso_sync.notifications.issues import OpenIssues, changes, decode, encode, open_issues, passing_issues
from kapso_sync.notifications.messages import Message, MessageContext, compose_message
from kapso_sync.notifications.outbox import Outbox
from kapso_sync.retry import Backoff
from kapso_sync.store.json_file import PrivateJsonFile

BACKOFF = Backoff(initial=10.0, maximum=900.0)
"""Seconds before a refused message is sent again."""

Send = Callable[[Destination, Message], Awaitable[str | None]]
"""Sends a message; returns the error, or None."""


@dataclass(frozen=True, slots=True)
class NotifierDeps:
    """The inputs of a notifier. ``interval`` is the minimum time, in seconds, between two messages to one destination."""

    status: Callable[[], DaemonStatus]
    destinations: Callable[[], tuple[Destination, ...]]
    context: Callable[[DaemonStatus], MessageContext]
    interval: Callable[[], float]
    redact: Callable[[str], str]
    emit: events.Listener


@dataclass
class _Recipient:
    """One destination: the issues it received last, and those that opened and closed since."""

    destination: Destination
    outbox: Outbox
    told: OpenIssues
    passing: OpenIssues = field(default_factory=dict)


class Notifier:
    """A worker. ``file`` stores what each destination received, so that a restart sends nothing twice."""

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
        self._recipients: dict[str, _Recipient] = {}
        self._context = MessageContext("")
        self._addresses_error: str | None = None

    def update(self) -> float | None:
        """Compare the status with the sent messages, and send those that are due; return the seconds until the next one."""
        status = self._deps.status()
        if not status.reconciling:
            self._read_destinations()
            now = open_issues(status, self._issues)
            for recipient in self._recipients.values():
                recipient.passing = {**recipient.passing, **passing_issues(self._issues, now, recipient.told)}
            self._context = self._deps.context(status)
            if now != self._issues:
                self._issues = now
                self._keep()
        waits = [wait for wait in map(self._send_if_due, self._recipients.values()) if wait is not None]
        return min(waits) if waits else None

    async def close(self) -> None:
        """Wait a moment for messages in flight; the next daemon sends those that do not arrive."""
        await asyncio.gather(*(recipient.outbox.close() for recipient in self._recipients.values()))

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
        for key in self._recipients.keys() - {destination.key for destination in found}:
            if not self._recipients[key].outbox.busy:
                del self._recipients[key]
                self._told.pop(key, None)
        for destination in found:
            recipient = self._recipients.get(destination.key)
            if recipient is None:
                outbox = Outbox(self._clock, self._deps.emit, self.woken, events.NotificationFailed.name)
                recipient = _Recipient(destination, outbox, self._told.get(destination.key, {}))
                self._recipients[destination.key] = recipient
            recipient.destination = destination

    def _send_if_due(self, recipient: _Recipient) -> float | None:
        outbox = recipient.outbox
        if outbox.busy:
            return None
        found = changes(recipient.told, self._issues, recipient.passing)
        if not found:
            return None
        if outbox.wait > 0:
            return outbox.wait
        message = compose_message(found, self._context, self._deps.redact)
        outbox.start(self._send(recipient, message, len(found)), "message")
        return None

    async def _send(self, recipient: _Recipient, message: Message, count: int) -> None:
        outbox, saying, passing = recipient.outbox, self._issues, recipient.passing
        error = await self._transport(recipient.destination, message)
        if error is not None:
            self._refused(recipient, error)
            return
        recipient.told = self._told[recipient.destination.key] = saying
        recipient.passing = {key: issue for key, issue in recipient.passing.items() if key not in passing}
        outbox.delay(self._deps.interval())
        self._keep()
        outbox.succeeded()
        self._deps.emit(events.NotificationSent(destination=recipient.destination.label, changes=count))

    def _refused(self, recipient: _Recipient, error: str) -> None:
        outbox = recipient.outbox
        if outbox.failed(error):
            hint = "messages to it wait, and are sent as one once it accepts them"
            self._deps.emit(events.NotificationFailed(destination=recipient.destination.label, error=error, hint=hint))
        outbox.delay(max(BACKOFF.delay(outbox.failures), self._deps.interval()))

    def _keep(self) -> None:
        if not self._recipients:
            return
        told: dict[str, Json] = {key: encode(value) for key, value in self._told.items()}
        with contextlib.suppress(StateUnusable):  # the next pass reports it; here it may cost one message too many
            self._file.write({"standing": encode(self._issues), "told": told})
