"""What replicas tell each other on the Lease: requests reach the leader once, and a suspension reaches all of them."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapso_sync.daemon.lease import Leadership
from kapso_sync.daemon.lease_notes import (
    MAX_REASON,
    RECONCILE,
    SUSPENDED,
    WEBHOOK,
    ReplicaRequest,
    kept_notes,
    request_notes,
    requests_in,
    suspension_in,
    suspension_note,
)
from kapso_sync.daemon.replica import Replica, ReplicaCallbacks, ReplicaDeps
from kapso_sync.daemon.triggers import Trigger
from kapso_sync.errors import LeaseError
from kapso_sync.model import events
from kapso_sync.model.policies import PassOverrides
from kapso_sync.model.status import Role, Suspension
from tests.daemon.leases import Election, LeaseLink, election
from tests.virtual_time import in_virtual_time

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PUSHED = ReplicaRequest(Trigger.WEBHOOK)
ASKED = ReplicaRequest(Trigger.PERSON, PassOverrides(retry=frozenset({"greet"}), delete=frozenset({"old"}), reset_secrets=True))
FREEZE = Suspension("a freeze", NOW, None)

slugs = st.frozensets(st.text(max_size=8), max_size=3)
overrides = st.builds(PassOverrides, slugs, slugs, slugs, slugs, st.booleans(), st.booleans())


@dataclass
class Seen:
    """One replica, and what it was told."""

    replica: Replica
    link: LeaseLink
    told: list[events.Event]
    requests: list[ReplicaRequest] = field(default_factory=list)
    unsettled: list[Callable[[], None]] = field(default_factory=list)
    suspensions: list[Suspension | None] = field(default_factory=list)
    roles: list[tuple[Role, str | None]] = field(default_factory=list)
    acts: list[str] = field(default_factory=list)

    def settle(self) -> None:
        """Let a pass end that did all requests."""
        for on_used in self.unsettled:
            on_used()
        self.unsettled.clear()


def join(running: Election, identity: str) -> Seen:
    link, told = LeaseLink(running.store, running.clock), list[events.Event]()
    numbers = itertools.count(1)
    deps = ReplicaDeps(link, identity, Leadership(running.clock, identity), lambda: f"{identity}{next(numbers)}")

    def requested(request: ReplicaRequest, on_used: Callable[[], None]) -> None:
        seen.requests.append(request)
        seen.unsettled.append(on_used)

    def suspended(suspension: Suspension | None) -> None:
        seen.suspensions.append(suspension)
        seen.acts.append("suspension")

    callbacks = ReplicaCallbacks(
        on_lead=lambda: seen.acts.append("lead"),
        on_stand_by=lambda: seen.acts.append("stand by"),
        on_request=requested,
        on_suspension=suspended,
        on_change=lambda: seen.roles.append((seen.replica.role, seen.replica.leader)),
    )
    seen = Seen(Replica(deps, running.clock, told.append, callbacks), link, told)
    return seen


@contextlib.asynccontextmanager
async def two_replicas() -> AsyncIterator[tuple[Election, Seen, Seen]]:
    """A leader and a standby, in office for a second."""
    async with election() as running:
        leader, standby = join(running, "a"), join(running, "b")
        running.spawn(leader.replica.run())
        await running.clock.sleep(0.5)
        running.spawn(standby.replica.run())
        await running.clock.sleep(0.5)
        assert (leader.replica.role, standby.replica.role) == (Role.LEADER, Role.STANDBY)
        yield running, leader, standby


@in_virtual_time
async def test_requests_at_a_standby_reach_the_leader_once_with_its_next_renewal() -> None:
    """All kinds, with what a person allows; the annotations are gone with the renewal after their pass."""
    async with two_replicas() as (running, leader, standby):
        await standby.replica.request(PUSHED)
        await standby.replica.request(PUSHED)
        await standby.replica.request(ASKED)
        await standby.replica.request(ReplicaRequest(Trigger.PERSON))
        assert standby.requests == []
        await running.clock.sleep(2.1)
        assert leader.requests == [ReplicaRequest(Trigger.PERSON), ASKED, PUSHED]
        await running.clock.sleep(20.0)
        assert (len(leader.requests), len(running.store.read().annotations)) == (3, 3)
        leader.settle()
        await running.clock.sleep(2.1)
        assert (len(leader.requests), running.store.read().annotations) == (3, {})
        await standby.replica.request(PUSHED)
        await running.clock.sleep(2.1)
        assert leader.requests[3:] == [PUSHED]


@in_virtual_time
async def test_a_request_at_the_leader_needs_no_lease_api() -> None:
    """It is the leader's own."""
    async with two_replicas() as (_, leader, _standby):
        leader.link.failure = LeaseError("down")
        await leader.replica.request(ASKED)
        assert leader.requests == [ASKED]


