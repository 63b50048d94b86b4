"""Functions run on workerd: what they receive, how failures are handled, and that no process is left."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from kapso_sync.cli.workerd import find_workerd
from kapso_sync.emulator.clock import SystemClock
from kapso_sync.emulator.options import Behaviour, EmulatorOptions
from kapso_sync.emulator.runtime import Call, Result
from kapso_sync.emulator.workerd import workerd_runtime
from kapso_sync.emulator.workerd.runtime import WorkerdRuntime
from tests.emulator.kapso import DELAY, Kapso, opened, until

FOUND = find_workerd()
pytestmark = [pytest.mark.e2e, pytest.mark.skipif(FOUND is None, reason="needs workerd: npm ci")]

LOOP = "function handler() { while (true); }"
COUNTER = "let calls = 0;\nfunction handler() { return new Response(String(++calls)); }\n"
WAITING = "async function handler(request) { await scheduler.wait(300); return new Response(await request.text()); }"


def binary() -> Path:
    assert FOUND is not None
    return FOUND.path


@pytest.fixture
async def kapso() -> AsyncIterator[Kapso]:
    """An emulator that runs what it deploys, on a clock that the test turns; a function's own answers pass through."""
    behaviour = Behaviour(invoke_failure="passthrough", invoke_mode_in_create=True, handler_ctx=True)
    async with opened(EmulatorOptions(deploy_delay=DELAY, workerd=binary(), behaviour=behaviour)) as running:
        running.http.timeout = 60
        yield running


@pytest.fixture
async def runtime() -> AsyncIterator[WorkerdRuntime]:
    """The runtime alone."""
    async with workerd_runtime(binary(), clock=SystemClock()) as running:
        yield running


def call(code: str, slug: str = "hello", *, body: bytes = b"{}", deployment: str = "1", timeout: float = 20) -> Call:
    """A call of code as if it were live."""
    fields = {"runtime_config": {"timeout": timeout}}
    return Call(f"id-{slug}", slug, deployment, code, fields, {}, "http://kapso.test/", {}, body)  # type: ignore[arg-type]


async def invoke(kapso: Kapso, function_id: str, body: object = None, **headers: str) -> httpx.Response:
    return await kapso.http.post(f"/functions/{function_id}/invoke", json=body, headers=headers)


def console(kapso: Kapso) -> list[object]:
    """What the function that was invoked last wrote."""
    return list(kapso.emulator.log.entries[-1].console)


def processes(runtime: WorkerdRuntime) -> list[int]:
    """The process groups of a runtime."""
    return [keeper.current.pid for keeper in runtime.processes if keeper.current and keeper.current.alive]


