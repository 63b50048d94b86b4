"""One HTTP request over an unreliable network: timeout, size limits, and retries only where they are safe."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Awaitable, Callable

import pytest

from kapso_sync import __version__
from kapso_sync.api.transport import ApiRequest, ApiResponse, TransportSettings
from kapso_sync.errors import (
    ApiConflict,
    ApiError,
    ApiForbidden,
    ApiGarbled,
    ApiNotFound,
    ApiPaymentRequired,
    ApiRateLimited,
    ApiRejected,
    ApiUnauthorized,
    ApiUnavailable,
    ApiUnsupported,
    Call,
    ExitCode,
    NotLeading,
    SecretNameTaken,
    SecretRoutesUnavailable,
)
from kapso_sync.model.events import ApiCalled, ApiRetry
from kapso_sync.model.functions import InvokeRequest
from kapso_sync.telemetry.redact import Redactor
from tests.api.servers import KEY, ClientHarness, answer, connected_client, hang, listing, record

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
        (402, ApiPaymentRequired, ExitCode.FUNCTION_FAILED),
        (403, ApiForbidden, ExitCode.FUNCTION_FAILED),
        (404, ApiNotFound, ExitCode.FUNCTION_FAILED),
        (405, ApiUnsupported, ExitCode.FUNCTION_FAILED),
        (409, ApiConflict, ExitCode.FUNCTION_FAILED),
        (418, ApiRejected, ExitCode.FUNCTION_FAILED),
        (422, ApiRejected, ExitCode.FUNCTION_FAILED),
    ],
)
async def test_each_http_error_status_raises_its_own_error_without_retry(
    status: int, kind: type[ApiError], code: ExitCode
) -> None:
    """One error class for each meaning, with method, route, status and the server's message in one line."""
    async with connected_client(answer(status, {"error": "Not\nlike   this"})) as line:
        with pytest.raises(kind) as raised:
            await line.api.deploy_function("id-1")
    error = raised.value
    assert (error.call.method, error.call.route, error.status) == ("POST", "/functions/{id}/deploy", status)
    assert error.message == f"POST /functions/{{id}}/deploy answered {status}: Not like this"
    assert error.exit_code is code
    assert len(line.server.requests) == 1


@pytest.mark.parametrize("status", [408, 500, 502, 503, 504, 599])
async def test_a_server_error_is_retried_with_backoff(status: int) -> None:
    """Five times with growing delays, then exit code 69; each retry is logged."""
    async with connected_client(answer(status, raw=b"<html>down</html>")) as line:
        with pytest.raises(ApiUnavailable) as raised:
            await line.api.list_functions()
    waits = [event.wait_s for event in line.told if isinstance(event, ApiRetry)]
    assert waits == [0.25, 0.5, 1.0, 2.0]
    assert len(line.server.requests) == line.transport.calls == 5
    assert raised.value.exit_code is ExitCode.UNAVAILABLE
    assert raised.value.hint


@pytest.mark.parametrize("trouble", [answer(500), drop, truncate, answer(200, raw=b"<!DOCTYPE html>"), answer(200, raw=b"")])
async def test_an_idempotent_request_without_an_answer_is_retried(
    trouble: bytes | Callable[[asyncio.StreamWriter], Awaitable[None]],
) -> None:
    """Reads, updates, deployments and deletions can be repeated safely."""
    async with connected_client(trouble, listing("greet")) as line:
        (function,) = await line.api.list_functions()
    assert function.slug == "greet"
    assert line.names().count("api.retry") == 1


@pytest.mark.parametrize("trouble", [answer(500), drop, truncate, answer(201, raw=b"<!DOCTYPE html>")])
async def test_a_create_without_an_answer_is_never_retried(
    trouble: bytes | Callable[[asyncio.StreamWriter], Awaitable[None]],
) -> None:
    """The caller must look first whether the function exists."""
    async with connected_client(trouble, CREATED) as line:
        with pytest.raises((ApiUnavailable, ApiGarbled)) as raised:
            await line.api.create_function(NEW)
    assert len(line.server.requests) == 1
    assert getattr(raised.value, "sent", True)


