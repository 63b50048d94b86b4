"""The daemon tells: one message for a failure and one for its end, none twice, none without news; a status at each commit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.test_daemon import Running, commit, daemon, environment, folder, kapso, until  # noqa: F401 - fixtures
from tests.notifications.servers import Ear, listening
from tests.program import answering, git, kapso_sync, write_functions
from tests.served import Served
from tests.sources.servers import GitServer, serving

pytestmark = pytest.mark.e2e
TOKEN = "token-of-this-forge-0123456789"


@pytest.fixture
def ear() -> Iterator[Ear]:
    with listening() as ear:
        yield ear


@pytest.fixture
def told(environment: dict[str, str], ear: Ear, tmp_path: Path) -> dict[str, str]:  # noqa: F811 - a fixture
    addresses = tmp_path / "addresses"
    addresses.write_text(f"# who is told\n\n{ear.address}/secret-path-9876543210\n")
    return {
        **environment,
        "KAPSO_SYNC_NOTIFY_URLS_FILE": str(addresses),
        "KAPSO_SYNC_NOTIFY_INTERVAL": "100ms",
        "KAPSO_SYNC_INTERVAL": "300ms",
        "KAPSO_SYNC_LOG_LEVEL": "debug",  # every pass is logged
        "KAPSO_SYNC_PUBLIC_URL": "https://status.example/",
    }


def more_passes(running: Running) -> None:
    """Wait for passes enough: a message about an earlier one, which waits 200 ms at most, would have been sent."""
    running.event("reconcile.finished", len(running.named("reconcile.finished")) + 4)


def test_a_failure_and_its_end_are_notified_once_each(
    kapso: Served,  # noqa: F811
    folder: Path,  # noqa: F811
    told: dict[str, str],
    ear: Ear,
    tmp_path: Path,
) -> None:
    """It fails, after a restart it still does, then it is mended: two messages in all, and no address in log or state."""
    with daemon(str(folder), told) as running:
        more_passes(running)
        assert ear.heard == []
        kapso.faults({"what": "deploy_fails", "slug": "greet"})
        (folder / "greet.js").write_text(answering("two"))
        until(lambda: ear.heard)
        message = ear.heard[0].body
        assert message["type"] == "failure"
        assert message["title"].startswith("kapso-sync: greet ")
        assert "✗ greet " in message["message"]
        assert message["message"].endswith("https://status.example/")
        more_passes(running)
        assert len(ear.heard) == 1, ear.titles()
        assert running.stop() == 0
        log = running.raw[:]
    with daemon(str(folder), told) as running:
        running.event("deploy.failed")
        more_passes(running)
        assert len(ear.heard) == 1, ear.titles()
        kapso.faults()
        (folder / "greet.js").write_text(answering("three"))
        until(lambda: len(ear.heard) > 1)
        assert (ear.heard[1].body["type"], ear.heard[1].body["title"]) == ("success", "kapso-sync: greet is well again")
        more_passes(running)
        assert running.stop() == 0
        log += running.raw
    assert len(ear.heard) == 2, ear.titles()
    assert "secret-path-9876543210" not in "".join(log)
    (state,) = (tmp_path / "state").glob("*/told.json")
    assert "secret-path-9876543210" not in state.read_text()
    assert json.loads(state.read_text())["standing"] == {}


def test_a_rejected_key_and_a_suspension_are_notified(
    kapso: Served,  # noqa: F811
    folder: Path,  # noqa: F811
    told: dict[str, str],
    ear: Ear,
) -> None:
    """The pass as a whole: what is wrong once, its end once, and nothing of the functions that were not looked at."""
    with daemon(str(folder), told) as running:
        running.event("reconcile.finished")
        kapso.faults({"what": "status", "status": 401})
        until(lambda: ear.heard)
        kapso.faults()
        until(lambda: len(ear.heard) > 1, 30)
        kapso_sync("suspend", "--reason", "a freeze", str(folder), environment=told)
        until(lambda: len(ear.heard) > 2)
        kapso_sync("resume", str(folder), environment=told)
        until(lambda: len(ear.heard) > 3)
    assert ear.titles() == [
        "kapso-sync: Kapso rejects the key",
        "kapso-sync: Kapso accepts the key again",
        "kapso-sync: suspended",
        "kapso-sync: resumed",
    ]


def test_a_failing_destination_does_not_disturb_passes(
    kapso: Served,  # noqa: F811
    folder: Path,  # noqa: F811
    told: dict[str, str],
    ear: Ear,
) -> None:
    """It refuses: one warning, passes go on; it is there again: one message that tells what holds now."""
    ear.answers.append((500, "no", {}))
    kapso.faults({"what": "deploy_fails", "slug": "greet"})
    with daemon(str(folder), told) as running:
        failed = running.event("notification.failed")
        assert failed["destination"] == "json (line 3)"
        assert failed["error"] == "it answered 500"
        running.event("failure.ended", seconds=30)
        running.event("notification.sent")
        assert len(running.named("notification.failed")) == 1
    assert len(ear.heard) == 2


def statuses(ear: Ear) -> list[tuple[str, str]]:
    return [(heard.path.rpartition("/")[2], str(heard.body["state"])) for heard in ear.heard]


def test_each_commit_gets_its_own_status(
    kapso: Served,  # noqa: F811
    environment: dict[str, str],  # noqa: F811
    ear: Ear,
    tmp_path: Path,
) -> None:
    """Pending, then success; a broken manifest's commit fails, with its reason; a restart on the same commit says nothing."""
    root = tmp_path / "served"
    repository = root / "acme" / "flows"
    repository.mkdir(parents=True)
    git(repository, "init", "--quiet", "--initial-branch=main")
    first = commit(repository, {"greet": answering("one")})
    with serving(GitServer(root)) as server:
        settings = {
            **environment,
            "KAPSO_SYNC_COMMIT_STATUS": "gitea",
            "KAPSO_SYNC_COMMIT_STATUS_URL": ear.url,
            "KAPSO_SYNC_COMMIT_STATUS_TOKEN": TOKEN,
            "KAPSO_SYNC_ENV": "production",
            "KAPSO_SYNC_GIT_INTERVAL": "200ms",
            "KAPSO_SYNC_INTERVAL": "300ms",
            "KAPSO_SYNC_LOG_LEVEL": "debug",
        }
        where = f"{server.url}/acme/flows/.git"
        with daemon(where, settings) as running:
            until(lambda: (first, "success") in statuses(ear), what=lambda: running.raw)
            write_functions(repository / "functions", {"greet": answering("two")}, extra="    nonsense: 1\n")
            git(repository, "commit", "--quiet", "--all", "--message", "Break it")
            second = git(repository, "rev-parse", "HEAD").strip()
            until(lambda: (second, "failure") in statuses(ear), what=lambda: running.raw)
            third = commit(repository, {"greet": answering("three")})
            until(lambda: (third, "success") in statuses(ear), what=lambda: running.raw)
            running.stop()
            assert TOKEN not in "".join(running.raw)
        count = len(ear.heard)
        with daemon(where, settings) as running:
            more_passes(running)
    assert len(ear.heard) == count
    found = statuses(ear)
    verdicts = [(commit_id, state) for commit_id, state in found if state != "pending"]
    assert verdicts == [(first, "success"), (second, "failure"), (third, "success")]
    assert len(found) == len(set(found))
    last = ear.heard[-1]
    assert last.path == f"/repos/acme/flows/statuses/{third}"
    assert last.headers["Authorization"] == f"token {TOKEN}"
    assert (last.body["context"], last.body["description"]) == ("kapso-sync/production", "1 function in sync")
    broken = next(heard for heard in ear.heard if heard.body["state"] == "failure")
    assert "nonsense" in broken.body["description"]
