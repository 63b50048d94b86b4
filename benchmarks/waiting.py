"""Measure passes that mostly wait: for deployments, and for the rate limit."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.options import Options
from benchmarks.processes import program, run
from benchmarks.rows import Baseline, Limit, Row, Sample, Unit
from benchmarks.scene import scene, write_functions
from kapso_sync.emulator.requestlog import Entry
from kapso_sync.settings import Settings

DEPLOYED, DEPLOYMENT = 120, 8.0
"""Functions of the row of deployments, and seconds that one takes."""

IN_FLIGHT: int = Settings().deploying
"""How many deployments run at the same time."""

LIMITED, CALLS, SHARE, WINDOW = 200, 100, 0.8, 12.0
"""Functions of the row of the rate limit, calls in a window, the share of them that is spent, and the window's seconds."""


def deployment_rows(options: Options) -> list[Row]:
    """Return the row of many long deployments where calls are not limited."""
    times = []
    for number in range(options.runs):
        with scene(options.scratch / f"deployments-{number}", deployment=DEPLOYMENT) as there:
            write_functions(there.functions, DEPLOYED)
            times.append(run(program("sync", str(there.functions)), there.environment()).seconds)
    waves = -(-DEPLOYED // IN_FLIGHT)
    return [
        Row(
            "deployments",
            f"deploy {DEPLOYED} functions, {DEPLOYMENT:g} s each",
            Sample.of(times),
            Baseline(f"{waves} deployments long", Sample.of([waves * DEPLOYMENT])),
            Limit(3.2 * DEPLOYMENT + 10),
            f"{IN_FLIGHT} run at the same time; the limit is 3.2 of them and 10 s",
        )
    ]


def rate_rows(options: Options) -> list[Row]:
    """Return the rows of a first sync under a rate limit: its time over calls ÷ rate, what was refused, and what polls cost."""
    rate = CALLS * SHARE / WINDOW
    times, ideal, refused, polls = [], [], [], []
    for number in range(options.runs):
        folder = options.scratch / f"rate-{number}"
        with scene(folder, rate_limit=CALLS, window=WINDOW, deployment=WINDOW / 2) as there:
            write_functions(there.functions, LIMITED)
            environment = there.environment({"KAPSO_SYNC_RATE_WINDOW": f"{WINDOW:g}s"})
            times.append(run(program("sync", str(there.functions)), environment).seconds)
            calls = there.calls()
        ideal.append(len(calls) / rate)
        refused.append(sum(entry.status == 429 for entry in calls))
        polls.append(100 * poll_calls(calls) / (rate * times[-1]))
    share = f"{CALLS * SHARE:.0f} calls in {WINDOW:g} s"
    return [
        Row(
            "rate",
            f"deploy {LIMITED} functions, {share}",
            Sample.of(times),
            Baseline("calls ÷ rate", Sample.of(ideal)),
            Limit(1.1, of_ratio=True),
            f"{SHARE:.0%} of {CALLS} calls in a window; a deployment takes half a window",
        ),
        Row("rate", "… answers 429", Sample.of(refused, Unit.COUNT), None, Limit(0), "the limit is learned from the answers"),
        Row(
            "rate",
            "… polls, of the share",
            Sample.of(polls, Unit.PERCENT),
            None,
            Limit(5),
            f"every read after the first write; a poll of the whole list is {-(-LIMITED // 100)} calls",
        ),
    ]


def poll_calls(calls: Sequence[Entry]) -> int:
    """Return how many calls read functions after the first write: a poll of running deployments reads the list, or some."""
    begun = next((index for index, entry in enumerate(calls) if entry.method != "GET"), len(calls))
    return sum(entry.method == "GET" and entry.route in ("/functions", "/functions/{id}") for entry in calls[begun:])
