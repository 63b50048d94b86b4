"""The client's lists, updates and looks at workflows: half an answer never passes for a whole one."""

from __future__ import annotations

import asyncio

import pytest

from kapso_sync.api import KapsoClient, TransportSettings, parse_base_url
from kapso_sync.emulator.server import Emulator
from kapso_sync.errors import ApiGarbled, ApiNotFound, ApiUnsupported, ConfigError
from kapso_sync.model.functions import Json
from tests.api.servers import Line, answer, hang, listing, record, talking

FULL = [f"f{number:03d}" for number in range(100)]


def slugs(functions: tuple[object, ...]) -> list[str]:
    return [getattr(function, "slug", "") for function in functions]


async def test_pages_are_read_to_the_last() -> None:
    """A full page may have a successor, a short one has none."""
    async with talking(listing(*FULL), listing("last")) as line:
        assert slugs(await line.api.list_functions()) == [*FULL, "last"]
    assert b"page=1&per_page=100&limit=100" in line.server.requests[0]
    assert b"page=2&" in line.server.requests[1]


async def test_one_page_costs_one_call() -> None:
    """What is known to be the last page is not asked beyond."""
    async with talking(listing(*FULL, total_pages=1)) as line:
        assert len(await line.api.list_functions()) == 100
        assert line.api.calls == 1


async def test_a_server_without_pages_is_understood() -> None:
    """Everything at once, and the same again for page 2: that is the whole list."""
    everything = [f"f{number:03d}" for number in range(150)]
    async with talking(listing(*everything)) as line:
        assert slugs(await line.api.list_functions()) == everything


@pytest.mark.parametrize(
    ("pages", "said"),
    [
        ([listing(*FULL, total_pages=3), listing(*FULL[:50], *[f"g{n}" for n in range(50)], total_pages=3)], "repeats records"),
        ([listing(*FULL, total=250), listing(total=250)], "is empty, and more was announced"),
        ([listing(*FULL, total_pages=2), listing(total_pages=3)], "is empty, and more was announced"),
    ],
)
async def test_a_list_with_holes_is_refused(pages: list[bytes], said: str) -> None:
    """Read once more, and then an error: a function that is only missing from the list must not be created again."""
    async with talking(*pages, *pages) as line:
        with pytest.raises(ApiGarbled, match=said):
            await line.api.list_functions()
    assert len(line.server.requests) == 2 * len(pages)


async def test_a_list_that_moved_is_read_once_more() -> None:
    """Somebody created a function between two pages: the second look is whole."""
    async with talking(
        listing(*FULL, total_pages=2),
        listing(FULL[-1], "x", total_pages=2),
        listing(*FULL, total_pages=2),
        listing("x", "y", total_pages=2),
    ) as line:
        assert slugs(await line.api.list_functions()) == [*FULL, "x", "y"]


@pytest.mark.parametrize("first", [404, 405])
async def test_put_is_tried_where_patch_is_unknown_and_remembered(first: int) -> None:
    """One base knows PATCH, the other PUT: found out once."""
    async with talking(answer(first), answer(200, record()), answer(200, record())) as line:
        await line.api.update_function("id-1", {"name": "A"})
        await line.api.update_function("id-1", {"name": "B"})
    assert [request.split(b" ")[0] for request in line.server.requests] == [b"PATCH", b"PUT", b"PUT"]


@pytest.mark.parametrize(("status", "kind"), [(404, ApiNotFound), (405, ApiUnsupported)])
async def test_where_neither_works_the_first_answer_counts(status: int, kind: type[Exception]) -> None:
    """A function that is gone is gone by either verb."""
    async with talking(answer(status, {"error": "first"}), answer(404, {"error": "second"})) as line:
        with pytest.raises(kind, match="first"):
            await line.api.update_function("id-1", {"name": "A"})


async def test_ids_cannot_change_the_route() -> None:
    """An id is a name in a path, whatever is in it."""
    async with talking(answer(200, record())) as line:
        await line.api.get_function("../secrets?x=1")
    assert line.server.requests[0].startswith(b"GET /functions/..%2Fsecrets%3Fx%3D1 HTTP/1.1")


async def test_a_404_on_the_list_names_the_other_base() -> None:
    """The likeliest mistake in a new installation."""
    async with talking(answer(404)) as line:
        with pytest.raises(ApiNotFound) as raised:
            await line.api.list_functions()
    assert "Kapso also answers at https://app.kapso.ai/api/v1" in str(raised.value.hint)


