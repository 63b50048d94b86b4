"""A state folder that others may have written is not used by any command, and one that is damaged is never so in silence."""

from __future__ import annotations

import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest

from tests.program import GIT_ENVIRONMENT, answering, git, kapso_sync, write_functions
from tests.served import Served


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_functions(tmp_path / "functions", {"greet": answering("hello")})
    return tmp_path / "functions"


def state_of(environment: dict[str, str]) -> Path:
    (found,) = [path for path in Path(environment["KAPSO_SYNC_STATE_DIR"]).iterdir() if path.is_dir()]
    return found


COMMANDS = [
    ("sync", "FOLDER"),
    ("run", "FOLDER"),
    ("plan", "FOLDER"),
    ("validate", "FOLDER"),
    ("status", "FOLDER"),
    ("pull", "FOLDER"),
    ("disown", "FOLDER"),
    ("reconcile", "FOLDER"),
    ("suspend", "FOLDER", "--reason", "x"),
    ("history", "greet", "FOLDER"),
    ("restore", "greet", "FOLDER"),
]


def test_every_command_refuses_a_state_folder_that_others_may_write(
    kapso: Served, environment: dict[str, str], folder: Path
) -> None:
    """What lies there may be an attacker's: address and token of a daemon, builds, what was last applied."""
    assert kapso_sync("sync", str(folder), environment=environment).code == 0
    state = state_of(environment)
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    state.chmod(0o777)
    kapso.forget_requests()
    for command in COMMANDS:
        ran = kapso_sync(*(str(folder) if word == "FOLDER" else word for word in command), environment=environment)
        assert (ran.code, ran.out) == (78, ""), command
        assert f"the state folder {state} is not used, as others may have written it: its mode is 0777" in ran.err, command
        assert "KAPSO_SYNC_STATE_DIR" in ran.err, command
    assert kapso.requests() == []
    assert str(folder) not in kapso_sync("status", environment=environment).out, "it is not found without its source either"
    state.chmod(0o700)
    assert str(folder) in kapso_sync("status", environment=environment).out
    assert kapso_sync("plan", str(folder), environment=environment).code == 0


def test_a_state_folder_of_an_earlier_version_is_closed(kapso: Served, environment: dict[str, str], folder: Path) -> None:
    """Those of git sources could be read by others."""
    repository = folder.parent
    git(repository, "init", "--quiet", "--initial-branch=main")
    git(repository, "add", "functions")
    git(repository, "commit", "--quiet", "--message", "Begin")
    environment |= GIT_ENVIRONMENT
    assert kapso_sync("sync", repository.as_uri(), environment=environment).code == 0
    state = state_of(environment)
    assert [stat.S_IMODE(path.stat().st_mode) for path in (state, state / "git", state.parent)] == [0o700] * 3
    state.chmod(0o755)
    assert kapso_sync("plan", repository.as_uri(), environment=environment).code == 0
    assert kapso_sync("sync", repository.as_uri(), environment=environment).code == 0
    assert stat.S_IMODE(state.stat().st_mode) == 0o700


def test_a_root_that_others_may_write_is_a_warning(kapso: Served, environment: dict[str, str], folder: Path) -> None:
    """Of plan and sync; they do their work. A control: there is none for a root of our own."""
    root = Path(environment["KAPSO_SYNC_STATE_DIR"])
    assert "not this user's alone" not in kapso_sync("sync", str(folder), environment=environment).out
    root.chmod(0o777)
    for command in ("plan", "sync"):
        ran = kapso_sync(command, str(folder), "--json", environment=environment)
        assert ran.code == 0
        (warning,) = [item for item in ran.document["warnings"] if item["code"] == "state-root-writable"]
        assert f"{root} is not this user's alone: others may write it (mode 0777)" in warning["message"]
    root.chmod(0o700)


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE functions SET record = '{'", "is damaged"),
        ("PRAGMA user_version = 99", "was written by another version of kapso-sync"),
    ],
    ids=["damaged", "newer"],
)
def test_a_database_that_cannot_be_read_is_a_warning(
    kapso: Served, environment: dict[str, str], folder: Path, statement: str, said: str
) -> None:
    """What is lost with it is named before a sync, and by the one that sets it aside; the next one has nothing to say."""
    assert kapso_sync("sync", str(folder), environment=environment).code == 0
    assert "warning" not in kapso_sync("plan", str(folder), environment=environment).out
    database = state_of(environment) / "state.db"
    with closing(sqlite3.connect(database)) as db, db:
        db.execute(statement)
        db.execute("DELETE FROM meta WHERE key = 'settled_pass'")
    plan = kapso_sync("plan", str(folder), environment=environment)
    assert (
        f"warning: the database of the state folder {database.parent} {said}: `kapso-sync sync {folder}` renames it" in plan.out
    ), plan.out
    status = kapso_sync("status", str(folder), environment=environment)
    assert (said in status.out) is (said != "is damaged"), "of a damaged one, the last pass can still be read"
    sync = kapso_sync("sync", str(folder), environment=environment)
    (kept,) = database.parent.glob("state.db.set-aside-*")
    assert (sync.code, f"and is kept as {kept}: what Kapso does not show is forgotten" in sync.out) == (0, True), sync.out
    again = kapso_sync("sync", str(folder), environment=environment)
    assert (again.code, "warning" in again.out) == (0, False)
