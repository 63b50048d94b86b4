"""Starting, stopping and starting again."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

import httpx
import pytest

from kapso_sync.emulator.options import DEFAULT_KEY, DataUnusable, EmulatorError, EmulatorOptions, FaultsInvalid
from kapso_sync.emulator.runtime import Call, Result
from kapso_sync.emulator.server import Emulator, running_emulator
from kapso_sync.emulator.serving import GRACE
from tests.clock import VirtualClock
from tests.emulator.kapso import BROKEN, CODE, DELAY, opened, until


async def test_all_data_survives_a_restart(tmp_path: Path) -> None:
    """Functions, secrets, workflows, invocations and ids; a deleted function stays deleted."""
    options = EmulatorOptions(data=tmp_path / "data", deploy_delay=DELAY)
    clock = VirtualClock()
    async with opened(options, clock=clock) as kapso:
        kept, gone = await kapso.deployed("kept"), await kapso.create("gone")
        await kapso.http.post(f"/functions/{kept}/secrets", json={"secret": {"name": "KEY", "value": "v"}})
        await kapso.http.post(f"/functions/{kept}/invoke", json={"n": 1})
        await kapso.update(kept, code="const lone = '\\ud800';")
        await kapso.http.delete(f"/functions/{gone}")
        await kapso.control("POST", "/workflows", {"workflow": {"name": "W", "definition": {"nodes": []}}})
        port = kapso.emulator.url
        before = (await kapso.control("GET", "/state")).text.replace(port, "")
        calls = (await kapso.http.get(f"/functions/{kept}/invocations")).json()
    async with opened(options, clock=clock) as kapso:
        assert (await kapso.control("GET", "/state")).text.replace(kapso.emulator.url, "") == before
        assert (await kapso.http.get(f"/functions/{kept}/invocations")).json() == calls
        assert kapso.live("kept") == CODE
        await kapso.control("POST", "/reset")
    async with opened(options, clock=clock) as kapso:
        state = (await kapso.control("GET", "/state")).json()
        assert (state["functions"], state["workflows"]) == ([], [])
        assert state["project_id"] in before


async def test_deployments_go_on_while_the_emulator_is_down(tmp_path: Path) -> None:
    """A deployment whose time is over has ended, in success or error; others go on."""
    options = EmulatorOptions(data=tmp_path, deploy_delay=DELAY)
    clock = VirtualClock()
    async with opened(options, clock=clock) as kapso:
        for slug, code in (("good", CODE), ("bad", BROKEN)):
            await kapso.deploy(await kapso.create(slug, code))
        await clock.sleep(DELAY / 2)
        late = await kapso.create("late")
        await kapso.deploy(late)
    await clock.sleep(DELAY / 2)
    async with opened(options, clock=clock) as kapso:
        functions = kapso.emulator.world.functions.values()
        assert {item.slug: item.status for item in functions} == {"good": "deployed", "bad": "error", "late": "draft"}
        await clock.sleep(DELAY / 2)
        assert (await kapso.record(late))["last_deployed_at"] == "2026-01-01T00:00:15.000000Z"


async def test_a_second_emulator_on_a_locked_data_folder_is_refused(tmp_path: Path) -> None:
    """The first goes on."""
    options = EmulatorOptions(data=tmp_path)
    async with running_emulator(options) as first:
        with pytest.raises(DataUnusable, match="database is locked"):
            async with running_emulator(options):
                pytest.fail("two emulators share a folder")
        first.world.create({"name": "x", "code": CODE})


@pytest.mark.parametrize("name", ["emulator.sqlite3", "."])
async def test_unusable_data_folder_error_names_the_folder(tmp_path: Path, name: str) -> None:
    """A file that is not a database, or a path that is not a folder."""
    path = tmp_path / "data"
    if name == ".":
        path.write_text("a file")
    else:
        path.mkdir()
        (path / name).write_text("this is no database, whatever its name says" * 100)
    with pytest.raises(DataUnusable, match="cannot keep the emulator's data in"):
        async with running_emulator(EmulatorOptions(data=path)):
            pytest.fail("it started")


async def test_port_in_use_error_names_the_port() -> None:
    """And says what to do."""
    async with running_emulator() as first:
        port = int(first.url.rpartition(":")[2])
        with pytest.raises(EmulatorError, match=f"cannot listen on 127.0.0.1:{port}") as caught:
            async with running_emulator(EmulatorOptions(port=port)):
                pytest.fail("two emulators share a port")
        assert caught.value.hint


async def test_fault_file_is_read_at_the_start(tmp_path: Path) -> None:
    """Its rules are in force at once and after a reset; an invalid file stops the start."""
    path = tmp_path / "faults.yaml"
    path.write_text("faults:\n  - {what: status, status: 503}\n")
    async with opened(EmulatorOptions(faults=path)) as kapso:
        await kapso.faults()
        assert (await kapso.http.get("/functions")).status_code == 200
        await kapso.control("POST", "/reset")
        assert (await kapso.http.get("/functions")).status_code == 503
    path.write_text("faults: none\n")
    with pytest.raises(FaultsInvalid):
        async with running_emulator(EmulatorOptions(faults=path)):
            pytest.fail("it started")


def test_a_rate_limit_of_zero_is_refused() -> None:
    """A limit of 0 requests as well as a window of 0 seconds."""
    for bad in ({"rate_limit": 0}, {"window": 0}):
        with pytest.raises(EmulatorError):
            EmulatorOptions(**bad)  # type: ignore[arg-type]


async def test_shutdown_ends_hanging_requests_and_leaves_signal_handlers_alone() -> None:
    """Hanging and dripping requests end with the emulator; the process' signal handlers are never changed."""
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    async with opened() as kapso:
        await kapso.faults({"what": "hang_after", "nth": 1}, {"what": "drip", "seconds": 600})
        hung = [asyncio.create_task(kapso.http.get("/functions")) for _ in range(2)]
        await until(lambda: kapso.emulator.parts.hangs.waiting == 2)
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
        begun = time.monotonic()
    assert time.monotonic() - begun < GRACE + 60  # a request would hang for ten minutes
    assert all(isinstance(item, httpx.TransportError) for item in await asyncio.gather(*hung, return_exceptions=True))


