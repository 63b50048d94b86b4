"""Elects the one replica that writes: it holds a Kubernetes Lease, and renews it.

The rules are those of Kubernetes' own elections (client-go, ``tools/leaderelection``): a holder that stops renewing loses the
Lease, and what was seen of it is judged by our own monotonic clock, never by the times in the record, which another machine's
clock wrote. Here is one take-over, in seconds of each process's own clock:

    A  0.0 renews; may call Kapso until 10.0         B  0.3 sees the record change
    A  0.5 is killed                                 B  2.3, 4.3 … sees the same record again
    A                                                B 15.3 the record has been the same for 15 s: takes over
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any, Protocol

from kapso_sync.dataclass import dataclass
from kapso_sync.errors import LeaseConflict, LeaseError, LeaseMissing, NotLeading
from kapso_sync.model import events
from kapso_sync.model.clock import Clock

MAX_CONFLICTS = 5
"""Conflicts in a row after which the next look waits for its time: each one means that somebody else wrote the Lease."""

AFTER_DEADLINE = 0.02
"""Seconds after a deadline at which it is looked at: it has certainly passed then, whatever the clock rounds."""


@dataclass(frozen=True, slots=True)
class LeaseTiming:
    """Times in seconds, fixed for users, since all replicas must agree on them.

    ``duration``: a record that did not change for so long belongs to nobody. ``renewal``: from one renewal to the next, and
    from one look of a standby to the next. ``writing``: no call to Kapso begins later than this after the last renewal.
    ``request``: one request to the API server. ``release``: giving the Lease up when the daemon stops.

    ``duration - writing`` is what the clocks of two machines may differ in speed, and what a request may be on its way.
    """

    duration: float = 15.0
    renewal: float = 2.0
    writing: float = 10.0
    request: float = 3.0
    release: float = 2.0


@dataclass(frozen=True, slots=True)
class Lease:
    """A Lease as the API server has it. ``document`` is the whole object, so that an update keeps what others put into it."""

    document: Mapping[str, Any]

    @property
    def holder(self) -> str:
        """The identity of the holder; empty: nobody."""
        holder = self._spec.get("holderIdentity")
        return holder if isinstance(holder, str) else ""

    @property
    def annotations(self) -> Mapping[str, str]:
        """The annotations; those that are not text are left out."""
        found = self._metadata.get("annotations")
        return {name: text for name, text in found.items() if isinstance(text, str)} if isinstance(found, dict) else {}

    @property
    def claim(self) -> tuple[object, ...]:
        """What a holder changes with each renewal; annotations are no part of it, because everybody writes them."""
        return tuple(self._spec.get(name) for name in ("holderIdentity", "acquireTime", "renewTime", "leaseTransitions"))

    @property
    def version(self) -> str:
        """The resourceVersion, which an update must name; empty: the API server gave none."""
        version = self._metadata.get("resourceVersion")
        return version if isinstance(version, str) else ""

    @property
    def _spec(self) -> Mapping[str, Any]:
        spec = self.document.get("spec")
        return spec if isinstance(spec, dict) else {}

    @property
    def _metadata(self) -> Mapping[str, Any]:
        metadata = self.document.get("metadata")
        return metadata if isinstance(metadata, dict) else {}

    def claimed(self, identity: str, now: datetime, duration: float) -> Lease:
        """Return the Lease as ``identity`` acquires or renews it; ``now`` is for people to read."""
        spec = {**self._spec, "holderIdentity": identity, "leaseDurationSeconds": round(duration), "renewTime": micro_time(now)}
        if self.holder != identity:
            spec["acquireTime"] = micro_time(now)
            transitions = self._spec.get("leaseTransitions")
            spec["leaseTransitions"] = (transitions if isinstance(transitions, int) else 0) + 1
        return Lease({**self.document, "spec": spec})

    def released(self, now: datetime) -> Lease:
        """Return the Lease as its holder gives it up; like client-go, with a duration of 1 s, since 0 is not allowed."""
        spec = {**self._spec, "holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": micro_time(now)}
        return Lease({**self.document, "spec": spec})

    def annotated(self, annotations: Mapping[str, str]) -> Lease:
        """Return the Lease with these annotations in place of all others."""
        return Lease({**self.document, "metadata": {**self._metadata, "annotations": dict(annotations)}})


def new_lease(name: str, namespace: str) -> Lease:
    """Return a Lease that nobody holds, to be created."""
    return Lease(
        {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {},
        }
    )


def micro_time(moment: datetime) -> str:
    """Return a time as Kubernetes' ``MicroTime``.

    >>> from datetime import UTC
    >>> micro_time(datetime(2026, 1, 1, tzinfo=UTC))
    '2026-01-01T00:00:00.000000Z'
    """
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


class LeaseApi(Protocol):
    """The API server, for one Lease. Every method raises `LeaseError`; ``timeout`` is in seconds, and an upper limit."""

    @property
    def name(self) -> str:
        """``namespace/name`` of the Lease."""
        ...

    async def read(self, timeout: float) -> Lease | None:
        """Return the Lease, or None if there is none."""
        ...

    async def create(self, change: Callable[[Lease], Lease], timeout: float) -> Lease:
        """Create a Lease, and return it as it was stored. Raises `LeaseConflict` if there is one."""
        ...

    async def replace(self, lease: Lease, timeout: float) -> Lease:
        """Store the Lease and return it. Raises `LeaseConflict` if it was written since it was read, and `LeaseMissing`."""
        ...

    async def annotate(self, annotations: Mapping[str, str | None], timeout: float) -> Lease:
        """Set annotations, or remove those that are None, and return the Lease. Raises `LeaseMissing`."""
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...


@dataclass(frozen=True, slots=True)
class Sighting:
    """A Lease, and since when its claim is the same, in our own monotonic seconds."""

    lease: Lease
    since: float


def sighting(before: Sighting | None, lease: Lease, now: float) -> Sighting:
    """Return what is known of the Lease after it was read at ``now``, in monotonic seconds. Pure."""
    same = before is not None and before.lease.claim == lease.claim
    return Sighting(lease, before.since if before is not None and same else now)


def may_claim_in(seen: Sighting | None, identity: str, now: float, duration: float) -> float:
    """Return in how many seconds ``identity`` may claim the Lease; 0.0: now. Pure.

    A Lease of nobody, and one of our own, may be claimed at once, and another's when it did not change for ``duration``.
    """
    if seen is None or seen.lease.holder in ("", identity):
        return 0.0
    return max(0.0, seen.since + duration - now)


class Leadership:
    """Says whether this process may call Kapso now, by the monotonic clock alone: it closes although nothing runs.

    A pass may call Kapso only in the term in which it began: another replica may have written since an earlier one.
    ``identity`` is this process's in the Lease, and no other's.
    """

    def __init__(self, clock: Clock, identity: str) -> None:
        self._clock = clock
        self._identity = identity
        self._until: float | None = None
        self._term = 0
        self._term_of_pass = 0

    @property
    def leading(self) -> bool:
        """Whether this process leads."""
        return self._until is not None and self._clock.monotonic() < self._until

    @property
    def overdue(self) -> bool:
        """Whether it led, and was not renewed in time."""
        return self._until is not None and not self.leading

    @property
    def rest(self) -> float | None:
        """Seconds until it leads no more unless it is renewed, possibly negative; None: it does not lead."""
        return None if self._until is None else self._until - self._clock.monotonic()

    @property
    def term(self) -> str:
        """A name of the term in which the present pass began; no other term of any process has it."""
        return f"{self._identity}-{self._term_of_pass}"

    def renew(self, until: float) -> None:
        """Lead until then, in monotonic seconds; this begins a term unless one runs."""
        if not self.leading:
            self._term += 1
        self._until = until

    def end(self) -> None:
        """Lead no more."""
        self._until = None

    def begin_pass(self) -> None:
        """Let the pass that begins now call Kapso, as long as this term runs."""
        self._term_of_pass = self._term

    def check(self) -> None:
        """Raise `NotLeading` unless the present pass may call Kapso now."""
        if not self.leading or self._term_of_pass != self._term:
            raise NotLeading("this replica does not lead", hint="the holder of the Lease continues")


@dataclass(frozen=True, slots=True)
class ElectorCallbacks:
    """What the elector calls; none may block or raise.

    ``on_seen``: the Lease was read or written. ``on_acquired`` and ``on_lost``: this process leads now, or no more.
    ``kept_annotations`` returns the annotations to keep when the Lease is renewed, and ``lasting_annotations`` those that a
    Lease gets when it is created because somebody deleted it.
    """

    on_seen: Callable[[Lease], None]
    on_acquired: Callable[[Lease], None]
    on_lost: Callable[[], None]
    kept_annotations: Callable[[Mapping[str, str]], Mapping[str, str]] = dict
    lasting_annotations: Callable[[], Mapping[str, str]] = dict


class Elector:
    """Acquires the Lease, renews it, and gives it up. ``identity`` is of this process alone."""

    def __init__(  # noqa: PLR0913 - the seams of the election; each is a parameter so that tests need no patches
        self,
        api: LeaseApi,
        identity: str,
        leadership: Leadership,
        *,
        clock: Clock,
        emit: events.Listener,
        callbacks: ElectorCallbacks,
        timing: LeaseTiming | None = None,
    ) -> None:
        self.identity = identity
        self._api = api
        self._leadership = leadership
        self._clock = clock
        self._emit = emit
        self._callbacks = callbacks
        self._timing = timing or LeaseTiming()
        self._seen: Sighting | None = None
        self._claim_unanswered = False
        self._lock = asyncio.Lock()
        self._failure: str | None = None
        self._failures = 0

    @property
    def holder(self) -> str | None:
        """The identity of the replica that leads, as far as this one knows."""
        if self._leadership.leading:
            return self.identity
        seen = self._seen
        if seen is None or seen.lease.holder in ("", self.identity):
            return None
        return seen.lease.holder if self._clock.monotonic() < seen.since + self._timing.duration else None

    async def step(self) -> float:
        """Look at the Lease once, and claim or renew it where that is due. Return the seconds until the next step."""
        started = self._clock.monotonic()
        self._end_if_overdue()
        async with self._lock:
            await self.attempt(self._look)
        self._end_if_overdue()
        now = self._clock.monotonic()
        rest = self._leadership.rest
        next_renewal = max(0.0, started + self._timing.renewal - now)
        claim = may_claim_in(self._seen, self.identity, now, self._timing.duration)
        due = rest if rest is not None else claim or next_renewal
        return min(next_renewal, max(0.0, due) + AFTER_DEADLINE)

    async def attempt(self, act: Callable[[], Awaitable[None]]) -> bool:
        """Return whether this came through; a failure is logged when it begins, changes and ends."""
        try:
            await act()
        except LeaseError as error:
            self._failed(error)
            return False
        self._recovered()
        return True

    async def annotate(self, annotations: Mapping[str, str | None]) -> None:
        """Set annotations of the Lease, or remove those that are None; the Lease is created if there is none.

        Raises `LeaseError`.
        """
        async with self._lock:
            self._note(await self._annotated(annotations))

    async def _annotated(self, annotations: Mapping[str, str | None]) -> Lease:
        try:
            return await self._api.annotate(annotations, self._timing.request)
        except LeaseMissing:
            wanted = {**self._callbacks.lasting_annotations(), **annotations}
            given = {name: text for name, text in wanted.items() if text is not None}
        try:
            return await self._api.create(lambda new: new.annotated(given), self._timing.request)
        except LeaseConflict:
            return await self._api.annotate(annotations, self._timing.request)

    async def release(self) -> None:
        """Lead no more, and give the Lease up if it is ours; no step may run. Whatever fails, the Lease then expires."""
        self._leadership.end()
        deadline = self._clock.monotonic() + self._timing.release
        lease = self._seen.lease if self._seen is not None else None
        try:
            if self._claim_unanswered:  # It may have come through without our having seen the answer.
                lease = await self._api.read(self._timing.release)
            while lease is not None and lease.holder == self.identity and (left := deadline - self._clock.monotonic()) > 0:
                try:
                    await self._api.replace(lease.released(self._clock.now()), left)
                except LeaseConflict:
                    lease = await self._api.read(left)
                else:
                    self._emit(events.LeaseReleased(lease=self._api.name))
                    return
        except LeaseError as error:
            self._failed(error)

    async def _look(self) -> None:
        """Read the Lease unless we have just written it, and claim it if it may be claimed."""
        lease = self._seen.lease if self._seen is not None and self._leadership.leading else None
        for _ in range(MAX_CONFLICTS):
            if lease is None:
                lease = await self._api.read(self._timeout())
                self._note(lease)
            if may_claim_in(self._seen, self.identity, self._clock.monotonic(), self._timing.duration) > 0:
                return
            sent, self._claim_unanswered = self._clock.monotonic(), True
            try:
                claimed = await self._claim(lease)
            except (LeaseConflict, LeaseMissing):
                lease, self._claim_unanswered = None, False
                continue
            self._claim_unanswered = False
            self._claimed(claimed, sent)
            return

    async def _claim(self, lease: Lease | None) -> Lease:
        def claimed(lease: Lease) -> Lease:
            kept = lease.annotated(self._callbacks.kept_annotations(lease.annotations)) if lease.annotations else lease
            return kept.claimed(self.identity, self._clock.now(), self._timing.duration)

        if lease is None:
            lasting = self._callbacks.lasting_annotations()
            return await self._api.create(lambda new: claimed(new.annotated(lasting)), self._timeout())
        return await self._api.replace(claimed(lease), self._timeout())

    def _timeout(self) -> float:
        """Return the timeout of a request, in seconds: none delays the end of our term."""
        rest = self._leadership.rest
        return self._timing.request if rest is None else max(0.1, min(self._timing.request, rest))

    def _claimed(self, lease: Lease, sent: float) -> None:
        """Lead from when the claim was sent, not from when its answer came: others may count from the former."""
        previous = self._seen.lease.holder if self._seen is not None else None
        self._end_if_overdue()
        self._note(lease)
        until = sent + self._timing.writing
        if self._clock.monotonic() >= until:
            return
        begins = not self._leadership.leading
        self._leadership.renew(until)
        if begins:
            known = previous if previous not in ("", self.identity) else None
            self._emit(events.LeaseAcquired(lease=self._api.name, leader=self.identity, previous=known))
            self._callbacks.on_acquired(lease)

    def _note(self, lease: Lease | None) -> None:
        """Remember the Lease as it was read or written, and step down if it is not ours."""
        if lease is None:
            if self._leadership.leading:
                self._end("the Lease was deleted", None)
            # Where we saw a holder, it may still lead for a while; where we saw none, there is nothing to wait for.
            if self._seen is not None and self._seen.lease.holder == self.identity:
                self._seen = None
            return
        self._seen = sighting(self._seen, lease, self._clock.monotonic())
        if self._leadership.leading and lease.holder != self.identity:
            self._end("another replica holds the Lease", lease.holder or None)
        self._callbacks.on_seen(lease)

    def _end_if_overdue(self) -> None:
        if self._leadership.overdue:
            self._end(f"it was not renewed for {self._timing.writing:g} s", None)

    def _end(self, reason: str, leader: str | None) -> None:
        self._leadership.end()
        self._emit(events.LeaseLost(lease=self._api.name, reason=reason, leader=leader))
        self._callbacks.on_lost()

    def _failed(self, error: LeaseError) -> None:
        """Log a failure when it begins and changes."""
        self._failures += 1
        if error.message != self._failure:
            self._failure = error.message
            self._emit(
                events.LeaseFailed(lease=self._api.name, error=error.message, error_type=type(error).__name__, hint=error.hint)
            )

    def _recovered(self) -> None:
        if self._failure is not None:
            self._emit(events.FailureEnded(failure=events.LeaseFailed.name, times=self._failures, error=self._failure))
        self._failure, self._failures = None, 0
