"""Secrets, invocations and workflows."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from kapso_sync.emulator.deployments import INTERRUPTED
from kapso_sync.emulator.options import Behaviour, EmulatorOptions
from kapso_sync.emulator.runtime import Call, Result
from tests.clock import VirtualClock
from tests.emulator.kapso import BROKEN, CODE, DELAY, Kapso, opened, until

NOT_DEPLOYED = {"error": "Function is not deployed"}
NO_CODE_RUNS = {"error": "This emulator does not run code"}


async def set_secret(kapso: Kapso, function_id: str, name: object, value: object) -> tuple[int, object]:
    """Set a secret; return the status and the body."""
    answer = await kapso.http.post(f"/functions/{function_id}/secrets", json={"secret": {"name": name, "value": value}})
    return answer.status_code, answer.json()


async def test_secret_list_shows_names_and_types_and_no_values(kapso: Kapso) -> None:
    """A value can be written and never read."""
    function_id = await kapso.deployed()
    assert await set_secret(kapso, function_id, "STRIPE_API_KEY", "s3cret") == (
        201,
        {"message": "Secret created successfully"},
    )
    answer = await kapso.http.get(f"/functions/{function_id}/secrets")
    assert answer.json() == {"data": [{"name": "STRIPE_API_KEY", "type": "text"}]}
    await kapso.behave(secrets_shape="object")
    answer = await kapso.http.get(f"/functions/{function_id}/secrets")
    assert answer.json() == {"data": {"secrets": [{"name": "STRIPE_API_KEY", "type": "text"}]}}
    assert kapso.emulator.world.function(function_id).secrets == {"STRIPE_API_KEY": "s3cret"}


async def test_secrets_need_a_deployed_function(kapso: Kapso) -> None:
    """The secret routes refuse a draft."""
    function_id = await kapso.create()
    assert await set_secret(kapso, function_id, "KEY", "v") == (422, NOT_DEPLOYED)
    assert (await kapso.http.get(f"/functions/{function_id}/secrets")).json() == {"data": []}
    answer = await kapso.http.delete(f"/functions/{function_id}/secrets/KEY")
    assert (answer.status_code, answer.json()) == (422, NOT_DEPLOYED)


@pytest.mark.parametrize(
    ("name", "value", "errors"),
    [
        ("lower", "v", {"name": ["is invalid"]}),
        ("A-B", "v", {"name": ["is invalid"]}),
        (None, "v", {"name": ["is invalid"]}),
        ("TAKEN", "v", {"name": ["has already been taken"]}),
        ("KEY", "", {"value": ["can't be blank"]}),
        ("KEY", 5, {"value": ["can't be blank"]}),
    ],
)
async def test_invalid_secrets_are_422(kapso: Kapso, name: object, value: object, errors: object) -> None:
    """Names are upper case, digits and underscores, and unique; a value is a text."""
    function_id = await kapso.deployed()
    await set_secret(kapso, function_id, "TAKEN", "v")
    assert await set_secret(kapso, function_id, name, value) == (422, {"errors": errors})


async def test_secret_changes_by_delete_and_create(kapso: Kapso) -> None:
    """A deleted name may be set again; an unknown one is 404; a deployment keeps the secrets."""
    function_id = await kapso.deployed()
    await set_secret(kapso, function_id, "KEY", "old")
    assert (await kapso.http.delete(f"/functions/{function_id}/secrets/KEY")).status_code == 204
    assert (await kapso.http.delete(f"/functions/{function_id}/secrets/KEY")).status_code == 404
    assert (await set_secret(kapso, function_id, "KEY", "new"))[0] == 201
    await kapso.deploy(function_id)
    await kapso.clock.sleep(DELAY)
    assert kapso.emulator.world.function(function_id).secrets == {"KEY": "new"}


async def test_invoke_without_a_runtime_is_501(kapso: Kapso) -> None:
    """The emulator says that it runs no code, and records the invocation."""
    function_id = await kapso.deployed()
    answer = await kapso.http.post(f"/functions/{function_id}/invoke", json={"order": 1})
    assert (answer.status_code, answer.json()) == (501, NO_CODE_RUNS)
    listed = (await kapso.http.get(f"/functions/{function_id}/invocations")).json()["data"]
    (item,) = listed["invocations"]
    assert (item["status_code"], item["request_body"]) == (501, {"order": 1})
    assert (listed["function_id"], listed["function_name"], listed["total"]) == (function_id, "Hello", 1)


async def test_invoke_without_the_key_is_404_for_private_functions(kapso: Kapso) -> None:
    """Private, unknown and undeployed private functions are all 404; public ones answer."""
    private, draft = await kapso.deployed("private"), await kapso.create("draft")
    public = await kapso.deployed("public", public_endpoint=True)
    for function_id, status in ((private, 404), (draft, 404), ("unknown", 404), (public, 501)):
        answer = await kapso.http.post(f"/functions/{function_id}/invoke", json={}, headers={"X-API-Key": "wrong"})
        assert answer.status_code == status
    draft_answer = await kapso.http.post(f"/functions/{draft}/invoke", json={})
    assert (draft_answer.status_code, draft_answer.json()) == (422, NOT_DEPLOYED)


async def test_invoke_uses_the_deployed_public_endpoint_field(kapso: Kapso) -> None:
    """``public_endpoint`` takes effect with the deployment, not with the save."""
    function_id = await kapso.deployed()
    await kapso.update(function_id, public_endpoint=True)
    for expected in (404, 501):
        answer = await kapso.http.post(f"/functions/{function_id}/invoke", json={}, headers={"X-API-Key": ""})
        assert answer.status_code == expected
        await kapso.deploy(function_id)
        await kapso.clock.sleep(DELAY)


class Echo:
    """A runtime that answers what it was called with, and takes any code but broken code."""

    async def check(self, slug: str, code: str) -> str | None:
        return f"{slug} is broken" if code == BROKEN else None

    def forget(self) -> None:
        """Keep nothing."""

    async def run(self, call: Call) -> Result:
        text = f"{call.code == CODE} {call.secrets} {call.content_type} ".encode()
        return Result(418 if call.body == b'"teapot"' else 200, text + call.body if call.body != b"{}" else b'{"ok":true}')


async def test_a_runtime_gets_live_code_secrets_and_request() -> None:
    """Its response is passed through, or wrapped."""
    async with opened(runtime=Echo()) as kapso:
        await kapso.behave(invoke_failure="passthrough", invoke_mode_in_create=True)
        function_id = await kapso.deployed()
        await set_secret(kapso, function_id, "KEY", "v")
        await kapso.update(function_id, code="const not_live = 1;")
        answer = await kapso.http.post(f"/functions/{function_id}/invoke", json="teapot")
        assert (answer.status_code, answer.text) == (418, "True {'KEY': 'v'} application/json \"teapot\"")
        wrapped = await kapso.deployed("wrapped", invoke_response_mode="wrapped")
        answer = await kapso.http.post(f"/functions/{wrapped}/invoke", json={})
        assert answer.json() == {"data": {"ok": True}}
        answer = await kapso.http.post(f"/functions/{wrapped}/invoke", json=1)
        assert answer.json() == {"data": "True {} application/json 1"}
        await kapso.http.post(f"/functions/{function_id}/invoke", json={})
        for query, statuses in (("", [200, 418]), ("?status=failed", [418]), ("?status=success", [200]), ("?limit=1", [200])):
            listed = (await kapso.http.get(f"/functions/{function_id}/invocations{query}")).json()["data"]["invocations"]
            assert [item["status_code"] for item in listed] == statuses


async def test_deployment_of_code_that_the_runtime_refuses_ends_in_error() -> None:
    """With the runtime's message; Supabase code is not checked by it."""
    async with opened(runtime=Echo()) as kapso:
        bad = await kapso.deployed("bad", BROKEN)
        deno = await kapso.deployed("deno", BROKEN, function_type="supabase_function")
        assert (await kapso.record(bad))["status"] == "error"
        assert kapso.emulator.world.function(bad).failure == "bad is broken"
        assert (await kapso.record(deno))["status"] == "deployed"
        answer = await kapso.http.post(f"/functions/{deno}/invoke", json={})
        assert (answer.status_code, answer.json()) == (501, {"error": "This emulator does not run Supabase functions"})


