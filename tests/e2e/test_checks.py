"""Checks and rollback, with the program as a process and code that really runs."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from kapso_sync.cli.workerd import find_workerd
from kapso_sync.emulator.options import Behaviour, EmulatorOptions
from tests.e2e.test_daemon import daemon, until
from tests.e2e.test_kill import settle, wait_for_hang
from tests.program import kapso_sync, started, write_functions
from tests.served import QUICK, Served, served

FOUND = find_workerd()
pytestmark = [pytest.mark.e2e, pytest.mark.skipif(FOUND is None, reason="needs workerd: npm ci")]

CHECKED = "    checks: [{request: {ping: true}, expect: {json: {pong: true}}}]\n"
ROLLBACK = (
    "GET /functions",
    "PATCH /functions/{id}",
    "POST /functions/{id}/deploy",
    "GET /functions",
    "POST /functions/{id}/invoke",
    "GET /functions/{id}/invocations",
    "PATCH /functions/{id}",
    "POST /functions/{id}/deploy",
    "GET /functions",
)
"""What a failing check costs: written, deployed, asked; then the same with what ran before."""


def pong(version: int, *, good: bool = True) -> str:
    """Code that deploys in any case, and answers as the check expects or not."""
    return f"async function handler() {{\n  return Response.json({{pong: {str(good).lower()}, version: {version}}});\n}}\n"


@pytest.fixture
def options() -> EmulatorOptions:
    assert FOUND is not None
    return replace(QUICK, workerd=FOUND.path)


@pytest.fixture
def kapso(options: EmulatorOptions) -> Iterator[Served]:
    with served(options) as running:
        yield running


def quick(kapso: Served, tmp_path: Path) -> dict[str, str]:
    return {
        **kapso.environment(tmp_path / "state"),
        "KAPSO_SYNC_OWNER": "acme/flows",
        "KAPSO_SYNC_CHECK_DELAY": "10ms",
        "KAPSO_SYNC_CHECK_WINDOW": "20ms",
        "KAPSO_SYNC_LISTEN": "127.0.0.1:0",
        "KAPSO_SYNC_DEBOUNCE": "50ms",
    }


def folder_with(tmp_path: Path, code: str) -> str:
    write_functions(tmp_path / "functions", {"greet": code}, CHECKED)
    return str(tmp_path / "functions")


def test_a_failing_check_rolls_back_and_the_fix_goes_live(kapso: Served, tmp_path: Path) -> None:
    """The log's lines, the page's condition, and what runs at each moment."""
    folder = folder_with(tmp_path, pong(1))
    with daemon(folder, quick(kapso, tmp_path)) as running:
        running.event("check.passed")
        folder_with(tmp_path, pong(2, good=False))
        failed = running.event("check.failed")
        assert (failed["expected"], "pong" in failed["answer"]) == ('JSON with {"pong":true}', True)
        running.event("rollback.succeeded")
        assert kapso.live_code() == {"greet": pong(1)}
        status = httpx.get(f"{running.url}/api/status", timeout=20, trust_env=False).json()
        (function,) = status["functions"]
        conditions = {item["type"]: item for item in function["conditions"]}
        assert (conditions["Stalled"]["status"], conditions["Stalled"]["reason"]) == (True, "CheckFailed")
        assert "is in quarantine" in conditions["Stalled"]["message"]
        assert "+  return Response.json({pong: false, version: 2});" in function["diff"]
        kapso.forget_requests()
        asked = kapso_sync("reconcile", "--wait", folder, environment=quick(kapso, tmp_path))
        assert (asked.code, kapso.calls()) == (1, ["GET /functions"])
        again = kapso_sync("reconcile", "--wait", "--retry", "greet", folder, environment=quick(kapso, tmp_path))
        assert (again.code, len(running.named("rollback.succeeded"))) == (1, 2)
        unknown = kapso_sync("reconcile", "--retry", "nobody", folder, environment=quick(kapso, tmp_path))
        assert "no function nobody" in unknown.err
        folder_with(tmp_path, pong(3))
        until(lambda: kapso.live_code() == {"greet": pong(3)})
        assert running.event("check.passed", 2)["slug"] == "greet"


def test_a_check_waits_for_an_edge_that_still_serves_old_code(options: EmulatorOptions, tmp_path: Path) -> None:
    """It answers with old code for a second after the deployment; the check passes all the same."""
    with served(replace(options, behaviour=Behaviour(edge_stale=1.0))) as kapso:
        environment = {**quick(kapso, tmp_path), "KAPSO_SYNC_CHECK_WINDOW": "20s"}
        old = "async function handler() {\n  return Response.json({pong: false});\n}\n"
        write_functions(tmp_path / "functions", {"greet": old})
        assert kapso_sync("sync", str(tmp_path / "functions"), environment=environment).code == 0
        assert kapso_sync("sync", folder_with(tmp_path, pong(2)), environment=environment).code == 0
        assert kapso.live_code() == {"greet": pong(2)}


@pytest.mark.parametrize("when", ["hang_before", "hang_after"])
@pytest.mark.parametrize(("call", "nth"), [(c, ROLLBACK[: n + 1].count(c)) for n, c in enumerate(ROLLBACK)])
def test_sigkill_at_any_call_of_a_rollback_ends_with_the_old_code(
    kapso: Served, tmp_path: Path, call: str, nth: int, when: str
) -> None:
    """After one more sync the former code runs; the bad code is in quarantine, and a further sync makes no write."""
    environment = quick(kapso, tmp_path)
    assert kapso_sync("sync", folder_with(tmp_path, pong(1)), environment=environment).code == 0
    folder = folder_with(tmp_path, pong(2, good=False))
    method, route = call.split()
    kapso.faults({"what": when, "method": method, "route": route, "nth": nth})
    with started("sync", folder, environment=environment) as process:
        wait_for_hang(kapso, process.poll)
        process.send_signal(signal.SIGKILL)
        process.wait(20)
    kapso.control("POST", "/release")
    kapso.faults()
    assert kapso_sync("sync", folder, environment=environment).code == 1
    settle(kapso)
    assert kapso.live_code() == {"greet": pong(1)}
    assert kapso.world.function("greet").code == pong(1)
    kapso.forget_requests()
    assert kapso_sync("sync", folder, environment=environment).code == 1
    assert kapso.calls() == ["GET /functions"]


WEBHOOK = """\
import { isSigned, type Keyed } from "./lib/verify";

