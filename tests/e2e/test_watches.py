"""A version that throws once real traffic comes is taken back by the daemon, with the line of the source that threw."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from kapso_sync.cli.workerd import find_workerd
from kapso_sync.emulator.records import Invocation
from tests.e2e.test_daemon import daemon, until
from tests.program import kapso_sync
from tests.served import QUICK, Served, served

FOUND = find_workerd()
pytestmark = [pytest.mark.e2e, pytest.mark.skipif(FOUND is None, reason="needs workerd: npm ci")]

SECRET = "canary-of-the-watch-7d1f3b"
HANDLER = """import { total } from "./lib/total";

export default async function (request: Request, env: { TOKEN: string }): Promise<Response> {
  const order = await request.json() as { items: { price: number }[] | null };
  if (!order.items) {
    return new Response("no items", { status: 404 });
  }
  return Response.json({ total: total(order.items, env.TOKEN) });
}
"""
GOOD = """export function total(items: { price: number }[], token: string): number {
  return items.map((item) => item.price).reduce((sum, price) => sum + price, 0);
}
"""
BAD = """export function total(items: { price: number }[], token: string): number {
  console.log("charging with", token);
  const first = items[5];
  return first.price;
}
"""
FIXED = GOOD.replace("sum + price, 0", "sum + price, 1 - 1")


@pytest.fixture
def kapso() -> Iterator[Served]:
    assert FOUND is not None
    with served(replace(QUICK, workerd=FOUND.path)) as running:
        yield running


def environment(kapso: Served, tmp_path: Path) -> dict[str, str]:
    return {
        **kapso.environment(tmp_path / "state"),
        "KAPSO_SYNC_OWNER": "acme/flows",
        "KAPSO_SYNC_CHECK_WINDOW": "20ms",
        "KAPSO_SYNC_LISTEN": "127.0.0.1:0",
        "KAPSO_SYNC_DEBOUNCE": "50ms",
        "KAPSO_SYNC_SECRET_ENV": "WATCH_CANARY",
        "WATCH_CANARY": SECRET,
    }


def write(tmp_path: Path, total: str, watch: str = "{for: 3s, failures: 3, ratio: 50%}") -> str:
    folder = tmp_path / "functions"
    (folder / "lib").mkdir(parents=True, exist_ok=True)
    (folder / "order.ts").write_text(HANDLER, encoding="utf-8")
    (folder / "manifest.yaml").write_text(
        f"version: 1\nfunctions:\n  order:\n    watch: {watch}\n    secrets: {{TOKEN: {{env: WATCH_CANARY}}}}\n",
        encoding="utf-8",
    )
    (folder / "lib" / "total.ts").write_text(total, encoding="utf-8")
    return str(folder)


def call(kapso: Served, body: object, times: int = 1) -> list[int | None]:
    """Invoke the function as somebody would, and return the statuses that Kapso recorded."""
    function_id = kapso.look(lambda world: world.function("order").id)
    url = f"{kapso.emulator.base('/api/v1')}/functions/{function_id}/invoke"
    for _ in range(times):
        httpx.post(url, json=body, headers={"X-API-Key": kapso.emulator.key}, timeout=10, trust_env=False)
    return [each.status_code for each in invocations(kapso)[:times]]


def invocations(kapso: Served) -> list[Invocation]:
    return kapso.look(lambda world: world.invocations(world.function("order").id))


ORDER = {"items": [{"price": 2}]}


def versions(kapso: Served) -> str:
    return kapso.live_code().get("order") or ""


def test_a_version_that_throws_is_taken_back_with_the_line_that_threw(kapso: Served, tmp_path: Path) -> None:
    """4xx floods do nothing; exceptions do. The log, the status and the history show the source's line, and no secret."""
    folder = write(tmp_path, GOOD, "{for: 6s}")
    with daemon(folder, environment(kapso, tmp_path)) as running:
        running.event("watch.started")
        until(lambda: running.status()["functions"][0]["watched_until"])
        page = httpx.get(running.url, timeout=20, trust_env=False).text
        shown = kapso_sync("status", folder, environment=environment(kapso, tmp_path)).out
        assert call(kapso, {"items": None}, 25) == [404] * 25
        assert ("watched after its deployment" in page, "Watched       order until" in shown) == (True, True)
        passed = running.event("watch.passed")
        assert (passed["invocations"], passed["failed"], passed["sampled"]) == (20, 0, True)
        assert call(kapso, ORDER, 3) == [200] * 3
        good = versions(kapso)

        write(tmp_path, BAD)
        running.event("watch.started", 2)
        bad = versions(kapso)
        assert bad != good
        assert call(kapso, ORDER, 4) == [500] * 4
        failed = running.event("watch.failed")
        assert failed["error"].startswith(
            "4 of 4 invocations since its deployment failed, and none of 3 before it: TypeError: "
        )
        assert failed["error"].endswith("(lib/total.ts:4:16)")
        assert failed["place"] == "lib/total.ts:4:16"
        assert [line for line in failed["console"] if "lib/total.ts:4:16" in line]
        logged = [line for line in failed["console"] if line.startswith("log   charging with ")]
        assert logged
        assert SECRET in str(invocations(kapso)[0].console_logs), "Kapso does show it"
        running.event("rollback.succeeded")
        until(lambda: versions(kapso) == good)
        function = running.status()["functions"][0]
        stalled = next(each for each in function["conditions"] if each["type"] == "Stalled")
        assert (stalled["status"], stalled["reason"], function["watched_until"]) == (True, "WatchFailed", None)
        assert "lib/total.ts:4:16" in stalled["message"]
        assert function["broken_by"]["id"] == running.status()["revision"]["id"]
        assert function["change"].startswith("rolled back")
        assert "+  const first = items[5];" in function["diff"], "git has it, and Kapso no more"

        write(tmp_path, FIXED)
        running.event("watch.started", 3)
        until(lambda: running.status()["in_sync"])
    told = kapso_sync("history", "order", folder, environment=environment(kapso, tmp_path))
    assert "lib/total.ts:4:16" in told.out
    assert SECRET not in "".join(running.raw) + told.out
    for path in (tmp_path / "state").rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path


