"""The daemon in trouble: at the start, at the end, on a reload of the settings, and with a full disk."""

from __future__ import annotations

import contextlib
import resource
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.test_daemon import Running, commit, daemon, live, until
from tests.program import answering, git, kapso_sync, write_functions
from tests.served import Served, served

pytestmark = pytest.mark.e2e


@pytest.fixture
def kapso() -> Iterator[Served]:
    with served() as running:
        yield running


@pytest.fixture
def environment(kapso: Served, tmp_path: Path) -> dict[str, str]:
    return {
        **kapso.environment(tmp_path / "state"),
        "KAPSO_SYNC_OWNER": "acme/flows",
        "KAPSO_SYNC_LISTEN": f"127.0.0.1:{free_port()}",
        "KAPSO_SYNC_DEBOUNCE": "100ms",
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "functions"
    write_functions(folder, {"greet": answering("one"), "part": answering("bye")})
    return folder


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def hanging_git_server() -> Iterator[str]:
    """A server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"https://127.0.0.1:{listener.getsockname()[1]}/acme/flows.git"


@contextlib.contextmanager
def systemd(tmp_path: Path) -> Iterator[tuple[str, list[str]]]:
    """Listen as systemd does; yield the socket's path, and what was said so far."""
    path, said = str(tmp_path / "notify"), list[str]()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(path)

        def listen() -> None:
            with contextlib.suppress(OSError):
                while True:
                    said.append(listener.recv(4096).decode().strip())

        threading.Thread(target=listen, daemon=True).start()
        yield path, said


def answers(environment: dict[str, str], path: str) -> int:
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(f"http://{environment['KAPSO_SYNC_LISTEN']}{path}", timeout=20, trust_env=False).status_code
    return 0


def running_by_itself(running: Running) -> bool:
    return running.process.poll() is None


def test_a_hanging_git_server_does_not_block_health_watchdog_or_shutdown(environment: dict[str, str], tmp_path: Path) -> None:
    """The daemon answers health requests while it waits, feeds the watchdog, and ends at once on a signal."""
    with hanging_git_server() as url, systemd(tmp_path) as (path, said):
        watched = {**environment, "NOTIFY_SOCKET": path, "WATCHDOG_USEC": "400000", "KAPSO_SYNC_OWNER": ""}
        with daemon(url, watched) as running:
            until(lambda: answers(environment, "/healthz") == 200)
            until(lambda: said.count("WATCHDOG=1") >= 3)
            began = time.monotonic()
            assert running.stop() == 0
            assert time.monotonic() - began < 3
        assert "STOPPING=1" in said


def test_the_daemon_is_ready_although_the_git_server_is_down_at_the_start(environment: dict[str, str], tmp_path: Path) -> None:
    """The watchdog is fed; settings that name another source take effect at once."""
    repository = tmp_path / "repository"
    repository.mkdir()
    git(repository, "init", "--quiet", "--initial-branch=main")
    commit(repository, {"greet": answering("one")})
    settings = tmp_path / "settings.env"
    settings.write_text(f"KAPSO_SYNC_SOURCE=https://127.0.0.1:{free_port()}/acme/flows.git\n")
    with systemd(tmp_path) as (path, said):
        watched = {**environment, "NOTIFY_SOCKET": path, "WATCHDOG_USEC": "400000", "KAPSO_SYNC_OWNER": ""}
        with daemon_of_settings(settings, watched) as running:
            running.event("reconcile.failed")
            until(lambda: answers(environment, "/readyz") == 200)
            until(lambda: "READY=1" in said)
            fed = said.count("WATCHDOG=1")
            until(lambda: said.count("WATCHDOG=1") > fed + 2)
            settings.write_text(f"KAPSO_SYNC_SOURCE={repository.as_uri()}\n")
            running.process.send_signal(signal.SIGHUP)
            running.event("reconcile.finished")
            tries = len(running.named("daemon.started"))
            assert tries == 1
            assert running.stop() == 0


@contextlib.contextmanager
def daemon_of_settings(settings: Path, environment: dict[str, str]) -> Iterator[Running]:
    """A daemon whose source is in its settings file."""
    with daemon("--env-file", environment, str(settings)) as running:
        yield running


def test_a_reload_with_invalid_settings_keeps_the_old_ones(
    kapso: Served, folder: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    """A missing folder, pruning without an owner: an error is logged, and the daemon goes on as before."""
    settings = tmp_path / "settings.env"
    settings.write_text(f"KAPSO_SYNC_SOURCE={folder}\n")
    with daemon_of_settings(settings, environment) as running:
        running.event("reconcile.finished")
        settings.write_text(f"KAPSO_SYNC_SOURCE={tmp_path / 'nowhere'}\n")
        running.process.send_signal(signal.SIGHUP)
        assert "nowhere" in running.event("settings.invalid")["error"]
        assert not running.named("settings.reloaded")
        (folder / "greet.js").write_text(answering("two"))
        until(live(kapso, greet="two"))
        assert running_by_itself(running)


def test_what_a_person_allows_while_no_source_answers_counts_once_one_does(
    kapso: Served, folder: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    """The daemon accepted it, so it is not lost with the session."""
    settings = tmp_path / "settings.env"
    works = f"KAPSO_SYNC_SOURCE={folder}\nKAPSO_SYNC_DRIFT=report\n"
    settings.write_text(works)
    with daemon_of_settings(settings, environment) as running:
        running.event("reconcile.finished")
        kapso.edit("greet", code=answering("by hand"))
        silent = f"https://127.0.0.1:{free_port()}/acme/flows.git"
        settings.write_text(f"KAPSO_SYNC_SOURCE={silent}\n")
        running.process.send_signal(signal.SIGHUP)
        running.event("settings.reloaded")
        running.event("reconcile.failed")
        asked = kapso_sync("reconcile", "--overwrite", "greet", silent, environment=environment)
        assert asked.code == 0, asked.err
        settings.write_text(works)
        running.process.send_signal(signal.SIGHUP)
        until(live(kapso, greet="one"))


def test_a_reload_with_another_source_moves_state_address_and_suspension(
    kapso: Served, folder: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    """Clients of the daemon then name the new source."""
    other = tmp_path / "other"
    write_functions(other, {"greet": answering("other"), "part": answering("bye")})
    settings = tmp_path / "settings.env"
    settings.write_text(f"KAPSO_SYNC_SOURCE={folder}\n")
    with daemon_of_settings(settings, environment) as running:
        running.event("reconcile.finished")
        assert kapso_sync("suspend", "--reason", "moving", str(folder), environment=environment).code == 0
        settings.write_text(f"KAPSO_SYNC_SOURCE={other}\nKAPSO_SYNC_LOG_LEVEL=debug\n")
        running.process.send_signal(signal.SIGHUP)
        running.event("daemon.started", 2)
        running.event("suspended", 2)
        asked = kapso_sync("reconcile", "--wait", str(other), environment=environment)
        ending = f"The daemon reconciles once `kapso-sync resume {other}` ends it."
        assert (asked.code, asked.out) == (1, f"Suspended: moving. {ending}\n")
        assert kapso_sync("resume", str(folder), environment=environment).code == 78
        assert live(kapso, greet="one")()
        assert kapso_sync("resume", str(other), environment=environment).code == 0
        until(live(kapso, greet="other"))
        assert running.event("trigger.received")["level"] == "debug", "the log's level was taken up as well"


def test_an_expired_suspension_ends_on_the_page_in_metrics_and_after_a_restart(
    folder: Path, environment: dict[str, str]
) -> None:
    """All of them show that it ended by itself."""
    with daemon(str(folder), environment) as running:
        running.event("reconcile.finished")
        assert kapso_sync("suspend", "--reason", "lunch", "--for", "1s", str(folder), environment=environment).code == 0
        running.event("resumed")
        until(lambda: running.status()["suspended"] is None)
        running.stop()
    with daemon(str(folder), environment) as running:
        until(lambda: (running.status()["last_pass"] or {}).get("exit_code") == 0)
        assert running.named("suspended") == []


def test_a_suspended_daemon_is_ready_after_a_restart(folder: Path, environment: dict[str, str]) -> None:
    """Otherwise Kubernetes would kill the Pod again and again during the suspension."""
    with daemon(str(folder), environment) as running:
        running.event("reconcile.finished")
        assert kapso_sync("suspend", "--reason", "a freeze", str(folder), environment=environment).code == 0
        running.stop()
    with daemon(str(folder), environment) as running:
        running.event("suspended")
        until(lambda: answers(environment, "/readyz") == 200)


def test_the_daemon_is_ready_before_the_first_deployments_end(kapso: Served, folder: Path, environment: dict[str, str]) -> None:
    """A first pass over a thousand functions takes longer than any startup probe waits."""
    kapso.faults({"what": "deploy_hangs"})
    with daemon(str(folder), environment) as running:
        running.event("deploy.started")
        until(lambda: answers(environment, "/readyz") == 200, 5)
        assert running.named("reconcile.finished") == []
        assert running.stop() == 0


def passes_of(running: Running) -> int:
    """How many passes the daemon has begun, from its ``daemon.state`` event."""
    told = len(running.named("daemon.state"))
    running.process.send_signal(signal.SIGUSR1)
    return int(running.event("daemon.state", told + 1)["passes"])


def test_a_full_disk_stops_all_writes_to_kapso_until_there_is_room(
    kapso: Served, folder: Path, environment: dict[str, str]
) -> None:
    """It is logged once, the page shows the reason, and the work goes on by itself once there is room."""
    with daemon(str(folder), {**environment, "KAPSO_SYNC_INTERVAL": "500ms"}) as running:
        running.event("reconcile.finished")
        unlimited = resource.prlimit(running.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(running.process.pid, resource.RLIMIT_FSIZE, (0, unlimited[1]))
        kapso.forget_requests()
        (folder / "greet.js").write_text(answering("two"))
        assert running.event("reconcile.failed")["error_type"] == "StateUnusable"
        until(lambda: passes_of(running) >= 4)
        assert [call for call in kapso.calls() if not call.startswith("GET")] == []
        assert "cannot be written" in running.status()["last_pass"]["error"]
        assert answers(environment, "/healthz") == 200
        refused = kapso_sync("suspend", "--reason", "x", str(folder), environment=environment)
        assert (refused.code, "ADMIN_TOKEN" in refused.err, "cannot be written" in refused.err) == (78, False, True)
        assert running.status()["suspended"] is None, "what is not kept is not said to be"
        resource.prlimit(running.process.pid, resource.RLIMIT_FSIZE, unlimited)
        until(live(kapso, greet="two"))
        running.event("failure.ended")
        assert len(running.named("reconcile.failed")) == 1


def test_a_state_folder_that_is_removed_is_opened_again_before_anything_is_written(
    kapso: Served, folder: Path, environment: dict[str, str]
) -> None:
    """No other process sees the journal and the lock of a removed folder: the daemon logs that, and makes new ones."""
    with daemon(str(folder), environment) as running:
        running.event("reconcile.finished")
        shutil.rmtree(environment["KAPSO_SYNC_STATE_DIR"])
        (folder / "greet.js").write_text(answering("two"))
        failed = running.event("reconcile.failed")
        assert (failed["error_type"], "was removed or replaced" in failed["error"]) == ("StateReplaced", True)
        until(live(kapso, greet="two"))
        until(lambda: running.status()["in_sync"])
        refused = kapso_sync("sync", str(folder), environment=environment)
        assert (refused.code, "holds the state folder" in refused.err) == (75, True)
        assert kapso_sync("reconcile", "--wait", str(folder), environment=environment).code == 0
