"""``--remote-map``: after a pull or a sync of ours, Kapso's own CLI finds its map as it would have left it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from tests.program import answering, git, kapso_sync
from tests.served import Served

Environment = dict[str, str]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project of the Kapso CLI with one function, and a map that has somebody's entry."""
    project = tmp_path / "project"
    write(project / "functions/greet/function.yaml", "name: greet\nentrypoint: index.js\n")
    write(project / "functions/greet/index.js", answering("one"))
    write(project / ".kapso/remote-map.json", json.dumps({"functions": {"theirs": {"id": "id-9"}}}, indent=2))
    git(project, "init", "--quiet")
    return project


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def entries(project: Path) -> Any:
    return json.loads((project / ".kapso/remote-map.json").read_text(encoding="utf-8"))["functions"]


def test_a_sync_brings_the_map_up_to_date(kapso: Served, environment: Environment, project: Path) -> None:
    """For functions that are as git says: created, renamed, deleted; a function that failed keeps its entry."""
    environment |= {"KAPSO_SYNC_OWNER": "acme/flows"}
    ran = kapso_sync("sync", str(project), "--remote-map", environment=environment)
    assert (ran.code, f"Written: {project}/.kapso/remote-map.json" in ran.out) == (0, True), ran.out + ran.err
    (record,) = kapso.control("GET", "/state")["functions"]
    greet = entries(project)["greet"]
    assert (greet["id"], greet["status"], greet["lockVersion"]) == (record["id"], "deployed", record["lock_version"])
    paths = ("functions/greet/index.js", "functions/greet/function.yaml")
    assert greet["files"] == {path: hashlib.sha256((project / path).read_bytes()).hexdigest() for path in paths}
    assert entries(project)["theirs"] == {"id": "id-9"}
    kapso.forget_requests()
    again = kapso_sync("sync", str(project), "--remote-map", environment=environment)
    assert (again.code, "Written" in again.out) == (0, False)
    assert f"{len(kapso.calls())} API calls" in again.out
    write(project / "functions/greet/index.js", answering("two"))
    kapso.faults({"what": "status", "method": "PATCH", "route": "/functions/{id}", "status": 422, "times": 1})
    assert kapso_sync("sync", str(project), "--remote-map", environment=environment).code == 1
    assert entries(project)["greet"] == greet
    (project / "functions/greet").rename(project / "functions/hello")
    write(project / "functions/manifest.yaml", "version: 1\nfunctions:\n  hello:\n    moved_from: greet\n")
    assert kapso_sync("sync", str(project), "--remote-map", environment=environment).code == 0
    assert entries(project).keys() == {"theirs", "hello"}
    write(project / "functions/manifest.yaml", "version: 1\nfunctions: {other: {file: other.js}}\n")
    write(project / "functions/other.js", answering("other"))
    (project / "functions/hello/function.yaml").unlink()
    ran = kapso_sync("sync", str(project), "--remote-map", "--delete", "hello", environment=environment)
    assert (ran.code, entries(project).keys()) == (0, {"theirs", "other"}), ran.out + ran.err


def test_a_pull_writes_a_map_that_a_plan_agrees_with(
    kapso: Served, environment: Environment, project: Path, tmp_path: Path
) -> None:
    """A new one lies at the root of the repository; without the flag, and with --diff, there is none."""
    kapso.control(
        "POST", "/functions", {"function": {"slug": "greet", "name": "greet", "code": answering("one")}, "deployed": True}
    )
    fresh = tmp_path / "fresh"
    (fresh / "functions").mkdir(parents=True)
    git(fresh, "init", "--quiet")
    pull = ("pull", str(fresh / "functions"), "--layout", "kapso")
    assert kapso_sync(*pull, "--diff", "--remote-map", environment=environment).code == 0
    assert not (fresh / ".kapso").exists()
    ran = kapso_sync(*pull, "--remote-map", environment=environment)
    assert (ran.code, f"Written: {fresh}/.kapso/remote-map.json" in ran.out) == (0, True), ran.out + ran.err
    assert entries(fresh)["greet"]["files"].keys() == {"functions/greet/index.js", "functions/greet/function.yaml"}
    before = (fresh / ".kapso/remote-map.json").read_bytes()
    assert kapso_sync("sync", str(fresh), environment=environment).code == 0
    assert (fresh / ".kapso/remote-map.json").read_bytes() == before


def test_a_map_that_leads_elsewhere_is_never_written(
    kapso: Served, environment: Environment, project: Path, tmp_path: Path
) -> None:
    """A link, or one of its folder, is an error after the pass has done its work; a repository is refused before."""
    (tmp_path / "elsewhere").mkdir()
    (project / ".kapso/remote-map.json").unlink()
    (project / ".kapso").rmdir()
    (project / ".kapso").symlink_to(tmp_path / "elsewhere")
    ran = kapso_sync("sync", str(project), "--remote-map", environment=environment)
    assert (ran.code, "is, or lies behind, a link" in ran.err) == (1, True)
    assert set(kapso.world.live_code()) == {"greet"}
    assert not list((tmp_path / "elsewhere").iterdir())
    git(project, "add", "--all")
    git(project, "commit", "--quiet", "--message", "Begin")
    calls = len(kapso.calls())
    ran = kapso_sync("sync", project.as_uri(), "--remote-map", environment=environment)
    assert (ran.code, "is only read" in ran.err, len(kapso.calls())) == (64, True, calls)
