"""The lock: one process per state folder; the kernel releases it however that process ends."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from kapso_sync.errors import ExitCode, StateLocked, StateUnusable
from kapso_sync.store.lock import HOLDER_NAME, LOCK_NAME, held, holder, is_alive, is_held, process_birth
from tests.builders import DAWN

HOLD = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from kapso_sync.store.lock import held
with held(Path(sys.argv[1]), datetime(2026, 1, 1, tzinfo=UTC)):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other(tmp_path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def finish(process: subprocess.Popen[str]) -> None:
    process.communicate(timeout=10)


def test_a_second_process_on_a_locked_state_folder_gets_the_holders_pid(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    """The error names pid and start, and exits with 75."""
    with pytest.raises(StateLocked) as raised, held(tmp_path, DAWN):
        pass
    finish(other)
    assert f"pid {other.pid} on " in raised.value.message
    assert "since 2026-01-01T00:00:00+00:00" in raised.value.message
    assert raised.value.exit_code is ExitCode.LOCKED
    with held(tmp_path, DAWN):
        pass


def test_a_killed_process_releases_the_lock(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    """After SIGKILL the folder is free at once, whatever the lock file says."""
    other.send_signal(signal.SIGKILL)
    finish(other)
    assert str(other.pid) in holder(tmp_path)
    with held(tmp_path, DAWN):
        assert str(other.pid) not in holder(tmp_path)
    assert not (tmp_path / HOLDER_NAME).exists()


KILLED_AS_IT_STARTS_A_PROGRAM = """
import os, signal, sys, time
from datetime import UTC, datetime
from pathlib import Path
from kapso_sync.store.lock import held
with held(Path(sys.argv[1]), datetime(2026, 1, 1, tzinfo=UTC)):
    if os.fork() == 0:
        time.sleep(0.3)  # the program is loaded
        os._exit(0)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_lock_is_waited_for_if_its_holder_was_killed_as_it_started_a_program(tmp_path: Path) -> None:
    """The new process has the lock for a moment. A control: it is held as long as that lives."""
    subprocess.run([sys.executable, "-c", KILLED_AS_IT_STARTS_A_PROGRAM, str(tmp_path)], check=False)
    descriptor = os.open(tmp_path / LOCK_NAME, os.O_RDWR)
    with contextlib.closing(os.fdopen(descriptor)), pytest.raises(BlockingIOError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with held(tmp_path, DAWN):
        assert is_held(tmp_path)


def test_a_lock_file_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    """Who made the link could choose which file is created, and lock others out."""
    (tmp_path / LOCK_NAME).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StateUnusable, match="cannot be used"), held(tmp_path, DAWN):
        pass
    assert not (tmp_path / "elsewhere").exists()


def test_a_folder_is_held_while_its_holder_lives(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    """Not by a process that was killed, although its note is still there; one on another host is believed."""
    assert is_held(tmp_path)
    other.send_signal(signal.SIGKILL)
    finish(other)
    assert (tmp_path / HOLDER_NAME).exists()
    assert not is_held(tmp_path)
    (tmp_path / HOLDER_NAME).write_text('{"pid": 1, "host": "elsewhere"}')
    assert is_held(tmp_path)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_a_pid_that_was_given_to_another_process_holds_nothing(tmp_path: Path) -> None:
    """As in a container, where the same pids come again after each restart. A zombie holds nothing either."""
    with held(tmp_path, DAWN):
        note = json.loads((tmp_path / HOLDER_NAME).read_text())
        assert is_held(tmp_path)
        (tmp_path / HOLDER_NAME).write_text(json.dumps({**note, "born": "another boot:17"}))
        assert not is_held(tmp_path)
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    born = process_birth(child.pid)
    assert is_alive(child.pid, born)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert born is not None
    assert not is_alive(child.pid, born)
    child.communicate()


@pytest.mark.parametrize("note", [None, "[]", '{"pid": "x", "host": 1}', '{"pid": 99999999999999999999, "host": "HERE"}'])
def test_an_odd_note_beside_a_lock_is_no_traceback(tmp_path: Path, other: subprocess.Popen[str], note: str | None) -> None:
    """Nothing is known of the holder then, except that it holds the lock."""
    (tmp_path / HOLDER_NAME).unlink()
    if note is not None:
        (tmp_path / HOLDER_NAME).write_text(note.replace("HERE", socket.gethostname()))
    assert not is_held(tmp_path)
    with pytest.raises(StateLocked), held(tmp_path, DAWN):
        pass
    finish(other)


def test_a_lock_without_a_pid_has_an_unknown_holder(tmp_path: Path) -> None:
    """A process writes its pid a moment after it takes the lock."""
    assert holder(tmp_path) == "pid unknown"
    (tmp_path / HOLDER_NAME).write_text("[]")
    assert holder(tmp_path) == "pid unknown"


def test_a_state_folder_path_that_is_a_file_is_an_error(tmp_path: Path) -> None:
    """And so is a lock file that is a folder: a hint instead of a traceback."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StateUnusable, match="cannot be used"), held(tmp_path / "file" / "state", DAWN):
        pass
    (tmp_path / LOCK_NAME).mkdir()
    with pytest.raises(StateUnusable, match="cannot be used"), held(tmp_path, DAWN):
        pass
