"""``validate`` reports every problem as text, JSON or GitHub annotations, and checks types on request."""

from __future__ import annotations

from pathlib import Path

import pytest
from inline_snapshot import snapshot

from tests.build.workbench import needs_esbuild
from tests.program import answering, git, kapso_sync, write_functions
from tests.served import Served

FAULTY = "import x from '../outside.js';\nconst key = 'sk_live_0123456789abcdef';\nfunction* handler(request) {}\n"


@pytest.fixture
def faulty(tmp_path: Path) -> Path:
    """A repository whose functions folder lies two folders deep."""
    folder = tmp_path / "apps" / "100%, flows"
    write_functions(folder, {"broken": FAULTY, "greet": answering("x")})
    git(tmp_path, "init", "--quiet")
    return folder


def test_validate_prints_all_problems_with_place_and_hint(faulty: Path) -> None:
    """Place, line, caret, and what to do; warnings come after the errors."""
    ran = kapso_sync("validate", str(faulty))
    assert (ran.code, ran.out) == (65, "2 problems found.\n")
    assert ran.err == snapshot("""\
error: broken.js:1:15: `../outside.js` leads out of the functions folder
     1 | import x from '../outside.js';
                       ^
hint: move what it names into the folder
error: broken.js:3:1: the handler is a generator
     1 | import x from '../outside.js';
     2 | const key = '[redacted]';
     3 | function* handler(request) {}
         ^
hint: drop the `*`
warning: broken.js:2:14: this looks like a credential: anyone who reads git has it; use a secret
warning: broken.js:3:11: the handler never returns anything; it must return a `Response`
""")


def test_a_hint_is_printed_below_each_problem_that_it_is_for(tmp_path: Path) -> None:
    """Once at the end only if all problems have it."""
    start, hint = (
        "version: 1\nfunctions:\n  a: {deploy: no}\n  b: {deploy: no}\n",
        "hint: write true or false, without quotes\n",
    )
    for more, hints in (("", 1), ("  c: {colour: red}\n", 2), ("  c: {public_endpoint: maybe}\n", 2)):
        (tmp_path / "manifest.yaml").write_text(start + more)
        ran = kapso_sync("validate", str(tmp_path))
        assert ran.err.count(hint) == hints
        assert ran.err.endswith(hint) is (not more)


def test_validate_json_has_file_line_and_column(faulty: Path) -> None:
    """For problems and warnings alike."""
    document = kapso_sync("validate", str(faulty), "--json").document
    assert document["valid"] is False
    assert [(p["code"], p["file"], p["line"], p["column"]) for p in document["problems"]] == [
        ("import-outside", "broken.js", 1, 15),
        ("generator", "broken.js", 3, 1),
    ]
    assert [(w["code"], w["file"], w["line"]) for w in document["warnings"]] == [
        ("credential", "broken.js", 2),
        ("no-answer", "broken.js", 3),
    ]


def test_validate_reads_the_fixtures_of_every_function(faulty: Path) -> None:
    """Also of one without checks, and of one whose code is invalid: `test` would find them later, and one after the other."""
    (faulty / "greet.fetch.yaml").write_text("- url: x\n  answr: {}\n", encoding="utf-8")
    (faulty / "greet.db.sql").write_text("CREATE TABLE a (b); INSERT INTO c VALUES (1);\n", encoding="utf-8")
    (faulty / "broken.kv.json").write_text("[1]\n", encoding="utf-8")
    document = kapso_sync("validate", str(faulty), "--json").document
    found = [(p["code"], p["file"], p["line"], p["column"]) for p in document["problems"] if p["file"] != "broken.js"]
    assert found == [
        ("value", "broken.kv.json", 1, 1),
        ("missing", "greet.fetch.yaml", 1, 3),
        ("unknown-key", "greet.fetch.yaml", 2, 3),
    ]
    (faulty / "greet.fetch.yaml").unlink()
    assert "greet.db.sql:1:21: SQLite refuses it: no such table: c" in kapso_sync("validate", str(faulty)).err


