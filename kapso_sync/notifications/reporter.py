"""The reporter: gives each commit its status, when that changes and only then, one request at a time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from kapso_sync.errors import StateUnusable
from kapso_sync.model import events
from kapso_sync.model.clock import Clock
from kapso_sync.notifications.posting import PostResult
from kapso_sync.notifications.verdicts import CommitState, CommitStatus
from kapso_sync.store.json_file import PrivateJsonFile

MAX_ATTEMPTS = 6
INITIAL_DELAY, MAX_DELAY = 2.0, 60.0
"""So often a status is tried, after so many seconds at first and at most."""

MAX_RETRY_AFTER = 300.0
GIVE_UP_DELAY = 900.0
"""Seconds before a status that was given up is tried once more."""

MAX_REMEMBERED, MAX_WAITING = 50, 10
"""So many commits' statuses are remembered, and so many may wait to be set."""

CLOSE_TIMEOUT = 2.0
"""Seconds that a request in flight gets when the daemon ends."""

Post = Callable[[CommitStatus], Awaitable[PostResult]]
"""Sets a commit's status."""


class CommitStatusReporter:
    """Looks at every change. Which status each commit has is kept in ``note``, so that a restart sets nothing twice."""

    def __init__(
        self, judge: Callable[[], CommitStatus | None], post: Post, note: PrivateJsonFile, clock: Clock, emit: events.Listener
    ) -> None:
        self.woken = asyncio.Event()
        self._judge = judge
        self._post = post
        self._note = note
        self._clock = clock
        self._emit = emit
        kept = note.read().get("commits")
        self._known = {str(key): str(value) for key, value in kept.items()} if isinstance(kept, dict) else {}
        self._waiting: dict[str, CommitStatus] = {}
        self._posting: tuple[CommitStatus, asyncio.Task[None]] | None = None
        self._given_up: dict[tuple[str, str], float] = {}
        self._attempts = 0
        self._not_before = 0.0
        self._failures = 0
        self._error: str | None = None

    def look(self) -> float | None:
        """Take note of what a commit deserves and set what is due; return in how many seconds something else is."""
        judgement = self._judge()
        if judgement is not None:
            self._take(judgement)
        if self._posting is not None or not self._waiting:
            return None
        wait = self._not_before - self._clock.monotonic()
        if wait > 0:
            return wait
        first = next(iter(self._waiting.values()))
        del self._waiting[first.commit]
        self._posting = (first, asyncio.create_task(self._set(first), name="commit-status"))
        return None

    async def close(self) -> None:
        """Give the request in flight a moment; what does not arrive is set by the next daemon."""
        if self._posting is not None:
            task = self._posting[1]
            await asyncio.wait({task}, timeout=CLOSE_TIMEOUT)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _take(self, judgement: CommitStatus) -> None:
        commit = judgement.commit
        posting = self._posting[0] if self._posting is not None and self._posting[0].commit == commit else None
        has = str(posting.verdict) if posting is not None else self._known.get(commit)
        if judgement.verdict is CommitState.PENDING and (has is not None or commit in self._waiting):
            return
        if has == judgement.verdict:
            self._waiting.pop(commit, None)
            return
        if self._clock.monotonic() < self._given_up.get((commit, str(judgement.verdict)), 0.0):
            return
        self._waiting[commit] = judgement
        if len(self._waiting) > MAX_WAITING:
            del self._waiting[next(iter(self._waiting))]

    async def _set(self, judgement: CommitStatus) -> None:
        try:
            posted = await self._post(judgement)
            if posted.error is None:
                self._done(judgement)
            else:
                self._failed(judgement, posted, posted.error)
        finally:
            self._posting = None
            self.woken.set()

    def _done(self, judgement: CommitStatus) -> None:
        self._known.pop(judgement.commit, None)
        self._known[judgement.commit] = str(judgement.verdict)
        while len(self._known) > MAX_REMEMBERED:
            del self._known[next(iter(self._known))]
        with contextlib.suppress(StateUnusable):  # the next pass says so; here it may cost one request too many
            self._note.write({"commits": dict(self._known)})
        self._attempts, self._not_before = 0, 0.0
        if self._failures:
            ended = events.FailureEnded(failure="commit_status.failed", times=self._failures, error=self._error)
            self._failures, self._error = 0, None
            self._emit(ended)
        self._emit(events.CommitStatusSet(commit=judgement.commit, state=str(judgement.verdict), text=judgement.text))

    def _failed(self, judgement: CommitStatus, posted: PostResult, error: str) -> None:
        self._failures += 1
        self._attempts += 1
        now = self._clock.monotonic()
        if posted.again and self._attempts < MAX_ATTEMPTS:
            pause = min(INITIAL_DELAY * 2.0 ** (self._attempts - 1), MAX_DELAY)
            self._not_before = now + min(max(pause, posted.retry_after or 0.0), MAX_RETRY_AFTER)
            self._waiting = {judgement.commit: judgement, **self._waiting}
        else:
            self._attempts, self._not_before = 0, now + INITIAL_DELAY
            self._given_up = {key: until for key, until in self._given_up.items() if until > now}
            self._given_up[judgement.commit, str(judgement.verdict)] = now + GIVE_UP_DELAY
        if error != self._error:
            self._error = error
            self._emit(events.CommitStatusFailed(commit=judgement.commit, error=error, hint=posted.hint))
