"""Whether a function's response is what a check expects."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapso_sync.emulator.records import Function
from kapso_sync.model.desired import Check, CheckMethod, CheckSignature, DesiredFunction, EnvSecret, SecretValue
from kapso_sync.model.events import CheckFailed, CheckPassed
from kapso_sync.model.evidence import Evidence
from kapso_sync.model.functions import Invocation, InvocationRecord, RemoteFunction
from kapso_sync.model.json_values import Json
from kapso_sync.reconcile.apply.checks import REDACTED, SEARCHED, SHOWN, CheckPace, check_mismatch, includes, shown_answer
from tests.builders import desired, want
from tests.heartbeat import beating
from tests.reconcile.passes import Bench

json_values: st.SearchStrategy[Json] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)


def ask(check: Check, status: int = 200, text: str = "", *, wrapped: bool = False) -> str | None:
    return check_mismatch(check, Invocation(status, "", text), wrapped=wrapped)


@pytest.mark.parametrize(
    ("check", "status", "text", "missing"),
    [
        (Check({}), 204, "", None),
        (Check({}), 302, "", "a success"),
        (Check({}, status=401), 401, "no", None),
        (Check({}, status=200), 500, "", "status 200"),
        (Check({}, json={"ok": True}), 200, '{"ok": true, "more": 1}', None),
        (Check({}, json={"ok": True}), 200, '{"ok": 1}', 'JSON with {"ok":true}'),
        (Check({}, json={"ok": True}), 200, "<html>", 'JSON with {"ok":true}'),
        (Check({}, json={"items": [{"id": 1}]}), 200, '{"items": [{"id": 1, "x": 2}]}', None),
        (Check({}, json={"items": [{"id": 1}]}), 200, '{"items": [{"id": 1}, {"id": 2}]}', 'JSON with {"items":[{"id":1}]}'),
        (Check({}, text="pong"), 200, "ping pong", None),
        (Check({}, text="pong"), 200, "ping", "the text 'pong'"),
        (Check({}, matches=r"v\d+\.\d+"), 200, "this is v1.20", None),
        (Check({}, matches=r"^v\d+$"), 200, "version", r"a match of '^v\\d+$'"),
    ],
)
def test_a_check_compares_status_json_text_and_pattern(check: Check, status: int, text: str, missing: str | None) -> None:
    """Without an expected status any success is accepted."""
    assert ask(check, status, text) == missing


def test_a_check_unwraps_a_wrapped_response() -> None:
    """The check is about the function's response, not about Kapso's envelope."""
    assert ask(Check({}, json={"ok": True}), text='{"data": {"ok": true}}', wrapped=True) is None
    assert ask(Check({}, text="hello"), text='{"data": "hello"}', wrapped=True) is None
    assert ask(Check({}, json={"ok": True}), text='{"data": {"ok": true}}') is not None


@given(json_values)
def test_json_inclusion_is_reflexive(value: Json) -> None:
    """And an object includes every part of itself."""
    assert includes(value, value)
    if isinstance(value, dict):
        for name in value:
            assert includes({name: value[name]}, value)
            assert not includes(value, {other: value[other] for other in value if other != name})


def test_a_check_pattern_with_endless_backtracking_times_out() -> None:
    """A pushed pattern must not block the daemon."""
    started = time.monotonic()
    said = ask(Check({}, matches=r"(a|aa)+$"), text="a" * 60_000 + "b")
    assert said is not None
    assert said.endswith(" within 1 s")
    assert time.monotonic() - started < 20  # without the limit it takes longer than anybody waits; a busy machine took 5.3


def test_a_check_pattern_looks_at_the_beginning_of_a_long_answer() -> None:
    """What backtracks remembers about 200 bytes for each character: 170 MB for an answer of 1 MiB."""
    text = "a" * SEARCHED
    assert ask(Check({}, matches="ab"), text=f"{text[:-2]}ab") is None
    assert ask(Check({}, matches="ab"), text=f"{text}ab") is not None


def test_a_check_failure_shows_the_response_on_one_short_line() -> None:
    """However long it is, and whatever it holds."""
    shown = str(shown_answer(Invocation(500, "", "boom\n\x1b[31m" * 500), str))
    assert "\n" not in shown
    assert "\x1b" not in shown
    assert len(shown) < SHOWN * 2
    assert str(shown_answer(Invocation(204, "", "\n"), str)) == "status 204, an empty body"
    late = f"{' ' * (REDACTED - 5)}{KEY}"
    assert str(shown_answer(Invocation(200, "", late), lambda text: text.replace(KEY, ""))) == "status 200, '…'"


@pytest.mark.parametrize("depth", [500, 990, 100_000])
def test_a_check_survives_a_response_of_any_depth(depth: int) -> None:
    """It goes no deeper than what the manifest expects; a control finds it."""
    deep = "[" * depth + "]" * depth
    for wrapped in (False, True):
        assert ask(Check({}, json={"ok": True}), text=f'{{"data": {deep}}}', wrapped=wrapped) is not None
    assert ask(Check({}, json={"ok": True}), text=f'{{"ok": true, "deep": {"[" * 500 + "]" * 500}}}') is None


async def test_a_check_is_judged_beside_the_event_loop(bench: Bench) -> None:
    """A pattern that takes its whole second blocks nothing: health is answered meanwhile."""
    bench.api.runtime = lambda _: Invocation(200, "", "a" * 1_000_000)
    bench.settings = replace(bench.settings, checks=CheckPace(delay=0.0, window=0.0))
    started = time.monotonic()
    function = want("a")
    checked = replace(function, entry=replace(function.entry, checks=(Check({}, matches=r"(a+)(\1)+b"),)))
    async with beating() as heart:
        report = await bench.sync(desired(checked))
    assert report.exit_code == 1
    assert time.monotonic() - started > 0.9
    assert heart.longest < 0.5


KEY = "hush-hush-hush-hush"
SIGNED = Check({"order": 17}, 200, headers=(("X-Source", "shop"),), sign=CheckSignature("X-Sig", "KEY", "sha256="))


def signed(*checks: Check) -> DesiredFunction:
    function = want("a")
    entry = replace(function.entry, checks=checks, secrets={"KEY": EnvSecret("KEY")})
    return replace(function, entry=entry, secrets={"KEY": SecretValue(KEY, "digest")})


async def test_a_check_is_signed_over_the_bytes_that_are_sent(bench: Bench) -> None:
    """With the function's own secret; what is not a POST is not sent, since Kapso could not pass it on."""
    text = Check(None, body='{"order":  17}', sign=CheckSignature("X-Sig", "KEY"))
    plain = Check(None, body="order=17")
    await bench.sync(desired(signed(SIGNED, text, plain, Check(None, 405, method=CheckMethod.GET))))
    first, second, third = bench.api.asked
    digest = [hmac.new(KEY.encode(), request.body, hashlib.sha256).hexdigest() for request in bench.api.asked]
    assert (first.body, first.headers) == (b'{"order": 17}', {"X-Source": "shop", "X-Sig": f"sha256={digest[0]}"})
    assert (second.body, second.headers) == (b'{"order":  17}', {"X-Sig": digest[1]})
    assert (first.content_type, second.content_type) == ("application/json", "application/json")
    assert (third.body, third.headers, third.content_type) == (b"order=17", {}, "text/plain; charset=utf-8")


