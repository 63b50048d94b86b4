"""Prints what kapso-sync costs, each number beside a baseline measured in the same run. ``make bench`` runs it.

    python benchmarks/run.py [--functions 1000] [--runs 5] [--idle 20] [--built 500]

Everything runs on loopback against the emulator, in processes of their own: start-up and memory are part of what users pay.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import hmac
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import httpx
from rich.console import Console
from rich.table import Table

import kapso_sync
from kapso_sync.emulator.options import EmulatorOptions
from kapso_sync.emulator.server import Emulator, running_emulator
from kapso_sync.tools import own_copies

CODE_SIZE = 2048

BY_HAND = """
import hashlib, os, pathlib, sys
import httpx
folder, url, key = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3]
wanted = {path.stem: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.js")}
there, page = {}, 1
with httpx.Client(headers={"X-API-Key": key}, trust_env=False) as client:
    while True:
        records = client.get(f"{url}/functions", params={"page": page, "per_page": 100}).json()["data"]
        there |= {r["slug"]: hashlib.sha256(r["code"].encode()).hexdigest() for r in records}
        if len(records) < 100:
            break
        page += 1
sys.exit(wanted != there)
"""
"""What the private scripts do that kapso-sync replaces: list, hash, compare. No manifest, no ownership, no state."""


@dataclass(frozen=True)
class Measured:
    """The median of several runs: seconds of wall time, and the largest resident memory in MB."""

    seconds: float
    megabytes: float


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    what: str
    ours: str
    baseline: str
    goal: str = ""
    reached: bool = True


def measure(command: Sequence[str], runs: int, environment: dict[str, str] | None = None) -> Measured:
    """Run a command several times; it must succeed each time."""
    times, sizes = [], []
    for _ in range(runs):
        started = time.perf_counter()
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        times.append(time.perf_counter() - started)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{' '.join(command[:4])} … ended with {process.returncode}")
        sizes.append(usage.ru_maxrss / 1024)
    return Measured(statistics.median(times), max(sizes))


@contextmanager
def emulator(options: EmulatorOptions) -> Iterator[Emulator]:
    """Serve an emulator from a thread of this process."""
    loop, down, ready = asyncio.new_event_loop(), asyncio.Event(), threading.Event()
    found: list[Emulator] = []

    async def serve() -> None:
        async with running_emulator(options) as running:
            found.append(running)
            ready.set()
            await down.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    ready.wait()
    try:
        yield found[0]
    finally:
        loop.call_soon_threadsafe(down.set)
        thread.join()


def write_functions(folder: Path, count: int) -> None:
    """Write a manifest and so many functions of CODE_SIZE bytes."""
    folder.mkdir()
    names = [f"function-{number:04d}" for number in range(count)]
    (folder / "manifest.yaml").write_text(
        "version: 1\nfunctions:\n" + "".join(f"  {name}:\n    file: {name}.js\n" for name in names)
    )
    for name in names:
        head = f"async function handler(request, env) {{\n  return new Response('{name}');\n}}\n"
        (folder / f"{name}.js").write_text(head + f"// {'x' * (CODE_SIZE - len(head) - 4)}\n")


def settings(kapso: Emulator, state: Path, **more: str) -> dict[str, str]:
    """Return the environment for kapso-sync against an emulator."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("KAPSO_")}
    ours = {
        "KAPSO_API_BASE_URL": kapso.base("/api/v1"),
        "KAPSO_API_KEY": kapso.key,
        "KAPSO_SYNC_STATE_DIR": str(state),
        "KAPSO_SYNC_DEPLOY_POLL": "100ms",
        "KAPSO_SYNC_LOG_LEVEL": "error",
    }
    return {**clean, **ours, **more}


def command_of(*arguments: str) -> list[str]:
    """Return the command line of this environment's kapso-sync."""
    return [str(Path(sys.executable).with_name("kapso-sync")), *arguments]


def start_up(runs: int) -> Row:
    """How long a command takes that does nothing heavy."""
    ours = measure(command_of("version"), runs)
    bare = measure([sys.executable, "-c", "pass"], runs)
    return Row(
        "kapso-sync version", f"{ours.seconds:.3f} s", f"{bare.seconds:.3f} s (python -c pass)", "< 0.2 s", ours.seconds < 0.2
    )


def no_op(count: int, runs: int, folder: Path) -> list[Row]:
    """What a sync costs that finds everything in sync, over what listing and hashing alone costs."""
    functions, state = folder / "functions", folder / "state"
    write_functions(functions, count)
    with emulator(EmulatorOptions(deploy_delay=0.05, rate_limit=1_000_000)) as kapso:
        environment = settings(kapso, state, KAPSO_SYNC_CONCURRENCY="64", KAPSO_SYNC_RATE_SHARE="100%")
        measure(command_of("sync", str(functions)), 1, environment)
        ours = measure(command_of("sync", str(functions)), runs, environment)
        base = measure([sys.executable, "-c", BY_HAND, str(functions), kapso.base("/api/v1"), kapso.key], runs)
        before = len(kapso.log.entries)
        measure(command_of("sync", str(functions)), 1, environment)
        calls = len(kapso.log.entries) - before
        besides = ours.seconds - network_seconds(kapso, runs)
    pages = -(-count // 100)
    return [
        Row(f"no-op sync of {count} functions", f"{ours.seconds:.2f} s", f"{base.seconds:.2f} s (list, hash, compare)"),
        Row("… besides network", f"{besides:.2f} s", "", "< 1.5 s", besides < 1.5),
        Row("… memory", f"{ours.megabytes:.0f} MB", f"{base.megabytes:.0f} MB", "< 120 MB", ours.megabytes < 120),
        Row("… API calls", str(calls), f"{pages} (a page of 100 each)", f"{pages}", calls == pages),
    ]


def network_seconds(kapso: Emulator, runs: int) -> float:
    """Return how long the pages alone take to arrive, over one connection."""
    times = []
    with httpx.Client(headers={"X-API-Key": kapso.key}, trust_env=False) as client:
        for _ in range(runs):
            started, page = time.perf_counter(), 1
            while (
                len(client.get(f"{kapso.base('/api/v1')}/functions", params={"page": page, "per_page": 100}).json()["data"])
                == 100
            ):
                page += 1
            times.append(time.perf_counter() - started)
    return statistics.median(times)


def write_typescript(folder: Path, count: int) -> None:
    """Write so many functions in TypeScript that share modules three deep; every tenth one shares another."""
    (folder / "lib").mkdir(parents=True)
    names = [f"function-{number:04d}" for number in range(count)]
    (folder / "manifest.yaml").write_text("version: 1\nfunctions:\n" + "".join(f"  {name}:\n" for name in names))
    chain = {"a": "b", "b": "c"}
    for name in ("a", "b", "c", "rare"):
        below = chain.get(name)
        head = f'import {{ {below} }} from "./{below}";\n' if below else ""
        call = f"{below}(text)" if below else "text.trim()"
        (folder / "lib" / f"{name}.ts").write_text(f"{head}export const {name} = (text: string): string => {call};\n")
    for number, name in enumerate(names):
        shared = "a" if number % 10 else "rare"
        values = "".join(f"  const value{index}: number = {index} * {number};\n" for index in range(40))
        (folder / f"{name}.ts").write_text(
            f'import {{ {shared} }} from "./lib/{shared}";\ninterface Env {{ KV?: unknown }}\n'
            f"export default async function handler(request: Request, env: Env): Promise<Response> {{\n{values}"
            f"  return new Response({shared}(String(value1 + value39)));\n}}\n"
        )


def builds(count: int, runs: int, folder: Path) -> list[Row]:
    """What building costs: all of it, nothing of it, and a shared module that every tenth function imports."""
    esbuild = next((path for path in own_copies(Path(kapso_sync.__file__).parent, Path(sys.prefix)) if path.is_file()), None)
    if esbuild is None:
        raise SystemExit("esbuild is not installed: make node_modules/.installed")
    functions, state = folder / "functions", folder / "state"
    write_typescript(functions, count)
    with emulator(EmulatorOptions(deploy_delay=0.05, rate_limit=1_000_000)) as kapso:
        environment = settings(kapso, state, KAPSO_SYNC_CONCURRENCY="64", KAPSO_SYNC_RATE_SHARE="100%")
        cold = measure(command_of("validate", str(functions)), runs, environment)
        measure(command_of("sync", str(functions)), 1, environment)
        warm = measure(command_of("validate", str(functions)), runs, environment)
        with (functions / "lib" / "rare.ts").open("a") as file:
            file.write("export const more = 1;\n")
        shared = measure(command_of("validate", str(functions)), runs, environment)
    started = time.perf_counter()
    for path in sorted(functions.glob("*.ts")):
        command = [str(esbuild), "--bundle", "--format=esm", f"--outfile={folder / 'out.js'}", "--log-level=error", str(path)]
        subprocess.run(command, check=True)
    one_by_one = time.perf_counter() - started
    return [
        Row(
            f"build {count} TypeScript functions",
            f"{cold.seconds:.2f} s",
            f"{one_by_one:.2f} s (esbuild, one by one)",
            "< 5 s",
            cold.seconds < 5,
        ),
        Row("… once more, after a restart", f"{warm.seconds:.2f} s", "", "< 1.5 s", warm.seconds < 1.5),
        Row("… a module changed that every tenth imports", f"{shared.seconds:.2f} s", "", "< 2 s", shared.seconds < 2),
    ]


def rate_limit(folder: Path) -> list[Row]:
    """How much of the rate limit's share is spent, and whether a 429 is ever earned. A window lasts 3 s here instead of 60."""
    count, limit, share, window = 200, 100, 0.8, 3.0
    functions = folder / "functions"
    write_functions(functions, count)
    with emulator(EmulatorOptions(deploy_delay=0.05, rate_limit=limit, window=window)) as kapso:
        begun = time.time()
        environment = settings(kapso, folder / "state", KAPSO_SYNC_RATE_WINDOW=f"{window:g}s", KAPSO_SYNC_CONCURRENCY="32")
        measure(command_of("sync", str(functions)), 1, environment)
        refused = sum(entry.status == 429 for entry in kapso.log.entries)
        per_window: dict[int, int] = {}
        for entry in kapso.log.entries:
            slot = int((entry.time.timestamp() - begun) // window)
            per_window[slot] = per_window.get(slot, 0) + 1
    # The first windows teach where a window begins, the last one ends with the work.
    whole = [calls for _, calls in sorted(per_window.items())][2:-1]
    used = statistics.mean(whole) / (limit * share) if whole else 0.0
    return [
        Row(
            f"rate limit, {count} functions",
            f"{used:.0%} of the share used",
            f"{limit * share:.0f} calls a window",
            "≥ 95 %",
            used >= 0.95,
        ),
        Row("… answers 429", str(refused), "", "0", refused == 0),
    ]


class Daemon:
    """A running daemon, for what it costs and how soon it acts."""

    def __init__(self, source: str, environment: dict[str, str], kapso: Emulator) -> None:
        self.kapso = kapso
        self.process = subprocess.Popen(
            command_of("run", source), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while not self._in_sync():
            time.sleep(0.2)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(15)

    def _in_sync(self) -> bool:
        if self.process.poll() is not None:
            raise SystemExit(f"the daemon ended with {self.process.returncode}")
        try:
            return bool(httpx.get(f"{DAEMON}/api/status", trust_env=False).json()["in_sync"])
        except httpx.HTTPError:
            return False

    def first_write(self, act: Callable[[], object]) -> float:
        """Return the seconds from an act to the first write that it causes, once all is quiet."""
        while not self._in_sync():
            time.sleep(0.05)
        time.sleep(0.5)
        seen = len(self.kapso.log.entries)
        started = time.perf_counter()
        act()
        while not any(entry.method != "GET" for entry in self.kapso.log.entries[seen:]):
            time.sleep(0.001)
        return time.perf_counter() - started

    def idle(self, seconds: float) -> tuple[float, float, int]:
        """Return CPU in percent, memory in MB and API calls while nothing happens."""
        while not self._in_sync():
            time.sleep(0.05)
        time.sleep(1)
        calls, before = len(self.kapso.log.entries), self._cpu()
        time.sleep(seconds)
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        memory = next(int(line.split()[1]) / 1000 for line in status.splitlines() if line.startswith("VmRSS"))
        return (self._cpu() - before) / seconds * 100, memory, len(self.kapso.log.entries) - calls

    def _cpu(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


DAEMON = "http://127.0.0.1:18321"


def daemon(folder: Path, runs: int, idle_seconds: float) -> list[Row]:
    """How soon the daemon acts on a save and on a push, and what it costs while nothing happens."""
    small, repository = folder / "small", folder / "repository"
    write_functions(small, 10)
    repository.mkdir()
    write_functions(repository / "functions", 1000)
    for command in ("init --quiet --initial-branch=main", "add --all", "commit --quiet --message Begin"):
        run_git(repository, command)
    with emulator(EmulatorOptions(deploy_delay=0.05, rate_limit=1_000_000)) as kapso:
        more = {
            "KAPSO_SYNC_LISTEN": DAEMON.removeprefix("http://"),
            "KAPSO_SYNC_DEBOUNCE": "100ms",
            "KAPSO_SYNC_INTERVAL": "1h",
        }
        more |= {"KAPSO_SYNC_GIT_INTERVAL": "1h", "KAPSO_SYNC_WEBHOOK_SECRET": "secret", "KAPSO_SYNC_CONCURRENCY": "64"}
        environment = settings(kapso, folder / "state", KAPSO_SYNC_RATE_SHARE="100%", **more)
        with Daemon(str(small), {**environment, "KAPSO_SYNC_OWNER": "small"}, kapso) as running:
            saves = [running.first_write(lambda n=n: touch(small, n)) for n in range(runs)]
            cpu, memory, calls = running.idle(idle_seconds)
        kapso.world.reset()
        with Daemon(repository.as_uri(), {**environment, "KAPSO_SYNC_OWNER": "large"}, kapso) as running:
            pushes = []
            for number in range(runs):
                touch(repository / "functions", number)
                run_git(repository, "commit --quiet --all --message Change")
                pushes.append(running.first_write(push))
            git_cpu, git_memory, git_calls = running.idle(idle_seconds)
    save, push_time = statistics.median(saves), statistics.median(pushes)
    return [
        Row("save to first write", f"{save:.3f} s", "0.100 s (the debounce)", "< 0.2 s", save < 0.2),
        Row("push to first write, 1000 functions", f"{push_time:.3f} s", "", "< 0.5 s", push_time < 0.5),
        Row("idle daemon on a folder, CPU", f"{cpu:.2f} %", "", "< 0.2 %", cpu < 0.2),
        Row("… memory", f"{memory:.0f} MB", "", "< 90 MB", memory < 90),
        Row("… API calls", str(calls), "", "0", calls == 0),
        Row("idle daemon on git, 1000 functions, CPU", f"{git_cpu:.2f} %", "", "< 0.2 %", git_cpu < 0.2),
        Row("… memory", f"{git_memory:.0f} MB", "", "< 90 MB", git_memory < 90),
        Row("… API calls", str(git_calls), "", "0", git_calls == 0),
    ]


def touch(folder: Path, number: int) -> None:
    """Change one function."""
    path = folder / f"function-{number:04d}.js"
    path.write_text(path.read_text() + f"// {time.time_ns()}\n")


def push() -> None:
    """Tell the daemon of a push."""
    body = b'{"ref": "refs/heads/main"}'
    signature = hmac.new(b"secret", body, hashlib.sha256).hexdigest()
    httpx.post(f"{DAEMON}/hooks/git", content=body, headers={"X-Signature": f"sha256={signature}"}, trust_env=False)


def run_git(folder: Path, command: str) -> None:
    """Run git with a fixed identity."""
    identity = ["-c", "user.name=Bench", "-c", "user.email=bench@example.com"]
    subprocess.run(["git", "-C", str(folder), *identity, *command.split()], check=True, capture_output=True)


def main() -> int:
    """Measure, print the table, and say with the exit code whether every goal was reached."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--functions", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--idle", type=float, default=20.0, help="seconds to watch an idle daemon")
    parser.add_argument("--built", type=int, default=500)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folders = [Path(scratch, name) for name in ("no-op", "rate-limit", "daemon", "builds")]
        for folder in folders:
            folder.mkdir()
        rows = [
            start_up(asked.runs * 2),
            *no_op(asked.functions, asked.runs, folders[0]),
            *builds(asked.built, asked.runs, folders[3]),
            *rate_limit(folders[1]),
            *daemon(folders[2], asked.runs, asked.idle),
        ]
    table = Table("what", "kapso-sync", "baseline", "goal", "reached")
    for row in rows:
        table.add_row(row.what, row.ours, row.baseline, row.goal, "" if not row.goal else "yes" if row.reached else "no")
    Console(width=120).print(table)
    return 0 if all(row.reached for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
