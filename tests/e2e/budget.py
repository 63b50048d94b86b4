"""Limits of 256 MiB of memory and half a processor for a process, by a control group where this user may make one."""

from __future__ import annotations

import contextlib
import functools
import os
import resource
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

MEMORY = 256 * 1024 * 1024
PERIOD_US = 100_000
QUOTA_US = PERIOD_US // 2

GROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Budget:
    """What holds a process within its limits, and the function that puts this process under them, to be called after a fork."""

    kind: str
    enter: Callable[[], None]


@contextlib.contextmanager
def budget() -> Iterator[Budget]:
    """Yield limits for a process and all that it starts; without control groups, for the memory of each process alone."""
    name = f"kapso-sync-test-{uuid.uuid4().hex[:8]}"
    if (GROUPS / "cgroup.controllers").exists():
        kind = "control groups"
        files = {GROUPS / name: {"memory.max": f"{MEMORY}", "cpu.max": f"{QUOTA_US} {PERIOD_US}"}}
    else:
        kind = "control groups of version 1"
        files = {
            GROUPS / "memory" / name: {"memory.limit_in_bytes": f"{MEMORY}"},
            GROUPS / "cpu" / name: {"cpu.cfs_period_us": f"{PERIOD_US}", "cpu.cfs_quota_us": f"{QUOTA_US}"},
        }
    with contextlib.ExitStack() as stack:
        try:
            for folder, limits in files.items():
                folder.mkdir()
                stack.callback(folder.rmdir)
                for limit, value in limits.items():
                    (folder / limit).write_text(f"{value}\n", encoding="ascii")
        except OSError:
            stack.close()
            limit_data = functools.partial(resource.setrlimit, resource.RLIMIT_DATA, (MEMORY, MEMORY))
            yield Budget("RLIMIT_DATA of each process", limit_data)
            return
        yield Budget(kind, functools.partial(_join, tuple(files)))


def _join(groups: tuple[Path, ...]) -> None:
    for group in groups:
        (group / "cgroup.procs").write_text(f"{os.getpid()}\n", encoding="ascii")
