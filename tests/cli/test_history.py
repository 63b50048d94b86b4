"""``history`` and ``restore`` as a user meets them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from inline_snapshot import snapshot

from kapso_sync.store.daemon_files import DaemonFiles
from tests.program import answering, git, kapso_sync, write_functions
from tests.served import Served

Environment = dict[str, str]


@pytest.fixture
def flows(tmp_path: Path) -> Path:
    """A git repository with two functions, committed."""
    flows = tmp_path / "flows"
    write_functions(flows / "functions", {"greet": answering("one"), "part": answering("bye")})
    git(flows, "init", "--quiet", "--initial-branch=main")
    commit(flows, "Two functions to start from")
    return flows


def commit(flows: Path, subject: str) -> None:
    git(flows, "add", "--all")
    git(flows, "commit", "--quiet", "--message", subject)


def blurred(text: str) -> str:
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "TIME", text)
    text = re.sub(r"\b[0-9a-f]{12}\b", "COMMIT", text)
    return re.sub(r"\b[0-9a-f]{16}\b", "BACKUP", re.sub(r"after \d+\.\d s", "after N s", text))


def test_history_lists_commits_writes_deployments_drift_and_backups(
    kapso: Served, environment: Environment, flows: Path
) -> None:
    """In order, with authors and the duration of deployments."""
    kapso_sync("sync", flows.as_uri(), environment=environment)
    write_functions(flows / "functions", {"greet": answering("two"), "part": answering("bye")})
    commit(flows, "Say two")
    kapso_sync("sync", flows.as_uri(), environment=environment)
    kapso.edit("greet", code=answering("by hand"), deploy=True)
    kapso_sync("sync", flows.as_uri(), environment=environment)
    ran = kapso_sync("history", "greet", flows.as_uri(), environment=environment)
    assert ran.code == 0
    assert blurred(ran.out) == snapshot("""\
COMMIT “Two functions to start from” by Ada
  TIME  created
  TIME  live after N s
COMMIT “Say two” by Ada
  TIME  saved to backups/greet/BACKUP.json (changed in git)
  TIME  updated: code (git)
  TIME  live after N s
  TIME  saved to backups/greet/BACKUP.json (drift)
  TIME  updated: code (drift)
  TIME  live after N s
Backups
  TIME  BACKUP  drift
  TIME  BACKUP  changed in git
""")
    document = kapso_sync("history", "greet", flows.as_uri(), "--json", environment=environment).document
    assert [event["event"] for event in document["events"]][:2] == ["function.created", "deploy.succeeded"]
    assert document["events"][0]["revision"] == git(flows, "rev-parse", "HEAD~1").strip()
    assert [backup["reason"] for backup in document["backups"]] == ["drift", "changed in git"]
    assert all(Path(backup["file"]).is_file() for backup in document["backups"])


def test_history_shows_a_failed_deployment_and_its_rollback(kapso: Served, environment: Environment, folder: Path) -> None:
    """A person sees that the former code runs again."""
    kapso_sync("sync", str(folder), environment=environment)
    write_functions(folder, {"greet": answering("bad"), "part": answering("bye")})
    kapso.faults({"what": "deploy_fails", "slug": "greet", "times": 2})
    assert kapso_sync("sync", str(folder), environment=environment).code == 1
    told = [
        line.split("  ", 2)[2]
        for line in kapso_sync("history", "greet", str(folder), environment=environment).out.splitlines()
        if line[:1] == " "
    ]
    assert "rolled back: the previous version runs again" in told
    assert any(line.startswith("deployment failed: the deployment ended in `error`, 2 times") for line in told)


def test_history_of_an_unknown_slug_is_a_usage_error(environment: Environment, folder: Path) -> None:
    """The error names the state folder that was searched."""
    ran = kapso_sync("history", "nobody", str(folder), environment=environment)
    assert ran.code == 64
    assert "nothing is known of `nobody`" in ran.err


def test_restore_writes_an_overwritten_version_into_the_folder(kapso: Served, environment: Environment, folder: Path) -> None:
    """The backup of an edit on Kapso goes into the folder, not to Kapso, and the difference is shown."""
    (folder / "manifest.yaml").write_text("version: 1\nfunctions:\n  greet:   # first\n    description: Old\n  part:\n")
    kapso_sync("sync", str(folder), environment=environment)
    kapso.edit("greet", code=answering("by hand"), runtime_config={"timeout": 5}, name="Unmanaged")
    kapso_sync("sync", str(folder), environment=environment)
    kapso.forget_requests()
    shown = kapso_sync("restore", "greet", str(folder), "--diff", environment=environment)
    assert (folder / "greet.js").read_text() == answering("hello")
    ran = kapso_sync("restore", "greet", str(folder), environment=environment)
    assert (shown.code, ran.code) == (0, 0), ran.out + ran.err
    assert ran.out == snapshot("""\
