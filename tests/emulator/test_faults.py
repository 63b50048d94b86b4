"""Each fault does on the wire what it says, before or after the request was acted on."""

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
async def test_rules_strike_the_requests_they_count(kapso: Kapso, rule: dict[str, object], expected: list[int]) -> None:
    """``nth``, ``every`` and ``times`` pick among the matching requests."""
    await kapso.faults({"what": "status", **rule})
    assert await statuses(kapso, 6) == expected


async def test_rules_choose_by_method_route_and_slug(kapso: Kapso) -> None:
    """Other requests are left alone, and not counted."""
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


async def test_first_rule_that_strikes_is_applied_and_all_count(kapso: Kapso) -> None:
    """Two rules on one request: the first wins, the second has counted."""
    await kapso.faults({"what": "status", "nth": 1}, {"what": "status", "status": 503, "nth": 2})
    assert await statuses(kapso, 3) == [500, 503, 200]


async def test_a_status_fault_has_its_body_and_headers(kapso: Kapso) -> None:
    """Status, body and headers are the rule's; its headers win over the emulator's."""
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
async def test_faulty_answers_hide_whether_the_request_took_effect(kapso: Kapso, what: str, when: str, made: int) -> None:
    """An answer that stands in for the real one comes before or after acting."""
    await kapso.faults({"what": what, "when": when})
    answer = await kapso.http.post("/functions", json=BODY)
    assert answer.status_code == {"status": 500, "html": 502, "garbage": 200, "redirect": 307}[what]
    assert count(kapso) == made


async def test_html_looks_like_a_proxy(kapso: Kapso) -> None:
    """A web page, with the status of a gateway or with 200."""
    await kapso.faults({"what": "html", "nth": 1}, {"what": "html", "nth": 2, "status": 200, "body": "<h1>Login</h1>"})
    first, second = await kapso.http.get("/functions"), await kapso.http.get("/functions")
    assert (first.status_code, first.headers["Content-Type"]) == (502, "text/html; charset=utf-8")
    assert "<title>502 Bad Gateway</title>" in first.text
    assert (second.status_code, second.text) == (200, "<h1>Login</h1>")


async def test_garbage_has_a_json_content_type(kapso: Kapso) -> None:
    """200, application/json, and bytes."""
    await kapso.faults({"what": "garbage"})
    answer = await kapso.http.get("/functions")
    assert answer.headers["Content-Type"] == "application/json"
    with pytest.raises(ValueError, match=r"decode|Expecting|delimiter|Invalid"):
        answer.json()


async def test_redirect_points_elsewhere(kapso: Kapso) -> None:
    """By default to a host that does not exist."""
    await kapso.faults({"what": "redirect", "nth": 1}, {"what": "redirect", "status": 302, "location": "http://x.invalid/y"})
    first, second = await kapso.http.get("/functions"), await kapso.http.get("/functions")
    assert (first.status_code, first.headers["Location"]) == (307, "https://elsewhere.invalid/platform/v1/functions")
    assert (second.status_code, second.headers["Location"]) == (302, "http://x.invalid/y")


@pytest.mark.parametrize(("what", "made"), [("drop_before", 0), ("drop_after", 1)])
async def test_dropped_connections_leave_the_client_in_doubt(kapso: Kapso, what: str, made: int) -> None:
    """The connection closes without an answer, before or after acting; the next request is served."""
    await kapso.faults({"what": what, "times": 1})
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
        await kapso.http.post("/functions", json=BODY)
    assert count(kapso) == made
    assert (await kapso.http.get("/functions")).status_code == 200
    assert [entry.status for entry in kapso.emulator.log.entries] == [None, 200]


@pytest.mark.parametrize(("what", "made"), [("hang_before", 0), ("hang_after", 1)])
async def test_hung_request_is_released_on_command(kapso: Kapso, what: str, made: int) -> None:
    """No answer comes; the control API closes the connection."""
    await kapso.faults({"what": what})
    request = asyncio.create_task(kapso.http.post("/functions", json=BODY))
    await until(lambda: kapso.emulator.parts.hangs.waiting)
    assert count(kapso) == made
    assert (await kapso.control("POST", "/release")).json() == {"released": 1}
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
        await request
    assert kapso.emulator.parts.hangs.waiting == 0


