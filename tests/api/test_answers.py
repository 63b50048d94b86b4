"""Hostile answers of the API: ids that lead elsewhere, answers about other functions, and answers without end."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import re
import resource
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kapso_sync.api.client import MAX_INVOKE_BYTES, MAX_RECORD_BYTES, MAX_SECRETS_BYTES
from kapso_sync.api.json_answers import read_json
from kapso_sync.api.pages import MAX_RECORDS
from kapso_sync.api.transport import MAX_ERROR_BYTES, TransportSettings
from kapso_sync.errors import AnswerTooLarge, ApiError, ApiGarbled, ApiRejected, ApiUnavailable
from kapso_sync.model.functions import InvokeRequest
from kapso_sync.model.json_values import Json
from tests.api.servers import Reply, answer, connected_client, record
from tests.heartbeat import beating

pytestmark = pytest.mark.e2e

ONCE = TransportSettings(deadline=5.0, attempts=1)

odd_texts = (
    st.sampled_from(
        [".", "..", "%2e", "%2e%2e", "../..", "a/b", "a?b", "a#b", "a;b", " ", "", "x" * 101, "é", "a\n", "\u202ea"]
    )
    | st.text(max_size=12)
    | st.none()
    | st.integers()
)
plain = st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=8)
records = st.lists(st.fixed_dictionaries({"id": odd_texts | plain, "slug": odd_texts | plain}), max_size=6)

_ROUTES = re.compile(
    r"(GET|POST|PATCH|PUT|DELETE) "
    r"(/functions|/functions/[A-Za-z0-9_-]{1,100}(/deploy|/invoke|/secrets(/[A-Za-z0-9_-]{1,255})?|/invocations)?)"
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(records)
def test_no_record_moves_a_request_out_of_its_function(listed: list[dict[str, Json]]) -> None:
    """Whatever ids and slugs a list has, each request stays at ``/functions/{id}``; a plain id is asked for."""

    async def ask() -> list[str]:
        pages = answer(200, {"data": listed, "meta": {"total_pages": 1}})
        async with connected_client(pages, answer(200, {"data": []}), settings=ONCE) as line:
            try:
                found = await line.api.list_records()
            except ApiGarbled:
                return line.server.lines
            for function_id in [*(each.id for each in found.functions), *(each.id for each in found.garbled)]:
                for call in (line.api.get_function, line.api.delete_function, line.api.deploy_function, line.api.list_secrets):
                    with contextlib.suppress(ApiError):
                        await call(function_id)
                if any(each.id == function_id for each in found.functions):
                    assert f"GET /functions/{function_id}" in line.server.lines
            return line.server.lines

    for line in asyncio.run(ask()):
        assert _ROUTES.fullmatch(line), line


@settings(max_examples=30, deadline=None)
@given(st.lists(odd_texts, max_size=5))
def test_no_name_of_a_secret_moves_a_request_out_of_its_function(names: list[Json]) -> None:
    """A listed name `..` would delete the function itself; the control is deleted by its name."""

    async def ask() -> list[str]:
        listed = [{"name": name, "type": "text"} for name in (*names, "API_KEY")]
        async with connected_client(answer(200, {"data": listed}), answer(204), settings=ONCE) as line:
            for secret in await line.api.list_secrets("f1"):
                await line.api.delete_secret("f1", secret.name)
            for name in names:
                if isinstance(name, str) and not re.fullmatch(r"[A-Za-z0-9_-]{1,255}", name):
                    with pytest.raises(ApiGarbled, match="a secret's name that cannot be"):
                        await line.api.delete_secret("f1", name)
            return line.server.lines

    lines = asyncio.run(ask())
    assert "DELETE /functions/f1/secrets/API_KEY" in lines
    for line in lines:
        assert re.fullmatch(r"(GET /functions/f1/secrets|DELETE /functions/f1/secrets/[A-Za-z0-9_-]{1,255})", line), line


@pytest.mark.parametrize("workflow_id", ["..", ".", "../../functions/f1", "%2e%2e", "", "a?b", 7, None])
async def test_a_workflow_with_an_id_that_cannot_be_makes_the_users_unknown(workflow_id: Json) -> None:
    """Nothing is asked for by it, and a deletion waits; the other workflow is read."""
    flows = answer(200, {"data": [{"id": workflow_id, "name": "odd"}, {"id": "w1", "name": "fine"}]})
    empty = answer(200, {"data": []})
    async with connected_client(flows, empty, settings=ONCE) as line:
        found = await line.api.find_users([])
    assert found.unknown is not None
    definitions = [each for each in line.server.lines if each.endswith("/definition")]
    assert definitions == ["GET /platform/v1/workflows/w1/definition"] or not definitions
    assert not any(".." in each or "%" in each for each in line.server.lines)


async def test_garbled_records_are_set_aside_and_the_others_are_kept() -> None:
    """Each with its reason, on several pages; two records with one id or one slug say nothing about either."""
    first = [
        record("good"),
        record("dots", id=".."),
        record("none", id=None),
        record("Not A Slug"),
        record("one", id="same"),
        record("two", id="same"),
        record("twin", id="t1"),
        record("twin", id="t2"),
    ]
    second = [record("more"), record("number", id=7), record("good-2")]
    pages = [answer(200, {"data": page, "meta": {"total_pages": 2}}) for page in (first, second)]
    async with connected_client(*pages) as line:
        found = await line.api.list_records()
    assert [function.slug for function in found.functions] == ["good", "more", "good-2"]
    assert {each.slug: each.reason for each in found.garbled} == {
        "dots": "id cannot be: '..'",
        "none": "id is missing",
        "number": "id cannot be: 7",
        "Not A Slug": "id cannot be: 'id-Not A Slug'",
        "one": "id is that of another record",
        "two": "id is that of another record",
        "twin": "slug is that of another record",
    }


async def test_a_list_of_something_else_is_no_list_of_functions() -> None:
    """Without an id and a slug a record names nothing: the list is unknown, not short."""
    for odd in ({"name": "greet"}, "greet", None, 7):
        async with connected_client(answer(200, {"data": [record(), odd]}), settings=ONCE) as line:
            with pytest.raises(ApiGarbled, match="no id and no slug"):
                await line.api.list_records()


async def test_a_project_id_that_cannot_be_is_not_read() -> None:
    """It may become a part of a file's name or of a sentence."""
    for project_id, kept in (("../x", None), ("p-1", "p-1"), ("a\nb", None)):
        async with connected_client(answer(200, {"data": [record(project_id=project_id)]})) as line:
            (function,) = await line.api.list_functions()
        assert function.project_id == kept


