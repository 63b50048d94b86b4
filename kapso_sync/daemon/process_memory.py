"""Measures the process's memory, and returns free memory to the kernel."""

from __future__ import annotations

import contextlib
import ctypes
import os
from pathlib import Path


def resident_mb() -> float:
    """Return our resident memory in MB, as the kernel counts it."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return round(pages * os.sysconf("SC_PAGE_SIZE") / 1_000_000, 1)
    except (OSError, ValueError, IndexError):
        return 0.0


def trim_malloc() -> None:
    """Let the C library return free memory to the kernel, which it puts off for ever. Other libraries know no such call."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