async def test_hung_request_ends_when_the_client_leaves(kapso: Kapso) -> None:
    """A client that gives up frees the emulator's side too."""
    await kapso.faults({"what": "hang_before"})
    request = asyncio.create_task(kapso.http.get("/functions"))
    await until(lambda: kapso.emulator.parts.hangs.waiting)
    request.cancel()
    await asyncio.gather(request, return_exceptions=True)
    await until(lambda: not kapso.emulator.parts.hangs.waiting)


async def test_drip_sends_byte_by_byte(kapso: Kapso) -> None:
    """Without pauses all of it arrives; with pauses it outlives a client's patience."""
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


async def test_truncated_answer_ends_early(kapso: Kapso) -> None:
    """Half of the announced body arrives, after the request was acted on."""
    await kapso.faults({"what": "truncate"})
    with pytest.raises(httpx.RemoteProtocolError):
        await kapso.http.post("/functions", json=BODY)
    assert count(kapso) == 1


async def test_faulty_lists_repeat_miss_or_empty_pages(kapso: Kapso) -> None:
    """An empty list, a page that repeats the one before, and a page that is missing; other routes are not struck."""
    ids = [await kapso.create(f"f{number}") for number in range(3)]
    await kapso.behave(page_size=1)
    await kapso.faults({"what": "empty_list", "nth": 1}, {"what": "repeat_page", "nth": 1}, {"what": "missing_page", "nth": 2})
    await kapso.record(ids[0])
    bodies = [(await kapso.http.get("/functions", params={"page": page})).json() for page in (1, 1, 2, 2)]
    assert bodies[0] == {"data": []}
    assert [[item["slug"] for item in body["data"]] for body in bodies[1:]] == [["f0"], ["f0"], []]
    assert [body["meta"]["page"] for body in bodies[1:]] == [1, 2, 2]


async def test_deployments_may_fail_or_never_end(kapso: Kapso) -> None:
    """The request is accepted; what comes of it is the fault's doing."""
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


async def test_fault_strikes_before_the_key_is_looked_at(kapso: Kapso) -> None:
    """What stands in front of the API answers strangers too; the log says what struck."""
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
def test_bad_rules_are_named(document: object, message: str) -> None:
    """Every mistake says which rule, which key, what was expected and what was there."""
    with pytest.raises(FaultsInvalid) as caught:
        read_rules(document)
    assert caught.value.message.startswith(message)


def test_rules_are_shown_as_they_are_written() -> None:
    """Reading what is shown gives the same rule."""
    rule = Rule("status", method="POST", nth=2, status=429, body={"error": "x"}, headers={"Retry-After": "1"}, when="after")
    assert read_rules({"faults": [show_rule(rule)]}) == (rule,)
    assert show_rule(Rule("html")) == {"what": "html"}


def test_fault_file_is_yaml(tmp_path: Path) -> None:
    """A file holds the same document as the control API takes."""
    path = tmp_path / "faults.yaml"
    path.write_text(
        "faults:\n  - what: status\n    status: 503\n    headers: {Retry-After: '2'}\n    nth: 2\n  - {what: drip}\n"
    )
    assert read_fault_file(path) == (Rule("status", status=503, headers={"Retry-After": "2"}, nth=2), Rule("drip"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("faults:\n  - what: status\n    nth: one\n", "{path}:3:5: faults[0].nth: expected a whole number above 0, got 'one'"),
        ("faults:\n  - what: html\n  - nth: 1\n", "{path}:3:5: faults[1]: the key what is missing"),
        ("faults:\n  - what: html\n  - 5\n", "{path}:3:5: faults[1]: expected a mapping, got 5"),
        ("", "{path}: faults: expected a mapping with one key"),
        ("faults: [\n", "{path}:2:1: "),
        ("a: 1\na: 2\n", "{path}:2:1: "),
        ("\x01", "{path}: not YAML that can be read: "),
        ("faults: " + "[" * 400, "{path}"),
    ],
)
def test_fault_file_errors_have_line_and_column(tmp_path: Path, text: str, message: str) -> None:
    """File, line and column, counted from 1."""
    path = tmp_path / "faults.yaml"
    path.write_text(text)
    with pytest.raises(FaultsInvalid) as caught:
        read_fault_file(path)
    assert caught.value.message.startswith(message.format(path=path))


@pytest.mark.parametrize("content", [None, b"\xff\xfe\xff"])
def test_unreadable_fault_file_is_named(tmp_path: Path, content: bytes | None) -> None:
    """A file that is missing, or is no text."""
    path = tmp_path / "faults.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(FaultsInvalid, match="cannot read"):
        read_fault_file(path)