async def test_an_answer_about_another_function_is_garbled() -> None:
    """Of a deployment, of secrets and of invocations; the same answer about the right one is taken."""
    for about, believed in (("other", False), ("f1", True), (None, True)):
        body = {"data": {"function_id": about, "secrets": []}} if about else {"data": {"secrets": []}}
        async with connected_client(answer(200, body), settings=ONCE) as line:
            for call in (
                line.api.deploy_function("f1"),
                line.api.list_secrets("f1"),
                line.api.list_invocations("f1"),
                line.api.set_secret("f1", "NAME", "v"),
            ):
                if believed:
                    await call
                else:
                    with pytest.raises(ApiGarbled, match="another function"):
                        await call


def zeros(size: int) -> bytes:
    """A gzip bomb of JSON: a thousandth of its size."""
    return gzip.compress(b'"' + b"0" * size + b'"', 9)


def reply_with(size: int) -> bytes:
    return answer(200, raw=json.dumps({"data": [], "more": "0" * size}).encode())


async def test_every_kind_of_call_has_a_size_limit() -> None:
    """A byte beyond it is garbled; a small answer is taken."""
    async with connected_client(reply_with(MAX_SECRETS_BYTES), reply_with(10), settings=ONCE) as line:
        with pytest.raises(ApiGarbled, match="more than 1 MiB"):
            await line.api.list_secrets("f1")
        assert await line.api.list_secrets("f1") == ()
    async with connected_client(answer(200, record(more="0" * MAX_RECORD_BYTES)), answer(200, record()), settings=ONCE) as line:
        with pytest.raises(ApiGarbled, match="more than 8 MiB"):
            await line.api.get_function("id-greet")
        assert (await line.api.get_function("id-greet")).slug == "greet"


