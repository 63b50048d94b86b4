"""Answers of Kapso's API. ``answers`` reads one answer with every parser; ``lies`` changes answers in the middle of passes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kapso_sync.api import envelope, wire
from kapso_sync.api.references import Reference, users_in
from kapso_sync.cli.json_documents import plan_document, report_document
from kapso_sync.cli.markdown import plan_markdown
from kapso_sync.cli.render import print_plan, print_report
from kapso_sync.errors import Call, KapsoSyncError
from kapso_sync.model.functions import InvokeRequest, content_hash
from kapso_sync.model.json_values import canonical_json
from kapso_sync.model.plan import Policy
from kapso_sync.model.policies import MaxDelete, PassOverrides
from kapso_sync.model.state import ReconcilerState
from kapso_sync.model.users import UserKind
from kapso_sync.reconcile.apply.executor import Executor, ExecutorSettings
from kapso_sync.reconcile.cycle import PassDeps, PassRequest, reconcile
from kapso_sync.reconcile.desired import DesiredBuilder, SecretValues, keyed_digest, secrets_digest
from kapso_sync.reconcile.plan.guard import Limits
from kapso_sync.reconcile.plan.observed import Observed, stored_content
from kapso_sync.reconcile.plan.planner import make_plan
from kapso_sync.sources.folder import FolderSource
from kapso_sync.sources.secrets import SecretReader
from kapso_sync.status.tracker import StatusTracker
from kapso_sync.store.codec import decode_record, encode_record
from kapso_sync.store.database import StateStore
from kapso_sync.store.history import History, read_history
from tests.builders import OWNER, desired, owned, want
from tests.fuzz.archive import pack, unpack
from tests.fuzz.grammar import RAW, TIMES, Draw, dumps
from tests.fuzz.kapso import Connected, lying_kapso, rules_in
from tests.fuzz.kit import builder_without_tools, check_outside, print_error, printed, workspace
from tests.fuzz.promises import BrokenPromise, check_printed
from tests.fuzz.target import Target

CALL = Call("GET", "/functions")
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def run_answer(data: bytes) -> None:
    """Read the bytes as each kind of answer, and plan from what is in it."""
    said = envelope.error_text(data)
    if said is not None:
        check_printed(said.replace("\x00", ""), own="".join(set(said)))
        if "\n" in said or len(said) > envelope.MESSAGE_LIMIT + 1:
            raise BrokenPromise(f"an error of several lines or without an end: {said[:400]!r}")
    envelope.is_json_error(data), envelope.is_name_taken(data)
    _plan(data)
    try:
        value = envelope.decode(data, CALL, 200)
    except KapsoSyncError as error:
        print_error(error)
        return
    envelope.without_request("x" * 30, value)
    paging = envelope.parse_paging(value)
    paging.more(1)
    for read in (wire.parse_function, wire.parse_secrets, wire.parse_invocations, envelope.parse_records):
        try:
            found: object = read(value, CALL)
        except KapsoSyncError as error:
            print_error(error)
            continue
        repr(found)


def _plan(data: bytes) -> None:
    """Take the answer for the list of functions, and for the users of one: records that cannot be cost no other record."""
    try:
        value = envelope.decode(data, CALL, 200, cut=True)
        listed = wire.parse_list(envelope.parse_records(value, CALL), CALL)
    except KapsoSyncError as error:
        print_error(error)
        return
    users_in([Reference(UserKind.WORKFLOW, "a", value)], listed.functions)
    for function in listed.functions:
        content_hash(stored_content(function))
        canonical_json(dict(function.fields))
        decode_record(encode_record(owned(function, wanted={})))
    wanted = desired(want("greet"), want("other", name="Other", runtime_config={"a": [1]}, description="x"))
    observed = Observed(listed.functions, OWNER, ReconcilerState(), {}, garbled=listed.garbled)
    for policy in (Policy(OWNER), Policy(OWNER, prune=True)):
        plan = make_plan(wanted, observed, policy)
        printed(lambda console, p=plan: print_plan(console, p))  # type: ignore[misc]
        check_printed(plan_markdown(plan))
        json.dumps(plan_document(plan))


def run_lies(data: bytes) -> None:
    """Run three passes, the second with lies, and look at each request, at the folders, and at what is printed."""
    sections = dict(unpack(data))
    with workspace() as root:
        asyncio.run(_passes(root, sections))
        check_outside(root)


async def _passes(root: Path, sections: Mapping[str, bytes]) -> None:
    source, state = root / "source", root / "state"
    source.mkdir()
    state.mkdir()
    overrides = PassOverrides(allow_recreate=b"recreate" in sections.get("flags", b""))
    async with lying_kapso(rules_in(sections.get("rules", b""))) as connected:
        for kind in ("before", "during", "after"):
            connected.kapso.honest = kind != "during"
            for name, content in {**BEFORE, **({} if kind == "before" else AFTER)}.items():
                (source / name).write_bytes(sections.get(f"{kind} {name}", content))
            try:
                await _one_pass(connected, source, state, overrides)
            except KapsoSyncError as error:
                print_error(error)
            connected.kapso.check()
            connected.kapso.asked.clear()
        _check_state(state)
        await _read_everything(connected)


async def _read_everything(connected: Connected) -> None:
    """What `invoke`, `logs`, `disown` and the look-up of users read, with lies."""
    connected.kapso.honest = False
    api = connected.api
    reads: list[Callable[[], Any]] = [
        api.list_functions,
        lambda: api.list_invocations("id-0001", limit=20),
        lambda: api.list_secrets("id-0001"),
        lambda: api.get_function("id-0001"),
        lambda: api.invoke_function("id-0001", InvokeRequest.of_json({}), timeout=5.0),
        lambda: api.find_users(()),
    ]
    for read in reads:
        try:
            repr(await read())
        except KapsoSyncError as error:
            print_error(error)
    connected.kapso.check()


async def _one_pass(connected: Connected, source: Path, state: Path, overrides: PassOverrides) -> None:
    clock = connected.clock
    tracker = StatusTracker(clock, "1", "test", OWNER, connected.redactor.text)
    with StateStore(state, clock.now) as store, History(state, clock.now, connected.redactor.text) as history:

        def emit(event: Any) -> None:
            connected.told.append(event)
            tracker(event)
            history.listen(event)

        reader = SecretReader({"TOKEN": "the-token-of-greet"}, {}, ["*"], state, [], connected.redactor.add)
        values = SecretValues(reader, keyed_digest(b"key"), together=secrets_digest(lambda: "key"))
        plain = builder_without_tools()
        build = DesiredBuilder(plain._builder, secrets=values)

        deps = PassDeps(
            source=FolderSource(source, None, top=None, emit=emit),
            build=build,
            api=connected.api,
            load_state=store.load_state,
            policy=Policy(OWNER, prune=True),
            limits=Limits(MaxDelete(100, percent=True), allow_empty=True),
            clock=clock,
            emit=emit,
        )
        executor = Executor(connected.api, store, clock, emit, ExecutorSettings(deploy_timeout=60.0), connected.redactor.text)
        report = await reconcile(deps, executor, PassRequest(overrides=overrides, on_planned=tracker.planned))
        tracker.ended(report)
        printed(lambda console: print_report(console, report))
        json.dumps(report_document(report))


def _check_state(state: Path) -> None:
    """Every file of the state folder is one that we know, and the history can be shown."""
    for path in state.rglob("*"):
        name = str(path.relative_to(state))
        if not name.isprintable() or ".." in path.parts:
            raise BrokenPromise(f"writes the file {name!r}")
    for slug in ("greet", "other", "gone"):
        for entry in read_history(state, slug):
            json.dumps(entry)


BEFORE = {
    "manifest.yaml": (
        b"version: 1\nfunctions:\n  greet:\n    secrets: {TOKEN: {env: TOKEN}}\n  other: {description: Other}\n  gone:\n"
    ),
    "greet.js": b"async function handler() { return new Response('a'); }\n",
    "other.js": b"async function handler() { return new Response('b'); }\n",
    "gone.js": b"async function handler() { return new Response('c'); }\n",
}
AFTER = {
    "manifest.yaml": (
        b"version: 1\ndefaults: {secrets_policy: exact}\nfunctions:\n  greet:\n    secrets: {TOKEN: {env: TOKEN}}\n"
        b"    checks: [{request: {a: 1}, expect: {status: 200, text: x}}]\n"
        b"  newer:\n    moved_from: other\n    runtime_config: {a: [1]}\n"
    ),
    "greet.js": b"async function handler() { return new Response('a2'); }\n",
    "newer.js": b"async function handler() { return new Response('b'); }\n",
}


def record(draw: Draw) -> dict[str, Any]:
    """A function's record."""
    moment: Callable[[], Any] = lambda: draw.pick(TIMES)  # noqa: E731
    number = draw.pick(("0001", "0002", "0003"))
    return draw.object(
        {
            "id": lambda: draw.pick((f"id-{number}", "..", ".", "a/../../b", "%2e%2e", draw.text())),
            "slug": lambda: draw.pick(("greet", "other", "gone", "newer", draw.text())),
            "name": draw.text,
            "description": lambda: draw.pick(
                (
                    f"x [kapso-sync:{OWNER}#1a2b3c]",
                    f" [kapso-sync:{OWNER}#{draw.pick(('c0ffee', '5d41ab'))} protected]",
                    draw.text(),
                    None,
                )
            ),
            "code": lambda: draw.pick((BEFORE["greet.js"].decode(), draw.text(), None)),
            "status": lambda: draw.pick(("draft", "deployed", "error", "active", "queued")),
            "function_type": "cloudflare_worker",
            "invoke_response_mode": lambda: draw.pick(("passthrough", "wrapped", draw.text())),
            "public_endpoint": lambda: draw.chance(0.5),
            "runtime_config": draw.json,
            "last_deployed_at": moment,
            "updated_at": moment,
            "created_at": moment,
            "endpoint_url": draw.text,
            "cf_worker_url": lambda: draw.pick(("https://x.workers.dev", "https://[", draw.text())),
            "project_id": lambda: draw.pick(("p", draw.text())),
            "lock_version": lambda: draw.pick((0, 3, 2**70)),
        },
        odd=0.1,
    )


