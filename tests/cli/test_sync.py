"""``sync`` and ``plan`` as a user meets them: words, JSON and exit codes."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from pathlib import Path

import pytest

from tests.program import answering, git, kapso_sync, write_functions
from tests.served import Served
from tests.sources.servers import GitServer, serving

Environment = dict[str, str]


def test_sync_creates_and_deploys_the_functions_of_a_folder(kapso: Served, folder: Path, environment: Environment) -> None:
    """The second run is one call and no write."""
    ran = kapso_sync("sync", str(folder), environment=environment)
    assert (ran.code, ran.out.splitlines()[:2]) == (0, ["+ 2 created, live: greet, part", ran.out.splitlines()[1]])
    assert kapso.world.live_code() == {"greet": answering("hello"), "part": answering("bye")}
    kapso.forget_requests()
    again = kapso_sync("sync", str(folder), environment=environment)
    assert again.out.startswith("2 in sync. 1 API call, ")
    assert kapso.calls() == ["GET /functions"]
    status = kapso_sync("status", str(folder), environment=environment)
    assert "exit code 0, 1 API call\n" in status.out


def test_an_in_sync_pass_logs_only_its_start_and_end(folder: Path, environment: Environment) -> None:
    """The log says when it checked and that nothing changed."""
    kapso_sync("sync", str(folder), environment=environment)
    ran = kapso_sync("sync", str(folder), environment=environment)
    assert [event["event"] for event in ran.events] == ["source.changed", "plan.computed", "reconcile.finished"]


def test_log_lines_have_pass_id_and_revision(folder: Path, environment: Environment) -> None:
    """Every line of a pass has its id, and its revision once that is known; the counts are right."""
    ran = kapso_sync("sync", str(folder), environment=environment)
    assert len({event["reconcile_id"] for event in ran.events}) == 1
    assert all(event["revision"].startswith("folder:") for event in ran.events if event["event"] != "source.changed")
    finished = ran.event("reconcile.finished")
    assert (finished["created"], finished["deployed"], finished["failed"]) == (2, 2, 0)
    assert {event["slug"] for event in ran.events if event["event"] == "deploy.succeeded"} == {"greet", "part"}


def test_plan_makes_no_write_call_and_no_state_folder(kapso: Served, folder: Path, environment: Environment) -> None:
    """It only lists functions."""
    ran = kapso_sync("plan", str(folder), environment=environment)
    assert ran.code == 0
    assert "2 to create; 0 in sync." in ran.out
    assert kapso.calls() == ["GET /functions"]
    assert not Path(environment["KAPSO_SYNC_STATE_DIR"]).exists()
    assert (
        kapso_sync("sync", str(folder), "--dry-run", environment=environment).out.splitlines()[2:] == ran.out.splitlines()[2:]
    )


def test_plan_as_json_has_the_documented_shape(folder: Path, environment: Environment) -> None:
    """One document on stdout and nothing else there."""
    plan = kapso_sync("plan", str(folder), "--json", environment=environment).document
    assert set(plan) == {"source", "revision", "owner", "in_sync", "digest", "summary", "functions", "warnings"}
    assert plan["summary"]["create"] == 2
    first = plan["functions"][0]
    assert set(first) == {
        *("slug", "id", "action", "deploy", "origin", "fields", "reasons", "file", "desired_hash", "remote_hash", "diff"),
        "packages",
    }
    assert first["packages"] == []
    assert (first["slug"], first["action"], first["origin"], first["deploy"]) == ("greet", "create", "new", True)
    assert first["reasons"] == ["in the manifest, not on Kapso"]


def test_sync_as_json_has_the_outcome_of_each_function(folder: Path, environment: Environment) -> None:
    """The plan's document with the outcomes added."""
    write_functions(folder, {"broken": "async function handler( {", "greet": answering("hello")})
    ran = kapso_sync("sync", str(folder), "--json", environment=environment)
    assert (ran.code, ran.document["exit_code"]) == (1, 1)
    outcomes = {outcome["slug"]: outcome for outcome in ran.document["outcomes"]}
    assert (outcomes["broken"]["result"], outcomes["greet"]["result"]) == ("invalid", "done")
    assert "broken.js:1:" in outcomes["broken"]["error"]


