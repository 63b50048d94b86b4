"""Resident memory of this process: how much it is, and how to return free memory to the kernel after a pass."""

from __future__ import annotations

import contextlib
import ctypes
import os
from pathlib import Path

_M_ARENA_MAX = -8
"""The option of `mallopt` for the number of heaps, as ``malloc.h`` has it."""


def resident_mb() -> float:
    """Return the resident memory of this process in MB, as the kernel counts it."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return round(pages * os.sysconf("SC_PAGE_SIZE") / 1_000_000, 1)
    except (OSError, ValueError, IndexError):
        return 0.0


def use_one_heap() -> None:
    """Make all threads of this process allocate from one heap (glibc only); call it before any of them starts.

    Each has one of its own otherwise, and what is free there serves no other thread. They wait for Python's lock anyway.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def trim_malloc() -> None:
    """Make the C library return free memory to the kernel (`malloc_trim`, in glibc only); it does not do so by itself."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
