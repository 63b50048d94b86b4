"""``init`` as a user meets it: the manifest that it proposes, what it leaves out, and that it never overwrites."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inline_snapshot import snapshot

from kapso_sync.build.contract import inspect
from kapso_sync.manifest import read_manifest
from kapso_sync.reconcile.pull.proposal import CodeFile, propose
from tests.manifest.folder import folder as folder_of
from tests.program import answering, git, kapso_sync
from tests.served import Served

Environment = dict[str, str]
MODULE = "export default async function (request, env) {\n  return new Response(greeting);\n}\n"


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """A folder of code as people have it, without a manifest."""
    files = {
        "verifyToken.js": 'import { greeting } from "./greeting.js";\n' + MODULE,
        "greeting.js": 'export const greeting = "hello";\n',
        "send_message.ts": answering("sent"),
        "receive/index.js": answering("received"),
        "lib/deep/tool.js": answering("deep"),
        "broken.js": "async function handler(\n",
        "eslint.config.js": "export default [];\n",
        "verify.test.js": "test();\n",
        "README.md": "Not code.\n",
    }
    for path, text in files.items():
        (tmp_path / "code" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "code" / path).write_text(text, encoding="utf-8")
    return tmp_path / "code"


def test_init_proposes_flat_files_and_folders_with_an_index_and_writes_nothing(code: Path) -> None:
    """Modules that others import, tests and settings of tools are no functions."""
    before = {path: path.stat().st_mtime_ns for path in code.rglob("*")}
    ran = kapso_sync("init", str(code))
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.replace(str(code), "CODE") == snapshot("""\
+ broken  broken.js
    kapso-sync will not deploy this code: broken.js:2:1: syntax error: Expected identifier but found end of file
+ receive  receive/index.js
+ send-message  send_message.ts
+ verify-token  verifyToken.js
- greeting.js  left out: verifyToken.js imports it
- lib/deep/tool.js  left out: it lies in a sub-folder; if it is a function, list it yourself, with `file: lib/deep/tool.js`
    --- /dev/null
    +++ b/manifest.yaml
    @@ -0,0 +1,11 @@
    +# yaml-language-server: $schema=manifest.schema.json
    +version: 1
    +functions:
    +  broken:
    +    file: broken.js
    +  receive:
    +    file: receive/index.js
    +  send-message:
    +    file: send_message.ts
    +  verify-token:
    +    file: verifyToken.js
