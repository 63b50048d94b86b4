"""The status tracker, and the metrics made of its status."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, replace
from datetime import timedelta

import pytest
from prometheus_client.parser import text_string_to_metric_families

from kapso_sync.daemon.service import one_line
from kapso_sync.errors import ApiUnavailable, Call, Location, ManifestInvalid, NotLeading, Problem
from kapso_sync.model import events
from kapso_sync.model.plan import Invalid, Plan
from kapso_sync.model.report import Outcome, Report, Result
from kapso_sync.model.source import Revision
from kapso_sync.model.state import Quarantine, QuarantineReason
from kapso_sync.model.status import (
    ActivityHour,
    ConditionType,
    DaemonStatus,
    FunctionStatus,
    ReplicaStatus,
    Role,
    RunningPass,
    function_document,
    recorded_functions,
    status_document,
)
from kapso_sync.reconcile.plan.intents import resolve_intents
from kapso_sync.reconcile.plan.planner import make_plan
from kapso_sync.status.conditions import MAX_DIFF
from kapso_sync.status.event_text import event_text
from kapso_sync.status.tracker import StatusTracker
from kapso_sync.telemetry.metrics import Metrics
from tests.builders import CODE_B, OWNER, POLICY, desired, memory, owned, remote, unusable, want
from tests.clock import VirtualClock

READY, RECONCILING, STALLED, DRIFTED = ConditionType


@dataclass(frozen=True)
class Waiting:
    slug: str
    stalled: bool
    retry_at: float


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def board(clock: VirtualClock) -> StatusTracker:
    return StatusTracker(clock, "0.1.0", "https://example.com/acme/flows", redact=lambda text: text.replace("topsecret", "***"))


def plan() -> Plan:
    there = [remote("drifted", CODE_B), remote("fine")]
    git = desired(want("drifted"), want("fine"), want("new"), unusable("broken"))
    return make_plan(git, resolve_intents(there, memory(owned(remote("drifted"))), OWNER), POLICY)


def report(**results: Outcome) -> Report:
    steps = {step.slug: step for step in plan().steps}
    usual = {
        "broken": Outcome(steps["broken"], Result.INVALID, error="broken.js:3:1: syntax error"),
        "drifted": Outcome(steps["drifted"], Result.DONE, "id-drifted", deployed=True),
        "fine": Outcome(steps["fine"], Result.UNCHANGED, "id-fine"),
        "new": Outcome(steps["new"], Result.FAILED, error="the deployment ended in `error` topsecret"),
    }
    return Report(plan(), tuple({**usual, **results}.values()), api_calls=7, seconds=1.5)


def of(status: DaemonStatus, slug: str) -> FunctionStatus:
    return next(function for function in status.functions if function.slug == slug)


def true_conditions(function: FunctionStatus) -> set[ConditionType]:
    return {condition.type for condition in function.conditions if condition.status}


def test_conditions_follow_a_pass(board: StatusTracker) -> None:
    """Reconciling while it runs; afterwards each function has the condition of its outcome."""
    board.began("webhook")
    board.planned(plan())
    assert true_conditions(of(board.status(), "drifted")) == {RECONCILING, DRIFTED}
    assert board.status().reconciling
    board.ended(report())
    status = board.status()
    assert {function.slug: true_conditions(function) for function in status.functions} == {
        "broken": {STALLED},
        "drifted": {READY},
        "fine": {READY},
        "new": {RECONCILING},
    }
    assert [function.state for function in status.functions] == ["Stalled", "Ready", "Ready", "Reconciling"]
    assert not status.in_sync
    assert status.last_pass is not None
    assert (status.last_pass.trigger, status.last_pass.exit_code, status.last_pass.api_calls) == ("webhook", 1, 7)


def test_a_condition_keeps_its_since_time(board: StatusTracker, clock: VirtualClock) -> None:
    """``since`` changes only with the condition itself."""
    board.ended(report())
    first = of(board.status(), "fine").condition(READY).since
    clock._elapsed = 600.0
    board.ended(report())
    assert of(board.status(), "fine").condition(READY).since == first
    step = of(board.status(), "fine")
    board.ended(report(fine=Outcome(report().outcomes[2].step, Result.FAILED, error="no")))
    assert of(board.status(), "fine").condition(READY).since > step.condition(READY).since


def test_a_failing_function_names_the_commit_since_which_its_content_fails(board: StatusTracker) -> None:
    """A breaks it, B changes another function, C is a fix that fails too; a failure of Kapso's is no commit's fault."""

    def cause(commit: str, outcome: Outcome) -> str | None:
        given = report(new=outcome)
        board.ended(replace(given, plan=replace(given.plan, revision=Revision(commit, subject=f"Commit {commit}"))))
        found = of(board.status(), "new")
        assert found.broken_by is None or found.broken_by.subject == f"Commit {found.broken_by.id}"
        return None if found.broken_by is None else found.broken_by.id

    step = next(step for step in plan().steps if step.slug == "new")
    fix = replace(step, desired_hash="sha256:another")
    failed = Outcome(step, Result.FAILED, error="the deployment ended in `error`")
    assert cause("0", replace(failed, blameless=True)) is None
    assert [cause("A", failed), cause("B", replace(failed, error="another text"))] == ["A", "A"]
    assert cause("B", replace(failed, result=Result.SKIPPED, blameless=True)) == "A"
    assert cause("C", replace(failed, step=fix)) == "C"
    assert cause("D", Outcome(fix, Result.DONE)) is None
    assert cause("E", replace(failed, step=fix)) is None, "the same content ran before"


def test_a_version_that_failed_its_watch_names_the_commit_that_brought_it(board: StatusTracker, clock: VirtualClock) -> None:
    """It ran well at first, and other commits came meanwhile; a restart knows it as well."""

    def cause(tracker: StatusTracker, commit: str, outcome: Outcome) -> str | None:
        given = report(new=outcome)
        tracker.ended(replace(given, plan=replace(given.plan, revision=Revision(commit, subject=f"Commit {commit}"))))
        found = of(tracker.status(), "new").broken_by
        return None if found is None else found.id

    step = next(step for step in plan().steps if step.slug == "new")
    assert cause(board, "A", Outcome(step, Result.DONE)) is None
    assert cause(board, "B", Outcome(step, Result.UNCHANGED)) is None
    quarantine = Quarantine("attempt", QuarantineReason.WATCH, "3 of 3 failed", "sha256:b", "sha256:a", "2026-01-01")
    failed = Outcome(step, Result.FAILED, error="3 of 3 failed", quarantine=quarantine)
    other = restarted(board, clock)
    assert cause(other, "C", failed) == "A"
    found = of(other.status(), "new")
    assert (found.change, found.changed_at) == ("rolled back: the previous version was restored", clock.now())
    assert cause(board, "C", replace(failed, quarantine=None)) is None, "a failure that is not the content's"


def test_a_mistake_in_git_has_a_commit_a_place_and_a_hint(board: StatusTracker, clock: VirtualClock) -> None:
    """As long as it is the same mistake, also after a restart; once it is ready there is none of it."""
    problem = Problem("syntax", "syntax error", Location("broken.js", 3, 1), hint="close topsecret")
    step = next(step for step in plan().steps if isinstance(step, Invalid))
    given = report(broken=Outcome(replace(step, problems=(problem,)), Result.INVALID, error=str(problem)))
    for commit in ("A", "B"):
        board.ended(replace(given, plan=replace(given.plan, revision=Revision(commit, subject="Break it", author="Bob"))))
    found = of(board.status(), "broken")
    assert (found.place, found.hint, found.broken_by) == (
        "broken.js:3:1",
        "close ***",
        Revision("A", subject="Break it", author="Bob"),
    )
    other = restarted(board, clock)
    other.ended(given)
    assert of(other.status(), "broken").broken_by == found.broken_by
    fine = next(step for step in plan().steps if step.slug == "fine")
    other.ended(report(broken=Outcome(replace(fine, slug="broken"), Result.UNCHANGED)))
    found = of(other.status(), "broken")
    assert (found.place, found.hint, found.broken_by) == (None, None, None)


def test_activity_counts_deployments_and_failures_of_the_last_day_by_hour(board: StatusTracker, clock: VirtualClock) -> None:
    """A restart goes on with it, and what is older than a day is gone."""
    live = events.DeploySucceeded(slug="a", duration_ms=1)
    failed = events.DeployFailed(slug="a", error="no")
    check = events.CheckFailed(slug="a", check=1, expected="x", answer="y", error="z")
    for event in (live, live, failed, check, events.DeployTimedOut(slug="a", timeout_s=1.0)):
        board(event)
    start = clock.now().replace(minute=0, second=0, microsecond=0)
    assert board.status().activity == (ActivityHour(start, 2, 3),)
    other = restarted(board, clock)
    for hour in range(1, 24):
        clock._elapsed = hour * 3600.0
        other(live)
    assert [(hour.start, hour.deployed, hour.failed) for hour in other.status().activity][:2] == [
        (start, 2, 3),
        (start + timedelta(hours=1), 1, 0),
    ]
    clock._elapsed = 24 * 3600.0
    other(failed)
    kept = other.status().activity
    assert (len(kept), kept[0].start, kept[-1]) == (24, start + timedelta(hours=1), ActivityHour(clock.now(), 0, 1))


def test_a_function_without_news_keeps_its_status_object(board: StatusTracker, clock: VirtualClock) -> None:
    """The page is rendered again for what changed, and for nothing else."""
    board.ended(report())
    before = board.status()
    clock._elapsed = 600.0
    board.ended(report(new=Outcome(report().outcomes[3].step, Result.FAILED, error="another error")))
    after = board.status()
    assert of(after, "fine") is of(before, "fine")
    assert of(after, "new") is not of(before, "new")


def restarted(board: StatusTracker, clock: VirtualClock) -> StatusTracker:
    """The tracker of another process, which reads what this one recorded."""
    other = StatusTracker(clock, board.version, board.source)
    other.recall(json.loads(json.dumps(status_document(board.status()))))
    return other


def test_a_restart_keeps_since_when_a_function_is_ready(board: StatusTracker, clock: VirtualClock) -> None:
    """And what was changed last, and since when the revision is known; a condition that changes begins anew."""
    board.planned(plan())
    board.ended(report())
    before = board.status()
    clock._elapsed = 600.0
    other = restarted(board, clock)
    assert other.status().functions == (), "what runs may have changed meanwhile: nothing is claimed before the first pass"
    other.began("start")
    other.planned(plan())
    same = Outcome(report().outcomes[1].step, Result.UNCHANGED)
    other.ended(report(drifted=replace_step(same, "drifted"), new=Outcome(report().outcomes[3].step, Result.DONE)))
    after = other.status()
    for slug in ("drifted", "fine"):
        assert of(after, slug).condition(READY).since == of(before, slug).condition(READY).since
    assert of(after, "new").condition(READY).since > of(before, "new").condition(READY).since
    assert of(after, "drifted").changed_at == of(before, "drifted").changed_at
    assert after.revision_since == before.revision_since


def test_the_texts_of_a_record_are_kept_once(board: StatusTracker, clock: VirtualClock) -> None:
    """Each function of a thousand has four conditions, at one revision, with a few messages."""
    board.ended(report())
    first, *others = recorded_functions(json.loads(json.dumps(status_document(board.status())))).values()
    revisions = {id(condition.revision) for function in (first, *others) for condition in function.conditions}
    assert others
    assert len(revisions) == 1


def test_functions_with_equal_conditions_have_the_same_ones(board: StatusTracker, clock: VirtualClock) -> None:
    """After a pass, and after a restart: a thousand functions in sync would have four thousand conditions."""
    same = Outcome(replace(plan().steps[0], slug="twin"), Result.UNCHANGED, "id-twin")
    board.ended(report(drifted=replace(same, step=replace(same.step, slug="drifted")), twin=same))
    shown = {function.slug: function for function in board.status().functions}
    for functions in (shown, restarted(board, clock)._recorded):
        assert functions["twin"].conditions is functions["drifted"].conditions
        assert functions["twin"].conditions != functions["new"].conditions


def replace_step(outcome: Outcome, slug: str) -> Outcome:
    (step,) = [step for step in plan().steps if step.slug == slug]
    return dataclasses.replace(outcome, step=step)


def test_a_restart_while_kapso_is_down_shows_the_functions_as_they_were(board: StatusTracker, clock: VirtualClock) -> None:
    """The pass failed before it saw any, and the record of the next process begins with them again."""
    board.ended(report())
    other = restarted(board, clock)
    other.began("start")
    other.failed(ApiUnavailable("no connection", call=Call("GET", "/functions")))
    assert [function.slug for function in other.status().functions] == ["broken", "drifted", "fine", "new"]
    assert restarted(other, clock)._recorded.keys() == {"broken", "drifted", "fine", "new"}


@pytest.mark.parametrize("document", [{}, {"functions": [{}], "revision": {}}, {"functions": None, "revision": None}])
def test_a_record_of_another_version_is_no_error(board: StatusTracker, document: dict[str, object]) -> None:
    """It costs the times, and nothing else."""
    board.recall(document)
    board.ended(report())
    assert len(board.status().functions) == 4


def test_the_running_pass_has_a_trigger_and_a_start(board: StatusTracker, clock: VirtualClock) -> None:
    """Also after a pass that failed, whose error stays until the running one has ended."""
    board.began("interval")
    board.failed(ApiUnavailable("no connection", call=Call("GET", "/functions")))
    assert status_document(board.status())["running"] is None
    clock._elapsed = 60.0
    board.began("webhook")
    status = board.status()
    assert (status.running, status.reconciling) == (RunningPass("webhook", clock.now()), True)
    assert status.last_pass is not None
    assert status.last_pass.error == "no connection"
    board.ended(report())
    assert board.status().running is None


def test_functions_that_left_git_are_counted_apart(board: StatusTracker) -> None:
    """Four functions in git are four, whatever else is ours on Kapso."""
    there = [remote(slug) for slug in ("a", "b", "gone", "protected")]
    known = memory(*(owned(record) for record in there))
    kept = make_plan(desired(want("a"), want("b")), resolve_intents(there, known, OWNER), POLICY)
    board.ended(Report(kept, tuple(Outcome(step, Result.UNCHANGED) for step in kept.steps)))
    status = board.status()
    assert [function.slug for function in status.listed] == ["a", "b"]
    assert [function.slug for function in status.left_git] == ["gone", "protected"]
    assert status.in_sync
    assert one_line(status).startswith("2 of 2 functions ready")


def test_a_function_that_fails_too_often_is_stalled(board: StatusTracker, clock: VirtualClock) -> None:
    """With the time of the next retry."""
    board.ended(report())
    board.waiting(900.0, (Waiting("new", stalled=True, retry_at=clock.monotonic() + 900),))
    function = of(board.status(), "new")
    assert (function.state, function.condition(STALLED).reason) == ("Stalled", "FailedRepeatedly")
    assert function.retry_at is not None
    assert (function.retry_at - board.status().now).total_seconds() == 900


def test_a_refused_field_is_stalled_at_once(board: StatusTracker) -> None:
    """A retry cannot help; a person must change git or Kapso."""
    step = report().outcomes[2].step
    board.ended(report(fine=Outcome(step, Result.FAILED, error="Kapso kept it", applied=True, refused=("public_endpoint",))))
    assert true_conditions(of(board.status(), "fine")) == {STALLED}


def test_a_failed_pass_keeps_the_status_of_functions(board: StatusTracker) -> None:
    """Kapso is down: the functions stay as they were, and the error is shown."""
    board.ended(report())
    board.began("interval")
    board.failed(ApiUnavailable("no connection", call=Call("GET", "/functions"), hint="is it up?"))
    status = board.status()
    assert len(status.functions) == 4
    assert status.last_pass is not None
    assert (status.last_pass.error, status.last_pass.hint, status.last_pass.exit_code) == ("no connection", "is it up?", 69)


def test_the_commit_that_broke_the_manifest_is_named_until_it_is_mended(board: StatusTracker) -> None:
    """The first of them, however many follow; an outage of Kapso meanwhile neither clears nor sets it."""

    def fetched(revision: str, author: str) -> None:
        board.began("webhook")
        board(events.SourceChanged(revision=revision, previous=None, subject=f"Change {revision}", author=author))

    def broken_by() -> tuple[str, str | None, str | None] | None:
        last = board.status().last_pass
        return (
            None
            if last is None or last.broken_by is None
            else (last.broken_by.id, last.broken_by.subject, last.broken_by.author)
        )

    fetched("good", "Ada")
    board.planned(plan())
    board.ended(report())
    assert broken_by() is None
    for revision, author in (("bad", "Bob"), ("worse", "Cy")):
        fetched(revision, author)
        board.failed(ManifestInvalid([Problem("unknown-key", "no such key", Location("manifest.yaml", 3, 5))]))
        assert broken_by() == ("bad", "Change bad", "Bob")
    board.began("interval")
    board.failed(ApiUnavailable("no connection", call=Call("GET", "/functions")))
    assert broken_by() == ("bad", "Change bad", "Bob")
    fetched("fixed", "Ada")
    board.planned(plan())
    board.ended(report())
    assert broken_by() is None


def test_a_replica_that_leads_no_more_forgets_what_it_knew_of_kapso(board: StatusTracker) -> None:
    """Another writes now. What a standby shows is its role, the leader, and the revision that it has read."""
    replica = [ReplicaStatus(Role.LEADER, "apps/kapso-sync", "a")]
    board.replicated(lambda: replica[0])
    board.began("lease")
    board.planned(plan())
    board.ended(report())
    assert (board.status().role, len(board.status().functions)) == (Role.LEADER, 4)
    board.began("interval")
    replica[0] = ReplicaStatus(Role.STANDBY, "apps/kapso-sync", "b")
    board.role_changed()
    board.failed(NotLeading("this replica does not lead"))
    board(events.SourceChanged(revision="later", subject="Later", author="Ada"))
    status = board.status()
    assert (status.role, status.functions, status.last_pass, status.reconciling) == (Role.STANDBY, (), None, False)
    assert status.revision is not None
    assert (status.revision.id, status.revision.subject) == ("later", "Later")
    document = status_document(status)
    assert (document["role"], document["leader"]) == ("standby", "b")


async def test_a_success_between_two_scrapes_is_counted(clock: VirtualClock, board: StatusTracker) -> None:
    """The gauge is the time at which the pass ended well, also where the next one failed before Prometheus came."""
    metrics = Metrics("0.1.0", board.status)

    def last_success() -> float:
        families = text_string_to_metric_families(metrics.exposition()[0].decode())
        return next(family.samples[0].value for family in families if family.name.startswith("kapso_sync_last_success"))

    in_sync = desired(want("fine"))
    calm = make_plan(in_sync, resolve_intents([remote("fine")], memory(owned(remote("fine"))), OWNER), POLICY)
    unchanged = Outcome(calm.steps[0], Result.UNCHANGED, "id-fine")
    board.ended(Report(calm, (replace(unchanged, result=Result.FAILED, error="no"),), api_calls=1, seconds=1.0))
    assert last_success() == 0
    board.ended(Report(calm, (unchanged,), api_calls=1, seconds=1.0))
    succeeded = clock.now().timestamp()
    await clock.sleep(60)
    board.failed(NotLeading("no"))
    board.ended(report())
    assert last_success() == succeeded


def test_metrics_say_who_leads(board: StatusTracker) -> None:
    """A daemon without a Lease is its own leader, and belongs to none."""
    metrics = Metrics("0.1.0", board.status)

    def shown() -> dict[str, float]:
        text = metrics.exposition()[0].decode()
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        return {f"{sample.name} {sample.labels}": sample.value for sample in samples if "lea" in sample.name}

    assert shown() == {"kapso_sync_leader {}": 1.0}
    board.replicated(lambda: ReplicaStatus(Role.STANDBY, "apps/kapso-sync", None))
    assert shown() == {"kapso_sync_leader {}": 0.0, "kapso_sync_lease_info {'lease': 'apps/kapso-sync'}": 1.0}


def test_secrets_are_redacted_in_the_status(board: StatusTracker) -> None:
    """Messages and events are redacted before they are stored."""
    board(events.FunctionFailed(slug="new", error="said topsecret", error_type="X"))
    board.ended(report())
    shown = json.dumps(status_document(board.status()))
    assert "said " in shown
    assert "topsecret" not in shown


def test_of_a_long_diff_the_beginning_is_kept(board: StatusTracker) -> None:
    """In whole lines, with what is left out said, and no half of a secret at the cut; a short one stays as it is."""
    wide = "+" + "x" * (MAX_DIFF // 2)
    for diff, kept in (
        ("--- a\n+topsecret\n", "--- a\n+***\n"),
        (f"{wide}\n" * 3, f"{wide}\n@@ the rest"),
        (f"@@ 1 @@\n+{'x' * MAX_DIFF}topsecret", "@@ 1 @@\n@@ the rest"),
        (f"{wide}\n+{'x' * (MAX_DIFF // 2 - 10)}topsecret\n", f"{wide}\n+{'x' * (MAX_DIFF // 2 - 10)}***\n"),
    ):
        steps = tuple(dataclasses.replace(step, diff=diff) for step in plan().steps)
        board.planned(dataclasses.replace(plan(), steps=steps))
        shown = board.status().functions[0].diff
        assert shown.startswith(kept)
        assert len(shown) < MAX_DIFF + 200


def test_the_last_events_are_kept_newest_first(board: StatusTracker) -> None:
    """Twenty, as sentences; debug events and counts are not among them."""
    board(events.ApiCalled(method="GET", route="/functions", status=200, duration_ms=5, rate_limit=100, rate_remaining=42))
    for number in range(30):
        board(events.DeploySucceeded(slug=f"f{number}", duration_ms=21_300))
    status = board.status()
    assert (len(status.events), status.events[0].slug, status.events[0].text) == (20, "f29", "live after 21.3 s")
    assert status.budget is not None
    assert (status.budget.limit, status.budget.remaining) == (100, 42)


def test_refused_pushes_push_no_event_off_the_page(board: StatusTracker) -> None:
    """Anybody who reaches the server can send them; the log and the metrics have them."""
    board(events.DeploySucceeded(slug="greet", duration_ms=1000))
    for number in range(30):
        board(events.WebhookRefused(reason="wrong_signature", error="wrong signature", peer=f"10.0.0.{number}"))
    assert [event.event for event in board.status().events] == ["deploy.succeeded"]


def test_a_repeated_failure_is_one_of_the_last_events(board: StatusTracker, clock: VirtualClock) -> None:
    """Otherwise an hour's outage would push out all others; successes may be listed twice."""
    for number in range(30):
        board(events.ApiRetry(method="GET", route="/functions", status=None, attempt=number, wait_s=0.1, error="no connection"))
        board(events.ReconcileFailed(error="no connection", error_type="ApiUnavailable"))
    for _ in range(2):
        board(events.DeploySucceeded(slug="greet", function_id="id-greet", duration_ms=1000))
    names = [event.event for event in board.status().events]
    assert names == ["deploy.succeeded", "deploy.succeeded", "reconcile.failed", "api.retry"]


