"""What must hold for every input, and how a broken promise is noticed.

No traceback, no hang, bounded memory, no file outside the root read, and no control character or extra line in what is printed.
"""

from __future__ import annotations

import contextlib
import resource
import signal
import sys
import unicodedata
from collections.abc import Iterator
from types import FrameType

CANARY = "canary-7f3c9e51"
"""Lies beside every root, in files that nothing may read; it must be in no output."""

FORGED = "::error::forged"
"""Hostile texts put it behind a line break: a line that begins with it is one that an outsider made."""

MAX_GROWTH = 256 * 1024 * 1024
"""Bytes by which one input may raise the process's memory."""

_SHOWN_MARKS = frozenset("\t\n")


class BrokenPromise(AssertionError):
    """An input made the program do what it must never do."""


class Hang(BaseException):
    """An input took longer than its deadline. No `Exception`, so that no handler of the program's takes it for its own."""


@contextlib.contextmanager
def bounded(cpu: float, wall: float | None) -> Iterator[None]:
    """Raise `Hang` after so many seconds of CPU or of the clock, and `BrokenPromise` when memory grew too much.

    CPU time decides, since the machine may be busy; the clock finds what waits for ever. ``wall`` None leaves SIGALRM alone.
    """
    before = _peak()
    alarms = [(signal.ITIMER_PROF, signal.SIGPROF, cpu)] + ([(signal.ITIMER_REAL, signal.SIGALRM, wall)] if wall else [])
    old = [signal.signal(number, _ring) for _, number, _ in alarms]
    for timer, _, seconds in alarms:
        signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        for (timer, number, _), handler in zip(alarms, old, strict=True):
            signal.setitimer(timer, 0.0)
            signal.signal(number, handler)
    grown = _peak() - before
    if grown > MAX_GROWTH:
        raise BrokenPromise(f"one input took {grown // (1024 * 1024)} MiB")


def check_printed(text: str, *, lines: int | None = None, own: str = "\n") -> None:
    """Raise `BrokenPromise` for a control character, a line that an outsider made, or a canary in what was printed.

    ``lines`` is how many lines there must be, if that is known. ``own`` are control characters that are the program's own.
    """
    check_no_canary(text)
    for char in set(text) - _SHOWN_MARKS - set(own):
        if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp"):
            raise BrokenPromise(f"prints the control character {char!r}: {_around(text, char)!r}")
    for line in text.split("\n"):
        if line.startswith(FORGED):
            raise BrokenPromise(f"prints a line that an outsider made: {line[:200]!r}")
    if lines is not None and text.count("\n") != lines:
        raise BrokenPromise(f"prints {text.count(chr(10))} lines where {lines} belong: {text[:400]!r}")


def check_no_canary(text: str) -> None:
    """Raise `BrokenPromise` if a text quotes a file from outside the root."""
    if CANARY in text:
        raise BrokenPromise(f"shows a file from outside the root: {_around(text, CANARY)!r}")


def _around(text: str, what: str) -> str:
    place = text.index(what)
    return text[max(0, place - 80) : place + 80]


def _ring(_number: int, _frame: FrameType | None) -> None:
    raise Hang


def _peak() -> int:
    """Return the highest memory of this process so far, in bytes; the kernel counts in KiB, but macOS in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
