"""The API client's lists, updates and look-ups of users: an incomplete response is never taken for a complete one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from kapso_sync.api.base_url import parse_base_url
from kapso_sync.api.client import KapsoClient
from kapso_sync.api.transport import TransportSettings
from kapso_sync.emulator.faults import Rule
from kapso_sync.emulator.server import Emulator
from kapso_sync.emulator.values import JsonObject
from kapso_sync.errors import (
    ApiGarbled,
    ApiNotFound,
    ApiRejected,
    ApiUnsupported,
    ConfigError,
    LockVersionRefused,
    UsersUnknown,
)
from kapso_sync.model.functions import DeploymentStatus, InvokeRequest, RemoteFunction
from kapso_sync.model.json_values import Json
from kapso_sync.model.users import FunctionUser, UserKind, WhatsAppFlow
from tests.api.servers import ClientHarness, answer, connected_client, hang, listing, record

FULL = [f"f{number:03d}" for number in range(100)]


def slugs(functions: tuple[object, ...]) -> list[str]:
    return [getattr(function, "slug", "") for function in functions]


async def test_pagination_reads_every_page_of_the_list() -> None:
    """The client asks for the next page after a full page, and stops after a short one."""
    async with connected_client(listing(*FULL), listing("last")) as line:
        assert slugs(await line.api.list_functions()) == [*FULL, "last"]
    assert b"page=1&per_page=100&limit=100" in line.server.requests[0]
    assert b"page=2&" in line.server.requests[1]


async def test_a_list_of_one_page_costs_one_request() -> None:
    """The client does not ask for a page beyond the one that is known to be the last."""
    async with connected_client(listing(*FULL, total_pages=1)) as line:
        assert len(await line.api.list_functions()) == 100
        assert line.api.calls == 1


async def test_a_list_from_a_server_without_pagination_is_complete() -> None:
    """Such a server sends everything at once, and the same again for page 2: that is the whole list."""
    everything = [f"f{number:03d}" for number in range(150)]
    async with connected_client(listing(*everything)) as line:
        assert slugs(await line.api.list_functions()) == everything


@pytest.mark.parametrize(
    ("pages", "said"),
    [
        ([listing(*FULL, total_pages=3), *2 * [listing(*FULL[:50], *[f"g{n}" for n in range(50)])]], "repeats records"),
        ([listing(*FULL, total=250), listing(total=250), listing(total=250)], "is empty, and more was announced"),
        ([listing(*FULL, total_pages=2), listing(total_pages=3)], "is empty, and more was announced"),
    ],
)
async def test_an_incomplete_list_is_an_error_after_one_retry(pages: list[bytes], said: str) -> None:
    """A function that is only missing from the list must not be created again."""
    async with connected_client(*pages, *pages) as line:
        with pytest.raises(ApiGarbled, match=said):
            await line.api.list_functions()
    assert len(line.server.requests) == 2 * len(pages)


async def test_the_pages_that_the_first_one_announces_are_read_together() -> None:
    """Each answer waits until all of them were asked for: one after the other, they would wait for ever."""
    all_asked = asyncio.Event()
    answered: list[str] = []

    async def when_all_were_asked(writer: asyncio.StreamWriter) -> None:
        if len(line.server.requests) == 4:
            all_asked.set()
        await all_asked.wait()
        answered.append(f"f{len(answered)}")
        writer.write(listing(answered[-1], total=4))

    async with connected_client(listing("first", total=4), *3 * [when_all_were_asked]) as line:
        assert sorted(slugs(await line.api.list_functions())) == ["f0", "f1", "f2", "first"]
        assert line.api.calls == 4


async def test_a_page_that_is_larger_than_its_share_is_read_again_alone() -> None:
    """Pages that are read together take no more memory than one; a list within the limit is read all the same."""
    large = {"data": [record(f"f{number}", code="x" * (7 << 20)) for number in range(4)], "meta": {"total": 9}}
    small = listing(*"bcde", total=9)
    async with connected_client(listing("a", total_pages=3), answer(200, large), small, answer(200, large)) as line:
        found = await line.api.list_functions()
    assert sorted(slugs(found)) == [*"abcde", "f0", "f1", "f2", "f3"]
    assert len(line.server.requests) == 4


async def test_a_list_that_changed_between_pages_is_read_again() -> None:
    """Somebody created a function between two pages: the second list is complete."""
    async with connected_client(
        listing(*FULL, total_pages=2),
        listing(FULL[-1], "x", total_pages=2),
        listing(*FULL, total_pages=2),
        listing("x", "y", total_pages=2),
    ) as line:
        assert slugs(await line.api.list_functions()) == [*FULL, "x", "y"]


@pytest.mark.parametrize("first", [404, 405])
async def test_an_update_falls_back_from_patch_to_put_and_remembers_it(first: int) -> None:
    """One base accepts PATCH, the other PUT: the client finds this out once."""
    async with connected_client(answer(first), answer(200, record()), answer(200, record())) as line:
        await line.api.update_function("id-greet", {"name": "A"})
        await line.api.update_function("id-greet", {"name": "B"})
    assert [request.split(b" ")[0] for request in line.server.requests] == [b"PATCH", b"PUT", b"PUT"]


@pytest.mark.parametrize(("status", "kind"), [(404, ApiNotFound), (405, ApiUnsupported)])
async def test_where_neither_patch_nor_put_works_the_first_error_is_raised(status: int, kind: type[Exception]) -> None:
    """A function that is gone is gone with either verb."""
    async with connected_client(answer(status, {"error": "first"}), answer(404, {"error": "second"})) as line:
        with pytest.raises(kind, match="first"):
            await line.api.update_function("id-1", {"name": "A"})


@pytest.mark.parametrize("function_id", [".", "..", "../secrets?x=1", "a/b", "", "x" * 101, "é"])
async def test_an_invalid_function_id_is_never_sent_in_a_url(function_id: str) -> None:
    """No request leaves the route ``/functions/{id}``; a plain id is sent."""
    async with connected_client(answer(200, record())) as line:
        for call in (line.api.get_function, line.api.delete_function, line.api.deploy_function, line.api.list_secrets):
            with pytest.raises(ApiGarbled, match="an id that cannot be"):
                await call(function_id)
        assert not line.server.requests
        await line.api.get_function("id-greet")
    assert line.server.lines == ["GET /functions/id-greet"]


async def test_an_answer_with_another_function_id_is_refused() -> None:
    """Both for a read and for an update."""
    async with connected_client(answer(200, record("other"))) as line:
        for call in (line.api.get_function("id-greet"), line.api.update_function("id-greet", {"name": "x"})):
            with pytest.raises(ApiGarbled, match="another function"):
                await call


@pytest.mark.parametrize("said", [{"error": "lock_version is not permitted"}, {"errors": {"lock_version": ["is unknown"]}}])
async def test_a_base_that_refuses_lock_version_is_remembered(said: object) -> None:
    """The client does not send it again: the caller must read first. A refusal that names another field changes nothing."""
    async with connected_client(answer(422, {"error": "no"}), answer(422, said)) as line:
        with pytest.raises(ApiRejected) as other:
            await line.api.update_function("id-greet", {"name": "A"}, lock_version=3)
        assert not isinstance(other.value, LockVersionRefused)
        taken = [line.api.takes_lock_version]
        with pytest.raises(LockVersionRefused):
            await line.api.update_function("id-greet", {"name": "B"}, lock_version=3)
        taken.append(line.api.takes_lock_version)
    assert taken == [True, False]
    assert len(line.server.requests) == 2


@pytest.mark.parametrize(
    "said",
    [
        """update refused: request was {"function": {"code": "x", "lock_version": 0}}""",
        """bad: {'code': 'x', 'lock_version': 0}""",
        '''bad: "{\\"lock_version\\":0"''',
        "bad: {:code=>1, :lock_version => 0}",
    ],
)
async def test_a_quoted_request_is_not_taken_for_a_refused_lock_version(said: str) -> None:
    """The refusal is about something else: the field goes on being sent."""
    async with connected_client(answer(422, {"error": said})) as client:
        with pytest.raises(ApiRejected) as raised:
            await client.api.update_function("id-greet", {"code": "x"}, lock_version=0)
        assert not isinstance(raised.value, LockVersionRefused)
        assert client.api.takes_lock_version


async def test_a_404_on_the_list_names_the_other_base() -> None:
    """The hint names the most likely mistake in a new installation."""
    async with connected_client(answer(404)) as line:
        with pytest.raises(ApiNotFound) as raised:
            await line.api.list_functions()
    assert "Kapso also answers at https://app.kapso.ai/api/v1" in str(raised.value.hint)


async def test_invoke_returns_the_functions_own_answer() -> None:
    """Whatever its status: a function may well answer 500, and is called once."""
    async with connected_client(answer(500, {"error": "mine"})) as line:
        answered = await line.api.invoke_function("id-1", InvokeRequest.of_json({"ping": True}), timeout=1)
    assert (answered.status, answered.text) == (500, '{"error": "mine"}')
    assert len(line.server.requests) == 1


async def test_hanging_invocations_do_not_block_other_requests() -> None:
    """Even if as many hang as there may be requests at once: the list is still read, so a rollback stays possible."""
    hung = asyncio.Semaphore(0)

    async def hang_and_signal(writer: asyncio.StreamWriter) -> None:
        hung.release()
        await hang(writer)

    known = answer(200, {"data": []}, headers={"X-RateLimit-Limit": "100", "X-RateLimit-Remaining": "90"})
    async with (
        asyncio.timeout(20),
        connected_client(known, *[hang_and_signal] * 2, listing("greet"), settings=TransportSettings(concurrency=2)) as line,
        asyncio.TaskGroup() as group,
    ):
        await line.api.list_functions()
        hanging = [group.create_task(line.api.invoke_function("id-1", InvokeRequest.of_json({}), timeout=30)) for _ in range(2)]
        for _ in hanging:
            await hung.acquire()
        assert slugs(await line.api.list_functions()) == ["greet"]
        for task in hanging:
            task.cancel()


@pytest.mark.parametrize(
    "body",
    [
        {"data": [{"name": "A", "type": "secret_text"}, {"name": "B"}]},
        {"data": {"secrets": [{"name": "A"}, {"name": "B"}, {"name": "A"}, {"type": "odd"}]}},
        {"data": {"data": ["A", "B", ""]}},
    ],
)
async def test_secret_names_are_read_from_every_response_shape(body: Json) -> None:
    """As a list, as an object that holds one, and wrapped twice; each name once."""
    async with connected_client(answer(200, body)) as line:
        assert [secret.name for secret in await line.api.list_secrets("id-1")] == ["A", "B"]


A = RemoteFunction("id-0000001", "greet", DeploymentStatus.DEPLOYED, None, {"name": "Greet people"})
B = RemoteFunction("id-0000002", "order", DeploymentStatus.DEPLOYED, None, {"name": "Order"})


@pytest.fixture
async def kapso(emulator: Emulator) -> AsyncIterator[KapsoClient]:
    """A client on the older base, which shows no references of its own."""
    async with connected_client(answer(500)) as line:
        yield _client(line, emulator)


def _client(line: ClientHarness, emulator: Emulator, base: str = "/api/v1") -> KapsoClient:
    line.transport.base_url = emulator.base(base)
    line.transport._key = lambda: emulator.key
    return line.api


def node(**config: Json) -> JsonObject:
    return {"nodes": [{"id": "n", "data": {"node_type": "function", "config": dict(config)}}]}


@pytest.mark.parametrize(
    "definition",
    [
        node(function_id=A.id),
        node(function_slug="greet"),
        node(function_name="Greet people"),
        node(flow_agent_function_tools=[{"function_id": A.id}]),
        node(url=f"https://api.kapso.ai/platform/v1/functions/{A.id}/invoke"),
        node(flow_agent_mcp_servers=[{"url": f"https://x.test/?next={A.id}"}]),
        node(body=json.dumps({"call": f"/functions/{A.id}/invoke"})),
    ],
)
@pytest.mark.parametrize("status", ["active", "archived", "draft"])
async def test_a_workflow_that_names_a_function_uses_it(
    kapso: KapsoClient, emulator: Emulator, definition: JsonObject, status: str
) -> None:
    """By id, slug, name or URL, in any place, under any status; another function is not used by it."""
    emulator.world.add_workflow("Orders", definition, status=status)
    assert (await kapso.find_users((A, B))).users == {A.id: (FunctionUser(UserKind.WORKFLOW, "Orders"),), B.id: ()}


@pytest.mark.parametrize("switches", [{}, {"list_meta": False, "page_size": 20}])
async def test_users_from_flows_and_webhooks_are_found_on_every_page(
    kapso: KapsoClient, emulator: Emulator, switches: dict[str, object]
) -> None:
    """Even if pages are shorter than asked for and no answer says how many there are; by id and by URL."""
    emulator.world.behaviour = emulator.world.behaviour.changed(switches)
    for number in range(45):
        emulator.world.add_flow(f"Flow {number}", None)
        emulator.world.add_webhook(f"https://example.com/{number}")
    emulator.world.add_flow("Booking", A.id)
    emulator.world.add_webhook(f"https://api.kapso.ai/platform/v1/functions/{B.id}/invoke")
    users = (await kapso.find_users((A, B))).users
    assert users[A.id] == (FunctionUser(UserKind.FLOW, "Booking"),)
    assert [user.kind for user in users[B.id]] == [UserKind.WEBHOOK]


async def test_users_from_the_older_flows_route_are_found_where_there_are_no_workflows(
    kapso: KapsoClient, emulator: Emulator
) -> None:
    """Flows is the older name of workflows, on whichever base has the route."""
    emulator.world.behaviour = replace(emulator.world.behaviour, workflows="flows")
    emulator.world.add_workflow("Orders", node(function_id=A.id))
    assert (await kapso.find_users((A,))).users[A.id] == (FunctionUser(UserKind.WORKFLOW, "Orders"),)


@pytest.mark.parametrize("route", ["/workflows", "/workflows/{id}/definition", "/whatsapp/flows", "/whatsapp/webhooks"])
@pytest.mark.parametrize("status", [401, 402, 403, 500])
async def test_users_are_unknown_when_one_look_up_fails(
    kapso: KapsoClient, emulator: Emulator, route: str, status: int
) -> None:
    """Of any kind, for any reason; the users that the other look-ups found are still there."""
    emulator.world.add_workflow("Orders", node(function_id=A.id))
    emulator.world.add_webhook(f"https://api.kapso.ai/platform/v1/functions/{A.id}/invoke")
    found = await kapso.find_users((A, B))
    assert (found.unknown, len(found.users[A.id]), found.users[B.id]) == (None, 2, ())
    emulator.faults.replace([Rule(what="status", method="GET", route=route, status=status, body={"error": "no"})])
    found = await kapso.find_users((A, B))
    assert isinstance(found.unknown, UsersUnknown)
    assert len(found.users[A.id]) == (2 if route == "/whatsapp/flows" else 1)


@pytest.mark.parametrize("switches", [{"workflows": "none"}, {"whatsapp": False}])
async def test_users_are_unknown_if_no_base_has_the_route(
    kapso: KapsoClient, emulator: Emulator, switches: dict[str, object]
) -> None:
    """A 404 on every base does not mean that there are no users."""
    emulator.world.behaviour = emulator.world.behaviour.changed(switches)
    assert "could not be read" in str((await kapso.find_users((A,))).unknown)


async def test_invocations_are_read_with_their_console(kapso: KapsoClient, emulator: Emulator) -> None:
    """Newest first, by status, with a limit; the repr holds no bodies."""
    function = emulator.world.create({"name": "x", "code": "x"})
    emulator.world.record_invocation(function, {"card": "4242"}, 200)
    emulator.world.record_invocation(function, {}, 500, error="boom", duration_ms=12, console=[("error", "oh no")])
    first, second = await kapso.list_invocations(function.id)
    assert (first.status_code, first.duration_ms, first.error) == (500, 12.0, "boom")
    assert [(line.level, line.message) for line in first.console] == [("error", "oh no")]
    assert (second.request_body, "4242" in repr(second)) == ({"card": "4242"}, False)
    assert [item.status_code for item in await kapso.list_invocations(function.id, status="success")] == [200]
    assert len(await kapso.list_invocations(function.id, limit=1)) == 1


@pytest.mark.parametrize(
    ("text", "base"),
    [
        ("https://app.kapso.ai/api/v1", "https://app.kapso.ai/api/v1"),
        ("https://app.kapso.ai/api/v1/", "https://app.kapso.ai/api/v1"),
        ("https://api.kapso.ai", "https://api.kapso.ai/platform/v1"),
        (" https://api.kapso.ai/ ", "https://api.kapso.ai/platform/v1"),
        ("http://localhost:8787/api/v1", "http://localhost:8787/api/v1"),
        ("http://[::1]:8787", "http://[::1]:8787/platform/v1"),
    ],
)
def test_every_spelling_of_the_api_base_url_is_normalised(text: str, base: str) -> None:
    """A slash at the end or a host alone makes no difference."""
    assert parse_base_url(text) == base


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("app.kapso.ai", "not an http"),
        ("ftp://app.kapso.ai", "not an http"),
        ("https://user:pw@app.kapso.ai", "user name or password"),
        ("https://app.kapso.ai/api/v1?x=1", "query"),
        ("https://app.kapso.ai:port", "'https://app.kapso.ai:port'"),
        ("http://app.kapso.ai/api/v1", "unencrypted"),
        ("http://10.0.0.1", "unencrypted"),
    ],
)
def test_an_insecure_or_invalid_api_base_url_is_refused(text: str, said: str) -> None:
    """At the start, with the reason; plain http to another host needs an explicit setting."""
    with pytest.raises(ConfigError, match=said):
        parse_base_url(text)
    if said == "unencrypted":
        assert parse_base_url(text, allow_http=True).startswith("http://")


def test_a_password_in_a_malformed_base_url_is_not_shown() -> None:
    """A URL that cannot be parsed may carry one all the same."""
    for text in (
        "https://user:hunter2@host:99999/x",
        "https://user:hunter2/x@host",
        "https://user:hunter2@[::1",
        "ftp://user:hunter2@host",
        "https://host/api/v1?api_key=hunter2",
        "ftp://host#hunter2",
    ):
        with pytest.raises(ConfigError) as caught:
            parse_base_url(text)
        assert "hunter2" not in caught.value.message


async def test_a_function_becomes_the_data_endpoint_of_a_flow(kapso: KapsoClient, emulator: Emulator) -> None:
    """Kapso's warning is handed on; a Flow that is not there is None; an id that cannot be is never asked for."""
    world = emulator.world
    flow_id = str(world.add_flow("Booking", None)["id"])
    function = world.create({"name": "x", "code": "async function handler() {}"})
    assert await kapso.find_flow("other") is None
    assert await kapso.find_flow(flow_id) == WhatsAppFlow(flow_id, None)
    with pytest.raises(ApiRejected):
        await kapso.attach_flow(flow_id, function.id)
    function.status, function.live_code = "deployed", function.code
    assert await kapso.attach_flow(flow_id, function.id) is None
    assert await kapso.find_flow(flow_id) == WhatsAppFlow(flow_id, function.id)
    world.behaviour = world.behaviour.changed({"flow_republish": False})
    assert await kapso.attach_flow(flow_id, function.id) == "The Flow could not be republished."
    with pytest.raises(ApiGarbled):
        await kapso.attach_flow("../functions", function.id)
