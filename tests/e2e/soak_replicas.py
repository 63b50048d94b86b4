"""Three replicas without disks, random deaths, pushes and dashboard edits, for minutes: `make soak`, not the suite.

``MINUTES`` says for how long, and ``SEED`` repeats a run. Every round kills, ends or stops a replica at a random moment, and
starts a new one in its place, with an empty state folder and another name, as Kubernetes does with a Pod.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path

from tests.e2e.test_daemon import Running, commit, live, until
from tests.e2e.test_replicas import Cluster, cluster
from tests.program import answering

LIMIT = 25.0
"""Seconds after the last death within which a push must be live: 20 for the take-over, and the deployment."""


class Soak:
    """The replicas that live, and what has happened so far."""

    def __init__(self, running: Cluster, repository: Path, rng: random.Random) -> None:
        self._running = running
        self._repository = repository
        self._rng = rng
        self._alive = ["pod-1", "pod-2", "pod-3"]
        self._all: list[Running] = []
        self._made = len(self._alive)
        self.text = "one"
        self.pushes = self.edits = 0
        self.deaths: dict[str, int] = {}
        self.slowest = 0.0

    def start(self) -> None:
        self._start(*self._alive)
        until(live(self._running.kapso, greet=self.text), LIMIT)

    def _start(self, *names: str) -> None:
        self._running.start(*names)
        self._all += [self._running.replicas[name] for name in names]

    def round(self) -> None:
        """One death, and before or after it one push or one edit; then git's code must run in time."""
        edit, first = self._rng.random() < 0.3, self._rng.random() < 0.5
        drifts = self._drifts()
        if first:
            self._change(edit=edit)
            time.sleep(self._rng.uniform(0, 1.5))
        self._die()
        if not first:
            self._change(edit=edit)
        began = time.monotonic()
        until(live(self._running.kapso, greet=self.text), LIMIT, lambda: (self.text, self._logs()))
        self.slowest = max(self.slowest, time.monotonic() - began)
        if not edit:
            assert self._drifts() == drifts, "drift was found that nobody made"

    def _change(self, *, edit: bool) -> None:
        if edit:
            self.edits += 1
            text, drifts = f"by hand {self.edits}", self._drifts()
            self._running.kapso.edit("greet", code=answering(text), deploy=True)
            until(lambda: live(self._running.kapso, greet=text)() or self._drifts() > drifts)
        else:
            self.pushes += 1
            self.text = f"push {self.pushes}"
            commit(self._repository, {"greet": answering(self.text)})

    def _die(self) -> None:
        name = self._rng.choice(self._alive)
        number = self._rng.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP])
        self.deaths[number.name] = self.deaths.get(number.name, 0) + 1
        process = self._running.replicas[name].process
        process.send_signal(number)
        if number is signal.SIGSTOP:
            # It sleeps, and wakes while another one leads; or it wakes in time.
            time.sleep(self._rng.choice([1.0, 8.0, 17.0]))
            process.send_signal(signal.SIGCONT)
            return
        with contextlib.suppress(TimeoutError):
            process.wait(15)
        self._alive.remove(name)
        self._running.replicas.pop(name)
        self._made += 1
        self._alive.append(f"pod-{self._made}")
        self._start(self._alive[-1])

    def _drifts(self) -> int:
        return sum(len(replica.named("drift.detected")) for replica in self._all)

    def _logs(self) -> list[str]:
        return [line for replica in self._running.replicas.values() for line in replica.raw[-20:]]


def writes_of_sleepers(running: Cluster) -> list[tuple[str, str]]:
    """The pairs of replicas that wrote within the same second, apart from a hand-over: there must be none."""
    requests = [request for request in running.kapso.requests() if request["method"] != "GET"]
    writes = [(datetime.fromisoformat(request["time"]), request["user_agent"]) for request in requests]
    found = []
    for (_, before), (at, now), (again_at, again) in zip(writes, writes[1:], writes[2:], strict=False):
        if before == again != now and again_at - at < timedelta(seconds=1):
            found.append((before, now))
    return found


def test_every_push_goes_live_through_random_deaths(tmp_path: Path) -> None:
    """No two writers, no drift that nobody made, and 25 s at most after the last death."""
    minutes, seed = float(os.environ.get("MINUTES", "10")), os.environ.get("SEED") or str(time.time_ns())
    with cluster(tmp_path, repository=True, KAPSO_SYNC_GIT_INTERVAL="1s", KAPSO_SYNC_INTERVAL="5s") as running:
        soak = Soak(running, tmp_path / "source", random.Random(seed))
        soak.start()
        ends, rounds = time.monotonic() + minutes * 60, 0
        while time.monotonic() < ends:
            soak.round()
            rounds += 1
        told = f"{rounds} rounds, {soak.pushes} pushes, {soak.edits} edits, {soak.deaths}, slowest {soak.slowest:.1f} s"
        sys.stderr.write(f"seed {seed}: {told}\n")
        assert writes_of_sleepers(running) == []
