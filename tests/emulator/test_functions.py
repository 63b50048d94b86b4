"""The function record and its API calls, as Kapso documents them."""

from __future__ import annotations

import re
import uuid
from datetime import datetime

import pytest

from tests.emulator.kapso import BROKEN, CODE, DELAY, WORKER, Kapso

RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z\Z")


async def test_create_answers_with_a_complete_draft_record(kapso: Kapso) -> None:
    """201 with every documented field, and the defaults of new functions."""
    answer = await kapso.http.post("/functions", json={"function": {"name": "Process Order", "code": CODE, **WORKER}})
    record = answer.json()["data"]
    assert answer.status_code == 201
    assert list(record) == [
        "id", "name", "slug", "description", "code", "function_type", "status", "version", "last_deployed_at", "runtime_config",
        "public_endpoint", "invoke_response_mode", "project_id", "created_by_id", "endpoint_url", "cf_worker_url", "created_at",
        "updated_at", "lock_version",
    ]  # fmt: skip
    assert str(uuid.UUID(record["id"])) == record["id"]
    assert record["slug"] == "process-order"
    assert record["status"] == "draft"
    assert record["last_deployed_at"] is None
    assert record["description"] is None
    assert (record["function_type"], record["invoke_response_mode"]) == ("cloudflare_worker", "passthrough")
    assert (record["public_endpoint"], record["runtime_config"]) == (False, {})
    assert record["endpoint_url"] == f"{kapso.emulator.url}/platform/v1/functions/{record['id']}/invoke"
    assert RFC3339.match(record["created_at"])
    assert record["created_at"] == record["updated_at"]
    assert await kapso.record(record["id"]) == record


@pytest.mark.parametrize(
    ("name", "slug"), [("Process Order", "process-order"), ("  Über-Café №1 ", "uber-cafe-no1"), ("a__b  c", "a-b-c")]
)
async def test_slug_comes_from_the_name_when_none_is_sent(kapso: Kapso, name: str, slug: str) -> None:
    """A create without a slug derives one from the name."""
    answer = await kapso.http.post("/functions", json={"function": {"name": name, "slug": None, "code": CODE, **WORKER}})
    assert answer.json()["data"]["slug"] == slug


async def test_slug_is_unique_and_names_are_not(kapso: Kapso) -> None:
    """A second function may have the same name, but not the same slug, by create or by update."""
    await kapso.create("one", name="Same")
    other = await kapso.create("two", name="Same")
    again = await kapso.http.post("/functions", json={"function": {"name": "x", "slug": "one", "code": CODE, **WORKER}})
    assert (again.status_code, again.json()) == (422, {"errors": {"slug": ["has already been taken"]}})
    renamed = await kapso.update(other, slug="one")
    assert (renamed.status_code, renamed.json()) == (422, {"errors": {"slug": ["has already been taken"]}})


@pytest.mark.parametrize(
    ("attributes", "errors"),
    [
        ({"code": CODE}, {"name": ["can't be blank"]}),
        ({"name": "x"}, {"code": ["can't be blank"]}),
        ({"name": " ", "code": 5}, {"name": ["can't be blank"], "code": ["is invalid"]}),
        ({"name": "漢字", "code": CODE}, {"slug": ["can't be blank"]}),
        ({"name": "x", "code": CODE, "slug": "Big_One"}, {"slug": ["is invalid"]}),
        ({"name": "x", "code": CODE, "description": 5}, {"description": ["is invalid"]}),
        ({"name": "x", "code": CODE, "function_type": "lambda"}, {"function_type": ["is not included in the list"]}),
        ({"name": "x", "code": CODE, "public_endpoint": "yes"}, {"public_endpoint": ["is not included in the list"]}),
        ({"name": "x", "code": CODE, "runtime_config": []}, {"runtime_config": ["must be an object"]}),
        (
            {"name": "x", "code": CODE, "function_type": "supabase_function", "public_endpoint": True},
            {"public_endpoint": ["is only available for Cloudflare functions"]},
        ),
    ],
)
async def test_invalid_attributes_are_422_with_errors_by_attribute(
    kapso: Kapso, attributes: dict[str, object], errors: dict[str, list[str]]
) -> None:
    """In the format of Rails, and nothing is created."""
    answer = await kapso.http.post("/functions", json={"function": WORKER | attributes})
    assert (answer.status_code, answer.json()) == (422, {"errors": errors})
    assert not kapso.emulator.world.functions


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 100_000, b"[]", b'{"name": "x"}', b'{"function": {}}', b'{"function": 5}'])
async def test_unreadable_bodies_are_400(kapso: Kapso, body: bytes) -> None:
    """A body that is not JSON, or lacks the wrapper, is a bad request with an ``error``."""
    answer = await kapso.http.post("/functions", content=body)
    assert answer.status_code == 400
    assert list(answer.json()) == ["error"]


async def test_unknown_attributes_are_ignored(kapso: Kapso) -> None:
    """Attributes that a client may not set have no effect."""
    function_id = await kapso.create(status="deployed", id="mine", version=9)
    record = await kapso.record(function_id)
    assert (record["status"], record["version"]) == ("draft", 1)
    assert function_id != "mine"


