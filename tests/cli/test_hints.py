"""Every hint that names a command works: each is read where it is printed, and run as it stands.

A situation makes a hint appear, hands over what was printed, gets back what the hint's command did, and asserts the promise.
`SITUATIONS` is checked against every text of the code that names a command, so that no hint is added without its situation.
"""

from __future__ import annotations

import ast
import re
import shlex
import signal
import sqlite3
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import kapso_sync as package
from kapso_sync.advice import Advice, Advise, advice_for_latest
from kapso_sync.cli.app import HABITS
from kapso_sync.cli.workerd import find_workerd
from kapso_sync.model.ownership import without_digests
from tests.e2e.test_daemon import Running, daemon, until
from tests.program import Ran, answering, kapso_sync, started, write_functions
from tests.served import Served

COMMAND = re.compile(r"`(kapso-sync [^`]+)`")
HELLO, BYE = answering("hello"), answering("bye")


@dataclass
class Bench:
    """A folder with a blank in its name, an empty Kapso, and a person who types commands."""

    kapso: Served
    home: Path
    environment: dict[str, str]
    _ends: list[Callable[[None, None, None], object]] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        return self.home / "my functions"

    def set(self, **settings: str) -> None:
        self.environment |= {f"KAPSO_SYNC_{name.upper()}": value for name, value in settings.items()}

    def write(self, extra: str = "", **functions: str) -> None:
        write_functions(self.folder, functions, extra)

    def write_in_repository(self) -> None:
        write_functions(self.home / "repo" / "fun ctions", {"greet": HELLO})

    def run(self, command: str, *arguments: str) -> Ran:
        return kapso_sync(command, *arguments, environment=self.environment)

    def here(self, command: str, *arguments: str) -> Ran:
        """Run a command on the folder, named as a person would name it."""
        return self.run(command, "my functions", *arguments)

    def synced(self, extra: str = "", **functions: str) -> None:
        self.write(extra, **(functions or {"greet": HELLO, "part": BYE}))
        assert self.here("sync").code == 0

    def live(self, slug: str) -> str | None:
        return self.kapso.world.live_code().get(slug)

    def daemon(self, **settings: str) -> Running:
        """Start a daemon on the folder, and wait for its first pass; the fixture ends it."""
        self.set(listen="127.0.0.1:0", interval="1h", git_interval="1h", debounce="50ms", **settings)
        context = daemon("my functions", self.environment)
        running = context.__enter__()
        self._ends.append(context.__exit__)
        running.event("reconcile.finished")
        return running

    def close(self) -> None:
        while self._ends:
            self._ends.pop()(None, None, None)


