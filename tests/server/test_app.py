"""The HTTP endpoints: responses, authentication and headers."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from kapso_sync.errors import ConfigError, LeaseError, StateUnusable
from kapso_sync.model.policies import PassOverrides
from kapso_sync.model.status import Suspension, status_document
from kapso_sync.server.control import ServerLimits
from kapso_sync.server.serve import FREE_PIECES, MAX_HEAD_LINES, MIN_PIECE_BYTES
from tests.server.front import SECRET, TOKEN, DaemonStub, connected, open_server
from tests.server.statuses import BAD, GOOD, NOW, STANDBY, SUSPENDED
from tests.server.test_hooks import BODY, hexed

BEARER = {"Authorization": f"Bearer {TOKEN}"}
SIGNED = {"X-Hub-Signature-256": f"sha256={hexed(BODY)}", "X-GitHub-Event": "push"}


async def until(lines: AsyncIterator[str], start: str) -> str:
    """The next line that starts so."""
    while not (line := await anext(lines)).startswith(start):
        pass
    return line


@pytest.fixture
def stub() -> DaemonStub:
    return DaemonStub()


@pytest.fixture
async def client(stub: DaemonStub) -> AsyncIterator[httpx.AsyncClient]:
    async with open_server(stub) as running:
        yield running


async def test_healthz_shows_whether_the_loop_lives(stub: DaemonStub, client: httpx.AsyncClient) -> None:
    """200 while the loop lives, 503 with the reason when it does not; no remote counts."""
    assert (await client.get("/healthz")).status_code == 200
    stub.problem = "the loop has been silent for 61 s"
    answer = await client.get("/healthz")
    assert (answer.status_code, answer.text) == (503, "the loop has been silent for 61 s\n")


async def test_readyz_is_ok_after_the_first_look_at_the_source(stub: DaemonStub, client: httpx.AsyncClient) -> None:
    """Whatever its result is."""
    assert (await client.get("/readyz")).status_code == 200
    stub.ready = False
    assert (await client.get("/readyz")).status_code == 503


@pytest.mark.parametrize("path", ["/", "/healthz", "/api/status", "/metrics", "/nowhere", "/static/page.css", "/hooks/git"])
async def test_every_response_has_security_headers(client: httpx.AsyncClient, path: str) -> None:
    """No sniffing, no caching, no framing, no foreign content, and no name of the server."""
    answer = await client.get(path)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert "server" not in answer.headers


async def test_errors_are_json(client: httpx.AsyncClient) -> None:
    """Unknown paths, wrong methods, unknown files."""
    for method, path, status in (("GET", "/x", 404), ("GET", "/hooks/git", 405), ("GET", "/static/../app.py", 404)):
        answer = await client.request(method, path)
        assert (answer.status_code, list(answer.json())) == (status, ["error"])


@pytest.mark.parametrize("path", ["/", "/api/status", "/events"])
async def test_reading_needs_the_token_when_not_on_loopback(path: str) -> None:
    """As bearer, or as the password of HTTP Basic; health, readiness and metrics stay open."""
    basic = base64.b64encode(f"anyone:{TOKEN}".encode()).decode()
    async with open_server(DaemonStub(public=True)) as client:
        refused = await client.get(path)
        assert (refused.status_code, refused.headers["www-authenticate"][:5]) == (401, "Basic")
        for wrong in (
            "Bearer x",
            "Basic !!!",
            "Basic " + base64.b64encode(b"a:b").decode(),
            "Bearer",
            f"Digest {TOKEN}",
            "Bearer é",
        ):
            assert (await client.get(path, headers=[(b"Authorization", wrong.encode())])).status_code == 401
        for right in (BEARER, {"Authorization": f"Basic {basic}"}):
            async with client.stream("GET", path, headers=right) as answer:
                assert answer.status_code == 200
        assert (await client.get("/healthz")).status_code == 200
        assert (await client.get("/metrics")).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8321", "localhost.evil.example", "", "[::1", "evil.example/healthz?", "evil@localhost"],
)
async def test_dns_rebinding_is_refused_by_host_header(client: httpx.AsyncClient, host: str) -> None:
    """A foreign host name that resolves to loopback gets no response; health, metrics and the hook do."""
    for path in ("/", "/api/status", "/api/status/", "/events", "/static/page.js", "/nowhere"):
        assert (await client.get(path, headers={"Host": host})).status_code == 403
    assert (await client.post("/api/resume", headers={"Host": host, **BEARER})).status_code == 403
    for path in ("/healthz", "/readyz", "/metrics"):
        assert (await client.get(path, headers={"Host": host})).status_code == 200
    assert (await client.post("/hooks/git", headers={"Host": host, **SIGNED}, content=BODY)).status_code == 202


@pytest.mark.parametrize("host", ["localhost", "LocalHost:1", "127.0.0.1", "127.0.0.1:8321", "[::1]", "[::1]:8321"])
async def test_localhost_host_headers_are_accepted(client: httpx.AsyncClient, host: str) -> None:
    """With any port: it may be a forwarded one."""
    assert (await client.get("/api/status", headers={"Host": host})).status_code == 200


async def test_no_redirect_uses_the_host_header() -> None:
    """No location is built from it."""
    async with open_server(DaemonStub(public=True)) as client:
        answer = await client.get("/api/status/", headers={"Host": "evil.example", **BEARER})
        assert (answer.status_code, answer.headers.get("location")) == (404, None)


async def test_writing_endpoints_need_a_bearer_token(stub: DaemonStub, client: httpx.AsyncClient) -> None:
    """Even on loopback; a browser never sends one by itself."""
    basic = base64.b64encode(f"x:{TOKEN}".encode()).decode()
    for path in ("/api/reconcile", "/api/suspend", "/api/resume"):
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {basic}"}):
            assert (await client.post(path, headers=headers, json={"reason": "x"})).status_code == 401
    assert stub.triggers == []
    assert (await client.post("/api/reconcile", headers=BEARER)).status_code == 202
    assert (await client.post("/api/resume", headers=BEARER)).status_code == 202
    assert stub.triggers == ["reconcile", "resume"]


async def test_reconcile_with_wait_answers_after_the_pass(stub: DaemonStub, client: httpx.AsyncClient) -> None:
    """The response has the result of the pass."""
    asked = asyncio.create_task(client.post("/api/reconcile?wait=1", headers=BEARER))
    async with asyncio.timeout(20):
        while not stub.triggers:  # noqa: ASYNC110 - the server has no event for it
            await asyncio.sleep(0.001)
    assert not asked.done()
    stub.passed.set()
    answer = (await asked).json()
    assert (answer["exit_code"], answer["status"]["in_sync"]) == (0, True)


async def test_reconcile_with_wait_answers_at_once_while_suspended(stub: DaemonStub, client: httpx.AsyncClient) -> None:
    """With the reason; the trigger takes effect after a resume."""
    stub.status = SUSPENDED
    answer = await client.post("/api/reconcile?wait=1", headers=BEARER)
    assert (answer.status_code, stub.triggers) == (202, ["reconcile"])
    assert answer.json() == {"accepted": True, "suspended": "moving the project to another plan"}


async def test_a_standby_hands_a_reconcile_to_the_leader_and_does_not_wait(stub: DaemonStub, client: httpx.AsyncClient) -> None:
    """With everything that the person allows, also for functions that a standby does not know."""
    stub.status = STANDBY
    answer = await client.post("/api/reconcile?wait=1&retry=greet&reset_secrets=1", headers=BEARER)
    assert answer.json() == {"accepted": True, "leader": "flows-7d4b9c-x2x4q_1f2e3d4c"}
    assert stub.overrides == PassOverrides(retry=frozenset({"greet"}), reset_secrets=True)
    stub.status = GOOD
    assert (await client.post("/api/reconcile?retry=unknown", headers=BEARER)).status_code == 404


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("foo=1", "unknown parameter; known are retry, overwrite, take_from, delete, allow_recreate, reset_secrets, wait"),
        ("wait=maybe", "wait: expected 1 or 0"),
        ("wait=1&wait=maybe", "wait: expected 1 or 0"),
        ("reset_secrets=yes", "reset_secrets: expected 1 or 0"),
        ("take_from=", "take_from: expected a name"),
    ],
)
async def test_a_parameter_of_a_pass_that_is_not_understood_is_400(
    stub: DaemonStub, client: httpx.AsyncClient, query: str, reason: str
) -> None:
    """The answer is 400 and no pass is requested; a caller without the token gets 401 whatever the parameters are."""
    answer = await client.post(f"/api/reconcile?{query}", headers=BEARER)
    assert (answer.status_code, answer.json()["error"], stub.triggers) == (400, reason, [])
    assert (await client.post(f"/api/reconcile?{query}")).status_code == 401
    assert (await client.post("/api/reconcile?wait=0", headers=BEARER)).status_code == 202


async def test_a_push_that_cannot_reach_the_leader_is_503_and_may_be_sent_again(
    stub: DaemonStub, client: httpx.AsyncClient
) -> None:
    """The git host sends the same delivery again, which is then no replay."""
    headers = {**SIGNED, "X-GitHub-Delivery": "d-1"}
    stub.unreachable = LeaseError("patch of the Lease apps/kapso-sync: no answer within 3.0 s")
    assert (await client.post("/hooks/git", content=BODY, headers=headers)).status_code == 503
    stub.unreachable = None
    again = await client.post("/hooks/git", content=BODY, headers=headers)
    assert (again.status_code, again.json()) == (202, {"delivery": "d-1"})
    assert stub.triggers == ["webhook"]


@pytest.mark.parametrize(
    ("body", "suspension"),
    [({"reason": "moving"}, ("moving", None)), ({"reason": " a\n b ", "for_seconds": 60}, ("a b", 60))],
)
async def test_suspend_takes_a_reason_and_an_end(
    stub: DaemonStub, client: httpx.AsyncClient, body: object, suspension: object
) -> None:
    """The end is optional."""
    assert (await client.post("/api/suspend", headers=BEARER, json=body)).status_code == 202
    assert stub.suspensions == [suspension]


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"[]", b"{}", b'"x"', b'{"reason": ""}', b'{"reason": 7}', b"[" * 10_000),
        *(b'{"reason": "x", "for_seconds": -1}', b'{"reason": "x", "for_seconds": true}'),
        *(b'{"reason": "x", "for_seconds": 1e300}', b'{"reason": "x", "for_seconds": NaN}', b'{"reason": "\\ud800"}'),
    ],
)
async def test_an_invalid_suspend_request_is_400(stub: DaemonStub, client: httpx.AsyncClient, body: bytes) -> None:
    """Nothing is suspended."""
    assert (await client.post("/api/suspend", headers=BEARER, content=body)).status_code == 400
    assert stub.suspensions == []


async def test_a_webhook_triggers_a_pass_and_is_answered_at_once(stub: DaemonStub, client: httpx.AsyncClient) -> None:
    """202 with a delivery id; a repeated delivery is accepted, and triggers no pass."""
    headers = {**SIGNED, "X-GitHub-Delivery": "d-1"}
    first = await client.post("/hooks/git", content=BODY, headers=headers)
    assert (first.status_code, first.json()) == (202, {"delivery": "d-1"})
    again = await client.post("/hooks/git", content=BODY, headers=headers)
    assert (again.status_code, "ignored" in again.json()) == (202, True)
    assert stub.triggers == ["webhook", "look"]


async def test_a_webhook_delivery_that_triggered_nothing_is_not_a_replay(stub: DaemonStub, client: httpx.AsyncClient) -> None:
    """Only a delivery that triggered a pass counts as one."""
    headers = {**SIGNED, "X-GitHub-Delivery": "d-1"}
    stub.watched = ("https://github.com/acme/other", None)
    await client.post("/hooks/git", content=BODY, headers=headers)
    stub.watched = ("https://github.com/acme/flows", None)
    assert (await client.post("/hooks/git", content=BODY, headers=headers)).json() == {"delivery": "d-1"}


async def test_a_webhook_for_another_branch_or_a_ping_triggers_nothing(stub: DaemonStub, client: httpx.AsyncClient) -> None:
    """The response says why; and without a secret there is no hook endpoint."""
    stub.watched = ("https://github.com/acme/other", None)
    answer = await client.post("/hooks/git", content=BODY, headers=SIGNED)
    assert (answer.status_code, answer.json()["ignored"]) == (202, "another repository")
    ping = {**SIGNED, "X-GitHub-Event": "ping"}
    assert (await client.post("/hooks/git", content=BODY, headers=ping)).status_code == 200
    assert (await client.post("/hooks/git", content=BODY, headers={"X-Signature": ""})).status_code == 401
    stub.secret = None
    assert (await client.post("/hooks/git", content=BODY, headers=SIGNED)).status_code == 404
    assert stub.triggers == []


async def test_without_a_usable_webhook_secret_the_hook_endpoint_is_closed(stub: DaemonStub, client: httpx.AsyncClient) -> None:
    """404 for an empty secret, with which anybody could sign; 503 without details for an unreadable one."""
    forged = {"X-Signature": f"sha256={hexed(BODY, key='')}"}
    stub.secret = ""
    assert (await client.post("/hooks/git", content=BODY, headers=forged)).status_code == 404
    stub.failure = ConfigError("KAPSO_SYNC_WEBHOOK_SECRET_FILE cannot be read")
    answer = await client.post("/hooks/git", content=BODY, headers=forged)
    assert (answer.status_code, "_FILE" in answer.text) == (503, False)
    assert stub.triggers == []


async def test_each_refused_push_is_reported_and_no_other(stub: DaemonStub, client: httpx.AsyncClient) -> None:
    """With a word of few for the reason, the sender's address, and of an unusable secret what is wrong with it."""
    assert (await client.post("/hooks/git", content=BODY, headers=SIGNED)).status_code == 202
    assert stub.refusals == []
    for headers, body in (
        ({}, BODY),
        ({"X-Hub-Signature-256": "sha256=00"}, BODY),
        ({"X-Signature": f"sha256={hexed(b'[1]')}"}, b"[1]"),
        (SIGNED, b"x" * 1024 * 1025),
    ):
        await client.post("/hooks/git", content=body, headers=headers)
    stub.failure = ConfigError("KAPSO_SYNC_WEBHOOK_SECRET_FILE cannot be read", hint="mount it")
    await client.post("/hooks/git", content=BODY, headers=SIGNED)
    reasons = ["no_signature", "wrong_signature", "unreadable", "too_large", "unusable_secret"]
    assert [(refused.reason, refused.peer) for refused in stub.refusals] == [(reason, "127.0.0.1") for reason in reasons]
    assert (stub.refusals[-1].error, stub.refusals[-1].hint) == ("KAPSO_SYNC_WEBHOOK_SECRET_FILE cannot be read", "mount it")


