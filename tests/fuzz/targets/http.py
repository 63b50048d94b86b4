"""Raw requests to the daemon's HTTP server, one a section: ``@token`` is the admin token, ``@sign`` a true signature."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac

from kapso_sync.server.control import ServerLimits
from tests.fuzz.archive import pack, unpack
from tests.fuzz.grammar import Draw, dumps
from tests.fuzz.promises import BrokenPromise
from tests.fuzz.target import Target
from tests.server.front import SECRET, TOKEN, DaemonStub, connected, open_server
from tests.server.statuses import BAD, STANDBY

MAX_REQUESTS = 6
LIMITS = ServerLimits(head_timeout=0.1, body_timeout=0.1)
OPEN = ("/healthz", "/readyz", "/metrics", "/hooks/git", "/static/")
"""What a stranger gets of a server that listens publicly."""


def run(data: bytes) -> None:
    """Send the requests to a public server and to one on loopback."""
    for stub in (DaemonStub(BAD, public=True, limits=LIMITS), DaemonStub(STANDBY, limits=LIMITS)):
        stub.passed.set()
        asyncio.run(_ask(stub, [content for _, content in unpack(data)][:MAX_REQUESTS]))


async def _ask(stub: DaemonStub, requests: list[bytes]) -> None:
    async with open_server(stub):
        for request in requests:
            before = (len(stub.triggers), len(stub.suspensions))
            answer = await _answer(stub, _raw(request))
            check(request, answer, changed=before != (len(stub.triggers), len(stub.suspensions)), public=stub.public)


def _raw(request: bytes) -> bytes:
    head, _, body = request.partition(b"\n\n")
    signature = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest().encode()
    head = head.replace(b"@token", TOKEN.encode()).replace(b"@sign", signature).replace(b"@length", b"%d" % len(body))
    return head.replace(b"\n", b"\r\n") + b"\r\n\r\n" + body


async def _answer(stub: DaemonStub, request: bytes) -> bytes:
    """Return the head of the answer and the first bytes of its body; nothing if the connection was closed."""
    async with connected(stub) as (reader, writer):
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            writer.write(request)
            await writer.drain()
            head = await reader.readuntil(b"\r\n\r\n")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.01):
                    return head + await reader.read(1 << 20)
            return head
    return b""


def check(request: bytes, answer: bytes, *, changed: bool, public: bool) -> None:
    """Raise `BrokenPromise` for an answer that no stranger, or nobody at all, may get."""
    known = any(given in request for given in (b"@token", TOKEN.encode(), BASIC))
    if changed and not known and b"@sign" not in request:
        raise BrokenPromise(f"a stranger changes something: {request[:300]!r}")
    if not answer:
        return
    status = int(answer.split(b" ", 2)[1])
    if status >= 500 or b"Traceback" in answer:
        raise BrokenPromise(f"answers {answer[:300]!r}")
    if TOKEN.encode() in answer or SECRET.encode() in answer:
        raise BrokenPromise(f"shows a secret: {answer[:300]!r}")
    if b"x-content-type-options: nosniff" not in answer.lower():
        raise BrokenPromise(f"answers without the safe headers: {answer[:300]!r}")
    target = request.split(b"\n", 1)[0].split(b" ")[1:2]
    path = target[0].decode("latin-1").replace("%2f", "/") if target else ""
    if public and not known and 200 <= status < 300 and not any(name in path for name in OPEN):
        raise BrokenPromise(f"lets a stranger read: {request[:300]!r}")


BASIC = base64.b64encode(b":" + TOKEN.encode())
"""The token as the password of HTTP Basic."""

PATHS = (
    "/",
    "/healthz",
    "/readyz",
    "/metrics",
    "/api/status",
    "/events",
    "/static/page.css",
    "/static/..%2fapp.py",
    "/static/%00",
    "/hooks/git",
    "/api/reconcile",
    "/api/reconcile?wait=1&retry=going-up&delete=%ff",
    "/api/reconcile?retry=a%0d%0aX:y&take_from=",
    "/api/suspend",
    "/api/resume",
    "//api/suspend",
    "/api/suspend/",
    "/api/%73uspend",
    "/API/SUSPEND",
    "http://x/api/suspend",
    "*",
    "/%",
    "/\xff",
)
HEADERS = (
    "Authorization: Bearer @token",
    f"Authorization: Basic {BASIC.decode()}",
    "Authorization: Bearer \xff",
    "Authorization: Bearer",
    "Authorization: Basic !",
    "X-Hub-Signature-256: sha256=@sign",
    "X-Hub-Signature-256: sha256=00",
    "X-GitHub-Event: push",
    "X-GitHub-Event: ping",
    "Content-Type: application/x-www-form-urlencoded",
    "Content-Length: 99999999999999999999999",
    "Content-Length: -1",
    "Transfer-Encoding: chunked",
    "Expect: 100-continue",
    "Upgrade: websocket",
    "Range: bytes=0-1,5-",
    "If-Modified-Since: x",
    "If-Range: \xff",
    "X-Forwarded-For: 10.0.0.1",
    "Host: evil.example",
    "Host: [",
    "Origin: null",
    "Connection: close",
)


def make(draw: Draw) -> bytes:
    """One to three requests."""
    found = {}
    for number in range(draw.random.randint(1, 3)):
        method = draw.pick(("GET", "POST", "POST", "HEAD", "PUT", "OPTIONS", "TRACE", "CONNECT", "get"))
        lines = [f"{method} {draw.pick(PATHS)} HTTP/1.{draw.pick((1, 1, 0))}", *draw.several(HEADERS, 4)]
        lines += ["Host: localhost"] * (not draw.chance(0.1)) + ["Content-Length: @length"] * (not draw.chance(0.1))
        body = draw.object(
            {
                "reason": draw.text,
                "for_seconds": lambda: draw.pick((1, 0, -1, 10**400, 1e308)),
                "ref": "refs/heads/main",
                "repository": {"clone_url": "https://github.com/acme/flows"},
            }
        )
        found[str(number)] = "\n".join(lines).encode("latin-1") + b"\n\n" + dumps(body)
    return pack(found)


TOKENS = tuple(text.encode("latin-1") for text in (*PATHS, *HEADERS))
TARGETS = (Target("http", run, make, TOKENS, share=0.5),)
