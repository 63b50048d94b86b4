"""The daemon as a process: from a save or a push to live code, through kills, outages and manual requests."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.program import answering, git, kapso_sync, started, write_functions
from tests.served import Served, served
from tests.sources.servers import GitServer, serving

pytestmark = pytest.mark.e2e
SECRET = "webhook-secret-of-this-test"


@dataclass
class Running:
    """A daemon, its log so far, and where it listens."""

    process: subprocess.Popen[str]
    lines: list[dict[str, Any]] = field(default_factory=list)
    raw: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return str(self.event("daemon.started")["url"])

    def named(self, name: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["event"] == name]

    def event(self, name: str, count: int = 1, seconds: float = 20.0) -> dict[str, Any]:
        """Wait until an event was logged so often, and return the last of them."""
        until(lambda: len(self.named(name)) >= count or self.process.poll() is not None, seconds, what=lambda: self.raw)
        found = self.named(name)
        assert len(found) >= count, (name, self.raw)
        return found[count - 1]

    def status(self) -> dict[str, Any]:
        answer: dict[str, Any] = httpx.get(f"{self.url}/api/status", timeout=20, trust_env=False).json()
        return answer

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(20)


def until(condition: Callable[[], object], seconds: float = 20.0, what: Callable[[], object] = lambda: "") -> None:
    """Wait for something that happens in another process, which has no event for us."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.01)


@contextlib.contextmanager
def daemon(
    source: str, environment: Mapping[str, str], *flags: str, enter: Callable[[], None] | None = None
) -> Iterator[Running]:
    with started("run", source, *flags, environment=environment, enter=enter) as process:
        running = Running(process)

        def read() -> None:
            assert process.stderr is not None
            for line in process.stderr:
                running.raw.append(line)
                if line.startswith("{"):
                    running.lines.append(json.loads(line))

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        try:
            yield running
        finally:
            process.kill()
            reader.join(20)
    assert not [line for line in running.raw if "Traceback" in line], running.raw


@pytest.fixture
def kapso() -> Iterator[Served]:
    with served() as running:
        yield running


@pytest.fixture
def environment(kapso: Served, tmp_path: Path) -> dict[str, str]:
    return {
        **kapso.environment(tmp_path / "state"),
        "KAPSO_SYNC_OWNER": "acme/flows",
        "KAPSO_SYNC_LISTEN": "127.0.0.1:0",
        "KAPSO_SYNC_DEBOUNCE": "100ms",
        "KAPSO_SYNC_WEBHOOK_SECRET": SECRET,
        "KAPSO_SYNC_REQUEST_TIMEOUT": "2s",
        "KAPSO_SYNC_DEPLOY_TIMEOUT": "10s",
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "functions"
    write_functions(folder, {"greet": answering("one"), "part": answering("bye")})
    return folder


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    repository = tmp_path / "repository"
    repository.mkdir()
    git(repository, "init", "--quiet", "--initial-branch=main")
    commit(repository, {"greet": answering("one")})
    return repository


def commit(repository: Path, functions: Mapping[str, str], message: str = "Change") -> str:
    write_functions(repository / "functions", functions)
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "--message", message)
    return git(repository, "rev-parse", "HEAD").strip()


def push_hook(running: Running, **payload: object) -> httpx.Response:
    body = json.dumps({"ref": "refs/heads/main", **payload}).encode()
    signature = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    headers = {"X-Signature": f"sha256={signature}"}
    return httpx.post(f"{running.url}/hooks/git", content=body, headers=headers, timeout=20, trust_env=False)


def live(kapso: Served, **codes: str) -> Callable[[], bool]:
    wanted = {slug: answering(text) for slug, text in codes.items()}
    return lambda: {slug: code for slug, code in kapso.live_code().items() if slug in wanted} == wanted


