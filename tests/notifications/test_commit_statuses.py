"""A status at each commit: the right request to the right forge, tried with patience, set once."""

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
from tests.notifications.servers import Ear, Heard, listening

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
def test_the_remote_decides_the_repository_of_commit_statuses(location: str, forge: Forge, api: str, path: str) -> None:
    """Forge, API and name, from every way to write a remote."""
    assert find_repository(location, None, None) == Repository(forge, api, path)


@pytest.mark.parametrize("location", ["https://git.acme.example/acme/flows", "file:///srv/git/flows.git", "/srv/flows"])
def test_an_unknown_forge_host_is_an_error(location: str) -> None:
    """The token goes to no host whose language nobody knows; told which one it is, it does."""
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
async def test_each_forge_gets_its_own_request(
    ear: Ear, forge: Forge, path: str, header: tuple[str, str], words: tuple[str, str]
) -> None:
    """Route, header and words of each; the token in a header only, the description cut to what is taken."""
    assert await poster(ear, forge).post(CommitStatus(A, FAILURE, "x" * 999)) == PostResult()
    (heard,) = ear.heard
    assert isinstance(heard, Heard)
    assert (heard.path, heard.headers[header[0]]) == (path, header[1])
    description = heard.body.pop("description")
    assert heard.body == {"state": words[0], words[1]: "kapso-sync/eu", "target_url": "https://status.example/"}
    assert len(description) == (140 if forge is Forge.GITHUB else 255)
    request = status_request(Repository(forge, ear.url, "acme/flows"), "x", CommitStatus(A, FAILURE, ""), TOKEN, None)
    assert TOKEN not in repr(request) + request.url + str(request.body)


async def test_gitlab_refuses_what_it_has_already(ear: Ear) -> None:
    """Its answer for a status that is set to what it is counts as done; elsewhere, and for other reasons, it does not."""
    text = '{"message": "Cannot transition status via :enqueue from :pending"}'
    ear.answers += [(400, text, {}), (400, text, {}), (400, "{}", {})]
    assert (await poster(ear, Forge.GITLAB).post(CommitStatus(A, PENDING, ""))).error is None
    assert (await poster(ear, Forge.GITHUB).post(CommitStatus(A, PENDING, ""))).error == "github answered 400"
    assert (await poster(ear, Forge.GITLAB).post(CommitStatus(A, PENDING, ""))).error == "gitlab answered 400"


async def test_refusals_say_what_to_do_and_passing_trouble_is_tried_again(ear: Ear) -> None:
    """401, 404 and redirects are final, 429 and 5xx are not; a redirect is never followed with the token."""
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


async def test_a_forge_without_an_answer_times_out(ear: Ear) -> None:
    """A forge that never answers, and one that is not there."""
    ear.hangs = threading.Event()
    assert await poster(ear, Forge.GITEA, deadline=0.2).post(CommitStatus(A, SUCCESS, "")) == PostResult(
        "no answer within 0 s", again=True
    )
    gone = CommitStatusClient(Repository(Forge.GITEA, "http://127.0.0.1:9", "a/b"), "x", lambda: TOKEN)
    assert (await gone.post(CommitStatus(A, SUCCESS, ""))).again is True


@dataclass
class Desk:
    """A reporter, what it set, and what it said."""

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

    async def sees(self, commit: str, verdict: CommitState) -> None:
        self.deserves = CommitStatus(commit, verdict, "")
        await self.settle()

    async def settle(self) -> None:
        """Look until there is nothing to do."""
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


async def test_a_status_is_set_when_it_changes_and_only_then(tmp_path: Path) -> None:
    """Pending once, at first sight; passes without news, later passes that run, and restarts say nothing."""
    desk = Desk(tmp_path)
    for verdict in (PENDING, SUCCESS, PENDING, SUCCESS, SUCCESS):
        await desk.sees(A, verdict)
    desk.restart()
    for verdict in (PENDING, SUCCESS, FAILURE, PENDING, FAILURE, SUCCESS):
        await desk.sees(A, verdict)
    assert desk.posted == [(A, "pending"), (A, "success"), (A, "failure"), (A, "success")]


async def test_an_older_revision_sets_no_status_on_a_newer_commit(tmp_path: Path) -> None:
    """A commit is overtaken, and comes back after a force-push: each keeps its own status."""
    desk = Desk(tmp_path)
    await desk.sees(A, PENDING)
    await desk.sees(B, PENDING)
    await desk.sees(B, SUCCESS)
    await desk.sees(A, PENDING)
    await desk.sees(A, FAILURE)
    assert desk.posted == [(A, "pending"), (B, "pending"), (B, "success"), (A, "failure")]


async def test_a_failing_forge_is_retried_and_logged_once(tmp_path: Path) -> None:
    """Three answers of 503, then it works: one warning, and its end; Retry-After is heeded."""
    desk = Desk(
        tmp_path,
        answers=[PostResult("it answered 503", again=True)] * 2 + [PostResult("it answered 503", again=True, retry_after=100)],
    )
    await desk.sees(A, SUCCESS)
    assert desk.posted == [(A, "success")] * 4
    assert desk.names() == ["commit_status.failed", "failure.ended", "commit_status.set"]
    assert desk.clock.monotonic() >= 2 + 4 + 100


async def test_a_refused_commit_status_is_not_retried_in_a_loop(tmp_path: Path) -> None:
    """One request, one warning; hours of passes later one request each quarter of an hour, and no second warning."""
    desk = Desk(tmp_path, answers=[PostResult("it answered 404")] * 99)
    await desk.sees(A, SUCCESS)
    for _ in range(60):
        await desk.clock.sleep(60)
        await desk.sees(A, SUCCESS)
    assert 2 <= len(desk.posted) <= 1 + 3600 // GIVE_UP_DELAY
    assert desk.names() == ["commit_status.failed"]


async def test_an_unreachable_forge_is_given_up_for_a_while(tmp_path: Path) -> None:
    """Six attempts, then rest; a newer commit is not kept waiting by it."""
    desk = Desk(tmp_path, answers=[PostResult("no connection", again=True)] * MAX_ATTEMPTS)
    await desk.sees(A, SUCCESS)
    assert len(desk.posted) == MAX_ATTEMPTS
    await desk.sees(B, SUCCESS)
    assert desk.posted[-1] == (B, "success")