def test_detailed_exit_codes_separate_git_changes_from_drift(kapso: Served, folder: Path, environment: Environment) -> None:
    """0 in sync, 2 when git is ahead, 3 for drift alone; without the flag always 0."""

    def code(*flags: str) -> int:
        return kapso_sync("plan", str(folder), *flags, environment=environment).code

    assert (code("--detailed-exitcode"), code()) == (2, 0)
    kapso_sync("sync", str(folder), environment=environment)
    assert code("--detailed-exitcode") == 0
    kapso.edit("greet", name="By hand")
    assert code("--detailed-exitcode") == 0, "a field that the manifest leaves out is not managed"
    kapso.edit("greet", code=answering("by hand"))
    assert (code("--detailed-exitcode"), code()) == (3, 0)
    write_functions(folder, {"greet": answering("hello"), "part": answering("changed")})
    assert code("--detailed-exitcode") == 2


def test_expect_applies_only_the_plan_that_was_read(kapso: Served, folder: Path, environment: Environment) -> None:
    """A digest from before the change is refused with 1, and nothing is written."""
    digest = kapso_sync("plan", str(folder), "--json", environment=environment).document["digest"]
    write_functions(folder, {"greet": answering("other")})
    refused = kapso_sync("sync", str(folder), "--expect", digest, environment=environment)
    assert refused.code == 1
    assert "git or Kapso changed since it was read" in refused.err
    assert not kapso.world.functions
    digest = kapso_sync("plan", str(folder), "--json", environment=environment).document["digest"]
    assert kapso_sync("sync", str(folder), "--expect", digest, environment=environment).code == 0


def test_sync_only_touches_the_named_function(kapso: Served, folder: Path, environment: Environment) -> None:
    """An unknown slug is a usage error."""
    assert kapso_sync("sync", str(folder), "--only", "part", environment=environment).code == 0
    assert [function.slug for function in kapso.world.functions.values()] == ["part"]
    overwritten = kapso_sync("sync", str(folder), "--overwrite", "gret", environment=environment)
    assert (overwritten.code, overwritten.err.splitlines()[-1]) == (64, "hint: did you mean `greet`?")
    unknown = kapso_sync("sync", str(folder), "--only", "nope", environment=environment)
    assert (unknown.code, unknown.err.splitlines()[-2:]) == (
        64,
        ["error: unknown slug: nope", "hint: known are: greet, part"],
    )


def test_a_422_for_one_function_does_not_stop_the_others(kapso: Served, folder: Path, environment: Environment) -> None:
    """Exit code 1; the reason is shown, and all others are live."""
    kapso.faults({"what": "status", "status": 422, "method": "POST", "route": "/functions", "slug": "greet"})
    ran = kapso_sync("sync", str(folder), environment=environment)
    assert ran.code == 1
    assert "x greet  failed" in ran.out
    assert kapso.world.live_code() == {"part": answering("bye")}
    assert ran.event("function.failed")["error_type"] == "ApiRejected"


def test_a_rejected_api_key_exits_with_77_after_one_call(kapso: Served, folder: Path, environment: Environment) -> None:
    """The hint says where to find the right key."""
    ran = kapso_sync("sync", str(folder), environment={**environment, "KAPSO_API_KEY": "wrong-key-1234"})
    assert ran.code == 77
    assert len(kapso.requests()) <= 3
    assert ran.event("api.unauthorized")["hint"]
    assert "wrong-key-1234" not in ran.out + ran.err


def test_an_api_that_is_down_exits_with_69(folder: Path, environment: Environment) -> None:
    """Nothing listens: one error line with the address, no traceback."""
    down = {**environment, "KAPSO_API_BASE_URL": "http://127.0.0.1:9/api/v1", "KAPSO_SYNC_REQUEST_TIMEOUT": "1s"}
    ran = kapso_sync("plan", str(folder), environment=down)
    assert ran.code == 69
    assert ran.err.splitlines()[-2].startswith("error: no connection to 127.0.0.1:9")