def members(group: int, *, dead: bool = True) -> list[int]:
    """The processes of a group, including zombies."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, pgrp = stat.read_text().rpartition(")")[2].split()[:3]
            if int(pgrp) == group and (dead or state != "Z"):
                found.append(int(stat.parent.name))
    return found


@pytest.mark.parametrize(
    "code",
    [
        "function handler(request, env) { return new Response('hi'); }",
        "async function handler(request) { return new Response('hi'); } // no newline after this",
        "const handler = async () => new Response('hi');",
        "total = 0; var handler = function () { return new Response('hi'); };",
        "export default function handler(request) { return new Response('hi'); }",
        "export default async () => new Response('hi');",
        "export default { async fetch(request, env, ctx) { ctx.waitUntil(Promise.resolve()); return new Response('hi'); } };",
        "const text = 'hi';\nconst run = () => new Response(text);\nexport { run as default };",
        "export default { text: 'hi', fetch() { return new Response(this.text); } };",
    ],
)
async def test_every_code_style_runs_on_workerd(kapso: Kapso, code: str) -> None:
    """A script with a handler at top level, sloppy mode too, and a module with a default export."""
    function_id = await kapso.deployed(code=code)
    answer = await invoke(kapso, function_id)
    assert (answer.status_code, answer.text) == (200, "hi")


async def test_invocation_returns_the_functions_own_response(kapso: Kapso) -> None:
    """Status, content type and bytes pass through; ``wrapped`` puts JSON or text below ``data``."""
    code = """async function handler(request) {
      const {status, type, body} = await request.json();
      return new Response(body, {status, headers: {'content-type': type}});
    }"""
    wanted = {"status": 418, "type": "text/html; charset=utf-8", "body": "<p>ñ</p>"}
    answer = await invoke(kapso, await kapso.deployed(code=code), wanted)
    assert (answer.status_code, answer.headers["content-type"], answer.text) == (418, wanted["type"], wanted["body"])
    wrapped = await kapso.deployed("wrapped", code, invoke_response_mode="wrapped")
    answer = await invoke(kapso, wrapped, {"status": 201, "type": "application/json", "body": '{"n": [1]}'})
    assert (answer.status_code, answer.json()) == (201, {"data": {"n": [1]}})
    answer = await invoke(kapso, wrapped, {"status": 200, "type": "text/plain", "body": "text"})
    assert answer.json() == {"data": "text"}
    binary_code = "function handler() { return new Response(new Uint8Array([0, 255, 10])); }"
    answer = await invoke(kapso, await kapso.deployed("bytes", binary_code))
    assert (answer.content, "content-type" in answer.headers) == (b"\x00\xff\n", False)
    empty = await invoke(kapso, await kapso.deployed("empty", "const handler = () => new Response(null, {status: 204});"))
    assert (empty.status_code, empty.content) == (204, b"")


async def test_function_receives_request_headers_and_current_secrets(kapso: Kapso) -> None:
    """The API key does not arrive; a secret is there as soon as it is set and missing when it is deleted."""
    code = """async function handler(request, env) {
      return Response.json({
        body: await request.json(), method: request.method, path: new URL(request.url).search,
        headers: [request.headers.get('x-signature'), request.headers.get('x-api-key')], secret: env.TOKEN ?? null,
      });
    }"""
    function_id = await kapso.deployed(code=code)

    async def secret() -> object:
        answer = await kapso.http.post(f"/functions/{function_id}/invoke?a=1", json={"ñ": 1}, headers={"X-Signature": "abc"})
        seen = answer.json()
        rest = {"body": {"ñ": 1}, "method": "POST", "path": "?a=1", "headers": ["abc", None]}
        assert {name: value for name, value in seen.items() if name != "secret"} == rest
        return seen["secret"]

    assert await secret() is None
    await kapso.http.post(f"/functions/{function_id}/secrets", json={"secret": {"name": "TOKEN", "value": "s3cret ñ"}})
    assert await secret() == "s3cret ñ"
    await kapso.http.delete(f"/functions/{function_id}/secrets/TOKEN")
    assert await secret() is None


async def test_public_functions_run_without_an_api_key(kapso: Kapso) -> None:
    """Private ones are 404 without the key."""
    code = "function handler() { return new Response('hi'); }"
    public, private = await kapso.deployed("public", code, public_endpoint=True), await kapso.deployed("private", code)
    statuses = [(await invoke(kapso, item, **{"X-API-Key": ""})).status_code for item in (public, private)]
    assert statuses == [200, 404]


async def test_only_deployed_code_runs(kapso: Kapso) -> None:
    """Saved code runs once it is deployed, and each deployment starts a new instance; between calls variables stay."""
    function_id = await kapso.deployed(code=COUNTER)
    assert [(await invoke(kapso, function_id)).text for _ in range(2)] == ["1", "2"]
    await kapso.update(function_id, code="const handler = () => new Response('new');")
    assert (await invoke(kapso, function_id)).text == "3"
    await kapso.update(function_id, code=COUNTER)
    await kapso.deploy(function_id)
    await kapso.clock.sleep(DELAY)
    assert (await invoke(kapso, function_id)).text == "1"


KV = """export default async function (request, {KV}) {
  const seen = {};
  await KV.put('cart/ñ 1', JSON.stringify({n: 1}), {expirationTtl: 60, metadata: {by: 'ñ'}});
  await KV.put('cart/2', new Uint8Array([1, 2]));
  await KV.put('other', 'text');
  seen.text = await KV.get('cart/ñ 1');
  seen.json = await KV.get('cart/ñ 1', 'json');
  seen.typed = await KV.get('cart/ñ 1', {type: 'json'});
  seen.bytes = [...new Uint8Array(await KV.get('cart/2', 'arrayBuffer'))];
  seen.stream = await new Response(await KV.get('other', 'stream')).text();
  seen.missing = await KV.get('missing');
  seen.metadata = (await KV.getWithMetadata('cart/ñ 1')).metadata;
  seen.many = Object.fromEntries(await KV.get(['other', 'missing']));
  const first = await KV.list({prefix: 'cart/', limit: 1});
  const second = await KV.list({prefix: 'cart/', cursor: first.cursor});
  seen.pages = [first, second].map(({keys, list_complete}) => [keys.map(({name}) => name), list_complete]);
  await KV.delete('other');
  seen.left = (await KV.list()).keys.map(({name}) => name);
  seen.short = await KV.put('x', 'y', {expirationTtl: 5}).catch((error) => error.message);
  return Response.json(seen);
}"""


async def test_kv_stores_values_of_the_project(kapso: Kapso) -> None:
    """``env.KV`` reads, writes, expires, lists and deletes; functions share it, and it survives a killed process."""
    writer = await kapso.deployed("writer", KV)
    assert (await invoke(kapso, writer)).json() == {
        "text": '{"n":1}',
        "json": {"n": 1},
        "typed": {"n": 1},
        "bytes": [1, 2],
        "stream": "text",
        "missing": None,
        "metadata": {"by": "ñ"},
        "many": {"other": "text", "missing": None},
        "pages": [[["cart/2"], False], [["cart/ñ 1"], True]],
        "left": ["cart/2", "cart/ñ 1"],
        "short": "KV PUT failed: 400 Bad Request",
    }
    reader = await kapso.deployed("reader", "const handler = async (_, {KV}) => new Response(await KV.get('cart/ñ 1'));")
    loop = await kapso.deployed("loop", LOOP, runtime_config={"timeout": 0.2})
    assert (await invoke(kapso, loop)).status_code == 504
    assert (await invoke(kapso, reader)).text == '{"n":1}'
    await kapso.clock.sleep(60)
    assert (await invoke(kapso, reader)).text == ""
    await kapso.control("POST", "/reset")
    lister = await kapso.deployed("lister", "const handler = async (_, {KV}) => Response.json((await KV.list()).keys);")
    assert (await invoke(kapso, lister)).json() == []


@pytest.mark.parametrize(
    ("code", "failure"),
    [
        ("function handler() {\n  return (;\n}\n", "Uncaught SyntaxError: Unexpected token ';'\n  at hello.js:2:11"),
        ("function handler() { return (; }", "Uncaught SyntaxError: Unexpected token ';'\n  at hello.js:1:30"),
        ("export default () => {\n  return (;\n}", "Uncaught SyntaxError: Unexpected token ';'\n  at hello.js:2:11"),
        (
            "const key = undefined;\nkey.length;\nfunction handler() {}",
            "Uncaught TypeError: Cannot read properties of undefined (reading 'length')\n  at hello.js:2:5",
        ),
        (
            "const nothing = 1;",
            "Uncaught TypeError: there is no handler, neither at top level nor as the default export",
        ),
        (
            "module.exports = {};",
            "Uncaught TypeError: Cannot set properties of undefined (setting 'exports')\n  at hello.js:1:16",
        ),
        (
            "import x from 'left-pad';\nexport default x;",
            'Uncaught Error: No such module "left-pad".\n  imported from "hello.js"',
        ),
    ],
)
async def test_code_that_does_not_start_fails_its_deployment(kapso: Kapso, code: str, failure: str) -> None:
    """The deployment ends in ``error`` with workerd's message, at the place in the file; the former code is no longer live."""
    function_id = await kapso.deployed(code="const handler = () => new Response('hi');")
    await kapso.update(function_id, code=code)
    await kapso.deploy(function_id)
    await kapso.clock.sleep(DELAY)
    assert (await kapso.record(function_id))["status"] == "error"
    assert kapso.emulator.world.function(function_id).failure == failure
    assert (await invoke(kapso, function_id)).status_code == 422


