"""The page of a real daemon: what failed is found on it, asked about, and tried again, without another window."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from kapso_sync.cli.workerd import find_workerd
from tests.e2e.test_daemon import daemon, until
from tests.program import git, write_functions
from tests.served import QUICK, Served, served

FOUND = find_workerd()
pytestmark = [pytest.mark.e2e, pytest.mark.skipif(FOUND is None, reason="needs workerd: npm ci")]

TOKEN = "admin-token-of-this-page"
SECRET = "secret-of-the-function-1"
CHECKED = """\
    secrets: {GREETING: {env: GREETING}}
    checks: [{request: {card: 4111111111111111}, expect: {json: {pong: true}}}]
"""


def pong(*, good: bool = True) -> str:
    body = f"console.log(env.GREETING);\n  return Response.json({{pong: {str(good).lower()}}});"
    return f"async function handler(request, env) {{\n  {body}\n}}\n"


@pytest.fixture
def kapso() -> Iterator[Served]:
    assert FOUND is not None
    with served(replace(QUICK, workerd=FOUND.path)) as running:
        yield running


def commit(repository: Path, subject: str, code: str) -> str:
    """Write the function, and return the commit's id."""
    write_functions(repository / "functions", {"greet": code}, CHECKED)
    git(repository, "add", "--all")
    git(repository, "commit", "--message", subject)
    return git(repository, "rev-parse", "HEAD").strip()


def text_of(answer: httpx.Response) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", answer.text).split())


def test_a_failure_is_found_on_the_page_and_retried_there(kapso: Served, tmp_path: Path) -> None:
    """Commit, cause, what to do, history, backups, what ran before; one call for the invocations, whose bodies stay away."""
    repository = tmp_path / "repository"
    repository.mkdir()
    git(repository, "init", "--initial-branch", "main")
    commit(repository, "Add greet", pong())
    (tmp_path / "values.env").write_text(f"GREETING={SECRET}\n", encoding="utf-8")
    environment = {
        **kapso.environment(tmp_path / "state"),
        "KAPSO_SYNC_OWNER": "acme/flows",
        "KAPSO_SYNC_CHECK_DELAY": "10ms",
        "KAPSO_SYNC_CHECK_WINDOW": "20ms",
        "KAPSO_SYNC_LISTEN": "127.0.0.1:0",
        "KAPSO_SYNC_ADMIN_TOKEN": TOKEN,
    }
    with daemon(repository.as_uri(), environment, "--env-file", str(tmp_path / "values.env")) as running:
        running.event("check.passed")
        bad = commit(repository, "Break greet", pong(good=False))
        with httpx.Client(base_url=running.url, trust_env=False, timeout=10) as page:
            page.post("/api/reconcile", headers={"Authorization": f"Bearer {TOKEN}"})
            running.event("rollback.succeeded")
            until(lambda: "CheckFailed" in page.get("/functions/greet").text)
            stranger = text_of(page.get("/functions/greet"))
            assert f"Since commit {bad[:12]} Break greet" in stranger
            assert "What to do the previous version was restored;" in stranger
            assert "check 1 failed: expected JSON" in stranger
            assert "was checked" not in stranger
            assert page.post("/sign-in", data={"token": TOKEN, "to": "/functions/greet"}).status_code == 303
            answer = page.get("/functions/greet")
            view = text_of(answer)
            for said in ("rolled back: the previous version runs again", "1 check passed", "expected JSON", "failed, saved"):
                assert said in view, said
            assert [text for text in (TOKEN, SECRET, kapso.emulator.key) if text in answer.text] == []
            found = re.search(r'href="(/functions/greet/backups/\w+)"', answer.text)
            assert found is not None
            assert "kapso-sync restore greet --from" in text_of(page.get(found[1]))
            kapso.forget_requests()
            seen = page.get("/functions/greet/invocations")
            assert (kapso.calls(), seen.status_code) == (["GET /functions/{id}/invocations"], 200)
            assert "200" in text_of(seen)
            assert "log [redacted]" in text_of(seen), "the function printed its secret"
            assert [text for text in (SECRET, "4111111111111111", "pong") if text in seen.text] == []
            token = re.search(r'name="form_token" value="(\w+)"', answer.text)
            assert token is not None
            assert page.post("/functions/greet/retry", data={"form_token": token[1]}).status_code == 303
            running.event("check.failed", 2)
            running.event("rollback.succeeded", 2)
            assert page.post("/suspend", data={"form_token": token[1], "reason": "a look", "for": "1h"}).status_code == 303
            assert page.get("/api/status").json()["suspended"]["reason"] == "a look"
            assert page.post("/resume", data={"form_token": token[1]}).status_code == 303
            assert json.loads(page.get("/api/status").text)["suspended"] is None
    assert [line for line in running.raw if TOKEN in line or SECRET in line] == []