class Stuck:
    """A runtime that never answers."""

    async def check(self, slug: str, code: str) -> str | None:  # noqa: ARG002 - it likes everything
        return None

    def forget(self) -> None:
        """Keep nothing."""

    async def run(self, call: Call) -> Result:
        await asyncio.Event().wait()
        raise AssertionError(call)


async def test_shutdown_cancels_code_that_never_answers(caplog: pytest.LogCaptureFixture) -> None:
    """A runtime that hangs is cancelled after the shutdown's grace period."""
    async with opened(runtime=Stuck()) as kapso:
        function_id = await kapso.deployed()
        call = asyncio.create_task(kapso.http.post(f"/functions/{function_id}/invoke", json={}))
        await until(lambda: len(kapso.emulator.log.entries) == 3)
        begun = time.monotonic()
    assert time.monotonic() - begun < GRACE + 60  # a request would hang for ten minutes
    assert all(isinstance(item, httpx.TransportError) for item in await asyncio.gather(call, return_exceptions=True))
    assert "Exception in ASGI application" in caplog.text


async def test_client_that_disconnects_during_a_request_causes_no_error(caplog: pytest.LogCaptureFixture) -> None:
    """A body that never arrives completely is neither processed nor logged; the next request is served."""
    async with opened() as kapso:
        port = int(kapso.emulator.url.rpartition(":")[2])
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /platform/v1/functions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        assert (await kapso.http.get("/functions")).status_code == 200
        assert len(kapso.emulator.log.entries) == 1
    assert not caplog.text


async def test_the_emulator_fixture_deploys_in_real_time(emulator: Emulator) -> None:
    """The shared fixture has deployments of 20 ms."""
    assert emulator.key == DEFAULT_KEY
    function = emulator.world.create({"name": "x", "code": CODE})
    emulator.world.deploy(function)
    await until(lambda: emulator.world.live_code()["x"] == CODE)


async def test_host_and_api_key_are_configurable() -> None:
    """IPv6 too."""
    async with running_emulator(EmulatorOptions(host="::1", api_key="mine")) as emulator:
        assert emulator.url.startswith("http://[::1]:")
        async with httpx.AsyncClient(base_url=emulator.base("/api/v1"), trust_env=False) as http:
            assert (await http.get("/functions", headers={"X-API-Key": "mine"})).status_code == 200
            assert (await http.get("/functions", headers={"X-API-Key": DEFAULT_KEY})).status_code == 401


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_foreground_server_ends_on_sigterm_or_sigint(number: signal.Signals) -> None:
    """It prints its address, and exits without an error message."""
    program = (
        "import asyncio\n"
        "from kapso_sync.emulator.options import EmulatorOptions\n"
        "from kapso_sync.emulator.server import serve\n"
        "asyncio.run(serve(EmulatorOptions(control_token='mine'), lambda emulator: print(emulator.url, flush=True)))\n"
    )
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, "-W", "error", "-c", program, stdout=pipe, stderr=pipe)
    assert process.stdout is not None
    async with asyncio.timeout(20):
        url = (await process.stdout.readline()).decode().strip()
        async with httpx.AsyncClient(trust_env=False) as http:
            assert (await http.get(f"{url}/_emulator/state", headers={"X-Emulator-Token": "mine"})).status_code == 200
        os.kill(process.pid, number)
        out, err = await process.communicate()
    assert (process.returncode, out, err) == (0, b"", b"")
