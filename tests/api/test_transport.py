"""One request against a hostile network: bounded in time and memory, repeated only where that does no harm."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Awaitable, Callable

import pytest

from kapso_sync.api import TransportSettings
from kapso_sync.errors import (
    ApiConflict,
    ApiError,
    ApiGarbled,
    ApiNotFound,
    ApiRateLimited,
    ApiRejected,
    ApiUnauthorized,
    ApiUnavailable,
    ApiUnsupported,
    ExitCode,
)
from kapso_sync.model.events import ApiCalled, ApiRetry
from tests.api.servers import KEY, Line, answer, hang, listing, record, talking

NEW = {"slug": "greet", "name": "Greet", "code": "x"}
CREATED = answer(201, {"data": record()})


async def drop(writer: asyncio.StreamWriter) -> None:
    """Close without an answer."""


async def drip(writer: asyncio.StreamWriter) -> None:
    """A byte at a time, each before any timeout between bytes."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    for _ in range(1000):
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.02)


async def truncate(writer: asyncio.StreamWriter) -> None:
    """Promise more than is sent."""
    writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"data": [')
    await writer.drain()


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (400, ApiRejected, ExitCode.FUNCTION_FAILED),
        (401, ApiUnauthorized, ExitCode.KEY_REJECTED),
        (403, ApiUnauthorized, ExitCode.KEY_REJECTED),
        (404, ApiNotFound, ExitCode.FUNCTION_FAILED),
        (405, ApiUnsupported, ExitCode.FUNCTION_FAILED),
        (409, ApiConflict, ExitCode.FUNCTION_FAILED),
        (418, ApiRejected, ExitCode.FUNCTION_FAILED),
        (422, ApiRejected, ExitCode.FUNCTION_FAILED),
    ],
)
async def test_a_refusal_is_told_by_its_own_error_and_not_repeated(status: int, kind: type[ApiError], code: ExitCode) -> None:
    """One class a meaning, with method, route, status and the server's words in one line."""
    async with talking(answer(status, {"error": "Not\nlike   this"})) as line:
        with pytest.raises(kind) as raised:
            await line.api.deploy_function("id-1")
    error = raised.value
    assert (error.call.method, error.call.route, error.status) == ("POST", "/functions/{id}/deploy", status)
    assert error.message == f"POST /functions/{{id}}/deploy answered {status}: Not like this"
    assert error.exit_code is code
    assert len(line.server.requests) == 1


@pytest.mark.parametrize("status", [408, 500, 502, 503, 504, 599])
async def test_a_server_in_trouble_is_asked_again_with_pauses(status: int) -> None:
    """Five times with growing pauses, then 69; each repeat is told."""
    async with talking(answer(status, raw=b"<html>down</html>")) as line:
        with pytest.raises(ApiUnavailable) as raised:
            await line.api.list_functions()
    waits = [event.wait_s for event in line.told if isinstance(event, ApiRetry)]
    assert waits == [0.25, 0.5, 1.0, 2.0]
    assert len(line.server.requests) == line.transport.calls == 5
    assert raised.value.exit_code is ExitCode.UNAVAILABLE
    assert raised.value.hint


@pytest.mark.parametrize("trouble", [answer(500), drop, truncate, answer(200, raw=b"<!DOCTYPE html>"), answer(200, raw=b"")])
async def test_a_lost_answer_is_asked_for_again(trouble: bytes | Callable[[asyncio.StreamWriter], Awaitable[None]]) -> None:
    """Reading, updating, deploying and deleting can be repeated: one bad moment costs nothing."""
    async with talking(trouble, listing("greet")) as line:
        (function,) = await line.api.list_functions()
    assert function.slug == "greet"
    assert line.names().count("api.retry") == 1


@pytest.mark.parametrize("trouble", [answer(500), drop, truncate, answer(201, raw=b"<!DOCTYPE html>")])
async def test_a_create_that_may_have_arrived_is_never_repeated_blindly(
    trouble: bytes | Callable[[asyncio.StreamWriter], Awaitable[None]],
) -> None:
    """Who sends it must look first whether the function is there."""
    async with talking(trouble, CREATED) as line:
        with pytest.raises((ApiUnavailable, ApiGarbled)) as raised:
            await line.api.create_function(NEW)
    assert len(line.server.requests) == 1
    assert getattr(raised.value, "sent", True)


async def test_a_create_that_never_left_is_repeated() -> None:
    """No connection means no function: that can be tried again."""
    async with talking(CREATED) as line:
        line.transport.base_url = "http://127.0.0.1:9"
        with pytest.raises(ApiUnavailable) as raised:
            await line.api.create_function(NEW)
    assert not raised.value.sent
    assert line.transport.calls == 5


@pytest.mark.parametrize("silent", [hang, drip])
async def test_the_deadline_holds_for_the_whole_request(silent: Callable[[asyncio.StreamWriter], Awaitable[None]]) -> None:
    """An answer that trickles is no better than none."""
    async with talking(silent, settings=TransportSettings(deadline=0.15, attempts=1)) as line:
        started = asyncio.get_running_loop().time()
        with pytest.raises(ApiUnavailable, match=r"got no answer within 0\.15 s"):
            await line.api.list_functions()
        assert asyncio.get_running_loop().time() - started < 1.5


@pytest.mark.parametrize(
    "bomb",
    [
        answer(200, raw=b"x" * 3_000_000),
        answer(200, raw=gzip.compress(b"x" * 200_000_000, 1), headers={"Content-Encoding": "gzip"}),
    ],
    ids=["large", "gzip-bomb"],
)
async def test_an_answer_beyond_the_limit_is_dropped(bomb: bytes) -> None:
    """What unpacks to hundreds of megabytes is not unpacked to its end."""
    async with talking(bomb, settings=TransportSettings(max_bytes=2 * 1024 * 1024, attempts=1)) as line:
        with pytest.raises(ApiGarbled, match="more than 2 MiB"):
            await line.api.list_functions()


