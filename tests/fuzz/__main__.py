"""``make fuzz``: every target in turn, for its share of the minutes; with an input, that input alone."""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.fuzz.engine import STUCK
from tests.fuzz.promises import bounded
from tests.fuzz.target import Target
from tests.fuzz.targets import TARGETS

FOLDER = Path(".fuzz")
"""Where the corpus grows from run to run, and where failures are kept; git ignores it."""

TURN = 60.0
"""Seconds that a target gets in one turn, at least: each turn reads its whole corpus first."""


def main() -> int:
    """Return 0 if nothing broke a promise."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="for all targets together")
    parser.add_argument("--target", default="", help="one target, or several with commas; default: all of them")
    parser.add_argument("--input", default="", help="replay this file once, with its traceback")
    parser.add_argument("--seed", type=int, default=0, help="default: another one each time")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the run below ends with this process
    unknown = set(filter(None, given.target.split(","))) - TARGETS.keys()
    if unknown:
        parser.error(f"no target {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    chosen = [TARGETS[name] for name in given.target.split(",") if name] or list(TARGETS.values())
    if given.input:
        return _replay(chosen, Path(given.input))
    return _fuzz(chosen, given.minutes * 60, given.seed)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _replay(chosen: list[Target], path: Path) -> int:
    if len(chosen) != 1:
        named = next((TARGETS[name] for name in (path.parent.name,) if name in TARGETS), None)
        if named is None:
            _say("name the TARGET of this INPUT")
            return 64
        chosen = [named]
    with bounded(chosen[0].cpu, STUCK):
        chosen[0].run(path.read_bytes())
    _say(f"{chosen[0].name}: {path} keeps every promise")
    return 0


def _fuzz(chosen: list[Target], seconds: float, seed: int) -> int:
    """Give the targets turns until the time is over; a turn is longer where fewer fit."""
    until, failed, skipped = time.monotonic() + seconds, dict[tuple[str, str], str](), set[str]()
    turns = max(1, int(seconds / (TURN * sum(target.share for target in chosen))))
    due = [(turn, target) for turn in range(turns) for target in chosen]
    shares = sum(target.share for _, target in due)
    _say(f"{'target':<10} {'executions':>10} {'a second':>9} {'seconds':>8} {'new':>6}  failures")
    for turn, target in due:
        # A turn takes longer than its share where its corpus is large: the others share what is left.
        given = (until - time.monotonic()) * target.share / shares
        shares -= target.share
        if given < 1:
            skipped.add(target.name)
            continue
        found = _turn(target, given, (seed or int(time.time())) + turn)
        failed |= {(target.name, what): path for what, path in found.items()}
    _say(f"\n{len(failed)} failures in {(time.monotonic() - until + seconds) / 60:.1f} minutes")
    if skipped:
        _say(f"no time was left for all turns of {', '.join(sorted(skipped))}: give more MINUTES")
    for path in failed.values():
        _say(f"  make fuzz TARGET={Path(path).parent.name} INPUT={path}")
    return 1 if failed else 0


def _turn(target: Target, seconds: float, seed: int) -> dict[str, str]:
    """Run a target, again after an input that ended its process, and print its line."""
    started, failed, executions, entries = time.monotonic(), dict[str, str](), 0, 0
    FOLDER.mkdir(exist_ok=True)
    numbers = FOLDER / f"{target.name}.json"
    kept = FOLDER / "failures" / target.name
    while (left := seconds - (time.monotonic() - started)) >= 1:
        numbers.unlink(missing_ok=True)
        before = set(kept.glob("*"))
        status = _run(target, left, seed)
        said = json.loads(numbers.read_text(encoding="utf-8")) if numbers.exists() else {}
        executions += said.get("executions", 0)
        entries += said.get("entries", 0)
        failed |= said.get("failures", {})
        ended = [path for path in set(kept.glob("*")) - before if path.name.startswith(("crash-", "timeout-", "oom-"))]
        failed |= {f"the process ended with {status}": str(path) for path in ended}
        if status == 0 or not said:
            if status and not ended:
                failed |= {f"the process ended with {status}, and no input is known": str(FOLDER / f"{target.name}.log")}
            break
        seed += 1
    took = max(time.monotonic() - started, 0.001)
    _say(f"{target.name:<10} {executions:>10} {executions / took:>9.1f} {took:>8.1f} {entries:>6}  {len(failed) or ''}")
    for what, path in failed.items():
        _say(f"    {what}\n    reproduce: make fuzz TARGET={target.name} INPUT={path}")
    return failed


def _run(target: Target, seconds: float, seed: int) -> int:
    command = [sys.executable, "-m", "tests.fuzz.engine", target.name, str(FOLDER), f"{seconds:.0f}", str(seed)]
    with (FOLDER / f"{target.name}.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            return process.wait(timeout=seconds + 3 * STUCK)
        except subprocess.TimeoutExpired:
            return -int(signal.SIGKILL)
        finally:
            process.kill()
            process.wait()


if __name__ == "__main__":
    sys.exit(main())
