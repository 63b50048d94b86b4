"""Three daemons, one Lease: one writes at any time, whatever happens to it, and another is soon there when it is gone."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.test_daemon import SECRET, Running, commit, daemon, live, until
from tests.lease_server import LeaseServer, lease_server
from tests.program import Ran, answering, git, kapso_sync, write_functions
from tests.served import Served, served

pytestmark = pytest.mark.e2e
TOKEN = "admin-token-of-all-replicas"


@dataclass
class Cluster:
    """Replicas by their names, which are their User-Agents, beside the Kapso and the Kubernetes that they talk to."""

    kapso: Served
    kube: LeaseServer
    folder: Path
    source: str
    stack: contextlib.ExitStack
    settings: dict[str, str] = field(default_factory=dict)
    replicas: dict[str, Running] = field(default_factory=dict)
    environments: dict[str, dict[str, str]] = field(default_factory=dict)

    def start(self, *names: str, wait_for: str = "source.changed") -> None:
        """Start replicas, and wait until each has logged an event."""
        token = self.folder / "kube-token"
        token.write_text(self.kube.token)
        for name in names:
            environment = {
                **self.kapso.environment(self.folder / f"state-{name}"),
                "KAPSO_SYNC_OWNER": "acme/flows",
                "KAPSO_SYNC_LISTEN": "127.0.0.1:0",
                "KAPSO_SYNC_WEBHOOK_SECRET": SECRET,
                "KAPSO_SYNC_ADMIN_TOKEN": TOKEN,
                "KAPSO_SYNC_DEPLOY_TIMEOUT": "60s",
                "KAPSO_SYNC_USER_AGENT": name,
                "KAPSO_SYNC_LEASE": "kapso-sync",
                "KAPSO_SYNC_LEASE_NAMESPACE": "apps",
                "KAPSO_SYNC_KUBE_API": self.kube.url,
                "KAPSO_SYNC_KUBE_TOKEN_FILE": str(token),
                **self.settings,
            }
            self.environments[name] = environment
            self.replicas[name] = self.stack.enter_context(daemon(self.source, environment))
        for name in names:
            self.replicas[name].event(wait_for)

    @property
    def leader(self) -> str:
        """The name of the replica that has acquired the Lease last."""
        until(lambda: self.kube.holder)
        found = [name for name in self.replicas if self.status(name)["role"] == "leader"]
        assert len(found) == 1, found
        return found[0]

    def status(self, name: str) -> dict[str, Any]:
        return self.replicas[name].status()

    def run(self, name: str, *arguments: str) -> Ran:
        """Run a command as the user of this replica."""
        return kapso_sync(*arguments, environment=self.environments[name])

    def knows(self, name: str, holder: str) -> dict[str, Any]:
        """Wait until a replica knows who leads, and return its status."""
        until(lambda: self.status(name)["leader"] == holder, 10)
        return self.status(name)

    def writers(self) -> list[str]:
        """Who wrote to Kapso, in order; a name for each turn."""
        writes = [request["user_agent"] for request in self.kapso.requests() if request["method"] != "GET"]
        return [name for name, _ in groupby(writes)]

    def callers(self) -> set[str]:
        """Who called Kapso at all."""
        return {request["user_agent"] for request in self.kapso.requests()}

    def post(self, name: str, path: str, body: object = None) -> httpx.Response:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        return httpx.post(f"{self.replicas[name].url}{path}", json=body, headers=headers, timeout=10, trust_env=False)

    def get(self, name: str, path: str) -> httpx.Response:
        return httpx.get(f"{self.replicas[name].url}{path}", timeout=20, trust_env=False)

    def push_hook(self, name: str) -> httpx.Response:
        body = json.dumps({"ref": "refs/heads/main"}).encode()
        signature = f"sha256={hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()}"
        url, headers = f"{self.replicas[name].url}/hooks/git", {"X-Signature": signature}
        return httpx.post(url, content=body, headers=headers, timeout=20, trust_env=False)


@contextlib.contextmanager
def cluster(folder: Path, *, repository: bool = False, **settings: str) -> Iterator[Cluster]:
    """A cluster without replicas yet; its source is a folder, or a git repository."""
    with contextlib.ExitStack() as stack:
        kapso, kube = stack.enter_context(served()), stack.enter_context(lease_server())
        source = folder / "source"
        if repository:
            source.mkdir(parents=True)
            git(source, "init", "--quiet", "--initial-branch=main")
            commit(source, {"greet": answering("one")})
        else:
            write_functions(source, {"greet": answering("one")})
        where = source.as_uri() if repository else str(source)
        yield Cluster(kapso, kube, folder, where, stack, settings)


def ids(kapso: Served) -> list[str]:
    """The ids of the functions that are on Kapso."""
    return kapso.look(lambda world: list(world.functions))


def seconds_until(condition: Callable[[], object], limit: float) -> float:
    began = time.monotonic()
    until(condition, limit)
    return time.monotonic() - began


def leads(running: Running, after: int = 0) -> Callable[[], bool]:
    return lambda: len(running.named("lease.acquired")) > after


def test_one_of_three_writes_and_what_reaches_a_standby_goes_to_it(tmp_path: Path) -> None:
    """Pushes, reconciles and suspensions; standbys are ready, say who leads, and make no call to Kapso."""
    with cluster(tmp_path, repository=True, KAPSO_SYNC_GIT_INTERVAL="10m") as running:
        running.start("a", "b", "c")
        until(live(running.kapso, greet="one"))
        leader = running.leader
        standby, other = sorted({"a", "b", "c"} - {leader})
        holder = running.kube.holder
        for name in (standby, other):
            status = running.knows(name, holder)
            assert (status["role"], status["leader"], status["last_pass"]) == ("standby", holder, None)
            assert [running.get(name, path).status_code for path in ("/readyz", "/healthz")] == [200, 200]
            assert "kapso_sync_leader 0.0" in running.get(name, "/metrics").text
            assert f"<code>{holder}</code>" in running.get(name, "/").text
        shown = running.run(standby, "status", running.source).out
        assert f"Role          standby; the leader is {holder}\n" in shown
        assert "a standby runs none" in shown
        assert f"Role          leader; the leader is {holder}\n" in running.run(leader, "status", running.source).out
        assert "kapso_sync_leader 1.0" in running.get(leader, "/metrics").text
        revision = commit(tmp_path / "source", {"greet": answering("two")})
        assert running.push_hook(standby).status_code == 202
        until(live(running.kapso, greet="two"), 10)
        until(lambda: running.status(standby)["revision"]["id"] == revision)

        running.replicas[leader].event("reconcile.finished", 2)
        running.kapso.edit("greet", code=answering("by hand"), deploy=True)
        asked = running.run(standby, "reconcile", "--wait", running.source)
        assert (asked.code, asked.out) == (1, f"This replica is a standby. The leader reconciles: {holder}.\n")
        until(live(running.kapso, greet="two"), 10)

        assert running.post(standby, "/api/suspend", {"reason": "a freeze"}).status_code == 202
        until(lambda: running.status(leader)["suspended"] and running.status(other)["suspended"], 5)
        assert running.status(other)["suspended"]["reason"] == "a freeze"
        commit(tmp_path / "source", {"greet": answering("three")})
        running.push_hook(leader)
        assert running.callers() == {leader}

        # A rolling restart of every Pod: each hands over at once, and the suspension outlives them all.
        for name in (leader, standby, other):
            assert running.replicas.pop(name).stop() == 0
        assert running.kube.holder == ""
        running.start("d")
        running.replicas["d"].event("suspended")
        running.replicas["d"].event("lease.acquired", seconds=5)
        assert running.status("d")["suspended"]["reason"] == "a freeze"
        assert live(running.kapso, greet="two")()
        assert running.post("d", "/api/resume").status_code == 202
        until(live(running.kapso, greet="three"), 10)
        assert running.writers() == [leader, "d"]
        assert not [key for key in running.kube.annotations if key == "kapso-sync/suspended"]


def test_sigterm_hands_over_within_five_seconds_in_the_middle_of_a_pass(tmp_path: Path) -> None:
    """While a deployment runs: the next leader finishes it, under the same id."""
    with cluster(tmp_path) as running:
        running.kapso.faults({"what": "deploy_hangs", "nth": 1})
        running.start("a")
        running.replicas["a"].event("deploy.started")
        running.start("b", "c")
        before = ids(running.kapso)
        began = time.monotonic()
        running.replicas["a"].process.send_signal(signal.SIGTERM)
        until(lambda: leads(running.replicas["b"])() or leads(running.replicas["c"])(), 8)
        taken_over = time.monotonic() - began
        assert running.replicas["a"].process.wait(20) == 0
        until(live(running.kapso, greet="one"), 10)
        assert taken_over <= 5.0
        assert (ids(running.kapso), len(before)) == (before, 1)
        assert len(running.writers()) == 2
        assert [line["event"] for line in running.replicas["a"].lines][-2:] == ["lease.released", "daemon.stopped"]
        print(f"SIGTERM: {taken_over:.1f} s")  # noqa: T201 - `pytest -s` shows how long it takes


def kill_while_deploying(running: Cluster) -> None:
    """SIGKILL in the middle of a deployment."""
    running.kapso.faults({"what": "deploy_hangs", "nth": 1})
    running.start("a")
    running.replicas["a"].event("deploy.started")
    running.start("b")
    running.replicas["a"].stop(signal.SIGKILL)


def stop_while_deploying(running: Cluster) -> None:
    """SIGSTOP in the middle of a deployment."""
    running.kapso.faults({"what": "deploy_hangs", "nth": 1})
    running.start("a")
    running.replicas["a"].event("deploy.started")
    running.start("b")
    running.replicas["a"].process.send_signal(signal.SIGSTOP)


def stop_before_the_first_write(running: Cluster) -> None:
    """SIGSTOP while the list is read: the plan is made, and everything written, after the process wakes."""
    running.kapso.faults({"what": "hang_before", "route": "/functions", "method": "GET", "nth": 1})
    running.start("a")
    until(running.kapso.requests)
    running.start("b")
    running.replicas["a"].process.send_signal(signal.SIGSTOP)
    running.kapso.faults()
    running.kapso.control("POST", "/release")


def cut_off(running: Cluster) -> None:
    """The leader alone reaches the API server of Kubernetes no more, and still reaches Kapso."""
    running.kapso.faults({"what": "deploy_hangs", "nth": 1})
    running.start("a")
    running.replicas["a"].event("deploy.started")
    running.start("b")
    running.kube.fault = lambda _, client: 0 if client == "a" else None


def follow(scenario: Callable[[Cluster], None], folder: Path) -> str:
    """Let something happen to the leader `a`, and see `b` take over; then let `a` wake."""
    with cluster(folder, KAPSO_SYNC_REQUEST_TIMEOUT="40s", KAPSO_SYNC_INTERVAL="5s") as running:
        scenario(running)
        taken_over = seconds_until(leads(running.replicas["b"]), 25)
        if scenario is cut_off:
            running.replicas["a"].event("lease.lost")
        until(live(running.kapso, greet="one"), 10)
        before = len([request for request in running.kapso.requests() if request["user_agent"] == "a"])
        if running.replicas["a"].process.poll() is None:
            running.replicas["a"].process.send_signal(signal.SIGCONT)
            running.replicas["a"].event("lease.lost", seconds=10)
            # A save and a pass of `b` give `a` every reason to write.
            write_functions(folder / "source", {"greet": answering("two")})
            until(live(running.kapso, greet="two"), 10)
            if scenario is not cut_off:
                running.knows("a", running.kube.holder)
            assert running.status("a")["role"] == "standby"
            after = len([request for request in running.kapso.requests() if request["user_agent"] == "a"])
            assert after == before, "it called Kapso when it woke"
        assert running.writers() in (["a", "b"], ["b"])
        assert taken_over <= 20.0
        assert len(ids(running.kapso)) == 1
    return f"{scenario.__name__}: {taken_over:.1f} s"


def sleep_and_keep_the_lease(folder: Path) -> str:
    """SIGSTOP for longer than a leader may write, and less than it takes to lose the Lease: it must renew first."""
    with cluster(folder, KAPSO_SYNC_INTERVAL="1s") as running:
        running.start("a")
        until(live(running.kapso, greet="one"))
        replica = running.replicas["a"]
        replica.process.send_signal(signal.SIGSTOP)
        # What was sent right before it stopped may arrive a moment later.
        slept = datetime.now(UTC) + timedelta(seconds=1)
        write_functions(folder / "source", {"greet": answering("two")})
        time.sleep(11.0)  # Nothing else can be waited for: the process stands still, and no other replica is there.
        replica.process.send_signal(signal.SIGCONT)
        again = datetime.fromisoformat(replica.event("lease.acquired", 2)["timestamp"])
        until(live(running.kapso, greet="two"), 10)
        early = [call for call in running.kapso.requests() if slept < datetime.fromisoformat(call["time"]) < again]
        assert (early, len(replica.named("lease.lost"))) == ([], 1)
    return "sleep_and_keep_the_lease: no call before the renewal"


def test_a_leader_that_dies_sleeps_or_is_cut_off_is_followed_by_one_writer(tmp_path: Path) -> None:
    """Within 20 s, in the middle of a pass; one that wakes or comes back writes nothing. All at once: they mostly wait."""
    scenarios = (kill_while_deploying, stop_while_deploying, stop_before_the_first_write, cut_off)
    with ThreadPoolExecutor(len(scenarios) + 1) as pool:
        cases = [pool.submit(follow, scenario, tmp_path / scenario.__name__) for scenario in scenarios]
        cases.append(pool.submit(sleep_and_keep_the_lease, tmp_path / "kept"))
    print(*(case.result() for case in cases), sep="\n")  # noqa: T201 - as above


def test_without_the_lease_api_nobody_calls_kapso(tmp_path: Path) -> None:
    """Not even for a read, and nor where the Role forbids it; they try on, and one leads when it is back."""
    with cluster(tmp_path, KAPSO_SYNC_INTERVAL="500ms") as running:
        running.kube.fault = lambda method, _: 403 if method == "POST" else None
        running.start("a", "b")
        failed = running.replicas["a"].event("lease.failed")
        assert (failed["error_type"], "`create` of `leases`" in failed["hint"]) == ("LeaseForbidden", True)
        assert running.get("a", "/readyz").status_code == 200
        assert running.callers() == set()
        running.kube.fault = lambda *_: None
        until(live(running.kapso, greet="one"), 10)
        leader = running.leader
        running.kube.fault = lambda *_: 500
        lost = running.replicas[leader].event("lease.lost", seconds=15)
        assert lost["reason"] == "it was not renewed for 10 s"
        running.kapso.forget_requests()
        running.post(leader, "/api/reconcile")
        asked = len(running.kube.requests)
        until(lambda: len(running.kube.requests) >= asked + 4, 10)
        assert running.callers() == set()
        assert {running.status(name)["role"] for name in ("a", "b")} == {"standby"}
        running.kube.fault = lambda *_: None
        until(running.callers, 10)
        assert len(running.callers()) == 1


def test_the_deletion_grace_begins_again_with_each_term(tmp_path: Path) -> None:
    """A replica that leads again cannot know what another one saw in git meanwhile; the control is the first announcement."""
    both = {"greet": answering("one"), "leaves": answering("two")}
    with cluster(tmp_path, KAPSO_SYNC_PRUNE="true", KAPSO_SYNC_PRUNE_GRACE="13s", KAPSO_SYNC_INTERVAL="1s") as running:
        write_functions(tmp_path / "source", both)
        running.start("a")
        until(lambda: len(ids(running.kapso)) == 2, 10)
        replica = running.replicas["a"]
        running.kube.fault = lambda *_: 500
        write_functions(tmp_path / "source", {"greet": answering("one")})
        due = datetime.fromisoformat(replica.event("prune.pending")["at"])
        replica.event("lease.lost", seconds=12)
        until(lambda: datetime.now(UTC) > due + timedelta(seconds=1), 15)
        running.kube.fault = lambda *_: None
        until(lambda: len(replica.named("prune.pending")) > 1, 10)
        again = datetime.fromisoformat(replica.named("prune.pending")[-1]["at"])
        assert (again > due + timedelta(seconds=10), len(ids(running.kapso))) == (True, 2)
        until(lambda: len(ids(running.kapso)) == 1, 20)
        assert datetime.now(UTC) >= again


def test_a_suspension_from_before_there_was_a_lease_moves_to_it(tmp_path: Path) -> None:
    """Who turns replicas on in the middle of a freeze does not end it; nothing is left in the state folder."""
    with cluster(tmp_path, KAPSO_SYNC_LEASE="") as running:
        running.start("a")
        until(live(running.kapso, greet="one"))
        assert running.post("a", "/api/suspend", {"reason": "a freeze"}).status_code == 202
        assert running.replicas["a"].stop() == 0
        running.settings.clear()
        write_functions(tmp_path / "source", {"greet": answering("two")})
        running.start("a", wait_for="lease.acquired")
        assert running.get("a", "/readyz").status_code == 200
        assert running.status("a")["suspended"]["reason"] == "a freeze"
        assert json.loads(running.kube.annotations["kapso-sync/suspended"])["reason"] == "a freeze"
        assert not list(tmp_path.rglob("suspended.json"))
        assert live(running.kapso, greet="one")()
        assert running.post("a", "/api/resume").status_code == 202
        until(live(running.kapso, greet="two"), 10)


def test_a_suspension_that_ended_while_no_daemon_ran_suspends_no_replica(tmp_path: Path) -> None:
    """It is removed from the state folder, and never written to the Lease."""
    with cluster(tmp_path, KAPSO_SYNC_LEASE="") as running:
        running.start("a")
        until(live(running.kapso, greet="one"))
        assert running.post("a", "/api/suspend", {"reason": "a freeze", "seconds": 3600}).status_code == 202
        assert running.replicas["a"].stop() == 0
        (kept,) = tmp_path.rglob("suspended.json")
        kept.write_text(json.dumps({**json.loads(kept.read_text()), "until": "2026-01-01T00:00:00+00:00"}))
        running.settings.clear()
        write_functions(tmp_path / "source", {"greet": answering("two")})
        running.start("a", wait_for="lease.acquired")
        until(live(running.kapso, greet="two"), 10)
        assert not kept.exists()
        assert "kapso-sync/suspended" not in running.kube.annotations
