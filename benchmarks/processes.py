"""Run commands in processes of their own and measure what they cost."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from benchmarks.rows import Sample, Unit

Result = TypeVar("Result")

SCRIPTS = Path(__file__).with_name("scripts")


class Failed(Exception):
    """Something that is measured did not do what it should."""


@dataclass(frozen=True, slots=True)
class Run:
    """What one run of a command cost: seconds of wall time and of the processor, and the largest resident memory in MB."""

    seconds: float
    cpu: float
    megabytes: float


def run(command: Sequence[str], environment: Mapping[str, str] | None = None, folder: Path | None = None) -> Run:
    """Run a command and return its cost; raises `Failed` if it does not end with 0."""
    launcher = [sys.executable, "-I", "-S", str(SCRIPTS / "launch.py")]
    ran = subprocess.run(
        [*launcher, *command],
        env=environment,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    cost = json.loads(ran.stdout.splitlines()[-1]) if ran.returncode == 0 else {"code": ran.returncode}
    if cost["code"]:
        said = (ran.stderr or ran.stdout).strip().splitlines()[-1:]
        raise Failed(f"{' '.join(command[:4])} … ended with {cost['code']}: {''.join(said)[:300]}")
    return Run(cost["seconds"], cost["cpu"], cost["megabytes"])


def script(name: str, *arguments: str) -> list[str]:
    """Return the command line of one of the scripts here, in this environment's Python."""
    return [sys.executable, str(SCRIPTS / f"{name}.py"), *arguments]


def importing(libraries: str) -> list[str]:
    """Return the command line that imports these libraries, without rich: httpx and structlog take it along, but not for us."""
    return [sys.executable, "-c", f"import sys; sys.modules['rich'] = None; import {libraries}"]


def program(*arguments: str) -> list[str]:
    """Return a command line of this environment's kapso-sync."""
    return [str(Path(sys.executable).with_name("kapso-sync")), *arguments]


def interleaved(runs: int, actions: Mapping[str, Callable[[], Result]]) -> dict[str, list[Result]]:
    """Do every action, in turn, ``runs`` times: noise of the machine hits all of them alike. Returns the results by name."""
    results: dict[str, list[Result]] = {name: [] for name in actions}
    for _ in range(runs):
        for name, action in actions.items():
            results[name].append(action())
    return results


def seconds(runs: Sequence[Run]) -> Sample:
    """Return the wall times of these runs."""
    return Sample.of(run.seconds for run in runs)


def megabytes(runs: Sequence[Run]) -> Sample:
    """Return the largest resident memory of each of these runs."""
    return Sample.of((run.megabytes for run in runs), Unit.MEGABYTES)