async def test_non_ascii_secrets_are_compared_as_bytes(stub: DaemonStub, client: httpx.AsyncClient) -> None:
    """The header's bytes count as they were sent, however a library decodes them."""
    stub.secret = "clé-ключ"
    headers = [(b"X-Gitlab-Token", stub.secret.encode()), (b"X-Gitlab-Event", b"Push Hook")]
    assert (await client.post("/hooks/git", content=BODY, headers=headers)).status_code == 202
    assert stub.triggers == ["webhook"]


async def test_an_error_of_the_daemon_is_shown_to_authenticated_clients_only(
    stub: DaemonStub, client: httpx.AsyncClient
) -> None:
    """A client without the token does not see it."""
    stub.failure = StateUnusable("state/suspended.json cannot be written: No space left on device")
    answer = await client.post("/api/suspend", headers=BEARER, json={"reason": "x"})
    assert (answer.status_code, "No space left" in answer.text) == (503, True)
    assert (await client.post("/api/suspend", json={"reason": "x"})).status_code == 401


@pytest.mark.filterwarnings("default")
async def test_an_unexpected_exception_is_a_500_without_details(stub: DaemonStub, client: httpx.AsyncClient) -> None:
    """JSON, with every security header, and no internals."""
    stub.defect = RuntimeError(SECRET)
    answer = await client.get("/api/status")
    assert (answer.status_code, list(answer.json()), SECRET in answer.text) == (500, ["error"], False)
    assert "default-src 'none'" in answer.headers["content-security-policy"]