async def test_update_saves_and_does_not_deploy(kapso: Kapso) -> None:
    """An update changes the record and moves ``updated_at``; the live code stays."""
    function_id = await kapso.deployed()
    before = await kapso.record(function_id)
    answer = await kapso.update(function_id, code="const x = 1;", description="new", runtime_config={"timeout": 30})
    after = answer.json()["data"]
    assert answer.status_code == 200
    assert (after["code"], after["description"], after["runtime_config"]) == ("const x = 1;", "new", {"timeout": 30})
    assert after["updated_at"] > before["updated_at"]
    assert (after["status"], after["last_deployed_at"]) == ("deployed", before["last_deployed_at"])
    assert after["lock_version"] == before["lock_version"] + 1
    assert after["version"] == before["version"]
    assert kapso.live() == CODE


async def test_update_without_a_change_leaves_updated_at_unchanged(kapso: Kapso) -> None:
    """``true`` is a change from ``1``."""
    function_id = await kapso.create(runtime_config={"flag": 1})
    before = await kapso.record(function_id)
    await kapso.clock.sleep(1)
    assert (await kapso.update(function_id, code=CODE, public_endpoint=False)).json()["data"] == before
    assert (await kapso.update(function_id, runtime_config={"flag": True})).json()["data"] != before


async def test_update_of_the_slug_keeps_the_id(kapso: Kapso) -> None:
    """The old slug is free again."""
    function_id = await kapso.create("old")
    assert (await kapso.update(function_id, slug="new")).json()["data"]["slug"] == "new"
    assert await kapso.create("old") != function_id


async def test_delete_removes_secrets_and_the_id_is_never_reused(kapso: Kapso) -> None:
    """Running deployments of the function end too."""
    function_id, other = await kapso.deployed(), await kapso.create("other")
    await kapso.http.post(f"/functions/{function_id}/secrets", json={"secret": {"name": "KEY", "value": "v"}})
    await kapso.deploy(function_id)
    await kapso.deploy(other)
    answer = await kapso.http.delete(f"/functions/{function_id}")
    assert (answer.status_code, answer.content) == (204, b"")
    assert (await kapso.http.get(f"/functions/{function_id}")).status_code == 404
    assert (await kapso.http.delete(f"/functions/{function_id}")).status_code == 404
    assert [item.function_id for item in kapso.emulator.world.deployments] == [other]
    again = await kapso.deployed()
    assert again != function_id
    assert (await kapso.http.get(f"/functions/{again}/secrets")).json() == {"data": []}


async def test_bases_differ_in_update_verb_and_deploy_status(kapso: Kapso, older: Kapso) -> None:
    """The older base takes PUT and PATCH and deploys with 200; the Platform API takes PATCH alone and deploys with 202."""
    body = {"function": {"description": "d"}}
    mine, other = await kapso.create(), await older.create()
    refused = await kapso.http.put(f"/functions/{mine}", json=body)
    assert (refused.status_code, refused.headers["Allow"]) == (405, "GET, PATCH, DELETE")
    assert (await kapso.update(mine, description="d")).status_code == 200
    assert (await older.http.put(f"/functions/{other}", json=body)).json()["data"]["description"] == "d"
    assert (await older.update(other, description="e")).status_code == 200
    expected = {"message": "Function deployment initiated", "status": "deploying"}
    for side, function_id, status in ((kapso, mine, 202), (older, other, 200)):
        answer = await side.deploy(function_id)
        assert (answer.status_code, answer.json()) == (status, expected | {"function_id": function_id})


async def test_both_bases_show_one_project(kapso: Kapso) -> None:
    """A function that one base creates is in the list of the other."""
    function_id = await kapso.create()
    answer = await kapso.http.get(f"{kapso.emulator.base('/api/v1')}/functions")
    assert [item["id"] for item in answer.json()["data"]] == [function_id]


@pytest.mark.parametrize("headers", [{"X-API-Key": "wrong"}, {"X-API-Key": ""}, {"X-API-Key": "ключ".encode()}])
async def test_wrong_api_key_is_401(kapso: Kapso, headers: dict[str, str]) -> None:
    """Nothing is shown or done without the right key, and the request uses up no rate limit of its owner."""
    answer = await kapso.http.post("/functions", headers=headers, json={"function": {"name": "x", "code": CODE, **WORKER}})
    assert (answer.status_code, answer.json()) == (401, {"error": "Invalid or missing API key"})
    assert not kapso.emulator.world.functions
    assert (await kapso.http.get("/functions")).headers["X-RateLimit-Remaining"] == "999"


@pytest.mark.parametrize("path", ["/nothing", "/functions/", "/functions/x/y", "/functions/unknown", "/../functions"])
async def test_unknown_routes_and_ids_are_404(kapso: Kapso, path: str) -> None:
    """With an ``error``."""
    answer = await kapso.http.get(path)
    assert (answer.status_code, answer.json()) == (404, {"error": "Not found"})


