"""Notifies systemd of a ``Type=notify`` service: ready, stopping, a status line, and the watchdog."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Mapping

from systemd_watchdog.systemd_watchdog import WatchDog

from kapso_sync.model.clock import Clock


class _WatchDogWithStopping(WatchDog):
    """The library, with the one message that it lacks."""

    def stopping(self) -> None:
        """Report that the service is about to end."""
        self._send("STOPPING=1\n")


class SystemdNotifier:
    """Talks to systemd where it listens, else to nobody. ``environment`` names its socket and the watchdog's period."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        environment = os.environ if environment is None else environment
        address = environment.get("NOTIFY_SOCKET")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) if address else None
        self._systemd = _WatchDogWithStopping(self._socket, address) if self._socket else None
        period = environment.get("WATCHDOG_USEC", "")
        self.watchdog = int(period) / 1_000_000 if period.isdigit() and int(period) else None
        self._said = ""

    def ready(self) -> None:
        """Say that the service runs."""
        self._say(_WatchDogWithStopping.ready)

    def stopping(self) -> None:
        """Say that it is about to end."""
        self._say(_WatchDogWithStopping.stopping)

    def close(self) -> None:
        """Let go of the socket."""
        if self._socket is not None:
            self._socket.close()

    def status(self, line: str) -> None:
        """Say how things stand, once for each change."""
        if line != self._said:
            self._said = line
            self._say(lambda systemd: systemd.status(line))

    async def keep_alive(self, healthy: Callable[[], bool], clock: Clock) -> None:
        """Feed the watchdog while we are healthy; returns at once where there is none."""
        while self.watchdog is not None:
            if healthy():
                self._say(_WatchDogWithStopping.notify)
            await clock.sleep(self.watchdog / 2)

    def _say(self, what: Callable[[_WatchDogWithStopping], None]) -> None:
        """Say it if somebody listens; a systemd that is busy or gone must not end what it watches."""
        if self._systemd is not None:
            with contextlib.suppress(OSError):
                what(self._systemd)