def test_running_deployments_show_since_when(board: StatusTracker) -> None:
    """From the request to its end."""
    board.planned(plan())
    board(events.DeployStarted(slug="new"))
    assert of(board.status(), "new").deploying_since is not None
    board(events.DeployFailed(slug="new", error="no"))
    assert of(board.status(), "new").deploying_since is None


def test_a_watched_function_shows_until_when(board: StatusTracker, clock: VirtualClock) -> None:
    """In the status, its document and on the page, as long as it lasts."""
    board.planned(plan())
    board.show_watched({"new": clock.now()})
    shown = of(board.status(), "new")
    assert shown.watched_until == clock.now()
    assert function_document(shown)["watched_until"] == "2026-01-01T00:00:00.000Z"  # type: ignore[index, call-overload]
    board.show_watched({})
    assert of(board.status(), "new").watched_until is None


async def test_status_changes_and_finished_passes_can_be_awaited(board: StatusTracker) -> None:
    """By the page, and by a client that requested a pass."""
    import asyncio

    changed, passed = asyncio.create_task(board.changed()), asyncio.create_task(board.passed())
    await asyncio.sleep(0)
    board.ended(report())
    await changed
    assert await passed == 1


def test_a_moment_in_a_sentence_is_written_as_everywhere_else() -> None:
    """One that cannot be read, from an older history, stays as it is."""
    until = "2026-11-29T20:35:55+01:00"
    assert event_text(events.WatchStarted(slug="pay", until=until)) == "watched until 2026-11-29 19:35:55 UTC"
    assert event_text(events.WatchStarted(slug="pay", until="soon")) == "watched until soon"


