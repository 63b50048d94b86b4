"""The lock: one process per state folder; the kernel releases it however that process ends."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kapso_sync.errors import ExitCode, StateLocked, StateUnusable
from kapso_sync.store.lock import HOLDER_NAME, LOCK_NAME, held, holder, is_held
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


def test_a_folder_is_held_while_its_holder_lives(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    """Not by a process that was killed, although its note is still there; one on another host is believed."""
    assert is_held(tmp_path)
    other.send_signal(signal.SIGKILL)
    finish(other)
    assert (tmp_path / HOLDER_NAME).exists()
    assert not is_held(tmp_path)
    (tmp_path / HOLDER_NAME).write_text('{"pid": 1, "host": "elsewhere"}')
    assert is_held(tmp_path)


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
