"""Issues: what is wrong, how that changed, and the message about it. Values in, values out."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inline_snapshot import snapshot

from kapso_sync.errors import (
    ApiUnauthorized,
    ApiUnavailable,
    Call,
    IssueKind,
    KapsoSyncError,
    ManifestInvalid,
    PassCutOff,
    Problem,
    SourceUnavailable,
    SourceUnverified,
)
from kapso_sync.model import events
from kapso_sync.model.evidence import Evidence
from kapso_sync.model.plan import Plan
from kapso_sync.model.report import Outcome, Report, Result
from kapso_sync.model.source import Revision
from kapso_sync.model.status import DaemonStatus, Suspension
from kapso_sync.notifications.commit_status import CommitState, CommitStatus, commit_status_for
from kapso_sync.notifications.issues import (
    Change,
    Issue,
    OpenIssues,
    changes,
    decode,
    encode,
    open_issues,
    passing_issues,
)
from kapso_sync.notifications.messages import MAX_LINES, Kind, Message, MessageContext, compose_message
from kapso_sync.reconcile.plan.intents import resolve_intents
from kapso_sync.reconcile.plan.planner import make_plan
from kapso_sync.status.tracker import StatusTracker
from tests.builders import CODE_B, DAWN, OWNER, POLICY, desired, memory, owned, remote, want
from tests.clock import VirtualClock

A, B = "a" * 40, "b" * 40
CALL = Call("GET", "/functions")


def board_at(commit: str = A) -> StatusTracker:
    board = StatusTracker(VirtualClock(), "0.1.0", "https://example.com/acme/flows", OWNER)
    board.began("poll")
    board(events.SourceChanged(revision=commit, subject="Add greeting", author="Ada"))
    return board


def plan_at(commit: str = A) -> Plan:
    there = [remote("one"), remote("two"), remote("three")]
    known = memory(*(owned(record) for record in there))
    git = desired(want("one", CODE_B), want("two", CODE_B), want("three"), commit=commit)
    return make_plan(git, resolve_intents(there, known, OWNER), POLICY)


def ended(commit: str = A, halted: KapsoSyncError | None = None, **results: Result) -> DaemonStatus:
    """The status after a pass in which these functions had these outcomes, and all others succeeded."""
    board, plan = board_at(commit), plan_at(commit)
    board.planned(plan)
    outcomes = tuple(
        Outcome(step, results.get(step.slug, Result.UNCHANGED), error="boom" if step.slug in results else None)
        for step in plan.steps
    )
    board.ended(Report(plan, outcomes, halted=halted))
    return board.status()


def failed(error: Exception, commit: str | None = A) -> DaemonStatus:
    """The status after a pass that failed as a whole."""
    board = board_at(commit) if commit else StatusTracker(VirtualClock(), "0.1.0", "x")
    board.failed(error)
    return board.status()


def trouble(slug: str, state: IssueKind = IssueKind.FAILED, text: str = "boom") -> Issue:
    return Issue(f"function {slug}", state, text)


def whole(state: IssueKind, text: str = "why") -> Issue:
    return Issue("pass", state, text)


def by_key(*troubles: Issue) -> OpenIssues:
    return {item.key: item for item in troubles}


def test_a_successful_pass_has_no_issues() -> None:
    """Neither for functions nor for the whole."""
    assert open_issues(ended(), {}) == {}


def test_each_function_has_at_most_one_issue() -> None:
    """Failed and stalled are two states of the same key; a function that a rule blocks needs a person."""
    now = open_issues(ended(one=Result.FAILED, two=Result.BLOCKED), {})
    assert {key: item.kind for key, item in now.items()} == {
        "function one": IssueKind.FAILED,
        "function two": IssueKind.STALLED,
    }


def test_issues_of_functions_that_were_not_tried_are_unchanged() -> None:
    """A rejected key halts a pass: the functions after it keep their issues, and get no new ones."""
    error = ApiUnauthorized("the key was rejected", call=CALL, status=401)
    before = by_key(trouble("one"), trouble("three"))
    now = open_issues(ended(halted=error, one=Result.SKIPPED, two=Result.SKIPPED), before)
    assert now == by_key(whole(IssueKind.KEY, "the key was rejected"), trouble("one"))


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (SourceUnavailable("no git"), IssueKind.SOURCE),
        (SourceUnverified("not signed", commit="c" * 40), IssueKind.UNVERIFIED),
        (ManifestInvalid((Problem("syntax", "bad yaml"),)), IssueKind.REJECTED),
        (ApiUnavailable("no answer", call=CALL), IssueKind.SILENT),
        (ApiUnauthorized("no", call=CALL, status=401), IssueKind.KEY),
        (ValueError("a defect"), IssueKind.BROKEN),
    ],
)
def test_a_failed_pass_changes_no_function_issues(error: Exception, state: IssueKind) -> None:
    """The issue is that of the whole; existing issues of functions stay."""
    now = open_issues(failed(error), by_key(trouble("one"), whole(IssueKind.SOURCE)))
    assert {key: item.kind for key, item in now.items()} == {"pass": state, "function one": IssueKind.FAILED}


def test_an_interrupted_pass_or_a_start_changes_no_issues() -> None:
    """Stopping the daemon is not an issue, and before the first pass nothing is known to be resolved."""
    before = by_key(trouble("one"), whole(IssueKind.KEY))
    assert open_issues(failed(PassCutOff("cut off")), before) == before
    assert open_issues(StatusTracker(VirtualClock(), "0.1.0", "x").status(), before) == before


def test_a_suspension_is_an_issue_after_a_restart_before_any_pass() -> None:
    """A suspension outlives the restart."""
    status = replace(StatusTracker(VirtualClock(), "0.1.0", "x").status(), suspension=Suspension("a freeze", DAWN))
    assert open_issues(status, {}) == by_key(Issue("suspension", IssueKind.SUSPENDED, "a freeze"))


SLUGS = st.sampled_from(["function a", "function b", "pass", "suspension"])
STANDINGS = st.dictionaries(SLUGS, st.sampled_from(list(IssueKind))).map(
    lambda states: {key: Issue(key, state, "text") for key, state in states.items()}
)


@given(STANDINGS, STANDINGS)
def test_only_changed_issues_are_notified(told: OpenIssues, now: OpenIssues) -> None:
    """A message is due exactly where key or state differ; it is due once, and the record survives storage."""
    found = changes(told, now, {})
    assert {(change.before or change.after) is not None for change in found} <= {True}
    differing = {key for key in {*told, *now} if (told.get(key) and told[key].kind) != (now.get(key) and now[key].kind)}
    assert {(change.after or change.before or Issue("", IssueKind.FAILED, "")).key for change in found} == differing
    assert changes(now, now, {}) == ()
    assert decode(encode(now)) == now


def test_an_issue_that_came_and_went_between_messages_is_notified() -> None:
    """Failed and resolved within the interval of messages: the next message says so, once."""
    came = by_key(trouble("one"))
    gone = passing_issues(came, {}, told={})
    assert changes({}, {}, gone) == (Change(trouble("one"), None),)
    assert passing_issues(came, {}, told=came) == {}
    assert changes({}, {}, {}) == ()


@pytest.mark.parametrize("kept", [None, [], "x", {"a": 1}, {"a": ["unheard of", "x"]}, {"a": ["failed"]}, {"a": ["failed", 1]}])
def test_a_damaged_notification_record_counts_as_empty(kept: object) -> None:
    """Truncated or from another version: nothing was notified."""
    assert decode(kept) == {}


BACKGROUND = MessageContext(
    "acme/flows", "production", Revision(A, subject="Add greeting", author="Ada"), "https://status.example/"
)


def test_a_notification_lists_whole_functions_commit_and_links_in_order() -> None:
    """The whole before functions, issues before resolved ones, then the author of the commit and the links."""
    told = by_key(trouble("part"), whole(IssueKind.SOURCE))
    now = by_key(
        whole(IssueKind.KEY, "the key was rejected"),
        trouble("greet"),
        trouble("old", IssueKind.DRIFTED, "changed on Kapso: code"),
    )
    assert compose_message(changes(told, now, {}), BACKGROUND) == snapshot(
        Message(
            title="kapso-sync (production): 3 in trouble, 1 well again",
            body="""\