def test_a_broken_manifest_exits_with_65_and_shows_line_and_column(
    kapso: Served, folder: Path, environment: Environment
) -> None:
    """Every problem of the file at once; the API is not called."""
    (folder / "manifest.yaml").write_text(
        "version: 1\nfunctions:\n  greet:\n    file: greet.js\n    protectd: yes\n    timeout: [\n"
    )
    ran = kapso_sync("sync", str(folder), environment=environment)
    assert ran.code == 65
    assert "manifest.yaml:" in ran.err
    (folder / "manifest.yaml").write_text("version: 1\nfunctions:\n  greet:\n    file: greet.js\n    protectd: true\n")
    ran = kapso_sync("sync", str(folder), environment=environment)
    assert (ran.code, kapso.calls()) == (65, [])
    assert "manifest.yaml:5:5: functions.greet.protectd" in ran.err
    assert "protected" in ran.err


def test_a_locked_state_folder_exits_with_75(folder: Path, environment: Environment) -> None:
    """The error names the process; a plan needs no lock."""
    from kapso_sync.store.lock import held
    from tests.builders import DAWN

    kapso_sync("sync", str(folder), environment=environment)
    (state,) = [path for path in Path(environment["KAPSO_SYNC_STATE_DIR"]).iterdir() if path.is_dir()]
    with held(state, DAWN):
        ran = kapso_sync("sync", str(folder), environment=environment)
        assert ran.code == 75
        assert "error: another kapso-sync holds the state folder" in ran.err
        assert kapso_sync("plan", str(folder), environment=environment).code == 0
        assert kapso_sync("status", str(folder), environment=environment).code == 0


def test_a_missing_folder_exits_with_78(tmp_path: Path, environment: Environment) -> None:
    """The error has a hint, and the API is not called."""
    ran = kapso_sync("sync", str(tmp_path / "nowhere"), environment=environment)
    assert ran.code == 78
    assert "nowhere" in ran.err


def test_a_branch_tag_or_commit_is_synced_without_uncommitted_files(
    kapso: Served, folder: Path, environment: Environment, tmp_path: Path
) -> None:
    """From a repository only committed files count."""
    repository = tmp_path / "repository"
    (repository).mkdir()
    git(repository, "init", "--quiet", "--initial-branch=main")
    write_functions(repository / "functions", {"greet": answering("one")})
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "--message", "One")
    git(repository, "tag", "v1")
    write_functions(repository / "functions", {"greet": answering("two")})
    git(repository, "commit", "--quiet", "--all", "--message", "Two")
    write_functions(repository / "functions", {"greet": answering("not committed")})
    ran = kapso_sync("sync", repository.as_uri(), environment=environment)
    assert ran.code == 0, ran.err
    assert kapso.world.live_code() == {"greet": answering("two")}
    changed = ran.event("source.changed")
    assert (changed["subject"], changed["author"]) == ("Two", "Ada")
    assert changed["revision"] == git(repository, "rev-parse", "HEAD").strip()
    assert kapso_sync("sync", repository.as_uri(), "--ref", "v1", environment=environment).code == 0
    assert kapso.world.live_code() == {"greet": answering("one")}


def test_every_spelling_of_a_source_has_one_owner(environment: Environment, tmp_path: Path) -> None:
    """The remote, with or without its default folder, and a clone of it own the same functions."""
    remote, clone = tmp_path / "remote", tmp_path / "clone"
    remote.mkdir()
    git(remote, "init", "--quiet", "--initial-branch=main")
    write_functions(remote / "functions", {"greet": answering("hello")})
    git(remote, "add", "--all")
    git(remote, "commit", "--quiet", "--message", "One")
    git(tmp_path, "clone", "--quiet", remote.as_uri(), str(clone))
    spellings = [(remote.as_uri(),), (remote.as_uri(), "--path", "functions"), (str(clone),), (str(clone / "functions"),)]
    plans = [kapso_sync("plan", *spelling, "--json", environment=environment).document for spelling in spellings]
    assert {plan["owner"] for plan in plans} == {f"file{remote}//functions"}
    assert len({plan["digest"] for plan in plans}) == 1


