"""Options of a benchmark run that every group is given."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmarks.others import Others


@dataclass(frozen=True, slots=True)
class Options:
    """How often and how much is measured, and where.

    ``sizes`` are the numbers of functions for growth, ``functions`` and ``built`` those of the other rows; ``idle`` is the
    length of one look at an idle daemon, in seconds. ``scratch`` is an empty folder.
    """

    runs: int
    sizes: tuple[int, ...]
    functions: int
    built: int
    idle: float
    scratch: Path
    others: Others
