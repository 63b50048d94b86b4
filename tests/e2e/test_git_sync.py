"""git-sync and the daemon as two processes: git-sync publishes into a shared folder by symlink, the daemon follows."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.test_daemon import commit, daemon, live, until
from tests.program import answering, git
from tests.served import Served, served

PART = answering("bye")


@pytest.fixture
def kapso() -> Iterator[Served]:
    with served() as running:
        yield running


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    repository = tmp_path / "repository"
    repository.mkdir()
    git(repository, "init", "--quiet", "--initial-branch=main")
    commit(repository, {"greet": answering("one"), "part": answering("bye")})
    return repository


def follow(kapso: Served, tmp_path: Path, shared: Path, push: Callable[[str], object]) -> None:
    """Let a daemon follow the published symlink through two pushes."""
    environment = {
        **kapso.environment(tmp_path / "state"),
        "KAPSO_SYNC_OWNER": "acme/flows",
        "KAPSO_SYNC_LISTEN": "127.0.0.1:0",
        "KAPSO_SYNC_DEBOUNCE": "100ms",
    }
    with daemon(str(shared / "current"), environment) as running:
        running.event("reconcile.finished")
        assert live(kapso, greet="one", part="bye")()
        for text in ("two", "three"):
            push(text)
            until(live(kapso, greet=text))
        assert running.named("reconcile.failed") == []


@pytest.mark.e2e
def test_the_daemon_follows_the_real_git_sync(kapso: Served, repository: Path, tmp_path: Path) -> None:
    """A push is published by a moved symlink, and deployed; half-written files are never read."""
    program = shutil.which("git-sync")
    if program is None:
        pytest.skip("git-sync is not on PATH; its Go module cannot be installed by name, since it publishes no version 4")
    shared = tmp_path / "shared"
    arguments = [f"--repo={repository.as_uri()}", f"--root={shared}", "--link=current", "--period=300ms", "--ref=main"]
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    with subprocess.Popen([program, *arguments], stderr=subprocess.DEVNULL, env=environment) as publisher:
        try:
            until((shared / "current" / "functions").is_dir)
            follow(kapso, tmp_path, shared, lambda text: commit(repository, {"greet": answering(text), "part": PART}))
        finally:
            publisher.terminate()


@pytest.mark.e2e
def test_the_daemon_follows_a_symlink_swap_as_git_sync_does_it(kapso: Served, repository: Path, tmp_path: Path) -> None:
    """Without git-sync: a work tree for each commit, a symlink replaced by rename, the old tree removed."""
    shared = tmp_path / "shared"
    shared.mkdir()

    def publish() -> None:
        old = (shared / "current").resolve() if (shared / "current").is_symlink() else None
        head = git(repository, "rev-parse", "HEAD").strip()
        git(repository, "worktree", "add", "--quiet", "--detach", str(shared / head), head)
        (shared / "next").symlink_to(head)
        (shared / "next").rename(shared / "current")
        if old is not None:
            git(repository, "worktree", "remove", "--force", str(old))

    def push(text: str) -> None:
        commit(repository, {"greet": answering(text), "part": PART})
        publish()

    publish()
    follow(kapso, tmp_path, shared, push)