async def test_a_create_that_could_not_connect_is_retried() -> None:
    """Without a connection nothing was created."""
    async with connected_client(CREATED) as line:
        line.transport.base_url = "http://127.0.0.1:9"
        with pytest.raises(ApiUnavailable) as raised:
            await line.api.create_function(NEW)
    assert not raised.value.sent
    assert line.transport.calls == 5


@pytest.mark.parametrize("silent", [hang, drip])
async def test_the_request_timeout_covers_the_whole_request(silent: Callable[[asyncio.StreamWriter], Awaitable[None]]) -> None:
    """A response that arrives byte by byte also reaches the timeout."""
    async with connected_client(silent, settings=TransportSettings(deadline=0.15, attempts=1)) as line:
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
async def test_a_response_larger_than_the_limit_is_refused(bomb: bytes) -> None:
    """A body that decompresses to hundreds of megabytes is not decompressed to its end."""
    async with connected_client(bomb, settings=TransportSettings(max_bytes=2 * 1024 * 1024, attempts=1)) as line:
        with pytest.raises(ApiGarbled, match="more than 2 MiB"):
            await line.api.list_functions()


async def test_a_response_with_broken_compression_is_a_garbled_response() -> None:
    """The HTTP library's exception does not reach the caller."""
    async with connected_client(
        answer(200, raw=b"no gzip", headers={"Content-Encoding": "gzip"}), settings=TransportSettings(attempts=1)
    ) as line:
        with pytest.raises(ApiGarbled, match="broken compression"):
            await line.api.list_functions()


@pytest.mark.parametrize(
    "garbage", [b"\x00\xff\x00garbage\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: no\r\n\r\n", b"220 ftp\r\n"]
)
async def test_a_server_that_does_not_speak_http_is_an_error(garbage: bytes) -> None:
    """A wrong port gives an error, not a traceback."""
    async with connected_client(garbage, settings=TransportSettings(attempts=1)) as line:
        with pytest.raises(ApiUnavailable, match="the connection broke"):
            await line.api.list_functions()


async def test_a_redirect_is_refused_and_the_api_key_is_not_sent_to_it() -> None:
    """Another host never gets the key; the error names the setting to check."""
    async with connected_client(listing()) as elsewhere:
        target = elsewhere.transport.base_url
        async with connected_client(
            answer(307, headers={"Location": f"{target}/functions"}), settings=TransportSettings(attempts=1)
        ) as line:
            with pytest.raises(ApiGarbled, match=r"a redirect to 127\.0\.0\.1; the key is not sent there") as raised:
                await line.api.list_functions()
        assert "KAPSO_API_BASE_URL" in str(raised.value.hint)
        assert elsewhere.server.requests == []
        await elsewhere.api.list_functions()
        assert len(elsewhere.server.requests) == 1


@pytest.mark.parametrize(
    ("header", "waited"),
    [
        ("7", 7.0),
        ("0", 1.0),
        ("-3", 1.0),
        ("1.5", 1.5),
        ("99999", 120.0),
        ("soon", 60.0),
        ("nan", 60.0),
        ("inf", 120.0),
        (None, 60.0),
        ("Sun, 29 Nov 2026 06:00:30 GMT", 30.0),
        ("Sunday, 29-Nov-26 06:00:30 GMT", 30.0),
        ("Sun, 29 Nov 2026 05:59:00 GMT", 1.0),
        ("Sun, 29 Nov 2099 06:00:00 GMT", 120.0),
        ("Sun, 99 Nov 2026 06:00:30 GMT", 60.0),
        ("Sun, 29 Nov 2026 06:00:30 -0000", 60.0),
    ],
)
async def test_a_429_waits_for_retry_after_within_bounds(header: str | None, waited: float) -> None:
    """Even a create is retried after a 429: the server said that it did nothing. A date counts from the answer's own."""
    headers = {"Date": "Sun, 29 Nov 2026 06:00:00 GMT"} | ({} if header is None else {"Retry-After": header})
    async with connected_client(answer(429, {"error": "slow down"}, headers=headers), CREATED) as line:
        await line.api.create_function(NEW)
        assert line.clock.monotonic() == waited