@pytest.mark.parametrize("path", sorted(Path(__file__).parents[2].glob("functions.example/*.js")), ids=lambda path: path.stem)
async def test_example_functions_run(runtime: WorkerdRuntime, path: Path) -> None:
    """Each starts, and answers even an empty request in JSON, without an exception."""
    code = path.read_text(encoding="utf-8")
    assert await runtime.check(path.stem, code) is None
    result = await runtime.run(call(code, path.stem))
    assert not result.failed
    assert json.loads(result.body)


async def test_workerd_and_not_our_parser_decides_about_new_syntax(kapso: Kapso) -> None:
    """Code that starts is deployed, even if the parser of an emulator without workerd would refuse it."""
    code = "function handler() { using lock = {[Symbol.dispose]() {}}; return new Response('hi'); }"
    function_id = await kapso.deployed(code=code)
    assert (await invoke(kapso, function_id)).text == "hi"


async def test_code_that_loops_at_startup_does_not_block_other_functions(kapso: Kapso) -> None:
    """It is killed after some seconds; live functions answer meanwhile, and another deployment succeeds."""
    function_id = await kapso.deployed(code=COUNTER)
    loop, other = await kapso.create("loop", "while (true);"), await kapso.create("other", COUNTER)
    deploying = [asyncio.create_task(kapso.deploy(item)) for item in (loop, other)]
    await asyncio.sleep(0)
    assert (await invoke(kapso, function_id)).text == "1"
    assert not any(task.done() for task in deploying)
    await asyncio.gather(*deploying)
    await kapso.clock.sleep(DELAY)
    assert [(await kapso.record(item))["status"] for item in (loop, other)] == ["error", "deployed"]
    assert kapso.emulator.world.function(loop).failure == "The code did not start within 5 s"