async def test_the_pages_of_a_list_have_one_size_limit_together() -> None:
    """Ten pages of a tenth of the limit each are too much; the limit of a request alone would let them through."""
    pages = [
        answer(
            200, {"data": [record(f"g{number}-{each}", code="0" * 30_000) for each in range(100)], "meta": {"total_pages": 99}}
        )
        for number in range(99)
    ]
    async with connected_client(*pages, settings=TransportSettings(deadline=30.0, attempts=1)) as line:
        started = len(line.server.requests)
        with pytest.raises(ApiGarbled, match="more than 48 MiB"):
            await line.api.list_functions()
        assert 10 < len(line.server.requests) - started < 30


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip"])
async def test_a_compressed_answer_counts_as_what_it_becomes(encoding: str) -> None:
    """100 MiB of zeros in 100 KiB end at 1 MiB, without 100 MiB of memory; a small one is read."""
    bomb = answer(200, raw=zeros(100 * 1024 * 1024), headers={"Content-Encoding": encoding})
    small = answer(200, raw=gzip.compress(b'{"data": []}'), headers={"Content-Encoding": encoding})
    async with connected_client(bomb, small, settings=ONCE) as line:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(ApiGarbled, match="more than 1 MiB"):
            await line.api.invoke_function("f1", InvokeRequest.of_json({}), timeout=5)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30 * 1024
        assert await line.api.list_secrets("f1") == ()
    assert b"accept-encoding: gzip\r\n" in line.server.requests[0].lower()


@pytest.mark.parametrize("encoding", ["gzip, gzip", "deflate", "br", "zstd", "gzip,gzip,gzip,gzip"])
async def test_a_compression_that_was_not_asked_for_is_garbled(encoding: str) -> None:
    """Each layer of it may be a thousand times as large as the one around it. Of an error only the status counts."""
    body = gzip.compress(gzip.compress(b'{"data": []}'))
    async with connected_client(
        answer(200, raw=body, headers={"Content-Encoding": encoding}),
        answer(422, raw=body, headers={"Content-Encoding": encoding}),
        settings=ONCE,
    ) as line:
        with pytest.raises(ApiGarbled, match="a compression that was not asked for"):
            await line.api.list_functions()
        with pytest.raises(ApiRejected):
            await line.api.deploy_function("f1")


@pytest.mark.parametrize(
    "body",
    [gzip.compress(b'{"data": []}', mtime=0)[:-4], b"not gzip at all", b"\x1f\x8b"],
    ids=["without its end", "something else", "two bytes"],
)
async def test_a_compressed_answer_that_is_cut_is_garbled(body: bytes) -> None:
    """It may read as a whole one."""
    async with connected_client(answer(200, raw=body, headers={"Content-Encoding": "gzip"}), settings=ONCE) as line:
        with pytest.raises(ApiGarbled, match="broken compression"):
            await line.api.list_functions()


def dripping(head: bytes, piece: bytes) -> Reply:
    async def drip(writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while True:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.01)

    return drip


