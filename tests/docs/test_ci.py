"""The workflow on docs/ci.md is safe to copy: pinned actions, least permissions, and no key for code of forks."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.docs.test_docs import blocks


def workflow() -> dict[str, Any]:
    found: dict[str, Any] = YAML(typ="safe").load(blocks("docs/ci.md", "yaml")[0])
    return found


def test_actions_are_pinned_to_commits() -> None:
    """A tag can be moved; a commit cannot."""
    used = [step["uses"] for job in workflow()["jobs"].values() for step in job["steps"] if "uses" in step]
    assert used
    assert all(re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", name) for name in used)


def test_the_ci_workflow_does_not_give_the_api_key_to_forks() -> None:
    """One job has the key; it does not run for forks, and it alone may write, and only comments."""
    document = workflow()
    assert document["on"] == "pull_request"
    assert document["permissions"] == {"contents": "read"}
    with_key = [name for name, job in document["jobs"].items() if "secrets." in json.dumps(job)]
    assert with_key == ["plan"]
    plan = document["jobs"]["plan"]
    assert plan["if"] == "github.event.pull_request.head.repo.full_name == github.repository"
    assert plan["permissions"] == {"contents": "read", "pull-requests": "write"}
    assert all("${{" not in step.get("run", "") for job in document["jobs"].values() for step in job["steps"])


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