async def test_broken_compression_is_garbage() -> None:
    """No foreign exception reaches the core."""
    async with talking(
        answer(200, raw=b"no gzip", headers={"Content-Encoding": "gzip"}), settings=TransportSettings(attempts=1)
    ) as line:
        with pytest.raises(ApiGarbled, match="broken compression"):
            await line.api.list_functions()


@pytest.mark.parametrize(
    "garbage", [b"\x00\xff\x00garbage\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: no\r\n\r\n", b"220 ftp\r\n"]
)
async def test_what_is_no_http_is_no_answer(garbage: bytes) -> None:
    """A wrong port gives an error, not a traceback."""
    async with talking(garbage, settings=TransportSettings(attempts=1)) as line:
        with pytest.raises(ApiUnavailable, match="the connection broke"):
            await line.api.list_functions()


async def test_a_redirect_is_refused_and_the_key_stays_here() -> None:
    """Another host never sees the key; the error names the setting to look at."""
    async with talking(listing()) as elsewhere:
        target = elsewhere.transport.base_url
        async with talking(
            answer(307, headers={"Location": f"{target}/functions"}), settings=TransportSettings(attempts=1)
        ) as line:
            with pytest.raises(ApiGarbled, match=r"a redirect to 127\.0\.0\.1; the key is not sent there") as raised:
                await line.api.list_functions()
        assert "KAPSO_API_BASE_URL" in str(raised.value.hint)
        assert elsewhere.server.requests == []


@pytest.mark.parametrize(
    ("header", "waited"),
    [("7", 7.0), ("0", 1.0), ("-3", 1.0), ("99999", 120.0), ("soon", 60.0), ("nan", 60.0), ("inf", 120.0), (None, 60.0)],
)
async def test_a_429_waits_as_told_within_bounds(header: str | None, waited: float) -> None:
    """Even a create is repeated after it: the server said that it did nothing."""
    headers = {} if header is None else {"Retry-After": header}
    async with talking(answer(429, {"error": "slow down"}, headers=headers), CREATED) as line:
        await line.api.create_function(NEW)
        assert line.clock.monotonic() == waited


async def test_endless_429_ends() -> None:
    """Patience is bounded: 69, with a hint."""
    async with talking(answer(429, headers={"Retry-After": "100"})) as line:
        with pytest.raises(ApiRateLimited) as raised:
            await line.api.list_functions()
    assert raised.value.exit_code is ExitCode.UNAVAILABLE
    assert line.clock.monotonic() <= 300


async def test_each_request_is_told_with_what_remains() -> None:
    """Method, route, status, and the rate limit's numbers."""
    headers = {"X-RateLimit-Limit": "100", "X-RateLimit-Remaining": "93"}
    async with talking(answer(200, {"data": []}, headers=headers)) as line:
        await line.api.list_functions()
    (called,) = [event for event in line.told if isinstance(event, ApiCalled)]
    assert (called.method, called.route, called.status) == ("GET", "/functions", 200)
    assert (called.rate_limit, called.rate_remaining) == (100, 93)


async def test_the_key_is_sent_in_its_header_and_shows_nowhere_else() -> None:
    """Not in the address, not in an error, not even where the server says it back."""
    async with talking(answer(422, {"error": f"Key {KEY} is not welcome"}), settings=TransportSettings(attempts=1)) as line:
        with pytest.raises(ApiRejected) as raised:
            await line.api.list_functions()
    (request,) = line.server.requests
    assert request.count(KEY.encode()) == 1
    assert f"\r\nX-API-Key: {KEY}\r\n".encode() in request
    assert KEY not in repr(line.transport) + repr(line.api)
    assert "x" * 10 not in raised.value.message


async def test_the_servers_words_are_cut() -> None:
    """A page of text makes no log line."""
    async with talking(answer(422, {"error": "word " * 1000})) as line:
        with pytest.raises(ApiRejected) as raised:
            await line.api.list_functions()
    assert len(raised.value.message) < 400


async def test_requests_beyond_the_concurrency_wait() -> None:
    """So many at once, and no more: the connections of cancelled ones leak in the library below."""
    at_once, most = [0], [0]

    async def slow(writer: asyncio.StreamWriter) -> None:
        at_once[0] += 1
        most[0] = max(most[0], at_once[0])
        await asyncio.sleep(0.01)
        at_once[0] -= 1
        writer.write(answer(200, {"data": record()}, headers={"X-RateLimit-Limit": "100", "X-RateLimit-Remaining": "50"}))
        await writer.drain()

    async with talking(slow, settings=TransportSettings(concurrency=3)) as line:
        await asyncio.gather(*(line.api.get_function(f"id-{number}") for number in range(12)))
    assert most == [3]


async def test_cancelled_requests_leave_the_line_usable() -> None:
    """Ten cancelled requests in a row cost no slot and no ticket."""
    async with talking(*[hang] * 10, listing("greet"), settings=TransportSettings(concurrency=2)) as line:
        for _ in range(10):
            task = asyncio.create_task(line.api.list_functions())
            await _asked(line, task)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        assert [function.slug for function in await line.api.list_functions()] == ["greet"]


async def _asked(line: Line, task: asyncio.Task[object]) -> None:
    before = len(line.server.requests)
    async with asyncio.timeout(5):
        while len(line.server.requests) == before:
            assert not task.done()
            await asyncio.sleep(0.001)
