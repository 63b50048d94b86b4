"""``pull`` as a user meets it: words, files and exit codes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import pytest
from inline_snapshot import snapshot

from kapso_sync.model.ownership import without_digests
from tests.program import answering, git, kapso_sync, write_functions
from tests.served import Served

Environment = dict[str, str]


def seed(kapso: Served, slug: str, *, code: str | None = None, secrets: Mapping[str, str] = {}, **fields: object) -> str:
    function = {"slug": slug, "name": slug, "code": code or answering(slug), **fields}
    body = {"function": function, "deployed": True, "secrets": dict(secrets)}
    made: dict[str, dict[str, str]] = kapso.control("POST", "/functions", body)
    return str(made.get("data", made)["id"])


@pytest.fixture
def project(kapso: Served) -> Served:
    """A project with functions, drafts, secrets and fields."""
    seed(kapso, "greet", name="Greet", description="Says hello.", secrets={"TOKEN": "hush"})
    seed(kapso, "legacy", code="module.exports = () => 1\n")
    seed(kapso, "theirs", description="x [kapso-sync:github.com/other/flows#123456]")
    seed(kapso, "twin", name="Greet")
    return kapso


def test_pull_plan_sync_of_an_existing_project_ends_in_sync(project: Served, environment: Environment, tmp_path: Path) -> None:
    """From nothing to in sync: pull, plan, sync, plan; pull makes a folder that does not exist."""
    folder = tmp_path / "flows" / "functions"
    ran = kapso_sync("pull", str(folder), environment=environment)
    assert ran.out == snapshot("""\
+ greet  greet.js, manifest.yaml
+ legacy  legacy.js, manifest.yaml
    a sync would build this code and not leave it as it is on Kapso: Kapso does not run code of this style
- theirs
    left out: it is owned by github.com/other/flows
+ twin  twin.js, manifest.yaml
    its name is left out: a manifest gives each name once, and `greet` has it
3 new, 1 left out. 5 files written.
""")
    assert ran.code == 1, "a name could not be written"
    assert (folder / "manifest.yaml").read_text() == snapshot("""\
# yaml-language-server: $schema=manifest.schema.json
version: 1
functions:
  greet:
    file: greet.js
    name: Greet
    description: Says hello.
    secrets:
      TOKEN: {keep: true}  # its value is on Kapso alone: fill in {env: NAME} to set it from git
  legacy:
    file: legacy.js
  twin:
    file: twin.js
""")
    assert (folder / "greet.js").read_text() == answering("greet")
    assert not [call for call in project.calls() if not call.startswith("GET")]


def test_a_new_manifest_comes_with_its_schema_which_counts_as_a_file(
    project: Served, environment: Environment, tmp_path: Path
) -> None:
    """``--diff`` names it, and does not print its thousand lines; one that is there stays, and is not counted."""
    folder = tmp_path / "functions"
    ran = kapso_sync("pull", str(folder), "--diff", environment=environment)
    assert "+ manifest.schema.json  the manifest's schema, for editors\n" in ran.out
    assert (ran.out.endswith(" 5 files to write.\n"), "json-schema.org" in ran.out, folder.exists()) == (True, False, False)
    folder.mkdir()
    (folder / "manifest.schema.json").write_text("{}")
    assert kapso_sync("pull", str(folder), environment=environment).out.endswith(" 4 files written.\n")
    assert (folder / "manifest.schema.json").read_text() == "{}"


def test_after_a_pull_plan_only_adopts_and_after_a_sync_has_no_changes(
    kapso: Served, environment: Environment, tmp_path: Path
) -> None:
    """The plan adopts every function; after the sync it is empty."""
    seed(kapso, "greet", description="Says hello.")
    seed(kapso, "part", public_endpoint=True)
    assert kapso_sync("pull", str(tmp_path / "f"), environment=environment).code == 0
    plan = kapso_sync("plan", str(tmp_path / "f"), "--json", environment=environment).document
    assert {(step["action"], step["deploy"]) for step in plan["functions"]} == {("adopt", False)}
    assert kapso_sync("sync", str(tmp_path / "f"), environment=environment).code == 0
    assert kapso_sync("plan", str(tmp_path / "f"), "--json", environment=environment).document["in_sync"]
    assert kapso_sync("pull", str(tmp_path / "f"), "--all", environment=environment).out == "2 unchanged. 0 files written.\n"


def test_after_an_adoption_a_plan_without_the_state_folder_has_no_changes(
    kapso: Served, environment: Environment, tmp_path: Path
) -> None:
    """As in the pull request of a CI job, which has no state folder: nothing is deployed for the mark's sake."""
    seed(kapso, "greet", description="Says hello.")
    seed(kapso, "part", public_endpoint=True)
    for function in kapso.world.functions.values():
        function.last_deployed_at = function.updated_at = function.created_at - timedelta(days=30)
    folder, elsewhere = str(tmp_path / "f"), {**environment, "KAPSO_SYNC_STATE_DIR": str(tmp_path / "another")}
    assert kapso_sync("pull", folder, environment=environment).code == 0
    assert kapso_sync("sync", folder, "--json", environment=environment).code == 0
    ran = kapso_sync("plan", folder, "--detailed-exitcode", environment=elsewhere)
    assert (ran.code, "In sync: 2 functions" in ran.out) == (0, True), ran.out
    for function in kapso.world.functions.values():
        function.description = without_digests(function.description or "")
    ran = kapso_sync("plan", folder, "--detailed-exitcode", environment=elsewhere)
    assert (ran.code, "2 to deploy" in ran.out) == (2, True), "the control: older marks do not say what ran"


