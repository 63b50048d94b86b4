"""The progress bar: shown while deployments run, on a terminal only."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from kapso_sync.cli.console import Console, Progress
from kapso_sync.model import events
from tests.program import Terminal, kapso_sync
from tests.served import Served


def watched(*, terminal: bool, **environment: str) -> str:
    stream = Terminal() if terminal else io.StringIO()
    with Progress(Console(stream, {"TERM": "xterm", **environment})) as progress:
        progress.listen(events.FunctionCreated(slug="a"))
        assert "deploying" not in stream.getvalue()
        progress.listen(events.DeployStarted(slug="a"))
        progress.listen(events.DeployStarted(slug="b"))
        progress.listen(events.DeploySucceeded(slug="a", duration_ms=5))
        progress.listen(events.DeployFailed(slug="b", error="no"))
    return stream.getvalue()


def test_the_progress_bar_counts_deployments() -> None:
    """It appears with the first deployment and counts those that ended."""
    assert "2/2" in watched(terminal=True)


@pytest.mark.parametrize("broken", [False, True])
def test_on_a_terminal_the_report_stands_alone(kapso: Served, folder: Path, environment: dict[str, str], broken: bool) -> None:
    """Nothing is said twice, unless a log level asks for the log as well; elsewhere the log is written."""
    settings = {name: value for name, value in environment.items() if name != "KAPSO_SYNC_LOG_FORMAT"}
    if broken:
        kapso.faults({"what": "status", "status": 422, "method": "POST", "route": "/functions", "body": {"error": "no"}})
    report = "failed" if broken else "created, live"
    watched = kapso_sync("sync", str(folder), environment=settings, terminal=True)
    assert (watched.code, report in watched.out) == (int(broken), True)
    assert "function.created" not in watched.err
    assert "function.failed" not in watched.err
    asked = kapso_sync("sync", str(folder), "--log-level", "info", environment=settings, terminal=True)
    assert "reconcile.finished" in asked.err
    assert "reconcile.finished" in kapso_sync("sync", str(folder), environment=environment).err


def test_there_is_no_progress_bar_without_a_terminal() -> None:
    """In a file or pipe only the log is written."""
    assert watched(terminal=False) == ""
