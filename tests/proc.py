"""What Linux knows about processes: who started whom, and which sockets they listen on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

LISTENING = "0A"
"""The state of a listening TCP socket in /proc/net/tcp; /proc/net/unix marks one by a flag of its own."""


def family(pid: int) -> set[int]:
    """Return a process with all that it started, and those in turn."""
    parents: dict[int, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue  # it ended meanwhile
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def naming(text: str) -> set[int]:
    """Return the processes that have a text in their command line, zombies left out."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if text.encode() in (folder / "cmdline").read_bytes():
                found.add(int(folder.name))
        except OSError:
            continue
    return found


def tcp_ports(pids: set[int]) -> set[int]:
    """Return the TCP ports on which these processes listen."""
    inodes, ports = _sockets(pids), set()
    for name in ("tcp", "tcp6"):
        for line in Path("/proc/net", name).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTENING and fields[9] in inodes:
                ports.add(int(fields[1].rpartition(":")[2], 16))
    return ports


def unix_sockets(pids: set[int]) -> set[str]:
    """Return the names of the Unix sockets on which these processes listen; an abstract one begins with ``@``."""
    inodes = _sockets(pids)
    rows = (line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:])
    return {row[7] for row in rows if len(row) > 7 and row[3] == "00010000" and row[6] in inodes}


def _sockets(pids: set[int]) -> set[str]:
    return {inode for pid in pids for inode in _sockets_of(pid)}


def _sockets_of(pid: int) -> Iterator[str]:
    try:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            target = str(link.readlink())
            if target.startswith("socket:["):
                yield target.removeprefix("socket:[").rstrip("]")
    except OSError:
        return
