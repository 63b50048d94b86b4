"""Rows of the benchmark table, and their statistics. Pure."""

from __future__ import annotations

import enum
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


class Unit(enum.Enum):
    """The unit of a figure; the value is how it is written behind the number."""

    SECONDS = "s"
    MEGABYTES = "MB"
    PERCENT = "%"
    COUNT = ""
    EXPONENT = "·"


@dataclass(frozen=True, slots=True)
class Sample:
    """What several runs measured, in one unit. ``values`` is not empty."""

    values: tuple[float, ...]
    unit: Unit

    @classmethod
    def of(cls, values: Iterable[float], unit: Unit = Unit.SECONDS) -> Sample:
        """Return the sample of these values; raises ValueError if there is none."""
        found = tuple(values)
        if not found:
            raise ValueError("a sample needs a value")
        return cls(found, unit)

    @property
    def median(self) -> float:
        """The median of the runs."""
        return statistics.median(self.values)

    @property
    def lowest(self) -> float:
        """The smallest value."""
        return min(self.values)

    @property
    def highest(self) -> float:
        """The largest value."""
        return max(self.values)


@dataclass(frozen=True, slots=True)
class Baseline:
    """What a figure is compared with, measured in the same run or computed from it."""

    name: str
    sample: Sample


@dataclass(frozen=True, slots=True)
class Limit:
    """The most that a row may be: of its own median, or of its ratio to the baseline."""

    most: float
    of_ratio: bool = False


class Verdict(enum.Enum):
    """Whether a row kept its limit."""

    KEPT = "yes"
    MISSED = "no"
    UNLIMITED = ""
    SKIPPED = "skipped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    ``bound`` says what keeps the figure from being smaller, or why the limit is what it is. A row without ``ours`` was not
    measured: ``skipped`` says why, or ``failed`` what went wrong.
    """

    group: str
    name: str
    ours: Sample | None = None
    baseline: Baseline | None = None
    limit: Limit | None = None
    bound: str = ""
    skipped: str = ""
    failed: str = ""

    @property
    def ratio(self) -> float | None:
        """Our median divided by the baseline's; None without a baseline in our unit, or if it is zero."""
        if self.ours is None or self.baseline is None or self.ours.unit is not self.baseline.sample.unit:
            return None
        below = self.baseline.sample.median
        return self.ours.median / below if below else None

    @property
    def verdict(self) -> Verdict:
        """Whether the limit was kept."""
        if self.failed:
            return Verdict.FAILED
        if self.ours is None:
            return Verdict.SKIPPED
        if self.limit is None:
            return Verdict.UNLIMITED
        judged = self.ratio if self.limit.of_ratio else self.ours.median
        return Verdict.KEPT if judged is not None and judged <= self.limit.most else Verdict.MISSED


def exponent(costs: Mapping[int, float]) -> float:
    """Return the exponent of growth: the slope of the least-squares line through (log size, log cost).

    1 is linear, 2 quadratic. Needs two sizes, and costs above zero; else raises ValueError.

    >>> round(exponent({10: 5.0, 100: 500.0, 1000: 50_000.0}), 3)
    2.0
    """
    if len(costs) < 2 or min(costs.values()) <= 0:
        raise ValueError("an exponent needs two sizes, and costs above zero")
    sizes, values = [math.log(size) for size in costs], [math.log(cost) for cost in costs.values()]
    return statistics.linear_regression(sizes, values).slope


def exponent_of_n_log_n(sizes: Sequence[int]) -> float:
    """Return the exponent that a cost of exactly n log n would show over these sizes.

    >>> round(exponent_of_n_log_n([1000, 10_000]), 3)
    1.125
    """
    return exponent({size: size * math.log(size) for size in sizes})


def larger_sizes(sizes: Iterable[int]) -> list[int]:
    """Return the larger half of the sizes, at least two of them: there, a constant start-up hides growth least.

    >>> larger_sizes([10, 100, 1000, 10_000])
    [1000, 10000]
    """
    ordered = sorted(sizes)
    return ordered[-max(2, len(ordered) // 2) :]


def percentile(values: Sequence[float], percent: int) -> float:
    """Return a percentile of the values, by the nearest rank.

    >>> percentile([4.0, 1.0, 3.0, 2.0], 95)
    4.0
    """
    ordered = sorted(values)
    return ordered[max(math.ceil(len(ordered) * percent / 100) - 1, 0)]
