"""The smaller parts of the daemon: supervised tasks, the scheduler, and systemd notifications."""

from __future__ import annotations

import asyncio
import itertools
import socket
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from kapso_sync.clock import SystemClock
from kapso_sync.daemon.schedule import CLOCK_CHECK_INTERVAL, Interval, Schedule
from kapso_sync.daemon.service import PRUNE_GRACE, one_line, with_prune_grace
from kapso_sync.daemon.supervisor import BACKOFF, Supervisor
from kapso_sync.daemon.systemd import SystemdNotifier
from kapso_sync.daemon.triggers import Trigger
from kapso_sync.daemon.unused_functions import track_unused_functions
from kapso_sync.errors import ApiUnavailable, Call
from kapso_sync.model import events
from kapso_sync.settings import load_settings
from kapso_sync.status.tracker import StatusTracker
from kapso_sync.urls import parse_listen
from tests.clock import VirtualClock
from tests.server.statuses import DOWN, EMPTY, GOOD, SUSPENDED


async def test_a_crashed_task_is_restarted_with_backoff() -> None:
    """Its reason is logged; the pauses double up to a minute."""
    clock, told, lives = VirtualClock(), list[events.Event](), list[float]()

    async def mortal() -> None:
        lives.append(clock.monotonic())
        raise RuntimeError("it\nhurts")

    async with Supervisor(clock, told.append) as supervisor:
        supervisor.start("mortal", mortal)
        for _ in range(400):
            await clock.sleep(1)
    gaps = [later - earlier for earlier, later in itertools.pairwise(lives)]
    assert gaps[:6] == [1, 2, 4, 8, 16, 32]
    assert max(gaps) == BACKOFF.maximum
    first = told[0]
    assert isinstance(first, events.TaskFailed)
    assert (first.task, first.error, first.error_type, first.restart_in_s) == ("mortal", "it hurts", "RuntimeError", 1.0)


async def test_a_finished_task_is_not_restarted_and_a_stop_ends_all_tasks() -> None:
    """Nothing outlives the supervisor."""
    ended = asyncio.Event()

    async def lasting() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def brief() -> None:
        return

    async with Supervisor(VirtualClock(), lambda _: None) as supervisor:
        supervisor.start("lasting", lasting)
        supervisor.start("brief", brief)
        for _ in range(5):
            await asyncio.sleep(0)
        assert supervisor.alive == {"lasting": True, "brief": False}
    assert ended.is_set()


async def test_a_shutdown_in_the_moment_of_a_trigger_logs_no_traceback(caplog: pytest.LogCaptureFixture) -> None:
    """However many turns the loop has made since the trigger was due."""
    for turns in range(8):
        requested: list[Trigger] = []
        with Schedule(requested.append, [Interval(Trigger.POLL, 1e-5)], SystemClock()):
            while turns > 3 and not requested:  # noqa: ASYNC110 - the library has no event for it
                await asyncio.sleep(0)
            for _ in range(turns):
                await asyncio.sleep(0)
    assert caplog.records == []


async def test_the_scheduler_triggers_by_name_and_reports_the_next_run() -> None:
    """A scheduled job only triggers a pass; it does no work itself."""
    rung = asyncio.Event()
    names: list[Trigger] = []

    def request(trigger: Trigger) -> None:
        assert threading.current_thread() is threading.main_thread(), "the queue is not for threads"
        names.append(trigger)
        rung.set()

    with Schedule(request, (Interval(Trigger.POLL, 0.05), Interval(Trigger.INTERVAL, 3600.0)), SystemClock()) as schedule:
        async with asyncio.timeout(20):
            await rung.wait()
        following = schedule.next(Trigger.INTERVAL)
        assert following is not None
        assert 3200 < (following - datetime.now(UTC)).total_seconds() < 4000
        assert schedule.next(Trigger.FILES) is None
    assert set(names) == {"poll"}


class SetClock(VirtualClock):
    """A virtual clock whose wall somebody may set."""

    def __init__(self) -> None:
        super().__init__(datetime.now(UTC))
        self.set_by = timedelta()

    def now(self) -> datetime:
        return super().now() + self.set_by


@pytest.mark.parametrize(("before_days", "after_days"), [(1, 0), (0, 1)])
async def test_a_change_of_the_wall_clock_does_not_delay_the_schedule(before_days: int, after_days: int) -> None:
    """The library uses the wall clock; set back by a day, it would trigger a day late."""
    clock = SetClock()
    clock.set_by = timedelta(days=before_days)
    with Schedule(lambda _: None, (Interval(Trigger.INTERVAL, 3600.0),), clock) as schedule:
        minding = asyncio.create_task(schedule.restart_when_clock_is_set())
        before = schedule.next(Trigger.INTERVAL)
        await clock.sleep(CLOCK_CHECK_INTERVAL * 3)
        assert schedule.next(Trigger.INTERVAL) == before, "a steady clock changes nothing"
        clock.set_by = timedelta(days=after_days)
        await clock.sleep(CLOCK_CHECK_INTERVAL * 2)
        following = schedule.next(Trigger.INTERVAL)
        assert following is not None
        assert 3000 < (following - clock.now()).total_seconds() < 4000
        minding.cancel()
        await asyncio.gather(minding, return_exceptions=True)