@pytest.fixture
def bench(kapso: Served, tmp_path: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.chdir(tmp_path)
    bench = Bench(kapso, tmp_path, environment)
    bench.write(greet=HELLO, part=BYE)
    yield bench
    bench.close()


Situation = Callable[[Bench], Generator[Ran, Ran, None]]
SITUATIONS: dict[str, Situation] = {}
"""Situations, by a part of the hint's text that is the same in the code and where it is printed."""


def hint(part: str) -> Callable[[Situation], Situation]:
    def enter(situation: Situation) -> Situation:
        SITUATIONS[part] = situation
        return situation

    return enter


@hint("lists every key")
def no_manifest(bench: Bench) -> Generator[Ran, Ran, None]:
    (bench.home / "empty").mkdir()
    ran = yield bench.run("validate", "empty")
    assert (ran.code, '"moved_from"' in ran.out) == (0, True)


@hint("proposes a manifest for the code")
def no_manifest_beside_code(bench: Bench) -> Generator[Ran, Ran, None]:
    (bench.folder / "manifest.yaml").unlink()
    ran = yield bench.here("validate")
    assert (ran.code, "+ greet" in ran.out) == (0, True)


@hint("kapso-sync init --write")
def a_proposal(bench: Bench) -> Generator[Ran, Ran, None]:
    (bench.folder / "manifest.yaml").unlink()
    ran = yield bench.here("init")
    assert (ran.code, (bench.folder / "manifest.yaml").is_file()) == (0, True)


@hint("shows what a sync would do")
def a_written_proposal(bench: Bench) -> Generator[Ran, Ran, None]:
    (bench.folder / "manifest.yaml").unlink()
    ran = yield bench.here("init", "--write")
    assert (ran.code, "2 to create" in ran.out) == (0, True)


@hint("brings them")
def a_proposal_beside_other_functions(bench: Bench) -> Generator[Ran, Ran, None]:
    bench.kapso.control("POST", "/functions", {"function": {"name": "other", "slug": "other", "code": HELLO}})
    (bench.folder / "manifest.yaml").unlink()
    ran = yield bench.here("init", "--write")
    assert (ran.code, (bench.folder / "other.js").is_file()) == (0, True)


@hint("makes the first")
def nothing_was_recorded(bench: Bench) -> Generator[Ran, Ran, None]:
    ran = yield bench.here("status")
    assert ran.code == 0
    assert "No pass was recorded" not in bench.here("status").out


@hint("renames it, and starts an empty one")
def the_database_is_of_another_version(bench: Bench) -> Generator[Ran, Ran, None]:
    bench.synced()
    (database,) = Path(bench.environment["KAPSO_SYNC_STATE_DIR"]).glob("*/state.db")
    with closing(sqlite3.connect(database)) as db, db:
        db.execute("PRAGMA user_version = 99")
    ran = yield bench.here("status")
    assert (ran.code, len(list(database.parent.glob("state.db.set-aside-*")))) == (0, 1)


@hint("lists what was synced")
def a_slug_that_is_not_on_kapso(bench: Bench) -> Generator[Ran, Ran, None]:
    bench.synced()
    ran = yield bench.run("invoke", "nobody")
    assert "greet" in ran.out


@hint("lists its functions")
def a_slug_that_the_daemon_does_not_know(bench: Bench) -> Generator[Ran, Ran, None]:
    bench.daemon()
    ran = yield bench.here("reconcile", "--retry", "nobody")
    assert "greet" in ran.out


@hint("starts one; one that runs")
def no_daemon_runs(bench: Bench) -> Generator[Ran, Ran, None]:
    shown = bench.here("suspend", "--reason", "x")
    (command,) = commands(shown, "starts one; one that runs")
    assert command == shlex.split("kapso-sync run 'my functions'"), "it runs until a signal: the fixture starts the same"
    bench.daemon()
    assert bench.here("suspend", "--reason", "x").code == 0
    yield bench.here("suspend", "--reason", "x")


@hint("ends it")
def suspended(bench: Bench) -> Generator[Ran, Ran, None]:
    bench.daemon()
    ran = yield bench.here("suspend", "--reason", "moving house")
    assert (ran.code, bench.here("reconcile", "--wait").code) == (0, 0)


@hint("The daemon reconciles once")
def asked_while_suspended(bench: Bench) -> Generator[Ran, Ran, None]:
    bench.daemon()
    assert bench.here("suspend", "--reason", "moving house").code == 0
    ran = yield bench.here("reconcile", "--wait")
    assert (ran.code, bench.here("reconcile", "--wait").code) == (0, 0)


@hint("does it")
def disown_without_yes(bench: Bench) -> Generator[Ran, Ran, None]:
    bench.synced()
    ran = yield bench.here("disown", "--only", "part")
    assert "1 disowned, 0 failed" in ran.out


@hint("lists what is")
def disown_of_a_stranger(bench: Bench) -> Generator[Ran, Ran, None]:
    bench.synced()
    ran = yield bench.here("disown", "--only", "nobody")
    assert (ran.code, ran.out.startswith("- greet, part\n")) == (0, True)


@hint("shows everything")
def a_plan_too_long_for_a_comment(bench: Bench) -> Generator[Ran, Ran, None]:
    many = [f"function-{'x' * 40}-{number}" for number in range(700)]
    write_functions(bench.folder, dict.fromkeys(many, HELLO))
    ran = yield bench.here("plan", "--format", "markdown")
    assert all(slug in ran.out for slug in many)


@hint("Apply exactly this plan")
def a_plan_as_a_comment(bench: Bench) -> Generator[Ran, Ran, None]:
    ran = yield bench.here("plan", "--only", "greet", "--format", "markdown")
    assert (ran.code, bench.live("greet"), bench.live("part")) == (0, HELLO, None)


@hint("has it do this now")
def a_sync_beside_a_daemon(bench: Bench) -> Generator[Ran, Ran, None]:
    bench.daemon(drift="report")
    bench.kapso.edit("greet", code=answering("by hand"), deploy=True)
    ran = yield bench.here("sync", "--overwrite", "greet")
    assert (ran.code, bench.live("greet")) == (0, HELLO)


@hint("tries now")
def a_function_in_back_off(bench: Bench) -> Generator[Ran, Ran, None]:
    bench.kapso.faults({"what": "deploy_fails", "slug": "greet"})
    running = bench.daemon()
    running.event("function.stalled", seconds=30)  # After its second failure it waits for 15 minutes.
    (bench.folder / "part.js").write_text(answering("see you"))
    until(lambda: bench.live("part") == answering("see you"))
    until(lambda: "tries now" in bench.here("status").out, 5, lambda: (bench.here("status").out, running.raw))
    bench.kapso.faults()
    yield bench.here("status")
    until(lambda: bench.live("greet") == HELLO)


@hint("starts it on this machine at each save")
def code_that_does_not_start(bench: Bench) -> Generator[Ran, Ran, None]:
    if find_workerd() is None:
        pytest.skip("needs workerd: npm ci")
    bench.write(greet=f"null.x;\n{HELLO}")
    bench.kapso.faults({"what": "deploy_fails", "slug": "greet", "times": 2})
    ran = yield bench.here("sync")
    assert "does not start" in ran.out


@hint("push a fix, or try again with")
def a_deployment_failed(bench: Bench) -> Generator[Ran, Ran, None]:
    bench.synced()
    bench.write(greet=answering("new"), part=BYE)
    bench.kapso.faults({"what": "deploy_fails", "slug": "greet", "times": 2})
    ran = yield bench.here("sync")
    assert (ran.code, bench.live("greet")) == (0, answering("new"))


@hint("the previous version was restored; new code, or")
def a_function_in_quarantine(bench: Bench) -> Generator[Ran, Ran, None]:
    bench.synced()
    bench.write(greet=answering("new"), part=BYE)
    bench.kapso.faults({"what": "deploy_fails", "slug": "greet", "times": 2})
    assert bench.here("sync").code == 1
    ran = yield bench.here("plan")
    assert (ran.code, bench.live("greet")) == (0, answering("new"))


@hint("then pass its digest")
def another_plan_than_expected(bench: Bench) -> Generator[Ran, Ran, None]:
    ran = yield bench.here("sync", "--adopt", "always", "--expect", "sha256:old")
    digest = re.search(r"Digest: (\S+)", ran.out)
    assert digest is not None
    assert bench.here("sync", "--adopt", "always", "--expect", digest[1]).code == 0


@hint("lists what left git")
def a_deletion_of_a_stranger(bench: Bench) -> Generator[Ran, Ran, None]:
    bench.set(owner="acme/flows")
    bench.synced()
    bench.write(greet=HELLO)
    ran = yield bench.here("sync", "--delete", "nobody")
    assert (ran.code, "not in git, kept since KAPSO_SYNC_PRUNE is off: part" in ran.out) == (0, True)


@hint("is it the right key?")
def an_emptied_project(bench: Bench) -> Generator[Ran, Ran, None]:
    bench.synced()
    bench.kapso.control("POST", "/reset")
    ran = yield bench.here("sync")
    assert (ran.code, bench.live("greet")) == (0, HELLO)


@hint("under new ids")
def many_functions_are_gone(bench: Bench) -> Generator[Ran, Ran, None]:
    bench.synced(a=HELLO, b=HELLO, c=HELLO)
    for slug in "ab":
        bench.kapso.control("DELETE", f"/functions/{slug}")
    ran = yield bench.here("sync")
    assert (ran.code, bench.live("a"), bench.live("b")) == (0, HELLO, HELLO)


@hint(", or `kapso-sync sync --delete")
def a_forgotten_rename(bench: Bench) -> Generator[Ran, Ran, None]:
    bench.set(owner="acme/flows", prune="true")
    long = "".join(f"// line {number} of a function\n" for number in range(30))
    bench.synced(greet=long + HELLO, part=BYE)
    bench.write(welcome=long + HELLO, part=BYE)
    ran = yield bench.here("sync")
    assert (ran.code, "greet" in bench.kapso.world.live_code()) == (0, False)


@hint("brings it now")
def functions_with_the_mark_of_a_former_owner(bench: Bench) -> Generator[Ran, Ran, None]:
    bench.set(owner="acme/former")
    bench.synced()
    bench.set(owner="acme/flows")
    assert bench.here("sync").code == 0
    before = bench.kapso.world.live_code()
    ran = yield bench.here("plan")
    descriptions = [str(function.description) for function in bench.kapso.world.functions.values()]
    assert (ran.code, all("acme/flows#" in text for text in descriptions)) == (0, True)
    assert bench.kapso.world.live_code() == before
    assert "acme/former" not in bench.here("plan").out


@hint("writes what Kapso has")
def an_init_without_code(bench: Bench) -> Generator[Ran, Ran, None]:
    bench.synced()
    (bench.home / "empty").mkdir()
    ran = yield bench.run("init", "empty")
    assert (ran.code, "owned by folder/my%20functions" in ran.out) == (0, True), "they are another folder's, and left out"


@hint("deletes it all the same")
def a_deletion_of_what_may_be_used(bench: Bench) -> Generator[Ran, Ran, None]:
    bench.set(owner="acme/flows", prune="true")
    bench.synced()
    bench.write(greet=HELLO)
    bench.kapso.faults({"what": "status", "status": 403, "body": {"error": "no"}, "route": "/workflows"})
    ran = yield bench.here("sync")
    assert (ran.code, "part" in bench.kapso.world.live_code()) == (0, False)


@hint("takes it over")
def a_function_of_another_owner(bench: Bench) -> Generator[Ran, Ran, None]:
    bench.set(owner="acme/former")
    bench.synced()
    bench.set(owner="acme/flows", state_dir=str(bench.home / "new state"))
    ran = yield bench.here("sync")
    assert ran.code == 0, ran.out


@hint("writes git's version once")
def drift_that_is_only_reported(bench: Bench) -> Generator[Ran, Ran, None]:
    bench.synced()
    bench.kapso.edit("greet", code=answering("by hand"), deploy=True)
    ran = yield bench.here("sync", "--drift", "report")
    assert (ran.code, bench.live("greet")) == (0, HELLO)


@hint("writes git's version at once")
def a_difference_of_which_nothing_is_known(bench: Bench) -> Generator[Ran, Ran, None]:
    bench.synced()
    for function in bench.kapso.world.functions.values():
        function.description = without_digests(function.description or "")
    bench.set(state_dir=str(bench.home / "new state"))
    bench.write(greet=answering("new"), part=BYE)
    ran = yield bench.here("sync", "--drift", "report")
    assert (ran.code, bench.live("greet")) == (0, answering("new"))


@hint("find the other writer, then")
def a_function_that_somebody_else_writes(bench: Bench) -> Generator[Ran, Ran, None]:
    bench.synced()
    for _ in range(3):
        bench.kapso.edit("greet", code=answering("by hand"), deploy=True)
        assert bench.here("sync").code == 0
    bench.kapso.edit("greet", code=answering("by hand"), deploy=True)
    ran = yield bench.here("sync")
    assert (ran.code, bench.live("greet")) == (0, HELLO)


@hint("; then `kapso-sync sync --overwrite")
def a_function_that_another_process_of_this_owner_replaces(bench: Bench) -> Generator[Ran, Ran, None]:
    bench.set(owner="acme/flows")
    for number in range(12):
        bench.set(state_dir=str(bench.home / f"state of {number % 2}"))
        bench.write(greet=answering(f"{number % 2}"))
        ran = bench.here("sync")
        if ran.code != 0:
            break
    ran = yield ran
    assert (ran.code, bench.live("greet")) == (0, answering(f"{number % 2}"))


@hint("sets them")
def secrets_that_were_there_before(bench: Bench) -> Generator[Ran, Ran, None]:
    function = {"name": "greet", "slug": "greet", "code": HELLO}
    bench.kapso.control("POST", "/functions", {"function": function, "deployed": True, "secrets": {"A": "old"}})
    bench.write(extra="    secrets:\n      A: {value: new}\n", greet=HELLO)
    ran = yield bench.here("sync")
    assert ran.code == 0
    assert "sets them" not in bench.here("sync").out


# What to do next, at the end of a screen


BROKEN = "async function handler(\n"


@hint("checks it offline")
def a_plan_of_broken_code(bench: Bench) -> Generator[Ran, Ran, None]:
    bench.write(greet=BROKEN)
    ran = yield bench.here("plan")
    assert (ran.code, "greet.js:2:1: syntax error" in ran.err) == (65, True)


@hint("does this")
def a_plan(bench: Bench) -> Generator[Ran, Ran, None]:
    ran = yield bench.here("plan")
    assert (ran.code, bench.live("greet")) == (0, HELLO)


@hint("does the rest")
def a_plan_with_a_blocked_function(bench: Bench) -> Generator[Ran, Ran, None]:
    bench.kapso.control("POST", "/functions", {"function": {"name": "greet", "slug": "greet", "code": BYE}})
    ran = yield bench.here("plan")
    assert (ran.code, bench.live("greet"), bench.live("part")) == (1, None, BYE)


@hint("continues where this pass stopped")
def a_pass_that_was_halted(bench: Bench) -> Generator[Ran, Ran, None]:
    bench.kapso.faults({"what": "status", "status": 401, "method": "POST", "route": "/functions/{id}/deploy"})
    shown = bench.here("sync")
    bench.kapso.faults()
    ran = yield shown
    assert (ran.code, bench.live("greet"), bench.live("part")) == (0, HELLO, BYE)


@hint("in git, then run")
def a_sync_of_broken_code(bench: Bench) -> Generator[Ran, Ran, None]:
    bench.write(greet=BROKEN)
    shown = bench.here("sync")
    bench.write(greet=HELLO)
    ran = yield shown
    assert (ran.code, bench.live("greet")) == (0, HELLO)


@hint("or try the same code again with")
def a_deployment_that_was_rolled_back(bench: Bench) -> Generator[Ran, Ran, None]:
    bench.synced()
    bench.write(greet=answering("new"), part=BYE)
    bench.kapso.faults({"what": "deploy_fails", "slug": "greet", "times": 2})
    ran = yield bench.here("sync")
    assert (ran.code, bench.live("greet")) == (0, answering("new"))


@hint("in git or on Kapso, then run")
def a_write_that_kapso_refused(bench: Bench) -> Generator[Ran, Ran, None]:
    bench.kapso.faults({"what": "status", "status": 422, "method": "POST", "route": "/functions", "slug": "greet"})
    shown = bench.here("sync")
    bench.kapso.faults()
    ran = yield shown
    assert (ran.code, bench.live("greet")) == (0, HELLO)


@hint(", then run `kapso-sync sync")
def a_sync_with_a_blocked_function(bench: Bench) -> Generator[Ran, Ran, None]:
    bench.kapso.control("POST", "/functions", {"function": {"name": "greet", "slug": "greet", "code": BYE}})
    shown = bench.here("sync")
    bench.set(adopt="always")
    ran = yield shown
    assert (ran.code, bench.live("greet")) == (0, HELLO)


@hint("lists those of")
def more_backups_than_one_screen_lists(bench: Bench) -> Generator[Ran, Ran, None]:
    slugs = [f"f-{number}" for number in range(9)]
    bench.synced(**dict.fromkeys(slugs, HELLO))
    for slug in slugs:
        bench.kapso.edit(slug, code=answering("by hand"), deploy=True)
    ran = yield bench.here("sync")
    assert (ran.code, "backup" in ran.out) == (0, True)


@hint("tries what is left again")
def a_pass_in_which_kapso_did_not_answer_once(bench: Bench) -> Generator[Ran, Ran, None]:
    bench.set(request_timeout="500ms")
    bench.kapso.faults({"what": "status", "status": 503, "method": "POST", "route": "/functions", "slug": "greet"})
    shown = bench.here("sync")
    bench.kapso.faults()
    ran = yield shown
    assert (ran.code, bench.live("greet")) == (0, HELLO)


@hint("shows what differs, and why")
def a_status_that_is_not_well(bench: Bench) -> Generator[Ran, Ran, None]:
    bench.write(greet=BROKEN)
    assert bench.here("sync").code == 1
    ran = yield bench.here("status")
    assert (ran.code, "greet" in ran.out) == (1, True)


@hint("asks it")
def a_doctor_that_did_not_ask(bench: Bench) -> Generator[Ran, Ran, None]:
    ran = yield bench.run("doctor")
    assert "lock_version" in ran.out


def commands(shown: Ran, part: str) -> list[list[str]]:
    """Return the commands, as words, of the first printed line that holds this part of a hint."""
    lines = [line for line in f"{shown.out}\n{shown.err}".splitlines() if part in line and COMMAND.search(line)]
    assert lines, f"no hint with {part!r}:\n{shown.out}{shown.err}"
    return [shlex.split(command) for command in COMMAND.findall(lines[0].replace("\\`", "`"))]


def errors(ran: Ran) -> set[str]:
    return {line for line in ran.err.splitlines() if line.startswith("error: ")}


def run_dev(command: list[str], environment: Mapping[str, str]) -> Ran:
    """Run ``dev``, which ends at a signal, until it has shown the function."""
    with started(*command[1:], environment=environment) as process:
        assert process.stdout is not None
        shown: list[str] = []
        too_late = threading.Timer(60, process.kill)
        too_late.start()
        while not (shown and shown[-1].startswith(command[2])):
            shown.append(process.stdout.readline())
            assert shown[-1], "it ended by itself, or showed nothing for a minute"
        too_late.cancel()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
        return Ran(process.returncode, "".join(shown), err)


@hint("takes it as it is")
def a_first_version_that_fails(bench: Bench) -> Generator[Ran, Ran, None]:
    bench.write("    watch: {for: 1s, failures: 1}\n", greet=HELLO)
    running = bench.daemon()
    world = bench.kapso.world
    world.record_invocation(world.function("greet"), {}, 500, error="Error: boom")
    running.event("watch.failed")
    running.event("function.stalled")
    ran = yield bench.here("plan")
    assert (ran.code, "Error: boom" in ran.out) == (0, True)
    assert bench.here("reconcile", "--wait").code == 1
    assert bench.here("reconcile", "--wait", "--retry", "greet").code == 0


SLOW = {"takes it as it is", "tries now", "starts it on this machine at each save"}
"""Situations that take seconds: a back-off is real time, and a process of its own has to start."""


@pytest.mark.parametrize("part", [pytest.param(part, marks=pytest.mark.e2e) if part in SLOW else part for part in SITUATIONS])
def test_the_command_of_a_hint_works_where_it_is_printed(part: str, bench: Bench) -> None:
    """It is no usage error, meets not the same error again, and does what the hint promises."""
    situation = SITUATIONS[part](bench)
    shown = next(situation)
    if part == "starts one; one that runs":
        return
    command = commands(shown, part)[0]
    ran = run_dev(command, bench.environment) if command[1] == "dev" else bench.run(*command[1:])
    assert ran.code != 64, (command, ran.err)
    assert not errors(shown) & errors(ran), command
    with pytest.raises(StopIteration):
        situation.send(ran)


TEXTS_THAT_ARE_NO_HINTS = {
    "kapso_sync/advice.py",
    "kapso_sync/cli/console.py: `kapso-sync ",
    "kapso_sync/cli/pass_args.py: `kapso-sync sync",
}
"""Files, and texts, that handle commands and tell nobody to run one."""


def hints_of_the_code() -> Iterator[tuple[str, str]]:
    """Yield file and text of every string that names a command in back-ticks, docstrings left out; values are ``{}``."""
    root = Path(package.__file__).parent
    for path in sorted(root.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        inner = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
        docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if id(node) in inner | docstrings:
                continue
            text = _template(node)
            if "`kapso-sync " in text:
                yield path.relative_to(root.parent).as_posix(), text


def _template(node: ast.AST) -> str:
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def untested(hints: Iterator[tuple[str, str]]) -> list[str]:
    """Return the hints that no situation makes."""
    known = {*HABITS.values(), *CLI_SUGGESTIONS}
    return [
        f"{file}: {text}"
        for file, text in hints
        if text not in known
        and not any(part in text for part in SITUATIONS)
        and not any(f"{file}: {text}".startswith(other) for other in TEXTS_THAT_ARE_NO_HINTS)
    ]


def test_every_hint_of_the_code_has_a_situation() -> None:
    """A new one needs its own; a made-up one is found missing, and no situation is for a hint that is gone."""
    hints = list(hints_of_the_code())
    assert untested(iter(hints)) == []
    assert untested(iter([("x.py", "`kapso-sync frobnicate` helps")])) == ["x.py: `kapso-sync frobnicate` helps"]
    assert [part for part in SITUATIONS if not any(part in text for _, text in hints)] == []


CLI_SUGGESTIONS = ("did you mean `kapso-sync {}`?", "`kapso-sync help` lists the commands")
UNTIL_A_SIGNAL = {"run", "dev"}
"""Commands that end at a signal: only their command line is checked here, by asking for its help."""


@pytest.mark.parametrize("typed", [*HABITS, "statos", "frobnicate"])
def test_every_command_that_a_wrong_one_suggests_works(typed: str, bench: Bench) -> None:
    """With the slug or the source that was given."""
    bench.set(owner="acme/flows")
    bench.synced()
    bench.kapso.edit("greet", code=answering("by hand"), deploy=True)
    bench.synced()
    bench.write(part=BYE)
    takes_slug = "SLUG" in HABITS.get(typed, "")
    shown = bench.run(typed, "greet" if takes_slug else "my functions")
    assert shown.code == 64
    suggested = [shlex.split(command) for command in COMMAND.findall(shown.err.partition("hint: ")[2])]
    assert suggested or typed == "login"
    for _, command, *arguments in suggested:
        source = ["my functions"] if takes_slug else []
        asked = ["--help"] if command in UNTIL_A_SIGNAL else []
        ran = bench.run(command, *arguments, *source, *asked)
        assert ran.code == 0, (command, arguments, ran.out, ran.err)


def test_a_command_repeats_the_source_and_the_flags_that_the_reader_gave(bench: Bench) -> None:
    """Quoted for a shell; flags that the command does not take, and those of the log, are left out."""
    bench.write_in_repository()
    env_file = bench.home / "settings of mine"
    env_file.write_text("KAPSO_SYNC_REQUEST_TIMEOUT=20s\n", encoding="utf-8")
    flags = ["--path", "fun ctions", "--owner", "acme/flows", "--env-file", str(env_file), "--log-level", "error", "--no-prune"]
    shown = bench.run("sync", "repo", *flags, "--delete", "nobody")
    (command,) = commands(shown, "lists what left git")
    assert command[1:] == [
        "plan",
        "repo",
        "--path",
        "fun ctions",
        "--owner",
        "acme/flows",
        "--no-prune",
        "--env-file",
        str(env_file),
    ]
    (asked,) = commands(bench.run("suspend", "repo", *flags[:2], "--reason", "x"), "starts one; one that runs")
    assert asked[1:] == ["run", "repo", "--path", "fun ctions"]


def test_a_daemons_hint_asks_the_daemon_and_works_from_any_folder(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """In its log and its status; `sync` beside it would only meet the locked state folder."""
    running = bench.daemon(drift="report")
    bench.kapso.edit("greet", code=answering("by hand"), deploy=True)
    assert bench.here("reconcile", "--wait").code == 1
    (bench.home / "elsewhere").mkdir()
    monkeypatch.chdir(bench.home / "elsewhere")
    del bench.environment["KAPSO_SYNC_STATE_DIR"]
    functions = running.status()["functions"]
    (text,) = [condition["message"] for condition in functions[0]["conditions"] if condition["type"] == "Stalled"]
    (command,) = map(shlex.split, COMMAND.findall(text))
    assert command[1:5] == ["reconcile", "--overwrite", "greet", str(bench.folder)]
    assert bench.run(*command[1:], "--wait").code == 0
    assert bench.live("greet") == HELLO


def test_what_a_daemon_was_allowed_once_is_not_allowed_again(bench: Bench) -> None:
    """And what cannot be done fails alone: the next pass is as if nobody had asked."""
    bench.daemon(drift="report", owner="acme/flows")
    bench.kapso.edit("greet", code=answering("by hand"), deploy=True)
    assert bench.here("reconcile", "--wait", "--overwrite", "greet").code == 0
    bench.kapso.edit("greet", code=answering("by hand again"), deploy=True)
    assert bench.here("reconcile", "--wait").code == 1
    assert bench.live("greet") == answering("by hand again")
    assert bench.here("reconcile", "--wait", "--delete", "part").code == 64, "git lists it"
    assert bench.here("reconcile", "--wait").code == 1


@pytest.mark.parametrize("place", ["variable", "file", "env file"])
def test_a_rejected_key_is_looked_for_where_it_was_set(bench: Bench, place: str) -> None:
    """The variable, the file that holds it, or the `--env-file`; corrected there, it works."""
    key, file = bench.environment.pop("KAPSO_API_KEY"), bench.home / "key or settings"
    match place:
        case "variable":
            bench.environment["KAPSO_API_KEY"] = "wrong"
            named = "look at KAPSO_API_KEY: "
        case "file":
            file.write_text("wrong", encoding="utf-8")
            bench.environment["KAPSO_API_KEY_FILE"] = str(file)
            named = f"look at KAPSO_API_KEY_FILE ({file}): "
        case _:
            file.write_text("KAPSO_API_KEY=wrong\n", encoding="utf-8")
            named = f"look at KAPSO_API_KEY in {file}: "
    flags = ["--env-file", str(file)] if place == "env file" else []
    rejected = bench.here("plan", *flags)
    assert (rejected.code, named in rejected.err) == (77, True), rejected.err
    if place == "variable":
        bench.environment["KAPSO_API_KEY"] = key
    else:
        file.write_text(file.read_text(encoding="utf-8").replace("wrong", key), encoding="utf-8")
    assert bench.here("plan", *flags).code == 0


def adoption(bench: Bench) -> Ran:
    bench.kapso.control("POST", "/functions", {"function": {"name": "greet", "slug": "greet", "code": BYE}})
    return bench.here("sync")


def too_many_deletions(bench: Bench) -> Ran:
    bench.set(owner="acme/flows", prune="true")
    bench.synced(a=HELLO, b=HELLO, c=HELLO)
    bench.write(c=HELLO)
    return bench.here("sync")


@hint("does all of this")
def a_plan_with_too_many_deletions(bench: Bench) -> Generator[Ran, Ran, None]:
    too_many_deletions(bench)
    ran = yield bench.here("plan")
    assert (ran.code, set(bench.kapso.world.live_code())) == (0, {"c"})


def no_function_at_all(bench: Bench) -> Ran:
    (bench.folder / "manifest.yaml").write_text("version: 1\nfunctions: {}\n", encoding="utf-8")
    return bench.here("sync")


def deletions_without_an_owner(bench: Bench) -> Ran:
    bench.set(prune="true")
    return bench.here("sync")


@pytest.mark.parametrize(
    ("situation", "setting"),
    [
        (adoption, "KAPSO_SYNC_ADOPT=always"),
        (too_many_deletions, "KAPSO_SYNC_MAX_DELETE=2"),
        (no_function_at_all, "KAPSO_SYNC_ALLOW_EMPTY=true"),
        (deletions_without_an_owner, "KAPSO_SYNC_OWNER"),
    ],
)
def test_the_setting_that_a_hint_names_ends_the_trouble(situation: Callable[[Bench], Ran], setting: str, bench: Bench) -> None:
    """As it is printed; where only its name is, with the example beside it."""
    shown = situation(bench)
    text = shown.out + shown.err
    assert (shown.code != 0, setting in text) == (True, True), text
    name, _, value = setting.partition("=")
    bench.environment[name] = value or re.findall(r"such as (\S+)", text)[0]
    ran = bench.here("sync")
    assert ran.code == 0, ran.out + ran.err


def given_back(bench: Bench) -> None:
    bench.write("    secrets:\n      TOKEN: {value: text}\n", greet=BYE)


def deleted_in_the_dashboard(bench: Bench) -> None:
    world = bench.kapso.world
    world.delete_secret(world.function("greet"), "TOKEN")


def removed_by_policy(bench: Bench) -> None:
    manifest = bench.folder / "manifest.yaml"
    text = manifest.read_text(encoding="utf-8")
    manifest.write_text(f"{text}defaults:\n  secrets_policy: exact\n", encoding="utf-8")


@pytest.mark.parametrize(
    ("remedy", "named", "left"),
    [
        (given_back, "give git its value again", {"TOKEN"}),
        (deleted_in_the_dashboard, "delete it in Kapso's dashboard", set()),
        (removed_by_policy, "`secrets_policy: exact` under `defaults`", set()),
    ],
)
def test_each_remedy_for_a_secret_that_git_no_longer_names_lets_the_function_be_deployed(
    remedy: Callable[[Bench], None], named: str, left: set[str], bench: Bench
) -> None:
    """On a base that drops secrets; no other secret is put at risk for it."""
    bench.kapso.control("PATCH", "/world", {"secrets_on_deploy": "drop"})
    bench.synced("    secrets:\n      TOKEN: {value: text}\n", greet=HELLO)
    bench.write(greet=BYE)
    shown = bench.here("sync")
    assert (shown.code, bench.live("greet")) == (1, HELLO)
    assert named in " ".join(shown.out.split()), shown.out
    assert "KAPSO_SYNC_UNKNOWN_SECRETS" not in shown.out
    remedy(bench)
    ran = bench.here("sync")
    assert (ran.code, bench.live("greet")) == (0, BYE), ran.out + ran.err
    assert {*bench.kapso.world.function("greet").secrets} == left


@pytest.mark.parametrize("command", ["plan", "sync"])
@pytest.mark.parametrize("given", [(), ("--max-delete", "1")])
def test_the_flag_and_the_next_command_about_the_limit_of_deletions_work(
    command: str, given: tuple[str, ...], bench: Bench
) -> None:
    """The next command has the limit that is needed, and not also the one that was given; nothing else deletes them."""
    too_many_deletions(bench)
    shown = bench.here(command, *given)
    assert re.search(r"--max-delete 2 or KAPSO_SYNC_MAX_DELETE=2 allows it", " ".join(shown.out.split()))
    (following,) = commands(shown, "next: ")
    assert following.count("--max-delete") == 1
    assert set(bench.kapso.world.live_code()) == {"a", "b", "c"}
    ran = bench.run(*following[1:])
    assert (ran.code, set(bench.kapso.world.live_code())) == (0, {"c"}), f"{following} {ran.out}{ran.err}"


def test_the_advice_for_settings_is_made_once_and_again_after_a_reload() -> None:
    """A daemon completes thousands of texts for each look at its status."""
    settings, made = ["old"], []

    def advice(value: str) -> Advise:
        made.append(value)
        return Advice({"status": value})

    complete = advice_for_latest(lambda: settings[0], advice)
    assert complete("see `kapso-sync status`") == complete("see `kapso-sync status`") == "see `kapso-sync status old`"
    settings[0] = "new"
    assert complete("see `kapso-sync status`, and nothing else") == "see `kapso-sync status new`, and nothing else"
    assert made == ["old", "new"]