def invocation(draw: Draw) -> dict[str, Any]:
    """One record of an invocation."""
    usual = {"level": "log", "message": draw.json, "logged_at": lambda: draw.pick(TIMES), "stack": draw.text}
    return draw.object(
        {
            "id": "i",
            "status_code": lambda: draw.pick((200, 500)),
            "duration_ms": lambda: draw.pick((12, 0.5, f"@raw:{draw.pick(RAW)}")),
            "error_message": draw.text,
            "created_at": lambda: draw.pick(TIMES),
            "console_logs": lambda: [draw.object(usual) for _ in range(2)],
            "request_body": draw.json,
            "response_body": draw.json,
        },
        odd=0.15,
    )


def make_answer(draw: Draw) -> bytes:
    """A list, a record, a list of secrets or invocations, or an error."""
    meta = {"total": lambda: draw.pick((1, 10**9)), "total_pages": 1, "has_more": lambda: draw.chance(0.5), "next": draw.json}
    kind = draw.random.randrange(7)
    value: Any
    if kind < 2:
        value = draw.object(
            {"data": lambda: [record(draw) for _ in range(draw.pick((0, 1, 2, 5)))], "meta": lambda: draw.object(meta)}
        )
    elif kind == 2:
        value = {"data": record(draw)}
    elif kind == 3:
        value = {"data": [draw.object({"name": draw.text, "type": "text"}, odd=0.3) for _ in range(3)]}
    elif kind == 4:
        value = {"data": [invocation(draw) for _ in range(draw.pick((1, 3)))]}
    elif kind == 5:
        errors = draw.pick(({"name": ["has already been taken", draw.json()]}, [draw.json()], draw.json()))
        value = draw.object({"error": draw.text, "message": draw.text, "errors": errors}, odd=0.2)
    else:
        value = draw.json()
    if draw.chance(0.1):
        value = {"data": value}
    return dumps(value, ascii_only=draw.chance(0.6))


