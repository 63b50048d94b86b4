"""Each fault of the emulator does on the wire what it says, before or after the request was processed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest

from kapso_sync.emulator.faults import Rule, read_fault_file, read_rules, show_rule
from kapso_sync.emulator.options import FaultsInvalid
from tests.emulator.kapso import CODE, DELAY, WORKER, Kapso, until

BODY = {"function": {"name": "New", "slug": "new", "code": CODE, **WORKER}}


def count(kapso: Kapso) -> int:
    return len(kapso.emulator.world.functions)


async def statuses(kapso: Kapso, number: int) -> list[int]:
    return [(await kapso.http.get("/functions")).status_code for _ in range(number)]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({}, [500] * 6),
        ({"times": 2}, [500, 500, 200, 200, 200, 200]),
        ({"nth": 2}, [200, 500, 200, 200, 200, 200]),
        ({"nth": 2, "times": 3}, [200, 500, 500, 500, 200, 200]),
        ({"every": 2}, [200, 500, 200, 500, 200, 500]),
        ({"every": 2, "times": 2}, [200, 500, 200, 500, 200, 200]),
    ],
)
async def test_fault_rules_apply_to_the_nth_or_every_nth_request(
    kapso: Kapso, rule: dict[str, object], expected: list[int]
) -> None:
    """``nth``, ``every`` and ``times`` choose among the matching requests."""
    await kapso.faults({"what": "status", **rule})
    assert await statuses(kapso, 6) == expected


async def test_fault_rules_match_by_method_route_and_slug(kapso: Kapso) -> None:
    """Other requests are neither changed nor counted."""
    one, two = await kapso.create("one"), await kapso.create("two")
    await kapso.faults(
        {"what": "status", "status": 503, "method": "POST", "route": "/functions/{id}/deploy", "slug": "two"},
        {"what": "status", "status": 422, "method": "POST", "route": "/functions", "slug": "new", "body": {"error": "no"}},
    )
    assert (await kapso.deploy(one)).status_code == 202
    assert (await kapso.deploy(two)).status_code == 503
    assert (await kapso.deploy("unknown")).status_code == 404
    assert (await kapso.record(two))["slug"] == "two"
    refused = await kapso.http.post("/functions", json=BODY)
    assert (refused.status_code, refused.json()) == (422, {"error": "no"})
    assert (
        await kapso.http.post("/functions", json={"function": {"name": "other", "code": CODE, **WORKER}})
    ).status_code == 201
    assert (await kapso.http.post("/functions", content=b"{")).status_code == 400


async def test_first_matching_fault_rule_is_applied_and_all_rules_count(kapso: Kapso) -> None:
    """Two rules on one request: the first is applied, the second has counted the request."""
    await kapso.faults({"what": "status", "nth": 1}, {"what": "status", "status": 503, "nth": 2})
    assert await statuses(kapso, 3) == [500, 503, 200]


async def test_status_fault_sends_the_configured_status_body_and_headers(kapso: Kapso) -> None:
    """Its headers override the emulator's."""
    headers = {"Retry-After": "7", "x-ratelimit-remaining": "0"}
    await kapso.faults({"what": "status", "status": 429, "body": {"error": "slow"}, "headers": headers})
    answer = await kapso.http.get("/functions")
    assert (answer.status_code, answer.json(), answer.headers["Retry-After"]) == (429, {"error": "slow"}, "7")
    assert answer.headers.get_list("X-RateLimit-Remaining") == ["0"]
    await kapso.faults({"what": "status", "status": 599, "body": "plain"})
    answer = await kapso.http.get("/functions")
    assert (answer.status_code, answer.text, answer.headers["Content-Type"]) == (599, "plain", "text/plain; charset=utf-8")
    await kapso.faults({"what": "status", "status": 599})
    assert (await kapso.http.get("/functions")).json() == {"error": "Unknown status"}
    await kapso.faults({"what": "status", "status": 204})
    assert (await kapso.http.get("/functions")).content == b""


