"""Each switch of the emulator's API behaviour changes the one thing that it names, and nothing else."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from kapso_sync.emulator.options import Behaviour, BehaviourInvalid
from tests.emulator.kapso import CODE, DELAY, Kapso
from tests.emulator.switches import switch_rows

MODULE = "export default { fetch() { return new Response('hi'); } }\n"
ROOT = Path(__file__).parents[2]


async def put_secret(kapso: Kapso, function_id: str, name: str, value: object) -> int:
    answer = await kapso.http.post(f"/functions/{function_id}/secrets", json={"secret": {"name": name, "value": value}})
    return answer.status_code


async def names(kapso: Kapso, function_id: str) -> dict[str, str]:
    answer = await kapso.http.get(f"/functions/{function_id}/secrets")
    return {item["name"]: item["type"] for item in answer.json()["data"]}


async def redeploy(kapso: Kapso, function_id: str) -> str:
    await kapso.deploy(function_id)
    await kapso.clock.sleep(DELAY)
    return str((await kapso.record(function_id))["status"])


def test_documentation_lists_every_switch() -> None:
    """The table in the docs is generated from the switches."""
    text = (ROOT / "docs" / "emulator.md").read_text(encoding="utf-8")
    (worlds,) = (part for part in text.split("\n## ") if part.startswith("Worlds\n"))
    assert [line for line in worlds.splitlines() if line.startswith("| `")] == list(switch_rows())


@pytest.mark.parametrize(("kept", "after"), [("keep", {"KEY": "text"}), ("drop", {})])
async def test_deployments_keep_or_drop_secrets(kapso: Kapso, kept: str, after: dict[str, str]) -> None:
    """Inherited secrets stay with both values of the switch."""
    await kapso.behave(secrets_on_deploy=kept, inherited_secrets=["SHARED"])
    function_id = await kapso.deployed()
    assert await put_secret(kapso, function_id, "KEY", "v") == 201
    assert await redeploy(kapso, function_id) == "deployed"
    assert await names(kapso, function_id) == {"SHARED": "inherited", **after}


async def test_an_existing_secret_is_refused_or_overwritten(kapso: Kapso) -> None:
    """The refusal calls the name taken; an inherited name can be set by the function."""
    function_id = await kapso.deployed()
    await kapso.behave(inherited_secrets=["KEY"])
    assert await put_secret(kapso, function_id, "KEY", "v") == 201
    assert await names(kapso, function_id) == {"KEY": "text"}
    assert await put_secret(kapso, function_id, "KEY", "w") == 422
    await kapso.behave(post_of_existing="overwrite")
    assert await put_secret(kapso, function_id, "KEY", {"a": [1]}) == 201
    assert kapso.emulator.world.function(function_id).secrets == {"KEY": {"a": [1]}}
    assert await names(kapso, function_id) == {"KEY": "json"}


async def test_a_change_of_slug_may_lose_secrets_at_the_next_deployment(kapso: Kapso) -> None:
    """Another deployment under the same slug loses nothing."""
    await kapso.behave(slug_change_loses_secrets=True)
    function_id = await kapso.deployed()
    await put_secret(kapso, function_id, "KEY", "v")
    await redeploy(kapso, function_id)
    assert await names(kapso, function_id) == {"KEY": "text"}
    await kapso.update(function_id, slug="other")
    assert await names(kapso, function_id) == {"KEY": "text"}
    await redeploy(kapso, function_id)
    assert await names(kapso, function_id) == {}


async def test_secret_routes_fail_when_configured(kapso: Kapso) -> None:
    """With Cloudflare's page; other routes answer."""
    function_id = await kapso.deployed()
    await kapso.behave(secret_routes_fail=True)
    assert await put_secret(kapso, function_id, "KEY", "v") == 502
    assert (await kapso.http.get(f"/functions/{function_id}")).status_code == 200


