"""The election: at most one replica may write at any time, and there is soon another when it is gone."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kapso_sync.daemon.lease import Lease, LeaseTiming, Sighting, may_claim_in, new_lease, sighting
from kapso_sync.errors import LeaseForbidden, NotLeading
from kapso_sync.model import events
from tests.daemon.leases import Delivery, Election, election
from tests.virtual_time import in_virtual_time, run_virtually

TIMING = LeaseTiming()
WALL = datetime(2026, 1, 1, tzinfo=UTC)
FORBIDDEN = LeaseForbidden("update of the Lease apps/kapso-sync answered 403", hint="let the Role allow `update`")


@in_virtual_time
async def test_the_first_replica_creates_the_lease_and_leads_at_once() -> None:
    """The others wait, and know who leads."""
    async with election() as running:
        first, second = running.join("a"), running.join("b")
        running.start(first)
        running.start(second, after=1.0)
        await running.clock.sleep(5.0)
        assert (running.leaders, running.store.holder) == (["a"], "a")
        assert (second.elector.holder, second.acquired) == ("a", 0)
        acquired = events.LeaseAcquired(lease="apps/kapso-sync", leader="a")
        assert first.told == [acquired]


@in_virtual_time
async def test_the_leader_renews_every_two_seconds_with_one_call() -> None:
    """An update each; nothing is read that it wrote itself."""
    async with election() as running:
        leader = running.join("a")
        running.start(leader)
        await running.clock.sleep(1.0)
        leader.link.asked.clear()
        await running.clock.sleep(20.0)
        assert leader.link.asked == ["update"] * 10


@in_virtual_time
async def test_a_released_lease_is_taken_over_within_two_seconds() -> None:
    """By whichever replica looks first."""
    async with election() as running:
        first, second = running.join("a"), running.join("b")
        running.start(first)
        running.start(second, after=0.5)
        await running.clock.sleep(5.0)
        await running.stop(first)
        released = running.clock.monotonic()
        assert (running.leaders, running.store.holder) == ([], "")
        while running.leaders != ["b"]:
            await running.clock.sleep(0.1)
        assert running.clock.monotonic() - released <= TIMING.renewal + 0.2
        assert first.names() == ["lease.acquired", "lease.released"]
        acquired = events.LeaseAcquired(lease="apps/kapso-sync", leader="b")
        assert second.told == [acquired]


@in_virtual_time
async def test_a_replica_stopped_before_its_claim_is_answered_releases_it_all_the_same() -> None:
    """The Lease may be its own although no answer ever said so: it looks, and does not let the others wait for its end."""
    async with election() as running:
        replica = running.join("a", deliveries=[Delivery(), Delivery(back=5.0)])
        running.start(replica)
        await running.clock.sleep(0.1)
        assert (running.leaders, running.store.holder) == ([], "a")
        await running.stop(replica)
        assert (replica.acquired, running.store.holder) == (0, "")
        assert replica.names() == ["lease.released"]


@in_virtual_time
async def test_a_killed_leader_is_followed_within_twenty_seconds() -> None:
    """The new one waits until the record has not changed for 15 s of its own clock."""
    async with election() as running:
        first, second = running.join("a"), running.join("b")
        running.start(first)
        running.start(second, after=1.9)
        await running.clock.sleep(5.9)
        running.kill(first)
        killed = running.clock.monotonic()
        while running.leaders != ["b"]:
            await running.clock.sleep(0.1)
        assert TIMING.writing < running.clock.monotonic() - killed <= TIMING.duration + TIMING.renewal + 0.2
        assert [event.previous for event in second.told if isinstance(event, events.LeaseAcquired)] == ["a"]
        assert running.overlaps == []


@pytest.mark.parametrize("ahead", [-1_000_000.0, 1_000_000.0])
@in_virtual_time
async def test_wrong_wall_clocks_do_not_matter(ahead: float) -> None:
    """A holder whose clock is years off keeps the Lease: no time of another machine is ever compared with ours."""
    async with election() as running:
        first, second = running.join("a", ahead=ahead), running.join("b")
        running.start(first)
        running.start(second, after=1.0)
        await running.clock.sleep(60.0)
        assert running.leaders == ["a"]


@in_virtual_time
async def test_a_leader_without_renewal_may_write_for_ten_seconds_only() -> None:
    """Counted from when the last good renewal was sent; it then stands by, says so, and takes part again."""
    async with election() as running:
        leader = running.join("a")
        running.start(leader)
        await running.clock.sleep(0.5)
        leader.link.usual = Delivery(lost=True)
        while leader.leadership.leading:
            await running.clock.sleep(0.05)
        assert running.clock.monotonic() == pytest.approx(TIMING.writing, abs=0.2)
        with pytest.raises(NotLeading):
            leader.leadership.check()
        await running.clock.sleep(0.5)
        assert (leader.lost, leader.names()) == (1, ["lease.acquired", "lease.failed", "lease.lost"])
        leader.link.usual = Delivery()
        await running.clock.sleep(6.0)
        assert (running.leaders, leader.acquired) == (["a"], 2)
        assert leader.names()[3:] == ["lease.acquired", "failure.ended"]


@in_virtual_time
async def test_every_term_of_leadership_has_a_name_of_its_own() -> None:
    """Two replicas lead twice each: no term has the name of another one."""
    async with election() as running:
        replicas = [running.join(identity) for identity in "ab"]
        names = []
        for _ in range(2):
            for replica in replicas:
                replica.leadership.renew(running.clock.monotonic() + 5.0)
                replica.leadership.begin_pass()
                names.append(replica.leadership.term)
                replica.leadership.renew(running.clock.monotonic() + 5.0)
                replica.leadership.begin_pass()
                assert replica.leadership.term == names[-1]
                replica.leadership.end()
                assert replica.leadership.term == names[-1]
        assert len(set(names)) == 4


@in_virtual_time
async def test_a_pass_of_an_earlier_term_may_not_write() -> None:
    """Even where the same replica leads again: another may have written in between."""
    async with election() as running:
        leader = running.join("a")
        running.start(leader)
        await running.clock.sleep(0.5)
        leader.leadership.begin_pass()
        leader.leadership.check()
        leader.link.usual = Delivery(lost=True)
        await running.clock.sleep(12.0)
        leader.link.usual = Delivery()
        await running.clock.sleep(6.0)
        assert leader.leadership.leading
        with pytest.raises(NotLeading):
            leader.leadership.check()
        leader.leadership.begin_pass()
        leader.leadership.check()


@in_virtual_time
async def test_a_process_that_slept_leads_no_more_when_it_wakes() -> None:
    """Before anything of it has run again; another replica leads meanwhile."""
    async with election() as running:
        first, second = running.join("a"), running.join("b")
        running.start(first, stops={1: 60.0})
        running.start(second, after=1.0)
        await running.clock.sleep(50.0)
        first.leadership.begin_pass()
        with pytest.raises(NotLeading):
            first.leadership.check()
        await running.clock.sleep(20.0)
        assert (running.leaders, first.names()) == (["b"], ["lease.acquired", "lease.lost"])


@in_virtual_time
async def test_another_holder_ends_a_leadership_at_once() -> None:
    """Somebody edited the Lease by hand: the old leader stops with the renewal that finds it out."""
    async with election() as running:
        leader = running.join("a")
        running.start(leader)
        await running.clock.sleep(1.0)
        running.store.stored(running.store.read().claimed("somebody", WALL, 15.0).document)
        await running.clock.sleep(1.5)
        assert running.leaders == []
        lost = [event for event in leader.told if isinstance(event, events.LeaseLost)]
        assert [(event.reason, event.leader) for event in lost] == [("another replica holds the Lease", "somebody")]


@in_virtual_time
async def test_a_deleted_lease_is_created_again_and_stale_leaders_are_waited_for() -> None:
    """A standby that saw a holder waits for its time; the leader steps down and is the first to create it again."""
    async with election() as running:
        first, second = running.join("a"), running.join("b")
        running.start(first)
        running.start(second, after=1.0)
        await running.clock.sleep(4.5)
        running.store.document = None
        await running.clock.sleep(3.0)
        assert running.leaders == ["a"]
        running.kill(first)
        running.store.document = None
        gone = running.clock.monotonic()
        while not running.leaders or running.leaders == ["a"]:
            await running.clock.sleep(0.1)
        assert running.clock.monotonic() - gone > TIMING.writing - TIMING.renewal
        assert running.overlaps == []


@in_virtual_time
async def test_a_refusal_is_reported_once_and_its_end_too() -> None:
    """The replica keeps trying, and never leads meanwhile."""
    async with election() as running:
        replica = running.join("a")
        replica.link.failure = FORBIDDEN
        running.start(replica)
        await running.clock.sleep(30.0)
        assert [type(event) for event in replica.told] == [events.LeaseFailed]
        assert replica.told[0] == events.LeaseFailed(
            lease="apps/kapso-sync", error=FORBIDDEN.message, error_type="LeaseForbidden", hint=FORBIDDEN.hint
        )
        assert len(replica.link.asked) >= 14
        replica.link.failure = None
        await running.clock.sleep(3.0)
        assert replica.names() == ["lease.failed", "lease.acquired", "failure.ended"]


@in_virtual_time
async def test_annotations_by_others_do_not_prolong_a_dead_leader() -> None:
    """Only a holder's renewal counts: a webhook each second must not keep a dead leader in office."""
    async with election() as running:
        first, second = running.join("a"), running.join("b")
        running.start(first)
        running.start(second, after=1.0)
        await running.clock.sleep(3.0)
        running.kill(first)
        killed = running.clock.monotonic()
        while running.leaders != ["b"]:
            await second.elector.annotate({"kapso-sync/webhook": str(running.clock.monotonic())})
            await running.clock.sleep(1.0)
            assert running.clock.monotonic() - killed < 20.0


