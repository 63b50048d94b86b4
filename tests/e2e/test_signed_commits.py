"""With KAPSO_SYNC_VERIFY_FILE only what is signed by a listed key is deployed, by the daemon and by every command."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from kapso_sync.errors import ExitCode
from tests.e2e.test_daemon import Running, daemon, environment, kapso, live, until  # noqa: F401 - fixtures
from tests.notifications.servers import Ear, listening
from tests.program import answering, git, kapso_sync, write_functions
from tests.served import Served
from tests.sources.servers import GitServer, serving
from tests.sources.signing import SshSigner

pytestmark = pytest.mark.e2e


@dataclass
class Team:
    """A repository, those who push to it, and the file that lists whose commits are deployed."""

    repository: Path
    ada: SshSigner
    eve: SshSigner
    keys: Path

    def push(self, text: str, signer: SshSigner | None = None) -> str:
        write_functions(self.repository / "functions", {"greet": answering(text)})
        git(self.repository, "add", "--all")
        settings = signer.settings if signer is not None else ()
        git(self.repository, *settings, "commit", "--quiet", *(["--gpg-sign"] if signer else []), "--message", f"Say {text}")
        return git(self.repository, "rev-parse", "HEAD").strip()

    def list(self, *signers: SshSigner) -> None:
        """List whose commits are deployed, at once and as a whole, as a mount does."""
        new = self.keys.with_name("new")
        new.write_text("".join(signer.line() for signer in signers))
        new.replace(self.keys)


@pytest.fixture
def team(tmp_path: Path) -> Team:
    repository = tmp_path / "served" / "acme" / "flows"
    repository.mkdir(parents=True)
    git(repository, "init", "--quiet", "--initial-branch=main")
    ssh = tmp_path / "ssh"
    team = Team(repository, SshSigner.make(ssh, "ada"), SshSigner.make(ssh, "eve"), tmp_path / "allowed-signers")
    team.list(team.ada)
    return team


@pytest.fixture
def settings(environment: dict[str, str], team: Team) -> dict[str, str]:  # noqa: F811 - a fixture
    return {
        **environment,
        "KAPSO_SYNC_VERIFY_FILE": str(team.keys),
        "KAPSO_SYNC_GIT_INTERVAL": "200ms",
        "KAPSO_SYNC_INTERVAL": "1s",
    }


@pytest.fixture
def ear() -> Iterator[Ear]:
    with listening() as ear:
        yield ear


@contextlib.contextmanager
def counted(team: Team) -> Iterator[tuple[str, GitServer]]:
    """Serve the repository, and count what is asked of it."""
    with serving(GitServer(team.repository.parents[1])) as server:
        yield f"{server.url}/acme/flows/.git", server


def metrics(running: Running) -> list[str]:
    return httpx.get(f"{running.url}/metrics", timeout=20, trust_env=False).text.splitlines()


def unverified(running: Running) -> bool:
    (line,) = [line for line in metrics(running) if line.startswith("kapso_sync_source_unverified ")]
    return float(line.split()[1]) == 1


def triggers(running: Running) -> Counter[str]:
    """What asked for passes so far."""
    found = re.findall(r'^kapso_sync_triggers_total\{trigger="(\w+)"\} (\S+)$', "\n".join(metrics(running)), re.MULTILINE)
    return Counter({trigger: int(float(count)) for trigger, count in found})


def statuses(ear: Ear, commit: str) -> list[str]:
    return [str(heard.body["state"]) for heard in ear.heard if heard.path.endswith(f"/{commit}")]


def test_what_nobody_signed_is_not_deployed_and_a_signed_fix_is(
    kapso: Served,  # noqa: F811
    team: Team,
    settings: dict[str, str],
    ear: Ear,
) -> None:
    """The last good revision stays in force; log, page, status, metrics and the commit's status say it, each once."""
    first = team.push("one", team.ada)
    settings |= {
        "KAPSO_SYNC_COMMIT_STATUS": "gitea",
        "KAPSO_SYNC_COMMIT_STATUS_URL": ear.url,
        "KAPSO_SYNC_COMMIT_STATUS_TOKEN": "token-of-this-forge-0123456789",
    }
    with counted(team) as (where, _), daemon(where, settings) as running:
        until(live(kapso, greet="one"))
        assert not unverified(running)
        evil = team.push("evil", team.eve)
        failed = running.event("source.failed")
        assert (failed["commit"], failed["signer"], failed["error_type"]) == (evil, team.eve.fingerprint, "SourceUnverified")
        asked = kapso_sync("reconcile", "--wait", where, environment=settings)
        assert asked.code == ExitCode.UNAVAILABLE, "a person who asks learns the same"
        until(lambda: unverified(running))
        last, revision = running.status()["last_pass"], running.status()["revision"]
        assert (last["exit_code"], last["revision"], revision["id"]) == (69, evil, first)
        assert team.eve.fingerprint in last["error"]
        shown = kapso_sync("status", where, environment=settings)
        page = httpx.get(running.url, timeout=20, trust_env=False).text
        for screen in (" ".join(shown.out.split()), page):
            assert evil[:12] in screen
            assert team.eve.fingerprint in screen.replace("&#x2F;", "/")
        until(lambda: statuses(ear, evil))
        assert live(kapso, greet="one")(), "nothing of it is deployed"
        third = team.push("three", team.ada)
        until(live(kapso, greet="three"))
        until(lambda: "success" in statuses(ear, third))
        ended = next(line for line in running.named("failure.ended") if line["failure"] == "source.failed")
        assert ended["times"] > 1, "it was met again and again"
        assert len(running.named("source.failed")) == 1, "and logged once"
        until(lambda: not unverified(running))
        assert statuses(ear, evil) == ["failure"]