@pytest.mark.parametrize(("when", "made"), [("before", 0), ("after", 1)])
@pytest.mark.parametrize("what", ["status", "html", "garbage", "redirect"])
async def test_replaced_response_comes_before_or_after_the_request_is_processed(
    kapso: Kapso, what: str, when: str, made: int
) -> None:
    """The client cannot see which."""
    await kapso.faults({"what": what, "when": when})
    answer = await kapso.http.post("/functions", json=BODY)
    assert answer.status_code == {"status": 500, "html": 502, "garbage": 200, "redirect": 307}[what]
    assert count(kapso) == made


async def test_html_fault_answers_with_a_web_page_as_a_proxy_does(kapso: Kapso) -> None:
    """With the status of a gateway or with 200."""
    await kapso.faults({"what": "html", "nth": 1}, {"what": "html", "nth": 2, "status": 200, "body": "<h1>Login</h1>"})
    first, second = await kapso.http.get("/functions"), await kapso.http.get("/functions")
    assert (first.status_code, first.headers["Content-Type"]) == (502, "text/html; charset=utf-8")
    assert "<title>502 Bad Gateway</title>" in first.text
    assert (second.status_code, second.text) == (200, "<h1>Login</h1>")


async def test_garbage_fault_answers_with_invalid_json(kapso: Kapso) -> None:
    """200, application/json, and bytes that are not JSON."""
    await kapso.faults({"what": "garbage"})
    answer = await kapso.http.get("/functions")
    assert answer.headers["Content-Type"] == "application/json"
    with pytest.raises(ValueError, match=r"decode|Expecting|delimiter|Invalid"):
        answer.json()


async def test_redirect_fault_redirects_to_another_host(kapso: Kapso) -> None:
    """By default to a host that does not exist."""
    await kapso.faults({"what": "redirect", "nth": 1}, {"what": "redirect", "status": 302, "location": "http://x.invalid/y"})
    first, second = await kapso.http.get("/functions"), await kapso.http.get("/functions")
    assert (first.status_code, first.headers["Location"]) == (307, "https://elsewhere.invalid/platform/v1/functions")
    assert (second.status_code, second.headers["Location"]) == (302, "http://x.invalid/y")


@pytest.mark.parametrize(("what", "made"), [("drop_before", 0), ("drop_after", 1)])
async def test_drop_fault_closes_the_connection_before_or_after_processing(kapso: Kapso, what: str, made: int) -> None:
    """The client gets no response; the next request is served."""
    await kapso.faults({"what": what, "times": 1})
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
        await kapso.http.post("/functions", json=BODY)
    assert count(kapso) == made
    assert (await kapso.http.get("/functions")).status_code == 200
    assert [entry.status for entry in kapso.emulator.log.entries] == [None, 200]


@pytest.mark.parametrize(("what", "made"), [("hang_before", 0), ("hang_after", 1)])
async def test_hanging_request_is_released_by_the_control_api(kapso: Kapso, what: str, made: int) -> None:
    """It gets no response: the control API closes the connection."""
    await kapso.faults({"what": what})
    request = asyncio.create_task(kapso.http.post("/functions", json=BODY))
    await until(lambda: kapso.emulator.parts.hangs.waiting)
    assert count(kapso) == made
    assert (await kapso.control("POST", "/release")).json() == {"released": 1}
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
        await request
    assert kapso.emulator.parts.hangs.waiting == 0


async def test_hanging_request_ends_when_the_client_disconnects(kapso: Kapso) -> None:
    """The emulator frees its side too."""
    await kapso.faults({"what": "hang_before"})
    request = asyncio.create_task(kapso.http.get("/functions"))
    await until(lambda: kapso.emulator.parts.hangs.waiting)
    request.cancel()
    await asyncio.gather(request, return_exceptions=True)
    await until(lambda: not kapso.emulator.parts.hangs.waiting)


