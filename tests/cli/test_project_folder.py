"""A project's root given in place of its functions folder: for a person the two are the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.program import answering, git, kapso_sync, write_functions
from tests.served import Served

Environment = dict[str, str]


@pytest.fixture(params=["manifest", "folders of the CLI"])
def project(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A folder without git, with a package.json and a folder of functions."""
    project = tmp_path / "project"
    if request.param == "manifest":
        write_functions(project / "functions", {"greet": answering("hello")})
    else:
        (project / "functions/greet").mkdir(parents=True)
        (project / "functions/greet/function.yaml").write_text("name: greet\n", encoding="utf-8")
        (project / "functions/greet/index.js").write_text(answering("hello"), encoding="utf-8")
    (project / "package.json").write_text("{}", encoding="utf-8")
    return project


def test_a_project_without_git_is_its_functions_folder(
    project: Path, kapso: Served, environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Said once in each report; owner and state are those of the folder itself, so that both names plan nothing."""
    monkeypatch.chdir(project)
    said = f"{project} declares no function, so its folder functions is the source"
    assert said in kapso_sync("validate", ".", environment=environment).err
    ran = kapso_sync("sync", environment=environment)
    assert ran.code == 0
    assert said in ran.out
    assert kapso.world.live_code() == {"greet": answering("hello")}
    for source in (".", "functions", str(project), f"{project}/functions/"):
        plan = kapso_sync("plan", source, "--json", "--detailed-exitcode", environment=environment)
        assert (plan.code, plan.document["source"]) == (0, str(project / "functions")), source
        named = [warning["code"] for warning in plan.document["warnings"]]
        assert ("functions-folder" in named) == (source in (".", str(project)))
    assert kapso_sync("status", ".", environment=environment).out.startswith(f"Source        {project}/functions")
    assert "created" in kapso_sync("history", "greet", ".", environment=environment).out


def test_a_work_tree_is_its_functions_folder(project: Path, environment: Environment) -> None:
    """By the rule for repositories: the default of --path."""
    git(project, "init", "--quiet")
    plan = kapso_sync("plan", str(project), "--json", environment=environment)
    assert [function["slug"] for function in plan.document["functions"]] == ["greet"]


@pytest.mark.parametrize("name", ["manifest.yaml", "Manifest.yaml"])
def test_a_folder_that_declares_functions_itself_is_read_itself(name: str, project: Path, environment: Environment) -> None:
    """Its functions folder is another source; a misspelt manifest is an error, and no reason to read another one."""
    (project / name).write_text("version: 1\nfunctions:\n  other:\n", encoding="utf-8")
    (project / "other.js").write_text(answering("other"), encoding="utf-8")
    ran = kapso_sync("plan", str(project), "--json", environment=environment)
    if name == "manifest.yaml":
        assert [function["slug"] for function in ran.document["functions"]] == ["other"]
    else:
        assert ran.code == 65
        assert "did you mean manifest.yaml?" in ran.err


def test_a_manifest_that_vanishes_from_a_synced_folder_is_still_an_error(
    project: Path, kapso: Served, environment: Environment
) -> None:
    """Nothing below it takes its place, and nothing is deleted."""
    (project / "manifest.yaml").write_text("version: 1\nfunctions:\n  other:\n", encoding="utf-8")
    (project / "other.js").write_text(answering("other"), encoding="utf-8")
    environment = {**environment, "KAPSO_SYNC_OWNER": "acme/flows", "KAPSO_SYNC_PRUNE": "true"}
    assert kapso_sync("sync", str(project), environment=environment).code == 0
    (project / "manifest.yaml").unlink()
    ran = kapso_sync("sync", str(project), environment=environment)
    assert ran.code == 65
    assert "the manifest of the last revision is gone" in ran.err
    assert list(kapso.world.live_code()) == ["other"]


def test_a_folder_with_neither_says_how_to_begin(tmp_path: Path, environment: Environment) -> None:
    """A functions folder that declares nothing is not taken for one."""
    (tmp_path / "project/functions").mkdir(parents=True)
    (tmp_path / "project/functions/greet.js").write_text(answering("hello"), encoding="utf-8")
    ran = kapso_sync("plan", str(tmp_path / "project"), environment=environment)
    assert ran.code == 65
    assert "is the folder functions meant?" in ran.err