✗ Kapso rejects the key: the key was rejected
✗ greet failed: boom
✗ old was changed on Kapso, and is only reported: changed on Kapso: code
✓ part is well again

acme/flows
Revision aaaaaaaaaaaa “Add greeting” by Ada
https://status.example/\
""",
            kind=Kind.FAILURE,
        )
    )


def test_a_notification_of_one_change_has_it_as_title() -> None:
    """Short enough for a phone."""
    assert compose_message((Change(trouble("greet"), None),), MessageContext("acme/flows")) == snapshot(
        Message(
            title="kapso-sync: greet is well again",
            body="""\
✓ greet is well again

acme/flows\
""",
            kind=Kind.SUCCESS,
        )
    )


def test_a_notification_of_hundreds_of_functions_is_short() -> None:
    """A few of them and a number."""
    found = tuple(Change(None, trouble(f"f{number:03}", text="x" * 300)) for number in range(500))
    message = compose_message(found, BACKGROUND)
    assert message.title == "kapso-sync (production): 500 in trouble"
    assert f"and {500 - MAX_LINES} more" in message.body
    assert len(message.body) < 6000


def test_mentions_and_secrets_in_a_commit_do_not_reach_a_notification() -> None:
    """Mentions have no effect, control characters are removed, and secrets are redacted."""
    revision = Revision(A, subject="@everyone <!channel> topsecret \x1b[2J", author="Eve")
    message = compose_message(
        (Change(None, trouble("a")),), MessageContext("x", revision=revision), lambda text: text.replace("topsecret", "***")
    )
    assert isinstance(message, Message)
    assert message.kind is Kind.FAILURE
    assert not any(word in message.body for word in ("@everyone", "<!channel>", "topsecret", "\x1b"))


def test_commit_status_is_pending_success_or_failure() -> None:
    """Pending while a pass runs, success when all is in sync, failure with a count and names."""
    assert commit_status_for(board_at().status()) == CommitStatus(A, CommitState.PENDING, "a pass is running")
    assert commit_status_for(ended()) == CommitStatus(A, CommitState.SUCCESS, "3 functions in sync")
    assert commit_status_for(ended(one=Result.FAILED)) == CommitStatus(
        A, CommitState.FAILURE, "1 of 3 functions not in sync: one"
    )


def test_a_broken_manifest_sets_a_failure_status_on_its_own_commit() -> None:
    """Not on the last planned one, which is still live."""
    board = board_at(A)
    board.planned(plan_at(A))
    board.ended(Report(plan_at(A), tuple(Outcome(step, Result.UNCHANGED) for step in plan_at(A).steps)))
    board.began("webhook")
    board(events.SourceChanged(revision=B, previous=A))
    board.failed(ManifestInvalid((Problem("syntax", "bad yaml"),)))
    assert commit_status_for(board.status()) == CommitStatus(B, CommitState.FAILURE, "bad yaml")
    assert board.status().revision == Revision(A)


def test_a_revision_that_nobody_signed_fails_on_its_own_commit() -> None:
    """In a pass, and before the first one. Nothing else of it is shown: anybody may have written its message."""
    refused = SourceUnverified("commit is not read: it is not signed", commit=B)
    board = board_at(A)
    board.planned(plan_at(A))
    board.ended(Report(plan_at(A), tuple(Outcome(step, Result.UNCHANGED) for step in plan_at(A).steps)))
    board.began("poll")
    assert commit_status_for(board.status()) is None, "nothing is known of it yet"
    board.failed(refused)
    for status in (board.status(), failed(refused, commit=None)):
        assert commit_status_for(status) == CommitStatus(B, CommitState.FAILURE, refused.message)
        assert status.last_pass is not None
        assert (status.last_pass.revision, status.last_pass.broken_by) == (Revision(B), None)
    assert board.status().revision == Revision(A)


def test_outages_and_superseded_passes_set_no_commit_status() -> None:
    """Kapso down, key rejected, git down, a newer commit: the commit keeps its status."""
    assert commit_status_for(failed(ApiUnavailable("no answer", call=CALL))) is None
    assert commit_status_for(failed(SourceUnavailable("no git"), commit=None)) is None
    assert commit_status_for(ended(halted=ApiUnauthorized("no", call=CALL, status=401), one=Result.SKIPPED)) is None
    assert commit_status_for(ended(one=Result.SKIPPED)) is None


def test_a_folder_source_sets_no_commit_status() -> None:
    """Neither its digest nor the description of its work tree is a commit."""
    assert commit_status_for(ended("folder:" + "c" * 64)) is None
    assert commit_status_for(board_at("folder:" + "c" * 64).status()) is None


def test_a_failure_shows_its_evidence_in_the_message_and_its_place_at_the_commit() -> None:
    """The place comes first, then the end of the console; a mention in it has no effect, and it survives a restart."""
    board, plan = board_at(), plan_at()
    board.planned(plan)
    console = (*(f"log   line {number}" for number in range(20)), "error ask @everyone")
    evidence = Evidence(console, "one.ts:3:9")
    outcomes = [Outcome(step, Result.UNCHANGED) for step in plan.steps]
    outcomes[0] = replace(outcomes[0], result=Result.FAILED, error="boom", evidence=evidence)
    board.ended(Report(plan, tuple(outcomes)))
    status = board.status()
    slug = outcomes[0].step.slug
    issue = open_issues(status, {})[f"function {slug}"]
    assert decode(encode({issue.key: issue})) == {issue.key: issue}
    message = compose_message([Change(None, issue)], MessageContext("acme/flows"))
    lines = message.body.splitlines()
    assert lines[:2] == [f"✗ {slug} failed: boom", "    at one.ts:3:9"]
    assert [line.strip() for line in lines[2:10]] == [*console[-8:-1], "error ask @\u200beveryone"]
    verdict = commit_status_for(status)
    assert verdict is not None
    assert verdict.text == f"1 of 3 functions not in sync: {slug} at one.ts:3:9"
