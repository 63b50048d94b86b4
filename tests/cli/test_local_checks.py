"""``test``: every function's checks on this machine, with fixtures in place of the world."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import jsonschema
import pytest

from kapso_sync.cli.workerd import find_workerd
from tests.program import Ran, git, kapso_sync

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "functions.example"
SCHEMA = json.loads((ROOT / "docs/schemas/test-v1.json").read_text(encoding="utf-8"))

pytestmark = [pytest.mark.e2e, pytest.mark.skipif(find_workerd() is None, reason="needs workerd: npm ci")]

MANIFEST = """\
version: 1
functions:
  order:
    file: order.ts
    secrets: {TOKEN: {env: TOKEN}}
    checks:
      - request: {id: 7}
        expect: {json: {total: 3, seen: 2, people: [ada]}}
      - request: {id: 7}
        expect: {json: {seen: 3}}
  ping:
    checks: [{expect: {text: pong}}]
"""
ORDER = """\
import { total } from "./lib/total";

export default async function handler(request: Request, env: any): Promise<Response> {
  const { id } = (await request.json()) as { id: number };
  const order = await fetch(`https://shop.example/orders/${id}`).then((answer) => answer.json());
  const seen = (await env.KV.get("seen", "json")) as number;
  await env.KV.put("seen", String(seen + 1));
  const people = await env.DB.prepare("SELECT name FROM people WHERE id = ?").bind(1).all();
  console.log("with", env.TOKEN);
  return Response.json({ total: total(order), seen, people: people.results.map((row: any) => row.name) });
}
"""
TOTAL = """\
export type Order = { lines: number[] };