ROUTES = (
    "GET /functions",
    "POST /functions",
    "GET /functions/{id}",
    "PATCH /functions/{id}",
    "DELETE /functions/{id}",
    "POST /functions/{id}/deploy",
    "POST /functions/{id}/invoke",
    "GET /functions/{id}/secrets",
    "POST /functions/{id}/secrets",
    "DELETE /functions/{id}/secrets/{name}",
    "GET /functions/{id}/invocations",
    "GET /platform/v1/workflows",
    "GET /platform/v1/whatsapp/flows",
    "*",
)
STATUSES = (200, 201, 204, 301, 400, 401, 402, 403, 404, 405, 408, 409, 422, 429, 500, 502, 503, 599)
FIELDS = (
    "id",
    "slug",
    "name",
    "description",
    "code",
    "status",
    "runtime_config",
    "updated_at",
    "last_deployed_at",
    "lock_version",
    "invoke_response_mode",
    "public_endpoint",
    "project_id",
)


def make_lies(draw: Draw) -> bytes:
    """One to four rules, and sometimes another folder."""
    rules = []
    for _ in range(draw.random.randint(1, 4)):
        rule: dict[str, Any] = {"on": draw.pick(ROUTES), "nth": draw.pick((0, 0, 1, 2, 3))}
        way = draw.random.randrange(8)
        if way < 3:
            place: list[Any] = draw.pick((["data", "*"], ["data", 0], ["data"]))
            rule |= {"at": [*place, draw.pick(FIELDS)], "to": draw.pick((draw.json(), record(draw).get("slug"), "..", None))}
        elif way == 3:
            rule |= {"status": draw.pick(STATUSES), "body": {"error": draw.text(), "errors": draw.json()}}
        elif way == 4:
            rule |= {"status": draw.pick(STATUSES), "raw": draw.text()}
        elif way == 5:
            names = [{"name": draw.pick(("TOKEN", "..", ".", "a/b", "%2e%2e", draw.text())), "type": "text"} for _ in range(2)]
            rule |= {"on": "GET /functions/{id}/secrets", "body": {"data": names}}
        elif way == 6:
            items = [draw.object({"id": draw.pick(("..", "w1", draw.text())), "name": draw.text}) for _ in range(2)]
            rule |= {"on": draw.pick(ROUTES[11:13]), "body": {"data": items}}
        else:
            rule |= {"body": {"data": [record(draw) for _ in range(3)], "meta": {"total_pages": draw.pick((1, 2, 10**6))}}}
        if draw.chance(0.15):
            rule["headers"] = draw.object(
                {"Retry-After": draw.pick(("0", "1e9", "nan", "-1", "x")), "X-RateLimit-Remaining": draw.pick(("0", "-1", "²"))}
            )
            rule["headers"] = {k: v for k, v in rule["headers"].items() if isinstance(v, str) and (k + v).isprintable() and k}
        rules.append(dumps(rule))
    sections = {"rules": b"\n".join(rules)}
    if draw.chance(0.2):
        sections["flags"] = b"recreate"
    return pack(sections)


TOKENS = (
    *(route.encode() for route in ROUTES),
    *(f'"{name}"'.encode() for name in FIELDS),
    b'"data"',
    b'"meta"',
    b'"errors"',
    b'".."',
)
TARGETS = (
    Target("answers", run_answer, make_answer, TOKENS, share=2.0),
    Target("lies", run_lies, make_lies, TOKENS, cpu=20.0, share=3.0),
)