@pytest.mark.parametrize(
    ("lock", "moves"), [("absent", None), ("update", [0, 1, 1]), ("deploy", [0, 1, 2]), ("refused", [0, 1, 1])]
)
async def test_lock_version_increases_as_configured(kapso: Kapso, lock: str, moves: list[int] | None) -> None:
    """Shown or not; after a create, an update and a deployment."""
    await kapso.behave(lock_version=lock)
    function_id = await kapso.create()
    seen: list[int | None] = [(await kapso.record(function_id)).get("lock_version")]
    await kapso.update(function_id, description="new")
    seen.append((await kapso.record(function_id)).get("lock_version"))
    await redeploy(kapso, function_id)
    seen.append((await kapso.record(function_id)).get("lock_version"))
    assert seen == (moves if moves is not None else [None, None, None])


async def test_a_stale_lock_version_is_a_conflict(kapso: Kapso) -> None:
    """Nothing is saved; the current version is accepted; without a version every update is."""
    function_id = await kapso.create()
    await kapso.update(function_id, description="theirs")
    assert (await kapso.update(function_id, description="ours", lock_version=0)).status_code == 409
    assert (await kapso.record(function_id))["description"] == "theirs"
    assert (await kapso.update(function_id, description="ours", lock_version=1)).status_code == 200
    await kapso.behave(lock_version="refused")
    refused = await kapso.update(function_id, description="x", lock_version=2)
    assert (refused.status_code, "lock_version" in refused.text) == (422, True)


async def test_fields_that_the_api_ignores_keep_their_value(kapso: Kapso) -> None:
    """200, and the old value."""
    await kapso.behave(keeps_public_endpoint=False, takes_wrapped=False, unknown_fields=["runtime_config"])
    function_id = await kapso.create(public_endpoint=True, invoke_response_mode="wrapped")
    answer = await kapso.update(
        function_id,
        public_endpoint=True,
        function_type="supabase_function",
        invoke_response_mode="wrapped",
        runtime_config={"timeout": 3},
    )
    record = answer.json()["data"]
    assert (answer.status_code, record["public_endpoint"], record["function_type"]) == (200, False, "cloudflare_worker")
    assert (record["invoke_response_mode"], "runtime_config" in record) == ("passthrough", False)
    await kapso.behave(keeps_public_endpoint=True, takes_wrapped=True, function_type_in_update="take", unknown_fields=[])
    record = (await kapso.update(function_id, public_endpoint=True, invoke_response_mode="wrapped")).json()["data"]
    assert (record["public_endpoint"], record["invoke_response_mode"]) == (True, "wrapped")


async def test_a_create_without_function_type_is_422_unless_configured(kapso: Kapso) -> None:
    """The error names the attribute."""
    body = {"function": {"name": "x", "slug": "x", "code": CODE}}
    refused = await kapso.http.post("/functions", json=body)
    assert (refused.status_code, refused.json()) == (422, {"errors": {"function_type": ["can't be blank"]}})
    await kapso.behave(function_type_required=False)
    assert (await kapso.http.post("/functions", json=body)).status_code == 201


@pytest.mark.parametrize(
    ("switch", "module", "script"), [("module_code", "error", "deployed"), ("script_code", "deployed", "error")]
)
async def test_deployments_of_one_code_style_end_in_error_when_configured(
    kapso: Kapso, switch: str, module: str, script: str
) -> None:
    """Supabase functions are of neither style."""
    await kapso.behave(**{switch: "error"})
    found = [(await kapso.record(await kapso.deployed(slug, code)))["status"] for slug, code in (("m", MODULE), ("s", CODE))]
    assert found == [module, script]
    deno = await kapso.deployed("deno", MODULE, function_type="supabase_function")
    assert (await kapso.record(deno))["status"] == "deployed"