class Slow(Echo):
    """A runtime whose check of code takes until the test releases it."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()

    async def check(self, slug: str, code: str) -> str | None:
        await self.go_on.wait()
        return await super().check(slug, code)


async def test_deployment_waits_for_the_runtimes_check(tmp_path: Path) -> None:
    """However late that is; a check that the emulator's own end interrupts has failed."""
    options, clock, runtime = EmulatorOptions(data=tmp_path, deploy_delay=DELAY), VirtualClock(), Slow()
    async with opened(options, clock=clock, runtime=runtime) as kapso:
        function_id = await kapso.create()
        deploying = asyncio.create_task(kapso.deploy(function_id))
        await until(lambda: kapso.emulator.world.deployments)
        await clock.sleep(3 * DELAY)
        assert (await kapso.record(function_id))["status"] == "draft"
        runtime.go_on.set()
        await deploying
        record = await kapso.record(function_id)
        assert (record["status"], record["last_deployed_at"]) == ("deployed", "2026-01-01T00:00:30.000000Z")
        runtime.go_on.clear()
        deploying = asyncio.create_task(kapso.deploy(function_id))
        await until(lambda: kapso.emulator.world.deployments)
    await asyncio.gather(deploying, return_exceptions=True)
    await clock.sleep(DELAY)
    async with opened(options, clock=clock) as kapso:
        assert (await kapso.record(function_id))["status"] == "error"
        assert kapso.emulator.world.function(function_id).failure == INTERRUPTED


