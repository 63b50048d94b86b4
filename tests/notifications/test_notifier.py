"""Notifications: to whom and when, once, rate-limited, across restarts, and without blocking the daemon."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from kapso_sync.errors import ConfigError, StateUnusable
from kapso_sync.model import events
from kapso_sync.model.status import DaemonStatus, Suspension
from kapso_sync.notifications.destinations import AppriseSender, Destination, read_destinations
from kapso_sync.notifications.messages import Kind, Message, MessageContext
from kapso_sync.notifications.notifier import Notifier, NotifierDeps
from kapso_sync.notifications.worker import run_worker
from kapso_sync.settings import load_settings
from kapso_sync.store.json_file import PrivateJsonFile
from kapso_sync.wiring.notifications import check_notification_settings
from tests.builders import DAWN
from tests.clock import VirtualClock
from tests.notifications.servers import Ear, listening
from tests.sources.repositories import command_lines

pytestmark = pytest.mark.e2e

CHAT, PAGER = Destination("x://chat-secret", "x (line 1)", "chat"), Destination("x://pager-secret", "x (line 2)", "pager")
CALM = DaemonStatus("0.1.0", DAWN, DAWN, "acme/flows")
MESSAGE = Message("a title", "a body", Kind.FAILURE)


@pytest.fixture
def ear() -> Iterator[Ear]:
    with listening() as ear:
        yield ear


@dataclass
class NotifierHarness:
    """A notifier, the status that it sees, and the messages that arrived at each destination."""

    path: Path
    status: DaemonStatus = CALM
    destinations: tuple[Destination, ...] = (CHAT,)
    down: set[str] = field(default_factory=set)
    arrived: list[tuple[str, str]] = field(default_factory=list)
    said: list[events.Event] = field(default_factory=list)
    clock: VirtualClock = field(default_factory=VirtualClock)

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        desk = NotifierDeps(
            lambda: self.status,
            lambda: self.destinations,
            lambda _: MessageContext("acme"),
            lambda: 60.0,
            str,
            self.said.append,
        )
        self.messenger = Notifier(desk, self.send, PrivateJsonFile(self.path / "told.json"), self.clock)

    async def send(self, destination: Destination, message: Message) -> str | None:
        await asyncio.sleep(0)
        if destination.key in self.down:
            return "it answered 500"
        self.arrived.append((destination.key, message.title.removeprefix("kapso-sync: ")))
        return None

    async def observe(self, *, suspended: bool) -> None:
        self.status = replace(CALM, suspension=Suspension("a freeze", DAWN) if suspended else None)
        await self.update()

    async def update(self) -> float | None:
        self.messenger.update()
        for _ in range(5):
            await asyncio.sleep(0)
        return self.messenger.update()

    async def later(self, seconds: float) -> None:
        await self.clock.sleep(seconds)
        await self.update()

    def names(self) -> list[str]:
        return [event.name for event in self.said]


async def test_an_issue_is_notified_once_also_across_a_restart(tmp_path: Path) -> None:
    """Begin, no change, restart, no change, end: two messages."""
    harness = NotifierHarness(tmp_path)
    await harness.observe(suspended=False)
    assert harness.arrived == []
    for _ in range(3):
        await harness.observe(suspended=True)
        await harness.later(100)
    harness.restart()
    await harness.observe(suspended=True)
    assert harness.arrived == [("chat", "suspended")]
    await harness.observe(suspended=False)
    assert harness.arrived == [("chat", "suspended"), ("chat", "resumed")]


async def test_at_most_one_notification_per_interval(tmp_path: Path) -> None:
    """Later changes wait; an issue that came and went meanwhile is in the next message all the same."""
    harness = NotifierHarness(tmp_path)
    await harness.observe(suspended=True)
    await harness.observe(suspended=False)
    assert harness.messenger.update() == pytest.approx(60)
    assert harness.arrived == [("chat", "suspended")]
    await harness.later(60)
    assert harness.arrived[1:] == [("chat", "resumed")]
    await harness.observe(suspended=True)
    await harness.observe(suspended=False)
    await harness.later(60)
    assert harness.arrived[2:] == [("chat", "resumed")]
    await harness.later(600)
    assert len(harness.arrived) == 3


async def test_an_unavailable_destination_does_not_delay_the_others(tmp_path: Path) -> None:
    """The pager gets the message at once, the chat gets the current state when it is back; one warning, and its end."""
    harness = NotifierHarness(tmp_path, destinations=(CHAT, PAGER), down={"chat"})
    await harness.observe(suspended=True)
    for _ in range(20):
        await harness.later(60)
    assert harness.arrived == [("pager", "suspended")]
    harness.down.clear()
    await harness.later(1000)
    assert harness.arrived == [("pager", "suspended"), ("chat", "suspended")]
    assert harness.names() == [
        "notification.failed",
        "notification.sent",
        "failure.ended",
        "notification.sent",
    ] or harness.names() == [
        "notification.sent",
        "notification.failed",
        "failure.ended",
        "notification.sent",
    ]
    assert "secret" not in repr(harness.said)


async def test_a_new_destination_is_notified_of_current_issues(tmp_path: Path) -> None:
    """Not of past ones; a destination that was removed is forgotten."""
    harness = NotifierHarness(tmp_path)
    await harness.observe(suspended=True)
    harness.destinations = (PAGER,)
    await harness.update()
    assert harness.arrived == [("chat", "suspended"), ("pager", "suspended")]


async def test_an_unwritable_state_folder_does_not_stop_notifications(tmp_path: Path) -> None:
    """The notifier goes on with what it has in memory."""
    harness = NotifierHarness(tmp_path / "file" / "folder")
    (tmp_path / "file").write_text("in the way")
    await harness.observe(suspended=True)
    await harness.later(100)
    assert harness.arrived == [("chat", "suspended")]
    with pytest.raises(StateUnusable):
        PrivateJsonFile(tmp_path / "file" / "folder" / "told.json").write({})


async def test_the_notifier_misses_no_change_and_stops_at_once(tmp_path: Path) -> None:
    """A change between two waits is seen; at the end a message in flight gets a moment."""
    harness, change = NotifierHarness(tmp_path), asyncio.Event()

    async def changed() -> None:
        await change.wait()
        change.clear()

    rounds = asyncio.create_task(run_worker(harness.messenger, changed, harness.clock))
    await asyncio.sleep(0)
    harness.status = replace(CALM, suspension=Suspension("a freeze", DAWN))
    change.set()
    for _ in range(1000):
        await asyncio.sleep(0)
    rounds.cancel()
    await asyncio.gather(rounds, return_exceptions=True)
    assert harness.arrived == [("chat", "suspended")]


def test_notification_addresses_are_read_from_a_file(tmp_path: Path) -> None:
    """One per line, with comments and empty lines; the address is not what is shown or stored."""
    path = tmp_path / "addresses"
    path.write_text("# people\n\nslack://a/b/c\n  mailto://user:hunter22@example.com  \nnonsense-4711\nslack://a/b/c\n")
    found = read_destinations(path)
    assert [item.url for item in found] == ["slack://a/b/c", "mailto://user:hunter22@example.com", "nonsense-4711"]
    assert [item.label for item in found] == ["slack (line 3)", "mailto (line 4)", "line 5"]
    assert "hunter22" not in repr(found)
    assert {len(item.key) for item in found} == {5}
    path.write_text("")
    assert read_destinations(path) == ()


def test_a_byte_order_mark_is_no_part_of_the_first_address(tmp_path: Path) -> None:
    """Nor of a comment in its place."""
    for head in (b"", b"# ours\n"):
        (tmp_path / "urls").write_bytes(b"\xef\xbb\xbf" + head + b"json://example.com\n")
        assert [found.url for found in read_destinations(tmp_path / "urls")] == ["json://example.com"]


@pytest.mark.parametrize(
    "content",
    [None, b"\xff\xfe", b"x://y\n" * 5 + b"".join(b"x://%d\n" % n for n in range(30)), b"# long\n" * 10_000 + b"x://y\n"],
    ids=["missing", "not text", "too many", "too large"],
)
def test_an_invalid_notification_address_file_is_an_error(tmp_path: Path, content: bytes | None) -> None:
    """Missing, not text, too large: the variable, the file and the reason; never its content."""
    path = tmp_path / "addresses"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match="KAPSO_SYNC_NOTIFY_URLS_FILE"):
        read_destinations(path)


async def send(address: str, deadline: float = 30.0) -> str | None:
    return await AppriseSender(deadline=deadline).send(Destination(address, "", "key"), MESSAGE)


async def test_apprise_delivers_title_body_and_type(ear: Ear) -> None:
    """They arrive unchanged."""
    assert await send(f"{ear.address}/hook") is None
    (heard,) = ear.heard
    assert (heard.body["title"], heard.body["message"], heard.body["type"]) == ("a title", "a body", "failure")


async def test_notification_errors_do_not_show_the_address(ear: Ear, capfd: pytest.CaptureFixture[str]) -> None:
    """A refusal, a redirect (never followed), an unreachable host, an invalid address; apprise's own log is suppressed."""
    ear.answers += [(403, "", {}), (302, "", {"Location": f"{ear.url}/elsewhere"})]
    addresses = (f"{ear.address}/s3cr3t", f"{ear.address}/s3cr3t", "json://127.0.0.1:9/s3cr3t", "unheard-of://s3cr3t")
    said = [await send(address) for address in addresses]
    assert said[0] == "it answered 403"
    assert None not in said
    assert len(ear.heard) == 2
    assert all("s3cr3t" in post.path for post in ear.heard)
    assert "s3cr3t" not in repr(said)
    assert capfd.readouterr() == ("", "")


