"""Signals: one clean stop, whatever the program is doing."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.program import answering, kapso_sync, started, write_functions
from tests.served import Served, served


@pytest.fixture
def kapso() -> Iterator[Served]:
    with served() as running:
        yield running


@pytest.mark.e2e
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_sigterm_or_sigint_during_a_deployment_ends_a_sync_cleanly(
    kapso: Served, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    """With the documented exit code and no traceback; the next sync goes on."""
    environment = kapso.environment(tmp_path / "state")
    write_functions(tmp_path / "functions", {"greet": answering("hello")})
    kapso.faults({"what": "deploy_hangs", "nth": 1})
    with started("sync", str(tmp_path / "functions"), environment=environment) as process:
        wait_until_deploying(kapso)
        process.send_signal(number)
        _, err = process.communicate(timeout=10)
        assert process.returncode == code
    assert "Traceback" not in err
    assert err.splitlines()[-1] == "interrupted: writes in progress are journaled; the next sync resumes them"
    assert kapso_sync("sync", str(tmp_path / "functions"), environment=environment).code == 0
    assert kapso.world.live_code() == {"greet": answering("hello")}


@pytest.mark.e2e
def test_a_second_sync_on_a_locked_state_folder_exits_with_75(kapso: Served, tmp_path: Path) -> None:
    """The error has the pid of the first; a plan beside a running sync works."""
    environment = kapso.environment(tmp_path / "state")
    write_functions(tmp_path / "functions", {"greet": answering("hello")})
    kapso.faults({"what": "deploy_hangs", "nth": 1})
    with started("sync", str(tmp_path / "functions"), environment=environment) as process:
        wait_until_deploying(kapso)
        second = kapso_sync("sync", str(tmp_path / "functions"), environment=environment)
        assert second.code == 75
        assert f"pid {process.pid} on " in second.err
        assert kapso_sync("plan", str(tmp_path / "functions"), environment=environment).code == 0
        status = kapso_sync("status", str(tmp_path / "functions"), "--json", environment=environment)
        assert status.document["unfinished"] == ["deploy greet"]


def wait_until_deploying(kapso: Served) -> None:
    deadline = time.monotonic() + 20
    while "POST /functions/{id}/deploy" not in kapso.calls():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    kapso.forget_requests()
    while "GET /functions" not in kapso.calls():
        assert time.monotonic() < deadline
        time.sleep(0.01)