def test_a_saved_file_is_deployed_and_then_no_api_call_is_made(
    kapso: Served, folder: Path, environment: dict[str, str]
) -> None:
    """Created at the start; a saved file is deployed; then the API is not called, and SIGTERM ends the daemon with 0."""
    with daemon(str(folder), {**environment, "KAPSO_SYNC_LOG_LEVEL": "debug"}) as running:
        running.event("reconcile.finished")
        assert live(kapso, greet="one", part="bye")()
        (folder / "greet.js").write_text(answering("two"))
        until(live(kapso, greet="two"))
        running.event("reconcile.finished", 2)
        status = running.status()
        assert (status["in_sync"], [function["state"] for function in status["functions"]]) == (True, ["Ready", "Ready"])
        kapso.forget_requests()
        triggers = len(running.named("trigger.received"))
        os.utime(folder / "greet.js")
        running.event("trigger.received", triggers + 1)
        # The control: the next save is one pass, so the touched file before it was none.
        (folder / "part.js").write_text(answering("see you"))
        until(live(kapso, part="see you"))
        running.event("reconcile.finished", 3)
        calls = kapso.calls()
        assert calls[: next(n for n, call in enumerate(calls) if not call.startswith("GET"))].count("GET /functions") == 1
        assert running.stop() == 0
        assert [line["event"] for line in running.lines][-2:] == ["daemon.stopping", "daemon.stopped"]


def test_twenty_files_saved_at_once_are_one_pass(kapso: Served, tmp_path: Path, environment: dict[str, str]) -> None:
    """One trigger, one plan."""
    folder = tmp_path / "functions"
    write_functions(folder, {f"f{number}": answering("one") for number in range(20)})
    with daemon(str(folder), environment) as running:
        running.event("reconcile.finished")
        write_functions(folder, {f"f{number}": answering("two") for number in range(20)})
        until(live(kapso, **{f"f{number}": "two" for number in range(20)}))
        running.event("reconcile.finished", 2)
        assert len(running.named("reconcile.finished")) == 2


def test_a_repository_that_moved_on_its_host_is_read_and_its_webhook_counts(
    kapso: Served, repository: Path, environment: dict[str, str]
) -> None:
    """The setting has the former name, the forge's payload the new one; the move is logged once."""
    with serving(GitServer(repository.parent)) as server:
        server.moved = {"/acme/before": "/repository"}
        with daemon(f"{server.url}/acme/before", environment) as running:
            running.event("reconcile.finished")
            moved = running.event("source.moved")
            assert (moved["source"], moved["moved_to"]) == (f"{server.url}/acme/before", f"{server.url}/repository")
            commit(repository, {"greet": answering("two")}, "Second")
            payload = {"repository": {"clone_url": "https://git.acme.example/repository.git"}}
            assert "ignored" not in push_hook(running, **payload).json()
            until(live(kapso, greet="two"))
            other = {"repository": {"clone_url": "https://git.acme.example/other.git"}}
            assert push_hook(running, **other).json()["ignored"] == "another repository"
            assert len(running.named("source.moved")) == 1


def test_a_webhook_for_a_push_deploys_the_configured_branch(
    kapso: Served, repository: Path, environment: dict[str, str]
) -> None:
    """The payload is not trusted: the branch is fetched. Force-pushes are followed, other refs ignored."""
    with daemon(repository.as_uri(), environment) as running:
        running.event("reconcile.finished")
        first = commit(repository, {"greet": answering("two")}, "Second")
        assert push_hook(running).status_code == 202
        until(live(kapso, greet="two"))
        changed = running.event("source.changed", 2)
        assert (changed["revision"], changed["subject"], changed["author"]) == (first, "Second", "Ada")
        git(repository, "reset", "--quiet", "--hard", "HEAD~1")
        commit(repository, {"greet": answering("three")}, "Rewritten")
        assert push_hook(running).status_code == 202
        until(live(kapso, greet="three"))
        assert running.event("source.changed", 3)["previous"] == first
        running.event("reconcile.finished", 3)
        kapso.forget_requests()
        assert push_hook(running, ref="refs/heads/other", repository={"clone_url": "https://x.example/y"}).json()["ignored"]
        assert kapso.calls() == []


def test_a_deleted_branch_deletes_no_function(kapso: Served, repository: Path, environment: dict[str, str]) -> None:
    """Deleted, moved, and back: an error, the last good revision stays in force, and then syncing goes on."""
    with daemon(repository.as_uri(), {**environment, "KAPSO_SYNC_PRUNE": "true"}, "--branch", "main") as running:
        running.event("reconcile.finished")
        git(repository, "branch", "--quiet", "--move", "main", "other")
        push_hook(running)
        assert "main" in running.event("reconcile.failed")["error"]
        git(repository, "branch", "--quiet", "--move", "other", "main")
        push_hook(running)
        running.event("failure.ended")
        away = repository.with_name("away")
        repository.rename(away)
        push_hook(running)
        running.event("reconcile.failed", 2)
        assert live(kapso, greet="one")()
        away.rename(repository)
        commit(repository, {"greet": answering("two")})
        push_hook(running)
        until(live(kapso, greet="two"))