~ greet  greet.js
    --- a/greet.js
    +++ b/greet.js
    @@ -1,3 +1,3 @@
     async function handler(request, env) {
    -  return new Response('hello');
    +  return new Response('by hand');
     }
1 changed. 1 file written.
""")
    assert (folder / "greet.js").read_text() == answering("by hand")
    assert "# first" in (folder / "manifest.yaml").read_text()
    assert kapso.calls() == []


def test_restore_brings_back_a_deleted_function(kapso: Served, environment: Environment, folder: Path) -> None:
    """Code, fields and entry come back into the folder, and the next sync creates the function again."""
    environment = {**environment, "KAPSO_SYNC_OWNER": "acme/flows", "KAPSO_SYNC_PRUNE": "true"}
    manifest = "version: 1\nfunctions:\n  greet:\n    file: greet.js\n"
    part = "  part:\n    file: part.js\n    description: Says bye.\n    public_endpoint: true\n"
    (folder / "manifest.yaml").write_text(manifest + part)
    kapso_sync("sync", str(folder), environment=environment)
    (folder / "manifest.yaml").write_text(manifest)
    (folder / "part.js").unlink()
    assert kapso_sync("sync", str(folder), environment=environment).code == 0
    assert list(kapso.world.live_code()) == ["greet"]
    ran = kapso_sync("restore", "part", str(folder), environment=environment)
    assert ran.code == 0, ran.out + ran.err
    assert (folder / "manifest.yaml").read_text() == manifest + part
    assert (folder / "part.js").read_text() == answering("bye")
    assert kapso_sync("sync", str(folder), environment=environment).code == 0
    assert kapso.world.live_code()["part"] == answering("bye")


def test_restore_of_a_deleted_draft_keeps_it_a_draft(kapso: Served, environment: Environment, folder: Path) -> None:
    """Its entry comes back with `deploy: false`, so the next sync does not deploy it."""
    environment = {**environment, "KAPSO_SYNC_OWNER": "acme/flows", "KAPSO_SYNC_PRUNE": "true"}
    manifest = "version: 1\nfunctions:\n  greet:\n    file: greet.js\n"
    part = "  part:\n    file: part.js\n    deploy: false\n"
    (folder / "manifest.yaml").write_text(manifest + part)
    kapso_sync("sync", str(folder), environment=environment)
    (folder / "manifest.yaml").write_text(manifest)
    assert kapso_sync("sync", str(folder), environment=environment).code == 0
    (folder / "part.js").unlink()
    assert kapso_sync("restore", "part", str(folder), environment=environment).code == 0
    assert (folder / "manifest.yaml").read_text() == manifest + part
    assert kapso_sync("sync", str(folder), environment=environment).code == 0
    assert kapso.world.live_code() == {"greet": answering("hello"), "part": None}


def test_restore_never_overwrites_a_local_change_without_force(kapso: Served, environment: Environment, folder: Path) -> None:
    """A file that was edited since the last sync is kept, with exit code 1; --force overwrites it."""
    kapso_sync("sync", str(folder), environment=environment)
    kapso.edit("greet", code=answering("by hand"))
    kapso_sync("sync", str(folder), environment=environment)
    (folder / "greet.js").write_text(answering("mine"))
    ran = kapso_sync("restore", "greet", str(folder), environment=environment)
    assert (ran.code, (folder / "greet.js").read_text()) == (1, answering("mine"))
    assert kapso_sync("restore", "greet", str(folder), "--force", environment=environment).code == 0
    assert (folder / "greet.js").read_text() == answering("by hand")


def test_restore_takes_a_backup_id_or_a_file(kapso: Served, environment: Environment, flows: Path, tmp_path: Path) -> None:
    """From the daemon's repository into a clone of it; for an unknown id the error lists the known ones."""
    kapso_sync("sync", flows.as_uri(), environment=environment)
    for text in ("first", "second"):
        kapso.edit("greet", code=answering(text))
        kapso_sync("sync", flows.as_uri(), environment=environment)
    backups = kapso_sync("history", "greet", flows.as_uri(), "--json", environment=environment).document["backups"]
    ran = kapso_sync("restore", "greet", str(flows), "--from", backups[1]["file"], "--force", environment=environment)
    assert ran.code == 0, ran.err
    assert (flows / "functions" / "greet.js").read_text() == answering("first")
    unknown = kapso_sync("restore", "greet", str(flows), "--from", "ffff", environment=environment)
    assert (unknown.code, "there is no backup ffff" in unknown.err) == (64, True)
    assert f"{backups[0]['id']} of {flows.as_uri()}" in unknown.err
    ran = kapso_sync("restore", "greet", str(flows), "--from", backups[0]["id"], "--force", environment=environment)
    assert (ran.code, (flows / "functions" / "greet.js").read_text()) == (0, answering("second"))