def test_an_unavailable_git_server_exits_with_69_and_is_logged(environment: Environment) -> None:
    """The log has `source.failed`, and the API is not called."""
    ran = kapso_sync("sync", "https://127.0.0.1:9/acme/flows", environment=environment)
    assert ran.code == 69
    assert ran.event("source.failed")["hint"]


@pytest.mark.parametrize("obstacle", ["branch", "repository", "token", "git", "mirror", "redirect", "sha256"])
def test_whatever_keeps_the_source_from_being_read_is_logged_as_source_failed(
    obstacle: str, environment: Environment, tmp_path: Path
) -> None:
    """A dashboard that follows `source.failed` misses none; `reconcile.failed` comes with it, and a good source has neither."""
    repository = tmp_path / "upstream"
    repository.mkdir()
    git(repository, "init", "--quiet", *(["--object-format=sha256"] if obstacle == "sha256" else []))
    write_functions(repository / "functions", {"greet": answering("hello")})
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "--message", "One")
    source, flags, settings = repository.as_uri(), list[str](), {**environment, "KAPSO_SYNC_LOG_LEVEL": "info"}
    if obstacle != "sha256":
        good = kapso_sync("sync", source, environment=settings)
        assert not {"source.failed", "reconcile.failed"} & {event["event"] for event in good.events}
    with contextlib.ExitStack() as stack:
        match obstacle:
            case "branch":
                flags = ["--branch", "gone"]
            case "repository":
                (repository / ".git/HEAD").unlink()
            case "token":
                settings["KAPSO_SYNC_GIT_TOKEN_FILE"] = str(tmp_path / "absent")
                source = "https://127.0.0.1:9/acme/flows"
            case "git":
                settings["PATH"] = str(tmp_path)
            case "mirror":
                (mirror,) = tmp_path.rglob("mirror")
                shutil.rmtree(mirror)
                mirror.write_text("in the way")
                git(repository, "commit", "--quiet", "--allow-empty", "--message", "Two")
            case "redirect":
                other = stack.enter_context(serving(GitServer(tmp_path, redirect="http://127.0.0.1:9")))
                source = f"{other.url}/upstream"
        failed = kapso_sync("sync", source, *flags, environment=settings)
    assert failed.code in (69, 78), failed.err
    assert failed.event("source.failed")["error"] == failed.event("reconcile.failed")["error"]
    assert failed.event("source.failed")["hint"]


def test_a_misspelt_setting_is_a_warning_with_a_suggestion(folder: Path, environment: Environment) -> None:
    """It has no effect otherwise."""
    ran = kapso_sync("plan", str(folder), "--json", environment={**environment, "KAPSO_SYNC_PRUNNE": "true"})
    assert [warning for warning in ran.document["warnings"] if warning["code"] != "temporary-owner"] == [
        {
            "code": "unknown-setting",
            "message": "KAPSO_SYNC_PRUNNE is not a setting; did you mean KAPSO_SYNC_PRUNE?",
            "location": None,
        }
    ]


def test_taking_from_an_owner_that_no_function_has_is_a_usage_error(
    kapso: Served, folder: Path, environment: Environment
) -> None:
    """A wrong spelling would do nothing, silently; an owner that one has is taken from, and named where another is meant."""
    first = {**environment, "KAPSO_SYNC_OWNER": "acme/first"}
    assert kapso_sync("sync", str(folder), environment=first).code == 0
    second = {**environment, "KAPSO_SYNC_OWNER": "acme/second", "KAPSO_SYNC_STATE_DIR": f"{folder}-state"}
    wrong = kapso_sync("sync", str(folder), "--take-from", "nope", environment=second)
    assert (wrong.code, wrong.err.splitlines()[-2:]) == (
        64,
        ["error: --take-from nope: no function on Kapso has this owner", "hint: others are: acme/first"],
    )
    assert kapso_sync("sync", str(folder), "--take-from", "acme/first", environment=second).code == 0
    assert all("acme/second" in (function.description or "") for function in kapso.world.functions.values())


