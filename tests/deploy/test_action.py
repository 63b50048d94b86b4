"""The GitHub action: its steps run as scripts, against the emulator and a local API that takes the comment."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.json_server import asked_page, json_server
from tests.program import answering, git, write_functions
from tests.served import Served, served

pytestmark = pytest.mark.e2e
ROOT = Path(__file__).parents[2]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))


@dataclass
class Forge:
    """A pull request's comments, as GitHub's API has them."""

    url: str = ""
    comments: list[dict[str, Any]] = field(default_factory=list)
    writes: list[str] = field(default_factory=list)
    refuses: int = 0

    def add(self, body: str, kind: str = "Bot") -> None:
        number = len(self.comments) + 1
        urls = {"url": f"{self.url}/repos/acme/flows/issues/comments/{number}", "html_url": f"https://forge.example/c{number}"}
        self.comments.append({"body": body, "user": {"type": kind}, **urls})


@pytest.fixture
def forge() -> Iterator[Forge]:
    known = Forge()

    def answer(method: str, path: str, headers: Message, body: Any) -> tuple[int, object]:
        assert headers["Authorization"] == "Bearer the-runner-s-token"
        if known.refuses:
            return known.refuses, {"message": "Resource not accessible by integration"}
        if method == "GET":
            return 200, asked_page(path, known.comments)
        known.writes.append(f"{method} {path}")
        if method == "POST":
            known.add(body["body"])
            return 201, known.comments[-1]
        comment = known.comments[int(path.rpartition("/")[2]) - 1]
        comment["body"] = body["body"]
        return 200, comment

    with json_server(answer) as known.url:
        yield known


@pytest.fixture
def kapso() -> Iterator[Served]:
    with served() as running:
        yield running


@dataclass
class Runner:
    """A runner: it gives each step its variables, and reads what a step leaves for those behind it."""

    checkout: Path
    temporary: Path
    forge: Forge
    kapso: Served
    key: bool = True
    inputs: dict[str, str] = field(default_factory=dict)
    printed: str = ""

    def run(self) -> tuple[int, dict[str, str]]:
        """Run the steps that are scripts, but for the installation; return the first code that is not 0, and the outputs."""
        given = {name: str(known.get("default", "")) for name, known in ACTION["inputs"].items()} | self.inputs
        given |= {"token": "the-runner-s-token", "api-key": self.kapso.emulator.key if self.key else ""}
        outputs: dict[str, str] = {}
        worst = 0
        for step in ACTION["runs"]["steps"]:
            if "run" not in step or "install.sh" in step["run"] or (step["name"] == "Test" and given["test"] != "true"):
                continue
            if worst and "always()" not in step.get("if", ""):
                continue
            if step["name"] == "Comment" and not outputs.get("folder"):
                continue
            ran = self._step(step, given, outputs)
            self.printed += ran.stdout + ran.stderr
            worst = worst or ran.returncode
            pairs = (line.partition("=") for line in (self.temporary / "output").read_text().splitlines())
            outputs.update({name: value for name, _, value in pairs})
        return worst, outputs

    def _step(self, step: dict[str, Any], given: dict[str, str], outputs: dict[str, str]) -> subprocess.CompletedProcess[str]:
        (self.temporary / "output").touch()

        def filled(text: str) -> str:
            text = re.sub(r"\$\{\{ inputs\.([\w-]+) \}\}", lambda found: given[found[1]], text)
            text = re.sub(r"\$\{\{ steps\.run\.outputs\.([\w-]+) \}\}", lambda found: outputs.get(found[1], ""), text)
            return text.replace("${{ github.event.number }}", "7")

        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("KAPSO_")},
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "GITHUB_ACTION_PATH": str(ROOT),
            "GITHUB_OUTPUT": str(self.temporary / "output"),
            "GITHUB_STEP_SUMMARY": str(self.temporary / "summary.md"),
            "GITHUB_API_URL": self.forge.url,
            "GITHUB_REPOSITORY": "acme/flows",
            "RUNNER_TEMP": str(self.temporary),
            "KAPSO_API_BASE_URL": self.kapso.emulator.base("/platform/v1"),
            "KAPSO_SYNC_STATE_DIR": str(self.temporary / "state"),
            "KAPSO_SYNC_DEPLOY_POLL": "20ms",
            **{name: filled(str(value)) for name, value in step.get("env", {}).items()},
        }
        assert "${{" not in step["run"], "a value of somebody else's would become a part of the script"
        return subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
            cwd=self.checkout,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )


@pytest.fixture
def runner(tmp_path: Path, forge: Forge, kapso: Served) -> Runner:
    checkout = tmp_path / "flows"
    write_functions(checkout / "functions", {"greet": answering("hello")})
    git(checkout, "init", "--quiet", "--initial-branch=main")
    git(checkout, "remote", "add", "origin", "https://github.com/acme/flows.git")
    git(checkout, "add", "--all")
    git(checkout, "commit", "--quiet", "--message", "Begin")
    (tmp_path / "runner").mkdir()
    return Runner(checkout, tmp_path / "runner", forge, kapso, inputs={"test": "false"})


def test_the_action_comments_the_plan_once_and_then_updates_it(runner: Runner) -> None:
    """A second push updates the same comment, even with a hundred others before it; a person's copy is left alone."""
    code, outputs = runner.run()
    assert (code, outputs["in-sync"], outputs["changes"]) == (0, "false", "1"), runner.printed
    assert outputs["digest"].startswith("sha256:")
    assert "1 to create" in runner.forge.comments[0]["body"]
    assert not runner.kapso.world.functions
    copied = runner.forge.comments.pop()["body"]
    runner.forge.add(copied, kind="User")
    for number in range(120):
        runner.forge.add(f"comment {number}")
    runner.run()
    assert len(runner.forge.comments) == 122
    runner.run()
    assert [write.partition(" ")[0] for write in runner.forge.writes] == ["POST", "POST", "PATCH"]
    assert runner.forge.comments[0]["body"] == copied