def test_an_unusable_file_is_not_reported_as_unlisted(tmp_path: Path) -> None:
    """It is too large, or one of two that an entry may mean; another file really is unlisted."""
    write_functions(tmp_path, {"greet": answering("x"), "large": answering("x" * 2**20), "twice": answering("x")})
    for name in ("twice.ts", "stray.js"):
        (tmp_path / name).write_text(answering("x"), encoding="utf-8")
    manifest = tmp_path / "manifest.yaml"
    manifest.write_text(manifest.read_text(encoding="utf-8").replace("file: twice.js", "name: Twice"), encoding="utf-8")
    document = kapso_sync("validate", str(tmp_path), "--json").document
    assert [problem["code"] for problem in document["problems"]] == ["unreadable-file", "two-files"]
    assert [warning["message"] for warning in document["warnings"]] == ["1 code file is named by no entry: stray.js"]


def test_validate_prints_github_annotations(faulty: Path) -> None:
    """Paths are relative to the repository's root, and special characters are escaped."""
    ran = kapso_sync("validate", str(faulty), "--github")
    assert ran.code == 65
    assert ran.err == ""
    assert ran.out == snapshot("""\
::error file=apps/100%25%2C flows/broken.js,line=1,col=15,title=import-outside::`../outside.js` leads out of the functions folder%0Ahint: move what it names into the folder
::error file=apps/100%25%2C flows/broken.js,line=3,col=1,title=generator::the handler is a generator%0Ahint: drop the `*`
::warning file=apps/100%25%2C flows/broken.js,line=2,col=14,title=credential::this looks like a credential: anyone who reads git has it; use a secret
::warning file=apps/100%25%2C flows/broken.js,line=3,col=11,title=no-answer::the handler never returns anything; it must return a `Response`
2 problems found.
""")  # noqa: E501 - an annotation is one line


@pytest.mark.parametrize("manifest", ["version: 1\nfunctions:\n  KEYS\n", "version: 1\nKEYS\n"])
def test_validate_counts_all_problems_and_prints_the_first(tmp_path: Path, manifest: str) -> None:
    """Thousands of entries without a file, as well as thousands of mistakes in the manifest."""
    keys = "\n  ".join(f"k{number}: " for number in range(3000))
    (tmp_path / "manifest.yaml").write_text(
        manifest.replace("KEYS", keys if "functions" in manifest else keys.replace("  ", ""))
    )
    ran = kapso_sync("validate", str(tmp_path))
    assert (ran.code, ran.out) == (65, "3000 problems found.\n")
    assert ran.err.count("error: manifest.yaml:") == 100
    assert "and 2900 more mistakes, which are not shown" in ran.err
    for output in ("--json", "--github"):
        assert len(kapso_sync("validate", str(tmp_path), output).out) < 100_000


def test_a_broken_manifest_is_a_github_annotation(faulty: Path) -> None:
    """It is then the only one."""
    (faulty / "manifest.yaml").write_text("version: 1\nfunctions:\n  greet:\n    fil: x.js\n")
    ran = kapso_sync("validate", str(faulty), "--github")
    assert ran.out.startswith("::error file=apps/100%25%2C flows/manifest.yaml,line=4,col=5,title=unknown-key::")


@pytest.mark.parametrize("output", [(), ("--json",), ("--github",)])
@pytest.mark.parametrize("written", ["CANARY", "{env: 'CANARY'}", "{vaule: CANARY}", "CANARY: x", "[CANARY"])
def test_no_output_of_validate_quotes_a_secret_in_the_manifest(tmp_path: Path, output: tuple[str, ...], written: str) -> None:
    """Another value is quoted, by all of them."""
    for key, is_quoted in (("secrets", False), ("checks", True)):
        value = written if key == "secrets" else "CANARY"
        text = f"version: 1\nfunctions:\n  hello:\n    {key}:\n      API_KEY: {value}\n"
        text = text if key == "secrets" else text.replace("      API_KEY: ", "      ")
        (tmp_path / "manifest.yaml").write_text(text.replace("CANARY", "Zx9-hunter2-Qq71LmN0pp"), encoding="utf-8")
        ran = kapso_sync("validate", str(tmp_path), *output)
        assert ran.code == 65
        assert ("hunter2" in ran.out + ran.err) is is_quoted


def test_validate_json_and_github_together_are_a_usage_error(faulty: Path) -> None:
    """--json and --github exclude each other."""
    assert kapso_sync("validate", str(faulty), "--json", "--github").code == 64