async def test_repeated_429_responses_end_with_exit_code_69() -> None:
    """The number of retries is limited; the error has a hint."""
    async with connected_client(answer(429, headers={"Retry-After": "100"})) as line:
        with pytest.raises(ApiRateLimited) as raised:
            await line.api.list_functions()
    assert raised.value.exit_code is ExitCode.UNAVAILABLE
    assert line.clock.monotonic() <= 300


async def test_each_request_is_reported_with_the_remaining_rate_limit() -> None:
    """The event has method, route, status and the rate limit's numbers."""
    headers = {"X-RateLimit-Limit": "100", "X-RateLimit-Remaining": "93"}
    async with connected_client(answer(200, {"data": []}, headers=headers)) as line:
        await line.api.list_functions()
    (called,) = [event for event in line.told if isinstance(event, ApiCalled)]
    assert (called.method, called.route, called.status) == ("GET", "/functions", 200)
    assert (called.rate_limit, called.rate_remaining) == (100, 93)


async def test_the_api_key_is_sent_in_its_header_and_nowhere_else() -> None:
    """Not in the URL, not in an error, not even where the server quotes it."""
    redactor = Redactor()
    redactor.add(KEY)
    reply, once = answer(422, {"error": f"Key {KEY} is not welcome"}), TransportSettings(attempts=1)
    async with connected_client(reply, settings=once, scrub=redactor.text) as line:
        with pytest.raises(ApiRejected) as raised:
            await line.api.list_functions()
    (request,) = line.server.requests
    assert request.count(KEY.encode()) == 1
    assert f"\r\nX-API-Key: {KEY}\r\n".encode() in request
    assert KEY not in repr(line.transport) + repr(line.api)
    assert "is not welcome" in raised.value.message
    assert KEY not in raised.value.message


async def test_a_long_error_message_from_the_server_is_truncated() -> None:
    """A whole page of text does not fit into a log line."""
    async with connected_client(answer(422, {"error": "word " * 1000})) as line:
        with pytest.raises(ApiRejected) as raised:
            await line.api.list_functions()
    assert len(raised.value.message) < 400


async def test_requests_beyond_the_concurrency_limit_wait() -> None:
    """At most that many run at once, although the HTTP library leaks the connections of cancelled requests."""
    at_once, most = [0], [0]

    async def slow(writer: asyncio.StreamWriter) -> None:
        at_once[0] += 1
        most[0] = max(most[0], at_once[0])
        await asyncio.sleep(0.01)
        at_once[0] -= 1
        writer.write(answer(200, {"data": record()}, headers={"X-RateLimit-Limit": "100", "X-RateLimit-Remaining": "50"}))
        await writer.drain()

    async with connected_client(slow, settings=TransportSettings(concurrency=3)) as line:
        await asyncio.gather(*(line.api.get_function("id-greet") for _ in range(12)))
    assert most == [3]


async def test_cancelled_requests_free_their_connection_and_rate_limit_slot() -> None:
    """Ten cancelled requests in a row use up no connection and no rate limit."""
    async with connected_client(*[hang] * 10, listing("greet"), settings=TransportSettings(concurrency=2)) as line:
        for _ in range(10):
            task = asyncio.create_task(line.api.list_functions())
            await _asked(line, task)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        assert [function.slug for function in await line.api.list_functions()] == ["greet"]


async def _asked(line: ClientHarness, task: asyncio.Task[object]) -> None:
    before = len(line.server.requests)
    async with asyncio.timeout(20):
        while len(line.server.requests) == before:
            assert not task.done()
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("page", [b"error code: 1010", b"<html>Access denied</html>", b""])
async def test_a_403_without_json_is_an_unavailable_api(page: bytes) -> None:
    """Cloudflare or a proxy refused the client: the hint names both, and never the key."""
    async with connected_client(answer(403, raw=page), settings=TransportSettings(attempts=1)) as line:
        with pytest.raises(ApiUnavailable) as raised:
            await line.api.list_functions()
    assert "KAPSO_SYNC_USER_AGENT" in str(raised.value.hint)
    assert "KEY" not in str(raised.value.hint)


