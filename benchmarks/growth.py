"""Measure how costs grow with the number of functions: each must grow no faster than n log n."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.daemons import daemon
from benchmarks.options import Options
from benchmarks.processes import interleaved, megabytes, program, run, script, seconds
from benchmarks.rows import Baseline, Limit, Row, Sample, Unit, exponent, exponent_of_n_log_n, larger_sizes
from benchmarks.scene import Scene, scene, write_many_functions

GROUP = "growth"

PAGE_READS = 5
"""Times that each page is read in each run."""

NOISE = 0.05
"""How much an exponent may exceed that of n log n: costs of equal growth differ by a tenth from run to run."""

LARGEST = {"plan": Limit(5), "plan, memory": Limit(250)}
"""Limits of 10,000 functions, or of one less (`write_many_functions`), in seconds and MB."""


@dataclass(frozen=True, slots=True)
class _Cost:
    """One cost at one size, and what it is compared with there."""

    sample: Sample
    baseline: Baseline | None = None


_BOUNDS = {
    "plan": "start-up, the list of all pages, the files",
    "plan, processor time": "what other programs do on this machine counts less here",
    "plan, memory": "interpreter, libraries, and the code of both sides",
    "sync without a change": "the same by hand in one process",
    "page /": "one line for each function",
    "page /api/status": "one object for each function",
    "idle memory": "what a pass remembers of each function",
}


def rows(options: Options) -> list[Row]:
    """Return a row for each cost at each size, and one for its exponent."""
    costs: dict[str, dict[int, _Cost]] = {}
    for size in options.sizes:
        with scene(options.scratch / f"growth-{size}") as there:
            count = write_many_functions(there.functions, size)
            there.own_already()
            for name, cost in _costs(options, there).items():
                costs.setdefault(name, {})[count] = cost
    return [row for name, by_size in costs.items() for row in _rows_of(name, by_size)]


def _rows_of(name: str, costs: Mapping[int, _Cost]) -> list[Row]:
    found = [
        Row(GROUP, f"{name}, {size:,} functions", cost.sample, cost.baseline, _limit(name, size), _BOUNDS[name])
        for size, cost in costs.items()
    ]
    large = larger_sizes(costs)
    if len(costs) < 2:
        return found
    grown = exponent({size: costs[size].sample.median for size in large})
    most = exponent_of_n_log_n(large) + NOISE
    between = " to ".join(f"{size:,}" for size in (large[0], large[-1]))
    bound = f"{most - NOISE:.3f} is n log n, and {NOISE} for noise; least squares over {between} functions"
    return [*found, Row(GROUP, f"{name}, exponent", Sample.of([grown], Unit.EXPONENT), None, Limit(most), bound)]


def _limit(name: str, size: int) -> Limit | None:
    return LARGEST.get(name) if 9_999 <= size <= 10_000 else None


def _costs(options: Options, there: Scene) -> dict[str, _Cost]:
    functions, environment = str(there.functions), there.environment()
    for _ in range(2):
        run(program("sync", functions), environment)
    found = interleaved(
        options.runs,
        {
            "plan": lambda: run(program("plan", functions), there.whole()),
            "sync": lambda: run(program("sync", functions), environment),
            "by hand": lambda: run(script("list_hash_compare", functions, there.url, there.kapso.key)),
            "pages": lambda: run(script("list_pages", there.url, there.kapso.key)),
        },
    )
    reads: dict[str, list[float]] = {"/": [], "/api/status": []}
    memory = []
    with daemon(there, functions) as running:
        for _ in range(options.runs):
            memory.append(running.megabytes())
            for path, times in running.pages(0, PAGE_READS).items():
                reads[path].append(statistics.median(times))
    return {
        "plan": _Cost(seconds(found["plan"]), Baseline("list of all pages", seconds(found["pages"]))),
        "plan, processor time": _Cost(Sample.of(one.cpu for one in found["plan"])),
        "plan, memory": _Cost(megabytes(found["plan"])),
        "sync without a change": _Cost(seconds(found["sync"]), Baseline("list, hash, compare", seconds(found["by hand"]))),
        **{f"page {path}": _Cost(Sample.of(times)) for path, times in reads.items()},
        "idle memory": _Cost(Sample.of(memory, Unit.MEGABYTES)),
    }
