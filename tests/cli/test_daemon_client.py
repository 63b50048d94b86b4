"""Commands for a running daemon find it: by their source, or as the only one of this user."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from kapso_sync.settings import load_settings
from kapso_sync.wiring import find_state_folder
from tests.program import kapso_sync

ENDED_PID = 2**22 + 1


def daemon_in(root: Path, name: str, *, pid: int | None = None) -> None:
    """Write what a daemon leaves in its state folder."""
    (root / name).mkdir(parents=True)
    document = {"url": "http://127.0.0.1:9", "pid": os.getpid() if pid is None else pid}
    (root / name / "daemon.json").write_text(json.dumps(document), encoding="utf-8")
    (root / name / "admin-token").write_text("token", encoding="utf-8")


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return {"KAPSO_SYNC_STATE_DIR": str(tmp_path / "state")}


@pytest.mark.parametrize("command", [["reconcile"], ["suspend", "--reason", "x"], ["resume"]])
def test_without_a_source_the_only_running_daemon_is_meant(
    command: list[str], environment: dict[str, str], tmp_path: Path
) -> None:
    """It is asked although the command runs in another folder; one that was killed does not count."""
    daemon_in(tmp_path / "state", "flows-1234")
    daemon_in(tmp_path / "state", "killed-1234", pid=ENDED_PID)
    ran = kapso_sync(*command, environment=environment)
    assert (ran.code, "the daemon at http://127.0.0.1:9 does not answer" in ran.err) == (78, True)


def test_several_running_daemons_are_listed(environment: dict[str, str], tmp_path: Path) -> None:
    """A usage error names them; with a source there is no question."""
    for name in ("flows-1234", "other-1234"):
        daemon_in(tmp_path / "state", name)
    ran = kapso_sync("reconcile", environment=environment)
    assert ran.code == 64
    assert "flows-1234 at http://127.0.0.1:9; other-1234 at http://127.0.0.1:9" in ran.err
    named = kapso_sync("reconcile", str(tmp_path), environment=environment)
    assert (named.code, "no daemon runs on the state folder" in named.err) == (78, True)


def test_without_any_daemon_the_current_folder_is_meant(environment: dict[str, str]) -> None:
    """Status works everywhere; a command for a daemon says that none runs."""
    assert kapso_sync("status", environment=environment).code == 0
    assert "no daemon runs on the state folder" in kapso_sync("resume", environment=environment).err


def test_the_only_running_daemon_is_meant_in_a_folder_that_was_synced_before(
    environment: dict[str, str], tmp_path: Path
) -> None:
    """In a checkout of the repository that the daemon follows; a folder whose own daemon runs means that one."""
    here = Path.cwd()
    own = find_state_folder(load_settings({"source": str(here)}, environment=environment))
    daemon_in(tmp_path / "state", "flows-1234")
    own.mkdir(parents=True)
    asked = kapso_sync("resume", environment=environment)
    assert "the daemon at http://127.0.0.1:9 does not answer" in asked.err
    own.rmdir()
    daemon_in(own.parent, own.name)
    (own / "daemon.json").write_text((own / "daemon.json").read_text().replace(":9", ":10"), encoding="utf-8")
    assert "the daemon at http://127.0.0.1:10 does not answer" in kapso_sync("resume", environment=environment).err