async def test_a_rejected_api_key_error_names_the_source_of_the_key() -> None:
    """So that the user checks the right file."""
    settings = TransportSettings(key_source="KAPSO_API_KEY_FILE (/run/key)")
    async with connected_client(answer(401, {"error": "Invalid or missing API key"}), settings=settings) as line:
        with pytest.raises(ApiUnauthorized) as raised:
            await line.api.list_functions()
    assert "KAPSO_API_KEY_FILE (/run/key)" in str(raised.value.hint)


async def test_the_user_agent_is_the_default_or_the_configured_one() -> None:
    """The default holds the version."""
    async with connected_client(listing("a")) as line:
        await line.api.list_functions()
    assert f"user-agent: kapso-sync/{__version__}".encode() in line.server.requests[0].lower()
    async with connected_client(listing("a"), settings=TransportSettings(user_agent="curl/8.5")) as line:
        await line.api.list_functions()
    assert b"user-agent: curl/8.5" in line.server.requests[0].lower()


LINES = "\n".join(f"line {number} of the private key material" for number in range(60))


@pytest.mark.parametrize(
    "value", ["s3cret-value", LINES, "x" * 2000, 'tab\tand "quote" in it', json.dumps({"a": ["deep-s3cret"]})]
)
@pytest.mark.parametrize("shape", ["plain", "json", "collapsed", "line"])
async def test_a_secret_quoted_in_an_error_response_is_redacted(value: str, shape: str) -> None:
    """Whole, JSON-escaped, on one line or line by line; a control shows that the text around it is kept."""
    quoted = {"plain": value, "json": json.dumps(value), "collapsed": " ".join(value.split()), "line": value.splitlines()[-1]}
    said = f"Refused because of {quoted[shape]} in it"
    redactor = Redactor()
    redactor.add(value)
    async with connected_client(answer(422, {"error": said}), scrub=redactor.text) as line:
        with pytest.raises(ApiRejected) as raised:
            await line.api.deploy_function("id-1")
        assert "Refused because of" in raised.value.message
        for piece in (value, *value.splitlines(), value[:50], value[-50:]):
            assert piece not in raised.value.message
        with pytest.raises(ApiRejected) as refused:
            await line.api.set_secret("id-1", "NAME", value)
        assert refused.value.message == "POST /functions/{id}/secrets answered 422"


async def test_code_quoted_in_an_error_response_is_redacted() -> None:
    """An error that quotes the request's code line by line keeps the rest of its text."""
    code = "async function handler(request) {\n  return new Response(privateThing());\n}\n"
    async with connected_client(answer(422, {"error": f"code is bad: {code}"})) as line:
        with pytest.raises(ApiRejected) as raised:
            await line.api.create_function({"slug": "a", "name": "a", "code": code, "function_type": "cloudflare_worker"})
    assert "privateThing" not in raised.value.message
    assert "code is bad" in raised.value.message


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"errors": {"name": ["has already been taken"]}}, SecretNameTaken),
        ({"error": "Name has already been taken"}, SecretNameTaken),
        ({"errors": {"value": ["has already been taken"]}}, ApiRejected),
        ({"errors": {"name": ["is invalid"]}}, ApiRejected),
        ({"error": "Function is not deployed"}, ApiRejected),
    ],
)
async def test_only_a_refusal_for_a_taken_name_is_a_name_taken_error(body: object, kind: type[ApiError]) -> None:
    """No other refusal may lead to a deletion."""
    async with connected_client(answer(422, body)) as line:
        with pytest.raises(ApiError) as raised:
            await line.api.set_secret("id-1", "NAME", "value")
    assert type(raised.value) is kind


