"""A pass that need not be made is recognised only where a whole one would find nothing to do, and looks like it."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from kapso_sync.errors import SourceUnstable
from kapso_sync.model.source import Snapshot
from kapso_sync.settings import Settings, load_settings
from kapso_sync.sources.folder import FolderSource
from kapso_sync.store.connection import DATABASE_NAME
from kapso_sync.store.database import StateStore
from kapso_sync.store.lock import held
from kapso_sync.telemetry.event_bus import EventBus
from kapso_sync.telemetry.logs import LogSettings
from kapso_sync.telemetry.redact import Redactor
from kapso_sync.wiring.earlier import earlier_list
from kapso_sync.wiring.engine import open_session
from kapso_sync.wiring.unchanged import DuePass, UnchangedPass, find_unchanged
from tests.clock import VirtualClock
from tests.program import answering, git, kapso_sync, write_functions
from tests.served import Served

Environment = dict[str, str]
MANIFEST = "version: 1\nfunctions:\n  greet:\n  part:\n"
MAKES_A_PASS = ("kapso_sync.reconcile.plan.planner", "kapso_sync.manifest.reader", "kapso_sync.store.database")
"""Modules that only a pass needs that is made."""


@dataclass
class Bench:
    """A folder that was synced twice, so that the last pass found everything in sync."""

    kapso: Served
    folder: Path
    environment: Environment

    def sync(self, *options: str) -> str:
        ran = kapso_sync("sync", str(self.folder), *options, environment=self.environment)
        assert ran.code == 0, ran
        return ran.out

    def settle(self) -> None:
        while "in sync." not in self.sync():
            pass
        self.sync()

    def found(self, *, writes: bool = False) -> UnchangedPass | None:
        """The pass that need not be made, if the next one need not."""
        found = self._find(writes=writes)
        return found if isinstance(found, UnchangedPass) else None

    def due(self) -> DuePass:
        """The pass that has to be made."""
        found = self._find(writes=False)
        assert isinstance(found, DuePass)
        return found

    def _find(self, *, writes: bool) -> UnchangedPass | DuePass:
        return asyncio.run(find_unchanged(self._settings, Redactor(), writes=writes, trigger="sync"))

    def follows(self, due: DuePass, *, writes: bool) -> bool:
        """Whether the list that the pass would use is that of the state that a session finds."""
        bus = EventBus(LogSettings(), io.StringIO(), VirtualClock(), Redactor())

        async def ask() -> bool:
            async with open_session(self._settings, bus, writes=writes) as session:
                return earlier_list(due, session).is_current()

        return asyncio.run(ask())

    @property
    def _settings(self) -> Settings:
        return load_settings({"source": str(self.folder)}, environment=self.environment)

    @property
    def state(self) -> Path:
        (database,) = Path(self.environment["KAPSO_SYNC_STATE_DIR"]).glob(f"*/{DATABASE_NAME}")
        return database.parent


@pytest.fixture
def bench(kapso: Served, folder: Path, environment: Environment) -> Bench:
    (folder / "manifest.yaml").write_text(MANIFEST, encoding="utf-8")
    (folder / "tsconfig.json").write_text("{}", encoding="utf-8")
    bench = Bench(kapso, folder, environment)
    bench.settle()
    assert bench.found() is not None
    return bench


def without_times(text: str) -> str:
    """Return the text without what differs between any two passes: times, durations and ids of passes."""
    text = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME", text)
    text = re.sub(r'("(?:duration_s|duration_ms|reconcile_id|rate_remaining)": )[^,}]+', r"\1X", text)
    return re.sub(r"\d+\.\d s\.", "X s.", text)


@pytest.mark.parametrize("level", ["debug", "info", "error"])
def test_it_prints_logs_and_records_what_a_whole_pass_does(bench: Bench, level: str) -> None:
    """Nobody can tell them apart, but by what is loaded; Kapso is asked for the same."""
    bench.environment["KAPSO_SYNC_LOG_LEVEL"] = level
    bench.settle()
    seen = []
    for whole in (True, False):
        if whole:
            begin_another_pass(bench)
        assert (bench.found() is None) is whole
        bench.kapso.forget_requests()
        ran = kapso_sync("sync", str(bench.folder), environment=bench.environment)
        status = kapso_sync("status", str(bench.folder), "--json", environment=bench.environment).out
        seen.append([ran.code, *map(without_times, (ran.out, ran.err, status)), bench.kapso.calls()])
    assert seen[0] == seen[1]
    seen.clear()
    for whole in (True, False):
        begin_another_pass(bench) if whole else bench.settle()
        assert (bench.found() is None) is whole
        ran = kapso_sync("plan", str(bench.folder), environment=bench.environment)
        seen.append([ran.code, *map(without_times, (ran.out, ran.err))])
    assert seen[0] == seen[1]


def test_its_time_is_that_of_the_last_pass(bench: Bench) -> None:
    def finished_at() -> str:
        document = kapso_sync("status", str(bench.folder), "--json", environment=bench.environment).document
        return str(document["last_pass"]["finished_at"])

    before = finished_at()
    assert bench.found(writes=True) is not None
    assert finished_at() > before
    assert bench.found(writes=False) is not None


def test_its_revision_is_called_as_the_work_tree_is_now(bench: Bench) -> None:
    """A commit that changes no function has another name, and the same files."""
    git(bench.folder, "init", "--quiet", "--initial-branch=main")
    bench.settle()

    def described() -> str:
        document = kapso_sync("status", str(bench.folder), "--json", environment=bench.environment).document
        return str(document["revision"]["described"])

    assert bench.found(writes=True) is not None
    assert described() == "main"
    git(bench.folder, "commit", "--quiet", "--allow-empty", "--message", "Nothing")
    assert bench.found(writes=True) is not None
    assert described().startswith("main@")


def test_a_pass_that_is_made_records_what_its_work_tree_is_called_now(bench: Bench) -> None:
    """Whether it was made or not, the status names the same commit; its files are known since the same time."""
    git(bench.folder, "init", "--quiet", "--initial-branch=main")
    bench.settle()

    def revision() -> dict[str, Any]:
        return dict(kapso_sync("status", str(bench.folder), "--json", environment=bench.environment).document["revision"])

    before = revision()
    git(bench.folder, "commit", "--quiet", "--allow-empty", "--message", "Nothing")
    bench.sync("--json")
    assert revision() == {**before, "described": f"main@{git(bench.folder, 'rev-parse', 'HEAD')[:12]}"}


def test_it_loads_nothing_that_makes_a_pass(bench: Bench) -> None:
    """What it saves is loading: one that has to be made loads all of them."""
    script = (
        "import sys\nfrom kapso_sync.__main__ import main\n"
        f"try: main()\nfinally: print(*[name for name in {MAKES_A_PASS} if name in sys.modules])"
    )

    def loaded(*command: str) -> str:
        environment = {**os.environ, **bench.environment}
        return subprocess.check_output([sys.executable, "-c", script, *command], env=environment, text=True).splitlines()[-1]

    for command in ("sync", "plan"):
        assert loaded(command, str(bench.folder)) == ""
    assert loaded("plan", str(bench.folder), "--json").split() == list(MAKES_A_PASS)


def change_code(bench: Bench) -> None:
    (bench.folder / "greet.js").write_text(answering("changed"), encoding="utf-8")


def change_code_within_a_tick(bench: Bench) -> None:
    """With the size and the times of before."""
    path = bench.folder / "greet.js"
    before = path.stat()
    path.write_text(path.read_text(encoding="utf-8").replace("hello", "hullo"), encoding="utf-8")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def change_manifest(bench: Bench) -> None:
    (bench.folder / "manifest.yaml").write_text(MANIFEST.replace("part:", "part:\n    name: Part"), encoding="utf-8")


def drop_function(bench: Bench) -> None:
    (bench.folder / "manifest.yaml").write_text(MANIFEST.replace("  part:\n", ""), encoding="utf-8")


def change_configuration(bench: Bench) -> None:
    (bench.folder / "tsconfig.json").write_text('{"compilerOptions": {}}', encoding="utf-8")


def add_project_file(bench: Bench) -> None:
    (bench.folder / ".kapso").mkdir()
    (bench.folder / ".kapso" / "project.json").write_text('{"project_id": "other"}', encoding="utf-8")


def deploy_on_kapso(bench: Bench) -> None:
    bench.kapso.world.deploy(bench.kapso.world.function("greet"), delay=0.0)


def forget_function_on_kapso(bench: Bench) -> None:
    bench.kapso.control("DELETE", "/functions/part")


def add_function_on_kapso(bench: Bench) -> None:
    bench.kapso.world.create({"slug": "other", "name": "other", "code": answering("other"), "description": ""})


def change_owner(bench: Bench) -> None:
    git(bench.folder, "init", "--quiet")
    git(bench.folder, "remote", "add", "origin", "https://example.com/acme/flows.git")


def begin_another_pass(bench: Bench) -> None:
    """As a process that is killed in it leaves it."""
    clock = VirtualClock()
    with held(bench.state, clock.now()), StateStore(bench.state, clock.now):
        pass


def record_as_an_older_version(bench: Bench) -> None:
    """An older version records its passes, and knows nothing of what this one keeps."""
    with sqlite3.connect(bench.state / DATABASE_NAME) as db:
        (text,) = db.execute("SELECT value FROM meta WHERE key = 'last_pass'").fetchone()
        later = json.dumps({**json.loads(text), "now": "2099-01-01T00:00:00.000Z"})
        db.execute("UPDATE meta SET value = ? WHERE key = 'last_pass'", (later,))


def begin_a_pass_as_an_older_version(bench: Bench) -> None:
    """As a process of it that is killed leaves it: it may have written anything to the state, and to secrets on Kapso."""
    running = json.dumps({"trigger": "sync", "since": "2026-01-01T00:00:00.000Z"})
    with sqlite3.connect(bench.state / DATABASE_NAME) as db:
        db.execute("INSERT INTO meta VALUES ('pass_running', ?)", (running,))


def learn_about_the_base(bench: Bench) -> None:
    (facts,) = bench.state.parent.glob("api-*.json")
    facts.write_text(json.dumps({**json.loads(facts.read_text(encoding="utf-8")), "secrets_survive": False}), encoding="utf-8")


def move_folder(bench: Bench) -> None:
    bench.folder.rename(bench.folder.with_name("moved"))


def file(name: str, text: str) -> Callable[[Bench], None]:
    def write(bench: Bench) -> None:
        (bench.folder / name).write_text(text, encoding="utf-8")

    return write


def setting(name: str, value: str) -> Callable[[Bench], None]:
    return lambda bench: bench.environment.update({name: value})


CHANGES: dict[str, Callable[[Bench], None]] = {
    "code": change_code,
    "code of the same size and time": change_code_within_a_tick,
    "the manifest": change_manifest,
    "a function that leaves git": drop_function,
    "a configuration": change_configuration,
    "a file that code does not reach": file("unused.js", answering("x")),
    "an unread file": file("notes.bin", "x"),
    "the project": add_project_file,
    "the folder is gone": move_folder,
    "code on Kapso": lambda bench: bench.kapso.edit("greet", code=answering("drift")),
    "a field on Kapso": lambda bench: bench.kapso.edit("greet", name="Drift"),
    "a mark on Kapso": lambda bench: bench.kapso.edit("greet", description=""),
    "a deployment on Kapso": deploy_on_kapso,
    "a function less on Kapso": forget_function_on_kapso,
    "a function more on Kapso": add_function_on_kapso,
    "the owner": change_owner,
    "a setting": setting("KAPSO_SYNC_DRIFT", "report"),
    "a setting of deletions": setting("KAPSO_SYNC_PRUNE", "true"),
    "an unknown setting": setting("KAPSO_SYNC_DRIFFT", "report"),
    "the key": setting("KAPSO_API_KEY", "another"),
    "a pass that was killed": begin_another_pass,
    "a pass of an older version": record_as_an_older_version,
    "a pass of an older version that was killed": begin_a_pass_as_an_older_version,
    "what is known of the base": learn_about_the_base,
    "no state": lambda bench: (bench.state / DATABASE_NAME).unlink(),
}


@pytest.mark.parametrize("what", CHANGES)
def test_nothing_is_taken_for_unchanged_that_has_changed(bench: Bench, what: str) -> None:
    """Whatever a plan is made from."""
    CHANGES[what](bench)
    assert bench.found() is None


SECRET = "version: 1\nfunctions:\n  greet:\n    secrets: {KEY: {env: KEY}}\n  part:\n"
UNUSED = "version: 1\nfunctions:\n  greet:\n  part:\n  third:\n"


@dataclass(frozen=True)
class Never:
    """A folder whose passes are always made: ``files`` of it, and settings."""

    files: dict[str, str]
    settings: dict[str, str]
    options: tuple[str, ...] = ()


NEVER = {
    "secrets": Never({"manifest.yaml": SECRET}, {"KAPSO_SYNC_SECRET_ENV": "KEY", "KEY": "of-the-function"}),
    "no secrets but git's": Never({"manifest.yaml": f"{MANIFEST}defaults: {{secrets_policy: exact}}\n"}, {}),
    "a package": Never(
        {
            "node_modules/left/index.js": "export const left = 'left';",
            "node_modules/left/package.json": '{"name": "left", "version": "1.0.0", "type": "module"}',
            "greet.js": "import { left } from 'left';\nexport default function handler() { return new Response(left); }",
        },
        {},
    ),
    "a package that would be taken for a built-in module": Never(
        {
            "greet.js": "import { Buffer } from 'buffer';\nexport default { fetch: () => new Response(Buffer.from('x')) };",
            "manifest.yaml": MANIFEST.replace("greet:", "greet: {contract: module}"),
        },
        {},
    ),
    "a warning": Never({"unused.js": answering("unused")}, {}),
    "a moved function": Never({"manifest.yaml": MANIFEST.replace("part:", "part: {moved_from: old}")}, {}),
}


@pytest.mark.parametrize("what", NEVER)
def test_a_folder_is_always_planned_if_more_than_its_files_decides(bench: Bench, what: str) -> None:
    """Values of secrets, packages on disk, and what people are to be told each time."""
    case = NEVER[what]
    for name, text in case.files.items():
        (bench.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (bench.folder / name).write_text(text, encoding="utf-8")
    bench.environment.update(case.settings)
    bench.settle()
    assert bench.found() is None
    for name in case.files:
        (bench.folder / name).unlink()
    write_functions(bench.folder, {"greet": answering("hello"), "part": answering("bye")})
    (bench.folder / "manifest.yaml").write_text(MANIFEST, encoding="utf-8")
    bench.settle()
    assert bench.found() is not None


@pytest.mark.parametrize("options", [("--only", "greet"), ("--retry", "greet"), ("--overwrite", "greet")])
def test_a_pass_with_options_of_its_own_is_made(bench: Bench, options: tuple[str, ...]) -> None:
    """And so is the next one, since that says nothing about one without."""
    bench.sync(*options)
    assert bench.found() is None


def test_a_document_is_that_of_a_pass_that_is_made(bench: Bench) -> None:
    """It has all functions."""
    ran = kapso_sync("plan", str(bench.folder), "--json", environment=bench.environment)
    assert [function["slug"] for function in ran.document["functions"]] == ["greet", "part"]


DUE = {
    "git": change_code,
    "Kapso": lambda bench: bench.kapso.edit("greet", code=answering("drift")),
    "a function of others": add_function_on_kapso,
}
"""What has changed, so that a pass is due."""


@pytest.mark.parametrize("what", DUE)
@pytest.mark.parametrize("command", ["plan", "sync"])
def test_a_pass_that_is_due_does_not_read_the_list_again(bench: Bench, command: str, what: str) -> None:
    """What was read to learn that it is due is what it works with; it is counted and logged like its own calls."""
    bench.environment["KAPSO_SYNC_LOG_LEVEL"] = "debug"
    DUE[what](bench)
    bench.kapso.forget_requests()
    ran = kapso_sync(command, str(bench.folder), environment=bench.environment)
    calls = bench.kapso.calls()
    assert ran.code == 0, ran
    writes = [number for number, call in enumerate(calls) if not call.startswith("GET")]
    assert bool(writes) is (command == "sync" and what != "a function of others")
    assert calls[: writes[0] if writes else None].count("GET /functions") == 1
    assert len([event for event in ran.events if event["event"] == "api.called"]) == len(calls)
    if command == "sync":
        assert ran.events[-1]["api_calls"] == len(calls)
        assert len({event["reconcile_id"] for event in ran.events}) == 1


def test_a_list_that_is_never_the_same_costs_no_call_more(bench: Bench) -> None:
    """Such as one in which others work all the time."""
    add_function_on_kapso(bench)
    bench.settle()
    for name in ("one", "two", "three"):
        bench.kapso.edit("other", name=name)
        bench.kapso.forget_requests()
        assert re.match(r"2 in sync\. 1 API call, ", bench.sync())
        assert len(bench.kapso.calls()) == 1


@pytest.mark.parametrize("writes", [False, True])
def test_a_list_is_not_used_with_the_state_that_another_process_left(bench: Bench, *, writes: bool) -> None:
    """It would lack what that one created: a pass would take it for deleted, and create it again."""
    change_code(bench)
    due = bench.due()
    assert due.listed is not None
    assert bench.follows(due, writes=writes)
    due = bench.due()
    bench.sync()
    assert not bench.follows(due, writes=writes)


GARBLED: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda _: b"",
    "not UTF-8": lambda _: b"\xff\xfe{}",
    "cut off": lambda kept: kept[:-1],
    "another number of functions": lambda kept: kept.replace(b'"functions": ', b'"functions": 1'),
    "without a digest, as an older version wrote it": lambda kept: kept.partition(b"\n")[2],
    "a list": lambda _: with_digest("[]"),
    "no JSON": lambda _: with_digest("{"),
    "nested too deeply": lambda _: with_digest("[" * 100_000),
    "a field more, by another version": lambda kept: with_digest(json.dumps({**document_of(kept), "more": 1})),
    "a field less, by another version": lambda kept: with_digest(
        json.dumps({name: value for name, value in document_of(kept).items() if name != "circumstances"})
    ),
}


def document_of(kept: bytes) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(kept.partition(b"\n")[2])
    return document


def with_digest(text: str) -> bytes:
    return f"{hashlib.sha256(text.encode()).hexdigest()}\n{text}".encode()


def change_record(bench: Bench, key: str, change: Callable[[bytes], bytes]) -> None:
    with contextlib.closing(sqlite3.connect(bench.state / DATABASE_NAME)) as db, db:
        (kept,) = db.execute("SELECT CAST(value AS BLOB) FROM meta WHERE key = ?", (key,)).fetchone()
        db.execute("UPDATE meta SET value = CAST(? AS TEXT) WHERE key = ?", (change(kept), key))


@pytest.mark.parametrize("what", GARBLED)
@pytest.mark.parametrize("command", ["plan", "sync"])
def test_a_garbled_record_costs_a_pass_and_nothing_else(bench: Bench, what: str, command: str) -> None:
    """Such as one that another version wrote; with the same change taken back, it counts again."""
    change_record(bench, "settled_pass", lambda kept: with_digest(json.dumps(document_of(kept))))
    assert bench.found() is not None
    change_record(bench, "settled_pass", GARBLED[what])
    assert bench.found() is None
    ran = kapso_sync(command, str(bench.folder), environment=bench.environment)
    assert (ran.code, "sync" in ran.out) == (0, True), ran


@pytest.mark.parametrize("garbled", [b"", b"\xff", b'{"now": "\xff"'])
@pytest.mark.parametrize("command", ["plan", "sync"])
def test_a_garbled_status_ends_no_command(bench: Bench, garbled: bytes, command: str) -> None:
    """Only people read it. SQLite refuses to return text that is not UTF-8, and no pass would ever get rid of it."""
    change_record(bench, "last_pass", lambda kept: garbled + kept[len(garbled) :] if garbled else b"")
    ran = kapso_sync(command, str(bench.folder), environment=bench.environment)
    assert (ran.code, "sync" in ran.out) == (0, True), ran


def test_an_unreachable_kapso_is_reported_by_the_pass(bench: Bench) -> None:
    """With its own words and exit code; nothing is recorded as in sync."""
    bench.environment["KAPSO_API_BASE_URL"] = "http://127.0.0.1:9/api/v1"
    assert bench.found() is None


def test_a_held_state_folder_is_reported_by_the_pass(bench: Bench) -> None:
    with held(bench.state, VirtualClock().now()):
        ran = kapso_sync("sync", str(bench.folder), environment=bench.environment)
    assert (ran.code, "another kapso-sync holds the state folder" in ran.err) == (75, True)


def test_a_failing_kapso_is_asked_once_more_than_by_the_pass_alone(bench: Bench) -> None:
    """The pass repeats what fails, and logs each time: nobody waits for that twice, or in silence."""
    bench.kapso.faults({"what": "status", "status": 503, "times": 2})
    bench.kapso.forget_requests()
    ran = kapso_sync("sync", str(bench.folder), environment=bench.environment)
    assert (ran.code, [event["event"] for event in ran.events].count("api.retry")) == (0, 1), ran
    assert len(bench.kapso.calls()) == 3


def test_a_pass_waits_as_long_as_kapso_asked_to(bench: Bench) -> None:
    """After a 429 nothing is sent before its time, and the wait is logged before it begins."""
    bench.environment["KAPSO_SYNC_LOG_LEVEL"] = "debug"
    bench.kapso.faults({"what": "status", "status": 429, "headers": {"Retry-After": "1"}, "times": 1})
    bench.kapso.forget_requests()
    ran = kapso_sync("sync", str(bench.folder), environment=bench.environment)
    assert ran.code == 0, ran
    refused, listed = (datetime.fromisoformat(request["time"]) for request in bench.kapso.requests())
    assert listed - refused >= timedelta(seconds=1)
    names = [event["event"] for event in ran.events]
    assert names.index("ratelimit.waiting") < len(names) - 1 - names[::-1].index("api.called")
    assert "api.retry" not in names


def test_a_setting_that_no_pass_accepts_is_reported_by_the_pass(bench: Bench, tmp_path: Path) -> None:
    """Such as the file of a token that is gone, though a folder needs none."""
    token = tmp_path / "token"
    token.write_text("secret", encoding="utf-8")
    bench.environment["KAPSO_SYNC_GIT_TOKEN_FILE"] = str(token)
    bench.settle()
    assert bench.found() is not None
    token.unlink()
    ran = kapso_sync("sync", str(bench.folder), environment=bench.environment)
    assert (ran.code, f"{token} cannot be read" in ran.err) == (78, True), ran


def test_another_commit_is_recorded_even_with_the_same_files(bench: Bench) -> None:
    """As git-sync publishes it: else the status would name the commit before it."""
    one, other = (shutil.copytree(bench.folder, bench.folder.parent / (digit * 40)) for digit in "12")
    link = bench.folder.parent / "current"
    link.symlink_to(one)
    bench.kapso.control("POST", "/reset")
    bench.folder = link
    bench.settle()
    assert bench.found() is not None
    link.unlink()
    link.symlink_to(other)
    bench.sync()
    status = kapso_sync("status", str(link), "--json", environment=bench.environment).document
    assert status["revision"]["id"] == other.name


def test_an_unreadable_file_is_not_taken_for_one_that_says_so(bench: Bench) -> None:
    """Whatever its text is, a link that leads out of the folder is none of its files."""
    note = bench.folder / "note.txt"
    note.write_text("is a link that leads out of the folder", encoding="utf-8")
    code = "import note from './note.txt';\nexport default { fetch: () => new Response(note) };\n"
    (bench.folder / "greet.js").write_text(code, encoding="utf-8")
    bench.settle()
    assert bench.found() is not None
    note.unlink()
    note.symlink_to("/etc/hostname")
    assert bench.found() is None


@pytest.mark.parametrize("command", ["plan", "sync"])
def test_an_env_file_is_read_once_for_both(bench: Bench, command: str) -> None:
    """It may be a pipe, as of `--env-file <(sops decrypt …)`: read again it is empty, and all settings are other ones."""
    begin_another_pass(bench)
    reading, writing = os.pipe()
    os.write(writing, "".join(f"{name}={value}\n" for name, value in bench.environment.items()).encode())
    os.close(writing)
    try:
        ran = kapso_sync(command, str(bench.folder), "--env-file", f"/dev/fd/{reading}", environment={})
    finally:
        os.close(reading)
    assert (ran.code, "sync" in ran.out) == (0, True), ran


@pytest.mark.parametrize("command", ["plan", "sync"])
def test_a_call_beside_a_folder_that_cannot_be_read_is_logged(
    bench: Bench, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kapso is asked while the folder is read, so it was asked already when the folder turns out to keep changing."""

    def wait_for_the_call() -> None:
        while not bench.kapso.calls():
            time.sleep(0.01)

    async def fetch(*_: object) -> Snapshot:
        await asyncio.to_thread(wait_for_the_call)
        raise SourceUnstable("it keeps changing")

    bench.environment["KAPSO_SYNC_LOG_LEVEL"] = "debug"
    bench.kapso.forget_requests()
    monkeypatch.setattr(FolderSource, "fetch", fetch)
    ran = kapso_sync(command, str(bench.folder), environment=bench.environment)
    assert ran.code != 0
    assert [event["event"] for event in ran.events].count("api.called") == len(bench.kapso.calls()) == 1, ran


INTERRUPTED = """
import os, signal, sys
from kapso_sync.cli import unchanged
from kapso_sync.cli.app import run_command_line
find = unchanged.find_unchanged
async def find_and_interrupt(*arguments, **options):
    found = await find(*arguments, **options)
    os.kill(os.getpid(), signal.SIGINT)
    return found
unchanged.find_unchanged = find_and_interrupt
sys.exit(run_command_line(sys.argv[1:]))
"""
"""The program, interrupted when it has just learnt whether a pass is due."""


def test_an_interrupt_before_a_pass_that_is_due_ends_the_command(bench: Bench) -> None:
    """However late it comes: the pass would write to Kapso, and be killed in the middle of it."""
    change_code(bench)
    bench.kapso.forget_requests()
    environment = {**os.environ, **bench.environment}
    command = [sys.executable, "-c", INTERRUPTED, "sync", str(bench.folder)]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert (ran.returncode, bench.kapso.calls()) == (130, ["GET /functions"]), ran
