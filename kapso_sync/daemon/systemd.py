"""The sd_notify client for a systemd ``Type=notify`` service: ready, stopping, status line and watchdog."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Mapping

from systemd_watchdog.systemd_watchdog import WatchDog

from kapso_sync.model.clock import Clock


class _WatchDogWithStopping(WatchDog):
    """The library's notifier with the one message that it lacks."""

    def stopping(self) -> None:
        """Report that the service is about to stop."""
        self._send("STOPPING=1\n")


class SystemdNotifier:
    """Reports to systemd, and does nothing without it.

    ``environment`` holds the notify socket and the watchdog's period.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        environment = os.environ if environment is None else environment
        address = environment.get("NOTIFY_SOCKET")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) if address else None
        self._systemd = _WatchDogWithStopping(self._socket, address) if self._socket else None
        period = environment.get("WATCHDOG_USEC", "")
        self.watchdog = int(period) / 1_000_000 if period.isdigit() and int(period) else None
        self._said = ""

    @property
    def listens(self) -> bool:
        """Whether there is a systemd to report to."""
        return self._systemd is not None

    def ready(self) -> None:
        """Report that the service is ready."""
        self._say(_WatchDogWithStopping.ready)

    def stopping(self) -> None:
        """Report that the service is about to stop."""
        self._say(_WatchDogWithStopping.stopping)

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()

    def status(self, line: str) -> None:
        """Report the status line if it changed."""
        if line != self._said:
            self._said = line
            self._say(lambda systemd: systemd.status(line))

    async def keep_alive(self, healthy: Callable[[], bool], clock: Clock) -> None:
        """Notify the watchdog while the daemon is healthy; returns at once if there is no watchdog."""
        while self.watchdog is not None:
            if healthy():
                self._say(_WatchDogWithStopping.notify)
            await clock.sleep(self.watchdog / 2)

    def _say(self, what: Callable[[_WatchDogWithStopping], None]) -> None:
        """Send a message if systemd listens; a systemd that is busy or gone must not end the daemon."""
        if self._systemd is not None:
            with contextlib.suppress(OSError):
                what(self._systemd)