async def test_edge_stale_invokes_former_code_for_a_while() -> None:
    """Former code and fields are used until the time is over; a first deployment has no former code."""
    options = EmulatorOptions(deploy_delay=DELAY, behaviour=Behaviour(edge_stale=12.0))
    async with opened(options, runtime=Echo()) as kapso:
        function_id = await kapso.deployed(public_endpoint=True)
        answers = []

        async def ask() -> None:
            answer = await kapso.http.post(f"/functions/{function_id}/invoke", json="x", headers={"X-API-Key": ""})
            answers.append((answer.status_code, answer.text[:5]))

        await ask()
        await kapso.update(function_id, code="const other = 1;", public_endpoint=False)
        await kapso.deploy(function_id)
        await kapso.clock.sleep(DELAY)
        assert (await kapso.record(function_id))["status"] == "deployed"
        await ask()
        await kapso.clock.sleep(11.9)
        await ask()
        await kapso.clock.sleep(0.1)
        await ask()
        assert [status for status, _ in answers] == [200, 200, 200, 404]
        assert {text for status, text in answers if status == 200} == {"True "}
        answer = await kapso.http.post(f"/functions/{function_id}/invoke", json="x")
        assert answer.text.startswith("False ")


async def test_function_does_not_receive_the_api_key_header() -> None:
    """Other headers of the client arrive, a signature for instance."""
    calls: list[Call] = []

    class Noting(Echo):
        async def run(self, call: Call) -> Result:
            calls.append(call)
            return Result(200, b"", "", console=(("log", "noted"),))

    async with opened(runtime=Noting()) as kapso:
        function_id = await kapso.deployed()
        answer = await kapso.http.post(f"/functions/{function_id}/invoke?a=1", content=b"x", headers={"X-Signature": "abc"})
        assert (answer.status_code, "content-type" in answer.headers) == (200, False)
        (call,) = calls
        assert call.url == f"{kapso.emulator.base('/platform/v1')}/functions/{function_id}/invoke?a=1"
        assert call.headers["x-signature"] == "abc"
        assert not {"x-api-key", "host", "content-length"} & set(call.headers)
        entry = (await kapso.control("GET", "/requests")).json()["requests"][-1]
        assert entry["console"] == [["log", "noted"]]


async def test_the_invocation_log_is_bounded(kapso: Kapso) -> None:
    """The latest 200 are kept."""
    function = kapso.emulator.world.function(await kapso.deployed())
    for number in range(205):
        kapso.emulator.world.record_invocation(function, number, 200)
    assert [item.request_body for item in kapso.emulator.world.invocations(function.id)] == list(range(204, 4, -1))


async def test_workflow_definitions_show_their_nodes(kapso: Kapso) -> None:
    """The list has no definitions; each definition has its nodes under ``data.definition.nodes``."""
    nodes = [{"id": "n1", "data": {"node_type": "function", "config": {"function_id": "abc"}}}]
    seeded = await kapso.control("POST", "/workflows", {"workflow": {"name": "Orders", "definition": {"nodes": nodes}}})
    workflow_id = seeded.json()["id"]
    (listed,) = (await kapso.http.get("/workflows")).json()["data"]
    assert (listed["id"], listed["name"]) == (workflow_id, "Orders")
    assert "definition" not in listed
    answer = await kapso.http.get(f"/workflows/{workflow_id}/definition")
    assert answer.json() == {"data": {"id": workflow_id, "definition": {"nodes": nodes}}}
    assert (await kapso.http.get("/workflows/unknown/definition")).status_code == 404
    await kapso.behave(workflows="none")
    assert (await kapso.http.get("/workflows")).status_code == 404
