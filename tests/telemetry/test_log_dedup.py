"""Log deduplication: an unchanged pass logs nothing; a lasting failure is logged when it begins, changes and ends."""

from __future__ import annotations

from kapso_sync.model import events
from kapso_sync.model.events import Event, Level
from kapso_sync.telemetry.log_dedup import REFUSAL_INTERVAL, DeduplicatingLog
from tests.clock import VirtualClock

STARTED = events.ReconcileStarted(trigger="interval")
SAME = events.SourceUnchanged(revision="c0ffee")
PLANNED = events.PlanComputed(summary={}, functions=())


def finished(**counts: int) -> events.ReconcileFinished:
    names = ("created", "updated", "deployed", "deleted", "adopted", "unchanged", "failed", "blocked", "drifted", "api_calls")
    totals = {name: counts.get(name, 0) for name in names}
    result = "failed" if totals["failed"] else "success"
    return events.ReconcileFinished(result=result, **totals, duration_ms=5)


class Reader:
    """What a log shows, pass by pass."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []
        self.clock = VirtualClock()
        self.log = DeduplicatingLog(lambda event, level: self.lines.append((event.name, str(level))), self.clock)

    def read(self, *told: Event) -> list[tuple[str, str]]:
        self.lines.clear()
        for event in told:
            self.log(event)
        return list(self.lines)


def failed(error: str) -> events.FunctionFailed:
    return events.FunctionFailed(slug="greet", error=error, error_type="ApiRejected")


def test_an_unchanged_pass_is_one_debug_log_line() -> None:
    """Nothing at info, and only the end at debug."""
    assert Reader().read(STARTED, SAME, PLANNED, finished(unchanged=5)) == [("reconcile.finished", str(Level.DEBUG))]


def test_a_pass_with_changes_is_logged_completely_and_in_order() -> None:
    """Withheld lines come first, once there is something to log."""
    plan = events.PlanComputed(summary={"update": 1}, functions=({"slug": "greet", "action": "update"},))
    names = [name for name, _ in Reader().read(STARTED, SAME, plan, events.DeployStarted(slug="greet"), finished(updated=1))]
    assert names == ["reconcile.started", "source.unchanged", "plan.computed", "deploy.started", "reconcile.finished"]


def test_a_lasting_failure_is_logged_when_it_begins_changes_and_ends() -> None:
    """Repetitions are counted in between."""
    reader = Reader()
    assert ("function.failed", "error") in reader.read(STARTED, PLANNED, failed("no"), finished(failed=1))
    for _ in range(3):
        assert reader.read(STARTED, PLANNED, failed("no"), finished(failed=1)) == [("reconcile.finished", "debug")]
    assert ("function.failed", "error") in reader.read(STARTED, PLANNED, failed("otherwise"), finished(failed=1))
    ended: list[Event] = []
    reader.log._log = lambda event, _: ended.append(event)
    for event in (STARTED, PLANNED, finished(unchanged=1)):
        reader.log(event)
    (over,) = [event for event in ended if isinstance(event, events.FailureEnded)]
    assert (over.failure, over.slug, over.error, over.times) == ("function.failed", "greet", "otherwise", 1)


def test_an_api_outage_of_an_hour_is_two_log_lines() -> None:
    """One when it begins and one when it is over."""
    reader = Reader()
    down = events.ReconcileFailed(error="no connection", error_type="ApiUnavailable")
    lines = [line for _ in range(60) for line in reader.read(STARTED, down)]
    lines += reader.read(STARTED, SAME, PLANNED, finished(unchanged=5))
    assert [line for line in lines if line[1] != "debug"] == [("reconcile.failed", "error"), ("failure.ended", "info")]


async def test_refused_pushes_are_one_line_for_each_reason_and_five_minutes() -> None:
    """Whoever sends them has many addresses, and passes begin and end meanwhile, which stay without a line."""
    reader = Reader()
    refused = [
        events.WebhookRefused(reason=reason, error="no", peer=f"10.0.0.{number}")
        for number in range(50)
        for reason in ("no_signature", "wrong_signature")
    ]
    assert reader.read(STARTED, SAME, *refused, PLANNED, finished(unchanged=5), STARTED, *refused, PLANNED) == [
        ("webhook.refused", "warning"),
        ("webhook.refused", "warning"),
        ("reconcile.finished", "debug"),
    ]
    await reader.clock.sleep(REFUSAL_INTERVAL - 1)
    assert reader.read(*refused) == []
    await reader.clock.sleep(1)
    assert reader.read(*refused) == [("webhook.refused", "warning")] * 2


def test_a_failed_pass_does_not_log_the_end_of_function_failures() -> None:
    """Git is down for a pass: a function that is invalid in git still is."""
    reader = Reader()
    invalid = events.FunctionInvalid(slug="greet", error="syntax error", location="greet.js:1:1")
    reader.read(STARTED, PLANNED, invalid, finished(failed=1))
    down = events.ReconcileFailed(error="no repository", error_type="SourceMissing")
    assert reader.read(STARTED, down)[-1] == ("reconcile.failed", "error")
    assert reader.read(STARTED, PLANNED, invalid, finished(failed=1)) == [
        ("reconcile.finished", "debug"),
        ("failure.ended", "info"),
    ]


def test_a_plan_of_blocked_or_invalid_functions_only_is_not_logged_again() -> None:
    """Each failure has a log line of its own, once."""
    plan = events.PlanComputed(summary={}, functions=({"slug": "a", "action": "invalid"}, {"slug": "b", "action": "blocked"}))
    assert Reader().read(STARTED, SAME, plan, finished(failed=1, blocked=1)) == [("reconcile.finished", "debug")]


def test_retries_are_logged_until_a_pass_has_failed() -> None:
    """A single retry is logged; during a logged outage retries are repetitions."""
    reader = Reader()
    retry = events.ApiRetry(method="GET", route="/functions", status=None, attempt=1, wait_s=0.1, error="no connection")
    down = events.ReconcileFailed(error="no connection", error_type="ApiUnavailable")
    assert ("api.retry", "warning") in reader.read(STARTED, retry, down)
    for _ in range(10):
        assert reader.read(STARTED, retry, down) == [("api.retry", "debug")]
    reader.read(STARTED, PLANNED, finished())
    assert ("api.retry", "warning") in reader.read(STARTED, retry, PLANNED, finished())


def test_the_same_failure_of_two_functions_is_logged_for_each() -> None:
    """One of them recovers: only that failure is over."""
    reader = Reader()
    other = events.FunctionFailed(slug="other", error="no", error_type="ApiRejected")
    reader.read(STARTED, failed("no"), other, finished(failed=2))
    assert reader.read(STARTED, other, finished(failed=1)) == [("reconcile.finished", "debug"), ("failure.ended", "info")]


def test_plan_warnings_are_logged_when_they_change() -> None:
    """The same warning is not logged in every pass, and neither is its end."""
    reader = Reader()
    warning = events.PlanNotice(code="unlisted-file", message="1 code file is named by no entry: x.js")
    assert ("plan.warning", "warning") in reader.read(STARTED, PLANNED, warning, finished())
    assert reader.read(STARTED, PLANNED, warning, finished()) == [("reconcile.finished", "debug")]
    assert reader.read(STARTED, PLANNED, finished()) == [("reconcile.finished", "debug")]
    assert ("plan.warning", "warning") in reader.read(STARTED, PLANNED, warning, finished())


def test_events_between_passes_are_always_logged() -> None:
    """Suspensions, signals, the daemon's own failures."""
    assert Reader().read(events.Suspended(reason="x"), events.Resumed()) == [("suspended", "warning"), ("resumed", "info")]