def test_a_key_that_is_added_lets_the_refused_commit_in(
    kapso: Served,  # noqa: F811
    team: Team,
    settings: dict[str, str],
) -> None:
    """Without a push, at the next pass; a key that is removed takes nothing back, and keeps what comes next out."""
    team.push("one", team.ada)
    with daemon(team.repository.as_uri(), settings) as running:
        until(live(kapso, greet="one"))
        team.push("two", team.eve)
        running.event("source.failed")
        team.list(team.ada, team.eve)
        until(live(kapso, greet="two"))
        team.list(team.ada)
        kapso.edit("greet", code=answering("by hand"), deploy=True)
        running.event("drift.corrected")
        until(live(kapso, greet="two"))
        assert len(running.named("source.failed")) == 1
        last = team.push("three", team.eve)
        assert running.event("source.failed", 2)["commit"] == last
        assert live(kapso, greet="two")()


def test_a_refused_commit_costs_one_look_at_the_remote_for_each_interval(
    kapso: Served,  # noqa: F811
    team: Team,
    settings: dict[str, str],
) -> None:
    """It is fetched once, and not looked for again sooner than a poll would."""
    team.push("one", team.ada)
    settings |= {"KAPSO_SYNC_GIT_INTERVAL": "1s", "KAPSO_SYNC_INTERVAL": "1h", "KAPSO_SYNC_LOG_LEVEL": "debug"}
    with counted(team) as (where, server), daemon(where, settings) as running:
        until(live(kapso, greet="one"))
        team.push("evil")
        running.event("source.failed")
        before, asked = triggers(running), len(server.commands)
        until(lambda: triggers(running).total() >= before.total() + 4)
        since, sent = server.commands[asked:], triggers(running) - before
    assert set(sent) == {"poll"}
    assert set(since) == {"ls-refs"}
    assert len(since) <= sent.total() + 1
    assert server.commands.count("fetch") == 2, "the control: of each commit one"


def test_a_daemon_starts_though_the_newest_commit_is_not_signed(
    kapso: Served,  # noqa: F811
    team: Team,
    settings: dict[str, str],
) -> None:
    """It is no mistake in the settings: the daemon waits for a commit that it may read, and makes no call to Kapso."""
    del settings["KAPSO_SYNC_OWNER"]
    team.push("evil")
    kapso.forget_requests()
    with daemon(team.repository.as_uri(), settings) as running:
        running.event("source.failed")
        assert kapso.calls() == []
        team.push("one", team.ada)
        until(live(kapso, greet="one"))
        assert len(running.named("source.failed")) == 1


def test_every_command_refuses_what_nobody_signed(
    kapso: Served,  # noqa: F811
    team: Team,
    settings: dict[str, str],
) -> None:
    """69, as of any source that cannot be read; the control is the same commit, signed."""
    team.push("evil")
    where = team.repository.as_uri()
    kapso.forget_requests()
    for command in ("validate", "plan", "sync"):
        ran = kapso_sync(command, where, environment=settings)
        assert (ran.code, "it is not signed" in ran.err) == (ExitCode.UNAVAILABLE, True), ran.err
    assert kapso.calls() == []
    team.push("one", team.ada)
    for command in ("validate", "plan", "sync"):
        assert kapso_sync(command, where, environment=settings).code == 0
    assert live(kapso, greet="one")()


@pytest.mark.parametrize("command", ["validate", "plan", "sync", "run", "pull", "init"])
def test_a_folder_is_refused_where_signatures_are_wanted(team: Team, settings: dict[str, str], command: str) -> None:
    """Not ignored: 78, with the way out, which works; a work tree with a branch is a repository."""
    team.push("one", team.ada)
    ran = kapso_sync(command, str(team.repository), environment=settings)
    assert ran.code == ExitCode.CONFIG
    assert "KAPSO_SYNC_VERIFY_FILE is set, and nobody can sign the folder" in " ".join(ran.err.split())
    assert kapso_sync("plan", str(team.repository), "--branch", "main", environment=settings).code == 0
    del settings["KAPSO_SYNC_VERIFY_FILE"]
    assert kapso_sync("plan", str(team.repository), environment=settings).code == 0


def test_a_folder_that_git_sync_published_is_refused(team: Team, settings: dict[str, str], tmp_path: Path) -> None:
    """Its name is that of a commit, and nothing proves that the files are."""
    commit = team.push("one", team.ada)
    published = tmp_path / "git" / ".worktrees" / commit
    git(team.repository, "worktree", "add", "--quiet", "--detach", str(published), commit)
    (tmp_path / "git" / "current").symlink_to(published)
    ran = kapso_sync("plan", str(tmp_path / "git" / "current"), environment=settings)
    assert (ran.code, "git-sync published" in " ".join(ran.err.split())) == (ExitCode.CONFIG, True)


@pytest.mark.parametrize("command", ["validate", "plan", "sync", "run"])
def test_a_file_that_lists_no_key_stops_every_command_at_the_start(
    team: Team, settings: dict[str, str], tmp_path: Path, command: str
) -> None:
    """78, with the setting named: missing, and neither kind."""
    team.push("one", team.ada)
    team.keys.write_text("not a key\n")
    for file in (str(team.keys), str(tmp_path / "nowhere")):
        ran = kapso_sync(command, team.repository.as_uri(), environment={**settings, "KAPSO_SYNC_VERIFY_FILE": file})
        assert (ran.code, f"KAPSO_SYNC_VERIFY_FILE {file}" in ran.err) == (ExitCode.CONFIG, True), ran.err