def test_an_empty_env_file_is_not_given_and_an_empty_slug_is_refused(folder: Path, environment: Environment) -> None:
    """A script's variable may be empty: without --only the command would mean all functions."""
    assert kapso_sync("plan", str(folder), "--env-file", "", environment=environment).code == 0
    for flag in ("--only", "--retry", "--overwrite", "--take-from", "--delete"):
        ran = kapso_sync("sync", str(folder), flag, "", environment=environment)
        assert (ran.code, f"invalid value for '{flag}': it is empty" in ran.err) == (64, True)


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("KAPSO_SYNC_CONCURRENCY", "0", "expected at least 1"),
        ("KAPSO_SYNC_DEPLOY_TIMEOUT", "0s", "expected a duration above zero"),
        ("KAPSO_SYNC_MAX_DELETE", "200%", "from 1% to 100%"),
        ("KAPSO_SYNC_PRUNE", "perhaps", "expected true or false"),
        ("KAPSO_API_BASE_URL", "http://kapso.example/api/v1", "https"),
    ],
)
def test_invalid_settings_exit_with_78(folder: Path, environment: Environment, variable: str, value: str, said: str) -> None:
    """The error names the variable and what was expected."""
    ran = kapso_sync("sync", str(folder), environment={**environment, variable: value})
    assert ran.code == 78
    assert said in ran.err


def test_prune_without_a_git_remote_or_an_owner_setting_is_refused(folder: Path, environment: Environment) -> None:
    """The owner of a folder without a remote is its path, which may change."""
    ran = kapso_sync("sync", str(folder), "--prune", environment=environment)
    assert ran.code == 78
    assert "KAPSO_SYNC_OWNER" in ran.err


def test_the_deletion_grace_setting_delays_prune_and_delete_overrides_it(
    kapso: Served, folder: Path, environment: Environment
) -> None:
    """By default `sync` does not wait; `--delete` accepts only functions of ours that left git."""
    owned = {**environment, "KAPSO_SYNC_OWNER": "acme/flows"}
    kapso_sync("sync", str(folder), environment=owned)
    write_functions(folder, {"greet": answering("hello")})
    waiting = kapso_sync("sync", str(folder), "--prune", "--prune-grace", "1h", environment=owned)
    assert (waiting.code, waiting.event("prune.pending")["slug"]) == (0, "part")
    planned = kapso_sync("plan", str(folder), "--prune", "--prune-grace", "1h", "--json", environment=owned).document
    assert planned["in_sync"]
    assert planned["functions"][1]["reasons"][1].startswith("saved first as backups/part/")
    wrong = kapso_sync("sync", str(folder), "--delete", "greet", environment=owned)
    assert (wrong.code, "git lists it" in wrong.err) == (64, True)
    assert kapso_sync("sync", str(folder), "--delete", "part", environment=owned).code == 0
    assert set(kapso.world.live_code()) == {"greet"}


def test_two_environments_of_one_manifest_have_separate_owners(kapso: Served, folder: Path, environment: Environment) -> None:
    """Each has its own functions in one project and ignores the other's; an unknown environment is refused."""
    owned = {**environment, "KAPSO_SYNC_OWNER": "acme/flows", "KAPSO_SYNC_PRUNE": "true"}
    manifest = (folder / "manifest.yaml").read_text(encoding="utf-8")
    leaves_out = ("    functions: {part: false}", "    functions: {greet: null}")
    extra = "".join(f"  {name}:\n{line}\n" for name, line in zip(("one", "two"), leaves_out, strict=True))
    (folder / "manifest.yaml").write_text(f"{manifest}environments:\n{extra}", encoding="utf-8")
    for name in ("one", "two", "one"):
        ran = kapso_sync("sync", str(folder), "--env", name, environment=owned)
        assert (ran.code, ran.event("reconcile.finished")["deleted"]) == (0, 0)
    assert set(kapso.world.live_code()) == {"greet", "part"}
    wrong = kapso_sync("validate", str(folder), "--env", "tow", environment=owned)
    assert (wrong.code, "there is no environment `tow`; known: one, two" in wrong.err) == (65, True)