async def test_invoke_returns_the_functions_own_answer() -> None:
    """Whatever its status: a function may well answer 500, and is called once."""
    async with talking(answer(500, {"error": "mine"})) as line:
        answered = await line.api.invoke_function("id-1", {"ping": True}, patience=1)
    assert (answered.status, answered.text) == (500, '{"error": "mine"}')
    assert len(line.server.requests) == 1


async def test_functions_that_hang_keep_nothing_else_waiting() -> None:
    """As many as there may be requests at once; the list, by which a failure is told and taken back, is read all the same."""
    hung = asyncio.Semaphore(0)

    async def hang_and_tell(writer: asyncio.StreamWriter) -> None:
        hung.release()
        await hang(writer)

    known = answer(200, {"data": []}, headers={"X-RateLimit-Limit": "100", "X-RateLimit-Remaining": "90"})
    async with (
        asyncio.timeout(5),
        talking(known, *[hang_and_tell] * 2, listing("greet"), settings=TransportSettings(concurrency=2)) as line,
        asyncio.TaskGroup() as group,
    ):
        await line.api.list_functions()
        hanging = [group.create_task(line.api.invoke_function("id-1", {}, patience=30)) for _ in range(2)]
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
async def test_names_of_secrets_are_read_in_every_shape(body: Json) -> None:
    """As a list, as an object that holds one, wrapped twice; each name once."""
    async with talking(answer(200, body)) as line:
        assert [secret.name for secret in await line.api.list_secrets("id-1")] == ["A", "B"]


async def test_workflows_are_searched_for_functions(emulator: Emulator) -> None:
    """By id, slug or name, at any depth of the definition."""
    configs: dict[str, Json] = {"One": {"function_id": "id-1"}, "Two": {"deep": [{"function_slug": "greet"}]}, "None": {}}
    for name, config in configs.items():
        emulator.world.add_workflow(name, {"nodes": [{"id": "n", "data": {"config": config}}]})
    async with talking(answer(500)) as line:
        users = await _client(line, emulator).workflow_references()
    assert users == {"id-1": ("One",), "greet": ("Two",)}


async def test_every_workflow_that_is_not_archived_counts() -> None:
    """Nodes of every kind and an agent's tools, under whatever status; what is archived uses nothing."""
    states = {"w-1": "active", "w-2": "paused", "w-3": "archived", "w-4": None}
    listed = [{"id": name, "name": name.upper(), "status": state} for name, state in states.items()]
    tools = {"flow_agent_function_tools": [{"function_id": "id-tool"}]}
    nodes = [
        {"data": {"node_type": "function", "config": {"function_id": "id-1"}}},
        {"data": {"node_type": "decide", "config": {"decision": {"function_name": "Decide"}}}},
        {"data": {"node_type": "agent", "config": tools}},
    ]
    definition = answer(200, {"data": {"definition": {"nodes": nodes}}})
    async with talking(answer(200, {"data": listed}), definition, definition, definition) as line:
        users = await line.api.workflow_references()
    assert users == dict.fromkeys(("id-1", "Decide", "id-tool"), ("W-1", "W-2", "W-4"))


def _client(line: Line, emulator: Emulator) -> KapsoClient:
    line.transport.base_url = emulator.base("/platform/v1")
    line.transport._key = lambda: emulator.key
    return line.api


@pytest.mark.parametrize("status", [404, 405])
async def test_a_base_without_workflows_is_told_apart_from_one_that_fails(status: int) -> None:
    """None says that nothing can use the function; an error says that nobody knows."""
    async with talking(answer(status)) as line:
        assert await line.api.workflow_references() is None
    async with talking(answer(200, {"data": [{"name": "no id"}]})) as line:
        with pytest.raises(ApiGarbled):
            await line.api.workflow_references()


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
def test_one_spelling_for_every_way_to_write_the_base(text: str, base: str) -> None:
    """A slash at the end or a host alone make no difference."""
    assert parse_base_url(text) == base


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("app.kapso.ai", "no http"),
        ("ftp://app.kapso.ai", "no http"),
        ("https://user:pw@app.kapso.ai", "user name or password"),
        ("https://app.kapso.ai/api/v1?x=1", "query"),
        ("https://app.kapso.ai:port", "'https://app.kapso.ai:port'"),
        ("http://app.kapso.ai/api/v1", "unencrypted"),
        ("http://10.0.0.1", "unencrypted"),
    ],
)
def test_a_base_that_would_leak_or_cannot_be_is_refused(text: str, said: str) -> None:
    """At the start, with what is wrong; plain http to a stranger only on explicit wish."""
    with pytest.raises(ConfigError, match=said):
        parse_base_url(text)
    if said == "unencrypted":
        assert parse_base_url(text, allow_http=True).startswith("http://")
