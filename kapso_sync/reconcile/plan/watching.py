"""Judges a deployment by the invocations that followed it: what counts, what it is compared with, and the verdict. Pure.

A failure is an exception or a status of 500 and above, never a 4xx: who calls a public function must not be able to take it
back. Kapso lists the newest 20 invocations of a function, so of a busy one a sample is seen. All times are Kapso's, except
where a name says otherwise; a time of ours is never compared with them.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from kapso_sync.dataclass import dataclass
from kapso_sync.model.desired import WatchPolicy
from kapso_sync.model.functions import CODE, InvocationRecord, RemoteFunction
from kapso_sync.model.state import DeploymentWatch, InventoryRecord, Tally
from kapso_sync.plurals import counted
from kapso_sync.reconcile.plan.function_usage import request_digest

MAX_LISTED = 20
"""Most invocations of one answer. Source: Kapso's documentation; there are no further pages."""

MAX_SEEN = 200
"""How many invocations of a watch are known by their ids: those of the last ten answers."""

LOOK_INTERVAL = 60.0
"""Fewest seconds between two looks at one function."""

LATE = 60.0
"""Seconds that an invocation may be later than the watch: the last look may have to wait for the rate limit."""


class Verdict(enum.Enum):
    """What the invocations say of a deployment so far."""

    FAILING = enum.auto()
    HEALTHY = enum.auto()
    TOO_LITTLE = enum.auto()
    """Fewer invocations than failures would be needed: it could not have failed."""
    UNKNOWN = enum.auto()
    """What the version before did could not be read, so there is nothing to compare with."""


def prepare(
    owned: InventoryRecord,
    policy: WatchPolicy,
    before: RemoteFunction | None,
    now: datetime,
    replaced: DeploymentWatch | None = None,
) -> DeploymentWatch:
    """Return the watch of a deployment that is about to be requested. ``now`` is our time.

    ``before`` is the function's record as it runs now; None: it is new, so nothing can have invoked it. ``replaced`` is the
    watch that ends by this deployment.

    A runs well, B fails, and C replaces B within B's watch: C is compared with A, which would be restored. That B fails as
    often does not excuse C.
    """
    watch = DeploymentWatch(
        slug=owned.slug,
        function_id=owned.function_id,
        policy=policy,
        code=str(owned.stored.get(CODE)),
        prepared_at=now,
        since=None if before is None else before.last_deployed_at,
        before=Tally() if before is None or before.last_deployed_at is None else None,
    )
    if replaced is None or before is None or replaced.before is None:
        return watch
    runs = replaced.deployed_at is not None and replaced.deployed_at == before.last_deployed_at
    if not (runs or (replaced.deployed_at is None and replaced.inherited)):
        return watch
    failed = replaced.former_failed or replaced.early.failed + replaced.after.failed > 0
    return replace(watch, before=replaced.before, inherited=True, former_failed=failed)


def opened(
    watch: DeploymentWatch, deployed_at: datetime, requests: tuple[str, ...], *, now: datetime, elapsed: float, edge: float
) -> DeploymentWatch:
    """Return the watch of a deployment that was confirmed, and whose checks passed. ``now`` is our time.

    ``elapsed`` is how many seconds ago, at most, it was requested: durations hold for both clocks. ``edge`` is for how long the
    version before may still answer.
    """
    period = timedelta(seconds=watch.policy.period)
    passed = timedelta(seconds=elapsed)
    return replace(
        watch,
        deployed_at=deployed_at,
        until=now + period,
        edge_until=deployed_at + timedelta(seconds=edge),
        checks_until=deployed_at + passed,
        horizon=deployed_at + passed + period + timedelta(seconds=LATE),
        check_requests=requests,
    )


def with_policy(watch: DeploymentWatch, policy: WatchPolicy) -> DeploymentWatch:
    """Return the watch after git changed what fails it; the same object if git did not."""
    if watch.policy == policy:
        return watch
    longer = timedelta(seconds=policy.period - watch.policy.period)
    until = None if watch.until is None else watch.until + longer
    horizon = None if watch.horizon is None else watch.horizon + longer
    return replace(watch, policy=policy, until=until, horizon=horizon)


def is_failure(record: InvocationRecord) -> bool:
    """Return whether an invocation failed by the function's own fault: an exception, or a status of 500 and above."""
    if record.status_code is None:
        return bool(record.error)
    return record.status_code >= 500


def with_invocations(watch: DeploymentWatch, listed: Sequence[InvocationRecord]) -> DeploymentWatch:
    """Return the watch after one look: every invocation counts once, in whatever order and however often it is listed.

    Two looks a minute apart show 20 each, and 5 of the second are in both: 15 new ones count. Where none is in both, others
    were may have been made in between that nobody saw, which ``missed`` says.
    """
    found = {_key(record): record for record in listed}
    known = set(watch.seen)
    first = watch.before is None and not known
    # One that is older than all of the first answer shows up when Kapso drops younger ones.
    fresh = {key: record for key, record in found.items() if key not in known and not _is_older(record, watch.oldest)}
    full = len(found) >= MAX_LISTED
    kept = (*watch.seen, *sorted(fresh, key=lambda key: (str(fresh[key].created_at), key)))[-MAX_SEEN:]
    reaches_back = any(key in known or _is_older(record, watch.deployed_at) for key, record in found.items())
    missed = watch.deployed_at is not None and full and not reaches_back
    counted_now = replace(watch, seen=kept, missed=watch.missed or missed)
    if first and full:
        counted_now = replace(counted_now, oldest=min((r.created_at for r in listed if r.created_at is not None), default=None))
    return _counting(counted_now, fresh.values(), complete=not full and known <= found.keys())


