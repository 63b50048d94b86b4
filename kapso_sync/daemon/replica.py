"""This process as one of several replicas: it takes part in the election, and hands on what reaches a standby.

`lease` decides who leads, `lease_notes` says how requests and suspensions are written on the Lease.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

from kapso_sync.daemon.lease import Elector, ElectorCallbacks, Leadership, Lease, LeaseApi, LeaseTiming
from kapso_sync.daemon.lease_notes import (
    SUSPENDED,
    ReplicaRequest,
    kept_notes,
    request_notes,
    requests_in,
    suspension_in,
    suspension_note,
)
from kapso_sync.daemon.triggers import Trigger
from kapso_sync.dataclass import dataclass
from kapso_sync.model import events
from kapso_sync.model.clock import Clock
from kapso_sync.model.status import Role, Suspension


@dataclass(frozen=True, slots=True)
class ReplicaDeps:
    """The Lease, and who takes part. ``identity`` is of this process alone; ``new_id`` returns random text."""

    api: LeaseApi
    identity: str
    leadership: Leadership
    new_id: Callable[[], str]
    timing: LeaseTiming | None = None


@dataclass(frozen=True, slots=True)
class ReplicaCallbacks:
    """What changes at this replica; none may block or raise.

    ``on_lead`` and ``on_stand_by``: it leads now, or no more. ``on_request``: as the leader it got a request; what comes with
    it is called when the request is settled, and until then the next leader gets it as well.
    ``on_suspension``: all replicas are suspended now, or no more. ``on_change``: the role or the leader has changed.
    """

    on_lead: Callable[[], None]
    on_stand_by: Callable[[], None]
    on_request: Callable[[ReplicaRequest, Callable[[], None]], None]
    on_suspension: Callable[[Suspension | None], None]
    on_change: Callable[[], None]


class Replica:
    """Runs the election for this process, and reads and writes the notes on the Lease."""

    def __init__(self, deps: ReplicaDeps, clock: Clock, emit: events.Listener, callbacks: ReplicaCallbacks) -> None:
        self._api = deps.api
        self._leadership = deps.leadership
        self._new_id = deps.new_id
        self._clock = clock
        self._callbacks = callbacks
        self._handled: dict[str, str] = {}
        self._settled: set[tuple[str, str]] = set()
        self._suspension_note: str | None = None
        self._brought: tuple[Suspension, Callable[[], None]] | None = None
        self._shown: tuple[Role, str | None] | None = None
        self._elector = Elector(
            deps.api,
            deps.identity,
            deps.leadership,
            clock=clock,
            emit=emit,
            callbacks=ElectorCallbacks(self._see, self._lead, self._stand_by, self._kept, self._lasting),
            timing=deps.timing,
        )
        self._timing = deps.timing or LeaseTiming()

    @property
    def lease(self) -> str:
        """``namespace/name`` of the Lease."""
        return self._api.name

    @property
    def role(self) -> Role:
        """The role of this replica now."""
        return Role.LEADER if self._leadership.leading else Role.STANDBY

    @property
    def leader(self) -> str | None:
        """The identity of the replica that leads, or None if none is known to lead."""
        return self._elector.holder

    async def run(self) -> None:
        """Take part in the election until cancelled, and store a suspension that was brought along before that."""
        while self._brought is not None and not await self._elector.attempt(self._store_brought):
            await self._clock.sleep(self._timing.renewal)
        while True:
            pause = await self._elector.step()
            self._show()
            await self._clock.sleep(pause)

    async def leave(self) -> None:
        """Give the Lease up, if this replica holds it; `run` must have ended."""
        await self._elector.release()
        await self._api.close()

    async def request(self, request: ReplicaRequest) -> None:
        """Do what is requested, at the leader, wherever that is. Raises `LeaseError`."""
        if self._leadership.leading:
            self._callbacks.on_request(request, lambda: None)
        else:
            await self._elector.annotate(request_notes(request, self._new_id()))

    def bring(self, suspension: Suspension, on_stored: Callable[[], None]) -> None:
        """Suspend all replicas, unless they are suspended already, before this one takes part in the election."""
        self._brought = suspension, on_stored

    async def _store_brought(self) -> None:
        if self._brought is None:
            return
        suspension, on_stored = self._brought
        lease = await self._api.read(self._timing.request)
        if lease is None or suspension_in(lease.annotations, self._clock.now()) is None:
            await self.suspend(suspension)
        self._brought = None
        on_stored()

    async def suspend(self, suspension: Suspension) -> None:
        """Suspend all replicas. Raises `LeaseError`; then nothing is suspended."""
        await self._elector.annotate(suspension_note(suspension))

    async def resume(self) -> None:
        """End a suspension, and request a pass. Raises `LeaseError`."""
        asked = request_notes(ReplicaRequest(Trigger.RESUME), self._new_id())
        await self._elector.annotate({**suspension_note(None), **asked})

    def _see(self, lease: Lease) -> None:
        text = lease.annotations.get(SUSPENDED)
        if text != self._suspension_note:
            self._suspension_note = text
            self._callbacks.on_suspension(suspension_in(lease.annotations, self._clock.now()))
        self._handled = {key: text for key, text in self._handled.items() if lease.annotations.get(key) == text}
        self._settled = {(key, text) for key, text in self._settled if lease.annotations.get(key) == text}
        if self._leadership.leading:
            self._handle(lease)
        self._show()

    def _handle(self, lease: Lease) -> None:
        for key, request in requests_in(lease.annotations).items():
            text = lease.annotations[key]
            if self._handled.get(key) != text and (key, text) not in self._settled:
                self._handled[key] = text
                self._callbacks.on_request(request, functools.partial(self._settle, key, text))

    def _settle(self, key: str, text: str) -> None:
        self._settled.add((key, text))

    def _kept(self, annotations: Mapping[str, str]) -> Mapping[str, str]:
        return kept_notes(annotations, self._settled, self._clock.now())

    def _lasting(self) -> Mapping[str, str]:
        """Return the annotations for a Lease that is created because somebody deleted it: that must not end a suspension."""
        return {} if self._suspension_note is None else {SUSPENDED: self._suspension_note}

    def _lead(self, lease: Lease) -> None:
        self._callbacks.on_lead()
        self._handle(lease)
        self._show()

    def _stand_by(self) -> None:
        self._handled.clear()
        self._callbacks.on_stand_by()
        self._show()

    def _show(self) -> None:
        """Report the role and the leader, if either has changed."""
        if (self.role, self.leader) != self._shown:
            self._shown = (self.role, self.leader)
            self._callbacks.on_change()