@in_virtual_time
async def test_an_update_keeps_what_others_put_into_the_lease() -> None:
    """Labels, owner references and foreign annotations stay, through renewals and a release."""
    async with election() as running:
        document = dict(new_lease("kapso-sync", "apps").document)
        document["metadata"] = {**document["metadata"], "labels": {"team": "flows"}, "annotations": {"example.com/x": "1"}}
        running.store.stored(document)
        leader = running.join("a")
        running.start(leader)
        await running.clock.sleep(5.0)
        assert running.leaders == ["a"]
        await running.stop(leader)
        kept = running.store.read().document["metadata"]
        assert (kept["labels"], kept["annotations"]) == ({"team": "flows"}, {"example.com/x": "1"})


def test_transitions_and_times_follow_the_holder() -> None:
    """A renewal changes the time of renewal alone; a take-over counts."""
    first = new_lease("kapso-sync", "apps").claimed("a", WALL, 15.0)
    again = first.claimed("a", WALL.replace(second=2), 15.0)
    other = again.released(WALL.replace(second=3)).claimed("b", WALL.replace(second=4), 15.0)
    assert first.document["spec"] == {
        "holderIdentity": "a",
        "leaseDurationSeconds": 15,
        "acquireTime": "2026-01-01T00:00:00.000000Z",
        "renewTime": "2026-01-01T00:00:00.000000Z",
        "leaseTransitions": 1,
    }
    assert again.document["spec"] == {**first.document["spec"], "renewTime": "2026-01-01T00:00:02.000000Z"}
    assert (other.holder, other.document["spec"]["leaseTransitions"]) == ("b", 2)


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"spec": None},
        {"spec": {"holderIdentity": None}},
        {"spec": {"holderIdentity": 7}},
        {"metadata": {"annotations": None}},
    ],
)
def test_a_record_without_holder_may_be_claimed(document: dict[str, object]) -> None:
    """Whatever else is missing in it, or of another type."""
    seen = sighting(None, Lease(document), 1.0)
    assert may_claim_in(seen, "a", 1.0, 15.0) == 0.0
    assert seen.lease.claimed("a", WALL, 15.0).holder == "a"
    assert seen.lease.annotations == {}


