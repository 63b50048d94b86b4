"""Statuses to show: healthy, with failures, and empty."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from kapso_sync.model.evidence import Evidence
from kapso_sync.model.function_view import (
    BackupSummary,
    BackupView,
    CheckResult,
    FunctionRecord,
    HistoryEntry,
    InvocationLine,
    InvocationsView,
    InvocationView,
    RevisionHistory,
)
from kapso_sync.model.source import Revision
from kapso_sync.model.status import (
    ActivityHour,
    Condition,
    ConditionType,
    DaemonStatus,
    FunctionStatus,
    PassStatus,
    RateLimit,
    RecentEvent,
    ReplicaStatus,
    Role,
    RunningPass,
    Suspension,
)

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
DIFF = "--- kapso/greet (code)\n+++ git/greet (code)\n@@ -1,2 +1,2 @@\n same\n-const a = '<b>old</b>';\n+const a = 'new';\n"


def ago(**units: float) -> datetime:
    return NOW - timedelta(**units)


def function(slug: str, state: str = "Ready", message: str = "in sync", **more: object) -> FunctionStatus:
    """A function whose one true condition is ``state`` (none of them for NotReady)."""
    conditions = tuple(
        Condition(kind, str(kind) == state, "InSync" if state == "Ready" else "Because", message, ago(hours=3), "c0ffee")
        for kind in ConditionType
    )
    return replace(FunctionStatus(slug, f"id-{slug}", conditions), **more)  # type: ignore[arg-type]


def status(*functions: FunctionStatus, **more: object) -> DaemonStatus:
    base = DaemonStatus(
        version="0.1.0",
        now=NOW,
        started_at=ago(days=12),
        source="https://github.com/acme/flows",
        owner="github.com/acme/flows//functions",
        revision=Revision("4f1c2ab8d0e1" + "0" * 28, subject="Add greeting", author="Ada", committed_at=ago(minutes=42)),
        revision_since=ago(minutes=40),
        functions=functions,
        last_pass=PassStatus(ago(minutes=2), "interval", 0, 0.31, 1, {"none": len(functions)}),
        next_check_at=NOW + timedelta(minutes=3),
        budget=RateLimit(1000, 912),
    )
    return replace(base, **more)  # type: ignore[arg-type]


GOOD = status(
    *(
        function(slug, changed_at=ago(hours=5), change="updated: changed in git: code")
        for slug in ("fetch-order", "receive-webhook", "remind-batch", "route-message", "shipping-cost", "transform-contact")
    ),
    events=(RecentEvent(ago(minutes=40), "info", "deploy.succeeded", "live after 21.3 s", "greet"),),
)

BAD = status(
    function("broken-syntax", "Stalled", "broken-syntax.js:12:5: syntax error near `return (`"),
    function(
        "fails-to-deploy",
        "NotReady",
        "the deployment ended in `error`, 2 times",
        retry_at=NOW + timedelta(seconds=42),
        diff=DIFF,
        evidence=Evidence(
            ("error TypeError: <b>no</b>", f"          at total (lib/{'long' * 40}.ts:5:22)"), "lib/total.ts:5:22"
        ),
    ),
    function("tuned-by-hand", "Drifted", "changed on Kapso, and drift is only reported", diff=DIFF),
    function("going-up", "Reconciling", "update: changed in git: code", deploying_since=ago(seconds=17)),
    function(
        "a-slug-that-is-so-long-that-no-narrow-screen-could-ever-show-it-on-one-line-" + "x" * 60, "Stalled", "word " * 60
    ),
    *(function(f"fine-{number}") for number in range(4)),
    running=RunningPass("interval", ago(seconds=20)),
    events=(
        RecentEvent(ago(seconds=5), "error", "deploy.failed", "the deployment ended in `error`, 2 times", "fails-to-deploy"),
        RecentEvent(ago(seconds=30), "warning", "drift.detected", "changed on Kapso: code", "tuned-by-hand"),
        RecentEvent(ago(minutes=1), "info", "source.changed", "new revision 4f1c2ab8d0e1 “Add greeting” by Ada"),
    ),
    warnings=("not in git, kept since KAPSO_SYNC_PRUNE is off: old-one, older-one",),
    unfinished=("deploy greet",),
)

MANY = status(
    *(function(f"number-{index}", changed_at=ago(hours=index), change="updated: changed in git: code") for index in range(60)),
    budget=RateLimit(1000, 60),
    events=tuple(RecentEvent(ago(minutes=7 * index), "info", "deploy.succeeded", "live", "number-1") for index in range(30)),
)

DOWN = replace(
    GOOD,
    last_pass=PassStatus(
        ago(seconds=20), "interval", 69, 31.0, 5, {}, "no connection to app.kapso.ai", "the next pass tries again; is Kapso up?"
    ),
)

SUSPENDED = replace(GOOD, suspension=Suspension("moving the project to another plan", ago(minutes=5), NOW + timedelta(hours=2)))

STANDBY = DaemonStatus(
    version="0.1.0",
    now=NOW,
    started_at=ago(days=1),
    source="https://github.com/acme/flows",
    owner="github.com/acme/flows//functions",
    revision=Revision("4f1c2ab8d0e1" + "0" * 28, subject="Add greeting", author="Ada", committed_at=ago(minutes=42)),
    replica=ReplicaStatus(Role.STANDBY, "apps/kapso-sync", "flows-7d4b9c-x2x4q_1f2e3d4c"),
)

EMPTY = DaemonStatus(version="0.1.0", now=NOW, started_at=ago(seconds=2), source="./functions")

WORSE = replace(
    BAD,
    running=None,
    functions=(
        replace(
            function("broken-syntax", "Stalled", "syntax error near `return (`; close the bracket"),
            hint="close the bracket",
            place="broken-syntax.ts:12:5",
            broken_by=Revision("bad0bad0bad0" + "0" * 28, subject="Add <b>tax</b>", author="Bob"),
            diff=DIFF,
        ),
        *BAD.functions[1:],
    ),
    activity=(
        ActivityHour(datetime(2025, 12, 31, 15, tzinfo=UTC), 3, 0),
        ActivityHour(datetime(2026, 1, 1, 9, tzinfo=UTC), 12, 1),
        ActivityHour(datetime(2026, 1, 1, 11, tzinfo=UTC), 1, 4),
    ),
)
"""A day with failures, of which the first is known to its commit and line."""

KEPT = BackupSummary("0123456789abcdef", ago(days=2), "drift", kept=True)
RECORD = FunctionRecord(
    history=(
        RevisionHistory(
            Revision("bad0bad0bad0" + "0" * 28, subject="Add <b>tax</b>", author="Bob"),
            (
                HistoryEntry(ago(minutes=3), "error", "check failed: check 2 failed: expected status 200, got status 500"),
                HistoryEntry(ago(minutes=4), "info", "live after 21.3 s"),
                HistoryEntry(ago(minutes=5), "info", "updated: code (git)"),
            ),
            21.3,
        ),
        RevisionHistory(None, (HistoryEntry(ago(days=9), "info", "created"),)),
    ),
    checks=(CheckResult(ago(minutes=3), number=2, expected="status 200", answer="status 500, '<i>no</i>'"),),
    backups=(KEPT, BackupSummary("fedcba9876543210", ago(days=9), "changed in git", kept=False)),
    former=KEPT,
    changed=DIFF,
)
BACKUP = BackupView(KEPT, DIFF)
INVOCATIONS = InvocationsView(
    ago(seconds=2),
    (
        InvocationView(
            ago(seconds=30),
            500,
            42.4,
            (
                InvocationLine("log", "asked for <A1>"),
                InvocationLine("error", "TypeError: x is undefined\n    at total (lib/total.ts:7:23)\n    at " + "y" * 200),
            ),
        ),
        InvocationView(ago(minutes=2), 200, 7.0, ()),
        InvocationView(None, None, None, (InvocationLine("warn", "late"),), "it ran before the deployment"),
    ),
)

ALL = {
    "worse": WORSE,
    "many": MANY,
    "good": GOOD,
    "bad": BAD,
    "down": DOWN,
    "suspended": SUSPENDED,
    "standby": STANDBY,
    "empty": EMPTY,
}
