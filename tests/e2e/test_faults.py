"""Every transient fault on every call of a sync: it converges in the same or the next sync, with the documented exit code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from kapso_sync.errors import ExitCode
from tests.program import answering, kapso_sync, write_functions
from tests.served import Served, served

ROUTES = (
    "GET /functions",
    "POST /functions",
    "PATCH /functions/{id}",
    "POST /functions/{id}/deploy",
    "GET /workflows",
    "GET /whatsapp/flows",
    "GET /whatsapp/webhooks",
    "GET /functions/{id}/invocations",
    "GET /functions/{id}/secrets",
    "GET /functions/{id}",
    "DELETE /functions/{id}",
)
FAULTS: tuple[Mapping[str, object], ...] = (
    {"what": "status", "status": 500},
    {"what": "status", "status": 502, "when": "after"},
    {"what": "status", "status": 503, "headers": {"Retry-After": "0"}},
    {"what": "status", "status": 429, "headers": {"Retry-After": "0"}},
    {"what": "status", "status": 408},
    {"what": "html"},
    {"what": "html", "when": "after"},
    {"what": "drop_before"},
    {"what": "drop_after"},
    {"what": "hang_before"},
    {"what": "hang_after"},
    {"what": "drip", "seconds": 0.2},
    {"what": "truncate"},
    {"what": "garbage"},
    {"what": "redirect", "location": "http://127.0.0.1:9/elsewhere"},
    {"what": "deploy_fails"},
)
BEFORE = {"grows": answering("1"), "leaves": answering("1")}
AFTER = {"grows": answering("2"), "joins": answering("3")}
DOCUMENTED = {ExitCode.OK, ExitCode.FUNCTION_FAILED, ExitCode.UNAVAILABLE}


@pytest.fixture(scope="module")
def shared() -> Iterator[Served]:
    with served() as running:
        yield running


@pytest.fixture
def kapso(shared: Served) -> Served:
    shared.control("POST", "/reset")
    return shared


def name_of(fault: Mapping[str, object]) -> str:
    return "-".join(str(value) for key, value in fault.items() if key not in ("headers", "location", "seconds"))


@pytest.mark.e2e
@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("fault", FAULTS, ids=name_of)
def test_a_transient_api_fault_converges_by_the_next_sync(
    kapso: Served, tmp_path: Path, route: str, fault: Mapping[str, object]
) -> None:
    """The live code equals git, no function exists twice, and a plan afterwards is empty."""
    environment = {
        **kapso.environment(tmp_path / "state"),
        "KAPSO_SYNC_OWNER": "acme/flows",
        "KAPSO_SYNC_PRUNE": "true",
        "KAPSO_SYNC_MAX_DELETE": "1",
        "KAPSO_SYNC_REQUEST_TIMEOUT": "400ms",
        "KAPSO_SYNC_DEPLOY_TIMEOUT": "2s",
    }
    folder = tmp_path / "functions"
    write_functions(folder, BEFORE)
    assert kapso_sync("sync", str(folder), environment=environment).code == 0
    write_functions(folder, AFTER)
    method, path = route.split()
    kapso.faults({"method": method, "route": path, "nth": 1, **fault})
    first = kapso_sync("sync", str(folder), environment=environment)
    kapso.control("POST", "/release")
    kapso.faults()
    assert first.code in DOCUMENTED, first.err
    assert "Traceback" not in first.err
    if first.code != 0:
        second = kapso_sync("sync", str(folder), environment=environment)
        assert second.code == 0, second.out + second.err
    assert kapso.world.live_code() == AFTER
    assert len(kapso.world.functions) == len(AFTER)
    assert kapso_sync("plan", str(folder), "--detailed-exitcode", environment=environment).code == 0


def test_a_sync_calls_every_route_that_gets_a_fault(kapso: Served, tmp_path: Path) -> None:
    """No fault waits for a call that never comes."""
    environment = {**kapso.environment(tmp_path / "state"), "KAPSO_SYNC_OWNER": "acme/flows", "KAPSO_SYNC_PRUNE": "true"}
    write_functions(tmp_path / "functions", BEFORE)
    assert kapso_sync("sync", str(tmp_path / "functions"), environment=environment).code == 0
    write_functions(tmp_path / "functions", AFTER)
    kapso.forget_requests()
    assert kapso_sync("sync", str(tmp_path / "functions"), environment=environment).code == 0
    assert set(kapso.calls()) == set(ROUTES)