def test_expiry_counts_from_the_last_change_that_was_seen() -> None:
    """Our own first sight of a record counts, however old it says that it is."""
    lease = new_lease("kapso-sync", "apps").claimed("b", WALL, 15.0)
    first = sighting(None, lease, 100.0)
    assert sighting(first, lease, 107.0) == Sighting(lease, 100.0)
    assert may_claim_in(first, "a", 110.0, 15.0) == pytest.approx(5.0)
    assert may_claim_in(first, "a", 115.0, 15.0) == 0.0
    renewed = sighting(first, lease.claimed("b", WALL.replace(second=9), 15.0), 114.0)
    assert may_claim_in(renewed, "a", 115.0, 15.0) == pytest.approx(14.0)


@dataclass(frozen=True)
class Fate:
    """What happens to one replica: its clock's speed, its wall clock, its requests, pauses after steps, and when it starts."""

    rate: float
    ahead: float
    deliveries: list[Delivery]
    stops: dict[int, float]
    start: float


seconds = st.sampled_from([0.01, 0.01, 0.01, 0.5, 1.5, 2.9, 3.5, 8.0, 20.0])
stops = st.sampled_from([0.0, 0.0, 0.0, 0.0, 4.0, 9.0, 16.0, 40.0])
rarely = st.sampled_from([False, False, False, True])
fates = st.builds(
    Fate,
    rate=st.sampled_from([0.87, 1.0, 1.0, 1.13]),
    ahead=st.sampled_from([-5000.0, 0.0, 12345.0]),
    deliveries=st.lists(
        st.builds(Delivery, seconds, seconds, lost=rarely, answer_lost=rarely, stopped_before=stops, stopped_after=stops),
        max_size=25,
    ),
    stops=st.dictionaries(st.integers(0, 20), st.sampled_from([3.0, 9.5, 12.0, 16.0, 60.0]), max_size=3),
    start=st.sampled_from([0.0, 0.0, 0.3, 1.0, 7.0]),
)
acts = st.lists(st.tuples(st.sampled_from([0.7, 3.0, 11.0, 19.0]), st.sampled_from(["release", "annotate"])), max_size=6)


