"""Show a table of rows: on a terminal, as JSON, and as the table of ``docs/performance.md``."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.others import pinned
from benchmarks.rows import Baseline, Limit, Row, Sample, Unit, Verdict
from kapso_sync import __version__
from kapso_sync.tools import VERSION as ESBUILD_VERSION

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
"""The lines of the page between which the table stands."""


@dataclass(frozen=True, slots=True)
class Report:
    """All rows of one run. ``circumstances`` are its date, machine and versions, by name."""

    circumstances: dict[str, str]
    rows: tuple[Row, ...]

    @property
    def kept(self) -> bool:
        """Whether nothing failed and every limit that was measured was kept."""
        return all(row.verdict not in (Verdict.MISSED, Verdict.FAILED) for row in self.rows)

    def to_json(self) -> str:
        """Return the report as JSON that `from_json` reads."""
        rows = [_row_document(row) for row in self.rows]
        return json.dumps({"circumstances": self.circumstances, "rows": rows}, indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Report:
        """Return the report that `to_json` wrote; raises ValueError, KeyError or TypeError for anything else."""
        document = json.loads(text)
        return cls(document["circumstances"], tuple(_read_row(row) for row in document["rows"]))


def _row_document(row: Row) -> dict[str, Any]:
    def sample(found: Sample) -> dict[str, Any]:
        return {"values": found.values, "unit": found.unit.name, "median": found.median}

    return {
        **asdict(row),
        "ours": sample(row.ours) if row.ours else None,
        "baseline": {"name": row.baseline.name, **sample(row.baseline.sample)} if row.baseline else None,
        "ratio": row.ratio,
        "verdict": row.verdict.name,
    }


def _read_row(document: dict[str, Any]) -> Row:
    def sample(found: dict[str, Any]) -> Sample:
        return Sample(tuple(found["values"]), Unit[found["unit"]])

    ours, baseline, limit = document["ours"], document["baseline"], document["limit"]
    return Row(
        group=document["group"],
        name=document["name"],
        ours=sample(ours) if ours else None,
        baseline=Baseline(baseline["name"], sample(baseline)) if baseline else None,
        limit=Limit(**limit) if limit else None,
        bound=document["bound"],
        skipped=document["skipped"],
        failed=document["failed"],
    )


def number(value: float, unit: Unit) -> str:
    """Return a figure with its unit, with as many digits as say something.

    >>> number(0.01234, Unit.SECONDS), number(12.34, Unit.SECONDS), number(64.2, Unit.MEGABYTES), number(3.0, Unit.COUNT)
    ('12.3 ms', '12.3 s', '64 MB', '3')
    """
    match unit:
        case Unit.SECONDS if value < 0.1:
            return f"{value * 1000:.1f} ms"
        case Unit.SECONDS:
            return f"{value:.2f} s" if value < 10 else f"{value:.1f} s"
        case Unit.MEGABYTES:
            return f"{value:.0f} MB"
        case Unit.PERCENT:
            return f"{value:.3f} %" if value < 1 else f"{value:.1f} %"
        case Unit.EXPONENT:
            return f"{value:.2f}"
        case _:
            return f"{value:g}"


def spread(sample: Sample) -> str:
    """Return the median, and the lowest and highest value behind it if they differ."""
    median, ends = number(sample.median, sample.unit), [number(end, sample.unit) for end in (sample.lowest, sample.highest)]
    return median if ends[0] == ends[1] else f"{median} ({ends[0]} to {ends[1]})"


def cells(row: Row) -> tuple[str, ...]:
    """Return a row's cells: name, ours, beside, ratio, limit, kept, bound."""
    if row.ours is None:
        return (row.name, "-", "", "", "", row.verdict.value, row.failed or row.skipped)
    beside = f"{row.baseline.name}: {spread(row.baseline.sample)}" if row.baseline else ""
    ratio = f"{row.ratio:.2f}" if row.ratio is not None else ""
    limit = ""
    if row.limit:
        limit = f"≤ {row.limit.most:g} times" if row.limit.of_ratio else f"≤ {_limit_text(row.limit.most, row.ours.unit)}"
    return (row.name, spread(row.ours), beside, ratio, limit, row.verdict.value, row.bound)


def _limit_text(most: float, unit: Unit) -> str:
    if unit is Unit.SECONDS:
        return f"{most * 1000:g} ms" if most < 0.1 else f"{most:g} s"
    return f"{most:.3f}" if unit is Unit.EXPONENT else f"{most:g} {unit.value}".strip()


HEADINGS = ("what", "kapso-sync", "beside", "ratio", "limit", "kept", "what bounds it")


def print_table(report: Report, console: Console) -> None:
    """Print the table, and when and on what it was measured."""
    table = Table(*HEADINGS, title=f"kapso-sync {__version__}: median (lowest to highest)", title_justify="left")
    group = ""
    for row in report.rows:
        if row.group != group:
            table.add_section()
            group = row.group
        table.add_row(*cells(row), style="red" if row.verdict in (Verdict.MISSED, Verdict.FAILED) else None)
    console.print(table)
    console.print(
        "; ".join(f"{name}: {value}" for name, value in report.circumstances.items()), soft_wrap=True, highlight=False
    )


def markdown(report: Report) -> str:
    """Return the tables for the page: one for each group, then the circumstances."""
    lines: list[str] = []
    group = ""
    for row in report.rows:
        if row.group != group:
            group = row.group
            lines += ["", f"### {group.capitalize()}", "", _line(HEADINGS), _line(["---"] * len(HEADINGS))]
        lines.append(_line(cells(row)))
    lines += ["", "### When and on what", "", "| | |", "|---|---|"]
    lines += [_line(pair) for pair in report.circumstances.items()]
    return "\n".join(lines) + "\n"


def _line(row: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"


def into_page(page: Path, report: Report) -> None:
    """Replace the tables of the page; raises ValueError if the page has no place for them."""
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{page} has no lines {BEGIN} and {END}")
    page.write_text(f"{before}{BEGIN}\n{markdown(report)}\n{END}{after}", encoding="utf-8")


def circumstances(runs: int, others: str) -> dict[str, str]:
    """Return when and on what this is measured. ``others`` says what the rows beside others lack, if they lack something."""
    git_version = subprocess.run(["git", "--version"], capture_output=True, text=True, check=True).stdout.split()[2]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3
    compared = {"httpx": metadata.version("httpx"), "msgspec": metadata.version("msgspec")}
    return {
        "measured": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "runs of each row": str(runs),
        "machine": f"{os.cpu_count()} cores, {_processor()}, {memory:.0f} GB, Linux {platform.release()}",
        "load at the start": f"{os.getloadavg()[0]:.1f} of {os.cpu_count()}",
        "kapso-sync": f"{__version__}, commit {_commit()}",
        "Python": platform.python_version(),
        "libraries": ", ".join(f"{name} {version}" for name, version in compared.items()),
        "git": git_version,
        "esbuild": ESBUILD_VERSION,
        "Kapso's CLI and octoDNS": others or f"kapso {pinned('kapso')} (PyPI), octoDNS {pinned('octodns')}",
    }


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _commit() -> str:
    ran = subprocess.run(
        ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
    )
    return ran.stdout.strip() or "unknown"


def say(text: str) -> None:
    """Print progress beside the table."""
    print(text, file=sys.stderr, flush=True)