@pytest.mark.parametrize(
    ("code", "error", "line"),
    [
        (
            "async function handler(request) {\n  console.log('in', {a: 1});\n  null.x;\n}",
            "TypeError: Cannot read properties of null (reading 'x')",
            ["error", "TypeError: Cannot read properties of null (reading 'x')\n    at handler (hello.js:3:8)"],
        ),
        ("const handler = async () => { throw 'out'; };", "out", ["error", "Uncaught out"]),
        ("function handler() {}", *["TypeError: the handler returned undefined, not a Response"] * 2),
        ("const handler = async () => ({status: 200});", *["TypeError: the handler returned object, not a Response"] * 2),
    ],
)
async def test_an_exception_is_a_500_with_the_error_as_json(kapso: Kapso, code: str, error: str, line: object) -> None:
    """Wrapped or not; the console has the place in the function's own file."""
    for slug, mode in (("hello", "passthrough"), ("wrapped", "wrapped")):
        answer = await invoke(kapso, await kapso.deployed(slug, code, invoke_response_mode=mode))
        assert (answer.status_code, answer.json()) == (500, {"error": error})
        if slug == "hello":
            assert console(kapso)[-1] == (line if isinstance(line, list) else ["error", line])


async def test_console_lines_are_kept_per_invocation(kapso: Kapso) -> None:
    """Each request has its own lines; those of the startup come with the first call; their number and length are limited."""
    code = """console.info('started');
    async function handler(request) {
      const n = await request.json();
      console.log('call', n, {n, list: [1n]}, null, undefined);
      await scheduler.wait(20);
      console.warn(new Error('careful').message);
      return new Response(String(n));
    }"""
    function_id = await kapso.deployed(code=code)
    await asyncio.gather(*(invoke(kapso, function_id, n) for n in range(5)))
    entries = [entry for entry in kapso.emulator.log.entries if entry.route == "/functions/{id}/invoke"]
    lines = [line for entry in entries for line in entry.console]
    assert lines.count(["info", "started"]) == 1
    for entry in entries:
        own = [["log", f'call {entry.body} {{"n":{entry.body},"list":["1n"]}} null undefined'], ["warn", "careful"]]
        assert entry.console[-2:] == own
    chatty = await kapso.deployed("chatty", "const handler = () => { for (let i = 0; i < 1e5; i++) console.log(i); };")
    await invoke(kapso, chatty)
    assert len(console(kapso)) <= 202


async def test_a_slow_function_ends_at_its_timeout(kapso: Kapso) -> None:
    """``runtime_config.timeout`` of the deployment counts; the process goes on, and so do variables of other functions."""
    counter = await kapso.deployed("counter", COUNTER)
    await invoke(kapso, counter)
    code = "async function handler() { console.log('waiting'); await scheduler.wait(60000); return new Response(); }"
    function_id = await kapso.deployed(code=code, runtime_config={"timeout": 0.3})
    begun = time.monotonic()
    answer = await invoke(kapso, function_id)
    assert (answer.status_code, answer.json()) == (504, {"error": "The function did not answer within 0.3 s"})
    assert time.monotonic() - begun < 50  # the function itself waits for 60 s
    assert console(kapso) == [["log", "waiting"]]
    assert (await invoke(kapso, counter)).text == "2"


