"""The other commands: help, validate, schema, status, invoke, version, emulator, demo."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

import kapso_sync as package
from kapso_sync.cli.app import HABITS, app
from kapso_sync.cli.workerd import PACKAGE, find_workerd
from tests.program import answering, kapso_sync, started, write_functions
from tests.served import Served

Environment = dict[str, str]
EXAMPLES = Path(__file__).parents[2] / "functions.example"


@pytest.mark.parametrize("command", sorted(app.commands))
def test_every_command_help_shows_an_example(command: str) -> None:
    """``--help`` explains the command and shows a line to copy."""
    ran = kapso_sync(command, "--help")
    assert ran.code == 0
    assert f"Example: kapso-sync {command}" in " ".join(ran.out.split())


def test_help_lists_every_command() -> None:
    """The first thing a new user types."""
    ran = kapso_sync("--help")
    assert ran.code == 0
    assert all(f"  {command} " in ran.out for command in app.commands)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sink"], "there is no command `sink`"),
        (["help", "sink"], "there is no command `sink`"),
        (["sync", "--prunne"], "--prunne"),
        (["plan", "a", "b"], "unexpected extra argument"),
        (["invoke", "x", "--timeout", "soon"], "'soon' is not a valid"),
    ],
)
def test_a_usage_error_exits_with_64(arguments: list[str], said: str) -> None:
    """The error names the word that was not understood."""
    ran = kapso_sync(*arguments)
    assert ran.code == 64
    assert said in ran.err


def test_version_imports_no_slow_library() -> None:
    """It must answer at once."""
    heavy = ("httpx", "git", "msgspec", "structlog", "rich", "asyncio", "sqlite3")
    script = (
        "import sys\nfrom kapso_sync.cli.app import run_command_line\ncode = run_command_line(['version'])\n"
        f"print([name for name in {heavy!r} if name in sys.modules], file=sys.stderr)\nsys.exit(code)"
    )
    bare = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    ran = subprocess.run([sys.executable, "-c", script], env=bare, capture_output=True, text=True, check=True)
    assert ran.stdout.startswith(f"kapso-sync {package.__version__}\n")
    assert ran.stderr == "[]\n"
    assert kapso_sync("version", "--json").document["kapso-sync"] == package.__version__


LOADS_A_DAEMON = """
import sys
from kapso_sync.__main__ import main
sys.argv = ["kapso-sync", "version"]
try:
    main()
except SystemExit:
    import kapso_sync.cli.run
