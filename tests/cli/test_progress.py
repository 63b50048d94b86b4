"""The progress bar: shown while deployments run, on a terminal only."""

from __future__ import annotations

import io

from rich.console import Console

from kapso_sync.cli.sync import Progress
from kapso_sync.model import events


def watched(*, terminal: bool) -> str:
    stream = io.StringIO()
    with Progress(Console(file=stream, force_terminal=terminal, width=80)) as progress:
        assert progress.visible is terminal
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


def test_there_is_no_progress_bar_without_a_terminal() -> None:
    """In a file or pipe only the log is written."""
    assert watched(terminal=False) == ""
