"""Defines the back-off of the program: how long to wait after the n-th failure in a row, or as long as a server asks for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

from kapso_sync.dataclass import dataclass

_MAX_EXPONENT = 64
"""Beyond this the delay has long reached its maximum; without a limit ``factor ** n`` overflows a float."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Delays in seconds that grow by ``factor`` from ``initial`` up to ``maximum``.

    >>> [Backoff(5.0, 60.0).delay(failures) for failures in (1, 2, 3, 4, 5)]
    [5.0, 10.0, 20.0, 40.0, 60.0]
    """

    initial: float
    maximum: float
    factor: float = 2.0

    def delay(self, failures: int) -> float:
        """Return the delay after this many failures in a row, counted from 1."""
        return min(self.initial * self.factor ** min(max(failures, 1) - 1, _MAX_EXPONENT), self.maximum)

    def jittered(self, failures: int, random: float, *, least: float = 0.0) -> float:
        """Return full jitter below that delay, but at least the share ``least`` of it; ``random`` is drawn from 0 to 1.

        Full jitter spreads many clients best: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
        """
        ceiling = self.delay(failures)
        return max(ceiling * random, ceiling * least)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that an answer's ``Retry-After`` asks for, which may be negative or infinite; None if it does not ask.

    A date counts from the answer's own ``Date``: our clock may be wrong. Source: RFC 9110, section 10.2.3. Names are in lower
    case.

    >>> retry_after({"retry-after": "Sun, 29 Nov 2026 06:00:30 GMT", "date": "Sun, 29 Nov 2026 06:00:00 GMT"})
    30.0
    """
    text = headers.get("retry-after", "")
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(text) - parsedate_to_datetime(headers.get("date", ""))).total_seconds()
        except (ValueError, TypeError, OverflowError):  # what is no date, and one with a time zone beside one without
            return None
    return None if math.isnan(seconds) else seconds