async def test_drip_fault_sends_the_response_byte_by_byte(kapso: Kapso) -> None:
    """Without delays all of it arrives; with delays the client's timeout comes first."""
    await kapso.create()
    await kapso.faults({"what": "drip", "seconds": 0, "nth": 1}, {"what": "drip", "seconds": 60})
    whole = await kapso.http.get("/functions")
    assert whole.json()["data"][0]["slug"] == "hello"
    async with kapso.http.stream("GET", "/functions") as answer:
        parts = answer.aiter_raw()
        assert await anext(parts) == b"{"
        assert (await kapso.control("POST", "/release")).json() == {"released": 1}
        with pytest.raises(httpx.RemoteProtocolError):
            await anext(parts)


async def test_truncate_fault_ends_the_response_early(kapso: Kapso) -> None:
    """Half of the announced body arrives, after the request was processed."""
    await kapso.faults({"what": "truncate"})
    with pytest.raises(httpx.RemoteProtocolError):
        await kapso.http.post("/functions", json=BODY)
    assert count(kapso) == 1


async def test_list_faults_send_empty_repeated_or_missing_pages(kapso: Kapso) -> None:
    """Other routes are not affected."""
    ids = [await kapso.create(f"f{number}") for number in range(3)]
    await kapso.behave(page_size=1)
    await kapso.faults({"what": "empty_list", "nth": 1}, {"what": "repeat_page", "nth": 1}, {"what": "missing_page", "nth": 2})
    await kapso.record(ids[0])
    bodies = [(await kapso.http.get("/functions", params={"page": page})).json() for page in (1, 1, 2, 2)]
    assert bodies[0] == {"data": []}
    assert [[item["slug"] for item in body["data"]] for body in bodies[1:]] == [["f0"], ["f0"], []]
    assert [body["meta"]["page"] for body in bodies[1:]] == [1, 2, 2]


async def test_deployment_faults_make_deployments_fail_or_hang(kapso: Kapso) -> None:
    """The deploy request itself is accepted."""
    await kapso.faults(
        {"what": "deploy_fails", "slug": "fails", "message": "no capacity"}, {"what": "deploy_hangs", "slug": "hangs"}
    )
    for slug in ("fails", "hangs", "fine"):
        assert (await kapso.deploy(await kapso.create(slug))).status_code == 202
    await kapso.clock.sleep(DELAY * 1000)
    world = kapso.emulator.world
    assert {item.slug: (item.status, item.failure) for item in world.functions.values()} == {
        "fails": ("error", "no capacity"),
        "hangs": ("draft", None),
        "fine": ("deployed", None),
    }
    assert [item.ends_at for item in world.deployments] == [None]


async def test_fault_applies_before_authentication(kapso: Kapso) -> None:
    """A proxy in front of the API answers without a key too; the request log names the fault."""
    await kapso.faults({"what": "status", "status": 503})
    assert (await kapso.http.get("/functions", headers={"X-API-Key": "wrong"})).status_code == 503
    assert kapso.emulator.faults.rules == (Rule("status", status=503),)
    (entry,) = kapso.emulator.log.entries
    assert (entry.fault, entry.key_ok, entry.status) == ("status", False, 503)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "faults: expected a mapping with one key, faults, that holds a list of rules"),
        ({"faults": {}}, "faults: expected a mapping with one key, faults, that holds a list of rules"),
        ({"faults": ["x"]}, "faults[0]: expected a mapping, got 'x'"),
        ({"faults": [{}]}, "faults[0]: the key what is missing"),
        ({"faults": [{"what": "status"}, {"what": "explode"}]}, "faults[1].what: expected one of status, html, "),
        ({"faults": [{"what": "html", "colour": 1}]}, "faults[0].colour: unknown key"),
        ({"faults": [{"what": "html", "method": "get"}]}, "faults[0].method: expected one of GET, "),
        ({"faults": [{"what": "html", "route": "/functions/1"}]}, "faults[0].route: expected one of /functions, "),
        ({"faults": [{"what": "html", "nth": 0}]}, "faults[0].nth: expected a whole number above 0, got 0"),
        ({"faults": [{"what": "html", "times": True}]}, "faults[0].times: expected a whole number above 0, got True"),
        ({"faults": [{"what": "html", "nth": 1, "every": 2}]}, "faults[0].every: give nth or every, not both"),
        ({"faults": [{"what": "html", "status": 100}]}, "faults[0].status: expected a status code from 200 to 599, got 100"),
        ({"faults": [{"what": "drip", "seconds": -1}]}, "faults[0].seconds: expected a number of seconds, got -1"),
        ({"faults": [{"what": "html", "slug": 1}]}, "faults[0].slug: expected a text, got 1"),
        ({"faults": [{"what": "redirect", "location": "http://ü"}]}, "faults[0].location: expected a text of printable ASCII"),
        ({"faults": [{"what": "status", "headers": {"A": 1}}]}, "faults[0].headers: expected a mapping of texts to texts"),
    ],
)
def test_invalid_fault_rules_are_reported_with_key_and_value(document: object, message: str) -> None:
    """Every error says which rule, which key, what was expected and what was there."""
    with pytest.raises(FaultsInvalid) as caught:
        read_rules(document)
    assert caught.value.message.startswith(message)


