"""Locks a state folder for one process: the kernel drops the lock with the process, and a file names its holder."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from kapso_sync.errors import StateLocked, StateUnusable
from kapso_sync.files import read_small
from kapso_sync.store.folder import open_private
from kapso_sync.store.json_file import write_private
from kapso_sync.store.writing_hint import writing_hint

LOCK_NAME = "lock"
HOLDER_NAME = "lock.json"

_MAX_NOTE_BYTES = 4096

_PAUSES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 1.0)
"""Seconds between looks at a lock whose holder is dead."""


@contextlib.contextmanager
def held(folder: Path, started: datetime) -> Iterator[None]:
    """Lock the state folder, which is created if it is missing.

    Raises `StateLocked`, naming the holder's pid and host, `StateUnusable` when the folder cannot be written or its file system
    has no locks, and `StateExposed` when others may write it.
    """
    with contextlib.ExitStack() as stack:
        try:
            open_private(folder)
            descriptor = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            stack.callback(os.close, descriptor)  # which ends the lock, too
            _lock(descriptor, folder)
        except BlockingIOError:
            raise StateLocked(
                f"another kapso-sync holds the state folder {folder}: {holder(folder)}",
                hint="wait until it has ended, or stop it",
            ) from None
        except OSError as error:
            hint = writing_hint(error, "make the folder writable, or set KAPSO_SYNC_STATE_DIR")
            raise StateUnusable(
                f"the state folder {folder} cannot be used: {error.strerror or error}",
                hint=f"nothing is written to Kapso without a journal: {hint}",
            ) from error
        stack.callback(_forget_holder, folder)
        since = started.isoformat(timespec="seconds")
        note = {"pid": os.getpid(), "born": process_birth(os.getpid()), "host": socket.gethostname(), "since": since}
        with contextlib.suppress(StateUnusable):
            write_private(folder / HOLDER_NAME, json.dumps(note))
        yield


def _lock(descriptor: int, folder: Path) -> None:
    """Lock an open file; raises `BlockingIOError` if another process has locked it, and OSError.

    A holder that was killed while it started a program leaves the lock to that for a moment: until the program is loaded, the
    new process has all open files of the old one. So where the holder is known to be dead, the lock is waited for.
    """
    for pause in _PAUSES:
        try:
            return _lock_now(descriptor)
        except BlockingIOError:
            if not _is_dead(_holder_note(folder)):
                raise
            time.sleep(pause)
    return _lock_now(descriptor)


def _lock_now(descriptor: int) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except PermissionError as error:
        raise BlockingIOError from error  # what some file systems say in place of EAGAIN


def _forget_holder(folder: Path) -> None:
    with contextlib.suppress(OSError):
        (folder / HOLDER_NAME).unlink(missing_ok=True)


def is_held(folder: Path) -> bool:
    """Return whether a process that is alive holds the state folder; one on another host counts as alive."""
    note = _holder_note(folder)
    return note is not None and not _is_dead(note)


def _holder_note(folder: Path) -> Mapping[str, Any] | None:
    """Return what the last holder wrote about itself, or None if there is nothing that can be read."""
    try:
        note = json.loads(read_small(folder / HOLDER_NAME, _MAX_NOTE_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
    return note if isinstance(note, dict) and isinstance(note.get("pid"), int) and "host" in note else None


def _is_dead(note: Mapping[str, Any] | None) -> bool:
    """Return whether the holder is known to have ended: it was a process of this host, and that process is gone."""
    return note is not None and note["host"] == socket.gethostname() and not is_alive(note["pid"], note.get("born"))


def is_alive(pid: int, born: str | None = None) -> bool:
    """Return whether a process of this host is alive; ``born`` is what `process_birth` returned for it, None if not known.

    A pid alone proves little: after a crash it is given to another process, in a container often to the next one. So a process
    that was born at another time is another one. Without ``born``, the pid has to do.
    """
    if born is not None:
        return process_birth(pid) == born
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def process_birth(pid: int) -> str | None:
    """Return when a process began, as the id of the machine's boot and the clock ticks since then.

    None if no process has this pid, if it is a zombie, and where there is no ``/proc``. The fields of ``/proc/PID/stat`` are
    counted from the end of the name, which may have blanks and brackets (man 5 proc_pid_stat).
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        state, ticks = fields[0], fields[19]
    except (OSError, IndexError):
        return None
    return None if state in ("Z", "X") else f"{boot}:{ticks}"


def holder(folder: Path) -> str:
    """Return a description of the lock's holder; its file may be missing for a moment."""
    try:
        note = json.loads(read_small(folder / HOLDER_NAME, _MAX_NOTE_BYTES))
        return f"pid {note['pid']} on {note['host']} since {note['since']}"
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return "pid unknown"
