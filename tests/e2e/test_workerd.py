"""The program against an emulator that runs code on workerd: from a folder to an invocation's response."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kapso_sync.cli.workerd import find_workerd
from kapso_sync.emulator.options import Behaviour, EmulatorOptions
from tests.build.test_styles import COMMONJS, IMPORT, OTHERS, SAID
from tests.build.test_styles import STYLES as BUILT
from tests.program import answering, kapso_sync, write_functions
from tests.served import QUICK, served

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
    return replace(QUICK, workerd=FOUND.path, behaviour=Behaviour(**behaviour))  # type: ignore[arg-type]


def test_every_code_style_is_synced_and_runs(tmp_path: Path) -> None:
    """The code of the folder runs, and ``invoke`` prints its response."""
    write_functions(tmp_path / "functions", STYLES)
    with served(options()) as kapso:
        environment = kapso.environment(tmp_path / "state")
        assert kapso_sync("sync", str(tmp_path / "functions"), environment=environment).code == 0
        for slug in STYLES:
            ran = kapso_sync("invoke", slug, "--data", '{"text": "ñ"}', environment=environment)
            assert (ran.code, json.loads(ran.out)) == (0, {"text": "ñ"}), slug


@pytest.mark.parametrize("passed_on", [True, False])
def test_doctor_finds_out_whether_headers_reach_a_function(tmp_path: Path, *, passed_on: bool) -> None:
    """By code that runs; where they do not, the next plan warns of the checks that need them, and they are not sent."""
    folder = tmp_path / "functions"
    write_functions(folder, {"greet": answering("hi")}, "    checks: [{headers: {X-Source: shop}, expect: {text: other}}]\n")
    with served(options(invoke_headers=passed_on)) as kapso:
        environment = kapso.environment(tmp_path / "state")
        asked = kapso_sync("doctor", "--yes", "--json", environment=environment).document["api"]
        answers = {finding["question"]: finding["answer"] for finding in asked["findings"]}
        assert answers["do headers of an invocation reach the function"] == ("yes" if passed_on else "no")
        assert asked["facts"]["headers_reach"] is passed_on
        warnings = kapso_sync("plan", str(folder), "--json", environment=environment).document["warnings"]
        assert [warning["code"] for warning in warnings if warning["code"] == "headers-lost"] == (
            [] if passed_on else ["headers-lost"]
        )
        impatient = {**environment, "KAPSO_SYNC_CHECK_DELAY": "1ms", "KAPSO_SYNC_CHECK_WINDOW": "1ms"}
        assert kapso_sync("sync", str(folder), environment=impatient).code == (1 if passed_on else 0)


@pytest.mark.parametrize("base", ["/api/v1", "/platform/v1"])
def test_every_built_code_style_runs(tmp_path: Path, base: str) -> None:
    """TypeScript, shared modules three deep, enums, decorators, JSON, text, unicode, CommonJS."""
    folder = tmp_path / "functions"
    folder.mkdir()
    for path, text in OTHERS.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    slugs = {f"s{number:02d}": given for number, given in enumerate(BUILT.values())}
    slugs |= {f"c{number:02d}": ("a.js", code) for number, code in enumerate(COMMONJS.values())}
    for slug, (name, code) in slugs.items():
        said = code.replace("SAY", "new Response(greeting(await r.json()))").replace("HI", f"new Response({SAID!r})")
        text = said if slug.startswith("c") else IMPORT + said
        (folder / name.replace("a.", f"{slug}.")).write_text(text, encoding="utf-8")
    entries = "".join(
        f"  {slug}: {{file: {name.replace('a.', f'{slug}.')}, secrets: {{SECRET: {{value: x}}}}}}\n"
        for slug, (name, _) in slugs.items()
    )
    (folder / "manifest.yaml").write_text(f"version: 1\nfunctions:\n{entries}", encoding="utf-8")
    with served(options()) as kapso:
        environment = {**kapso.environment(tmp_path / "state"), "KAPSO_API_BASE_URL": kapso.emulator.base(base)}
        ran = kapso_sync("sync", str(folder), environment=environment)
        assert ran.code == 0, ran.out
        for slug in slugs:
            answer = kapso_sync("invoke", slug, "--data", '{"name": "Ada"}', environment=environment)
            assert (answer.code, answer.out.strip()) == (0, SAID), (slug, slugs[slug])
        assert kapso_sync("sync", str(folder), environment=environment).out.startswith(f"{len(slugs)} in sync.")


def test_code_that_does_not_start_does_not_stop_other_functions(tmp_path: Path) -> None:
    """No parser finds the fault: the deployment ends in error, the other functions run, and the exit code is 1."""
    write_functions(tmp_path / "functions", {"bad": f"null.x;\n{STYLES['declared']}", "good": STYLES["declared"]})
    with served(options()) as kapso:
        environment = kapso.environment(tmp_path / "state")
        assert kapso_sync("validate", str(tmp_path / "functions"), environment=environment).code == 0
        ran = kapso_sync("sync", str(tmp_path / "functions"), environment=environment)
        assert ran.code == 1
        words = "the deployment ended in `error`, 2 times; on this machine: Uncaught TypeError: Cannot read properties of null"
        assert words in ran.out, "Kapso gives no reason, and the runtime of this machine does"
        assert "bad.js:1:6" in ran.out
        assert (ran.event("deploy.failed")["slug"], ran.event("deploy.succeeded")["slug"]) == ("bad", "good")
        assert kapso.world.function("bad").failure == (
            "Uncaught TypeError: Cannot read properties of null (reading 'x')\n  at bad.js:1:6"
        )
        assert kapso_sync("invoke", "good", environment=environment).code == 0


def test_edge_stale_answers_with_former_code_after_a_deployment(tmp_path: Path) -> None:
    """With ``edge_stale`` the deployment has succeeded and the response is still the old one."""
    write_functions(tmp_path / "functions", {"greet": "const handler = () => new Response('old');"})
    with served(options(edge_stale=3600)) as kapso:
        environment = kapso.environment(tmp_path / "state")
        kapso_sync("sync", str(tmp_path / "functions"), environment=environment)
        write_functions(tmp_path / "functions", {"greet": "const handler = () => new Response('new');"})
        assert kapso_sync("sync", str(tmp_path / "functions"), environment=environment).code == 0
        assert kapso_sync("invoke", "greet", environment=environment).out == "old\n"
        assert kapso.live_code() == {"greet": "const handler = () => new Response('new');"}


ORDER = """// What an order costs.
import { total, type Order } from "./lib/total";