def _counting(watch: DeploymentWatch, fresh: Iterable[InvocationRecord], *, complete: bool) -> DeploymentWatch:
    """Count new invocations; ``complete``: Kapso listed all that there ever were."""
    by_age: dict[_Age, list[InvocationRecord]] = {age: [] for age in _Age}
    for record in fresh:
        by_age[_age(watch, record)].append(record)
    # A 4xx before the deployment is left out: who sends many of them must not make the version before look better, nor unused.
    judged = [record for record in by_age[_Age.BEFORE] if not _is_refusal(record)]
    reaches_back = any(_is_older(record, watch.since) for record in by_age[_Age.NOT_COUNTED])
    before = watch.before
    if before is None and (complete or judged or reaches_back):
        before = Tally()
    if before is not None:
        before = _added(before, judged)
    early, after = _added(watch.early, by_age[_Age.EARLY]), _added(watch.after, by_age[_Age.AFTER])
    return replace(watch, before=before, early=early, after=after)


class _Age(enum.Enum):
    BEFORE = enum.auto()
    EARLY = enum.auto()
    AFTER = enum.auto()
    NOT_COUNTED = enum.auto()


def _age(watch: DeploymentWatch, record: InvocationRecord) -> _Age:
    at = record.created_at
    if at is None or _is_older(record, watch.since):
        return _Age.NOT_COUNTED
    if watch.deployed_at is None or at < watch.deployed_at:
        return _Age.NOT_COUNTED if watch.inherited else _Age.BEFORE
    if watch.horizon is not None and at > watch.horizon:
        return _Age.NOT_COUNTED
    while_checked = watch.checks_until is not None and at <= watch.checks_until and watch.check_requests
    if while_checked and request_digest(record.request_body) in watch.check_requests:
        return _Age.NOT_COUNTED
    return _Age.EARLY if watch.edge_until is not None and at < watch.edge_until else _Age.AFTER


def _is_older(record: InvocationRecord, moment: datetime | None) -> bool:
    return moment is not None and record.created_at is not None and record.created_at < moment


def _is_refusal(record: InvocationRecord) -> bool:
    return record.status_code is not None and 400 <= record.status_code < 500


def _added(tally: Tally, records: Sequence[InvocationRecord]) -> Tally:
    return Tally(tally.total + len(records), tally.failed + sum(map(is_failure, records)))


def _key(record: InvocationRecord) -> str:
    """Return what an invocation is known by: its id, and without one everything of it."""
    return record.id or f"{record.created_at} {record.status_code} {record.duration_ms} {record.error}"


@dataclass(frozen=True, slots=True)
class InvocationCounts:
    """What is compared: the invocations since the deployment, and those of the version before; None: they are not known."""

    since: Tally
    before: Tally | None


def count_invocations(watch: DeploymentWatch) -> InvocationCounts:
    """Return what counts for and against a deployment.

    Right after a deployment Kapso's edge may answer with the version before for a while. If that one was seen to fail, its
    failures at that time are no evidence against the new one.
    """
    early = watch.early if _is_certain(watch) else Tally()
    return InvocationCounts(Tally(early.total + watch.after.total, early.failed + watch.after.failed), watch.before)


def _is_certain(watch: DeploymentWatch) -> bool:
    """Return whether early failures are the new version's: the one before it was never seen to fail."""
    return watch.before is not None and watch.before.failed == 0 and not watch.former_failed


def judge(watch: DeploymentWatch) -> Verdict:
    """Return the verdict on what was seen so far; a failing version reaches both thresholds, and fails more than before."""
    found, policy = count_invocations(watch), watch.policy
    since, before = found.since, found.before
    if before is None:
        return Verdict.UNKNOWN
    many = since.failed >= policy.failures and since.failed * 100 >= policy.percent * since.total
    worse = before.total == 0 or since.failed * before.total > before.failed * since.total
    if many and worse:
        return Verdict.FAILING
    return Verdict.HEALTHY if since.total >= policy.failures else Verdict.TOO_LITTLE


def failures_in(watch: DeploymentWatch, listed: Iterable[InvocationRecord]) -> tuple[InvocationRecord, ...]:
    """Return the failures of an answer that count against the deployment, the newest first."""
    counts = {_Age.AFTER, _Age.EARLY} if _is_certain(watch) else {_Age.AFTER}
    found = {_key(record): record for record in listed if is_failure(record) and _age(watch, record) in counts}
    return tuple(sorted(found.values(), key=lambda record: str(record.created_at), reverse=True))


def counts_text(watch: DeploymentWatch) -> str:
    """Return the evidence in words: ``5 of 6 invocations since its deployment failed, and 1 of 20 before it``."""
    found = count_invocations(watch)
    if found.before is None or found.before.total == 0:
        before = "with none before it to compare them with"
    else:
        before = f"and {found.before.failed or 'none'} of {found.before.total} before it"
    more = f"; Kapso lists {MAX_LISTED} at once, so there may be more" if watch.missed else ""
    return f"{found.since.failed} of {counted(found.since.total, 'invocation')} since its deployment failed, {before}{more}"