4 functions. Nothing is written yet.
next: `kapso-sync init --write CODE` writes manifest.yaml
""")
    assert {path: path.stat().st_mtime_ns for path in code.rglob("*")} == before


def test_init_write_leads_to_a_sync_that_makes_every_function_live(kapso: Served, code: Path, environment: Environment) -> None:
    """The commands that the output names, run as they are printed, deploy the folder."""
    (code / "broken.js").unlink()
    proposed = kapso_sync("init", str(code), environment=environment)
    command = proposed.out.rsplit("`", 2)[1]
    written = kapso_sync(*shlex.split(command)[1:], environment=environment)
    assert written.code == 0
    plan = kapso_sync(*shlex.split(written.out.rsplit("`", 2)[1])[1:], environment=environment)
    assert (plan.code, "3 to create" in plan.out) == (0, True), plan.out + plan.err
    assert kapso_sync("sync", str(code), environment=environment).code == 0
    assert set(kapso.world.live_code()) == {"receive", "send-message", "verify-token"}


def test_init_leads_editors_to_a_schema_beside_the_manifest(code: Path) -> None:
    """The first line names it, and it knows every key; a file of that name stays as it is, and nothing is uploaded of it."""
    assert kapso_sync("init", str(code), "--write").code == 0
    first = (code / "manifest.yaml").read_text().partition("\n")[0]
    assert first == "# yaml-language-server: $schema=manifest.schema.json"
    assert json.loads((code / "manifest.schema.json").read_text()) == kapso_sync("schema").document
    assert "schema" not in str(kapso_sync("validate", str(code), "--json").document["warnings"])
    (code / "manifest.yaml").unlink()
    (code / "manifest.schema.json").write_text("{}")
    assert kapso_sync("init", str(code), "--write").code == 0
    assert (code / "manifest.schema.json").read_text() == "{}"


def test_init_never_overwrites_a_manifest(code: Path) -> None:
    """One that exists, under any of its names, is a usage error and keeps every byte."""
    for name in ("manifest.yaml", "manifest.yml", "manifest.json"):
        (code / name).write_text("{}", encoding="utf-8")
        ran = kapso_sync("init", str(code), "--write")
        assert (ran.code, ran.err.splitlines()[0]) == (64, f"error: {name} is there already")
        assert (code / name).read_text(encoding="utf-8") == "{}"
        (code / name).unlink()
    assert not list(code.glob("manifest.*"))


def test_init_with_a_key_takes_the_slugs_of_functions_on_kapso(kapso: Served, code: Path, environment: Environment) -> None:
    """However Kapso joins the words; each line says what a sync would do, and functions without a file are named."""
    for slug, text in (("verifytoken", "old"), ("receive", "received"), ("orphan", "nobody")):
        body = {"function": {"slug": slug, "name": slug, "code": answering(text)}, "deployed": True}
        kapso.control("POST", "/functions", body)
    (code / "broken.js").unlink()
    ran = kapso_sync("init", str(code), "--json", environment=environment)
    assert {f["slug"]: f["remarks"][0] for f in ran.document["functions"]} == snapshot(
        {
            "receive": "on Kapso, the same: a sync adopts it",
            "send-message": "not on Kapso: a sync creates it",
            "verifytoken": "on Kapso, with other code: a plan shows the difference, and a sync waits for you",
        }
    )
    assert ran.document["only_on_kapso"] == ["orphan"]
    assert not ran.document["written"]
    shown = kapso_sync("init", str(code), environment=environment).out
    assert f"On Kapso and not here: orphan. Afterwards `kapso-sync pull {code}` brings them." in shown
    assert [call for call in kapso.calls() if not call.startswith("GET")] == []


def test_init_says_what_it_would_do_with_the_functions_of_another_owner(
    kapso: Served, code: Path, environment: Environment
) -> None:
    """They are proposed, since the folder has them, and the line says that they are somebody's."""
    function = {"slug": "receive", "name": "r", "code": "x", "description": "x [kapso-sync:github.com/other/flows#123456]"}
    kapso.control("POST", "/functions", {"function": function, "deployed": True})
    ran = kapso_sync("init", str(code), environment=environment)
    assert "on Kapso, and owned by github.com/other/flows" in ran.out


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "has no code"),
        ({"README.md": "text"}, "has no code"),
        ({"util.js": "export const a = 1;\n"}, "has no function: util.js is left out: it declares no handler"),
    ],
)
def test_init_without_a_function_is_exit_code_65(tmp_path: Path, files: dict[str, str], said: str) -> None:
    """An empty manifest helps nobody."""
    for path, text in files.items():
        (tmp_path / path).write_text(text, encoding="utf-8")
    ran = kapso_sync("init", str(tmp_path), "--write")
    assert (ran.code, said in ran.err, (tmp_path / "manifest.yaml").exists()) == (65, True, False), ran.err