export default async function (request: Request): Promise<Response> {
  const order = (await request.json()) as Order;
  return Response.json({ total: total(order) });
}
"""
TOTAL = """export interface Order {
  items: { price: number }[] | null;
}

export function total(order: Order): number {
  return order.items!.map((item) => item.price).reduce((sum, price) => sum + price, 0);
}
"""


def test_the_stack_of_a_typescript_function_names_the_lines_of_its_source(tmp_path: Path) -> None:
    """Minified or not; an invocation before the last deployment may be of other code, and keeps the places that Kapso gave."""
    folder = tmp_path / "functions"
    (folder / "lib").mkdir(parents=True)
    (folder / "order.ts").write_text(ORDER, encoding="utf-8")
    (folder / "lib" / "total.ts").write_text(TOTAL, encoding="utf-8")
    entries = "  order: {}\n  small: {file: order.ts, minify: true}\n"
    (folder / "manifest.yaml").write_text(f"version: 1\nfunctions:\n{entries}", encoding="utf-8")
    with served(options()) as kapso:
        environment = kapso.environment(tmp_path / "state")

        def failing(slug: str) -> list[dict[str, Any]]:
            assert kapso_sync("invoke", slug, "--data", '{"items": null}', environment=environment).code == 1
            shown = kapso_sync("logs", slug, "--failed", "--json", environment=environment).document["invocations"]
            return [{**each, "frames": each["console"][0]["message"].splitlines()[1:]} for each in shown]

        assert kapso_sync("sync", str(folder), environment=environment).code == 0
        for slug in ("order", "small"):
            (only,) = failing(slug)
            assert only["places"] == "source", only
            frames = [frame.partition("(")[2] for frame in only["frames"]]
            assert frames == ["lib/total.ts:6:23)", "order.ts:6:33)"]

        (folder / "lib" / "total.ts").write_text(f"// one line more\nexport const TAX = 0.2;\n{TOTAL}", encoding="utf-8")
        (folder / "order.ts").write_text(ORDER.replace("total(order)", "total(order), now: 1"), encoding="utf-8")
        assert kapso_sync("sync", str(folder), environment=environment).code == 0
        before, after = failing("order")
        assert (before["places"], after["places"]) == ("uploaded", "source")
        assert "it ran before the deployment" in str(before["places_reason"])
        assert [["order.js:" in frame for frame in each["frames"]] for each in (before, after)] == [
            [True, True],
            [False, False],
        ]
        assert "lib/total.ts:8:23" in str(after["frames"])