@in_virtual_time
async def test_a_request_that_no_leader_read_waits_for_the_next_one() -> None:
    """Also where nobody leads at all, and where there is no Lease yet."""
    async with election() as running:
        standby, next_one = join(running, "a"), join(running, "b")
        await standby.replica.request(ASKED)
        assert running.store.holder == ""
        running.spawn(next_one.replica.run())
        await running.clock.sleep(1.0)
        assert next_one.acts == ["lead"]
        assert next_one.requests == [ASKED]


@in_virtual_time
async def test_a_request_whose_leader_is_lost_before_its_pass_ends_reaches_the_next_one() -> None:
    """Once; and one that was settled never does."""
    async with two_replicas() as (running, leader, standby):
        await standby.replica.request(PUSHED)
        await running.clock.sleep(2.1)
        leader.settle()
        await running.clock.sleep(2.1)
        await standby.replica.request(ASKED)
        await running.clock.sleep(2.1)
        assert leader.requests == [PUSHED, ASKED]
        leader.link.failure = LeaseError("down")
        await running.clock.sleep(20.0)
        assert (standby.replica.role, standby.requests) == (Role.LEADER, [ASKED])
        standby.settle()
        leader.link.failure = None
        await running.clock.sleep(20.0)
        assert (standby.requests, running.store.read().annotations) == ([ASKED], {})


@in_virtual_time
async def test_a_request_is_the_same_leaders_again_after_it_lost_the_lease_for_a_while() -> None:
    """What it was told before, its loop has forgotten."""
    async with two_replicas() as (running, leader, standby):
        await standby.replica.request(ASKED)
        await running.clock.sleep(2.1)
        standby.link.failure = leader.link.failure = LeaseError("down")
        await running.clock.sleep(12.0)
        assert leader.acts == ["lead", "stand by"]
        leader.link.failure = None
        await running.clock.sleep(2.1)
        assert (leader.acts[2:], leader.requests) == (["lead"], [ASKED, ASKED])


@in_virtual_time
async def test_a_suspension_from_before_there_was_a_lease_moves_to_it() -> None:
    """Before this replica takes part in the election, however long the API server does not answer."""
    async with election() as running:
        first, stored = join(running, "a"), list[str]()
        first.replica.bring(FREEZE, lambda: stored.append("stored"))
        first.link.failure = LeaseError("down")
        running.spawn(first.replica.run())
        await running.clock.sleep(30.0)
        assert (stored, first.acts) == ([], [])
        first.link.failure = None
        await running.clock.sleep(5.0)
        assert (stored, first.acts, first.suspensions) == (["stored"], ["suspension", "lead"], [FREEZE])
        assert suspension_in(running.store.read().annotations, NOW) == FREEZE
        assert [event.name for event in first.told] == ["lease.failed", "failure.ended", "lease.acquired"]


@in_virtual_time
async def test_a_suspension_that_is_brought_along_replaces_none_in_effect() -> None:
    """What all replicas agreed on counts."""
    async with two_replicas() as (running, leader, _standby):
        await leader.replica.suspend(FREEZE)
        third, stored = join(running, "c"), list[str]()
        third.replica.bring(Suspension("an older one", NOW, None), lambda: stored.append("dealt with"))
        running.spawn(third.replica.run())
        await running.clock.sleep(5.0)
        assert (stored, third.suspensions) == (["dealt with"], [FREEZE])
        assert suspension_in(running.store.read().annotations, NOW) == FREEZE


@in_virtual_time
async def test_deleting_the_lease_ends_no_suspension() -> None:
    """Whoever creates it anew, the leader or a request at a standby, knows the suspension; a resume still ends it."""
    async with two_replicas() as (running, leader, standby):
        await leader.replica.suspend(FREEZE)
        await running.clock.sleep(4.1)
        running.store.document = None
        await running.clock.sleep(4.1)
        assert suspension_in(running.store.read().annotations, NOW) == FREEZE
        running.store.document = None
        await standby.replica.request(PUSHED)
        assert suspension_in(running.store.read().annotations, NOW) == FREEZE
        running.store.document = None
        await standby.replica.resume()
        assert SUSPENDED not in running.store.read().annotations
        await running.clock.sleep(4.1)
        assert (leader.suspensions, standby.suspensions) == ([FREEZE, None], [FREEZE, None])