async def test_a_lone_surrogate_in_a_reason_breaks_neither_page_nor_json(stub: DaemonStub, client: httpx.AsyncClient) -> None:
    """It is spelled out for people, and replaced for programs."""
    stub.status = replace(GOOD, suspension=Suspension("half \ud800", NOW))
    assert r"half \ud800" in (await client.get("/")).text
    assert (await client.get("/api/status")).json()["suspended"]["reason"] == "half ?"


def signed(body: bytes) -> dict[str, str]:
    return {"X-Hub-Signature-256": f"sha256={hexed(body)}", "X-GitHub-Event": "push"}


async def test_a_captured_push_under_another_delivery_id_triggers_no_pass(stub: DaemonStub, client: httpx.AsyncClient) -> None:
    """Only what is signed counts. git is looked at, for scripts that always send one body; after a minute it counts again."""
    answers = []
    for number, wait in enumerate((0.0, 1.0, 58.0, 2.0, 1.0)):
        await stub.clock.sleep(wait)
        answer = await client.post("/hooks/git", content=BODY, headers={**SIGNED, "X-GitHub-Delivery": f"d-{number}"})
        answers.append((answer.status_code, answer.json().get("ignored")))
    again = (202, "the same push was taken less than a minute ago")
    assert answers == [(202, None), again, again, (202, None), again]
    assert stub.triggers == ["webhook", "look", "look", "webhook", "look"]