def test_init_leaves_folders_of_the_kapso_cli_as_they_are(tmp_path: Path) -> None:
    """They need no manifest; one for the files beside them does not list them again."""
    (tmp_path / "greet").mkdir()
    (tmp_path / "greet" / "function.yaml").write_text("slug: greet\n", encoding="utf-8")
    (tmp_path / "greet" / "index.js").write_text(answering("hello"), encoding="utf-8")
    one = kapso_sync("init", str(tmp_path / "greet"), "--write")
    assert (one.code, (tmp_path / "greet" / "manifest.yaml").exists()) == (64, False)
    assert "hint: name the folder above it as the source" in one.err
    alone = kapso_sync("init", str(tmp_path), "--write")
    assert (alone.code, alone.out) == (0, "Nothing to write: no file here needs a manifest.\n")
    (tmp_path / "greet.js").write_text(answering("twin"), encoding="utf-8")
    (tmp_path / "other.js").write_text(answering("other"), encoding="utf-8")
    beside = kapso_sync("init", str(tmp_path), "--write")
    assert "- greet.js  left out: a folder of the Kapso CLI has the slug `greet`" in beside.out
    assert kapso_sync("validate", str(tmp_path)).out == "Valid: 2 functions.\n"


def test_init_in_a_repository_reads_its_functions_folder_or_else_its_root(tmp_path: Path) -> None:
    """As every other command does."""
    git(tmp_path, "init", "--quiet")
    (tmp_path / "root.js").write_text(answering("root"), encoding="utf-8")
    assert "+ root  root.js" in kapso_sync("init", str(tmp_path)).out
    (tmp_path / "functions").mkdir()
    (tmp_path / "functions" / "inner.js").write_text(answering("inner"), encoding="utf-8")
    assert kapso_sync("init", str(tmp_path), "--write").code == 0
    assert (tmp_path / "functions" / "manifest.yaml").exists()


def test_the_hint_for_a_missing_manifest_is_an_init_that_works(code: Path) -> None:
    """The command between the backticks proposes a manifest; a git source is cloned first."""
    ran = kapso_sync("validate", str(code))
    assert ran.code == 65
    command = ran.err.split("hint:")[1].split("`")[1]
    assert kapso_sync(*shlex.split(command)[1:]).code == 0
    git(code, "init", "--quiet", "--initial-branch=main")
    git(code, "add", "--all")
    git(code, "commit", "--quiet", "--message", "Begin")
    assert "In a clone of it, the command `init` proposes a manifest" in kapso_sync("validate", code.as_uri()).err


def test_init_makes_slugs_of_any_letters_and_names_files_that_it_cannot_list(tmp_path: Path) -> None:
    """Accents go, and a name with a line break is left out with the reason, since no manifest can hold it."""
    for name in ("Größe prüfen.js", "e\u0301cole.js", "日本.js", "two\nlines.js"):
        (tmp_path / name).write_text(answering("x"), encoding="utf-8")
    ran = kapso_sync("init", str(tmp_path), "--write", "--json")
    assert [function["slug"] for function in ran.document["functions"]] == ["ecole", "grosse-prufen"]
    assert ran.document["left_out"]["日本.js"].startswith("no slug can be made of its name")
    assert "do not print" in ran.document["left_out"]["two\nlines.js"]
    assert kapso_sync("validate", str(tmp_path)).code == 0


def test_init_writes_no_second_manifest_beside_that_of_the_functions_folder(tmp_path: Path) -> None:
    """Outside of git a folder stands for its functions folder once only that one declares functions."""
    inner = tmp_path / "functions"
    inner.mkdir()
    (inner / "index.js").write_text(answering("x"), encoding="utf-8")
    assert "hint: is the folder functions meant? Name it as the source" in kapso_sync("validate", str(tmp_path)).err
    assert kapso_sync("init", str(inner), "--write").code == 0
    assert kapso_sync("validate", str(tmp_path)).out == "Valid: 1 function.\n"
    ran = kapso_sync("init", str(tmp_path), "--write")
    assert (ran.code, ran.err.splitlines()[0]) == (64, "error: manifest.yaml is there already")
    assert not (tmp_path / "manifest.yaml").exists()


names = st.text(st.sampled_from("abAB12_-. é"), min_size=1, max_size=8)