async def test_a_hanging_destination_times_out_and_does_not_block_others(ear: Ear) -> None:
    """Its process ends at the deadline, so that the next message does not wait behind it; others are reached meanwhile."""
    with listening(Ear(hangs=threading.Event())) as deaf:
        sender = AppriseSender()
        hanging = asyncio.create_task(sender.send(Destination(f"{deaf.address}/s3cr3t", "", "deaf"), MESSAGE))
        assert await asyncio.to_thread(deaf.reached.wait, 20)
        assert await sender.send(Destination(f"{ear.address}/hook", "", "ear"), MESSAGE) is None
        assert not hanging.done()
        hanging.cancel()
        await asyncio.gather(hanging, return_exceptions=True)
        assert await send(f"{deaf.address}/s3cr3t", deadline=0.3) == "no answer within 0 s"
        assert not [line for line in command_lines() if b"apprise_process" in line]


async def test_the_process_of_a_message_has_no_credential_of_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its environment is made from nothing, and the address is not on its command line."""
    monkeypatch.setenv("KAPSO_API_KEY", "the-key-of-kapso")
    with listening(Ear(hangs=threading.Event())) as deaf:
        sending = asyncio.create_task(send(f"{deaf.address}/s3cr3t"))
        assert await asyncio.to_thread(deaf.reached.wait, 20)
        ours = [
            path for path in Path("/proc").glob("[0-9]*") if b"apprise_process" in _read(path / "cmdline") and _is_child(path)
        ]
        assert len(ours) == 1
        assert b"PATH=" in _read(ours[0] / "environ")
        assert b"the-key-of-kapso" not in _read(ours[0] / "environ")
        assert b"s3cr3t" not in _read(ours[0] / "cmdline")
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _is_child(process: Path) -> bool:
    return _read(process / "stat").rpartition(b")")[2].split()[1:2] == [str(os.getpid()).encode()]


def settings_with(tmp_path: Path, **given: str) -> dict[str, str]:
    (tmp_path / "addresses").write_text("json://127.0.0.1:9\n")
    names = {name if name.startswith("KAPSO") else f"KAPSO_SYNC_{name}": value for name, value in given.items()}
    return {"KAPSO_SYNC_SOURCE": "https://github.com/acme/flows", **names}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"PUBLIC_URL": "nowhere"}, "KAPSO_SYNC_PUBLIC_URL"),
        ({"PUBLIC_URL": "https://user:hunter22@status.example"}, "KAPSO_SYNC_PUBLIC_URL"),
        ({"NOTIFY_URLS_FILE": "/nowhere"}, "cannot be read"),
        ({"COMMIT_STATUS": "auto"}, "needs a token"),
        ({"COMMIT_STATUS": "auto", "GIT_TOKEN": "t", "SOURCE": "https://git.example/a/b"}, "does not know what git.example is"),
        ({"COMMIT_STATUS": "github", "GIT_TOKEN": "t", "COMMIT_STATUS_URL": "http://x.example"}, "in the clear"),
        ({"COMMIT_STATUS": "gitea", "GIT_TOKEN": "t", "SOURCE": "."}, "needs a source on a forge"),
    ],
)
def test_invalid_notification_settings_stop_the_daemon_at_the_start(
    tmp_path: Path, given: dict[str, str], message: str
) -> None:
    """The error names the setting, and shows no secret."""
    with pytest.raises(ConfigError, match=message) as found:
        check_notification_settings(load_settings({}, environment=settings_with(tmp_path, **given)))
    assert "hunter22" not in str(found.value) + str(found.value.hint)


def test_valid_notification_settings_are_accepted(tmp_path: Path) -> None:
    """Git's token is used where there is no other."""
    environment = settings_with(tmp_path, COMMIT_STATUS="auto", GIT_TOKEN="token-of-git", PUBLIC_URL="http://status.example/x")
    settings = load_settings({}, environment={**environment, "KAPSO_SYNC_NOTIFY_URLS_FILE": str(tmp_path / "addresses")})
    check_notification_settings(settings)
    assert settings.commit_status_key() == "token-of-git"


def test_without_apprise_the_error_shows_the_install_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only if addresses are configured."""
    environment = settings_with(tmp_path)
    monkeypatch.setitem(sys.modules, "apprise", None)
    check_notification_settings(load_settings({}, environment=environment))
    file = {"KAPSO_SYNC_NOTIFY_URLS_FILE": str(tmp_path / "addresses")}
    with pytest.raises(ConfigError, match="apprise") as found:
        check_notification_settings(load_settings({}, environment={**environment, **file}))
    assert found.value.hint == "pip install 'kapso-sync[notify]'"