async def test_the_number_of_remembered_pushes_is_bounded(stub: DaemonStub) -> None:
    """The oldest are forgotten first."""
    stub.limits = ServerLimits(deliveries=5)
    async with open_server(stub) as client:
        for number in (*range(10), 9, 0):
            body = BODY + b" " * number
            await client.post("/hooks/git", content=body, headers=signed(body))
    assert stub.triggers.count("webhook") == 11


PROXIED = {
    "Forwarded": "for=192.0.2.7",
    "X-Forwarded-For": "192.0.2.7",
    "X-Forwarded-Proto": "https",
    "X-Real-IP": "192.0.2.7",
    "Via": "1.1 proxy",
}


@pytest.mark.parametrize("header", PROXIED)
async def test_reading_through_a_proxy_needs_the_token_on_loopback_too(client: httpx.AsyncClient, header: str) -> None:
    """The proxy is on this machine, and its clients may be anywhere; what is open stays open."""
    through = {header: PROXIED[header]}
    for path in ("/", "/api/status"):
        assert (await client.get(path)).status_code == 200
        assert (await client.get(path, headers=through)).status_code == 401
        assert (await client.get(path, headers={**through, **BEARER})).status_code == 200
    assert (await client.get("/events", headers=through)).status_code == 401
    for path in ("/healthz", "/readyz", "/metrics"):
        assert (await client.get(path, headers=through)).status_code == 200


