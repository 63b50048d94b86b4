"""SIGKILL before and after every API call of a mixed plan; then one sync must finish the work."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.program import answering, kapso_sync, started, write_functions
from tests.served import Served, served

CALLS = (
    "GET /functions",
    "GET /functions/{id}/secrets",
    "GET /functions/{id}/secrets",
    "GET /workflows",
    "GET /whatsapp/flows",
    "GET /whatsapp/webhooks",
    "GET /functions/{id}/invocations",
    "PATCH /functions/{id}",
    "POST /functions/{id}/deploy",
    "GET /functions",
    "PATCH /functions/{id}",  # the mark names the code now: before, Kapso's times could not tell saved code from live code
    "PATCH /functions/{id}",
    "POST /functions/{id}/deploy",
    "GET /functions",
    "PATCH /functions/{id}",
    "POST /functions",
    "POST /functions/{id}/deploy",
    "GET /functions",
    "GET /workflows",
    "GET /whatsapp/flows",
    "GET /whatsapp/webhooks",
    "GET /functions/{id}/invocations",
    "GET /functions/{id}",
    "DELETE /functions/{id}",
)
"""The calls of the plan below, one function at a time; the test of that name holds the list to what really happens."""

BEFORE = {"drifts": answering("1"), "grows": answering("1"), "leaves": answering("1"), "stays": answering("1")}
AFTER = {"drifts": answering("1"), "grows": answering("2"), "joins": answering("3"), "stays": answering("1")}
STRANGER = answering("not ours")


@pytest.fixture
def kapso() -> Iterator[Served]:
    with served() as running:
        yield running


@pytest.fixture
def environment(kapso: Served, tmp_path: Path) -> Mapping[str, str]:
    return {
        **kapso.environment(tmp_path / "state"),
        "KAPSO_SYNC_OWNER": "acme/flows",
        "KAPSO_SYNC_PRUNE": "true",
        "KAPSO_SYNC_CONCURRENCY": "1",
        "KAPSO_SYNC_DEPLOYING": "1",
        "KAPSO_SYNC_MAX_DELETE": "1",
    }


@pytest.fixture
def folder(kapso: Served, environment: Mapping[str, str], tmp_path: Path) -> Path:
    """A functions folder, synced, then changed in git and on Kapso: one to create, update, correct and delete each."""
    folder = tmp_path / "functions"
    write_functions(folder, BEFORE)
    assert kapso_sync("sync", str(folder), environment=environment).code == 0
    write_functions(folder, AFTER)
    kapso.edit("drifts", code=answering("hand-made"), deploy=True)
    kapso.control("POST", "/functions", {"function": {"slug": "stranger", "name": "S", "code": STRANGER}, "deployed": True})
    settle(kapso)
    kapso.forget_requests()
    return folder


def settle(kapso: Served) -> None:
    """Wait until no deployment runs; the emulator has no event for it, and each takes 20 ms."""
    deadline = time.monotonic() + 20
    while kapso.control("GET", "/state")["deployments"]:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def ids(kapso: Served) -> dict[str, str]:
    return {function.slug: function.id for function in kapso.world.functions.values()}


def polls(calls: list[str]) -> list[str]:
    """Leave out repeated looks at the list: how often a running deployment is looked at is a matter of time."""
    return [call for number, call in enumerate(calls) if call != "GET /functions" or calls[number - 1 : number] != [call]]


def test_the_mixed_plan_makes_every_api_call_that_gets_a_sigkill(
    kapso: Served, folder: Path, environment: Mapping[str, str]
) -> None:
    """No position in the list of calls is unused."""
    assert kapso_sync("sync", str(folder), environment=environment).code == 0
    assert polls(kapso.calls()) == list(CALLS)


@pytest.mark.e2e
@pytest.mark.parametrize("when", ["hang_before", "hang_after"])
@pytest.mark.parametrize(("call", "nth"), [(call, CALLS[: number + 1].count(call)) for number, call in enumerate(CALLS)])
def test_one_sync_after_a_sigkill_at_any_call_finishes_the_work(
    kapso: Served, folder: Path, environment: Mapping[str, str], call: str, nth: int, when: str
) -> None:
    """Remote and live code equal git's, ids stay, no function exists twice, and other owners' functions are untouched."""
    before = ids(kapso)
    method, route = call.split()
    kapso.faults({"what": when, "method": method, "route": route, "nth": nth})
    with started("sync", str(folder), environment=environment) as process:
        wait_for_hang(kapso, process.poll)
        process.send_signal(signal.SIGKILL)
        process.wait(20)
    kapso.control("POST", "/release")
    kapso.faults()
    last = kapso_sync("sync", str(folder), environment=environment)
    assert last.code == 0, last.out
    settle(kapso)
    live = {**AFTER, "stranger": STRANGER}
    assert kapso.world.live_code() == live
    assert {function.slug: function.code for function in kapso.world.functions.values()} == live
    assert {slug: ids(kapso)[slug] for slug in ("drifts", "grows", "stays", "stranger")} == {
        slug: before[slug] for slug in ("drifts", "grows", "stays", "stranger")
    }
    kapso.forget_requests()
    assert kapso_sync("sync", str(folder), environment=environment).code == 0
    assert kapso.calls() == ["GET /functions"]


def wait_for_hang(kapso: Served, exited: object) -> None:
    """Wait until the program hangs in the call at which it is killed."""
    assert callable(exited)
    deadline = time.monotonic() + 20
    while not kapso.control("GET", "/state")["hanging"]:
        assert exited() is None, "the sync ended before the call that was to be cut"
        assert time.monotonic() < deadline
        time.sleep(0.01)
