"""The benchmark counts right, judges right, and its page shows what it measured."""

from __future__ import annotations

import re
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from benchmarks.__main__ import BUSY, PAGE, WAITING, main
from benchmarks.others import install
from benchmarks.processes import Failed, interleaved, run
from benchmarks.report import BEGIN, END, Report, cells, into_page, markdown
from benchmarks.rows import Baseline, Limit, Row, Sample, Unit, exponent, exponent_of_n_log_n, larger_sizes
from benchmarks.waiting import poll_calls
from kapso_sync.emulator.requestlog import Entry

SIZES = larger_sizes([10, 100, 1000, 10_000])


def row(ours: float, limit: Limit | None = None, baseline: float | None = None) -> Row:
    beside = Baseline("by hand", Sample.of([baseline])) if baseline is not None else None
    return Row("commands", "plan", Sample.of([ours]), beside, limit, "start-up | files")


def test_growth_beyond_n_log_n_is_seen_and_n_log_n_is_not() -> None:
    """A start-up that is constant does not hide a quadratic part from the larger sizes."""
    most = exponent_of_n_log_n(SIZES)
    assert exponent({size: 0.2 + 1e-4 * size for size in SIZES}) < most
    assert exponent({size: 0.2 + 1e-7 * size**2 for size in SIZES}) > most


@pytest.mark.parametrize(
    ("measured", "kept"),
    [
        (row(1.0), True),
        (row(1.0, Limit(1.0)), True),
        (row(1.1, Limit(1.0)), False),
        (row(1.4, Limit(1.4, of_ratio=True), 1.0), True),
        (row(1.5, Limit(1.4, of_ratio=True), 1.0), False),
        (row(1.5, Limit(1.4, of_ratio=True)), False),
        (Row("commands", "plan", skipped="offline"), True),
        (Row("commands", "plan", failed="it ended with 1"), False),
    ],
)
def test_a_missed_limit_or_a_failure_fails_the_run_and_a_skipped_row_does_not(measured: Row, kept: bool) -> None:
    """The exit code follows from this."""
    assert Report({}, (row(1.0), measured)).kept is kept


def test_a_report_comes_back_from_its_json() -> None:
    """The page can be made from it, wherever it was measured."""
    rows = (
        row(1.5, Limit(1.4, of_ratio=True), 1.0),
        Row("idle", "CPU", Sample.of([0.01, 0.02, 0.04], Unit.PERCENT), None, Limit(0.05)),
        Row("daemon", "push", skipped="offline"),
        Row("rate", "rate", failed="it ended with 1"),
    )
    report = Report({"Python": "3.11"}, rows)
    assert Report.from_json(report.to_json()) == report


def test_a_row_shows_median_spread_ratio_limit_and_bound() -> None:
    """Everything that the row knows is read off the table."""
    measured = Row(
        "commands", "plan", Sample.of([3.0, 1.0, 2.0]), Baseline("by hand", Sample.of([1.0])), Limit(1.5), "start-up"
    )
    shown = ("plan", "2.00 s (1.00 s to 3.00 s)", "by hand: 1.00 s", "2.00", "≤ 1.5 s", "no", "start-up")
    assert cells(measured) == shown
    assert cells(Row("commands", "plan", skipped="offline")) == ("plan", "-", "", "", "", "skipped", "offline")


def test_only_the_tables_of_the_page_are_replaced(tmp_path: Path) -> None:
    """The words around them stay, and a page without a place for them is refused."""
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n", encoding="utf-8")
    report = Report({"Python": "3.11"}, (row(1.0),))
    for _ in range(2):
        into_page(page, report)
        assert page.read_text(encoding="utf-8") == f"before\n{BEGIN}\n{markdown(report)}\n{END}\nafter\n"
    page.write_text("nothing here\n", encoding="utf-8")
    with pytest.raises(ValueError, match="has no lines"):
        into_page(page, report)


def test_the_page_shows_every_group_that_is_measured() -> None:
    """A new group is in the page, and none that is gone."""
    tables = PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    shown = [name.lower() for name in re.findall(r"^### (.*)$", tables, flags=re.MULTILINE)]
    assert shown == [*BUSY, *WAITING, "when and on what"]


def test_a_command_has_its_own_memory_and_not_that_of_the_process_that_started_it() -> None:
    """Linux counts from before ``exec``; a control: the same interpreter that keeps 100 MB shows them."""
    kept = b"x" * 200_000_000
    assert run([sys.executable, "-I", "-S", "-c", "pass"]).megabytes < 50 < len(kept)
    assert run([sys.executable, "-I", "-S", "-c", "b'x' * 100_000_000"]).megabytes > 90


def test_a_command_that_fails_is_no_figure() -> None:
    """What it said last is in the error."""
    with pytest.raises(Failed, match="ended with 3: because"):
        run([sys.executable, "-c", "import sys; print('because', file=sys.stderr); sys.exit(3)"])
    with pytest.raises(Failed):
        run(["/nowhere/kapso-sync"])


def test_what_is_compared_is_measured_in_turn() -> None:
    """Noise of the machine hits both."""
    done: list[str] = []
    found = interleaved(2, {"ours": lambda: done.append("ours"), "theirs": lambda: done.append("theirs")})
    assert done == ["ours", "theirs"] * 2
    assert {name: len(results) for name, results in found.items()} == {"ours": 2, "theirs": 2}


def test_polls_are_the_reads_of_functions_after_the_first_write() -> None:
    """The list with which a pass begins is none."""
    routes = ["/functions", "/functions/{id}", "/functions/{id}/secrets"]
    methods = [("GET", "/functions"), ("POST", "/functions"), *(("GET", route) for route in routes)]
    calls = [
        Entry(number, datetime.now(UTC), method, route, "/api/v1", route, {}, key_ok=True, size=0)
        for number, (method, route) in enumerate(methods)
    ]
    assert poll_calls(calls) == 2
    assert poll_calls(calls[:1]) == 0


@pytest.mark.thorough
def test_what_cannot_be_installed_is_skipped_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as offline: a registry that refuses every connection."""
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    others = install(tmp_path)
    assert re.match(r"not installed: \w", others.missing)
    assert not (tmp_path / "venv" / ".installed").exists()


@pytest.mark.thorough
def test_one_group_is_measured_and_its_figures_are_written(tmp_path: Path) -> None:
    """The whole way from the command line to the file: a row for each cost and size, and its exponent."""
    figures = tmp_path / "figures.json"
    main(["--only", "growth", "--runs", "1", "--sizes", "2,4", "--json", str(figures)])
    report = Report.from_json(figures.read_text(encoding="utf-8"))
    assert not [row for row in report.rows if row.failed]
    names = [row.name for row in report.rows if row.name.startswith("plan, memory")]
    assert names == ["plan, memory, 2 functions", "plan, memory, 4 functions", "plan, memory, exponent"]