async def test_two_headers_that_both_frame_the_body_are_refused(stub: DaemonStub, client: httpx.AsyncClient) -> None:
    """A proxy could go by the one, and we by the other; each alone is served."""
    for framing, status in (
        (b"Content-Length: 5\r\nTransfer-Encoding: chunked", b" 400 "),
        (b"Transfer-Encoding: chunked", b" 401 "),
        (b"Content-Length: 15", b" 401 "),
    ):
        async with connected(stub) as (reader, writer):
            writer.write(
                b"POST /hooks/git HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                + framing
                + b"\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
            )
            assert status in (await reader.read()).splitlines()[0]


async def test_a_body_in_many_small_pieces_is_refused(stub: DaemonStub, client: httpx.AsyncClient) -> None:
    """A byte for each chunk makes a MiB of body cost as much as a million requests; pieces of some hundred bytes are taken."""
    for size, number, status in ((1, FREE_PIECES + 1, b" 400 "), (1, FREE_PIECES, b" 401 "), (MIN_PIECE_BYTES, 1000, b" 401 ")):
        async with connected(stub) as (reader, writer):
            writer.write(b"POST /hooks/git HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n")
            writer.write(b"%x\r\n%s\r\n" % (size, b"a" * size) * number + b"0\r\n\r\n")
            assert status in (await reader.read()).splitlines()[0]


