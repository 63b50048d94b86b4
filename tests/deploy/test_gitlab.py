"""The GitLab file to include: its scripts run against the emulator and a local API that takes the note."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from email.message import Message
from pathlib import Path
from typing import Any

import pytest
import yaml

from kapso_sync.cli.workerd import PACKAGE, find_workerd
from kapso_sync.tools import VERSION
from tests.deploy.json_server import asked_page, json_server
from tests.program import answering, git, write_functions
from tests.served import served

ROOT = Path(__file__).parents[2]
SPEC, JOBS = yaml.safe_load_all((ROOT / "deploy" / "gitlab" / "kapso-sync.yml").read_text(encoding="utf-8"))
NOTES = "/projects/4/merge_requests/7/notes"


@pytest.fixture
def gitlab() -> Iterator[tuple[str, list[dict[str, Any]], list[str]]]:
    """GitLab's API on loopback: its address, the notes of a merge request, and what was written."""
    notes: list[dict[str, Any]] = []
    writes: list[str] = []

    def answer(method: str, path: str, headers: Message, body: Any) -> tuple[int, object]:
        assert headers["PRIVATE-TOKEN"] == "the-project-s-token"
        if path == "/user":
            return 200, {"id": 5}
        if method == "GET":
            return 200, asked_page(path, notes)
        writes.append(f"{method} {path}")
        if method == "POST":
            notes.append({"id": len(notes) + 1, "author": {"id": 5}, **body})
            return 201, notes[-1]
        note = notes[int(path.rpartition("/")[2]) - 1]
        note.update(body)
        return 200, note

    with json_server(answer) as url:
        yield url, notes, writes


@pytest.mark.e2e
def test_gitlab_jobs_keep_one_note_and_sync(gitlab: tuple[str, list[dict[str, Any]], list[str]], tmp_path: Path) -> None:
    """The plan of each push is in the same note; a person's copy of it is left alone. Where a check fails, there is no plan."""
    url, notes, writes = gitlab
    checkout = tmp_path / "flows"
    write_functions(checkout / "functions", {"greet": answering("hello")})
    git(checkout, "init", "--quiet", "--initial-branch=main")
    git(checkout, "remote", "add", "origin", "https://gitlab.com/acme/flows.git")
    git(checkout, "add", "--all")
    git(checkout, "commit", "--quiet", "--message", "Begin")
    with served() as kapso:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("KAPSO_")},
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "KAPSO_API_KEY": kapso.emulator.key,
            "KAPSO_API_BASE_URL": kapso.emulator.base("/platform/v1"),
            "KAPSO_SYNC_STATE_DIR": str(tmp_path / "state"),
            "KAPSO_SYNC_DEPLOY_POLL": "20ms",
            "GITLAB_TOKEN": "the-project-s-token",
            "CI_API_V4_URL": url,
            "CI_PROJECT_ID": "4",
            "CI_MERGE_REQUEST_IID": "7",
            "SOURCE": ".",
            "ARGUMENTS": "",
            "RUN_TESTS": str(find_workerd() is not None).lower(),
        }

        def job(name: str, code: int = 0) -> str:
            script = "\n".join(JOBS[name]["script"])
            ran = subprocess.run(
                ["bash", "-eo", "pipefail", "-c", script],
                cwd=checkout,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
                timeout=120,
            )
            assert ran.returncode == code, ran.stdout + ran.stderr
            return ran.stdout

        job("kapso-sync-plan")
        assert "1 to create" in notes[0]["body"]
        notes[0]["author"] = {"id": 6}
        job("kapso-sync-plan")
        job("kapso-sync-plan")
        assert writes == [f"POST {NOTES}", f"POST {NOTES}", f"PUT {NOTES}/2"]
        job("kapso-sync")
        assert set(kapso.world.live_code()) == {"greet"}
        if find_workerd() is not None:
            write_functions(checkout / "functions", {"greet": answering("hello")}, "    checks: [{expect: {status: 418}}]\n")
            assert "check 1 failed: expected status 418" in job("kapso-sync-plan", 1)
            assert len(writes) == 3


def test_the_gitlab_file_installs_the_pinned_tools_and_declares_its_inputs() -> None:
    text = json.dumps(JOBS)
    assert f"esbuild@{VERSION} {PACKAGE}" in text
    assert set(re.findall(r"\$\[\[ inputs\.(\w+) \]\]", text)) == set(SPEC["spec"]["inputs"])
