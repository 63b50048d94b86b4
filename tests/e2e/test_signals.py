"""Signals: one clean stop, whatever the program is doing."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kapso_sync.tools import VERSION
from tests.e2e.test_kill import wait_for_hang
from tests.proc import naming
from tests.program import answering, kapso_sync, started, write_functions
from tests.served import Served, served
from tests.sources.servers import unresponsive_server


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
def test_an_interrupted_plan_says_nothing_of_writes(kapso: Served, tmp_path: Path) -> None:
    """There are none."""
    write_functions(tmp_path / "functions", {"greet": answering("hello")})
    kapso.faults({"what": "hang_before", "nth": 1})
    with started("plan", str(tmp_path / "functions"), environment=kapso.environment(tmp_path / "state")) as process:
        wait_for_hang(kapso, process.poll)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=10)
    assert (process.returncode, err.splitlines()[-1]) == (130, "interrupted")


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


@pytest.mark.e2e
@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's /proc")
def test_sigkill_while_git_waits_for_its_server_leaves_no_process(tmp_path: Path) -> None:
    """Neither git nor its remote helper, which would wait for a server that never answers."""
    with unresponsive_server() as (host, port):
        url = f"http://{host}:{port}/flows.git"
        environment = {"KAPSO_API_KEY": "x", "KAPSO_SYNC_STATE_DIR": str(tmp_path / "state"), "TMPDIR": str(tmp_path)}
        with started("plan", url, environment=environment) as process:
            wait_until(lambda: len(naming(url)) > 3)
            process.send_signal(signal.SIGKILL)
            process.wait(20)
            wait_until(lambda: not naming(url))


@pytest.mark.e2e
@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's /proc")
def test_sigkill_while_esbuild_waits_for_a_pipe_leaves_no_process(tmp_path: Path) -> None:
    """A stand-in for esbuild, which reads a pipe for ever, as esbuild does where a pipe lies in place of a file."""
    folder, program, pipe = tmp_path / "functions", tmp_path / "esbuild", tmp_path / "pipe"
    os.mkfifo(pipe)
    program.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo {VERSION} && exit\ncat {pipe}\n')
    program.chmod(0o700)
    write_functions(folder, {"greet": "export default { fetch: () => new Response('hello') };\n"})
    (folder / "greet.js").rename(folder / "greet.ts")
    (folder / "manifest.yaml").write_text("version: 1\nfunctions:\n  greet: {file: greet.ts}\n")
    # A killed process leaves its temporary folder behind.
    environment = {"KAPSO_SYNC_ESBUILD": str(program), "KAPSO_SYNC_STATE_DIR": str(tmp_path / "state"), "TMPDIR": str(tmp_path)}
    with started("validate", str(folder), environment=environment) as process:
        wait_until(lambda: naming(f"cat\0{pipe}"))
        assert naming(str(program)), "a control"
        process.send_signal(signal.SIGKILL)
        process.wait(20)
        wait_until(lambda: not naming(str(pipe)) and not naming(str(program)))


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def wait_until_deploying(kapso: Served) -> None:
    deadline = time.monotonic() + 20
    while "POST /functions/{id}/deploy" not in kapso.calls():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    kapso.forget_requests()
    while "GET /functions" not in kapso.calls():
        assert time.monotonic() < deadline
        time.sleep(0.01)
