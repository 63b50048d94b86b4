"""What is wrong, how that changed, and what is said of it: values in, values out."""

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
)
from kapso_sync.model import events
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
    """The status after a pass in which these functions fared so, and all others well."""
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


def test_ready_functions_have_no_open_issue() -> None:
    """A pass that went through leaves nothing to say."""
    assert open_issues(ended(), {}) == {}


def test_each_function_has_one_issue() -> None:
    """Failed and stalled are two states of the same key; blocked by a rule needs somebody."""
    now = open_issues(ended(one=Result.FAILED, two=Result.BLOCKED), {})
    assert {key: item.kind for key, item in now.items()} == {
        "function one": IssueKind.FAILED,
        "function two": IssueKind.STALLED,
    }


def test_issues_of_functions_that_were_not_tried_stay_open() -> None:
    """A rejected key halts a pass: the functions that it never got to are neither broken nor mended by that."""
    error = ApiUnauthorized("the key was rejected", call=CALL, status=401)
    before = by_key(trouble("one"), trouble("three"))
    now = open_issues(ended(halted=error, one=Result.SKIPPED, two=Result.SKIPPED), before)
    assert now == by_key(whole(IssueKind.KEY, "the key was rejected"), trouble("one"))


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (SourceUnavailable("no git"), IssueKind.SOURCE),
        (ManifestInvalid((Problem("syntax", "bad yaml"),)), IssueKind.REJECTED),
        (ApiUnavailable("no answer", call=CALL), IssueKind.SILENT),
        (ApiUnauthorized("no", call=CALL, status=401), IssueKind.KEY),
        (ValueError("a defect"), IssueKind.BROKEN),
    ],
)
def test_a_pass_that_failed_says_nothing_of_functions(error: Exception, state: IssueKind) -> None:
    """What is wrong is the whole; what was wrong with functions still is."""
    now = open_issues(failed(error), by_key(trouble("one"), whole(IssueKind.SOURCE)))
    assert {key: item.kind for key, item in now.items()} == {"pass": state, "function one": IssueKind.FAILED}


def test_a_cancelled_pass_and_a_start_change_no_issues() -> None:
    """Stopping the daemon is no trouble, and before the first pass nothing is known to be mended."""
    before = by_key(trouble("one"), whole(IssueKind.KEY))
    assert open_issues(failed(PassCutOff("cut off")), before) == before
    assert open_issues(StatusTracker(VirtualClock(), "0.1.0", "x").status(), before) == before


def test_a_suspension_is_known_before_any_pass() -> None:
    """Somebody suspended the daemon, and then it was restarted: that is what holds."""
    status = replace(StatusTracker(VirtualClock(), "0.1.0", "x").status(), suspension=Suspension("a freeze", DAWN))
    assert open_issues(status, {}) == by_key(Issue("suspension", IssueKind.SUSPENDED, "a freeze"))


SLUGS = st.sampled_from(["function a", "function b", "pass", "suspension"])
STANDINGS = st.dictionaries(SLUGS, st.sampled_from(list(IssueKind))).map(
    lambda states: {key: Issue(key, state, "text") for key, state in states.items()}
)


@given(STANDINGS, STANDINGS)
def test_an_up_to_date_destination_gets_no_message(told: OpenIssues, now: OpenIssues) -> None:
    """A change is told exactly where key or state differ; told twice it would be empty; and it survives being kept."""
    found = changes(told, now, {})
    assert {(change.before or change.after) is not None for change in found} <= {True}
    differing = {key for key in {*told, *now} if (told.get(key) and told[key].kind) != (now.get(key) and now[key].kind)}
    assert {(change.after or change.before or Issue("", IssueKind.FAILED, "")).key for change in found} == differing
    assert changes(now, now, {}) == ()
    assert decode(encode(now)) == now