def test_sigkill_in_the_middle_of_a_watch_and_a_restart(kapso: Served, tmp_path: Path) -> None:
    """The next process goes on with the watch, and takes the version back before its time is over."""
    folder = write(tmp_path, GOOD, "{for: 1s}")
    with daemon(folder, environment(kapso, tmp_path)) as running:
        running.event("watch.inconclusive")
        good = versions(kapso)
        write(tmp_path, BAD, "{for: 4s}")
        running.event("watch.started", 2)
        assert call(kapso, ORDER, 2) == [500] * 2
        running.process.send_signal(signal.SIGKILL)
        running.process.wait(20)
    assert versions(kapso) != good
    assert call(kapso, ORDER, 2) == [500] * 2
    with daemon(folder, environment(kapso, tmp_path)) as running:
        assert running.event("watch.failed")["error"].startswith("4 of 4 ")
        running.event("rollback.succeeded")
        until(lambda: versions(kapso) == good)


def test_sync_watches_nothing_and_promises_nothing(kapso: Served, tmp_path: Path) -> None:
    """Neither ``plan`` nor ``sync`` says a word of it, and no invocation is read."""
    folder = write(tmp_path, GOOD)
    planned = kapso_sync("plan", folder, environment=environment(kapso, tmp_path))
    synced = kapso_sync("sync", folder, environment=environment(kapso, tmp_path))
    assert synced.code == 0
    assert "watch" not in (planned.out + synced.out + synced.err).replace(str(tmp_path), "").lower()
    write(tmp_path, BAD)
    assert kapso_sync("sync", folder, environment=environment(kapso, tmp_path)).code == 0
    assert "GET /functions/{id}/invocations" not in kapso.calls()
