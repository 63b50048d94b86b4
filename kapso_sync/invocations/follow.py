"""Follows the invocations of one function: asks Kapso again and again, and yields each invocation once."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime

from kapso_sync.dataclass import dataclass
from kapso_sync.errors import ApiError, ExitCode
from kapso_sync.model.clock import Clock
from kapso_sync.model.functions import InvocationRecord
from kapso_sync.model.ports import FunctionsApi
from kapso_sync.retry import Backoff

MAX_LISTED = 20
"""Most invocations of one answer. Source: Kapso's documentation; there are no further pages."""

FAILED = "failed"
"""The status to ask for: Kapso counts every answer but 2xx as failed."""

POLL_INTERVAL = 2.0
"""Fewest seconds between two looks."""

POLL_SHARE = 0.1
"""Most of our share of the rate limit that is spent on looks: the key is the daemon's as well, and of everybody else."""

OUTAGE_PAUSES = Backoff(initial=POLL_INTERVAL, maximum=60.0)
"""Seconds between two looks while Kapso does not answer."""

MAX_REMEMBERED = 1000
"""How many of the newest invocations are known by their ids."""


@dataclass(frozen=True, slots=True)
class Look:
    """The result of one look: new invocations, oldest first.

    ``missed``: others may have come and gone from Kapso's answer since the last look. ``outage`` is the error that begins an
    outage; ``recovered``: this answer ends one.
    """

    new: Sequence[InvocationRecord] = ()
    missed: bool = False
    outage: ApiError | None = None
    recovered: bool = False


async def follow(
    api: FunctionsApi, function_id: str, clock: Clock, random: Callable[[], float], *, status: str | None, first: int
) -> AsyncIterator[Look]:
    """Yield the ``first`` newest invocations, then those that come, until cancelled; one call for each look.

    An API that does not answer is asked less and less, and reported once. Raises `ApiError` for every other refusal, such as
    404 once the function is deleted.
    """
    seen = _Seen()
    failures = 0
    while True:
        try:
            listed = await api.list_invocations(function_id, limit=MAX_LISTED, status=status)
        except ApiError as error:
            if error.exit_code is not ExitCode.UNAVAILABLE:
                raise
            failures += 1
            if failures == 1:
                yield Look(outage=error)
            await clock.sleep(OUTAGE_PAUSES.jittered(failures, random(), least=0.5))
            continue
        look = seen.look(listed, first, recovered=failures > 0)
        failures = 0
        if look != Look():
            yield look
        await clock.sleep(_pause(api.budget.per_second))


def _pause(per_second: float | None) -> float:
    """Return the seconds until the next look: of 80 calls a minute, 8 may be spent on looks, one each 7.5 s."""
    return POLL_INTERVAL if per_second is None else max(POLL_INTERVAL, 1 / (per_second * POLL_SHARE))


def oldest_first(listed: Sequence[InvocationRecord]) -> list[InvocationRecord]:
    """Return Kapso's list, which is newest first, in the order of time."""
    return list(reversed(listed))


class _Seen:
    """The invocations that were yielded, or were there before the first look."""

    def __init__(self) -> None:
        self._order: deque[object] = deque(maxlen=MAX_REMEMBERED)
        self._looked = False
        self._since: datetime | None = None

    def look(self, listed: Sequence[InvocationRecord], first: int, *, recovered: bool) -> Look:
        """Return what is new in an answer, whose order is newest first; of the first answer that is the ``first`` newest."""
        keys = [_key(record) for record in listed]
        known = frozenset(self._order)
        fresh = {key: record for key, record in zip(keys, listed, strict=True) if key not in known and not self._is_old(record)}
        missed = self._looked and len(listed) >= MAX_LISTED and len(fresh) == len(listed)
        self._order.extend(reversed(fresh))
        shown = list(fresh.values()) if self._looked else list(fresh.values())[:first]
        if not self._looked and len(listed) >= MAX_LISTED:
            self._since = listed[-1].created_at
        self._looked = True
        return Look(tuple(oldest_first(shown)), missed, recovered=recovered)

    def _is_old(self, record: InvocationRecord) -> bool:
        """Return whether a record is older than all of the first answer: it shows up when Kapso drops younger ones."""
        return self._since is not None and record.created_at is not None and record.created_at < self._since


def _key(record: InvocationRecord) -> object:
    """Return what an invocation is known by: its id, and without one everything of it."""
    return record.id or (record.created_at, record.status_code, record.duration_ms, record.error)