def test_pull_diff_shows_a_unified_diff_and_writes_nothing(kapso: Served, folder: Path, environment: Environment) -> None:
    """Neither a file nor anything on Kapso changes."""
    seed(kapso, "new")
    before = {path: path.read_bytes() for path in folder.iterdir()}
    ran = kapso_sync("pull", str(folder), "--diff", environment=environment)
    assert ran.code == 0
    assert ran.out == snapshot("""\
+ new  new.js, manifest.yaml
    --- /dev/null
    +++ b/new.js
    @@ -0,0 +1,3 @@
    +async function handler(request, env) {
    +  return new Response('new');
    +}
    --- a/manifest.yaml
    +++ b/manifest.yaml
    @@ -4,3 +4,5 @@
         file: greet.js
       part:
         file: part.js
    +  new:
    +    file: new.js
1 new. 2 files to write.
""")
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    assert not Path(environment["KAPSO_SYNC_STATE_DIR"]).exists()


def test_pull_skips_a_local_change_with_exit_code_1(kapso: Served, folder: Path, environment: Environment) -> None:
    """It is reported, and --force takes Kapso's version."""
    kapso_sync("sync", str(folder), environment=environment)
    kapso.edit("greet", code=answering("by hand"), deploy=True)
    (folder / "greet.js").write_text(answering("mine"))
    ran = kapso_sync("pull", str(folder), "--all", environment=environment)
    assert (ran.code, ran.out) == snapshot(
        (
            1,
            """\
! greet
    skipped: it was changed here, or never synced from here; --force overwrites it
1 unchanged, 1 skipped. 0 files written.
""",
        )
    )
    assert (folder / "greet.js").read_text() == answering("mine")
    assert kapso_sync("pull", str(folder), "--all", "--force", environment=environment).code == 0
    assert (folder / "greet.js").read_text() == answering("by hand")


def test_pull_only_writes_the_named_function(kapso: Served, environment: Environment, tmp_path: Path) -> None:
    """An unknown slug is a usage error that lists the known ones."""
    seed(kapso, "a")
    seed(kapso, "b")
    assert kapso_sync("pull", str(tmp_path / "f"), "--only", "b", environment=environment).code == 0
    assert sorted(path.name for path in (tmp_path / "f").iterdir()) == ["b.js", "manifest.schema.json", "manifest.yaml"]
    unknown = kapso_sync("pull", str(tmp_path / "f"), "--only", "c", environment=environment)
    assert (unknown.code, unknown.err) == (64, "error: not on Kapso: c\nhint: functions there: a, b\n")
    known = kapso_sync("pull", str(tmp_path / "f"), "--only", "b", environment=environment)
    assert "git lists it already; --all rewrites what git lists" in known.out


@pytest.mark.parametrize("source", ["https://git.example/acme/flows", "git@git.example:acme/flows.git"])
def test_pull_into_a_git_url_is_a_usage_error(environment: Environment, source: str) -> None:
    """The hint says what to do instead."""
    ran = kapso_sync("pull", source, environment=environment)
    assert ran.code == 64
    assert "hint: clone it, and name the clone" in ran.err


def test_pull_as_json_prints_one_document(project: Served, environment: Environment, tmp_path: Path) -> None:
    """On stdout, with the same content as the text."""
    document = kapso_sync("pull", str(tmp_path / "f"), "--json", environment=environment).document
    assert document["files"] == ["greet.js", "legacy.js", "twin.js", "manifest.schema.json", "manifest.yaml"]
    results = {function["slug"]: function["result"] for function in document["functions"]}
    assert results == {"greet": "new", "legacy": "new", "theirs": "left", "twin": "new"}