def test_the_api_key_is_not_in_output_or_state_files(kapso: Served, folder: Path, environment: Environment) -> None:
    """Not even where the server quotes it."""
    key = environment["KAPSO_API_KEY"]
    body = {"error": f"Key {key} may not do this"}
    kapso.faults({"what": "status", "status": 422, "method": "POST", "route": "/functions", "slug": "greet", "body": body})
    ran = kapso_sync("sync", str(folder), "--log-level", "debug", environment=environment)
    assert key not in ran.out + ran.err
    state = Path(environment["KAPSO_SYNC_STATE_DIR"])
    written = [path.read_bytes() for path in state.rglob("*") if path.is_file()]
    assert any(b"greet" in content for content in written)
    assert all(key.encode() not in content for content in written)
    assert "may not do this" in ran.err + ran.out


def test_status_shows_the_last_pass(folder: Path, environment: Environment) -> None:
    """What changed, when, from which revision, and the state of each function; offline."""
    before = kapso_sync("status", str(folder), environment=environment)
    assert before.code == 0
    assert "No pass was recorded here yet" in before.out
    kapso_sync("sync", str(folder), environment=environment)
    offline = {**environment, "KAPSO_API_KEY": ""}
    shown = kapso_sync("status", str(folder), environment=offline)
    assert re.search(r"^  Ready       2 functions for \d+ s or longer: greet, part$", shown.out, flags=re.MULTILINE)
    document = kapso_sync("status", str(folder), "--json", environment=offline).document
    assert [(function["slug"], function["state"]) for function in document["functions"]] == [
        ("greet", "Ready"),
        ("part", "Ready"),
    ]
    assert (document["in_sync"], document["last_pass"]["exit_code"], document["unfinished"]) == (True, 0, [])


def test_sync_json_is_printed_even_if_a_function_fails(folder: Path, environment: Environment) -> None:
    """JSON goes to stdout, text and logs go to stderr."""
    write_functions(folder, {"broken": "async function handler( {"})
    ran = kapso_sync("plan", str(folder), "--json", environment=environment)
    assert ran.code == 1
    assert json.loads(ran.out)["summary"]["invalid"] == 1


def test_a_folder_that_gets_a_remote_keeps_its_functions(kapso: Served, folder: Path, environment: Environment) -> None:
    """The first sync says that the owner is temporary; with `origin` added, plan, sync and deletions go on as before."""
    first = kapso_sync("sync", str(folder), "--json", environment=environment)
    assert [warning["code"] for warning in first.document["warnings"]] == ["temporary-owner"]
    assert not kapso_sync("plan", str(folder), "--json", environment=environment).document["warnings"]
    git(folder, "init", "--quiet", "--initial-branch=main")
    git(folder, "remote", "add", "origin", "https://github.com/acme/flows.git")
    ids = set(kapso.world.functions)
    planned = kapso_sync("plan", str(folder), "--json", environment=environment).document
    assert (planned["in_sync"], [warning["code"] for warning in planned["warnings"]]) == (True, ["owner-changed"])
    assert kapso_sync("sync", str(folder), environment=environment).code == 0
    later = kapso_sync("plan", str(folder), "--json", environment=environment).document["warnings"]
    assert [warning["code"] for warning in later] == ["owner-changed"], "as long as only this state folder knows"
    write_functions(folder, {"greet": answering("two")})
    assert kapso_sync("plan", str(folder), "--delete", "part", environment=environment).code == 0
    again = kapso_sync("sync", str(folder), "--delete", "part", environment=environment)
    assert (again.code, again.event("reconcile.finished")["deleted"]) == (0, 1)
    assert set(kapso.world.functions) < ids
    (function,) = kapso.world.functions.values()
    assert "[kapso-sync:github.com/acme/flows#" in str(function.description)


def test_what_is_missing_on_this_machine_is_not_sent_to_git(folder: Path, environment: Environment) -> None:
    """A secret's value is set where kapso-sync runs: the hint says how, and the next step names it."""
    write_functions(folder, {"greet": answering("hello")}, "    secrets:\n      TOKEN: {env: TOKEN}\n")
    ran = kapso_sync("sync", str(folder), environment=environment)
    assert ran.code == 1
    assert "hint: put it into an --env-file, or set it where kapso-sync runs, with KAPSO_SYNC_SECRET_ENV=TOKEN" in ran.out
    assert ran.out.splitlines()[-1] == f"next: follow the hint for `greet`, then run `kapso-sync sync {folder}`"