def test_a_repeated_failure_of_a_whole_pass_ends_that_pass() -> None:
    """What comes between passes is logged again, and so is the end of another failure, as after the first such pass."""
    reader = Reader()
    down = events.ReconcileFailed(error="no connection", error_type="ApiUnavailable")
    unread = events.SourceFailed(error="no repository", error_type="SourceMissing")
    asked = events.TriggerReceived(trigger="manual")
    reader.read(STARTED, down)
    after_the_first = reader.read(asked)
    assert ("source.failed", "error") in reader.read(STARTED, unread, down)
    assert reader.read(STARTED, down) == [("failure.ended", "info")]
    assert reader.read(asked) == after_the_first == [("trigger.received", str(asked.level))]


def test_a_lost_lease_ends_a_pass_without_a_word_and_lease_failures_are_not_the_passes_own() -> None:
    """A standby keeps no debug lines for a pass that never ends, and the elector itself says when a failure is over."""
    reader = Reader()
    lost = events.LeaseLost(lease="apps/kapso-sync", reason="it was not renewed for 10 s")
    refused = events.LeaseFailed(lease="apps/kapso-sync", error="answered 403", error_type="LeaseForbidden")
    assert reader.read(STARTED, SAME, lost) == [("lease.lost", "warning")]
    assert reader.read(SAME) == [("source.unchanged", "debug")]
    assert reader.read(refused) == [("lease.failed", "error")]
    assert reader.read(STARTED, PLANNED, finished()) == [("reconcile.finished", "debug")]
    assert reader.read(refused) == [("lease.failed", "error")]