@pytest.mark.parametrize("status", [502, 503, 504])
async def test_unavailable_secret_routes_are_not_an_unavailable_api(status: int) -> None:
    """The other routes answer."""
    async with connected_client(
        answer(status, raw=b"<html>Bad gateway</html>"), settings=TransportSettings(attempts=1)
    ) as line:
        with pytest.raises(SecretRoutesUnavailable):
            await line.api.list_secrets("id-1")
        with pytest.raises(ApiUnavailable) as raised:
            await line.api.deploy_function("id-1")
    assert type(raised.value) is ApiUnavailable


async def test_error_bodies_and_invocation_responses_are_read_up_to_a_size_limit() -> None:
    """64 KiB of an error; a function's response of more than 1 MiB is garbled."""
    async with connected_client(answer(422, {"error": "x" * 10_000_000})) as line:
        with pytest.raises(ApiRejected) as raised:
            await line.api.deploy_function("id-1")
    assert len(raised.value.message) < 500
    async with connected_client(answer(200, raw=b"y" * (1024 * 1024 + 1)), answer(200, raw=b"y" * 1024 * 1024)) as line:
        with pytest.raises(ApiGarbled, match="more than 1 MiB"):
            await line.api.invoke_function("id-1", InvokeRequest.of_json({}), timeout=5)
        assert len((await line.api.invoke_function("id-1", InvokeRequest.of_json({}), timeout=5)).text) == 1024 * 1024


def test_request_and_response_reprs_hold_no_bodies() -> None:
    """A control shows that the other fields are there."""
    request = ApiRequest(Call("POST", "/functions"), "/functions", {"code": "s3cret"})
    assert "s3cret" not in f"{request!r}{ApiResponse(200, {}, b's3cret')!r}"
    assert "/functions" in repr(request)


@pytest.mark.parametrize(("retry_after", "waited"), [("2", 2.0), ("90", 90.0)])
async def test_retry_after_overrides_the_rate_limit_window(retry_after: str, waited: float) -> None:
    """Whether it is shorter or longer than the window; requests that start meanwhile wait as well."""
    limits = {"X-RateLimit-Limit": "100", "X-RateLimit-Remaining": "0"}
    refused = answer(429, {"error": "Rate limit exceeded"}, headers={"Retry-After": retry_after, **limits})
    known = answer(200, {"data": []}, headers={"X-RateLimit-Limit": "100", "X-RateLimit-Remaining": "99"})
    async with connected_client(known, refused, known) as line:
        await line.api.list_functions()
        before = line.clock.monotonic()
        await line.api.list_functions()
        assert line.clock.monotonic() - before == pytest.approx(waited, abs=0.01)


class Permission:
    """What a replica's leadership answers: yes for so many times, and then no."""

    def __init__(self, times: int) -> None:
        self.left = times

    def check(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise NotLeading("this replica does not lead")


async def test_nothing_is_sent_without_permission() -> None:
    """It is asked before the request, and no call is counted."""
    async with connected_client(listing("a"), may_call=Permission(0).check) as harness:
        with pytest.raises(NotLeading):
            await harness.api.list_functions()
        assert (harness.server.requests, harness.transport.calls, harness.names()) == ([], 0, [])


@pytest.mark.parametrize("times", [1, 2])
async def test_a_permission_that_ends_while_connecting_sends_no_whole_write(times: int) -> None:
    """Before the head nothing leaves, and between head and body the request stays incomplete: the server takes neither."""
    async with connected_client(CREATED, may_call=Permission(times).check) as harness:
        with pytest.raises(NotLeading):
            await harness.api.create_function(NEW)
        assert harness.server.requests == []


async def test_a_repeat_needs_permission_again() -> None:
    """The wait before it may have been long; a control: with permission the repeat is sent."""
    busy = answer(503, {"error": "busy"})
    async with connected_client(busy, listing("a"), may_call=Permission(3).check) as harness:
        with pytest.raises(NotLeading):
            await harness.api.list_functions()
        assert harness.server.lines == ["GET /functions"]
    async with connected_client(busy, listing("a"), may_call=Permission(6).check) as harness:
        assert len(await harness.api.list_functions()) == 1