def test_a_missing_secret_is_reported_at_its_value(folder: Path, environment: Environment) -> None:
    """The line of the secret, not that of the function; the hint names the file that may hold values."""
    secrets = "    secrets:\n      A: {value: plain}\n      TOKEN: {env: TOKEN}\n"
    write_functions(folder, {"greet": answering("hello")}, extra=secrets)
    ran = kapso_sync("sync", str(folder), environment=environment)
    invalid = ran.event("function.invalid")
    assert (ran.code, invalid["location"]) == (1, "manifest.yaml:7:14")
    assert "--env-file" in invalid["hint"]


@pytest.mark.parametrize("command", ["plan", "sync"])
def test_where_every_entry_is_broken_each_says_why(command: str, folder: Path, environment: Environment) -> None:
    """A source with broken entries is not an empty one: exit 1, and no hint to allow emptiness."""
    manifest = "version: 1\nfunctions:\n  greet: {file: gone.js}\n  part: {file: ../part.js}\n"
    (folder / "manifest.yaml").write_text(manifest, encoding="utf-8")
    ran = kapso_sync(command, str(folder), environment=environment)
    assert ran.code == 1
    assert "manifest.yaml:3:17: functions.greet: gone.js does not exist" in ran.out
    assert "manifest.yaml:4:16: functions.part.file: '../part.js' leads out of the folder" in ran.out
    assert "empty" not in (ran.out + ran.err).lower()


def test_a_source_without_entries_is_still_an_empty_one(folder: Path, environment: Environment) -> None:
    """The other side of the rule: nothing is listed, and the hint says how that is allowed."""
    (folder / "manifest.yaml").write_text("version: 1\nfunctions: {}\n", encoding="utf-8")
    ran = kapso_sync("sync", str(folder), environment=environment)
    assert ran.code == 65
    assert "--allow-empty" in ran.err


def test_a_function_yaml_renamed_to_yml_is_a_warning_and_deletes_nothing(
    kapso: Served, tmp_path: Path, environment: Environment
) -> None:
    """With prune on, and nobody else to hold it; with its right name again all is as before."""
    folder = tmp_path / "folders"
    for slug in ("greet", "part"):
        (folder / slug).mkdir(parents=True)
        (folder / slug / "function.yaml").write_text(f"name: {slug}\n", encoding="utf-8")
        (folder / slug / "index.js").write_text(answering(slug), encoding="utf-8")
    environment = {**environment, "KAPSO_SYNC_OWNER": "acme/flows", "KAPSO_SYNC_PRUNE": "true"}
    assert kapso_sync("sync", str(folder), environment=environment).code == 0
    (folder / "part/function.yaml").rename(folder / "part/function.yml")
    ran = kapso_sync("sync", str(folder), environment=environment)
    assert ran.code == 1
    assert "part/function.yml is not read: did you mean function.yaml?" in ran.out
    assert ran.event("prune.blocked")["slugs"] == ["part"]
    assert {function.slug for function in kapso.world.functions.values()} == {"greet", "part"}
    (folder / "part/function.yml").rename(folder / "part/function.yaml")
    assert kapso_sync("sync", str(folder), environment=environment).code == 0
    (folder / "part/function.yaml").unlink()
    assert kapso_sync("sync", str(folder), environment=environment).code == 0
    assert {function.slug for function in kapso.world.functions.values()} == {"greet"}


SECRET = "correct-horse-battery-staple-42"
TOKEN = "glpat-abcdefghijklmnopqrst"


@pytest.mark.parametrize("form", [(), ("--json",), ("--format", "markdown")], ids=["text", "json", "markdown"])
def test_reports_are_redacted_as_the_log_is(
    form: tuple[str, ...], kapso: Served, folder: Path, environment: Environment
) -> None:
    """A secret that somebody put into code on Kapso, and a credential by its shape, in the diff of a plan."""
    write_functions(folder, {"greet": answering("hello")}, extra="    secrets:\n      TOKEN: {env: TOKEN}\n")
    environment = {**environment, "TOKEN": SECRET, "KAPSO_SYNC_SECRET_ENV": "TOKEN"}
    assert kapso_sync("sync", str(folder), environment=environment).code == 0
    kapso.edit("greet", code=f"// {SECRET} {TOKEN} stays\n{answering('other')}")
    ran = kapso_sync("plan", str(folder), *form, environment=environment)
    assert ran.code == 0
    assert "stays" in ran.out
    assert SECRET not in ran.out + ran.err
    assert TOKEN not in ran.out + ran.err