async def test_code_above_the_limit_is_refused(kapso: Kapso) -> None:
    """A megabyte is 10^6 bytes, or 2^20."""
    code = "//" + "x" * 1_000_000
    function_id = await kapso.create(code=code)
    await kapso.behave(code_limit=1_000_000)
    assert (await kapso.update(function_id, code=code + "x")).status_code == 422


async def test_workflows_are_at_one_of_two_routes_or_404(kapso: Kapso) -> None:
    """On the platform base alone, unless the switch says both."""
    kapso.emulator.world.add_workflow("Orders", {"nodes": []}, status="archived")

    async def statuses() -> dict[str, int]:
        urls = [kapso.emulator.base(base) + route for base in ("/platform/v1", "/api/v1") for route in ("/workflows", "/flows")]
        return {url.removeprefix(kapso.emulator.url): (await kapso.http.get(url)).status_code for url in urls}

    found = await statuses()
    assert {path for path, status in found.items() if status == 200} == {"/platform/v1/workflows"}
    await kapso.behave(workflows="flows")
    assert {path for path, status in (await statuses()).items() if status == 200} == {"/platform/v1/flows", "/api/v1/flows"}
    await kapso.behave(workflows="none")
    assert set((await statuses()).values()) == {404}


async def test_flows_and_webhooks_are_paginated(kapso: Kapso) -> None:
    """20 on each page; the headers agree with ``meta``."""
    for number in range(25):
        await kapso.control("POST", "/whatsapp/flows", {"flow": {"name": f"Flow {number}", "function_id": "id-1"}})
    await kapso.control("POST", "/whatsapp/webhooks", {"webhook": {"url": "https://example.com/hook"}})
    first = await kapso.http.get("/whatsapp/flows")
    assert first.json()["meta"] == {"page": 1, "per_page": 20, "total_pages": 2, "total_count": 25}
    assert (first.headers["X-Total"], first.headers["X-Total-Pages"]) == ("25", "2")
    second = await kapso.http.get("/whatsapp/flows", params={"page": "2"})
    assert [len(page.json()["data"]) for page in (first, second)] == [20, 5]
    assert len((await kapso.http.get("/whatsapp/webhooks")).json()["data"]) == 1
    await kapso.behave(whatsapp=False)
    assert (await kapso.http.get("/whatsapp/flows")).status_code == 404


async def test_a_flow_is_attached_to_another_deployed_function(kapso: Kapso) -> None:
    """A draft is refused."""
    flow = (await kapso.control("POST", "/whatsapp/flows", {"flow": {"name": "Orders"}})).json()
    live, draft = await kapso.deployed(), await kapso.create("draft")
    path = f"/whatsapp/flows/{flow['id']}/data_endpoint"
    assert (await kapso.http.patch(path, json={"function_id": draft})).status_code == 422
    answer = await kapso.http.patch(path, json={"function_id": live})
    assert answer.json()["data"]["data_endpoint_function_id"] == live


async def test_a_deleted_function_leaves_null_in_workflows(kapso: Kapso) -> None:
    """Its invocations stay, and its id is not used again."""
    function_id = await kapso.deployed()
    workflow = kapso.emulator.world.add_workflow("Orders", {"nodes": [{"data": {"config": {"function_id": function_id}}}]})
    kapso.emulator.world.record_invocation(kapso.emulator.world.function(function_id), {}, 200)
    assert (await kapso.http.delete(f"/functions/{function_id}")).status_code == 204
    definition = kapso.emulator.world.workflows[workflow.id].definition
    assert definition == {"nodes": [{"data": {"config": {"function_id": None}}}]}
    assert len(kapso.emulator.world.invocations(function_id)) == 1
    assert await kapso.deployed() != function_id


async def test_a_blocked_user_agent_gets_a_403(kapso: Kapso) -> None:
    """Plain text, as from Cloudflare; another agent is served."""
    await kapso.behave(blocked_user_agents="python-httpx")
    answer = await kapso.http.get("/functions")
    assert (answer.status_code, answer.headers["content-type"]) == (403, "text/plain; charset=UTF-8")
    assert (await kapso.http.get("/functions", headers={"User-Agent": "curl/8"})).status_code == 200


