"""Endurance: hundreds of passes leak nothing, and a burst of pushes causes few passes."""

from __future__ import annotations

import hashlib
import hmac
import os
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.e2e.test_daemon import SECRET, Running, commit, daemon, until
from tests.program import answering, git
from tests.served import Served, served

pytestmark = pytest.mark.e2e


@pytest.fixture
def kapso() -> Iterator[Served]:
    with served() as running:
        yield running


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    repository = tmp_path / "repository"
    repository.mkdir()
    git(repository, "init", "--quiet", "--initial-branch=main")
    commit(repository, {f"f{number}": answering(str(number)) for number in range(20)})
    return repository


def held(process: int) -> dict[str, int]:
    """What a process uses: handles, threads, children, and memory in kB."""
    status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    lines = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    children = sum(1 for other in Path("/proc").iterdir() if other.name.isdigit() and _parent(other) == process)
    return {
        "handles": len(os.listdir(f"/proc/{process}/fd")),  # noqa: PTH208 - a count
        "threads": int(lines["Threads"]),
        "children": children,
        "memory": int(lines["VmRSS"].split()[0]),
    }


def _parent(process: Path) -> int:
    try:
        return int((process / "stat").read_text(encoding="ascii").rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return 0


def test_hundreds_of_passes_leak_no_memory_handles_or_zombies(kapso: Served, repository: Path, tmp_path: Path) -> None:
    """As many passes as in an hour and more, in shortened time, each with a fetch."""
    environment = {
        **kapso.environment(tmp_path / "state"),
        "KAPSO_SYNC_LISTEN": "127.0.0.1:0",
        "KAPSO_SYNC_INTERVAL": "40ms",
        "KAPSO_SYNC_GIT_INTERVAL": "50ms",
        "KAPSO_SYNC_RATE_SHARE": "100%",
        "KAPSO_SYNC_RATE_WINDOW": "1s",
    }
    kapso.emulator.parts.limiter.limit = 1_000_000
    with daemon(repository.as_uri(), environment) as running:
        running.event("reconcile.finished")
        passes = 0

        def after(count: int) -> dict[str, int]:
            nonlocal passes
            passes += count
            until(lambda: len([call for call in kapso.calls() if call == "GET /functions"]) >= passes, 60)
            return held(running.process.pid)

        def least_after(count: int) -> dict[str, int]:
            """Of ten looks: what leaks is there at each of them, and the pipes of a `git` that runs are not."""
            looks = [after(number) for number in (count, *[1] * 9)]
            return {what: min(look[what] for look in looks) for what in looks[0]}

        early = least_after(60)
        late = least_after(150)
        assert late["handles"] <= early["handles"] + 4
        assert late["threads"] <= early["threads"] + 2
        assert late["children"] <= 4
        assert late["memory"] <= early["memory"] * 1.1 + 4_000
        assert running.status()["in_sync"]


def burst(running: Running, count: int) -> set[int]:
    """Push so often over one connection; return the answers' statuses."""
    body = b'{"ref": "refs/heads/main"}'
    headers = {"X-Signature": f"sha256={hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()}"}
    with httpx.Client(base_url=running.url, timeout=10, trust_env=False) as client:
        return {client.post("/hooks/git", content=body, headers=headers).status_code for _ in range(count)}


def test_five_thousand_webhooks_cause_few_passes(kapso: Served, repository: Path, tmp_path: Path) -> None:
    """Each gets a 202; at most one pass runs and one waits, and the page answers meanwhile."""
    environment = {
        **kapso.environment(tmp_path / "state"),
        "KAPSO_SYNC_LISTEN": "127.0.0.1:0",
        "KAPSO_SYNC_WEBHOOK_SECRET": SECRET,
    }
    with daemon(repository.as_uri(), environment) as running:
        running.event("reconcile.finished")
        kapso.forget_requests()
        with ThreadPoolExecutor(4) as pool:
            bursts = [pool.submit(burst, running, 1250) for _ in range(4)]
            took = []
            with httpx.Client(base_url=running.url, timeout=20, trust_env=False) as client:
                while not all(done.done() for done in bursts):
                    began = time.perf_counter()
                    assert client.get("/").status_code == 200
                    took.append(time.perf_counter() - began)
            assert statistics.median(took) < 0.1
        assert [done.result() for done in bursts] == [{202}] * 4
        running.stop()
        assert running.process.returncode == 0
        looks = kapso.calls().count("GET /functions")
        assert 1 <= looks < 1000, "passes follow each other, and each answers all who rang before it"