@pytest.mark.parametrize("form", [(), ("--json",), ("--github",)], ids=["text", "json", "github"])
def test_a_credential_in_a_broken_line_is_not_shown(form: tuple[str, ...], folder: Path, environment: Environment) -> None:
    """The frame of a problem quotes the manifest."""
    manifest = f"version: 1\nfunctions:\n  greet:\n    secrets: {{A: {{value: {TOKEN}, oops: 1}}}}\n"
    (folder / "manifest.yaml").write_text(manifest, encoding="utf-8")
    for command in (("validate", *form), ("plan",)):
        ran = kapso_sync(command[0], str(folder), *command[1:], environment=environment)
        assert ran.code == 65
        assert "oops" in ran.out + ran.err
        assert TOKEN not in ran.out + ran.err


def test_a_checkout_with_other_line_ends_plans_nothing(kapso: Served, tmp_path: Path, environment: Environment) -> None:
    """What a repository has with LF, a checkout with `eol=crlf` shows with CRLF; a real edit there is still one."""
    work = tmp_path / "work"
    write_functions(work / "functions", {"greet": answering("hello"), "part": answering("bye")})
    for first in (("init", "--quiet"), ("add", "."), ("commit", "--quiet", "-m", "one")):
        git(work, *first)
    environment = {**environment, "KAPSO_SYNC_OWNER": "acme/flows"}
    assert kapso_sync("sync", str(work), environment=environment).code == 0
    (work / ".gitattributes").write_text("* text eol=crlf\n", encoding="utf-8")
    for again in (("add", "."), ("commit", "--quiet", "-m", "two"), ("rm", "--quiet", "--cached", "-r", ".")):
        git(work, *again)
    git(work, "reset", "--quiet", "--hard")
    assert (work / "functions/greet.js").read_bytes() == answering("hello").replace("\n", "\r\n").encode()
    for state in ("state", "another machine"):
        environment["KAPSO_SYNC_STATE_DIR"] = str(tmp_path / state)
        kapso.forget_requests()
        ran = kapso_sync("plan", str(work), "--detailed-exitcode", environment=environment)
        assert (ran.code, ran.out.splitlines()[-1]) == (0, "In sync: 2 functions, nothing to do.")
        assert kapso_sync("sync", str(work), environment=environment).code == 0
        assert [call for call in kapso.calls() if not call.startswith("GET")] == []
    (work / "functions/part.js").write_bytes(answering("changed").replace("\n", "\r\n").encode())
    changed = kapso_sync("plan", str(work), "--json", environment=environment)
    found = {function["slug"]: (function["action"], function["origin"]) for function in changed.document["functions"]}
    assert found == {"greet": ("none", None), "part": ("update", "git")}


@pytest.mark.parametrize("ends", ["crlf", "no final newline", "more newlines", "old Mac"])
def test_a_change_on_kapso_is_drift_whatever_the_line_ends_here(
    ends: str, kapso: Served, folder: Path, environment: Environment
) -> None:
    """Two checkouts take turns; then somebody edits the function on Kapso: git did not change it."""
    code = answering("hello")
    spelled = {
        "crlf": code.replace("\n", "\r\n"),
        "no final newline": code.rstrip("\n"),
        "more newlines": f"{code}\n\n",
        "old Mac": code.replace("\n", "\r"),
    }
    assert kapso_sync("sync", str(folder), environment=environment).code == 0
    (folder / "greet.js").write_bytes(spelled[ends].encode())
    assert kapso_sync("plan", str(folder), "--detailed-exitcode", environment=environment).code == 0
    kapso.edit("greet", code=answering("somebody"))
    ran = kapso_sync("plan", str(folder), "--json", "--detailed-exitcode", environment=environment)
    found = {function["slug"]: function["origin"] for function in ran.document["functions"]}
    assert (ran.code, found["greet"]) == (3, "drift")
