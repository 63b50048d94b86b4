"""Measure a daemon: how soon it acts, its page, and what it costs while nothing happens."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from benchmarks.daemons import IDLE, Daemon, Idle, answered, daemon
from benchmarks.options import Options
from benchmarks.processes import importing, megabytes, run, script
from benchmarks.rows import Baseline, Limit, Row, Sample, Unit, percentile
from benchmarks.scene import begin_repository, change, scene, write_functions
from tests.program import git

LIBRARIES = (
    "apscheduler.schedulers.asyncio, click, git, httpx, msgspec, prometheus_client, regex, sqlite3, "
    "starlette.applications, structlog, tree_sitter, uvicorn, watchfiles, yaml"
)
"""What a daemon cannot do without: HTTP on both sides, git, the schedule, files, values, metrics and logs."""

PASS_SECONDS = 3.0
"""Seconds in which pages are asked for while passes run, in each run."""


def daemon_rows(options: Options) -> list[Row]:
    """Return the rows of how soon a daemon acts, and of its page while passes run."""
    return [_save_row(options), *_push_rows(options), *_page_rows(options)]


def _save_row(options: Options) -> Row:
    with scene(options.scratch / "save") as there:
        write_functions(there.functions, 10)
        there.sync()
        with daemon(there, str(there.functions)) as running:
            times = [
                running.first_write_after(lambda number=number: change(there.functions, number % 10, f"{number}"))  # type: ignore[misc]
                for number in range(options.runs)
            ]
    debounce = Baseline("the debounce", Sample.of([0.1]))
    return Row(
        "daemon", "save to first write, 10 functions", Sample.of(times), debounce, Limit(0.2), "100 ms without a file event"
    )


def _push_rows(options: Options) -> list[Row]:
    count, folder = options.functions, options.scratch / "push"
    with scene(folder) as there:
        repository = folder / "repository"
        write_functions(repository / "functions", count)
        begin_repository(repository)
        mirror = folder / "mirror.git"
        git(folder, "clone", "--quiet", "--mirror", repository.as_uri(), str(mirror))
        there.own_already(repository / "functions")
        times, by_hand = [], []
        with daemon(there, repository.as_uri()) as running:
            for number in range(options.runs):
                change(repository / "functions", number, f"push {number}")
                git(repository, "commit", "--quiet", "--all", "--message", "Change")
                times.append(running.first_write_after(running.push))
                fetched = run(["git", "-C", str(mirror), "fetch", "--quiet"]).seconds
                listed = run(script("list_pages", there.url, there.kapso.key)).seconds
                by_hand.append(fetched + listed)
    return [
        Row(
            "daemon",
            f"push to first write, {count} functions",
            Sample.of(times),
            Baseline("git fetch and list", Sample.of(by_hand)),
            Limit(0.2),
            "the webhook, git fetch, the list of all pages; one function changed",
        )
    ]


def _page_rows(options: Options) -> list[Row]:
    count = options.functions
    busy: dict[str, list[float]] = {"/": [], "/api/status": []}
    quiet: dict[str, list[float]] = {"/": [], "/api/status": []}
    with scene(options.scratch / "page") as there:
        write_functions(there.functions, count)
        there.sync()
        with daemon(there, str(there.functions)) as running:
            for _ in range(options.runs):
                for found, times in ((running.pages(PASS_SECONDS / 3), quiet), (_while_passes_run(running), busy)):
                    for path, seconds in found.items():
                        times[path].append(percentile(seconds, 95))
    return [
        Row(
            "daemon",
            f"{path} while a pass runs, {count} functions, 95th percentile",
            Sample.of(busy[path]),
            Baseline("while none runs", Sample.of(quiet[path])),
            Limit(0.02),
            "passes one after the other; asked every 10 ms by another process",
        )
        for path in busy
    ]


def _while_passes_run(running: Daemon) -> dict[str, list[float]]:
    """Ask for the pages while passes run one after the other."""
    done = threading.Event()

    def reconcile() -> None:
        while not done.is_set():
            running.reconcile()

    with ThreadPoolExecutor(1) as pool:
        passes = pool.submit(reconcile)
        try:
            with running.probe(PASS_SECONDS) as probe:
                found = answered(probe)
        finally:
            done.set()
        passes.result()
    return found


def idle_rows(options: Options) -> list[Row]:
    """Return the rows of idle daemons on a folder and on git; they are watched at the same time."""
    count, folder = options.functions, options.scratch / "idle"
    looks: dict[str, list[Idle]] = {"a folder": [], "git": []}
    with ExitStack() as stack:
        running = {}
        for kind in looks:
            there = stack.enter_context(scene(folder / kind.split()[-1]))
            write_functions(there.functions, count)
            there.own_already()
            source = str(there.functions)
            if kind == "git":
                begin_repository(there.functions)
                source = there.functions.as_uri()
            running[kind] = stack.enter_context(daemon(there, source, IDLE))
        time.sleep(options.idle)
        with ThreadPoolExecutor(len(running)) as pool:
            for _ in range(options.runs):
                for kind, look in zip(running, pool.map(lambda one: one.idle(options.idle), running.values()), strict=True):
                    looks[kind].append(look)
        bare = [run(importing(LIBRARIES)) for _ in range(options.runs)]
    beside = Baseline("its libraries imported", megabytes(bare))
    rows = []
    for kind, found in looks.items():
        cpu = Sample.of((look.cpu for look in found), Unit.PERCENT)
        memory = Sample.of((look.resident for look in found), Unit.MEGABYTES)
        anonymous = Sample.of((look.anonymous for look in found), Unit.MEGABYTES)
        calls = Sample.of((look.calls for look in found), Unit.COUNT)
        rows += [
            Row("idle", f"idle daemon on {kind}, {count} functions, CPU", cpu, None, Limit(0.05), "its timers; of one core"),
            Row("idle", "… memory", memory, beside, Limit(60), "interpreter and libraries, and what a pass remembers"),
            Row("idle", "… of it anonymous", anonymous, None, Limit(60), "what stays when the kernel drops cached files"),
            Row("idle", "… API calls", calls, None, Limit(0), "a pass is due every hour here"),
        ]
    return rows
