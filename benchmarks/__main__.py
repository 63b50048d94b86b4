"""Prints what kapso-sync costs, each figure beside its limit and what bounds it. Ends with 1 when a limit is missed.

    python -m benchmarks [--only GROUP]… [--runs 5] [--sizes 10,100,1000,10000] [--json FILE]
    python -m benchmarks --markdown FILE     # writes the tables of such a file into docs/performance.md

Groups: commands, growth, builds, daemon, deployments, rate, idle. The last three mostly wait, and run at the same time.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.console import Console

from benchmarks import builds, commands, growth, live, waiting
from benchmarks.options import Options
from benchmarks.others import ROOT, Others, install
from benchmarks.processes import Failed
from benchmarks.report import Report, circumstances, into_page, print_table, say
from benchmarks.rows import Row

Group = Callable[[Options], list[Row]]

BUSY: Mapping[str, Group] = {
    "commands": commands.rows,
    "growth": growth.rows,
    "builds": builds.rows,
    "daemon": live.daemon_rows,
}
WAITING: Mapping[str, Group] = {
    "deployments": waiting.deployment_rows,
    "rate": waiting.rate_rows,
    "idle": live.idle_rows,
}
PAGE = ROOT / "docs" / "performance.md"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table, and return 0 if every limit was kept."""
    asked = _parser().parse_args(arguments)
    if asked.markdown is not None:
        into_page(PAGE, Report.from_json(asked.markdown.read_text(encoding="utf-8")))
        return 0
    if not Path("/proc/self/task").is_dir():
        say("make bench needs Linux: it reads what a process costs from /proc")
        return 1
    report = _measure(asked)
    if asked.json is not None:
        asked.json.write_text(report.to_json(), encoding="utf-8")
    print_table(report, Console(width=None if sys.stdout.isatty() else 200))
    return 0 if report.kept else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [*BUSY, *WAITING]
    parser.add_argument("--only", action="append", choices=names, metavar="GROUP", help="measure this group; repeatable")
    parser.add_argument("--runs", type=_positive, default=5, help="runs of each row")
    parser.add_argument("--sizes", type=_sizes, default=(10, 100, 1000, 10_000), help="numbers of functions for growth")
    parser.add_argument("--functions", type=_positive, default=1000, help="functions of the other rows")
    parser.add_argument("--built", type=_positive, default=500, help="TypeScript functions that are built")
    parser.add_argument("--idle", type=float, default=20.0, help="seconds of one look at an idle daemon")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="measure nothing: write these figures into the page")
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("expected a number of at least 1")
    return value


def _sizes(text: str) -> tuple[int, ...]:
    sizes = tuple(sorted({_positive(part) for part in text.split(",")}))
    if sizes[0] < 2:
        raise argparse.ArgumentTypeError("expected sizes of at least 2: the logarithm of 1 is 0, and nothing grows from there")
    return sizes


def _measure(asked: argparse.Namespace) -> Report:
    wanted = asked.only or [*BUSY, *WAITING]
    # The others take a minute to install, and no group but this one runs them.
    others = install(ROOT / ".bench") if "commands" in wanted else Others(ROOT / ".bench", "not asked for")
    found: dict[str, list[Row]] = {}
    started = time.monotonic()
    about = circumstances(asked.runs, others.missing)
    with tempfile.TemporaryDirectory(prefix="kapso-sync-bench-") as scratch:
        options = Options(asked.runs, asked.sizes, asked.functions, asked.built, asked.idle, Path(scratch), others)
        for name, group in BUSY.items():
            if name in wanted:
                found[name] = _rows(name, group, options)
        waiting_ones = {name: group for name, group in WAITING.items() if name in wanted}
        with ThreadPoolExecutor(max(len(waiting_ones), 1)) as pool:
            futures = {name: pool.submit(_rows, name, group, options) for name, group in waiting_ones.items()}
            found |= {name: future.result() for name, future in futures.items()}
    about["whole run"] = f"{(time.monotonic() - started) / 60:.1f} minutes"
    return Report(about, tuple(row for rows in found.values() for row in rows))


def _rows(name: str, group: Group, options: Options) -> list[Row]:
    """Measure one group; what goes wrong there is a row, so that the others are measured all the same."""
    started = time.monotonic()
    say(f"{name} …")
    try:
        rows = group(options)
    except Failed as error:
        rows = [Row(name, name, failed=str(error))]
    except Exception as error:  # noqa: BLE001 - the other groups are still worth measuring
        traceback.print_exc()
        rows = [Row(name, name, failed=repr(error))]
    say(f"{name}: {time.monotonic() - started:.0f} s")
    return rows


if __name__ == "__main__":
    sys.exit(main())