def test_fault_rules_round_trip_through_their_document() -> None:
    """Reading the shown document gives the same rule."""
    rule = Rule("status", method="POST", nth=2, status=429, body={"error": "x"}, headers={"Retry-After": "1"}, when="after")
    assert read_rules({"faults": [show_rule(rule)]}) == (rule,)
    assert show_rule(Rule("html")) == {"what": "html"}


def test_fault_file_is_yaml(tmp_path: Path) -> None:
    """A file holds the same document that the control API accepts."""
    path = tmp_path / "faults.yaml"
    path.write_text(
        "faults:\n  - what: status\n    status: 503\n    headers: {Retry-After: '2'}\n    nth: 2\n  - {what: drip}\n"
    )
    assert read_fault_file(path) == (Rule("status", status=503, headers={"Retry-After": "2"}, nth=2), Rule("drip"))
    path.write_text("faults: [{what: status, body: {yes: on, day: 2026-01-01, n: [1, -1.5, .5, 1e3, ~, true]}}]")
    assert read_fault_file(path)[0].body == {"yes": "on", "day": "2026-01-01", "n": [1, -1.5, 0.5, 1000.0, None, True]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("faults:\n  - what: status\n    nth: one\n", "{path}:3:5: faults[0].nth: expected a whole number above 0, got 'one'"),
        ("faults:\n  - what: html\n  - nth: 1\n", "{path}:3:5: faults[1]: the key what is missing"),
        ("faults:\n  - what: html\n  - 5\n", "{path}:3:5: faults[1]: expected a mapping, got 5"),
        ("", "{path}: faults: expected a mapping with one key"),
        ("faults: [\n", "{path}:2:1: "),
        ("a: 1\na: 2\n", '{path}:2:1: found duplicate key "a"'),
        ("faults:\n  - what: html\n    nth: 010\n", "{path}:3:5: faults[0].nth: expected a whole number above 0, got '010'"),
        ("\x01", "{path}: not YAML that can be read: "),
        ("faults: " + "[" * 400, "{path}"),
    ],
)
def test_errors_in_a_fault_file_have_file_line_and_column(tmp_path: Path, text: str, message: str) -> None:
    """Counted from 1."""
    path = tmp_path / "faults.yaml"
    path.write_text(text)
    with pytest.raises(FaultsInvalid) as caught:
        read_fault_file(path)
    assert caught.value.message.startswith(message.format(path=path))


@pytest.mark.parametrize("content", [None, b"\xff\xfe\xff"])
def test_unreadable_fault_file_error_names_the_file(tmp_path: Path, content: bytes | None) -> None:
    """A file that is missing, or is not text."""
    path = tmp_path / "faults.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(FaultsInvalid, match="cannot read"):
        read_fault_file(path)