export function total(order: Order): number {
  return order.lines.reduce((sum, line) => sum + line, 0);
}
"""
PING = "async function handler() {\n  return new Response('pong');\n}\n"
FETCH = "- url: https://shop.example/orders/*\n  answer: {json: {lines: [1, 2]}}\n"


@pytest.fixture
def flows(tmp_path: Path) -> Path:
    """A repository with a function that needs the world, and one that needs nothing."""
    folder = tmp_path / "flows" / "functions"
    files = {
        "manifest.yaml": MANIFEST,
        "order.ts": ORDER,
        "lib/total.ts": TOTAL,
        "ping.js": PING,
        "order.fetch.yaml": FETCH,
        "order.kv.yaml": "seen: 2\n",
        "order.db.sql": "CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT);\nINSERT INTO people (name) VALUES ('ada');\n",
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    git(folder.parent, "init", "--quiet", "--initial-branch=main")
    git(folder.parent, "add", "--all")
    git(folder.parent, "commit", "--quiet", "--message", "Begin")
    return folder


def tried(folder: Path, *arguments: str, **environment: str) -> Ran:
    return kapso_sync("test", str(folder), *arguments, environment={"KAPSO_API_KEY": "", **environment})


def document(ran: Ran) -> Any:
    found = json.loads(ran.out)
    jsonschema.validate(found, SCHEMA)
    return found


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def slugs(ran: Ran) -> list[str]:
    return [function["slug"] for function in document(ran)["functions"]]


def test_checks_run_with_fixtures_of_fetch_kv_and_db(flows: Path) -> None:
    """Without a key; the store is kept between the checks of a function, and nothing of a fixture is reported as code."""
    ran = tried(flows, "--json")
    assert ran.code == 0, ran.out + ran.err
    found = document(ran)
    assert (found["passed"], found["failed"], slugs(ran)) == (3, 0, ["order", "ping"])
    first = found["functions"][0]["checks"][0]["answer"]
    assert first == {"status": 200, "body": '{"total":3,"seen":2,"people":["ada"]}'}
    assert kapso_sync("validate", str(flows)).err == ""


def test_the_page_shows_what_the_example_prints() -> None:
    """The transcript of docs/testing.md; the order of functions and their times differ from run to run."""
    page = (ROOT / "docs/testing.md").read_text(encoding="utf-8").split("```console\n")[1].split("```")[0]

    def blurred(text: str) -> list[str]:
        return sorted(re.sub(r"\d+ ms", "N ms", line) for line in text.strip().splitlines())

    ran = tried(EXAMPLE, "--env", "test")
    assert ran.code == 0, ran.out + ran.err
    assert blurred(ran.out) == blurred(page.partition("\n")[2])


def test_a_failed_check_shows_the_line_that_threw(flows: Path, tmp_path: Path) -> None:
    """In the source's shared module: for people, programs, GitHub and JUnit's readers; the secret in it never."""
    edit(flows / "order.fetch.yaml", "{lines: [1, 2]}", "{}")
    (tmp_path / "values.env").write_text("TOKEN=hush-hush-hush-hush\n", encoding="utf-8")
    edit(flows / "lib/total.ts", "  return", '  console.log("of", (globalThis as any).secret);\n  return')
    edit(flows / "order.ts", "  console.log(", "  (globalThis as any).secret = env.TOKEN;\n  console.log(")
    values = ("--env-file", str(tmp_path / "values.env"))
    ran = tried(flows, "--github", "--junit", str(tmp_path / "out.xml"), *values)
    assert ran.code == 1
    assert "thrown at lib/total.ts:5:22" in ran.out
    assert "log   of [redacted]" in ran.out
    (annotation, _) = [line for line in ran.out.splitlines() if line.startswith("::error ")]
    assert annotation.startswith("::error file=functions/lib/total.ts,line=5,col=22,title=check-failed::order: check 1 failed")
    failed = document(tried(flows, "--json"))["functions"][0]["checks"][0]
    assert failed["place"] == "lib/total.ts:5:22"
    assert failed["console"][-2].strip() == "at total (lib/total.ts:5:22)"
    suites = ET.fromstring((tmp_path / "out.xml").read_text(encoding="utf-8"))  # noqa: S314 - it is our own
    assert (suites.get("tests"), suites.get("failures")) == ("3", "2")
    everything = tried(flows, "--verbose", *values)
    assert "    check 1 got status 200, 'pong'  " in everything.out
    assert failed["answer"] is None, "it threw"
    (first, _) = suites.iter("failure")
    assert "thrown at lib/total.ts:5:22" in (first.text or "")
    assert "hush" not in ran.out + ran.err + everything.out + (tmp_path / "out.xml").read_text(encoding="utf-8")


def test_a_request_without_a_fixture_is_refused_even_if_the_function_catches_it(flows: Path) -> None:
    """The refusal names method, URL and the file to add it to."""
    edit(flows / "order.fetch.yaml", "/*", "/1")
    edit(flows / "order.ts", ".then((answer) => answer.json())", ".then((answer) => answer.json(), () => ({ lines: [] }))")
    failed = document(tried(flows, "--json"))["functions"][0]["checks"][0]
    said = "fetch of GET https://shop.example/orders/7 is refused: tests make no requests. Add the URL and its answer to"
    assert failed["console"][0].startswith(f"warn  {said}")
    assert failed["place"] is None


@pytest.mark.parametrize(
    ("changed", "touched"),
    [
        ({"lib/total.ts": ("sum + line", "sum + line * 1")}, ["order"]),
        ({"lib/total.ts": ("export type", "// A comment is no change.\nexport type")}, []),
        ({"ping.js": ("pong", "pong!")}, ["ping"]),
        ({"manifest.yaml": ("{text: pong}", "{text: pon}")}, ["ping"]),
        ({"order.db.sql": ("'ada'", "'ada '")}, ["order"]),
        ({"manifest.yaml": ("version: 1\n", "version: 1\ndefaults: {public_endpoint: true}\n")}, ["order", "ping"]),
    ],
)
def test_changed_since_tests_what_a_change_touches(
    flows: Path, changed: dict[str, tuple[str, str]], touched: list[str]
) -> None:
    """Shared modules, entries, defaults and fixtures; before that a control: nothing has changed."""
    for name, (old, new) in changed.items():
        edit(flows / name, old, new)
    assert slugs(tried(flows, "--json", "--changed-since", "main")) == touched
    git(flows, "commit", "--quiet", "--all", "--message", "Change")
    assert slugs(tried(flows, "--json", "--changed-since", "HEAD~1")) == touched
    assert "Nothing was tested." in tried(flows, "--changed-since", "HEAD").out


def test_an_error_that_a_check_expects_is_shown_as_no_answer(flows: Path) -> None:
    """It threw, and the runtime answered in its place."""
    edit(flows / "ping.js", "return", "throw new Error('no');\n  return")
    edit(flows / "manifest.yaml", "{text: pong}", "{status: 500}")
    assert "    check 1 got no answer: it threw  " in tried(flows, "--only", "ping", "-v").out
    assert document(tried(flows, "--only", "ping", "--json"))["functions"][0]["checks"][0]["answer"] is None


def test_junit_shows_functions_that_were_not_run_as_skipped_with_the_reason(flows: Path, tmp_path: Path) -> None:
    """One that did not change, one without checks, and one that cannot run here; what ran is not among them."""
    deno = "  deno:\n    function_type: supabase_function\n    checks: [{expect: {}}]\n  bare: {}\n"
    for name in ("deno.js", "bare.js"):
        (flows / name).write_text("export default { fetch: () => new Response() };\n", encoding="utf-8")
    edit(flows / "manifest.yaml", "  ping:", f"{deno}  ping:")
    git(flows, "add", "--all")
    git(flows, "commit", "--quiet", "--message", "Add two")
    edit(flows / "ping.js", "pong", "pong ")
    edit(flows / "bare.js", "Response()", "Response('x')")
    edit(flows / "deno.js", "Response()", "Response('x')")
    ran = tried(flows, "--changed-since", "main", "--junit", str(tmp_path / "out.xml"))
    assert ran.code == 0, ran.out + ran.err
    suites = ET.fromstring((tmp_path / "out.xml").read_text(encoding="utf-8"))  # noqa: S314 - it is our own
    assert (suites.get("tests"), suites.get("failures"), suites.get("skipped")) == ("5", "0", "4")
    reasons = {
        (case.get("classname"), case.get("name")): [each.get("message") for each in case.iter("skipped")]
        for case in suites.iter("testcase")
    }
    assert reasons == {
        ("bare", "checks"): ["it has no checks"],
        ("deno", "check 1"): ["it runs on Deno, which this machine's runtime is not"],
        ("order", "check 1"): ["it did not change since main"],
        ("order", "check 2"): ["it did not change since main"],
        ("ping", "check 1"): [],
    }
    assert [suite.get("name") for suite in suites] == ["bare", "deno", "order", "ping"]


def test_a_revision_that_is_not_there_is_an_error_that_says_what_to_do(flows: Path) -> None:
    """CI checks out one commit alone, unless it is told otherwise."""
    ran = tried(flows, "--changed-since", "origin/nowhere")
    assert (ran.code, "fetch-depth: 0" in ran.err) == (64, True)


@pytest.mark.parametrize(("spelled", "expected"), [(":/Change", 0), ("@{-1}", 0), ("main..HEAD", 64), (" ", 64), ("--all", 64)])
def test_a_revision_may_be_spelled_as_git_takes_one_commit(flows: Path, spelled: str, expected: int) -> None:
    """A range is none, nor an empty variable, nor an option."""
    git(flows, "commit", "--quiet", "--allow-empty", "--message", "Change")
    git(flows, "checkout", "--quiet", "-b", "other")
    ran = tried(flows, f"--changed-since={spelled}")
    assert (ran.code, "Traceback" in ran.err) == (expected, False), ran.err
    assert ("is the variable set" in ran.err) is (spelled == " ")


@pytest.mark.parametrize("target", ["/dev/zero", "package-lock.json"])
def test_no_link_is_followed_to_see_whether_packages_changed(flows: Path, target: str) -> None:
    """A pushed link may name a file that never ends. A file that cannot be read counts as changed."""
    (flows / "package.json").symlink_to(target)
    os.mkfifo(flows / "package-lock.json")
    assert tried(flows, "--changed-since", "HEAD").code == 0


def test_an_invalid_fixture_is_named_and_the_others_are_tested(flows: Path) -> None:
    """65, with the place; SQL is judged by SQLite."""
    edit(flows / "order.fetch.yaml", "answer", "anser")
    ran = tried(flows)
    assert ran.code == 65
    assert "order.fetch.yaml:2:3: [0].anser: unknown key" in ran.err
    assert "+ ping  1 check passed" in ran.out
    assert kapso_sync("validate", str(flows)).err == ran.err, "`validate` says the same"
    (flows / "order.fetch.yaml").write_text(FETCH, encoding="utf-8")
    (flows / "order.db.sql").write_text("CREATE TABEL people;\n", encoding="utf-8")
    ran = tried(flows, "--only", "order")
    assert (ran.code, 'order.db.sql:1:1: SQLite refuses it: near "TABEL"' in ran.err) == (65, True)
    assert kapso_sync("validate", str(flows)).err == ran.err


def test_code_that_cannot_be_built_is_no_success(flows: Path) -> None:
    """65: its checks were not run. A control: with --only of another function it is none of our business."""
    edit(flows / "order.ts", "export default", "export defalt")
    ran = tried(flows)
    assert (ran.code, "order.ts:3:" in ran.err, "+ ping" in ran.out) == (65, True, True)
    assert tried(flows, "--only", "ping").code == 0


def test_a_manifest_that_cannot_be_read_is_reported_wherever_results_are(flows: Path, tmp_path: Path) -> None:
    """As an annotation at its line, as JUnit's error and in the JSON: whoever reads one of them sees no empty success."""
    edit(flows / "manifest.yaml", "checks: [{expect", "checks: [{expct")
    ran = tried(flows, "--github", "--junit", str(tmp_path / "out.xml"))
    assert ran.code == 65
    assert "::error file=functions/manifest.yaml,line=12,col=15,title=unknown-key::" in ran.out
    suites = ET.fromstring((tmp_path / "out.xml").read_text(encoding="utf-8"))  # noqa: S314 - it is our own
    assert (suites.get("errors"), [case.get("name") for case in suites.iter("testcase")]) == ("2", ["missing", "unknown-key"])
    ran = tried(flows, "--json")
    assert (ran.code, len(document(ran)["problems"])) == (65, 2)


