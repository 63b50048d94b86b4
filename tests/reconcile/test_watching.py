"""A deployment is judged by what was invoked since: only its own failures count, and only more of them than before."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapso_sync.model.desired import WatchPolicy
from kapso_sync.model.functions import CODE, InvocationRecord
from kapso_sync.model.json_values import Json
from kapso_sync.model.state import DeploymentWatch, InventoryRecord, Tally
from kapso_sync.reconcile.plan.function_usage import request_digest
from kapso_sync.reconcile.plan.watching import (
    LATE,
    MAX_LISTED,
    Verdict,
    count_invocations,
    counts_text,
    failures_in,
    is_failure,
    judge,
    opened,
    prepare,
    with_invocations,
    with_policy,
)
from tests.builders import DAWN, moment, remote

POLICY = WatchPolicy(period=600.0, failures=3, percent=50)
FORMER, DEPLOYED, EDGE = 10.0, 1000.0, 60.0
"""When the version before, and the watched one, were deployed, and how long the edge may answer with the former."""

LATER = DEPLOYED + EDGE + 1
OWNED = replace(InventoryRecord.new("a", "id-a"), stored={CODE: "sha256:b"})
PING: Json = {"ping": True}


def watch(*before: InvocationRecord, policy: WatchPolicy = POLICY, checks: bool = False) -> DeploymentWatch:
    """An open watch, after the version before was read."""
    prepared = with_invocations(prepare(OWNED, policy, remote("a", deployed=FORMER), DAWN), before)
    requests = (request_digest(PING),) if checks else ()
    return opened(prepared, moment(DEPLOYED), requests, now=moment(DEPLOYED + 5), elapsed=30.0, edge=EDGE)


def called(number: int, status: int | None, at: float, *, error: str | None = None, body: object = None) -> InvocationRecord:
    return InvocationRecord(f"i{number}", status, 1.0, error, moment(at), request_body=body)  # type: ignore[arg-type]


def many(statuses: Sequence[int], at: float, first: int = 0) -> list[InvocationRecord]:
    """Invocations, one a second, in the order in which Kapso lists them: newest first."""
    return [called(first + n, status, at + n) for n, status in enumerate(statuses)][::-1]


def test_enough_failures_since_a_deployment_fail_it() -> None:
    """With numbers, and beside those of the version before."""
    found = with_invocations(watch(*many([200] * 9 + [500], 20)), many([500, 200, 500, 503], LATER, 100))
    assert judge(found) is Verdict.FAILING
    assert counts_text(found) == "3 of 4 invocations since its deployment failed, and 1 of 10 before it"


@pytest.mark.parametrize(
    ("statuses", "verdict"),
    [
        ([500, 500], Verdict.TOO_LITTLE),
        ([], Verdict.TOO_LITTLE),
        ([500, 500, 500], Verdict.FAILING),
        ([500] * 3 + [200] * 3, Verdict.FAILING),
        ([500] * 3 + [200] * 4, Verdict.HEALTHY),
        ([404] * 20, Verdict.HEALTHY),
        ([499, 429, 400, 401], Verdict.HEALTHY),
    ],
)
def test_both_thresholds_must_be_reached(statuses: list[int], verdict: Verdict) -> None:
    """The number of failures and their part of all; fewer invocations than that number say nothing."""
    assert judge(with_invocations(watch(), many(statuses, LATER))) is verdict


def test_an_exception_without_a_status_is_a_failure() -> None:
    """And a 4xx is none, whatever is written beside it."""
    assert [
        is_failure(called(1, status, 0, error=error)) for status, error in [(None, "TypeError"), (404, "no"), (500, None)]
    ] == [*(True, False, True)]
    assert not is_failure(called(1, None, 0))


def test_a_version_that_fails_as_often_as_the_one_before_stays() -> None:
    """Only a larger part than before fails it."""
    before = many([500, 500, 200, 200], 20)
    same = with_invocations(watch(*before), many([500] * 5 + [200] * 5, LATER, 100))
    worse = with_invocations(watch(*before), many([500] * 6 + [200] * 4, LATER, 100))
    assert (judge(same), judge(worse)) == (Verdict.HEALTHY, Verdict.FAILING)


def test_failures_of_a_former_version_at_the_edge_are_no_evidence() -> None:
    """Kapso's edge still answers with the code before; where that was never seen to fail, early failures are the new code's."""
    early = many([500] * 5, DEPLOYED + 1, 100)
    assert judge(with_invocations(watch(*many([500, 200, 200], 20)), early)) is Verdict.TOO_LITTLE
    assert judge(with_invocations(watch(*many([200, 200, 200], 20)), early)) is Verdict.FAILING
    assert judge(with_invocations(watch(), early)) is Verdict.FAILING


def test_a_version_that_replaces_a_failing_one_is_compared_with_the_one_to_go_back_to() -> None:
    """That the version in between failed as often excuses nothing; what it fails at the edge is no evidence either."""
    bad = with_invocations(watch(*many([200] * 4, 20)), many([500, 500], LATER, 100))
    replaced = prepare(OWNED, POLICY, remote("a", deployed=DEPLOYED), DAWN, bad)
    found = opened(replaced, moment(LATER + 100), (), now=DAWN, elapsed=0, edge=EDGE)
    at_the_edge = with_invocations(found, [*many([500, 500], LATER, 100), *many([500] * 5, LATER + 101, 200)])
    assert (judge(at_the_edge), count_invocations(at_the_edge).before) == (Verdict.TOO_LITTLE, Tally(4, 0))
    assert judge(with_invocations(at_the_edge, many([500] * 3, LATER + 100 + EDGE + 1, 300))) is Verdict.FAILING


def test_what_ran_before_the_version_before_is_not_compared() -> None:
    """A bad version was rolled back, and its fix fails as well: the failures of the first do not excuse the second."""
    of_the_bad_one = many([500] * 5, FORMER - 9)
    found = with_invocations(watch(*of_the_bad_one), many([500] * 3, LATER, 100))
    assert count_invocations(found).before == Tally()
    assert judge(found) is Verdict.FAILING


def test_invocations_by_our_own_checks_do_not_count() -> None:
    """While they were made: later, the same request is somebody's."""
    ours = [called(n, 500, DEPLOYED + n, body=PING) for n in range(5)]
    assert judge(with_invocations(watch(checks=True), ours)) is Verdict.TOO_LITTLE
    assert judge(with_invocations(watch(checks=True), [replace(each, request_body=None) for each in ours])) is Verdict.FAILING
    assert judge(with_invocations(watch(checks=True), [called(n, 500, LATER, body=PING) for n in range(5)])) is Verdict.FAILING