heavy = ("watchfiles", "git", "rich", "greenlet", "difflib", "kapso_sync.cli.render")
print([name for name in heavy if name in sys.modules], file=sys.stderr)
import kapso_sync.daemon.watcher
print("watchfiles" in sys.modules, file=sys.stderr)
"""


def test_a_daemon_is_not_loaded_with_what_only_some_need() -> None:
    """What it loads stays in its memory: watchfiles is for folders, and what prints for people for nobody."""
    ran = subprocess.run([sys.executable, "-c", LOADS_A_DAEMON], capture_output=True, text=True, check=True)
    assert ran.stderr == "[]\nTrue\n"


def test_a_plan_of_a_folder_imports_nothing_that_it_does_not_use(tmp_path: Path) -> None:
    """Each module costs time and memory at every start: what writes, serves, schedules, or reads git and npm stays out."""
    heavy = (
        *("kapso_sync.emulator", "kapso_sync.server", "kapso_sync.daemon", "kapso_sync.notifications", "kapso_sync.doctor"),
        *(
            "kapso_sync.reconcile.apply.executor",
            "kapso_sync.reconcile.pull",
            "kapso_sync.sources.git",
            "kapso_sync.build.npm",
            "kapso_sync.status",
        ),
        *("apscheduler", "starlette", "uvicorn", "prometheus_client", "watchfiles", "git", "apprise", "dotenv"),
        *("kapso_sync.status", "regex", "platformdirs", "tree_sitter_typescript"),
    )
    script = (
        "import sys\nfrom kapso_sync.cli.app import run_command_line\ncode = run_command_line(['plan', sys.argv[1]])\n"
        f"print([name for name in {heavy!r} if name in sys.modules])\nsys.exit(code)"
    )
    (tmp_path / "hello.js").write_text("async function handler() { return new Response('x'); }\n")
    (tmp_path / "manifest.yaml").write_text("version: 1\nfunctions:\n  hello:\n")
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "KAPSO_API_KEY": "key"}
    env |= {"KAPSO_API_BASE_URL": "http://127.0.0.1:9", "KAPSO_SYNC_STATE_DIR": str(tmp_path / "state")}
    ran = subprocess.run([sys.executable, "-c", script, str(tmp_path)], env=env, capture_output=True, text=True, check=False)
    assert ran.returncode == 69, ran.stderr  # it got as far as the list of functions
    assert ran.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(("level", "loaded"), [("off", []), ("info", ["structlog"])])
def test_a_pipe_without_a_log_line_loads_nothing_that_draws(tmp_path: Path, level: str, loaded: list[str]) -> None:
    """Colours, wrapping and names of 2,000 characters are for terminals. structlog comes with the first line, and no rich."""
    script = (
        "import sys, atexit\nfrom kapso_sync.__main__ import main\n"
        "atexit.register(lambda: print([name for name in ('structlog', 'rich', 'pygments', 'html') if name in sys.modules]))\n"
        "main()"
    )
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "KAPSO_API_KEY": "key", "KAPSO_SYNC_LOG_LEVEL": level}
    env |= {"KAPSO_API_BASE_URL": "http://127.0.0.1:9", "KAPSO_SYNC_STATE_DIR": str(tmp_path / "state")}
    (tmp_path / "hello.js").write_text("async function handler() { return new Response('x'); }\n")
    (tmp_path / "manifest.yaml").write_text("version: 1\nfunctions:\n  hello:\n")
    command = [sys.executable, "-c", script, "plan", str(tmp_path)]
    ran = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert ran.returncode == 69, ran.stderr
    assert ast.literal_eval(ran.stdout.splitlines()[-1]) == loaded


def test_every_command_that_runs_a_loop_collects_garbage() -> None:
    """A start collects none; a command that lasts must, whatever it is."""
    sources = {path: path.read_text(encoding="utf-8") for path in Path(package.__file__).parent.rglob("*.py")}
    assert [path.name for path, text in sources.items() if "asyncio.run(" in text] == ["aio.py"]
    lines = ("import gc", "from kapso_sync.aio import run_loop", "async def work(): return gc.isenabled()", "gc.disable()")
    script = "\n".join((*lines, "print(run_loop(work()))"))
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout == "True\n"


def test_validate_passes_the_example_functions() -> None:
    """All eight functions that people start from are valid."""
    ran = kapso_sync("validate", str(EXAMPLES))
    assert (ran.code, ran.out, ran.err) == (0, "Valid: 8 functions.\n", "")


def test_validate_lists_every_problem_with_line_and_column(folder: Path) -> None:
    """Offline and without a key; text on stderr, JSON with `--json`."""
    write_functions(folder, {"broken": "async function handler() {\n  return (;\n}\n", "greet": answering("x"), "lost": ""})
    (folder / "lost.js").unlink()
    ran = kapso_sync("validate", str(folder))
    assert (ran.code, ran.out) == (65, "2 problems found.\n")
    assert "error: broken.js:2:" in ran.err
    document = kapso_sync("validate", str(folder), "--json").document
    assert document["valid"] is False
    assert document["functions"] == ["broken", "greet", "lost"]
    places = {(problem["file"], problem["line"]) for problem in document["problems"]}
    assert ("broken.js", 2) in places


def test_validate_needs_no_api_key_and_no_network(folder: Path) -> None:
    """The API is never called: an address where nothing listens has no effect."""
    ran = kapso_sync("validate", str(folder), environment={"KAPSO_API_BASE_URL": "http://127.0.0.1:9/api/v1"})
    assert (ran.code, ran.out) == (0, "Valid: 2 functions.\n")


def test_validate_reports_an_unreadable_manifest_as_one_problem(folder: Path) -> None:
    """Line and column, on stderr and in the JSON."""
    (folder / "manifest.yaml").write_text("version: 1\nfunctions: [\n")
    assert kapso_sync("validate", str(folder)).code == 65
    (problem,) = kapso_sync("validate", str(folder), "--json").document["problems"]
    assert problem["file"] == "manifest.yaml"
    assert problem["line"] >= 2


def test_the_schema_command_prints_json_schema() -> None:
    """Editors can use it."""
    import jsonschema

    jsonschema.Draft202012Validator.check_schema(kapso_sync("schema").document)


def test_invoke_prints_the_functions_status_and_body(kapso: Served, folder: Path, environment: Environment) -> None:
    """The emulator has no runtime, so its answer is a 501, and the exit code is 1."""
    kapso_sync("sync", str(folder), environment=environment)
    ran = kapso_sync("invoke", "greet", "--data", '{"ping": true}', environment=environment)
    assert ran.code == 1
    assert ran.err.startswith("501 application/json")
    assert "error" in json.loads(ran.out)
    document = kapso_sync("invoke", "greet", "--json", environment=environment).document
    assert (document["slug"], document["status"]) == ("greet", 501)


def test_invoke_redacts_the_api_key_in_the_response(kapso: Served, folder: Path, environment: Environment) -> None:
    """A function that echoes its request may return the API key."""
    (folder / "greet.js").write_text(
        f"async function handler() {{ return new Response('{kapso.emulator.key}'); }}\n", encoding="utf-8"
    )
    kapso_sync("sync", str(folder), environment=environment)
    body = {"echo": f"the key {kapso.emulator.key} came back"}
    kapso.faults({"what": "status", "status": 200, "method": "POST", "route": "/functions/{id}/invoke", "body": body})
    ran = kapso_sync("invoke", "greet", environment=environment)
    assert "came back" in ran.out
    assert kapso.emulator.key not in ran.out


@pytest.mark.parametrize(("slug", "data"), [("nobody", "{}"), ("greet", "{not json"), ("greet", "@/nowhere.json")])
def test_invoke_refuses_an_unknown_slug_or_an_invalid_body(environment: Environment, slug: str, data: str) -> None:
    """Both are usage errors."""
    ran = kapso_sync("invoke", slug, "--data", data, environment=environment)
    assert ran.code == 64
    assert ran.err.startswith("error: ")


def test_shell_completion_is_available() -> None:
    """The shell asks the program itself, through one variable."""
    environment = {**os.environ, "_KAPSO_SYNC_COMPLETE": "bash_source"}
    ran = subprocess.run([str(_script())], env=environment, capture_output=True, text=True, check=False)
    assert "complete -o nosort -F _kapso_sync_completion kapso-sync" in ran.stdout


def _script() -> Path:
    return Path(sys.executable).with_name("kapso-sync")


def test_output_into_a_closed_pipe_causes_no_traceback(folder: Path, environment: Environment) -> None:
    """``kapso-sync schema | head -1`` ends without an error message."""
    command = f"{_script()} schema | head -1"
    ran = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert (ran.stdout, ran.stderr) == ("{\n", "")


def test_every_command_reads_settings_from_an_env_file(kapso: Served, folder: Path, tmp_path: Path) -> None:
    """``--env-file`` holds NAME=value lines; the environment goes before it, a flag before both."""
    lines = [f"{name}={value}" for name, value in kapso.environment(tmp_path / "state").items()]
    (tmp_path / "settings.env").write_text("\n".join([*lines, "KAPSO_SYNC_OWNER=acme/from-file"]))
    ran = kapso_sync("plan", str(folder), "--json", "--env-file", str(tmp_path / "settings.env"))
    assert ran.document["owner"] == "acme/from-file"
    ran = kapso_sync(
        *("plan", str(folder), "--json", "--env-file", str(tmp_path / "settings.env")),
        environment={"KAPSO_SYNC_OWNER": "acme/from-environment"},
    )
    assert ran.document["owner"] == "acme/from-environment"
    missing = kapso_sync("plan", str(folder), "--env-file", str(tmp_path / "nowhere.env"))
    assert missing.code == 78


def test_a_wrong_line_of_an_env_file_is_a_warning_with_its_number(kapso: Served, folder: Path, tmp_path: Path) -> None:
    """Logs stay JSON, whatever the library that reads the file would write; the line itself may be half of a key."""
    lines = [f"{name}={value}" for name, value in kapso.environment(tmp_path / "state").items()]
    file = tmp_path / "settings.env"
    file.write_text("\n".join([*lines, "", "KAPSO_SYNC_GIT_TOKEN hunter2", "KAPSO_SYNC_OWNER=acme/flows"]))
    arguments = [sys.executable, "-m", "kapso_sync", "sync", str(folder), "--log-format", "json", "--env-file", str(file)]
    ran = subprocess.run(arguments, capture_output=True, text=True, check=False, env={"PATH": os.environ["PATH"]})
    told = [json.loads(line) for line in ran.stderr.splitlines()]
    assert ran.returncode == 0
    said = f"--env-file {file}: line {len(lines) + 2} is not NAME=value, and left out"
    assert said in json.dumps(told)
    assert "hunter2" not in ran.stderr + ran.stdout


def test_sync_without_an_api_key_exits_with_78(folder: Path, environment: Environment) -> None:
    """The error says where to get a key."""
    ran = kapso_sync("sync", str(folder), environment={**environment, "KAPSO_API_KEY": ""})
    assert (ran.code, ran.err.splitlines()[-2]) == (78, "error: no API key")
    assert "KAPSO_API_KEY_FILE" in ran.err.splitlines()[-1]


@pytest.mark.e2e
def test_the_emulator_command_serves_until_sigterm(tmp_path: Path) -> None:
    """It prints how to use it, keeps its data, and exits with 0."""
    with started("emulator", "--port", "0", "--data", str(tmp_path / "data"), environment={}) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        assert first.startswith("The Kapso emulator listens on http://127.0.0.1:")
        assert "export KAPSO_API_BASE_URL=http://127.0.0.1:" in process.stdout.readline()
        process.terminate()
        assert process.wait(20) == 0
    assert (tmp_path / "data").is_dir()


@pytest.mark.e2e
@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_command_that_the_emulator_prints_reads_its_requests() -> None:
    """Copied as it stands. The token is new with each start, also on the same port, where the project is the same."""
    tokens, projects, port = [], [], "0"
    for _ in range(2):
        with started("emulator", "--port", port, "--runtime", "off", environment={}) as process:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(5)]
            command = lines[3].strip()
            assert _answered(command) == {"requests": []}
            projects.append(_answered(command.replace("/requests", "/state"))["project_id"])
            tokens += re.findall(r"X-Emulator-Token: ([\w-]{32})'", command)
            port = lines[0].split("127.0.0.1:")[1].partition(".")[0]
    assert len(set(tokens)) == 2
    with started("emulator", "--port", port, "--runtime", "off", "--control-token", "it's mine!", environment={}) as process:
        assert process.wait(20) == 78
    with started("emulator", "--port", port, "--runtime", "off", "--control-token", "it's-mine!", environment={}) as process:
        assert process.stdout is not None
        command = [process.stdout.readline() for _ in range(5)][3]
        projects.append(_answered(command.replace("/requests", "/state"))["project_id"])
    assert projects[1] == projects[2], "the first had a port of its own choice, and so a random project"


def _answered(command: str) -> Any:
    return json.loads(subprocess.run(["bash", "-c", command], capture_output=True, check=True, timeout=20).stdout)


@pytest.mark.e2e
@pytest.mark.parametrize("runtime", ["auto", "off"])
def test_the_emulator_command_says_whether_workerd_runs_code(folder: Path, tmp_path: Path, runtime: str) -> None:
    """Its last line names workerd's version, or how to install it, or that it is off; with workerd, code runs."""
    if runtime == "auto" and find_workerd() is None:
        pytest.skip("needs workerd: npm ci")
    with started("emulator", "--port", "0", "--deploy-delay", "0", "--runtime", runtime, environment={}) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(5)]
        assert lines[-1].startswith(
            {"auto": "Functions run, on workerd 20", "off": "Functions are deployed and not run:"}[runtime]
        )
        settings = dict(item.split("=", 1) for item in lines[1].split()[1:])
        environment = {**settings, "KAPSO_SYNC_STATE_DIR": str(tmp_path / "state"), "KAPSO_SYNC_DEPLOY_POLL": "20ms"}
        assert kapso_sync("sync", str(folder), environment=environment).code == 0
        ran = kapso_sync("invoke", "greet", environment=environment)
        assert (ran.code, ran.out) == {"auto": (0, "hello\n"), "off": (1, '{"error":"This emulator does not run code"}\n')}[
            runtime
        ]


