"""The endpoints: what they answer, to whom, and under which headers."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator

import httpx
import pytest

from kapso_sync.server import app as application
from tests.server.front import SECRET, TOKEN, Front, open_front
from tests.server.test_hooks import BODY, hexed

BEARER = {"Authorization": f"Bearer {TOKEN}"}
SIGNED = {"X-Hub-Signature-256": f"sha256={hexed(BODY)}", "X-GitHub-Event": "push"}


@pytest.fixture
def front() -> Front:
    return Front()


@pytest.fixture
async def client(front: Front) -> AsyncIterator[httpx.AsyncClient]:
    async with open_front(front) as running:
        yield running


async def test_health_is_the_daemons_own(front: Front, client: httpx.AsyncClient) -> None:
    """200 while the loop lives, 503 with the reason when it does not; nothing remote counts."""
    assert (await client.get("/healthz")).status_code == 200
    front.problem = "the loop has been silent for 61 s"
    answer = await client.get("/healthz")
    assert (answer.status_code, answer.text) == (503, "the loop has been silent for 61 s\n")


async def test_ready_means_that_the_first_look_was_taken(front: Front, client: httpx.AsyncClient) -> None:
    """Whatever it showed."""
    assert (await client.get("/readyz")).status_code == 200
    front.ready = False
    assert (await client.get("/readyz")).status_code == 503


@pytest.mark.parametrize("path", ["/", "/healthz", "/api/status", "/metrics", "/nowhere", "/static/page.css", "/hooks/git"])
async def test_every_answer_is_guarded(client: httpx.AsyncClient, path: str) -> None:
    """No sniffing, no caching, no framing, nothing from elsewhere, and no word about the server."""
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
async def test_off_loopback_looking_needs_the_token(path: str) -> None:
    """As bearer, or as the password of HTTP Basic; health, readiness and metrics stay open."""
    basic = base64.b64encode(f"anyone:{TOKEN}".encode()).decode()
    async with open_front(Front(public=True)) as client:
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


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8321", "localhost.evil.example", ""])
async def test_a_page_elsewhere_cannot_look_through_a_browser(client: httpx.AsyncClient, host: str) -> None:
    """A name of somebody else's that leads to loopback is not answered."""
    assert (await client.get("/", headers={"Host": host})).status_code in (400, 403)
    assert (await client.post("/api/resume", headers={"Host": host, **BEARER})).status_code in (400, 403)


async def test_people_need_the_token_to_act(front: Front, client: httpx.AsyncClient) -> None:
    """Bearer only, even on loopback: a browser never sends one by itself."""
    basic = base64.b64encode(f"x:{TOKEN}".encode()).decode()
    for path in ("/api/reconcile", "/api/suspend", "/api/resume"):
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {basic}"}):
            assert (await client.post(path, headers=headers, json={"reason": "x"})).status_code == 401
    assert front.triggers == []
    assert (await client.post("/api/reconcile", headers=BEARER)).status_code == 202
    assert (await client.post("/api/resume", headers=BEARER)).status_code == 202
    assert front.triggers == ["reconcile", "resume"]


async def test_reconcile_can_be_waited_for(front: Front, client: httpx.AsyncClient) -> None:
    """The answer comes with the end of the pass, and carries what came of it."""
    asked = asyncio.create_task(client.post("/api/reconcile?wait=1", headers=BEARER))
    async with asyncio.timeout(5):
        while not front.triggers:  # noqa: ASYNC110 - the server has no event for it
            await asyncio.sleep(0.001)
    assert not asked.done()
    front.passed.set()
    answer = (await asked).json()
    assert (answer["exit_code"], answer["status"]["in_sync"]) == (0, True)


@pytest.mark.parametrize(
    ("body", "suspension"),
    [({"reason": "moving"}, ("moving", None)), ({"reason": " a\n b ", "for_seconds": 60}, ("a b", 60))],
)
async def test_suspending_takes_a_reason(front: Front, client: httpx.AsyncClient, body: object, suspension: object) -> None:
    """And, if wanted, an end."""
    assert (await client.post("/api/suspend", headers=BEARER, json=body)).status_code == 202
    assert front.suspensions == [suspension]


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"[]", b"{}", b'"x"', b'{"reason": ""}', b'{"reason": 7}', b"[" * 10_000),
        *(b'{"reason": "x", "for_seconds": -1}', b'{"reason": "x", "for_seconds": true}'),
        b'{"reason": "x", "for_seconds": 1e300}',
    ],
)
async def test_suspending_without_sense_is_400(front: Front, client: httpx.AsyncClient, body: bytes) -> None:
    """Nobody shall be suspended by accident."""
    assert (await client.post("/api/suspend", headers=BEARER, content=body)).status_code == 400
    assert front.suspensions == []