@pytest.mark.history
@given(st.lists(fates, min_size=2, max_size=3), acts)
@settings(max_examples=100)
def test_at_most_one_replica_may_write_at_any_time(given_fates: list[Fate], given_acts: list[tuple[float, str]]) -> None:
    """Whatever is lost or late, whoever sleeps or stops, however fast the clocks run; and in the end one of them leads."""

    async def history() -> None:
        async with election() as running:
            for name, fate in zip("abc", given_fates, strict=False):
                contender = running.join(name, rate=fate.rate, ahead=fate.ahead, deliveries=fate.deliveries)
                running.start(contender, after=fate.start, stops=fate.stops)
            for pause, act in given_acts:
                await running.clock.sleep(pause)
                await _act(running, act)
            for _ in range(100):
                await running.clock.sleep(15.0)
                if running.leaders and not any(contender.link.left for contender in running.contenders):
                    break
            assert running.overlaps == []
            assert len(running.leaders) == 1

    run_virtually(history())


async def _act(running: Election, act: str) -> None:
    """Let the leader stop, unless it is the last replica, or let all others write an annotation."""
    leaders = [contender for contender in running.contenders if contender.leadership.leading]
    if act == "annotate":
        for contender in running.contenders:
            if contender not in leaders:
                running.spawn(contender.elector.annotate({"kapso-sync/webhook": "now"}))
    elif leaders and len(running.steps) > 1:
        await running.stop(leaders[0])


def test_two_leaders_at_once_are_noticed() -> None:
    """The control: the Lease is deleted, and a process that never saw it starts."""

    async def history() -> None:
        async with election() as running:
            first, second = running.join("a"), running.join("b")
            running.start(first)
            await running.clock.sleep(1.0)
            running.store.document = None
            running.start(second)
            await running.clock.sleep(0.5)
            assert running.overlaps != []

    run_virtually(history())