def test_a_runtime_path_that_is_not_workerd_is_refused(tmp_path: Path) -> None:
    """The configuration error says how to get workerd."""
    (tmp_path / "workerd").write_text("#!/bin/sh\necho node v20\n")
    (tmp_path / "workerd").chmod(0o700)
    ran = kapso_sync("emulator", "--port", "0", "--runtime", str(tmp_path / "workerd"))
    assert ran.code == 78
    assert "is not a workerd that starts here" in ran.err
    assert "hint: get one with: npm install --global workerd@" in ran.err


def test_the_advised_workerd_version_is_pinned_in_package_json() -> None:
    """The advice names the version that the tests use."""
    pins = json.loads((Path(__file__).parents[2] / "package.json").read_text())["devDependencies"]
    assert f"workerd@{pins['workerd']}" == PACKAGE


def test_an_invalid_emulator_fault_file_is_a_configuration_error(tmp_path: Path) -> None:
    """The emulator does not start with it."""
    (tmp_path / "faults.yaml").write_text("faults:\n  - what: explode\n")
    ran = kapso_sync("emulator", "--port", "0", "--faults", str(tmp_path / "faults.yaml"))
    assert ran.code == 78
    assert "explode" in ran.err


@pytest.mark.e2e
def test_the_demo_runs_every_scene() -> None:
    """Every scene ends as announced, or the demo fails."""
    ran = kapso_sync("demo")
    assert ran.code == 0, ran.out
    for said in (
        "8 created, 8 deployed.",
        "8 in sync. 1 API call,",
        "changed in git: code",
        "changed on Kapso: code",
        "invalid",
    ):
        assert said in ran.out