async def test_an_endless_loop_blocks_neither_emulator_nor_other_functions(kapso: Kapso) -> None:
    """The stuck process is replaced; other calls that were in it are answered by the next one."""
    loop = await kapso.deployed("loop", LOOP, runtime_config={"timeout": 0.3})
    others = [await kapso.deployed(f"other-{n}", WAITING) for n in range(3)]
    waiting = [asyncio.create_task(invoke(kapso, item, n)) for n, item in enumerate(others)]
    answer = await invoke(kapso, loop)
    assert (answer.status_code, answer.json()) == (504, {"error": "The function did not answer within 0.3 s"})
    assert [item.text for item in await asyncio.gather(*waiting)] == ["0", "1", "2"]


async def test_unbounded_memory_use_is_an_error_response(runtime: WorkerdRuntime) -> None:
    """The killed process is replaced, and the machine keeps its memory."""
    hog = "function handler() { const all = []; while (true) all.push(new Array(1000).fill(Math.random())); }"
    result = await runtime.run(call(hog, "hog"))
    assert (result.status, result.failed) == (500, True)
    assert json.loads(result.body)["error"].startswith("The runtime ended: ")
    assert (await runtime.run(call(COUNTER))).body == b"1"


async def test_a_killed_workerd_process_is_replaced_with_backoff(runtime: WorkerdRuntime) -> None:
    """Idle or at work: only variables are lost, and the next restart has a longer delay."""
    assert await runtime.check("hello", COUNTER) is None
    assert (await runtime.run(call(COUNTER))).body == b"1"
    for group in processes(runtime):
        os.killpg(group, signal.SIGKILL)
    assert await runtime.check("hello", COUNTER) is None
    assert (await runtime.run(call(COUNTER))).body == b"1"
    running = asyncio.create_task(runtime.run(call(WAITING, "waiting", body=b"mine")))
    await until(lambda: (current := runtime.processes[1].current) and current.busy)
    os.killpg(processes(runtime)[1], signal.SIGKILL)
    assert (await running).body == b"mine"


async def test_shutdown_does_not_wait_for_running_calls(runtime: WorkerdRuntime) -> None:
    """Running calls, and those that wait for another process, are answered when the emulator ends."""
    looping = asyncio.create_task(runtime.run(call(LOOP, "loop")))
    await until(lambda: (current := runtime.processes[1].current) and current.busy)
    waiting = asyncio.create_task(runtime.run(call(COUNTER)))
    await asyncio.sleep(0)
    begun = time.monotonic()
    await runtime.processes[1].close()
    for task in (looping, waiting):
        assert json.loads((await task).body) == {"error": "The runtime ended: the emulator ends"}
    assert time.monotonic() - begun < 15  # each call may take 20 s


async def test_shutdown_ends_queries_that_run_and_tells_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """`test` ends so when a check has run out of time, and a traceback would be all over its results."""
    endless = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT max(x) FROM c"
    code = (
        f'async function handler(request, env) {{ await Promise.all([1, 2].map(() => env.DB.prepare("{endless}").first())); }}'
    )
    async with contextlib.AsyncExitStack() as stack:
        runtime = await stack.enter_async_context(workerd_runtime(binary(), clock=SystemClock()))
        assert (await runtime.run(call(code, timeout=0.1))).status == 504
        started = time.monotonic()
        await stack.aclose()
    assert time.monotonic() - started < 3
    assert not caplog.records


async def test_a_workerd_that_does_not_start_is_reported(tmp_path: Path) -> None:
    """Deployments fail and calls are refused with its own message, at once, without starting it again and again."""
    broken = tmp_path / "workerd"
    broken.write_text(f"#!/bin/sh\necho x >> {tmp_path}/starts\necho no such luck >&2\nexit 3\n")
    broken.chmod(0o700)
    async with workerd_runtime(broken, clock=SystemClock()) as runtime:
        for _ in range(5):
            assert await runtime.check("hello", COUNTER) == "The runtime ended while the code started: no such luck"
        result = await runtime.run(call(COUNTER))
        assert (result.status, json.loads(result.body)) == (500, {"error": "The runtime ended: no such luck"})
    assert (tmp_path / "starts").read_text().count("x") < 12


