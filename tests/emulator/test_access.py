"""Loopback is no authentication: other users and web pages reach it, and get neither control nor secrets."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest

from kapso_sync.emulator.options import EmulatorError, EmulatorOptions
from kapso_sync.emulator.runtime import Call, Result
from kapso_sync.emulator.server import running_emulator
from tests.emulator.kapso import CODE, Kapso, opened

OWN = ["localhost", "LOCALHOST:9999", "127.0.0.1", "127.8.8.8:80", "[::1]", "[::1]:8787"]
FOREIGN = [
    "evil.example",
    "evil.example:8787",
    "localhost.evil.example",
    "127.0.0.1.evil.example:8787",
    "localhost.",
    "0.0.0.0",  # noqa: S104 - browsers take it for this machine
    "10.0.0.5:8787",
    "[::2]:8787",
    "user@localhost",
    "localhost:8787:1",
    "localhost:x",
    "127.1",
    "",
]
ORIGINS = ["https://evil.example", "http://localhost.evil.example:8787", "null", "file://", "http://", "http://x@localhost", ""]


async def asked(
    kapso: Kapso, method: str, path: str, headers: Mapping[str, str | bytes], content: bytes = b""
) -> httpx.Response:
    """Ask as a stranger may, with these headers and no key; the path begins at the root."""
    sent = [(name.encode(), value if isinstance(value, bytes) else value.encode()) for name, value in headers.items()]
    return await kapso.bare.request(method, f"{kapso.emulator.url}{path}", headers=sent, content=content)


@pytest.mark.parametrize("path", ["/_emulator/state", "/platform/v1/functions", "/api/v1/functions", "/nowhere"])
async def test_a_request_for_a_foreign_host_is_refused(kapso: Kapso, path: str) -> None:
    """Also with key and token: a page that rebinds its name to 127.0.0.1 sends that name."""
    known = {"X-API-Key": kapso.emulator.key, **kapso.emulator.control_headers}
    for host in FOREIGN:
        answer = await asked(kapso, "GET", path, {**known, "Host": host})
        assert (answer.status_code, answer.json()["hint"]) == (403, "ask for localhost, or for 127.0.0.1"), host
    assert kapso.emulator.log.entries == ()


async def test_a_request_for_this_machines_own_name_is_answered(kapso: Kapso) -> None:
    """With any port, as behind ``ssh -L``."""
    known = {"X-API-Key": kapso.emulator.key, **kapso.emulator.control_headers}
    for host in OWN:
        for path in ("/_emulator/state", "/platform/v1/functions"):
            assert (await asked(kapso, "GET", path, {**known, "Host": host})).status_code == 200, host


async def test_a_request_without_a_host_is_refused(kapso: Kapso) -> None:
    """HTTP/1.0 allows it."""
    port = int(kapso.emulator.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET /platform/v1/functions HTTP/1.0\r\nX-API-Key: {kapso.emulator.key}\r\n\r\n".encode())
    assert (await reader.readline()).split()[1] == b"403"
    writer.close()
    await writer.wait_closed()


async def test_the_control_api_answers_no_web_page(kapso: Kapso) -> None:
    """Not even with the token, and not even one of this machine."""
    for origin in (*ORIGINS, "http://localhost:8787", "http://127.0.0.1:5173"):
        headers = {**kapso.emulator.control_headers, "Origin": origin}
        answer = await asked(kapso, "GET", "/_emulator/state", headers)
        assert (answer.status_code, list(answer.json())) == (403, ["error", "hint"]), origin


async def test_a_web_page_of_another_origin_cannot_call_a_function(kapso: Kapso) -> None:
    """A public function needs no key, and a page may post text anywhere; a page of this machine is let in."""
    function_id = await kapso.deployed(public_endpoint=True)
    path, before = f"/platform/v1/functions/{function_id}/invoke", len(kapso.emulator.log.entries)
    for origin in ORIGINS:
        answer = await asked(kapso, "POST", path, {"Origin": origin, "Content-Type": "text/plain"}, b"{}")
        assert answer.status_code == 403, origin
    assert len(kapso.emulator.log.entries) == before
    answer = await asked(kapso, "POST", path, {"Origin": "http://localhost:5173"}, b"{}")
    assert answer.status_code == 501, "there is no runtime here"


ROUTES = [
    *(("GET", path) for path in ("/requests", "/state", "/faults", "/behaviour", "/world")),
    *(("POST", path) for path in ("/functions", "/workflows", "/whatsapp/flows", "/whatsapp/webhooks", "/release", "/reset")),
    *(("PUT", path) for path in ("/faults", "/behaviour")),
    *(("PATCH", path) for path in ("/world", "/functions/hello")),
    *(("DELETE", path) for path in ("/requests", "/functions/hello", "/workflows/x", "/nowhere")),
]


async def test_every_control_route_demands_the_token(kapso: Kapso) -> None:
    """None, a wrong one, the beginning of it, and one that is not ASCII are refused alike; nothing changes."""
    await kapso.create()
    token = kapso.emulator.control_token.encode()
    for method, path in ROUTES:
        for given in (None, b"", b"wrong", token[:-1], token + b"x", "é".encode()):
            headers: dict[str, str | bytes] = {"X-API-Key": kapso.emulator.key, "Content-Type": "application/json"}
            headers |= {} if given is None else {"X-Emulator-Token": given}
            answer = await asked(kapso, method, f"/_emulator{path}", headers, b"{}")
            assert answer.status_code == 401, (method, path, given)
            assert "X-Emulator-Token" in answer.json()["hint"]
    assert [item.slug for item in kapso.emulator.world.functions.values()] == ["hello"]


async def test_the_listed_control_routes_are_all_there_are(kapso: Kapso) -> None:
    """A control for the test above: with the token, none of them is unknown but the last."""
    await kapso.create()
    for method, path in ROUTES[:-1]:
        answer = await kapso.control(method, path, {} if method in ("PUT", "PATCH", "POST") else None)
        assert answer.status_code in (200, 201, 204, 400, 404), (method, path)
        assert answer.text != "Not Found", (method, path)
    assert (await kapso.control(*ROUTES[-1])).text == "Not Found"


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "text/json", None])
async def test_a_body_that_is_not_declared_as_json_is_refused(kapso: Kapso, kind: str | None) -> None:
    """A page can post text without asking first; it deploys nothing."""
    body = b'{"function": {"name": "X", "slug": "x", "code": "x"}, "deployed": true}'
    headers = dict(kapso.emulator.control_headers) | ({} if kind is None else {"Content-Type": kind})
    answer = await asked(kapso, "POST", "/_emulator/functions", headers, body)
    assert (answer.status_code, answer.json()["hint"]) == (415, "send Content-Type: application/json")
    assert not kapso.emulator.world.functions
    headers |= {"Content-Type": "Application/JSON; charset=utf-8"}
    assert (await asked(kapso, "POST", "/_emulator/functions", headers, body)).status_code == 201
    answer = await asked(kapso, "POST", "/_emulator/release", kapso.emulator.control_headers)
    assert answer.status_code == 200, "without a body there is no type to name"


async def test_what_a_proxy_says_about_the_caller_is_ignored(kapso: Kapso) -> None:
    """A header makes nobody local, or foreign."""
    headers = {**kapso.emulator.control_headers, "X-Forwarded-For": "10.0.0.7", "X-Forwarded-Proto": "https"}
    answer = await asked(kapso, "GET", "/_emulator/state", headers)
    assert answer.status_code == 200


async def test_each_start_has_a_token_of_its_own() -> None:
    """Unless one is named."""
    async with running_emulator() as first, running_emulator() as second:
        assert len(first.control_token) >= 24
        assert first.control_token != second.control_token
        assert first.control_token not in repr(first)
    async with running_emulator(EmulatorOptions(control_token="mine")) as named:
        assert named.control_headers == {"X-Emulator-Token": "mine"}


@pytest.mark.parametrize("token", ["", " ", "a b", "a\nb", "é", "x" * 201])
def test_a_token_that_cannot_be_sent_is_refused(token: str) -> None:
    """An empty one would open the control API to everybody."""
    with pytest.raises(EmulatorError, match="control token"):
        EmulatorOptions(control_token=token)


CANARY = 'canary-"7f3a"/ü\nsecond-line'
SPELLINGS = ("canary-", "7f3a", "second-line")


class Echoing:
    """A runtime whose code prints its secrets."""

    async def check(self, slug: str, code: str) -> str | None:  # noqa: ARG002 - it likes everything
        return f"Uncaught Error: {CANARY}" if "throw" in code else None

    def forget(self) -> None:
        """Keep nothing."""

    async def run(self, call: Call) -> Result:
        lines = (json.dumps(dict(call.secrets)), json.dumps(dict(call.secrets), ensure_ascii=False), *call.secrets.values())
        return Result(200, b"{}", console=tuple(("log", line) for line in lines))


async def test_no_answer_of_the_control_api_has_a_secrets_value() -> None:
    """Set, seeded, refused, malformed, removed; in bodies, paths, queries and console lines; names and times are shown."""
    async with opened(runtime=Echoing()) as kapso:
        function_id = await kapso.deployed()
        failing = await kapso.create("failing", "throw new Error();")
        draft = await kapso.create("draft")
        own, foreign = f"/functions/{function_id}/secrets", f"/functions/{draft}/secrets"
        answers = [
            await kapso.http.post(own, json={"secret": {"name": "SET", "value": CANARY}}),
            await kapso.http.post(own, json={"secret": {"name": "JSON", "value": {"a": [CANARY]}}}),
            await kapso.http.post(own, json={"secret": {"name": "SET", "value": f"{CANARY}2"}}),
            await kapso.http.post(foreign, json={"secret": {"name": "A", "value": "canary-7f3a-refused"}}),
            await kapso.http.post(own, json={"value": "canary-7f3a-malformed"}),
            await kapso.http.post(f"{own}/", json=["canary-7f3a-lost"]),
            await kapso.http.post(f"/functions/{function_id}/invoke", params={"q": CANARY}, json={"again": CANARY}),
            await kapso.http.delete(f"/functions/{function_id}/secrets/JSON"),
            await kapso.deploy(failing),
        ]
        assert [item.status_code for item in answers] == [201, 201, 422, 422, 400, 404, 200, 204, 202]
        seed = {"function": {"name": "Seed", "code": CODE, "description": CANARY}, "secrets": {"SEED": CANARY}}
        shown = [await kapso.control("POST", "/functions", seed)]
        await kapso.clock.sleep(10)
        shown += [await kapso.control(method, path) for method, path in ROUTES if method == "GET"]
        wrong = await kapso.control("POST", "/functions", {"function": {"name": "X"}, "secrets": CANARY})
        assert wrong.json()["error"] == "secrets: expected an object, got str"
        for answer in (*shown, wrong):
            assert answer.is_success or answer is wrong
            assert not [text for text in SPELLINGS if text in answer.text], answer.url
        functions = {item["slug"]: item for item in shown[2].json()["functions"]}
        assert list(functions["hello"]["secrets"]) == ["SET"]
        assert functions["hello"]["secrets"]["SET"]["updated_at"] == "2026-01-01T00:00:10.000000Z"
        assert functions["failing"]["failure"] == "Uncaught Error: [redacted]"
        bodies = [entry["body"] for entry in shown[1].json()["requests"] if entry["path"].endswith("/secrets")]
        assert bodies[0] == {"secret": {"name": "SET", "value": "[redacted]"}}
        world = kapso.emulator.world
        assert world.function("hello").secrets == {"SET": CANARY}, "a control: it is there"
        kept = [entry.body for entry in kapso.emulator.log.entries if entry.path.endswith("/secrets")]
        assert kept[0] == {"secret": {"name": "SET", "value": CANARY}}, "a control: it was sent"
        assert CANARY not in repr(world.function("hello"))


async def test_short_values_of_secrets_are_hidden_where_secrets_stand(kapso: Kapso) -> None:
    """They are not looked for in other texts, which they would make unreadable."""
    function_id = await kapso.deployed()
    await kapso.http.post(f"/functions/{function_id}/secrets", json={"secret": {"name": "KEY", "value": "fn"}})
    state = (await kapso.control("GET", "/state")).json()
    assert state["functions"][0]["code"] == CODE
    assert state["functions"][0]["secrets"]["KEY"]["type"] == "text"
    last = (await kapso.control("GET", "/requests")).json()["requests"][-1]
    assert last["body"]["secret"]["value"] == "[redacted]"


async def test_secrets_of_an_earlier_run_are_masked_too(tmp_path: Path) -> None:
    """They come from the data folder, whose file only its owner may read, with the files that SQLite puts beside it."""
    options = EmulatorOptions(data=tmp_path / "data", deploy_delay=0.0)
    before = os.umask(0o000)
    try:
        async with opened(options) as kapso:
            function = kapso.emulator.world.create({"name": "A", "code": CODE})
            kapso.emulator.world.seed_secrets(function, {"KEY": CANARY})
            files = list((tmp_path / "data").iterdir())
            assert len(files) > 1
            assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
            assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700
    finally:
        os.umask(before)
    async with opened(options) as kapso:
        await kapso.http.get("/functions", params={"q": CANARY})
        assert "canary" not in (await kapso.control("GET", "/requests")).text
        assert "canary" not in (await kapso.control("GET", "/state")).text