async def test_a_push_rings_and_is_answered_before_any_work(front: Front, client: httpx.AsyncClient) -> None:
    """202 with a delivery id; the same delivery again is taken, and rings no more."""
    headers = {**SIGNED, "X-GitHub-Delivery": "d-1"}
    first = await client.post("/hooks/git", content=BODY, headers=headers)
    assert (first.status_code, first.json()) == (202, {"delivery": "d-1"})
    again = await client.post("/hooks/git", content=BODY, headers=headers)
    assert (again.status_code, "ignored" in again.json()) == (202, True)
    assert front.triggers == ["webhook"]


async def test_a_push_elsewhere_and_a_ping_ring_nothing(front: Front, client: httpx.AsyncClient) -> None:
    """Told why; and without a secret there is no hook at all."""
    front.watched = ("https://github.com/acme/other", None)
    answer = await client.post("/hooks/git", content=BODY, headers=SIGNED)
    assert (answer.status_code, answer.json()["ignored"]) == (202, "another repository")
    ping = {**SIGNED, "X-GitHub-Event": "ping"}
    assert (await client.post("/hooks/git", content=BODY, headers=ping)).status_code == 200
    assert (await client.post("/hooks/git", content=BODY, headers={"X-Signature": ""})).status_code == 401
    front.secret = None
    assert (await client.post("/hooks/git", content=BODY, headers=SIGNED)).status_code == 404
    assert front.triggers == []


async def test_replay_memory_is_bounded(client: httpx.AsyncClient, front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many deliveries are known, and the oldest are forgotten first."""
    monkeypatch.setattr(application, "REMEMBERED", 5)
    for number in (*range(10), 9, 0):
        await client.post("/hooks/git", content=BODY, headers={**SIGNED, "X-GitHub-Delivery": f"d-{number}"})
    assert len(front.triggers) == 11


async def test_bodies_beyond_the_limit_are_refused(client: httpx.AsyncClient) -> None:
    """Announced or in chunks: 413, without reading to the end."""
    large = b"x" * (2 * 1024 * 1024)

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(large), 65536):
            yield large[start : start + 65536]

    for content in (large, chunks()):
        try:
            answer = await client.post("/hooks/git", content=content, headers=SIGNED)
        except httpx.NetworkError:
            continue  # the connection was closed while we still wrote: refused as well
        assert answer.status_code == 413


async def test_a_request_that_does_not_come_is_not_waited_for(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    """A head or a body that trickles: the connection is closed in time, and others are served meanwhile."""
    monkeypatch.setattr("kapso_sync.server.body.SECONDS", 0.2)
    monkeypatch.setattr("kapso_sync.server.serve.HEADER_SECONDS", 0.3)
    async with open_front(front) as client:
        port = int(front.url.rpartition(":")[2])
        pairs = [await asyncio.open_connection("127.0.0.1", port) for _ in range(50)]
        for number, (_, writer) in enumerate(pairs):
            writer.write(
                b"GET / HT" if number % 2 else b"POST /hooks/git HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\nx"
            )
        assert (await client.get("/")).status_code == 200
        async with asyncio.timeout(5):
            heads = [await reader.read(100_000) for reader, _ in pairs]
        assert all(head == b"" for number, head in enumerate(heads) if number % 2)
        assert all(b" 408 " in head for number, head in enumerate(heads) if not number % 2)
        for _, writer in pairs:
            writer.close()


async def test_changes_are_told_as_they_happen(front: Front, client: httpx.AsyncClient) -> None:
    """One event for each change."""
    async with client.stream("GET", "/events") as answer:
        lines = answer.aiter_lines()
        assert await anext(lines) == "retry: 3000"
        front.change.set()
        async with asyncio.timeout(5):
            async for line in lines:
                if line.startswith("event:"):
                    break
        assert line == "event: changed"


async def test_status_is_json_with_the_documented_keys(client: httpx.AsyncClient) -> None:
    """The same that the command line prints."""
    document = (await client.get("/api/status")).json()
    page = json.dumps(document)
    assert document["functions"][0]["state"] == "Ready"
    assert {"version", "source", "revision", "in_sync", "last_pass", "next_check_at", "rate_limit", "events"} <= set(document)
    assert TOKEN not in page
    assert SECRET not in page
