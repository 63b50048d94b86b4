"""The program against an emulator that runs what it deploys: from a folder to the answer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kapso_sync.cli.workerd import find_workerd
from kapso_sync.emulator.options import Behaviour, EmulatorOptions
from tests.program import kapso_sync, write_functions
from tests.served import served

FOUND = find_workerd()
pytestmark = [pytest.mark.e2e, pytest.mark.skipif(FOUND is None, reason="needs workerd: npm ci")]

STYLES = {
    "declared": "async function handler(request, env) {\n  return Response.json(await request.json());\n}\n",
    "constant": "const handler = async (request) => Response.json(await request.json());\n",
    "module": "export default async function (request) {\n  return Response.json(await request.json());\n}\n",
    "fetcher": "export default { fetch: async (request) => Response.json(await request.json()) };\n",
}


def options(**behaviour: float) -> EmulatorOptions:
    assert FOUND is not None
    return EmulatorOptions(deploy_delay=0.02, workerd=FOUND.path, behaviour=Behaviour(**behaviour))  # type: ignore[arg-type]


def test_every_style_is_synced_and_answers(tmp_path: Path) -> None:
    """What the folder holds runs, and ``invoke`` prints what it answers."""
    write_functions(tmp_path / "functions", STYLES)
    with served(options()) as kapso:
        environment = kapso.environment(tmp_path / "state")
        assert kapso_sync("sync", str(tmp_path / "functions"), environment=environment).code == 0
        for slug in STYLES:
            ran = kapso_sync("invoke", slug, "--data", '{"text": "ñ"}', environment=environment)
            assert (ran.code, json.loads(ran.out)) == (0, {"text": "ñ"}), slug


def test_code_that_does_not_start_fails_alone(tmp_path: Path) -> None:
    """No parser finds it: the deployment ends in error, the other functions run, and the exit code is 1."""
    write_functions(tmp_path / "functions", {"bad": f"null.x;\n{STYLES['declared']}", "good": STYLES["declared"]})
    with served(options()) as kapso:
        environment = kapso.environment(tmp_path / "state")
        assert kapso_sync("validate", str(tmp_path / "functions"), environment=environment).code == 0
        ran = kapso_sync("sync", str(tmp_path / "functions"), environment=environment)
        assert ran.code == 1
        assert (ran.event("deploy.failed")["slug"], ran.event("deploy.succeeded")["slug"]) == ("bad", "good")
        assert kapso.world.function("bad").failure == (
            "Uncaught TypeError: Cannot read properties of null (reading 'x')\n  at bad.js:1:6"
        )
        assert kapso_sync("invoke", "good", environment=environment).code == 0


def test_the_edge_may_answer_with_former_code(tmp_path: Path) -> None:
    """With ``edge_stale`` the deployment has succeeded and the answer is still the old one."""
    write_functions(tmp_path / "functions", {"greet": "const handler = () => new Response('old');"})
    with served(options(edge_stale=3600)) as kapso:
        environment = kapso.environment(tmp_path / "state")
        kapso_sync("sync", str(tmp_path / "functions"), environment=environment)
        write_functions(tmp_path / "functions", {"greet": "const handler = () => new Response('new');"})
        assert kapso_sync("sync", str(tmp_path / "functions"), environment=environment).code == 0
        assert kapso_sync("invoke", "greet", environment=environment).out == "old\n"
        assert kapso.world.live_code() == {"greet": "const handler = () => new Response('new');"}