def test_a_fix_does_not_wait_for_a_hanging_deployment(kapso: Served, repository: Path, environment: dict[str, str]) -> None:
    """The next commit does not wait for the deployment's timeout."""
    with daemon(repository.as_uri(), {**environment, "KAPSO_SYNC_DEPLOY_TIMEOUT": "10m"}) as running:
        running.event("reconcile.finished")
        kapso.faults({"what": "deploy_hangs", "nth": 1})
        commit(repository, {"greet": answering("stuck")})
        push_hook(running)
        running.event("deploy.started", 2)
        commit(repository, {"greet": answering("fixed")})
        push_hook(running)
        until(live(kapso, greet="fixed"), 10)


def test_status_says_that_a_pass_runs_and_a_restart_keeps_since_when_functions_are_ready(
    kapso: Served, repository: Path, environment: dict[str, str]
) -> None:
    """With its trigger; `ready for` counts from the first time, not from the start of the daemon."""
    source = repository.as_uri()

    def ready_since(running: Running) -> str:
        (function,) = running.status()["functions"]
        (since,) = [each["since"] for each in function["conditions"] if each["type"] == "Ready"]
        return str(since)

    with daemon(source, environment) as running:
        running.event("reconcile.finished")
        first = ready_since(running)
        running.stop()
    with daemon(source, environment) as running:
        until(lambda: running.url and running.status()["functions"])
        assert ready_since(running) == first
        assert running.status()["started_at"] > first
        kapso.faults({"what": "deploy_hangs", "nth": 1})
        commit(repository, {"greet": answering("slow")})
        push_hook(running)
        running.event("deploy.started")
        shown = kapso_sync("status", source, environment=environment).out
        assert re.search(r"^Now           a pass is running since [0-9: -]+ UTC, trigger: webhook$", shown, flags=re.MULTILINE)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_restart_finishes_an_interrupted_deployment(
    kapso: Served, folder: Path, environment: dict[str, str], number: signal.Signals
) -> None:
    """Stopped or killed while a deployment runs: the next daemon finishes it, under the same ids."""
    kapso.faults({"what": "deploy_hangs", "nth": 1})
    with daemon(str(folder), environment) as running:
        running.event("deploy.started")
        before = time.monotonic()
        code = running.stop(number)
        assert time.monotonic() - before < 10
        assert code == (0 if number is signal.SIGTERM else -number)
    ids = {function.id for function in kapso.world.functions.values()}
    with daemon(str(folder), environment):
        until(live(kapso, greet="one", part="bye"))
    assert ids <= {function.id for function in kapso.world.functions.values()}
    assert len(kapso.world.functions) == 2


def test_a_second_daemon_on_a_locked_state_folder_exits_with_75(folder: Path, environment: dict[str, str]) -> None:
    """The error names the first daemon, even where that also has the port."""
    with daemon(str(folder), environment) as running:
        running.event("reconcile.finished")
        environment = {**environment, "KAPSO_SYNC_LISTEN": running.url.removeprefix("http://")}
        second = subprocess.run(
            [*_program(), "run", str(folder)], env=_clean(environment), capture_output=True, text=True, timeout=20, check=False
        )
        assert second.returncode == 75
        assert f"pid {running.process.pid} on " in second.stderr


def _program() -> list[str]:
    import sys

    return [sys.executable, "-m", "kapso_sync"]


def _clean(environment: Mapping[str, str]) -> dict[str, str]:
    return {**{name: value for name, value in os.environ.items() if not name.startswith("KAPSO_")}, **environment}