export default async function handler(request: Request, env: Keyed): Promise<Response> {
  const body = await request.arrayBuffer();
  const signed = await isSigned(body, request.headers.get("X-Signature"), env);
  if (!signed) return new Response("", { status: 401 });
  return Response.json({ source: request.headers.get("X-Source") }, { status: 202 });
}
"""
VERIFY = """\
export type Keyed = { WEBHOOK_SECRET: string };

export async function isSigned(body: ArrayBuffer, header: string | null, env: Keyed): Promise<boolean> {
  const match = /^sha256=([0-9a-f]{64})$/.exec(header ?? "");
  if (!match) return false;
  const raw = new TextEncoder().encode(env.WEBHOOK_SECRET);
  const key = await crypto.subtle.importKey("raw", raw, { name: "HMAC", hash: "SHA-256" }, false, ["verify"]);
  const bytes = Uint8Array.from(match[1].match(/../g)!, (pair) => parseInt(pair, 16));
  return crypto.subtle.verify("HMAC", key, bytes, body);
}
"""
THROWS = """\
  console.log("looking at", header, "with", env.WEBHOOK_SECRET);
  (undefined as any).key;
"""
MANIFEST = """\
version: 1
functions:
  hook:
    secrets: {WEBHOOK_SECRET: {value: "hush-hush-hush-hush"}}
    checks:
      - request: {order: 17}
        headers: {X-Source: shop}
        sign: {header: X-Signature, secret: WEBHOOK_SECRET, prefix: "sha256="}
        expect: {status: 202, json: {source: shop}}
      - text: '{"order": 17}'
        expect: {status: 401}
      - method: GET
        expect: {status: 405}
"""


def test_a_webhook_is_checked_with_its_signature_and_a_failure_shows_the_line(kapso: Served, tmp_path: Path) -> None:
    """Console and place in the shared module: in the log, the status, the page and the report; no secret, no signature."""
    folder = tmp_path / "functions"
    (folder / "lib").mkdir(parents=True)
    (folder / "manifest.yaml").write_text(MANIFEST, encoding="utf-8")
    (folder / "hook.ts").write_text(WEBHOOK, encoding="utf-8")
    (folder / "lib" / "verify.ts").write_text(VERIFY, encoding="utf-8")
    with daemon(str(folder), quick(kapso, tmp_path)) as running:
        assert running.event("check.passed")["checks"] == 2
        broken = VERIFY.replace("  if (!match)", f"{THROWS}  if (!match)")
        (folder / "lib" / "verify.ts").write_text(broken, encoding="utf-8")
        failed = running.event("check.failed")
        running.event("rollback.succeeded")
        assert failed["place"] == "lib/verify.ts:6:22"
        assert failed["console"][0] == "log   looking at sha256=[redacted] with [redacted]"
        assert failed["console"][-2:] == [
            "          at isSigned (lib/verify.ts:6:22)",
            "          at handler (hook.ts:5:24)",
        ]
        until(lambda: httpx.get(f"{running.url}/api/status", trust_env=False).json()["functions"][0]["evidence"] is not None)
        status = json.loads(kapso_sync("status", str(folder), "--json", environment=quick(kapso, tmp_path)).out)
        assert status["functions"][0]["evidence"] == {"place": failed["place"], "console": failed["console"]}
        page = httpx.get(f"{running.url}/", timeout=20, trust_env=False).text
        assert "at <code>lib/verify.ts:6:22</code>" in page
        shown = kapso_sync("status", str(folder), environment=quick(kapso, tmp_path)).out
        assert "thrown at lib/verify.ts:6:22" in shown
        assert "hush" not in f"{failed}{status}{page}{shown}{running.raw}"
