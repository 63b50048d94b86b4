"""How the daemon keeps its memory small, as the C library itself reports it."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

_SCRIPT = """
import ctypes, sys, threading
from kapso_sync.process_memory import use_one_heap

if sys.argv[1] == "one":
    use_one_heap()
kept = []
threads = [threading.Thread(target=lambda: kept.append(bytes(100_000))) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
ctypes.CDLL(None).malloc_stats()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has a heap for each thread")
@pytest.mark.parametrize(("how", "one"), [("one", True), ("many", False)])
def test_threads_share_one_heap(how: str, one: bool) -> None:
    """What is free in the heap of a thread serves no other thread; the other case is the positive control."""
    ran = subprocess.run([sys.executable, "-c", _SCRIPT, how], capture_output=True, text=True, check=True)
    assert "Arena 0:" in ran.stderr
    assert ("Arena 1:" not in ran.stderr) is one