def test_reconcile_suspend_and_resume_on_the_command_line(kapso: Served, folder: Path, environment: dict[str, str]) -> None:
    """A suspension outlives a restart, and changes made meanwhile are deployed at its end."""
    with daemon(str(folder), environment) as running:
        running.event("reconcile.finished")
        asked = kapso_sync("reconcile", "--wait", str(folder), environment=environment)
        assert (asked.code, "2 of 2 functions in git are ready." in asked.out) == (0, True)
        assert kapso_sync("suspend", "--reason", "a freeze", str(folder), environment=environment).code == 0
        running.event("suspended")
        (folder / "greet.js").write_text(answering("two"))
        assert "Suspended: a freeze." in kapso_sync("reconcile", str(folder), environment=environment).out
        assert live(kapso, greet="one")()
        shown = kapso_sync("status", str(folder), environment=environment)
        assert "Suspended     since " in shown.out
        assert "a freeze" in shown.out
        running.stop()
    with daemon(str(folder), environment) as running:
        running.event("suspended")
        assert running.status()["suspended"]["reason"] == "a freeze"
        assert kapso_sync("resume", str(folder), environment=environment).code == 0
        until(live(kapso, greet="two"))
    gone = kapso_sync("resume", str(folder), environment=environment)
    assert gone.code == 78
    assert "no daemon" in gone.err or "does not answer" in gone.err


def test_an_api_outage_is_logged_once_and_survived(kapso: Served, folder: Path, environment: dict[str, str]) -> None:
    """At its beginning and at its end; the page answers, health stays good, and the work goes on."""
    kapso.faults({"what": "status", "status": 503})
    quick = {**environment, "KAPSO_SYNC_INTERVAL": "300ms", "KAPSO_SYNC_REQUEST_TIMEOUT": "300ms"}
    with daemon(str(folder), quick) as running:
        running.event("reconcile.failed")
        assert httpx.get(f"{running.url}/healthz", timeout=20, trust_env=False).status_code == 200
        assert httpx.get(f"{running.url}/readyz", timeout=20, trust_env=False).status_code == 200
        assert running.status()["last_pass"]["exit_code"] == 69
        attempts = len(kapso.calls())
        until(lambda: len(kapso.calls()) >= attempts + 5)
        kapso.faults()
        until(live(kapso, greet="one", part="bye"), 30)
        assert len(running.named("reconcile.failed")) == 1
        assert len(running.named("api.retry")) <= 4, "those of the first pass alone"
        running.event("failure.ended")


def test_a_function_that_keeps_failing_is_retried_with_backoff(
    kapso: Served, folder: Path, environment: dict[str, str]
) -> None:
    """The others stay live, and a fix is deployed at once."""
    kapso.faults({"what": "deploy_fails", "slug": "greet"})
    with daemon(str(folder), {**environment, "KAPSO_SYNC_INTERVAL": "200ms"}) as running:
        running.event("deploy.failed")
        until(live(kapso, part="bye"))
        passes = kapso.calls().count("GET /functions")
        until(lambda: kapso.calls().count("GET /functions") >= passes + 8)
        tries = kapso.calls().count("POST /functions/{id}/deploy")
        assert tries <= 7
        function = next(item for item in running.status()["functions"] if item["slug"] == "greet")
        assert function["retry_at"] is not None
        kapso.faults()
        (folder / "greet.js").write_text(answering("fixed"))
        until(live(kapso, greet="fixed"), 5)


def test_a_changed_mounted_secret_is_deployed(kapso: Served, folder: Path, environment: dict[str, str], tmp_path: Path) -> None:
    """Kubernetes moves a symlink: the new value is set and deployed once; the old one is in no file that we write."""
    mounted = tmp_path / "mounted"
    for version in ("one", "two"):
        (mounted / f"..{version}").mkdir(parents=True)
        (mounted / f"..{version}" / "token").write_text(f"value-{version}-of-the-secret")
    (mounted / "..data").symlink_to("..one")
    (mounted / "token").symlink_to("..data/token")
    write_functions(folder, {"greet": answering("one")}, "    secrets: {TOKEN: {file: token}}\n")
    with daemon(str(folder), {**environment, "KAPSO_SYNC_SECRETS_DIR": str(mounted)}) as running:
        running.event("secret.set")
        running.event("reconcile.finished")
        assert kapso.secrets("greet") == {"TOKEN": "value-one-of-the-secret"}
        kapso.forget_requests()
        (mounted / "..next").symlink_to("..two")
        (mounted / "..next").rename(mounted / "..data")
        running.event("secret.set", 2)
        running.event("reconcile.finished", 2)
        assert kapso.secrets("greet") == {"TOKEN": "value-two-of-the-secret"}
        writes = [call for call in kapso.calls() if not call.startswith("GET")]
        assert writes == [
            "PATCH /functions/{id}",  # the mark says that secrets are being changed
            "POST /functions/{id}/secrets",
            "DELETE /functions/{id}/secrets/{name}",
            "POST /functions/{id}/secrets",
            "POST /functions/{id}/deploy",
            "PATCH /functions/{id}",  # the mark says which secrets were applied
        ]
        page = httpx.get(running.url, timeout=20, trust_env=False).text
        status = json.dumps(running.status())
    state = b"".join(path.read_bytes() for path in (tmp_path / "state").rglob("*") if path.is_file())
    assert "of-the-secret" not in "".join(running.raw) + page + status
    assert b"of-the-secret" not in state


