"""Commands for a running daemon find it: by their source, or as the only one of this user."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from kapso_sync.model.json_values import Json
from kapso_sync.settings import load_settings
from kapso_sync.store.lock import process_birth
from kapso_sync.wiring.folder import find_state_folder
from tests.program import kapso_sync

ENDED_PID = 2**22 + 1


def daemon_in(root: Path, name: str, *, url: str | None = "http://127.0.0.1:9", **other: Json) -> Path:
    """Write what a daemon leaves in its state folder; unless said otherwise, this process is the daemon."""
    (root / name).mkdir(parents=True, mode=0o700)
    document = {"url": url, "pid": os.getpid(), "born": process_birth(os.getpid()), "source": f"/srv/{name}", **other}
    (root / name / "daemon.json").write_text(json.dumps(document), encoding="utf-8")
    (root / name / "admin-token").write_text("token", encoding="utf-8")
    return root / name


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return {"KAPSO_SYNC_STATE_DIR": str(tmp_path / "state")}


@pytest.mark.parametrize("command", [["reconcile"], ["suspend", "--reason", "x"], ["resume"]])
def test_without_a_source_the_only_running_daemon_is_meant(
    command: list[str], environment: dict[str, str], tmp_path: Path
) -> None:
    """It is asked although the command runs in another folder; one that cannot be asked does not count."""
    daemon_in(tmp_path / "state", "flows-1234")
    daemon_in(tmp_path / "state", "silent-1234", url=None)
    ran = kapso_sync(*command, environment=environment)
    assert (ran.code, "the daemon at http://127.0.0.1:9 does not answer" in ran.err) == (78, True)


def test_a_dead_daemon_does_not_count_and_gets_no_token(environment: dict[str, str], tmp_path: Path) -> None:
    """Not one whose pid was given to another process, as in a restarted container, nor one whose folder others may write."""
    state = tmp_path / "state"
    dead = [
        daemon_in(state, "killed-1234", pid=ENDED_PID),
        daemon_in(state, "reused-1234", born="another boot:17"),
        daemon_in(state, "foreign-1234"),
    ]
    dead[-1].chmod(0o777)
    none = kapso_sync("resume", environment=environment)
    assert none.code == 78
    assert (
        none.err
        == f"""\
error: no running daemon of this user takes orders: there is none in {state}
hint: `kapso-sync run` starts one; one that runs without KAPSO_SYNC_LISTEN takes no orders
"""
    )
    own = find_state_folder(load_settings({"source": str(tmp_path)}, environment=environment))
    daemon_in(state, own.name, born="another boot:17")
    assert "no daemon runs on the state folder" in kapso_sync("resume", str(tmp_path), environment=environment).err
    daemon_in(state, "flows-1234")
    assert "the daemon at http://127.0.0.1:9 does not" in kapso_sync("resume", environment=environment).err


def test_a_damaged_address_of_a_daemon_is_that_of_none(environment: dict[str, str], tmp_path: Path) -> None:
    """No traceback, and no daemon that could be asked; with its own address it is."""
    own = find_state_folder(load_settings({"source": str(tmp_path)}, environment=environment))
    folder = daemon_in(tmp_path / "state", own.name)
    assert "does not answer" in kapso_sync("reconcile", str(tmp_path), environment=environment).err
    kept = (folder / "daemon.json").read_text()
    (folder / "daemon.json").write_text(kept.replace("http://127.0.0.1:9", "http://[::1"))
    ran = kapso_sync("reconcile", str(tmp_path), environment=environment)
    assert (ran.code, "no daemon runs on the state folder" in ran.err) == (78, True)
    assert kapso_sync("status", str(tmp_path), environment=environment).code == 0


def test_the_hint_about_a_token_that_is_not_in_the_state_folder_names_the_settings(
    environment: dict[str, str], tmp_path: Path
) -> None:
    """The daemon has it from its own environment."""
    (daemon_in(tmp_path / "state", "flows-1234") / "admin-token").unlink()
    ran = kapso_sync("reconcile", environment=environment)
    assert ran.code == 78
    assert "set KAPSO_SYNC_ADMIN_TOKEN or KAPSO_SYNC_ADMIN_TOKEN_FILE" in " ".join(ran.err.split())


def test_several_running_daemons_are_listed(environment: dict[str, str], tmp_path: Path) -> None:
    """A usage error names source, state folder and address of each; with a source or an environment there is no question."""
    state = tmp_path / "state"
    for name, env in (("flows-1234", "staging"), ("other-1234", None)):
        daemon_in(state, name, env=env, path="functions")
    for command in ("reconcile", "status"):
        ran = kapso_sync(command, environment=environment)
        assert ran.code == 64
        assert (
            ran.err
            == f"""\
error: several daemons run: \
/srv/flows-1234 --path functions --env staging (state folder {state}/flows-1234, http://127.0.0.1:9); \
/srv/other-1234 --path functions (state folder {state}/other-1234, http://127.0.0.1:9)
hint: name the SOURCE of one, with its --path and --env, or set KAPSO_SYNC_SOURCE
"""
        )
    named = kapso_sync("reconcile", str(tmp_path), environment=environment)
    assert (named.code, "no daemon runs on the state folder" in named.err) == (78, True)
    staging = kapso_sync("reconcile", "--env", "staging", environment=environment)
    assert "the daemon at http://127.0.0.1:9 does not answer" in staging.err
    production = kapso_sync("reconcile", "--env", "production", environment=environment)
    assert (production.code, "no running daemon of this user" in production.err) == (78, True)


def test_status_without_a_daemon_or_a_state_says_so(environment: dict[str, str], tmp_path: Path) -> None:
    """There is nothing to show; a source that is named may have no state yet."""
    ran = kapso_sync("status", environment=environment)
    assert (ran.code, ran.out) == (78, "")
    assert f"nothing was synced: there is no state in {tmp_path / 'state'}\nhint: `kapso-sync sync` makes" in ran.err
    assert kapso_sync("status", str(tmp_path), environment=environment).code == 0


def test_status_finds_a_daemon_that_has_no_server(environment: dict[str, str], tmp_path: Path) -> None:
    """Its state folder knows what it did."""
    folder = daemon_in(tmp_path / "state", "silent-1234", url=None)
    assert f"State folder  {folder}\n" in kapso_sync("status", environment=environment).out


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
    daemon_in(own.parent, own.name, url="http://127.0.0.1:10")
    assert "the daemon at http://127.0.0.1:10 does not answer" in kapso_sync("resume", environment=environment).err