def test_the_tested_commands_are_all_commands_of_the_cli() -> None:
    """The table of commands is complete, so the tests above cover all of them."""
    assert isinstance(app, click.Group)
    assert {"sync", "plan", "validate", "status", "invoke", "emulator", "dev", "demo", "schema", "version"} <= set(app.commands)


@pytest.mark.parametrize("command", sorted(HABITS))
def test_a_command_of_another_tool_is_answered_with_ours(command: str) -> None:
    """Exit code 64, and each command in the hint exists."""
    ran = kapso_sync(command)
    assert (ran.code, ran.out) == (64, "")
    assert ran.err == f"error: there is no command `{command}`\nhint: {HABITS[command]}\n"
    assert command not in app.commands
    assert set(re.findall(r"`kapso-sync (\w+)", HABITS[command])) <= set(app.commands)


def test_a_misspelt_command_gets_a_suggestion() -> None:
    """Only where one is close."""
    assert "did you mean `kapso-sync status`?" in kapso_sync("statos").err
    assert "`kapso-sync help` lists the commands" in kapso_sync("frobnicate").err


@pytest.mark.parametrize("flag", ["--version", "-V"])
def test_version_is_an_option_too(flag: str) -> None:
    """As git, kubectl and terraform have it."""
    ran = kapso_sync(flag)
    assert (ran.code, ran.out) == (0, f"kapso-sync {package.__version__}\n")


def test_the_program_alone_prints_its_help() -> None:
    """It is a new user's first command: lines as they are, and no error."""
    ran, asked = kapso_sync(), kapso_sync("--help")
    assert (ran.code, ran.err, ran.out) == (0, "", asked.out)
    assert "\nTo begin:\n  init " in ran.out


def test_help_is_a_command_too() -> None:
    """The same texts as ``--help``, in the order in which people need the commands."""
    assert kapso_sync("help").out == kapso_sync("--help").out
    assert kapso_sync("help", "plan").out == kapso_sync("plan", "--help").out
    assert list(app.commands)[:3] == ["sync", "run", "reconcile"]