def test_what_comes_after_the_watch_does_not_count() -> None:
    """A daemon that was down for a day must not judge by what happens today."""
    end = DEPLOYED + 30.0 + POLICY.period + LATE
    assert judge(with_invocations(watch(), many([500] * 5, end + 1))) is Verdict.TOO_LITTLE
    assert judge(with_invocations(watch(), many([500] * 5, end - 10))) is Verdict.FAILING


def test_an_unread_version_before_gives_no_verdict() -> None:
    """There is nothing to compare with, until a look reaches back to the time before."""
    unread = opened(
        prepare(OWNED, POLICY, remote("a", deployed=FORMER), DAWN), moment(DEPLOYED), (), now=DAWN, elapsed=0, edge=EDGE
    )
    busy = with_invocations(unread, many([500] * MAX_LISTED, LATER))
    assert judge(busy) is Verdict.UNKNOWN
    assert judge(with_invocations(unread, many([500] * 5, LATER))) is Verdict.FAILING, "Kapso listed all there ever were"
    back = with_invocations(unread, [*many([500] * (MAX_LISTED - 1), LATER, 100), called(1, 200, DEPLOYED - 1)])
    assert judge(back) is Verdict.FAILING


def test_refusals_cannot_hide_what_the_version_before_did() -> None:
    """An answer full of 4xx shows nothing of it, which is not the same as that nobody called it."""
    found = with_invocations(watch(*many([404] * MAX_LISTED, 20)), many([500] * 5, LATER, 100))
    assert judge(found) is Verdict.UNKNOWN
    assert judge(with_invocations(watch(*many([404] * (MAX_LISTED - 1), 20)), many([500] * 5, LATER, 100))) is Verdict.FAILING


def test_a_new_function_needs_no_look_at_the_time_before() -> None:
    """Nothing can have invoked it."""
    assert prepare(OWNED, POLICY, None, DAWN).before == Tally()


def test_more_than_a_full_answer_between_two_looks_is_said() -> None:
    """What was seen counts, as a sample; nothing is made up for the rest."""
    first = with_invocations(watch(), many([200] * (MAX_LISTED - 1), LATER))
    next_to_it = with_invocations(first, many([500] * 5 + [200] * 15, LATER + 10, 4))
    beyond = with_invocations(first, many([500] * MAX_LISTED, LATER + 600 - 200, 5000))
    assert (first.missed, next_to_it.missed, beyond.missed) == (False, False, True)
    assert counts_text(beyond).endswith("; Kapso lists 20 at once, so there may be more")
    assert count_invocations(beyond).since == Tally(39, 20)
    assert with_invocations(watch(), many([200] * MAX_LISTED, LATER)).missed
    assert not with_invocations(watch(), [*many([200] * MAX_LISTED, LATER), called(900, 200, DEPLOYED - 1)]).missed