@pytest.mark.parametrize("status", [200, 422, 302])
async def test_an_answer_that_drips_ends_at_the_deadline(status: int) -> None:
    """A byte now and then keeps no request alive, whatever the status."""
    head = f"HTTP/1.1 {status} X\r\nContent-Length: 100000000\r\n\r\n".encode()
    async with connected_client(dripping(head, b" "), settings=TransportSettings(deadline=0.5, attempts=1)) as line:
        started = time.monotonic()
        with pytest.raises(ApiUnavailable, match=r"no answer within 0\.5 s"):
            await line.api.list_functions()
        assert time.monotonic() - started < 60  # all of it would take hours


@pytest.mark.parametrize(("status", "kind"), [(422, ApiRejected), (503, ApiUnavailable), (302, ApiGarbled)])
async def test_an_error_without_end_is_read_up_to_64_kib(status: int, kind: type[ApiError]) -> None:
    """Long before its deadline, redirects included."""
    head = f"HTTP/1.1 {status} X\r\nLocation: http://127.0.0.1/\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    piece = b"4000\r\n" + b"x" * 0x4000 + b"\r\n"
    async with connected_client(dripping(head, piece), settings=ONCE) as line:
        started = time.monotonic()
        with pytest.raises(kind):
            await line.api.list_functions()
        assert time.monotonic() - started < 60


async def test_a_functions_own_error_is_read_like_its_other_answers() -> None:
    """A check may look at all of it."""
    async with connected_client(
        answer(500, raw=b"y" * (MAX_ERROR_BYTES * 2)), answer(500, raw=b"y" * (MAX_INVOKE_BYTES + 1))
    ) as line:
        assert len((await line.api.invoke_function("f1", InvokeRequest.of_json({}), timeout=5)).text) == MAX_ERROR_BYTES * 2
        with pytest.raises(ApiGarbled, match="more than 1 MiB"):
            await line.api.invoke_function("f1", InvokeRequest.of_json({}), timeout=5)


async def test_a_duration_that_no_number_holds_is_unknown() -> None:
    """JSON has numbers of any size."""
    body = b'{"data": [{"id": "i1", "duration_ms": 1' + b"0" * 400 + b"}]}"
    async with connected_client(answer(200, raw=body)) as line:
        (found,) = await line.api.list_invocations("f1")
    assert found.duration_ms is None


@pytest.mark.parametrize("depth", [150, 900, 5000])
async def test_an_answer_nested_too_deeply_is_garbled(depth: int) -> None:
    """Comparing it would end in a RecursionError, in the middle of a pass; a control is as deep as Kapso itself reads.

    In the list, it costs the record that is too deep, and no other.
    """
    deep = json.dumps(record()).encode()[:-1] + b', "runtime_config": ' + b"[" * depth + b"]" * depth + b"}"
    other = json.dumps(record(id="f2", slug="other")).encode()
    async with connected_client(
        answer(200, raw=b'{"data": [' + deep + b"," + other + b"]}"),
        answer(200, raw=b'{"data": ' + deep + b"}"),
        answer(422, raw=b'{"errors": ' + b"[" * depth + b"]" * depth + b"}"),
        answer(200, {"data": [record(runtime_config=nested(90))]}),
        settings=ONCE,
    ) as line:
        listed = await line.api.list_records()
        assert [function.id for function in listed.functions] == ["f2"]
        assert [(garbled.id, garbled.reason) for garbled in listed.garbled] == [
            ("id-greet", "runtime_config is nested too deeply")
        ]
        with pytest.raises(ApiGarbled):
            await line.api.get_function("id-greet")
        with pytest.raises(ApiRejected):
            await line.api.deploy_function("f1")
        (function,) = await line.api.list_functions()
    assert function.fields["runtime_config"] == nested(90)


def nested(depth: int) -> Json:
    value: Json = 1
    for _ in range(depth):
        value = {"a": value}
    return value