def test_sighup_reloads_settings_and_sigusr1_logs_the_status(
    kapso: Served, folder: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    """SIGHUP reads the settings file again, SIGUSR1 logs the status in one line."""
    settings = tmp_path / "settings.env"
    settings.write_text("KAPSO_SYNC_DRIFT=report\n")
    with daemon(str(folder), environment, "--env-file", str(settings)) as running:
        running.event("reconcile.finished")
        kapso.edit("greet", code=answering("by hand"))
        settings.write_text("KAPSO_SYNC_DRIFT=whatever\n")
        running.process.send_signal(signal.SIGHUP)
        running.event("settings.invalid")
        settings.write_text("KAPSO_SYNC_WEBHOOK_SECRET_FILE=/nowhere\n")
        running.process.send_signal(signal.SIGHUP)
        assert "KAPSO_SYNC_WEBHOOK_SECRET_FILE" in running.event("settings.invalid", 2)["error"]
        settings.write_text("KAPSO_SYNC_DRIFT=correct\n")
        running.process.send_signal(signal.SIGHUP)
        running.event("settings.reloaded")
        until(live(kapso, greet="one"))
        running.event("drift.corrected")
        running.process.send_signal(signal.SIGUSR1)
        assert "functions ready" in running.event("daemon.state")["state"]


@pytest.mark.parametrize(
    ("flags", "settings", "code"),
    [
        ((), {"KAPSO_SYNC_INTERVAL": "0s"}, 78),
        ((), {"KAPSO_API_KEY": ""}, 78),
        ((), {"KAPSO_SYNC_LISTEN": "nowhere"}, 78),
        ((), {"KAPSO_SYNC_LEASE": "kapso-sync"}, 78),
        ((), {"KAPSO_SYNC_WEBHOOK_SECRET": "first\nsecond"}, 78),
        ((), {"KAPSO_SYNC_WEBHOOK_SECRET_FILE": "/nowhere"}, 78),
        ((), {"KAPSO_SYNC_ADMIN_TOKEN_FILE": "/nowhere"}, 78),
        (("--interval", "-5m"), {}, 78),
    ],
)
def test_contradictory_daemon_settings_exit_at_the_start(
    folder: Path, environment: dict[str, str], flags: tuple[str, ...], settings: dict[str, str], code: int
) -> None:
    """A daemon that cannot work must not look as if it did."""
    ran = kapso_sync("run", str(folder), *flags, environment={**environment, **settings})
    assert ran.code == code
    assert ran.err.splitlines()[-2].startswith("error: ")


def test_a_daemon_of_a_missing_folder_exits_with_78(tmp_path: Path, environment: dict[str, str]) -> None:
    """The error names the folder."""
    ran = kapso_sync("run", str(tmp_path / "nowhere"), environment=environment)
    assert ran.code == 78
    assert "nowhere" in ran.err


def test_a_post_receive_hook_triggers_a_pass(
    kapso: Served, repository: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    """A bare repository on the same machine notifies the daemon with a hook of two lines."""
    bare = tmp_path / "bare.git"
    git(tmp_path, "clone", "--quiet", "--bare", str(repository), str(bare))
    with daemon(str(bare), environment) as running:
        running.event("reconcile.finished")
        hook = bare / "hooks" / "post-receive"
        program = shutil.which("kapso-sync") or "kapso-sync"
        program = str(Path(_program()[0]).with_name("kapso-sync")) or program
        variables = " ".join(f"{name}='{value}'" for name, value in environment.items())
        hook.write_text(f"#!/bin/sh\nenv {variables} {program} reconcile '{bare}' >/dev/null\n")
        hook.chmod(0o755)
        commit(repository, {"greet": answering("two")})
        git(repository, "push", "--quiet", str(bare), "main")
        until(live(kapso, greet="two"))