def test_an_issue_that_opened_and_closed_in_between_is_reported() -> None:
    """Failed and mended within the pause between two messages: the next says so, once."""
    came = by_key(trouble("one"))
    gone = passing_issues(came, {}, told={})
    assert changes({}, {}, gone) == (Change(trouble("one"), None),)
    assert passing_issues(came, {}, told=came) == {}
    assert changes({}, {}, {}) == ()


@pytest.mark.parametrize("kept", [None, [], "x", {"a": 1}, {"a": ["unheard of", "x"]}, {"a": ["failed"]}, {"a": ["failed", 1]}])
def test_an_unreadable_told_json_is_ignored(kept: object) -> None:
    """Torn or from another version: nothing was told."""
    assert decode(kept) == {}


BACKGROUND = MessageContext(
    "acme/flows", "production", Revision(A, subject="Add greeting", author="Ada"), "https://status.example/"
)


def test_one_message_lists_all_changes() -> None:
    """The whole before functions, what is wrong before what is well, then whose commit it was and where to look."""
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


def test_one_change_is_its_own_title() -> None:
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


def test_a_message_stays_short() -> None:
    """Hundreds of functions: a few of them and a number."""
    found = tuple(Change(None, trouble(f"f{number:03}", text="x" * 300)) for number in range(500))
    message = compose_message(found, BACKGROUND)
    assert message.title == "kapso-sync (production): 500 in trouble"
    assert f"and {500 - MAX_LINES} more" in message.body
    assert len(message.body) < 6000


def test_a_commit_subject_cannot_mention_everybody() -> None:
    """Mentions have no effect, control characters are not passed on, and secrets are taken out."""
    revision = Revision(A, subject="@everyone <!channel> topsecret \x1b[2J", author="Eve")
    message = compose_message(
        (Change(None, trouble("a")),), MessageContext("x", revision=revision), lambda text: text.replace("topsecret", "***")
    )
    assert isinstance(message, Message)
    assert message.kind is Kind.FAILURE
    assert not any(word in message.body for word in ("@everyone", "<!channel>", "topsecret", "\x1b"))


def test_commit_status_is_pending_success_or_failure() -> None:
    """Pending while it runs, success when all is in sync, failure with a count and names."""
    assert commit_status_for(board_at().status()) == CommitStatus(A, CommitState.PENDING, "at work")
    assert commit_status_for(ended()) == CommitStatus(A, CommitState.SUCCESS, "3 functions in sync")
    assert commit_status_for(ended(one=Result.FAILED)) == CommitStatus(
        A, CommitState.FAILURE, "1 of 3 functions not in sync: one"
    )


def test_a_broken_manifest_fails_its_own_commit() -> None:
    """Not the one that was planned last, which still is what runs."""
    board = board_at(A)
    board.planned(plan_at(A))
    board.ended(Report(plan_at(A), tuple(Outcome(step, Result.UNCHANGED) for step in plan_at(A).steps)))
    board.began("webhook")
    board(events.SourceChanged(revision=B, previous=A))
    board.failed(ManifestInvalid((Problem("syntax", "bad yaml"),)))
    assert commit_status_for(board.status()) == CommitStatus(B, CommitState.FAILURE, "bad yaml")
    assert board.status().revision == Revision(A)


def test_an_outage_sets_no_commit_status() -> None:
    """Kapso down, key rejected, git down, overtaken by a newer commit: the commit keeps what it has."""
    assert commit_status_for(failed(ApiUnavailable("no answer", call=CALL))) is None
    assert commit_status_for(failed(SourceUnavailable("no git"), commit=None)) is None
    assert commit_status_for(ended(halted=ApiUnauthorized("no", call=CALL, status=401), one=Result.SKIPPED)) is None
    assert commit_status_for(ended(one=Result.SKIPPED)) is None


def test_a_folder_has_no_commit() -> None:
    """Neither a folder's digest nor a work tree's description is one."""
    assert commit_status_for(ended("folder:" + "c" * 64)) is None
    assert commit_status_for(board_at("folder:" + "c" * 64).status()) is None