async def test_an_answer_that_is_too_large_is_not_asked_for_again() -> None:
    """A second one costs as much as the first; an answer that is cut is repeated, as a control."""
    async with connected_client(reply_with(MAX_SECRETS_BYTES)) as line:
        with pytest.raises(ApiGarbled):
            await line.api.list_secrets("f1")
    assert len(line.server.requests) == 1
    async with connected_client(answer(200, raw=b'{"data"')) as line:
        with pytest.raises(ApiGarbled):
            await line.api.list_secrets("f1")
    assert len(line.server.requests) == 5


MIB = 1024 * 1024
AMPLIFIED = {
    "empty lists": b"[" + b"[]," * (8 * MIB) + b"1]",
    "empty objects": b'{"data":[' + b"{}," * (8 * MIB) + b"{}]}",
    "numbers": b"[" + b"1," * (12 * MIB) + b"1]",
    "keys": b"[{" + b",".join(b'"%d":1' % number for number in range(2 * MIB)) + b"}]",
    "records": b"[" + b'{"id":"a","slug":"b"},' * MIB + b"{}]",
    "records without an id": b"[" + b'{"slug":"b"},' * 150_000 + b'{"slug":"b"}]',
    "one string": b'[{"id":"' + b"\\n" * (12 * MIB) + b'"}]',
    "spaces": b"[" + b" " * (24 * MIB) + b"]",
    "a number without end": b"[" + b"1" * (24 * MIB) + b"]",
    "a string of quotes without end": b"[" * 100_000 + b'"' + b'\\"' * 100_000,
    "a string of backslashes without end": b'["' + b"\\" * (5 * MIB + 1),
}


@pytest.mark.parametrize("name", AMPLIFIED)
async def test_an_answer_that_becomes_more_than_it_is_costs_little(name: str) -> None:
    """Neither the event loop, which other tasks wait for, nor memory: it is refused before it is decoded."""
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    async with (
        connected_client(answer(200, raw=AMPLIFIED[name]), settings=TransportSettings(deadline=60.0, attempts=1)) as line,
        beating() as heart,
    ):
        with pytest.raises(ApiGarbled):
            await line.api.list_records()
    assert heart.longest < 0.5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 160 * 1024


async def test_a_list_with_much_code_is_read_beside_other_tasks() -> None:
    """45 functions with all the code that they may have: nearly what a list may be."""
    code = 'const text = "a,b,[c]";\n' * 40_000
    listed = {"data": [record(f"f{number}", code=code) for number in range(45)]}
    body = json.dumps(listed).encode()
    async with (
        connected_client(answer(200, raw=body), answer(200, {"data": []}), settings=TransportSettings(deadline=60.0)) as line,
        beating() as heart,
    ):
        found = await line.api.list_records()
    assert [function.code == code for function in found.functions] == [True] * 45
    assert heart.longest < 0.5


@pytest.mark.parametrize("size", [10, 300 * 1024, 1024 * 1024])
def test_small_and_large_answers_are_read_alike(size: int) -> None:
    """Every kind of value, escapes, and nesting; the same errors for what is no JSON."""
    value: Json = [{"a\n\u00e9\U0001f600": [1, -1.5e3, True, None, "", {}], "pad": "\\" * size}, [[[[]]]]]
    assert read_json(json.dumps(value).encode()) == value
    assert read_json(json.dumps(value, ensure_ascii=False, indent=1).encode()) == value
    for broken in (b"[1,]", b'{"a" 1}', b"[1", b'["a', b"[] []", b'"\x00"', b"", b"[" * 99_999):
        with pytest.raises((ValueError, RecursionError)):
            read_json(broken + b" " * size)


async def test_too_many_records_are_no_list() -> None:
    """Each would be looked at while everything else waits."""
    many = [{"id": f"id-{number}", "slug": f"s{number}"} for number in range(MAX_RECORDS + 1)]
    async with connected_client(answer(200, {"data": many}), settings=ONCE) as line:
        with pytest.raises(AnswerTooLarge, match="more than 20,000 records"):
            await line.api.list_records()