def test_nothing_to_run_and_no_runtime_are_said(flows: Path) -> None:
    """Checks are what to write, and workerd is what to install; without checks no workerd is needed."""
    ran = tried(flows, "--runtime", "off")
    assert (ran.code, "npm install --global workerd@" in ran.err) == (78, True)
    (flows / "manifest.yaml").write_text("version: 1\nfunctions: {ping: {}}\n", encoding="utf-8")
    ran = tried(flows, "--runtime", "off")
    assert (ran.code, "Nothing was tested; `checks` in the manifest" in ran.out) == (0, True)
    deno = "version: 1\nfunctions: {ping: {function_type: supabase_function, checks: [{expect: {}}]}}\n"
    (flows / "manifest.yaml").write_text(deno, encoding="utf-8")
    (flows / "ping.js").write_text("Deno.serve(() => new Response());\n", encoding="utf-8")
    assert "\nNothing was tested.\n" in tried(flows).out, "it has checks, and they cannot run here"


def test_code_that_never_ends_fails_its_check_and_no_other(flows: Path) -> None:
    """The check's own time ends it, also where the code never lets go."""
    edit(flows / "ping.js", "return", "for (;;) {}\n  return")
    edit(
        flows / "manifest.yaml",
        "[{expect: {text: pong}}]",
        "[{expect: {text: pong}, timeout: 0.5}, {expect: {}, timeout: 0.5}]",
    )
    found = document(tried(flows, "--json"))
    assert (found["passed"], found["failed"]) == (2, 2)
    assert "did not answer within 0.5 s" in found["functions"][1]["checks"][0]["error"]