EVENTS = [
    event
    for event in vars(events).values()
    if isinstance(event, type) and issubclass(event, events.Event) and isinstance(getattr(event, "name", None), str)
]


def sample(event: type[events.Event]) -> events.Event:
    """An event of this kind with some value in every field."""
    samples = {"str": "x", "int": 1, "float": 1.0, "int | None": 1, "float | None": 1.0, "bool": True}
    others = {"tuple[Mapping": ({},), "tuple": ("x",), "Mapping": {}, "": "x"}
    values = {
        field.name: samples.get(
            str(field.type), next(value for start, value in others.items() if str(field.type).startswith(start))
        )
        for field in events.declared_fields(event)
    }
    return event(**values)


@pytest.mark.parametrize("event", EVENTS)
def test_every_event_has_a_sentence(event: type[events.Event]) -> None:
    """Nothing that happens is shown as a Python name."""
    line = event_text(sample(event))
    assert line
    assert "_" not in line
    assert "\n" not in line


def test_metrics_have_the_documented_names_and_values(board: StatusTracker) -> None:
    """Dashboards and alerts depend on the names."""
    metrics = Metrics("0.1.0", board.status)
    for event in (
        events.DriftDetected(slug="drifted", fields=("code", "name")),
        events.DeploySucceeded(slug="drifted", duration_ms=1500),
        events.DeployFailed(slug="new", error="no"),
        events.DeployTimedOut(slug="new", timeout_s=180),
        events.ApiCalled(method="GET", route="/functions", status=200, duration_ms=5, rate_limit=100, rate_remaining=42),
        events.ApiCalled(method="GET", route="/functions", status=None, duration_ms=5),
        events.TriggerReceived(trigger="webhook"),
        events.WebhookRefused(reason="wrong_signature", error="wrong signature", peer="10.0.0.1"),
        events.WatchFailed(slug="new", error="no"),
        events.ReconcileFailed(error="x", error_type="X"),
    ):
        metrics(event)
    board.planned(plan())
    board.ended(report())
    text, kind = metrics.exposition()
    assert kind.startswith("text/plain")
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }
    assert samples["kapso_sync_drift_total", "code", "drifted"] == 1
    assert samples["kapso_sync_deploy_total", "timed_out"] == 1
    assert [samples["kapso_sync_watch_total", result] for result in ("failed", "passed", "inconclusive")] == [1, 0, 0]
    assert samples["kapso_sync_functions", "Ready"] == 2
    assert samples["kapso_sync_function_ready", "new"] == 0
    assert samples["kapso_sync_api_rate_limit_remaining",] == 42
    assert samples["kapso_sync_api_requests_total", "/functions", "GET", "none"] == 1
    assert samples["kapso_sync_triggers_total", "webhook"] == 1
    assert [samples["kapso_sync_webhooks_refused_total", reason] for reason in ("wrong_signature", "too_large")] == [1, 0]
    assert samples["kapso_sync_source_info", "c0ffee"] == 1
    assert samples["kapso_sync_reconcile_total", "error"] == 1


@pytest.mark.parametrize("event", EVENTS)
def test_an_event_survives_its_record(event: type[events.Event]) -> None:
    """The history keeps events as JSON; a record of another version, with more keys or fewer, raises nothing."""
    there = sample(event)
    record = {"at": "2026-01-01", **json.loads(json.dumps(dataclasses.asdict(there)))}
    assert events.event_of(event.name, record) == there
    assert events.event_of(f"{event.name}.x", record) is None
    if any(field.default is dataclasses.MISSING and field.name != "name" for field in events.declared_fields(event)):
        assert events.event_of(event.name, {}) is None


@pytest.mark.parametrize("wrong", ["x", None, [], {}])
def test_a_record_with_a_value_of_another_type_is_no_event(wrong: object) -> None:
    """It would fail wherever it is shown; a number that is none of milliseconds, say."""
    record = {"slug": "greet", "duration_ms": wrong}
    assert events.event_of("deploy.succeeded", record) is None
    assert events.event_of("deploy.succeeded", {**record, "duration_ms": 5}) is not None
