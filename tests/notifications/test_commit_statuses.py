"""A commit status per commit: the right request to the right forge, retried with backoff, set once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from kapso_sync.errors import ConfigError
from kapso_sync.model import events
from kapso_sync.notifications.commit_status import CommitState, CommitStatus
from kapso_sync.notifications.commit_status_client import CommitStatusClient, PostResult
from kapso_sync.notifications.commit_status_reporter import GIVE_UP_DELAY, MAX_ATTEMPTS, CommitStatusReporter
from kapso_sync.notifications.forges import Forge, Repository, find_repository, status_request
from kapso_sync.store.json_file import PrivateJsonFile
from tests.clock import VirtualClock
from tests.notifications.servers import Ear, ReceivedPost, listening

A, B = "a" * 40, "b" * 40
TOKEN = "token-0123456789"
PENDING, SUCCESS, FAILURE = CommitState


@pytest.fixture
def ear() -> Iterator[Ear]:
    with listening() as ear:
        yield ear


@pytest.mark.parametrize(
    ("location", "forge", "api", "path"),
    [
        ("https://github.com/acme/flows.git", Forge.GITHUB, "https://api.github.com", "acme/flows"),
        ("git@github.com:acme/flows.git", Forge.GITHUB, "https://api.github.com", "acme/flows"),
        ("ssh://git@ssh.github.com:443/acme/flows", Forge.GITHUB, "https://api.github.com", "acme/flows"),
        ("https://github.acme.example/acme/flows", Forge.GITHUB, "https://github.acme.example/api/v3", "acme/flows"),
        ("https://gitlab.com/acme/team/flows.git/", Forge.GITLAB, "https://gitlab.com/api/v4", "acme/team/flows"),
        ("ssh://git@gitlab.acme.example:2222/acme/flows.git", Forge.GITLAB, "https://gitlab.acme.example/api/v4", "acme/flows"),
        ("https://codeberg.org/acme/flows", Forge.GITEA, "https://codeberg.org/api/v1", "acme/flows"),
        ("https://Gitea.acme.example:3000/acme/flows", Forge.GITEA, "https://gitea.acme.example:3000/api/v1", "acme/flows"),
        ("git@forgejo.acme.example:acme/flows.git", Forge.GITEA, "https://forgejo.acme.example/api/v1", "acme/flows"),
    ],
)
def test_the_git_remote_decides_the_commit_status_endpoint(location: str, forge: Forge, api: str, path: str) -> None:
    """Forge, API and name, from every way to write a remote."""
    assert find_repository(location, None, None) == Repository(forge, api, path)


@pytest.mark.parametrize("location", ["https://git.acme.example/acme/flows", "file:///srv/git/flows.git", "/srv/flows"])
def test_no_commit_status_is_sent_to_an_unknown_host(location: str) -> None:
    """The token goes to no host whose forge is unknown; a setting can name the forge."""
    with pytest.raises(ConfigError, match="KAPSO_SYNC_COMMIT_STATUS"):
        find_repository(location, None, None)
    assert find_repository(location, Forge.GITEA, "https://x.example/api/v1/").api == "https://x.example/api/v1"


def poster(ear: Ear, forge: Forge, path: str = "acme/flows", deadline: float = 5.0) -> CommitStatusClient:
    return CommitStatusClient(
        Repository(forge, ear.url, path), "kapso-sync/eu", lambda: TOKEN, "https://status.example/", deadline
    )


@pytest.mark.parametrize(
    ("forge", "path", "header", "words"),
    [
        (Forge.GITHUB, f"/repos/acme/flows/statuses/{A}", ("Authorization", f"Bearer {TOKEN}"), ("failure", "context")),
        (Forge.GITLAB, f"/projects/acme%2Fflows/statuses/{A}", ("PRIVATE-TOKEN", TOKEN), ("failed", "name")),
        (Forge.GITEA, f"/repos/acme/flows/statuses/{A}", ("Authorization", f"token {TOKEN}"), ("failure", "context")),
    ],
)
async def test_each_forge_gets_its_own_commit_status_request(
    ear: Ear, forge: Forge, path: str, header: tuple[str, str], words: tuple[str, str]
) -> None:
    """Route, header and words of each; the token in a header only, the description cut to what is taken."""
    assert await poster(ear, forge).post(CommitStatus(A, FAILURE, "x" * 999)) == PostResult()
    (heard,) = ear.heard
    assert isinstance(heard, ReceivedPost)
    assert (heard.path, heard.headers[header[0]]) == (path, header[1])
    description = heard.body.pop("description")
    assert heard.body == {"state": words[0], words[1]: "kapso-sync/eu", "target_url": "https://status.example/"}
    assert len(description) == (140 if forge is Forge.GITHUB else 255)
    request = status_request(Repository(forge, ear.url, "acme/flows"), "x", CommitStatus(A, FAILURE, ""), TOKEN, None)
    assert TOKEN not in repr(request) + request.url + str(request.body)


async def test_gitlabs_refusal_of_an_unchanged_status_counts_as_success(ear: Ear) -> None:
    """From other forges, and for other reasons, a refusal is an error."""
    text = '{"message": "Cannot transition status via :enqueue from :pending"}'
    ear.answers += [(400, text, {}), (400, text, {}), (400, "{}", {})]
    assert (await poster(ear, Forge.GITLAB).post(CommitStatus(A, PENDING, ""))).error is None
    assert (await poster(ear, Forge.GITHUB).post(CommitStatus(A, PENDING, ""))).error == "github answered 400"
    assert (await poster(ear, Forge.GITLAB).post(CommitStatus(A, PENDING, ""))).error == "gitlab answered 400"


async def test_commit_status_errors_are_final_or_retried_by_http_status(ear: Ear) -> None:
    """401, 404 and redirects are final, with a hint, 429 and 5xx are not; the token is never sent to a redirect's target."""
    ear.answers += [
        (401, TOKEN, {}),
        (302, "", {"Location": f"{ear.url}/elsewhere"}),
        (429, "", {"Retry-After": "7"}),
        (503, "", {}),
    ]
    post = poster(ear, Forge.GITHUB).post
    refused = await post(CommitStatus(A, SUCCESS, ""))
    assert (refused.error, refused.hint, refused.again) == (
        "github answered 401",
        "is KAPSO_SYNC_COMMIT_STATUS_TOKEN valid?",
        False,
    )
    assert (await post(CommitStatus(A, SUCCESS, ""))).again is False
    assert await post(CommitStatus(A, SUCCESS, "")) == PostResult("github answered 429", None, again=True, retry_after=7.0)
    assert (await post(CommitStatus(A, SUCCESS, ""))).again is True
    assert len(ear.heard) == 4


