"""A user that the machine does not know, as `docker run --user` and OpenShift make one: no line in passwd, no HOME."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.test_daemon import live
from tests.program import answering, git, write_functions
from tests.served import served
from tests.sources.signing import SshSigner

pytestmark = pytest.mark.e2e
UID = "12345"
NAMESPACE = ["unshare", "--user", f"--map-user={UID}", f"--map-group={UID}"]


def run_as_nobody_known(*arguments: str, environment: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run kapso-sync as such a user, with nothing but these variables; skips where the kernel allows no user namespace."""
    if shutil.which("unshare") is None or subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no user namespace can be made here")
    return subprocess.run(
        [*NAMESPACE, sys.executable, "-m", "kapso_sync", *arguments],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[2]), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("command", ["plan", "sync", "status"])
def test_without_a_home_the_error_names_the_setting(tmp_path: Path, command: str) -> None:
    """No traceback, exit code 78, and nothing is left in the current folder."""
    write_functions(tmp_path / "functions", {"greet": answering("hi")})
    ran = run_as_nobody_known(command, "functions", environment={"KAPSO_API_KEY": "k"}, folder=tmp_path)
    assert ran.returncode == 78, ran.stderr
    assert "Traceback" not in ran.stderr
    assert f"the user {UID} has no home folder" in ran.stderr
    assert "KAPSO_SYNC_STATE_DIR" in ran.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["functions"]


def test_a_user_without_a_name_cannot_verify_ssh_signatures_and_is_told_why(tmp_path: Path) -> None:
    """ssh-keygen ends before it looks at anything; exit code 78, the setting, and what to do."""
    write_functions(tmp_path / "repository" / "functions", {"greet": answering("hi")})
    git(tmp_path / "repository", "init", "--quiet", "--initial-branch=main")
    signer = SshSigner.make(tmp_path / "ssh", "ada")
    (tmp_path / "signers").write_text(signer.line())
    environment = {"KAPSO_SYNC_VERIFY_FILE": str(tmp_path / "signers"), "KAPSO_SYNC_STATE_DIR": str(tmp_path / "state")}
    source = (tmp_path / "repository").as_uri()
    ran = run_as_nobody_known("validate", source, environment=environment, folder=tmp_path)
    assert ran.returncode == 78, ran.stderr
    assert f"KAPSO_SYNC_VERIFY_FILE lists ssh keys, and ssh-keygen wants a name for the user {UID}" in ran.stderr
    assert "/etc/passwd" in ran.stderr


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder to another user")
@pytest.mark.parametrize("command", ["plan", "sync", "status"])
def test_a_state_folder_of_another_user_is_an_error_that_names_both_users(tmp_path: Path, command: str) -> None:
    """As the image's own is for a foreign user: exit code 78, with owner, mode and the setting."""
    write_functions(tmp_path / "functions", {"greet": answering("hi")})
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    os.chown(state, 4321, 4321)
    environment = {"KAPSO_API_KEY": "k", "KAPSO_SYNC_STATE_DIR": str(state)}
    ran = run_as_nobody_known(command, "functions", environment=environment, folder=tmp_path)
    assert ran.returncode == 78, ran.stderr
    assert "Traceback" not in ran.stderr
    assert f"with mode 0700, and this process is uid {UID}" in ran.stderr
    assert "KAPSO_SYNC_STATE_DIR" in ran.stderr


def test_with_a_state_folder_it_needs_no_home(tmp_path: Path) -> None:
    """The setting is enough: the function goes up."""
    write_functions(tmp_path / "functions", {"greet": answering("hi")})
    with served() as kapso:
        ran = run_as_nobody_known("sync", "functions", environment=kapso.environment(tmp_path / "state"), folder=tmp_path)
        assert ran.returncode == 0, ran.stderr
        assert live(kapso, greet="hi")()


def test_ssh_without_a_name_for_the_user_says_what_to_do(tmp_path: Path) -> None:
    """The real ssh ends before it connects; its words alone help nobody."""
    if shutil.which("ssh") is None:
        pytest.skip("ssh is not installed")
    environment = {"KAPSO_API_KEY": "k", "KAPSO_SYNC_STATE_DIR": str(tmp_path / "state")}
    ran = run_as_nobody_known("plan", "ssh://git@127.0.0.1:9/flows", environment=environment, folder=tmp_path)
    assert ran.returncode == 69, ran.stderr
    assert f"No user exists for uid {UID}" in ran.stderr
    assert "run as a user that /etc/passwd lists" in ran.stderr