@pytest.mark.thorough
def test_the_action_syncs_the_plan_that_was_reviewed_and_no_other(runner: Runner) -> None:
    """The digest of the plan is the gate; after the sync the plan is in sync."""
    _, planned = runner.run()
    runner.inputs |= {"command": "sync", "expect": "sha256:" + "0" * 64}
    code, _ = runner.run()
    assert code == 1, runner.printed
    assert not runner.kapso.world.functions
    runner.inputs["expect"] = planned["digest"]
    code, _ = runner.run()
    assert code == 0, runner.printed
    assert set(runner.kapso.world.live_code()) == {"greet"}
    runner.inputs = {"test": "false"}
    assert runner.run()[1]["in-sync"] == "true"


def test_the_action_without_a_key_validates_and_leaves_the_plan_out(runner: Runner) -> None:
    """A pull request from a fork gets no key: its mistakes are annotations all the same."""
    runner.key = False
    assert runner.run()[0] == 0
    assert "::notice::no api-key" in runner.printed
    (runner.checkout / "functions" / "greet.js").write_text("async function handler(request, env) {\n")
    assert runner.run()[0] == 65
    assert re.search(r"::error file=functions/greet\.js,line=\d", runner.printed)
    assert not runner.forge.writes


@pytest.mark.thorough
def test_a_plan_that_does_not_fit_is_cut_and_kept_whole_as_an_artifact(runner: Runner) -> None:
    """GitHub takes 65,536 characters."""
    many = {f"greet-{number}": answering("x" * 900 + str(number)) for number in range(110)}
    write_functions(runner.checkout / "functions", many)
    runner.inputs["command"] = "sync"
    assert runner.run()[0] == 0
    write_functions(runner.checkout / "functions", {slug: code.replace("x" * 900, "y" * 900) for slug, code in many.items()})
    runner.inputs["command"] = "plan"
    code, outputs = runner.run()
    assert (code, outputs["cut"], outputs["changes"]) == (0, "true", "110"), runner.printed
    assert 50_000 < len(runner.forge.comments[0]["body"]) < 65_536
    assert len(json.loads(Path(outputs["folder"], "plan.json").read_text())["functions"]) == 110


def test_a_comment_that_github_refuses_names_the_permission(runner: Runner) -> None:
    runner.forge.refuses = 403
    code, _ = runner.run()
    assert code == 1
    assert "::error::GitHub refused the comment with 403; the job needs `permissions: pull-requests: write`" in runner.printed


def test_actions_that_the_action_uses_are_pinned_to_commits() -> None:
    used = [step["uses"] for step in ACTION["runs"]["steps"] if "uses" in step]
    assert len(used) == 3
    assert all(re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", name) for name in used)


def test_the_api_key_reaches_no_step_but_the_one_that_asks_kapso() -> None:
    """The functions' own code runs in the test step."""
    with_key = [step["name"] for step in ACTION["runs"]["steps"] if "api-key" in json.dumps(step)]
    assert with_key == ["Plan or sync"]


@pytest.mark.thorough
def test_the_installation_puts_a_command_on_path_that_builds_typescript(tmp_path: Path) -> None:
    """Locked packages from the index, and esbuild from npm: it needs both."""
    action = tmp_path / "action"
    for name in ("kapso_sync", "requirements", "deploy"):
        shutil.copytree(ROOT / name, action / name)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(ROOT / name, action)
    places = {"GITHUB_ACTION_PATH": str(action), "RUNNER_TEMP": str(tmp_path), "GITHUB_PATH": str(tmp_path / "path")}
    environment = {**os.environ, **places}
    script = str(action / "deploy" / "action" / "install.sh")
    ran = subprocess.run(["bash", script], env=environment, capture_output=True, text=True, check=False, timeout=300)
    if "Could not find a version" in ran.stderr or "ENOTFOUND" in ran.stderr:
        pytest.skip(f"neither index nor registry can be reached: {ran.stderr[-200:]}")
    assert ran.returncode == 0, ran.stderr
    command = Path((tmp_path / "path").read_text().strip(), "kapso-sync")
    example = str(ROOT / "functions.example")
    bare = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    subprocess.run([str(command), "validate", example], env=bare, check=True, capture_output=True, timeout=60)