@needs_esbuild
def test_type_check_runs_the_repositorys_typescript_compiler(tmp_path: Path) -> None:
    """Only with the flag, and for no other command; its findings are problems, and it does not get the API key."""
    folder = tmp_path / "functions"
    write_functions(folder, {"greet": answering("x")})
    (folder / "sum.ts").write_text("export default () => {\n  const sum: string = 1;\n  return new Response(sum);\n};\n")
    (folder / "manifest.yaml").write_text("version: 1\nfunctions:\n  sum:\n  greet:\n")
    git(tmp_path, "init", "--quiet")
    ran = kapso_sync("validate", str(folder), "--types")
    assert (ran.code, ran.err) == (0, "warning: types are not checked: TypeScript is not installed in the repository\n")
    tsc = tmp_path / "node_modules" / ".bin" / "tsc"
    tsc.parent.mkdir(parents=True)
    tsc.write_text(
        f"#!/bin/sh\nenv >> {tmp_path / 'ran'}\n"
        "echo \"sum.ts(2,9): error TS2322: Type 'number' is not assignable to type 'string'.\"; exit 2\n"
    )
    tsc.chmod(0o755)
    ran = kapso_sync("validate", str(folder), "--types")
    assert ran.err == "warning: types are not checked: there is no tsconfig.json\n"
    (folder / "tsconfig.json").write_text("{}")
    assert kapso_sync("validate", str(folder)).code == 0
    assert not (tmp_path / "ran").exists()
    ran = kapso_sync("validate", str(folder), "--types", environment={"KAPSO_API_KEY": "sesame"})
    assert ran.code == 65
    assert ran.err == snapshot("""\
error: sum.ts:2:9: Type 'number' is not assignable to type 'string'. (TS2322)
     1 | export default () => {
     2 |   const sum: string = 1;
                 ^
hint: the types do not fit
""")
    assert "sesame" not in (tmp_path / "ran").read_text()
    tsc.write_text("#!/bin/sh\necho 'out of memory' >&2; exit 134\n")
    ran = kapso_sync("validate", str(folder), "--types")
    assert "error: tsc ended with 134: out of memory" in ran.err


def test_type_check_of_a_git_source_is_skipped_with_a_note(tmp_path: Path) -> None:
    """No program runs."""
    write_functions(tmp_path / "functions", {"greet": answering("x")})
    for command in (
        ("init", "--quiet", "--initial-branch=main"),
        ("add", "--all"),
        ("commit", "--quiet", "--message", "Begin"),
    ):
        git(tmp_path, *command)
    ran = kapso_sync("validate", tmp_path.as_uri(), "--types", environment={"KAPSO_SYNC_STATE_DIR": str(tmp_path / "state")})
    assert (ran.code, ran.err) == (0, "warning: types are not checked: a git source has no node_modules\n")


@needs_esbuild
def test_only_sync_writes_the_build_cache(tmp_path: Path, kapso: Served) -> None:
    """`validate` and `plan` write nothing; after a `sync` the builds are in the state folder, and the next pass is in sync."""
    folder, state = tmp_path / "functions", tmp_path / "state"
    write_functions(folder, {"greet": answering("x")})
    (folder / "sum.ts").write_text("import { x } from './lib/x';\nexport default () => new Response(x as string);\n")
    (folder / "lib").mkdir()
    (folder / "lib" / "x.ts").write_text("export const x = 'x';\n")
    (folder / "manifest.yaml").write_text("version: 1\nfunctions:\n  sum:\n  greet:\n")
    environment = kapso.environment(state)
    assert kapso_sync("validate", str(folder), environment=environment).code == 0
    assert kapso_sync("plan", str(folder), environment=environment).code == 0
    assert not list(state.rglob("builds"))
    assert kapso_sync("sync", str(folder), environment=environment).code == 0
    assert len(list(state.rglob("builds/*.json"))) == 3  # the build, what was found in the files, and the result
    without = {**environment, "KAPSO_SYNC_ESBUILD": "/nowhere/esbuild"}
    assert kapso_sync("plan", str(folder), "--json", environment=without).document["in_sync"] is True
    (folder / "lib" / "x.ts").write_text("export const x = 'y';\n")
    (step,) = [
        step
        for step in kapso_sync("plan", str(folder), "--json", environment=environment).document["functions"]
        if step["action"] != "none"
    ]
    assert (step["slug"], step["action"], step["fields"]) == ("sum", "update", ["code"])
    (step,) = [
        step
        for step in kapso_sync("plan", str(folder), "--json", environment=without).document["functions"]
        if step["action"] != "none"
    ]
    assert (step["slug"], step["action"]) == ("sum", "blocked")
    assert "KAPSO_SYNC_ESBUILD" in step["reasons"][-1]