@given(st.lists(names, min_size=1, max_size=6, unique=True))
def test_a_proposed_manifest_is_always_valid(stems: list[str]) -> None:
    """For any names of files: every file is a function of its own or is named with a reason, and the manifest reads back."""
    files = {f"{stem}.js": answering("x") for stem in stems}
    proposal = propose([CodeFile(path, inspect(text.encode())) for path, text in files.items()], frozenset(), ())
    assert {function.file for function in proposal.functions} | set(proposal.left_out) == set(files)
    if proposal.change is not None:
        manifest = read_manifest(folder_of({**files, "manifest.yaml": proposal.change.new}))
        listed = {entry.slug for entry in manifest.entries} | set(manifest.broken)
        assert listed == {function.slug for function in proposal.functions}


UNKNOWN_ID = "00000000-0000-4000-8000-000000000000"


def test_init_takes_the_slugs_of_ids_that_a_deploy_script_has_noted(
    kapso: Served, tmp_path: Path, environment: Environment
) -> None:
    """Whatever the files are called, by path or by key, wherever between the folder and the repository's root it is noted."""
    functions = tmp_path / "flows" / "bot" / "functions"
    functions.mkdir(parents=True)
    git(tmp_path / "flows", "init", "--quiet")
    ids = {}
    for slug in ("odoo-lead-intake", "task-list", "greeting"):
        body = {"function": {"slug": slug, "name": slug, "code": answering(slug)}, "deployed": True}
        ids[slug] = kapso.control("POST", "/functions", body)["id"]
    for name in ("lead.js", "on_task_list.js", "greet.js", "gone.js", "plain.js"):
        (functions / name).write_text(answering(name), encoding="utf-8")
    registry = {
        "functions": {"intake": {"kapso_function_id": ids["odoo-lead-intake"], "local_path": "bot/functions/lead.js"}},
        "order detail": {"deep": {"gone": {"functionId": UNKNOWN_ID, "file": "gone.js"}}},
    }
    (functions.parent / "service_registry.json").write_text(json.dumps(registry), encoding="utf-8")
    (functions / "ids.json").write_text(json.dumps({"onTaskList": ids["task-list"].upper()}), encoding="utf-8")
    (tmp_path / "flows" / "package.json").write_text('{"name": "flows"}', encoding="utf-8")
    (tmp_path / "ids.json").write_text(json.dumps({"greet": ids["greeting"]}), encoding="utf-8")
    ran = kapso_sync("init", str(functions), "--json", environment=environment)
    assert {f["file"]: (f["slug"], f["remarks"][0]) for f in ran.document["functions"]} == snapshot(
        {
            "gone.js": ("gone", "the id that bot/service_registry.json has for it is not on Kapso"),
            "greet.js": ("greet", "not on Kapso: a sync creates it"),
            "lead.js": ("odoo-lead-intake", "on Kapso, with other code: a plan shows the difference, and a sync waits for you"),
            "plain.js": ("plain", "not on Kapso: a sync creates it"),
            "on_task_list.js": (
                "task-list",
                "on Kapso, with other code: a plan shows the difference, and a sync waits for you",
            ),
        }
    )
    del environment["KAPSO_API_KEY"]
    without_key = kapso_sync("init", str(functions), "--json", environment=environment)
    assert {f["file"]: (f["slug"], f["remarks"]) for f in without_key.document["functions"]} == snapshot(
        {
            "gone.js": (
                "gone",
                ["bot/service_registry.json has its id: with an API key, `init` takes the slug that it has on Kapso"],
            ),
            "greet.js": ("greet", []),
            "lead.js": (
                "lead",
                ["bot/service_registry.json has its id: with an API key, `init` takes the slug that it has on Kapso"],
            ),
            "on_task_list.js": (
                "on-task-list",
                ["bot/functions/ids.json has its id: with an API key, `init` takes the slug that it has on Kapso"],
            ),
            "plain.js": ("plain", []),
        }
    )