def test_restore_in_a_work_tree_finds_the_backups_of_the_daemons_repository(
    kapso: Served, environment: Environment, flows: Path, tmp_path: Path
) -> None:
    """The newest one; two sources with the same slug are a question that --from answers."""
    kapso_sync("sync", flows.as_uri(), environment=environment)
    kapso.edit("greet", code=answering("by hand"))
    kapso_sync("sync", flows.as_uri(), environment=environment)
    ran = kapso_sync("restore", "greet", str(flows), "--force", environment=environment)
    assert ran.code == 0, ran.err
    assert (flows / "functions" / "greet.js").read_text() == answering("by hand")
    other = tmp_path / "other"
    write_functions(other, {"greet": answering("one")})
    elsewhere = {**environment, "KAPSO_SYNC_OWNER": "acme/other", "KAPSO_SYNC_ADOPT": "always"}
    kapso.control("POST", "/reset")
    kapso.control("POST", "/functions", {"function": {"name": "greet", "slug": "greet", "code": answering("unowned")}})
    assert kapso_sync("sync", str(other), environment=elsewhere).code == 0
    several = kapso_sync("restore", "greet", str(flows), environment=environment)
    assert (several.code, "several sources have backups of `greet`" in several.err) == (64, True)
    chosen = re.search(rf"([0-9a-f]{{16}}) of {re.escape(str(other))}", several.err)
    assert chosen is not None, several.err
    assert kapso_sync("restore", "greet", str(flows), "--force", "--from", chosen[1], environment=environment).code == 0
    assert (flows / "functions" / "greet.js").read_text() == answering("unowned")


def test_without_a_source_history_and_status_mean_the_only_one_that_was_synced(
    kapso: Served, environment: Environment, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From any folder; of several, the error names them, and a slug that only one of them knows is no question."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    kapso_sync("sync", str(folder), environment=environment)
    assert kapso_sync("status", environment=environment).out.startswith(f"Source        {folder}\n")
    assert "created" in kapso_sync("history", "greet", environment=environment).out
    other = tmp_path / "other"
    write_functions(other, {"other": answering("one")})
    kapso_sync("sync", str(other), environment=environment)
    several = kapso_sync("status", environment=environment)
    assert several.code == 64
    assert f"several sources were synced: {folder} as folder/functions-" in several.err
    assert f"; {other} as folder/other-" in several.err
    assert "created" in kapso_sync("history", "greet", environment=environment).out
    for each in filter(Path.is_dir, Path(environment["KAPSO_SYNC_STATE_DIR"]).iterdir()):
        DaemonFiles(each).remember_address(None, each.name, None, None)
    assert "several daemons run" in kapso_sync("status", environment=environment).err
    assert "created" in kapso_sync("history", "greet", environment=environment).out
    wrong = kapso_sync("history", "greet", str(other), environment=environment)
    named = f"name the SOURCE that was synced, with its --path, --env and --env-file: {folder} as folder/functions-"
    assert (wrong.code, named in wrong.err) == (64, True)