async def test_a_commit_status_request_has_a_timeout(ear: Ear) -> None:
    """For a forge that never answers, and one that does not exist."""
    ear.hangs = threading.Event()
    assert await poster(ear, Forge.GITEA, deadline=0.2).post(CommitStatus(A, SUCCESS, "")) == PostResult(
        "no answer within 0 s", again=True
    )
    gone = CommitStatusClient(Repository(Forge.GITEA, "http://127.0.0.1:9", "a/b"), "x", lambda: TOKEN)
    assert (await gone.post(CommitStatus(A, SUCCESS, ""))).again is True


@dataclass
class StatusHarness:
    """A commit status reporter, the statuses that it set, and the warnings that it gave."""

    path: Path
    answers: list[PostResult] = field(default_factory=list)
    posted: list[tuple[str, str]] = field(default_factory=list)
    said: list[events.Event] = field(default_factory=list)
    deserves: CommitStatus | None = None
    clock: VirtualClock = field(default_factory=VirtualClock)

    def __post_init__(self) -> None:
        self.reporter = self.restart()

    def restart(self) -> CommitStatusReporter:
        self.reporter = CommitStatusReporter(
            lambda: self.deserves, self.post, PrivateJsonFile(self.path / "commits.json"), self.clock, self.said.append
        )
        return self.reporter

    async def post(self, judgement: CommitStatus) -> PostResult:
        self.posted.append((judgement.commit, str(judgement.state)))
        await asyncio.sleep(0)
        return self.answers.pop(0) if self.answers else PostResult()

    async def observe(self, commit: str, verdict: CommitState) -> None:
        self.deserves = CommitStatus(commit, verdict, "")
        await self.settle()

    async def settle(self) -> None:
        """Run rounds until there is nothing to do."""
        wait = self.reporter.update()
        for _ in range(100):
            for _ in range(5):
                await asyncio.sleep(0)
            if wait is not None:
                await self.clock.sleep(wait)
            before = len(self.posted)
            wait = self.reporter.update()
            if wait is None and len(self.posted) == before and self.reporter._posting is None:
                return

    def names(self) -> list[str]:
        return [event.name for event in self.said]


