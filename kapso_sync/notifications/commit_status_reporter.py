"""Sets the status of each commit at its forge when it changes, one request at a time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from kapso_sync.errors import StateUnusable
from kapso_sync.model import events
from kapso_sync.model.clock import Clock
from kapso_sync.notifications.commit_status import CommitState, CommitStatus
from kapso_sync.notifications.commit_status_client import PostResult
from kapso_sync.notifications.outbox import Outbox
from kapso_sync.retry import Backoff
from kapso_sync.store.json_file import PrivateJsonFile

MAX_ATTEMPTS = 6
BACKOFF = Backoff(initial=2.0, maximum=60.0)
"""Maximum number of attempts to set a status, and the seconds between two attempts."""

MAX_RETRY_AFTER = 300.0
GIVE_UP_DELAY = 900.0
"""Seconds before a status is tried once more after all attempts failed."""

MAX_REMEMBERED, MAX_WAITING = 50, 10
"""Number of commits with a remembered status, and number of statuses that may wait to be set."""

Post = Callable[[CommitStatus], Awaitable[PostResult]]
"""Sets a commit's status."""


class CommitStatusReporter:
    """A worker. The status that each commit has is kept in ``file``, so that a restart sets nothing twice."""

    def __init__(
        self, wanted: Callable[[], CommitStatus | None], post: Post, file: PrivateJsonFile, clock: Clock, emit: events.Listener
    ) -> None:
        self.woken = asyncio.Event()
        self._wanted = wanted
        self._post = post
        self._file = file
        self._clock = clock
        self._emit = emit
        kept = file.read().get("commits")
        self._known = {str(key): str(value) for key, value in kept.items()} if isinstance(kept, dict) else {}
        self._waiting: dict[str, CommitStatus] = {}
        self._outbox = Outbox(clock, emit, self.woken, events.CommitStatusFailed.name)
        self._posting: CommitStatus | None = None
        self._given_up: dict[tuple[str, str], float] = {}
        self._attempts = 0

    def update(self) -> float | None:
        """Queue the status that the current commit should have, and set what is due; return in how many seconds more is due."""
        status = self._wanted()
        if status is not None:
            self._take(status)
        if self._outbox.busy or not self._waiting:
            return None
        if self._outbox.wait > 0:
            return self._outbox.wait
        self._posting = self._waiting.pop(next(iter(self._waiting)))
        self._outbox.start(self._set(self._posting), "commit-status")
        return None

    async def close(self) -> None:
        """Wait a moment for the request in flight; the next daemon sets what does not arrive."""
        await self._outbox.close()

    def _take(self, status: CommitStatus) -> None:
        commit = status.commit
        posting = self._posting if self._posting is not None and self._posting.commit == commit else None
        has = str(posting.state) if posting is not None else self._known.get(commit)
        if status.state is CommitState.PENDING and (has is not None or commit in self._waiting):
            return
        if has == status.state:
            self._waiting.pop(commit, None)
            return
        if self._clock.monotonic() < self._given_up.get((commit, str(status.state)), 0.0):
            return
        self._waiting[commit] = status
        if len(self._waiting) > MAX_WAITING:
            del self._waiting[next(iter(self._waiting))]

    async def _set(self, status: CommitStatus) -> None:
        try:
            result = await self._post(status)
            if result.error is None:
                self._done(status)
            else:
                self._failed(status, result, result.error)
        finally:
            self._posting = None

    def _done(self, status: CommitStatus) -> None:
        self._known.pop(status.commit, None)
        self._known[status.commit] = str(status.state)
        while len(self._known) > MAX_REMEMBERED:
            del self._known[next(iter(self._known))]
        with contextlib.suppress(StateUnusable):  # the next pass reports it; here it may cost one request too many
            self._file.write({"commits": dict(self._known)})
        self._attempts = 0
        self._outbox.succeeded()
        self._emit(events.CommitStatusSet(commit=status.commit, state=str(status.state), text=status.text))

    def _failed(self, status: CommitStatus, result: PostResult, error: str) -> None:
        self._attempts += 1
        if self._outbox.failed(error):
            self._emit(events.CommitStatusFailed(commit=status.commit, error=error, hint=result.hint))
        if result.again and self._attempts < MAX_ATTEMPTS:
            delay = BACKOFF.delay(self._attempts)
            self._outbox.delay(min(max(delay, result.retry_after or 0.0), MAX_RETRY_AFTER))
            self._waiting = {status.commit: status, **self._waiting}
            return
        now, self._attempts = self._clock.monotonic(), 0
        self._outbox.delay(BACKOFF.initial)
        self._given_up = {key: until for key, until in self._given_up.items() if until > now}
        self._given_up[status.commit, str(status.state)] = now + GIVE_UP_DELAY
