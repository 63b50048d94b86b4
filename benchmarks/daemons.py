"""Run a daemon, to see how soon it acts and what it costs."""

from __future__ import annotations

import hashlib
import hmac
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx

from benchmarks.processes import SCRIPTS, Failed, program
from benchmarks.scene import Scene
from kapso_sync.emulator.requestlog import Entry

WEBHOOK_SECRET = "webhook"  # noqa: S105 - of a daemon on loopback that ends with the run
ADMIN_TOKEN = "admin"  # noqa: S105 - likewise

QUIET = {
    "KAPSO_SYNC_INTERVAL": "1h",
    "KAPSO_SYNC_GIT_INTERVAL": "1h",
    "KAPSO_SYNC_DEBOUNCE": "100ms",
    "KAPSO_SYNC_WEBHOOK_SECRET": WEBHOOK_SECRET,
    "KAPSO_SYNC_ADMIN_TOKEN": ADMIN_TOKEN,
    "KAPSO_SYNC_DEPLOY_POLL": "100ms",
    "KAPSO_SYNC_RATE_SHARE": "100%",
}
"""Settings under which a daemon makes a pass only when it is told to."""

IDLE = {**{name: value for name, value in QUIET.items() if name != "KAPSO_SYNC_DEBOUNCE"}, "KAPSO_SYNC_LOG_LEVEL": "info"}
"""Likewise, with the default debounce, which decides how often an idle daemon looks for file events, and the default logs."""

PATIENCE = 300.0
"""Maximum seconds until a daemon is in sync, or makes its first write."""


@dataclass(frozen=True, slots=True)
class Idle:
    """What an idle daemon cost in a while: percent of a core, memory in MB, and API calls.

    ``resident`` memory includes the files of libraries, ``anonymous`` memory is the part that no file backs.
    """

    cpu: float
    resident: float
    anonymous: float
    calls: int


class Daemon:
    """A running daemon that is in sync."""

    def __init__(self, there: Scene, address: str, process: subprocess.Popen[bytes], http: httpx.Client) -> None:
        self.address = address
        self._there = there
        self._process = process
        self._http = http

    def wait_until_in_sync(self) -> None:
        """Wait until no pass runs and the last one found everything in sync; raises `Failed`."""
        ends = time.monotonic() + PATIENCE
        while time.monotonic() < ends:
            if self._process.poll() is not None:
                raise Failed(f"the daemon ended with {self._process.returncode}")
            asked = time.monotonic()
            try:
                status = self._http.get("/api/status").json()
            except httpx.TransportError:
                status = {}
            if status.get("in_sync") and not status.get("reconciling"):
                return
            # The status of 10,000 functions takes the daemon a while: looking must not be what it is busy with.
            time.sleep(max(0.2, 9 * (time.monotonic() - asked)))
        raise Failed(f"the daemon was not in sync within {PATIENCE:g} s")

    def first_write_after(self, act: Callable[[], object]) -> float:
        """Return the seconds from an act to the first write that it causes, by the time at which the emulator received it."""
        self.wait_until_in_sync()
        time.sleep(0.3)
        seen = len(self._there.calls())
        started = datetime.now(UTC)
        act()
        ends = time.monotonic() + PATIENCE
        while time.monotonic() < ends:
            write = first_write(self._there.calls()[seen:])
            if write is not None:
                return (write.time - started).total_seconds()
            time.sleep(0.005)
        raise Failed(f"the daemon wrote nothing within {PATIENCE:g} s")

    def push(self) -> None:
        """Send the webhook of a push."""
        body = b'{"ref": "refs/heads/main"}'
        signature = hmac.new(WEBHOOK_SECRET.encode(), body, hashlib.sha256).hexdigest()
        self._http.post("/hooks/git", content=body, headers={"X-Signature": f"sha256={signature}"}).raise_for_status()

    def reconcile(self) -> None:
        """Make a pass, and wait for its end."""
        headers = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
        self._http.post("/api/reconcile?wait=1", headers=headers, timeout=PATIENCE).raise_for_status()

    def pages(self, seconds: float, least: int = 1) -> dict[str, list[float]]:
        """Return the seconds that the page and the status took, by path, asked for a while from another process."""
        with self.probe(seconds, least) as probe:
            return answered(probe)

    @contextmanager
    def probe(self, seconds: float, least: int = 1) -> Iterator[subprocess.Popen[str]]:
        """Let another process ask for the page and the status; `answered` gives what it found."""
        command = [sys.executable, str(SCRIPTS / "probe_pages.py"), self.address, str(seconds), str(least)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as probe:
            yield probe

    def megabytes(self, kind: str = "VmRSS") -> float:
        """Return the resident memory in MB, or another ``kind`` of memory by the name that proc(5) has for it."""
        status = Path(f"/proc/{self._process.pid}/status").read_text(encoding="ascii")
        return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith(f"{kind}:"))

    def idle(self, seconds: float) -> Idle:
        """Return what it costs in this time, in which nothing happens."""
        calls, before = len(self._there.calls()), self._cpu_seconds()
        time.sleep(seconds)
        cpu = (self._cpu_seconds() - before) / seconds * 100
        return Idle(cpu, self.megabytes(), self.megabytes("RssAnon"), len(self._there.calls()) - calls)

    def _cpu_seconds(self) -> float:
        # The clock of another process's CPU time, as clock_getcpuclockid(3) names it. It counts nanoseconds;
        # /proc/PID/stat counts hundredths of a second, which is more than an idle daemon needs in one look.
        return time.clock_gettime((~self._process.pid << 3) | 2)


@contextmanager
def daemon(there: Scene, source: str, settings: Mapping[str, str] = QUIET) -> Iterator[Daemon]:
    """Run a daemon until the block ends; it is in sync when the block begins. Raises `Failed`."""
    address = f"127.0.0.1:{_free_port()}"
    environment = there.environment({**settings, "KAPSO_SYNC_LISTEN": address})
    process = subprocess.Popen(program("run", source), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with httpx.Client(base_url=f"http://{address}", trust_env=False, timeout=60) as http:
            running = Daemon(there, address, process, http)
            running.wait_until_in_sync()
            yield running
    finally:
        process.terminate()
        process.wait(30)


def answered(probe: subprocess.Popen[str]) -> dict[str, list[float]]:
    """Wait for a probe's end, and return the seconds of each answer by path; raises `Failed`."""
    out, err = probe.communicate()
    if probe.returncode:
        raise Failed(f"the page could not be read: {err.strip()[-200:]}")
    found: dict[str, list[float]] = json.loads(out)
    return found


def first_write(calls: tuple[Entry, ...]) -> Entry | None:
    """Return the first call that writes, or None."""
    return next((entry for entry in calls if entry.method != "GET"), None)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
