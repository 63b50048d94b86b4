"""Take the picture of the status page: a real daemon, the example's functions, three kinds of trouble. ``make screenshots``."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from kapso_sync.cli.workerd import find_workerd
from tests.program import GIT_ENVIRONMENT, git, kapso_sync, started
from tests.served import QUICK, Served, served

ROOT = Path(__file__).parents[2]
CHROMIUM = Path("/usr/bin/chromium")
HOTFIX = "async function handler(request, env) {\n  return new Response('a hotfix');\n}\n"
BROKEN = "async function handler(request, env) {\n  return new Response('oops'\n}\n"
WRONG = "async function handler(request, env) {\n  return Response.json({ totalCents: 0 });\n}\n"
CHECK = """\
    checks:
      - request: { country: CO, weightGrams: 500, orderCents: 4500 }
        expect: { json: { totalCents: 600 } }
"""


def take_screenshot(picture: Path, *, scratch: Path) -> list[str]:
    """Write the PNG of the page of a daemon that runs in a scratch folder; return the URLs that the page asked for."""
    workerd = find_workerd()
    with served(replace(QUICK, workerd=workerd.path if workerd else None)) as kapso:
        home = _repository(scratch / "flows")
        environment = {
            **kapso.environment(scratch / "state"),
            "KAPSO_SYNC_LISTEN": "127.0.0.1:0",
            "KAPSO_SYNC_CHECK_DELAY": "200ms",
            "KAPSO_SYNC_CHECK_WINDOW": "500ms",
            "KAPSO_SYNC_DRIFT": "report",
        }
        with started("run", home.as_uri(), environment=environment) as daemon:
            assert daemon.stderr is not None
            url = next(json.loads(line)["url"] for line in daemon.stderr if '"daemon.started"' in line)
            assert kapso_sync("reconcile", "--wait", environment=environment).code == 0
            _trouble(home, kapso, environment)
            return _photograph(url, picture)


def _repository(home: Path) -> Path:
    shutil.copytree(ROOT / "functions.example", home / "functions", ignore=shutil.ignore_patterns("README.md"))
    git(home, "init", "--quiet", "--initial-branch=main")
    _commit(home, "Eight functions to start from")
    return home


def _commit(home: Path, subject: str) -> None:
    """Commit everything, now: the page says how long ago it was."""
    git(home, "add", "--all")
    person = {name: value for name, value in GIT_ENVIRONMENT.items() if not name.endswith("_DATE")}
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), **person}
    subprocess.run(["git", "-C", home, "commit", "--quiet", "--message", subject], env=environment, check=True, timeout=30)


def _trouble(home: Path, kapso: Served, environment: Mapping[str, str]) -> None:
    """A hotfix in the dashboard, a syntax error, and code that answers wrong and is put back."""
    functions = home / "functions"
    kapso.edit("route-message", deploy=True, code=HOTFIX)
    (functions / "receive-webhook.js").write_text(BROKEN, encoding="utf-8")
    (functions / "shipping-cost.js").write_text(WRONG, encoding="utf-8")
    manifest = functions / "manifest.yaml"
    text = manifest.read_text(encoding="utf-8")
    manifest.write_text(text.replace("  shipping-cost:\n", f"  shipping-cost:\n{CHECK}"), encoding="utf-8")
    _commit(home, "Ship for nothing, and check what it costs")
    assert kapso_sync("reconcile", "--wait", environment=environment).code == 1


def _photograph(url: str, picture: Path) -> list[str]:
    from playwright.sync_api import sync_playwright

    asked: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1000, "height": 1110})
        page.on("request", lambda request: asked.append(request.url))
        page.goto(url)
        page.locator("h1").wait_for()
        page.screenshot(path=picture)
        browser.close()
    return asked


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="kapso-sync-") as folder:
        take_screenshot(ROOT / "docs" / "images" / "status-page.png", scratch=Path(folder))