@in_virtual_time
async def test_a_suspension_reaches_every_replica_and_outlives_them() -> None:
    """It is in effect before a new leader begins a pass; a resume reaches all of them, and asks for one."""
    async with two_replicas() as (running, leader, standby):
        await standby.replica.suspend(FREEZE)
        assert standby.suspensions == [FREEZE]
        await running.clock.sleep(2.1)
        assert leader.suspensions == [FREEZE]
        for task in running.others:
            task.cancel()
        await leader.replica.leave()
        later = join(running, "c")
        running.spawn(later.replica.run())
        await running.clock.sleep(1.0)
        assert (later.suspensions, later.acts) == ([FREEZE], ["suspension", "lead"])
        await later.replica.resume()
        await running.clock.sleep(4.1)
        assert (later.suspensions, later.requests) == ([FREEZE, None], [ReplicaRequest(Trigger.RESUME)])
        later.settle()
        await running.clock.sleep(2.1)
        assert running.store.read().annotations == {}


@in_virtual_time
async def test_a_suspension_that_cannot_be_stored_is_an_error() -> None:
    """Then nothing is suspended."""
    async with two_replicas() as (_, leader, _standby):
        leader.link.failure = LeaseError("down")
        with pytest.raises(LeaseError):
            await leader.replica.suspend(FREEZE)
        assert leader.suspensions == []


@in_virtual_time
async def test_a_suspension_that_is_over_is_removed_by_the_leader() -> None:
    """And suspends no replica that starts later."""
    async with two_replicas() as (running, leader, _standby):
        until = running.clock.now() + timedelta(seconds=30)
        await leader.replica.suspend(Suspension("a freeze", running.clock.now(), until))
        assert SUSPENDED in running.store.read().annotations
        await running.clock.sleep(33.0)
        assert running.store.read().annotations == {}


@in_virtual_time
async def test_roles_and_leader_are_reported_when_they_change() -> None:
    """A standby knows the leader, and knows when there is none."""
    async with two_replicas() as (running, leader, standby):
        assert (leader.roles[-1], standby.roles) == ((Role.LEADER, "a"), [(Role.STANDBY, "a")])
        leader.link.failure = LeaseError("down")
        await running.clock.sleep(13.0)
        assert leader.roles[-1] == (Role.STANDBY, None)
        await running.clock.sleep(10.0)
        assert standby.roles[-1] == (Role.LEADER, "b")


@given(overrides, st.sampled_from([Trigger.WEBHOOK, Trigger.PERSON, Trigger.RESUME]))
def test_requests_survive_the_annotations(allowed: PassOverrides, trigger: Trigger) -> None:
    """With everything that a person allows, whatever the slugs are."""
    notes = {key: text for key, text in request_notes(ReplicaRequest(trigger, allowed), "1f2e3d").items() if text is not None}
    assert list(requests_in(notes).values()) == [ReplicaRequest(trigger, allowed)]
    assert all(len(key.partition("/")[2]) <= 63 for key in notes)


@given(st.text(), st.none() | st.integers(1, 10**6))
def test_suspensions_survive_the_annotation(reason: str, seconds: int | None) -> None:
    """With their times, to the microsecond."""
    suspension = Suspension(" ".join(reason.split()), NOW, None if seconds is None else NOW + timedelta(seconds=seconds))
    (text,) = suspension_note(suspension).values()
    assert text is not None
    found = suspension_in({SUSPENDED: text}, NOW)
    assert found is not None
    assert (found.since, found.until) == (suspension.since, suspension.until)
    if suspension.reason:
        assert found.reason == suspension.reason[:MAX_REASON]


@given(
    st.text()
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    ).map(json.dumps)
)
def test_annotations_by_hand_never_break_a_replica(text: str) -> None:
    """Any text suspends with itself as the reason, and asks for a pass that is allowed nothing it does not name."""
    assert suspension_in({SUSPENDED: text}, NOW) is not None or "until" in text
    assert set(requests_in({RECONCILE: text, WEBHOOK: text, "example.com/x": text})) == {RECONCILE, WEBHOOK}


def test_a_note_by_kubectl_suspends() -> None:
    """The plain text is the reason."""
    assert suspension_in({SUSPENDED: "a  freeze"}, NOW) == FREEZE
    assert suspension_in({}, NOW) is None


def test_only_settled_requests_and_ended_suspensions_are_removed() -> None:
    """The same key with another text is another request."""
    over = Suspension("a freeze", NOW - timedelta(hours=2), NOW - timedelta(hours=1))
    notes = {**suspension_note(over), WEBHOOK: "second", RECONCILE: "done", "example.com/x": "1"}
    given_notes = {key: text for key, text in notes.items() if text is not None}
    assert kept_notes(given_notes, {(WEBHOOK, "first"), (RECONCILE, "done")}, NOW) == {WEBHOOK: "second", "example.com/x": "1"}
