"""The workflow on docs/ci.md is safe to copy: pinned actions, least permissions, and no key for code of forks."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from kapso_sync.cli.workerd import find_workerd
from tests.docs.test_docs import ROOT, blocks
from tests.program import answering, git, write_functions
from tests.served import QUICK, served


def workflow() -> Any:
    return yaml.safe_load(blocks("docs/ci.md", "yaml")[1])


def test_actions_are_pinned_to_commits() -> None:
    """A tag can be moved; a commit cannot."""
    used = [step["uses"] for job in workflow()["jobs"].values() for step in job["steps"] if "uses" in step]
    assert used
    assert all(re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", name) for name in used)


def test_the_ci_workflow_does_not_give_the_api_key_to_forks() -> None:
    """Of the jobs for pull requests one has the key; it does not run for forks, and it alone may write, and only comments."""
    document = workflow()
    # PyYAML takes the key `on` for YAML 1.1's boolean.
    assert document[True] == {"pull_request": None, "push": {"branches": ["main"]}}
    assert document["permissions"] == {"contents": "read"}
    with_key = [name for name, job in document["jobs"].items() if "secrets." in json.dumps(job)]
    assert with_key == ["plan", "sync"]
    assert document["jobs"]["sync"]["if"] == "github.event_name == 'push'"
    plan = document["jobs"]["plan"]
    assert plan["if"] == "github.event.pull_request.head.repo.full_name == github.repository"
    assert plan["permissions"] == {"contents": "read", "pull-requests": "write"}
    assert all("${{" not in step.get("run", "") for job in document["jobs"].values() for step in job["steps"])


def test_the_pre_commit_hook_of_the_page_is_one_that_we_offer() -> None:
    """What runs it for real is `make release-check`."""
    (repository,) = yaml.safe_load(blocks("docs/ci.md", "yaml")[3])["repos"]
    offered = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    assert {hook["id"] for hook in repository["hooks"]} == {hook["id"] for hook in offered}


@pytest.mark.parametrize(
    ("known", "call"),
    [
        ("", "api --silent repos/acme/flows/issues/7/comments --field body=@plan.md"),
        ("https://api.example/comments/1", "api --silent --method PATCH https://api.example/comments/1 --field body=@plan.md"),
    ],
)
def test_the_ci_workflow_creates_one_comment_and_then_updates_it(tmp_path: Path, known: str, call: str) -> None:
    """The script looks for its own comment first; a program that records its arguments stands in for `gh`."""
    (script,) = [step["run"] for step in workflow()["jobs"]["plan"]["steps"] if "gh api" in step.get("run", "")]
    player = tmp_path / "gh"
    player.write_text('#!/bin/sh\necho "$@" >> calls\ncase "$*" in *--paginate*) echo "$KNOWN" ;; esac\n')
    player.chmod(0o755)
    environment = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "COMMENTS": "repos/acme/flows/issues/7/comments",
        "KNOWN": known,
    }
    subprocess.run(["bash", "-eo", "pipefail", "-c", script], cwd=tmp_path, env=environment, check=True, timeout=20)
    looked, wrote = (tmp_path / "calls").read_text().splitlines()
    assert looked.startswith("api --paginate repos/acme/flows/issues/7/comments --jq")
    assert wrote == call


def github_scripts(job: str) -> list[str]:
    """The scripts of a GitHub job that need neither a forge nor the network."""
    scripts = [step["run"] for step in workflow()["jobs"][job]["steps"] if "run" in step]
    return [script for script in scripts if not any(word in script for word in ("gh api", "pip install", "npm install"))]


def gitlab_scripts(job: str) -> list[str]:
    return [script for script in yaml.safe_load(blocks("docs/ci.md", "yaml")[2])[job]["script"] if "curl" not in script]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository on a runner, with a function that has a secret."""
    root = tmp_path / "flows"
    secrets = "    secrets:\n      PAYMENT_TOKEN: {env: PAYMENT_TOKEN}\n"
    write_functions(root / "functions", {"greet": answering("hi")}, extra=secrets)
    git(root, "init", "--quiet", "--initial-branch=main")
    git(root, "remote", "add", "origin", "https://github.com/acme/flows.git")
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "Begin")
    checks = "    checks: [{expect: {text: hello}}]\n"
    write_functions(root / "functions", {"greet": answering("hello")}, extra=secrets + checks)
    git(root, "commit", "--quiet", "--all", "--message", "Say hello")
    return root


@pytest.mark.e2e
@pytest.mark.parametrize("forge", ["github", "gitlab"])
def test_the_ci_jobs_run_as_printed(checkout: Path, tmp_path: Path, forge: str) -> None:
    """Validate needs no key, neither it nor the plan needs values of secrets, and the push deploys; no state is kept."""
    scripts = github_scripts if forge == "github" else gitlab_scripts
    runtime = find_workerd()
    if runtime is None:
        pytest.skip("needs workerd: npm ci")
    with served(replace(QUICK, workerd=runtime.path)) as kapso:
        bare = {
            **{name: value for name, value in os.environ.items() if not name.startswith("KAPSO_")},
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        key = {"KAPSO_API_KEY": kapso.emulator.key, "KAPSO_API_BASE_URL": kapso.emulator.base("/platform/v1")}
        quick = {"KAPSO_SYNC_DEPLOY_POLL": "20ms", "KAPSO_SYNC_CHECK_DELAY": "10ms"}

        def job(*lines: str, **variables: str) -> subprocess.CompletedProcess[str]:
            state = {"KAPSO_SYNC_STATE_DIR": str(tmp_path / f"runner-{len(list(tmp_path.iterdir()))}")}
            (tmp_path / f"marker-{len(list(tmp_path.iterdir()))}").touch()
            return subprocess.run(
                ["bash", "-eo", "pipefail", "-c", "\n".join(lines)],
                cwd=checkout,
                env={**bare, **state, **variables, "GITHUB_OUTPUT": str(tmp_path / "output"), "CODE": "0"},
                capture_output=True,
                text=True,
                check=False,
                timeout=120,
            )

        if forge == "github":
            assert job(*scripts("validate")).returncode == 0
            tested = job(*scripts("test"), BASE="HEAD~1")
            assert (tested.returncode, "+ greet  1 check passed" in tested.stdout) == (0, True), tested.stderr
        planned = job(*scripts("plan"), **key)
        assert planned.returncode == 0, planned.stderr
        assert "1 to create" in (checkout / "plan.md").read_text(encoding="utf-8")
        assert not kapso.world.functions
        values = {"PAYMENT_TOKEN": "value-of-the-token", "KAPSO_SYNC_SECRET_ENV": "PAYMENT_TOKEN"}
        ran = job(*scripts("sync"), **key, **values, **quick)
        assert ran.returncode == 0, ran.stderr
        assert set(kapso.world.live_code()) == {"greet"}
        assert job(*scripts("plan"), **key).returncode == 0