@pytest.mark.parametrize("wrapped", [False, True])
async def test_shutdown_leaves_no_workerd_process(tmp_path: Path, wrapped: bool) -> None:
    """Neither workerd's processes nor those of a script that only starts workerd."""
    path = binary()
    if wrapped:
        path = tmp_path / "workerd"
        path.write_text(f'#!/bin/sh\n"{binary()}" "$@"\nexit $?\n')
        path.chmod(0o700)
    async with workerd_runtime(path, clock=SystemClock()) as runtime:
        await runtime.check("hello", COUNTER)
        await runtime.run(call(COUNTER))
        groups = processes(runtime)
        assert [len(members(group)) for group in groups] == [3 + wrapped] * 2
    await until(lambda: not any(members(group) for group in groups))


async def test_sigkill_of_the_emulator_ends_workerd_too() -> None:
    """SIGKILL allows no cleanup; a guard process does it."""
    program = f"""
import asyncio, pathlib
from kapso_sync.emulator.clock import SystemClock
from kapso_sync.emulator.workerd import workerd_runtime

async def main():
    async with workerd_runtime(pathlib.Path({str(binary())!r}), clock=SystemClock()) as runtime:
        await runtime.check("hello", "const handler = () => new Response();")
        print(runtime.processes[0].current.pid, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    async with asyncio.timeout(20):
        group = int(await process.stdout.readline())
    assert members(group)
    process.kill()
    await process.wait()
    await until(lambda: not members(group, dead=False))


async def test_functions_have_no_network_access_unless_configured(runtime: WorkerdRuntime) -> None:
    """Without ``network`` to no address; with it still not to this machine or its private network."""
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    code = f"const handler = () => fetch('http://127.0.0.1:{port}/').then(() => new Response('reached'));"
    async with server, workerd_runtime(binary(), clock=SystemClock(), network=True) as online:
        for candidate in (runtime, online):
            result = await candidate.run(call(code))
            assert (result.status, result.failed) == (500, True)


async def test_functions_do_not_inherit_the_emulators_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Functions see only their own secrets."""
    monkeypatch.setenv("KAPSO_API_KEY", "s3cret")
    code = "const handler = () => new Response(`${typeof process} ${typeof Deno} ${JSON.stringify(globalThis.process?.env)}`);"
    async with workerd_runtime(binary(), clock=SystemClock()) as runtime:
        assert (await runtime.run(call(code))).body == b"undefined undefined undefined"
        groups = processes(runtime)
        environments = [Path(f"/proc/{pid}/environ").read_bytes() for group in groups for pid in members(group)]
        assert environments
        assert not any(b"s3cret" in item for item in environments)


async def test_fifty_concurrent_calls_get_their_own_responses(runtime: WorkerdRuntime) -> None:
    """They wait together, not one after the other."""
    begun = time.monotonic()
    results = await asyncio.gather(
        *(runtime.run(call(WAITING, f"f-{n % 5}", body=str(n).encode(), timeout=60)) for n in range(50))
    )
    assert [result.body for result in results] == [str(n).encode() for n in range(50)]
    assert time.monotonic() - begun < 10 < 50 * 0.3


async def test_two_hundred_functions_fit_into_one_workerd_process(runtime: WorkerdRuntime) -> None:
    """They take less than 3 MB each, and beyond 256 functions the process is replaced."""
    code = "function handler() { return new Response('hi'); }"

    async def run(number: int) -> Result:
        return await runtime.run(call(code, f"f-{number}"))

    assert [await runtime.check(f"f-{n}", code) for n in range(100)] == [None] * 100
    assert all([(await run(n)).body == b"hi" for n in range(200)])
    trying, running = runtime.processes
    assert trying.current
    assert running.current
    assert len(trying.current.isolates) == 36
    assert len(running.current.isolates) == 200
    assert sum(_memory(pid) for pid in members(running.current.pid)) < 200 * 3_000_000 + 100_000_000
    first = running.current.pid
    assert all([(await run(n)).body == b"hi" for n in range(200, 300)])
    assert running.current.pid != first
    assert not members(first)


def _memory(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