def test_thresholds_follow_git_while_a_watch_lasts() -> None:
    """Longer, shorter or stricter; what was counted stays."""
    open_watch = with_invocations(watch(), many([500], LATER))
    stricter = with_policy(open_watch, replace(POLICY, failures=1, period=900.0))
    assert (judge(open_watch), judge(stricter)) == (Verdict.TOO_LITTLE, Verdict.FAILING)
    assert open_watch.until is not None
    assert stricter.until == open_watch.until + timedelta(seconds=300)
    assert with_policy(open_watch, POLICY) is open_watch


def test_only_failures_that_count_are_evidence() -> None:
    """The newest first."""
    listed = [*many([500, 500], DEPLOYED - 50, 100), *many([500, 404, 503], LATER)]
    assert [each.id for each in failures_in(watch(), listed)] == ["i2", "i0"]


STATUS = st.sampled_from([200, 204, 302, 400, 404, 422, 429, 500, 502, 503, None])
STATUSES = st.lists(STATUS, max_size=MAX_LISTED - 1)
REFUSALS = st.lists(st.integers(400, 499), max_size=60)


def read(statuses: Sequence[int | None], at: float, first: int) -> list[InvocationRecord]:
    return [called(first + n, status, at + n, error=None if status else "Error") for n, status in enumerate(statuses)]


@given(
    before=STATUSES,
    since=STATUSES,
    refused_before=REFUSALS,
    refused=REFUSALS,
    failures=st.integers(1, 5),
    percent=st.integers(1, 100),
)
def test_no_number_of_4xx_ever_fails_a_deployment(
    before: list[int | None],
    since: list[int | None],
    refused_before: list[int],
    refused: list[int],
    failures: int,
    percent: int,
) -> None:
    """Sent by anybody, before the deployment or after it: what was not failing is not failing then."""
    policy = WatchPolicy(600.0, failures, percent)
    plain = with_invocations(watch(*read(before, 20, 0), policy=policy), read(since, LATER, 100))
    flooded = watch(*read(before, 20, 0), *read(refused_before, 50, 1000), policy=policy)
    flooded = with_invocations(flooded, [*read(since, LATER, 100), *read(refused, LATER, 2000)])
    if judge(plain) is not Verdict.FAILING:
        assert judge(flooded) is not Verdict.FAILING


@given(before=STATUSES, since=STATUSES, late=STATUSES)
def test_failures_before_the_deployment_never_count(
    before: list[int | None], since: list[int | None], late: list[int | None]
) -> None:
    """Read before it, or read later with what followed: they only make it harder to fail."""
    without = with_invocations(watch(), read(since, LATER, 100))
    found = with_invocations(watch(*read(before, 20, 0)), [*read(since, LATER, 100), *read(late, DEPLOYED - 50, 500)])
    assert count_invocations(found).since == count_invocations(without).since
    if judge(without) is not Verdict.FAILING:
        assert judge(found) is not Verdict.FAILING


@given(before=STATUSES, since=STATUSES, failures=st.integers(1, 5), percent=st.integers(1, 100))
def test_a_failing_verdict_always_has_both_thresholds_and_a_worse_ratio(
    before: list[int | None], since: list[int | None], failures: int, percent: int
) -> None:
    """Counted once more, by hand."""
    policy = WatchPolicy(600.0, failures, percent)
    found = with_invocations(watch(*read(before, 20, 0), policy=policy), read(since, LATER, 100))
    bad = sum(status is None or status >= 500 for status in since)
    compared = [status for status in before if status is None or not 400 <= status < 500]
    bad_before = sum(status is None or status >= 500 for status in compared)
    worse = not compared or bad / max(len(since), 1) > bad_before / len(compared)
    wanted = bad >= failures and bool(since) and bad / len(since) >= percent / 100 and worse
    assert (judge(found) is Verdict.FAILING) == wanted


@given(since=st.lists(STATUS, max_size=100), seed=st.integers(0, 10_000), steps=st.lists(st.integers(1, 19), max_size=12))
def test_overlapping_looks_count_each_invocation_once(since: list[int | None], seed: int, steps: list[int]) -> None:
    """In any order, with any repetition; looks that overlap see all that a look at everything would."""
    shuffle = random.Random(seed)
    everything = read(since, LATER, 0)
    found, seen = watch(), 0
    for step in [*steps, *([19] * 6)]:
        seen = min(seen + step, len(everything))
        page = everything[max(0, seen - MAX_LISTED) : seen]
        shown = [*page, *shuffle.choices(page, k=3)] if page else []
        shuffle.shuffle(shown)
        found = with_invocations(found, shown)
    assert seen == len(everything)
    assert not found.missed
    assert found.after == Tally(len(everything), sum(map(is_failure, everything)))