@pytest.mark.parametrize("path", ["GET /healthz", "POST /hooks/git"])
async def test_a_body_that_is_no_body_is_refused_once_and_logs_nothing(
    stub: DaemonStub, client: httpx.AsyncClient, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It comes together with the head, and what serves the request has an answer of its own."""
    async with connected(stub) as (reader, writer):
        writer.write(f"{path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nno size\r\n".encode())
        answer = await reader.read()
        assert b" 400 " in answer.splitlines()[0]
        assert answer.count(b"HTTP/1.1") == 1
    assert (await client.get("/healthz")).status_code == 200
    assert caplog.text == ""


async def test_a_head_of_many_lines_is_refused(stub: DaemonStub, client: httpx.AsyncClient) -> None:
    """Three thousand headers of five bytes cost a hundred times as much as one; what a proxy adds is taken."""
    for number, status in ((MAX_HEAD_LINES - 3, b" 200 "), (MAX_HEAD_LINES, b" 400 "), (3000, b" 400 ")):
        async with connected(stub) as (reader, writer):
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + b"a:b\r\n" * number + b"\r\n" * 200)
            assert status in (await reader.read()).splitlines()[0]


async def silent(stub: DaemonStub, stack: contextlib.AsyncExitStack, number: int, sent: bytes = b"") -> None:
    """Open connections that say no more than this."""
    host, port = stub.url.removeprefix("http://").rsplit(":", 1)
    for _ in range(number):
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(sent)
        stack.callback(writer.close)


@pytest.mark.e2e
@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET /healthz HTTP/1.1\r\nHost",
        b"POST /hooks/git HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n",
        b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
)
async def test_a_thousand_silent_connections_do_not_keep_a_probe_out(stub: DaemonStub, sent: bytes) -> None:
    """Whatever they have begun to say: the probe gets its answer, and a silent one goes for it."""
    async with open_server(stub) as client, contextlib.AsyncExitStack() as stack:
        await silent(stub, stack, 1000, sent)
        async with asyncio.timeout(5):
            assert (await client.get("/healthz")).status_code == 200


async def test_connections_that_wait_go_before_those_with_a_request_in_flight(stub: DaemonStub) -> None:
    """One that waits for the end of a pass stays, however many come after it."""
    stub.limits = ServerLimits(connections=20, connections_each=10)
    async with open_server(stub) as client, contextlib.AsyncExitStack() as stack:
        asked = asyncio.create_task(client.post("/api/reconcile?wait=1", headers=BEARER))
        async with asyncio.timeout(20):
            while not stub.triggers:  # noqa: ASYNC110 - the server has no event for it
                await asyncio.sleep(0.001)
        await silent(stub, stack, 40)
        assert (await client.get("/healthz")).status_code == 200
        stub.passed.set()
        assert (await asked).status_code == 202


async def test_the_address_with_the_most_connections_loses_one_for_a_new_one(stub: DaemonStub) -> None:
    """The only connection of a probe stays, though it is the oldest that waits."""
    stub.limits = ServerLimits(connections=20, connections_each=10)
    async with open_server(stub), connected(stub, "127.0.0.9") as (reader, writer), contextlib.AsyncExitStack() as stack:
        for number in range(60):
            await stack.enter_async_context(connected(stub, f"127.0.0.{2 + number % 3}"))
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert (await reader.read()).endswith(b"ok\n")


async def test_of_pipelined_requests_the_first_is_answered_and_the_connection_closed(stub: DaemonStub) -> None:
    """A connection whose requests wait for their answers stays open."""
    request = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    async with open_server(stub), connected(stub) as (reader, writer):
        for _ in range(2):
            writer.write(request)
            assert await reader.readuntil(b"ok\n")
        writer.write(request * 50)
        assert (await reader.read()).count(b"ok\n") == 1


async def test_metrics_are_rendered_once_a_second_however_many_ask(stub: DaemonStub, client: httpx.AsyncClient) -> None:
    """They take some ms of the loop, and nobody needs a token for them."""
    for age, renderings in ((0.0, 1), (0.9, 1), (0.2, 2)):
        await stub.clock.sleep(age)
        assert (await client.get("/metrics")).text == "kapso_sync_suspended 0\n"
        assert stub.renderings == renderings


async def test_bodies_that_are_held_open_do_not_fill_the_memory(stub: DaemonStub) -> None:
    """Those that were begun first are dropped; a push that comes meanwhile is taken."""
    stub.limits = ServerLimits(bodies=100_000)
    head = b"POST /hooks/git HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000\r\n\r\n"
    async with open_server(stub), connected(stub) as (first_reader, first), connected(stub) as (second_reader, second):
        first.write(head + b"x" * 59_999)
        second.write(head + b"x" * 59_999)
        readers = [asyncio.create_task(reader.readline()) for reader in (first_reader, second_reader)]
        done, rest = await asyncio.wait(readers, timeout=5, return_when=asyncio.FIRST_COMPLETED)
        assert [b" 503 " in task.result() for task in done] == [True]
        for writer in (first, second):
            writer.write(b"x")
        assert [b" 401 " in await task for task in rest] == [True]


async def test_request_bodies_above_the_limit_are_413(client: httpx.AsyncClient) -> None:
    """With Content-Length or in chunks, and the client can read the response; a body at the limit is accepted."""
    large = b"x" * (2 * 1024 * 1024)

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(large), 65536):
            yield large[start : start + 65536]

    for content in (large, chunks(), b"x" * (1024 * 1024 + 1)):
        answer = await client.post("/hooks/git", content=content, headers=SIGNED)
        assert (answer.status_code, "error" in answer.json()) == (413, True)
    assert (await client.post("/hooks/git", content=b"x" * 1024 * 1024, headers=SIGNED)).status_code == 401


async def test_a_huge_content_length_closes_the_connection(stub: DaemonStub, client: httpx.AsyncClient) -> None:
    """The body is not read."""
    async with connected(stub) as (reader, writer):
        writer.write(b"POST /hooks/git HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n")
        assert b" 413 " in (await reader.read()).splitlines()[0]
    async with connected(stub) as (reader, writer):
        writer.write(b"POST /hooks/git HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2000000\r\nExpect: 100-continue\r\n\r\n")
        assert b" 413 " in (await reader.read()).splitlines()[0]


@pytest.mark.parametrize(
    "sent",
    [
        b"NONSENSE\r\n\r\n",
        b"POST /hooks/git HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nZZZ\r\n",
    ],
)
async def test_a_request_that_is_not_http_is_a_400_with_security_headers(
    stub: DaemonStub, client: httpx.AsyncClient, sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """As JSON, and nothing of it is logged."""
    async with connected(stub) as (reader, writer):
        writer.write(sent)
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    assert b" 400 " in head.splitlines()[0]
    assert b"Content-Security-Policy" in head
    assert list(json.loads(body)) == ["error"]
    assert caplog.records == []


async def test_an_endless_request_head_closes_the_connection(stub: DaemonStub, client: httpx.AsyncClient) -> None:
    """Long before it fills the memory."""
    async with connected(stub) as (reader, writer):
        with contextlib.suppress(ConnectionError):
            writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 1_000_000)
            async with asyncio.timeout(20):
                await reader.read()


async def test_a_client_that_disconnects_causes_no_traceback(
    stub: DaemonStub, client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    """During a body, the event stream, or a wait for a pass."""
    for sent in (
        b"POST /hooks/git HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\nx",
        b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST /api/reconcile?wait=1 HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + TOKEN.encode() + b"\r\n\r\n",
    ):
        async with connected(stub) as (_, writer):
            writer.write(sent)
            await asyncio.sleep(0.05)
    await asyncio.sleep(0.05)
    assert caplog.records == []


async def test_a_slow_request_head_or_body_times_out(stub: DaemonStub) -> None:
    """The connection is closed in time, and others are served meanwhile."""
    stub.limits = ServerLimits(body_timeout=0.2, head_timeout=0.3)
    async with open_server(stub) as client:
        port = int(stub.url.rpartition(":")[2])
        pairs = [await asyncio.open_connection("127.0.0.1", port) for _ in range(50)]
        for number, (_, writer) in enumerate(pairs):
            writer.write(
                b"GET / HT" if number % 2 else b"POST /hooks/git HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\nx"
            )
        assert (await client.get("/")).status_code == 200
        async with asyncio.timeout(20):
            heads = [await reader.read(100_000) for reader, _ in pairs]
        assert all(head == b"" for number, head in enumerate(heads) if number % 2)
        assert all(b" 408 " in head for number, head in enumerate(heads) if not number % 2)
        for _, writer in pairs:
            writer.close()


async def test_the_event_stream_sends_each_change(stub: DaemonStub, client: httpx.AsyncClient) -> None:
    """A change that happens while one is sent comes next."""
    async with client.stream("GET", "/events") as answer, asyncio.timeout(20):
        lines = answer.aiter_lines()
        assert await anext(lines) == "retry: 3000"
        for _ in range(3):
            stub.change.set()
            assert await until(lines, "event:") == "event: changed"


async def test_the_event_stream_sends_keepalives(stub: DaemonStub) -> None:
    """And loses no change by it."""
    stub.limits = ServerLimits(heartbeat=0.02)
    async with open_server(stub) as client, client.stream("GET", "/events") as answer, asyncio.timeout(20):
        lines = answer.aiter_lines()
        assert await until(lines, ":") == ": still here"
        stub.change.set()
        assert await until(lines, "event:") == "event: changed"


async def test_the_number_of_event_streams_is_limited(stub: DaemonStub) -> None:
    """A place is free again when a client disconnects; a HEAD request takes none. Of many at the same time, no more get in."""
    stub.limits = ServerLimits(streams=1)
    async with open_server(stub) as client, asyncio.timeout(20):
        assert (await client.head("/events")).status_code == 200
        async with client.stream("GET", "/events") as first:
            await anext(first.aiter_lines())
            assert (await client.get("/events")).status_code == 503
        while (await client.head("/events")).status_code == 503:  # noqa: ASYNC110 - the server has no event for it
            await asyncio.sleep(0.01)
    async with open_server(stub), contextlib.AsyncExitStack() as stack:
        both = [await stack.enter_async_context(connected(stub)) for _ in range(20)]
        for _, writer in both:
            writer.write(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answers = [await reader.readline() for reader, _ in both]
        assert [b" 200 " in answer for answer in answers].count(True) == 1


async def test_a_shutdown_ends_event_streams_at_once(stub: DaemonStub, caplog: pytest.LogCaptureFixture) -> None:
    """Without an error; a client that waits for a pass gets the shutdown's grace period."""
    loop = asyncio.get_running_loop()
    async with contextlib.AsyncExitStack() as kept:
        async with open_server(stub):
            reader, writer = await kept.enter_async_context(connected(stub))
            writer.write(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await reader.readuntil(b"retry")
            started = loop.time()
        assert loop.time() - started < 0.5
    async with contextlib.AsyncExitStack() as kept:
        async with open_server(stub):
            reader, writer = await kept.enter_async_context(connected(stub))
            writer.write(b"POST /api/reconcile?wait=1 HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + TOKEN.encode())
            writer.write(b"\r\n\r\n")
            async with asyncio.timeout(20):
                while not stub.triggers:  # noqa: ASYNC110 - the server has no event for it
                    await asyncio.sleep(0.001)
            loop.call_later(0.1, stub.passed.set)
        assert b" 202 " in (await reader.read()).splitlines()[0]
    assert caplog.records == []


async def test_responses_are_not_delayed_by_nagles_algorithm(client: httpx.AsyncClient) -> None:
    """It would delay each one by 40 ms."""
    loop = asyncio.get_running_loop()
    await client.get("/healthz")
    started = loop.time()
    for _ in range(25):
        await client.get("/")
    assert loop.time() - started < 0.7


async def test_status_is_json_with_the_documented_keys(client: httpx.AsyncClient) -> None:
    """The command line prints the same."""
    document = (await client.get("/api/status")).json()
    page = json.dumps(document)
    assert document["functions"][0]["state"] == "Ready"
    assert {"version", "source", "revision", "in_sync", "last_pass", "next_check_at", "rate_limit", "events"} <= set(document)
    assert TOKEN not in page
    assert SECRET not in page


def test_every_status_field_is_documented() -> None:
    """The page lists each one, in the right table."""
    page = (Path(__file__).parents[2] / "docs" / "status.md").read_text(encoding="utf-8")
    text = page.split("## The document")[1].split("## Endpoints")[0]
    whole, of_a_function = text.split("Of each function:")
    document = status_document(replace(BAD, suspension=Suspension("why not", NOW)))
    parts = [document[name] for name in ("revision", "suspended", "last_pass", "rate_limit")]
    functions, events = document["functions"], document["events"]
    assert isinstance(functions, list)
    assert isinstance(events, list)
    names = {name for part in (document, *parts, events[0]) if isinstance(part, dict) for name in part}
    assert names - set(re.findall(r"`(\w+)`", whole)) == set()
    assert isinstance(functions[0], dict)
    conditions = functions[0]["conditions"]
    assert isinstance(conditions, list)
    assert isinstance(conditions[0], dict)
    assert {*functions[0], *conditions[0]} - set(re.findall(r"`(\w+)`", of_a_function)) == set()
