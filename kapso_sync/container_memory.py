"""Says how much memory the container of this process has left, by the limits of its control groups.

Where it is used up, the kernel kills: one process, or in Kubernetes (`memory.oom.group`) all of them. A program that may take
no more than what is left fails by itself, and its error has words.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from kapso_sync.files import read_small

GROUPS = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")

RESERVE = 32 * 1024 * 1024
"""Bytes that programs leave to this process, which goes on meanwhile."""

LEAST = 48 * 1024 * 1024
"""Bytes that a program gets at least: with less, none of them starts."""

_MOST_BYTES = 64 * 1024


def memory_for_program(most: int, *, share: float = 1.0, groups: Path = GROUPS, own: Path = OWN_GROUPS) -> int:
    """Return how many bytes a program may take: ``most``, or less where the container has less left.

    ``share`` is its part of what is left; a limit counts only some of what a program takes.
    """
    left = (_left(folder, *names) for folder, *names in _places(groups, own))
    known = [count for count in left if count is not None]
    return min(most, max(LEAST, int((min(known) - RESERVE) * share))) if known else most


def _places(groups: Path, own: Path) -> Iterator[tuple[Path, str, str, str]]:
    """Yield the folders of this process's control groups, inner ones first, with the names of their files.

    The files are those of the limit and of what is used; the last name is the prefix of the lines in ``memory.stat``.
    A container may see its own group as the root, whatever path the kernel names.
    """
    for line in _read(own).splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0":
            root, names = groups, ("memory.max", "memory.current", "")
        elif "memory" in controllers.split(","):
            root, names = groups / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_")
        else:
            continue
        inner = root / path.strip("/")
        for folder in (inner, *inner.parents):
            if folder.is_relative_to(root):
                yield folder, *names


def _left(folder: Path, limit: str, used: str, prefix: str) -> int | None:
    """Return the bytes that a group may still take; None if it has no limit, or is not there.

    The kernel gives up its cache of files before it kills.
    """
    most, now = _read(folder / limit).strip(), _read(folder / used).strip()
    if not (most.isdigit() and now.isdigit()):
        return None
    stat = dict(line.split(" ", 1) for line in _read(folder / "memory.stat").splitlines() if " " in line)
    cached = [stat.get(f"{prefix}{kind}_file", "0") for kind in ("inactive", "active")]
    return int(most) - int(now) + sum(int(size) for size in cached if size.isdigit())


def _read(path: Path) -> str:
    try:
        return read_small(path, _MOST_BYTES).decode("ascii", "replace")
    except OSError:
        return ""