def test_pull_restores_a_wiped_work_tree_in_place(kapso: Served, environment: Environment, tmp_path: Path) -> None:
    """Folders of the Kapso CLI below `functions`, synced, deleted and pulled at the root: git sees no change."""
    tree = tmp_path / "tree"
    for slug in ("greet", "part"):
        home = tree / "functions" / slug
        home.mkdir(parents=True)
        lines = ["entrypoint: index.js", "function_type: cloudflare_worker", "invoke_response_mode: passthrough"]
        lines += [f"name: The {slug}", "public_endpoint: false", "runtime_config: {}", f"slug: {slug}"]
        (home / "function.yaml").write_text("\n".join(lines) + "\n")
        (home / "index.js").write_text(answering(slug))
    git(tree, "init", "--quiet", "--initial-branch=main")
    git(tree, "remote", "add", "origin", "https://git.example/acme/flows.git")
    git(tree, "add", "--all")
    git(tree, "commit", "--quiet", "--message", "One")
    assert kapso_sync("sync", str(tree), environment=environment).code == 0
    git(tree, "rm", "-r", "--quiet", "functions")
    ran = kapso_sync("pull", str(tree), "--layout", "kapso", environment=environment)
    assert ran.code == 0, ran.out + ran.err
    git(tree, "add", "--all")
    assert git(tree, "status", "--porcelain") == ""


def test_pull_into_a_functions_folder_that_is_a_symlink_outside_is_refused(
    kapso: Served, environment: Environment, tmp_path: Path
) -> None:
    """Nothing is written outside of the source."""
    seed(kapso, "a")
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "functions").symlink_to(tmp_path / "outside")
    ran = kapso_sync("pull", str(tmp_path / "source"), "--path", "functions", environment=environment)
    assert ran.code == 78
    assert not (tmp_path / "outside").exists()


def test_pull_warns_once_that_a_base_has_no_secrets(kapso: Served, environment: Environment, tmp_path: Path) -> None:
    """Everything else is pulled."""
    seed(kapso, "a")
    seed(kapso, "b")
    kapso.faults({"what": "status", "status": 404, "method": "GET", "route": "/functions/{id}/secrets"})
    ran = kapso_sync("pull", str(tmp_path / "f"), environment=environment)
    kapso.faults()
    assert ran.code == 0
    assert ran.out.count("Kapso does not list the names of secrets here") == 1


def test_pull_does_not_write_into_a_broken_manifest(kapso: Served, folder: Path, environment: Environment) -> None:
    """Exit code 65, with the place."""
    seed(kapso, "new")
    (folder / "manifest.yaml").write_text("version: 1\nfunctions:\n  greet: {fil: greet.js}\n")
    ran = kapso_sync("pull", str(folder), environment=environment)
    assert ran.code == 65
    assert "manifest.yaml:3:11" in ran.err
    assert not (folder / "new.js").exists()


def test_a_rename_that_the_cli_map_shows_is_blocked_until_a_person_decides(
    kapso: Served, environment: Environment, tmp_path: Path
) -> None:
    """A slug of git is gone, but the id in remote-map.json has another slug: nothing is done."""
    tree = tmp_path / "tree"
    write_functions(tree / "functions", {"old": answering("old")})
    git(tree, "init", "--quiet", "--initial-branch=main")
    noted = seed(kapso, "renamed", code=answering("old"))
    (tree / ".kapso").mkdir()
    (tree / ".kapso" / "remote-map.json").write_text(json.dumps({"functions": {"old": {"id": noted, "slug": "old"}}}))
    git(tree, "add", "--all")
    git(tree, "commit", "--quiet", "--message", "One")
    expected = (
        "`old` is not on Kapso, but .kapso/remote-map.json knows it by the id of `renamed`: was it renamed there? "
        "Give git the slug `renamed`, or rename it back"
    )
    for source in (str(tree), str(tree / "functions"), tree.as_uri()):
        warnings = kapso_sync("plan", source, "--json", environment=environment).document["warnings"]
        assert [warning["message"] for warning in warnings if warning["code"] == "renamed-on-kapso"] == [expected], source
    kapso.edit("renamed", description="x [kapso-sync:somebody/else#123456]")
    left = kapso_sync("plan", str(tree), "--json", environment=environment).document["warnings"]
    assert [warning["code"] for warning in left] == ["temporary-owner"]


MODULE = "export default async function handler(request) {\n  return new Response('hi');\n}\n"


@pytest.mark.parametrize("base", ["/api/v1", "/platform/v1"])
def test_a_pulled_module_stays_a_module_where_modules_are_compiled(
    project: Served, environment: Environment, tmp_path: Path, base: str
) -> None:
    """The entry sets the style of the module, so plan after pull has no changes."""
    project.control("POST", "/functions", {"function": {"slug": "mod", "name": "Mod", "code": MODULE}, "deployed": True})
    there = {**environment, "KAPSO_API_BASE_URL": project.emulator.base(base)}
    folder = tmp_path / "functions"
    assert kapso_sync("pull", str(folder), "--only", "mod", environment=there).code == 0
    assert "contract: module" in (folder / "manifest.yaml").read_text()
    (step,) = kapso_sync("plan", str(folder), "--json", environment=there).document["functions"]
    assert (step["action"], step["fields"]) == ("adopt", ["ownership"])
    assert (folder / "mod.js").read_text() == MODULE