async def test_a_commit_status_is_set_only_when_it_changes(tmp_path: Path) -> None:
    """Pending once, at first sight; unchanged passes, later running passes and restarts send nothing."""
    harness = StatusHarness(tmp_path)
    for verdict in (PENDING, SUCCESS, PENDING, SUCCESS, SUCCESS):
        await harness.observe(A, verdict)
    harness.restart()
    for verdict in (PENDING, SUCCESS, FAILURE, PENDING, FAILURE, SUCCESS):
        await harness.observe(A, verdict)
    assert harness.posted == [(A, "pending"), (A, "success"), (A, "failure"), (A, "success")]


async def test_each_commit_keeps_its_own_status(tmp_path: Path) -> None:
    """Also when it is superseded, and comes back after a force-push."""
    harness = StatusHarness(tmp_path)
    await harness.observe(A, PENDING)
    await harness.observe(B, PENDING)
    await harness.observe(B, SUCCESS)
    await harness.observe(A, PENDING)
    await harness.observe(A, FAILURE)
    assert harness.posted == [(A, "pending"), (B, "pending"), (B, "success"), (A, "failure")]


async def test_a_commit_status_outage_is_retried_and_logged_once(tmp_path: Path) -> None:
    """Three times 503, then success: one warning, and its end; Retry-After is respected."""
    harness = StatusHarness(
        tmp_path,
        answers=[PostResult("it answered 503", again=True)] * 2 + [PostResult("it answered 503", again=True, retry_after=100)],
    )
    await harness.observe(A, SUCCESS)
    assert harness.posted == [(A, "success")] * 4
    assert harness.names() == ["commit_status.failed", "failure.ended", "commit_status.set"]
    assert harness.clock.monotonic() >= 2 + 4 + 100


async def test_a_refused_commit_status_is_not_retried_in_a_loop(tmp_path: Path) -> None:
    """One request, one warning; after that one request per quarter of an hour, and no second warning."""
    harness = StatusHarness(tmp_path, answers=[PostResult("it answered 404")] * 99)
    await harness.observe(A, SUCCESS)
    for _ in range(60):
        await harness.clock.sleep(60)
        await harness.observe(A, SUCCESS)
    assert 2 <= len(harness.posted) <= 1 + 3600 // GIVE_UP_DELAY
    assert harness.names() == ["commit_status.failed"]


async def test_commit_statuses_to_an_unavailable_forge_pause_after_six_attempts(tmp_path: Path) -> None:
    """A newer commit does not wait for the pause."""
    harness = StatusHarness(tmp_path, answers=[PostResult("no connection", again=True)] * MAX_ATTEMPTS)
    await harness.observe(A, SUCCESS)
    assert len(harness.posted) == MAX_ATTEMPTS
    await harness.observe(B, SUCCESS)
    assert harness.posted[-1] == (B, "success")