async def test_the_answer_to_the_last_check_is_reported_when_all_passed(bench: Bench) -> None:
    """Without secrets, as that of one that failed."""
    bench.redact = lambda text: text.replace(KEY, "[redacted]")
    bench.api.runtime = lambda _: Invocation(201, "", f'{{"key":\n "{KEY}"}}' if len(bench.api.asked) == 2 else "first")
    await bench.sync(desired(signed(Check({}), Check({"n": 2}, 201))))
    (passed,) = [event for event in bench.events if isinstance(event, CheckPassed)]
    assert (passed.checks, passed.answer) == (2, """status 201, '{"key": "[redacted]"}'""")


async def test_key_and_signature_of_a_check_are_learned_as_secrets(bench: Bench) -> None:
    """What redacts all that leaves the process must know them: a function may print them."""
    concealed: list[str] = []
    bench.settings = replace(bench.settings, conceal=concealed.append)
    await bench.sync(desired(signed(SIGNED)))
    assert concealed == [KEY, bench.api.asked[0].headers["X-Sig"].removeprefix("sha256=")]


def test_a_check_without_newer_keys_is_the_attempt_that_it_always_was() -> None:
    """An upgrade must not try again what is in quarantine. A control: a newer key makes another check of it."""
    older = {"request": {}, "status": 200, "json": None, "text": None, "matches": None, "timeout": 10.0}
    assert Check({}, 200).identity() == older
    assert replace(SIGNED, request={}).identity() != older


@dataclass(frozen=True)
class Collector:
    """Says of which invocation there is evidence."""

    async def of_invocation(self, function: RemoteFunction, file: str, record: InvocationRecord) -> Evidence:
        return Evidence((f"{function.slug} {file} {record.request_body}",), "a.ts:1:2")

    async def of_watched(self, function_id: str, slug: str, record: InvocationRecord) -> tuple[str, Evidence]:
        raise NotImplementedError

    async def of_start(self, slug: str, file: str, code: str, error: str) -> Evidence:
        raise NotImplementedError


async def test_a_failed_check_shows_its_own_invocation(bench: Bench) -> None:
    """Found by what was sent, when Kapso hands on the function's own status; one call for all failures of a function."""
    world = bench.api.world

    def answer(function: Function) -> Invocation:
        body = json.loads(bench.api.asked[-1].body)
        world.record_invocation(function, body, 500 if body["n"] else 200)
        return Invocation(500 if body["n"] else 200, "", "")

    bench.api.runtime = answer
    bench.settings = replace(bench.settings, checks=CheckPace(delay=0.0, window=0.0), evidence=Collector())
    function = want("a")
    checks = tuple(Check({"n": number}, 200) for number in range(3))
    report = await bench.sync(desired(replace(function, entry=replace(function.entry, checks=checks))))
    failed = [event for event in bench.events if isinstance(event, CheckFailed)]
    file = function.entry.file
    assert [(event.check, event.place, event.console) for event in failed] == [
        (2, "a.ts:1:2", (f"a {file} {{'n': 1}}",)),
        (3, "a.ts:1:2", (f"a {file} {{'n': 2}}",)),
    ]
    assert report.outcomes[0].evidence == Evidence((f"a {file} {{'n': 1}}",), "a.ts:1:2")
    assert bench.api.count("GET", "/functions/{id}/invocations") == 1