async def test_errors_quote_the_request_when_configured(kapso: Kapso) -> None:
    """The value of a secret is then in the error."""
    function_id = await kapso.deployed()
    secret = {"secret": {"name": "bad-name", "value": "s3cret-value"}}
    assert "s3cret-value" not in (await kapso.http.post(f"/functions/{function_id}/secrets", json=secret)).text
    await kapso.behave(errors_quote=True)
    assert "s3cret-value" in (await kapso.http.post(f"/functions/{function_id}/secrets", json=secret)).text


async def test_the_deployed_status_is_active_when_configured(kapso: Kapso) -> None:
    """Nothing else changes."""
    await kapso.behave(status_word="active")
    function_id = await kapso.deployed()
    assert (await kapso.record(function_id))["status"] == "active"


@pytest.mark.parametrize(("old_count", "status"), [(True, 422), (False, 202)])
async def test_the_quota_counts_script_names(kapso: Kapso, old_count: bool, status: int) -> None:
    """A known name may always be deployed; a former slug's script counts, or does not."""
    await kapso.behave(script_cap=2, old_scripts_count=old_count)
    first, _ = await kapso.deployed("one"), await kapso.deployed("two")
    third = await kapso.create("three")
    refused = await kapso.deploy(third)
    assert (refused.status_code, "distinct Worker scripts" in refused.text) == (422, True)
    assert (await kapso.deploy(first)).status_code in (200, 202)
    await kapso.http.delete(f"/functions/{first}")
    await kapso.deployed("four")
    await kapso.update(third, slug="renamed")
    assert (await kapso.deploy(third)).status_code == 422
    two = kapso.emulator.world.function("two")
    await kapso.update(two.id, slug="two-b")
    assert await redeploy(kapso, two.id) == "deployed" if not old_count else (await kapso.deploy(two.id)).status_code == 422


@pytest.mark.parametrize(("verb", "patch", "put"), [("both", 200, 200), ("PUT", 404, 200), ("PATCH", 200, 404)])
async def test_the_older_base_accepts_the_configured_update_methods(kapso: Kapso, verb: str, patch: int, put: int) -> None:
    """The platform base accepts PATCH alone."""
    await kapso.behave(older_update=verb)
    function_id = await kapso.create()
    url, body = kapso.emulator.base("/api/v1") + f"/functions/{function_id}", {"function": {"description": "x"}}
    assert [(await kapso.http.request(method, url, json=body)).status_code for method in ("PATCH", "PUT")] == [patch, put]


async def test_the_world_is_read_and_changed_at_run_time(kapso: Kapso) -> None:
    """``PATCH /_emulator/world`` changes the named switches."""
    answer = await kapso.control("PATCH", "/world", {"secrets_on_deploy": "drop"})
    assert (answer.json()["secrets_on_deploy"], answer.json()["lock_version"]) == ("drop", "update")
    assert kapso.emulator.world.behaviour == dataclasses.replace(Behaviour(), secrets_on_deploy="drop")


def test_command_line_options_set_switches() -> None:
    """Of every type; an unknown switch is refused with the list of known ones."""
    words = ["secrets_on_deploy=drop", "list_code=false", "inherited_secrets=A, B", "code_limit=1000000", "edge_stale=1.5"]
    expected = Behaviour(
        secrets_on_deploy="drop", list_code=False, inherited_secrets=("A", "B"), code_limit=1_000_000, edge_stale=1.5
    )
    assert Behaviour().changed_by_words(words) == expected
    for wrong in ("colour=red", "list_code", "list_code=maybe", "code_limit=many"):
        with pytest.raises(BehaviourInvalid):
            Behaviour().changed_by_words([wrong])
