"""The control API: inspect and change the emulator's state without the Functions API."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from kapso_sync.emulator.control import Control
from kapso_sync.emulator.options import Behaviour, BehaviourInvalid
from tests.emulator.kapso import BROKEN, CODE, DELAY, Kapso, until


async def requests(kapso: Kapso, query: str = "") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await kapso.control("GET", f"/requests{query}")).json()["requests"]
    return found


async def test_request_log_records_each_api_request(kapso: Kapso) -> None:
    """In order, with route template, query, status, size and body; control requests are not in it."""
    await kapso.http.get("/functions", params={"page": "2"})
    function_id = await kapso.create()
    await kapso.http.get("/nowhere", headers={"X-API-Key": "wrong"})
    first, second, third = await requests(kapso)
    assert [item["seq"] for item in (first, second, third)] == [1, 2, 3]
    assert (first["method"], first["path"], first["base"]) == ("GET", "/platform/v1/functions", "/platform/v1")
    assert (first["route"], first["query"], first["status"]) == ("/functions", {"page": "2"}, 200)
    assert (first["size"], first["body"], first["fault"], first["key_ok"]) == (0, None, None, True)
    assert first["time"] == "2026-01-01T00:00:00.000000Z"
    assert second["body"]["function"]["code"] == CODE
    assert (second["status"], second["size"] > len(CODE)) == (201, True)
    assert (third["route"], third["status"], third["key_ok"]) == (None, 401, False)
    await kapso.record(function_id)
    (last,) = await requests(kapso, "?since=3")
    assert (last["seq"], last["route"]) == (4, "/functions/{id}")
    assert (await kapso.control("GET", "/requests?since=x")).status_code == 400
    assert (await kapso.control("DELETE", "/requests")).status_code == 204
    assert await requests(kapso) == []


async def test_control_state_shows_live_code_secret_names_and_deployments(kapso: Kapso) -> None:
    """Live code and fields, names of secrets, failures, and running deployments."""
    function_id = await kapso.deployed()
    await kapso.http.post(f"/functions/{function_id}/secrets", json={"secret": {"name": "KEY", "value": "v"}})
    await kapso.update(function_id, code=BROKEN, public_endpoint=True)
    await kapso.deploy(function_id)
    state = (await kapso.control("GET", "/state")).json()
    (function,) = state["functions"]
    record = await kapso.record(function_id)
    assert {name: function[name] for name in record} == record
    assert (function["code"], function["live_code"]) == (BROKEN, CODE)
    assert function["secrets"] == {"KEY": {"type": "text", "updated_at": "2026-01-01T00:00:10.000000Z"}}
    assert function["live_fields"]["public_endpoint"] is False
    (deployment,) = state["deployments"]
    assert (deployment["function_id"], deployment["code"]) == (function_id, BROKEN)
    await kapso.clock.sleep(DELAY)
    state = (await kapso.control("GET", "/state")).json()
    assert (state["functions"][0]["live_code"], state["deployments"]) == (None, [])
    assert state["functions"][0]["failure"].startswith("syntax error")


async def test_dashboard_edit_moves_updated_at(kapso: Kapso) -> None:
    """An edit by slug or id changes any attribute, the slug too, whatever the API itself allows; it deploys when asked to."""
    function_id = await kapso.deployed()
    before = await kapso.record(function_id)
    await kapso.behave(slug_changes=False)
    edit = {"function": {"code": "const drift = 1;", "slug": "moved", "description": "by hand"}}
    answer = await kapso.control("PATCH", "/functions/hello", edit)
    after = await kapso.record(function_id)
    assert answer.status_code == 200
    assert (after["slug"], after["code"], after["description"]) == ("moved", "const drift = 1;", "by hand")
    assert after["updated_at"] > before["updated_at"]
    assert kapso.live("moved") == CODE
    await kapso.control("PATCH", f"/functions/{function_id}", {"deploy": True})
    await kapso.clock.sleep(DELAY)
    assert kapso.live("moved") == "const drift = 1;"


async def test_control_api_seeds_and_deletes_functions(kapso: Kapso) -> None:
    """A seed may have an id and secrets, and may be live at once; the dashboard may delete."""
    attributes = {"id": "function-123abc", "name": "Old One", "code": CODE}
    answer = await kapso.control("POST", "/functions", {"function": attributes, "deployed": True, "secrets": {"KEY": "v"}})
    assert answer.status_code == 201
    assert (await kapso.record("function-123abc"))["status"] == "deployed"
    assert kapso.emulator.world.function("old-one").secrets == {"KEY": "v"}
    draft = await kapso.control("POST", "/functions", {"function": {"name": "Draft", "code": CODE}})
    assert draft.json()["status"] == "draft"
    again = await kapso.control("POST", "/functions", {"function": attributes | {"slug": "other"}})
    assert (again.status_code, again.json()) == (422, {"errors": {"id": ["has already been taken"]}})
    assert (await kapso.control("DELETE", "/functions/old-one")).status_code == 204
    assert (await kapso.control("DELETE", "/functions/old-one")).status_code == 404


async def test_edit_beyond_the_quota_is_422(kapso: Kapso) -> None:
    """The quota applies to the dashboard too."""
    await kapso.behave(quota=0)
    await kapso.create()
    assert (await kapso.control("PATCH", "/functions/hello", {"deploy": True})).status_code == 422


async def test_behaviour_changes_at_run_time(kapso: Kapso) -> None:
    """Only the named switches change; delay and quota are among the switches."""
    await kapso.behave(slug_changes=False, deploy_delay=[1, 2], quota=3)
    shown = (await kapso.control("GET", "/behaviour")).json()
    assert (shown["slug_changes"], shown["deploy_delay"], shown["quota"], shown["list_code"]) == (False, [1, 2], 3, True)
    function_id = await kapso.create()
    assert (await kapso.update(function_id, slug="new")).json()["data"]["slug"] == "hello"
    await kapso.deploy(function_id)
    await kapso.clock.sleep(0.9)
    assert kapso.live() is None
    await kapso.clock.sleep(1.1)
    assert kapso.live() == CODE


@pytest.mark.parametrize(
    ("mode", "code", "stored"),
    [
        ("rstrip", "x = 1;\r\n \n", "x = 1;"),
        ("newlines", "x = 1;\r\ny = 2;\r\n", "x = 1;\ny = 2;\n"),
        ("off", "x \r\n", "x \r\n"),
    ],
)
async def test_server_normalises_code_when_configured(kapso: Kapso, mode: str, code: str, stored: str) -> None:
    """Create and update store the code as the behaviour changes it."""
    await kapso.behave(normalise_code=mode)
    function_id = await kapso.create(code=code)
    assert (await kapso.record(function_id))["code"] == stored
    assert (await kapso.update(function_id, code="const other = 1;" + code)).json()["data"][
        "code"
    ] == "const other = 1;" + stored


async def test_failed_deployment_leaves_updated_at_unchanged_when_configured(kapso: Kapso) -> None:
    """With this behaviour a second failure cannot be seen in the record."""
    await kapso.behave(error_moves_updated_at=False)
    function_id = await kapso.deployed(code=BROKEN)
    record = await kapso.record(function_id)
    assert (record["status"], record["updated_at"]) == ("error", record["created_at"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"colour": 1}, "unknown switch 'colour'"),
        ({"list_code": 1}, "switch list_code: expected true or false, got 1"),
        ({"page_size": 0}, "switch page_size: expected a whole number above 0, got 0"),
        ({"secrets_shape": "cube"}, "switch secrets_shape: expected one of list, object, got 'cube'"),
        ({"deploy_delay": [2, 1]}, "behaviour deploy_delay: expected seconds, or a range such as [10, 60], got [2, 1]"),
        ({"deploy_delay": "x", "list_code": False}, "behaviour deploy_delay: expected seconds"),
        ({"quota": -1}, "behaviour quota: expected a whole number or null, got -1"),
    ],
)
async def test_invalid_behaviour_is_refused_and_changes_nothing(kapso: Kapso, changes: dict[str, object], message: str) -> None:
    """The error names the field."""
    answer = await kapso.control("PUT", "/behaviour", changes)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(message)
    assert kapso.emulator.world.behaviour == Behaviour()


def test_a_list_as_a_behaviour_choice_is_refused() -> None:
    """It raises no TypeError."""
    with pytest.raises(BehaviourInvalid):
        Behaviour().changed({"quota_answer": []})


async def test_put_faults_replaces_all_fault_rules(kapso: Kapso) -> None:
    """An invalid rule leaves the old ones in force."""
    await kapso.faults({"what": "status", "nth": 5})
    answer = await kapso.control("PUT", "/faults", {"faults": [{"what": "explode"}]})
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("faults[0].what: expected one of")
    assert (await kapso.control("GET", "/faults")).json() == {"faults": [{"what": "status", "nth": 5}]}


@pytest.mark.parametrize(
    ("method", "path", "content"),
    [
        ("POST", "/functions", b"{"),
        ("PUT", "/faults", b"[]"),
        ("POST", "/functions", b"{}"),
        ("POST", "/workflows", b'{"workflow": 1}'),
    ],
)
async def test_unreadable_control_requests_are_400(kapso: Kapso, method: str, path: str, content: bytes) -> None:
    """Each error says what is wrong."""
    headers = {**kapso.emulator.control_headers, "Content-Type": "application/json"}
    answer = await kapso.http.request(method, f"{kapso.emulator.url}/_emulator{path}", content=content, headers=headers)
    assert answer.status_code == 400
    assert answer.json()["error"]


async def test_control_needs_no_key_and_costs_nothing(kapso: Kapso) -> None:
    """No key, no rate limit, no fault."""
    await kapso.faults({"what": "status"})
    answer = await kapso.control("GET", "/state")
    assert answer.status_code == 200
    assert "X-RateLimit-Limit" not in answer.headers


async def test_control_api_answers_on_loopback_only(kapso: Kapso) -> None:
    """A client on another host gets an error, whatever it requests."""
    app, headers = Control(kapso.emulator.parts, ()).app("token"), {"X-Emulator-Token": "token"}
    for address, status in (("127.0.0.1", 200), ("10.0.0.7", 403)):
        transport = httpx.ASGITransport(app, client=(address, 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://emulator", headers=headers) as http:
            assert (await http.get("/state")).status_code == status


async def test_reset_restores_the_initial_state(kapso: Kapso) -> None:
    """Functions, workflows, log, faults, behaviour and rate limit; hanging requests are released."""
    await kapso.deploy(await kapso.create())
    await kapso.control("POST", "/workflows", {"workflow": {"definition": {"nodes": []}}})
    await kapso.behave(list_code=False, quota=1)
    await kapso.faults({"what": "hang_before"})
    hung = asyncio.create_task(kapso.http.get("/functions"))
    await until(lambda: kapso.emulator.parts.hangs.waiting)
    assert (await kapso.control("POST", "/reset")).status_code == 204
    (failure,) = await asyncio.gather(hung, return_exceptions=True)
    assert isinstance(failure, httpx.TransportError)
    state = (await kapso.control("GET", "/state")).json()
    assert (state["functions"], state["deployments"], state["workflows"]) == ([], [], [])
    answer = await kapso.http.get("/functions")
    assert (answer.json(), answer.headers["X-RateLimit-Remaining"]) == ({"data": []}, "999")
    world = kapso.emulator.world
    assert (world.behaviour, world.quota) == (Behaviour(), None)
    assert len(await requests(kapso)) == 1