async def test_request_body_above_the_limit_is_413(kapso: Kapso) -> None:
    """A body of more than 16 MiB is refused, and the connection stays usable."""
    answer = await kapso.http.post("/functions", content=b" " * (16 * 1024 * 1024 + 1))
    assert answer.status_code == 413
    assert (await kapso.http.get("/functions")).status_code == 200


async def test_code_comes_back_as_it_was_sent(kapso: Kapso) -> None:
    """Any text survives, lone surrogates included."""
    code = "const a = '\\u2028 \U0001f600';\r\n\t// \x00 end  \n"
    record = await kapso.record(await kapso.create(code=code))
    assert record["code"] == code
    raw = b'{"function": {"name": "lone", "code": "\\ud800", "function_type": "cloudflare_worker"}}'
    assert b'"code":"\\ud800"' in (await kapso.http.post("/functions", content=raw)).content


async def test_deployment_runs_in_the_background(kapso: Kapso) -> None:
    """A draft stays a draft until the deployment ends; then both times are equal and the code is live."""
    function_id = await kapso.create()
    await kapso.deploy(function_id)
    await kapso.clock.sleep(DELAY - 1)
    assert (await kapso.record(function_id))["status"] == "draft"
    assert kapso.live() is None
    await kapso.clock.sleep(1)
    record = await kapso.record(function_id)
    assert record["status"] == "deployed"
    assert record["last_deployed_at"] == record["updated_at"] == "2026-01-01T00:00:10.000000Z"
    assert kapso.live() == CODE


async def test_deployment_takes_the_code_of_its_request(kapso: Kapso) -> None:
    """Code that is saved while a deployment runs is not deployed, though the record's times do not show it."""
    function_id = await kapso.create()
    await kapso.deploy(function_id)
    await kapso.update(function_id, code="const later = 1;", public_endpoint=True)
    await kapso.clock.sleep(DELAY)
    record = await kapso.record(function_id)
    assert record["code"] == "const later = 1;"
    assert record["updated_at"] == record["last_deployed_at"]
    function = kapso.emulator.world.function("hello")
    assert function.live_code == CODE
    assert function.live_fields is not None
    assert function.live_fields["public_endpoint"] is False


async def test_status_is_stale_while_a_deployment_runs(kapso: Kapso) -> None:
    """A second deployment shows the former ``deployed`` or ``error`` until it ends."""
    function_id = await kapso.deployed(code=BROKEN)
    failed = await kapso.record(function_id)
    assert (failed["status"], failed["last_deployed_at"]) == ("error", None)
    assert kapso.emulator.world.function(function_id).failure == "syntax error at line 2, column 10"
    await kapso.update(function_id, code=CODE)
    await kapso.deploy(function_id)
    assert (await kapso.record(function_id))["status"] == "error"
    await kapso.clock.sleep(DELAY)
    first = await kapso.record(function_id)
    assert first["status"] == "deployed"
    await kapso.deploy(function_id)
    assert await kapso.record(function_id) == first
    await kapso.clock.sleep(DELAY)
    assert (await kapso.record(function_id))["last_deployed_at"] > first["last_deployed_at"]


async def test_failed_deployment_takes_the_function_down(kapso: Kapso) -> None:
    """After a failed deployment no code is live; ``updated_at`` separates one failure from the next."""
    function_id = await kapso.deployed()
    deployed_at = (await kapso.record(function_id))["last_deployed_at"]
    await kapso.update(function_id, code=BROKEN)
    seen = set()
    for _ in range(2):
        await kapso.deploy(function_id)
        await kapso.clock.sleep(DELAY)
        record = await kapso.record(function_id)
        assert (record["status"], record["last_deployed_at"]) == ("error", deployed_at)
        seen.add(record["updated_at"])
    assert len(seen) == 2
    assert kapso.live() is None
    answer = await kapso.http.post(f"/functions/{function_id}/invoke", json={})
    assert (answer.status_code, answer.json()) == (422, {"error": "Function is not deployed"})


async def test_supabase_code_is_not_parsed_as_javascript(kapso: Kapso) -> None:
    """JavaScript's grammar applies to Cloudflare functions only."""
    function_id = await kapso.deployed(code="const x: number = 1;", function_type="supabase_function")
    record = await kapso.record(function_id)
    assert (record["status"], record["cf_worker_url"]) == ("deployed", None)


async def test_record_timestamps_always_increase(kapso: Kapso) -> None:
    """Even on a clock that stands still, each change of a function has a later time than the one before."""
    await kapso.behave(deploy_delay=0)
    function_id = await kapso.create()
    times = [datetime.fromisoformat((await kapso.record(function_id))["updated_at"])]
    for number in range(3):
        await kapso.update(function_id, description=str(number))
        await kapso.deploy(function_id)
        record = await kapso.record(function_id)
        times.append(datetime.fromisoformat(record["updated_at"]))
        assert record["last_deployed_at"] == record["updated_at"]
    assert times == sorted(set(times))