async def test_an_interval_has_jitter_in_both_directions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten per cent up and down, so that the mean is what was asked for."""
    waits = []
    for luck in (0.0, 1.0):
        monkeypatch.setattr("random.uniform", lambda low, high, luck=luck: low + (high - low) * luck)
        with Schedule(lambda _: None, (Interval(Trigger.INTERVAL, 1000.0),), SystemClock()) as schedule:
            following = schedule.next(Trigger.INTERVAL)
            assert following is not None
            waits.append(round((following - datetime.now(UTC)).total_seconds() / 10))
    assert waits == [90, 110]


async def test_systemd_gets_ready_status_watchdog_and_stopping(tmp_path: Path) -> None:
    """Ready, a status line once for each change, the watchdog while healthy, stopping."""
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(path)
        listener.settimeout(5)
        notify = SystemdNotifier({"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "20000"})
        notify.ready()
        notify.status("6 of 6 functions ready")
        notify.status("6 of 6 functions ready")
        notify.stopping()
        said = [listener.recv(200).decode() for _ in range(3)]
        assert said == ["READY=1\n", "STATUS=6 of 6 functions ready\n", "STOPPING=1\n"]
        healthy = True
        keeping = asyncio.create_task(notify.keep_alive(lambda: healthy, SystemClock()))
        assert await asyncio.to_thread(listener.recv, 200) == b"WATCHDOG=1\n"
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        notify.close()


async def test_a_missing_or_busy_systemd_socket_does_not_block(tmp_path: Path) -> None:
    """Nothing is waited for, and nothing raised."""
    path = str(tmp_path / "notify")
    notify = SystemdNotifier({"NOTIFY_SOCKET": path})
    notify.ready()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as deaf:
        deaf.bind(path)
        for number in range(2000):
            notify.status(f"line {number}")
    notify.stopping()
    notify.close()


async def test_without_notify_socket_nothing_is_sent_to_systemd() -> None:
    """No socket, no watchdog: nothing happens, at once."""
    notify = SystemdNotifier({})
    notify.ready()
    notify.status("x")
    await asyncio.wait_for(notify.keep_alive(lambda: True, SystemClock()), 1)


@pytest.mark.parametrize(
    ("status", "line"),
    [
        (EMPTY, "starting"),
        (GOOD, "6 of 6 functions ready at 4f1c2ab8d0e1"),
        (DOWN, "failing: no connection to app.kapso.ai"),
        (SUSPENDED, "suspended: moving the project to another plan"),
    ],
)
def test_the_status_line_summarises_the_state(status: object, line: str) -> None:
    """In ``systemctl status`` and at SIGUSR1."""
    assert one_line(status) == line  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("127.0.0.1:8321", ("127.0.0.1", 8321)), (":80", ("0.0.0.0", 80)), ("[::1]:8321", ("::1", 8321))],  # noqa: S104
)
def test_listen_addresses_are_parsed_as_host_and_port(text: str, expected: tuple[str, int]) -> None:
    """Host and port; without a host, everywhere."""
    assert parse_listen(text) == expected
    assert load_settings({"listen": text}, environment={}).listen == text


async def test_workflows_are_read_at_most_once_an_hour() -> None:
    """Unused functions are shown; after a failed look-up usage is unknown, and nothing is shown."""
    clock, looks = VirtualClock(), list[float]()
    board = StatusTracker(clock, "1", "test")

    async def look() -> tuple[str, ...] | None:
        looks.append(clock.monotonic())
        if len(looks) == 2:
            raise ApiUnavailable("no connection", call=Call("GET", "/workflows"))
        return ("a",) if len(looks) == 1 else ("b",)

    async with Supervisor(clock, list[events.Event]().append) as supervisor:
        supervisor.start("usage", lambda: track_unused_functions(look, board.show_unused, clock))
        shown = []
        for _ in range(3):
            await clock.sleep(3600)
            shown.append(board.status().unused)
    assert shown == [("a",), None, ("b",)]
    assert [later - earlier for earlier, later in itertools.pairwise(looks)] == [3600, 3600]


def test_the_daemon_has_a_deletion_grace_by_default() -> None:
    """Ten minutes, unless the settings give another time or none."""
    given = {name: load_settings({"prune_grace": name}, environment={}) for name in ("0", "1h")}
    assert with_prune_grace(load_settings({}, environment={})).prune_grace == PRUNE_GRACE == 600.0
    assert [with_prune_grace(given[name]).prune_grace for name in ("0", "1h")] == [0.0, 3600.0]
