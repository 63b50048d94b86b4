"""What systemd wants to hear of a ``Type=notify`` service: ready, stopping, a status line, and that we are alive."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from sdnotify import SystemdNotifier  # type: ignore[import-untyped]

from kapso_sync.model.clock import Clock


class Notify:
    """Talks to systemd where it listens, else to nobody. ``environment`` names its socket and the watchdog's period."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        environment = os.environ if environment is None else environment
        self._notifier = SystemdNotifier() if "NOTIFY_SOCKET" in environment else None
        period = environment.get("WATCHDOG_USEC", "")
        self.watchdog = int(period) / 1_000_000 if period.isdigit() and int(period) else None
        self._said = ""

    def ready(self) -> None:
        """Say that the service runs."""
        self._send("READY=1")

    def stopping(self) -> None:
        """Say that it is about to end."""
        self._send("STOPPING=1")

    def close(self) -> None:
        """Let go of the socket."""
        if self._notifier is not None and self._notifier.socket is not None:
            self._notifier.socket.close()

    def status(self, line: str) -> None:
        """Say how things stand, once for each change."""
        if line != self._said:
            self._said = line
            self._send(f"STATUS={line}")

    async def keep_alive(self, healthy: Callable[[], bool], clock: Clock) -> None:
        """Feed the watchdog while we are healthy; returns at once where there is none."""
        while self.watchdog is not None:
            if healthy():
                self._send("WATCHDOG=1")
            await clock.sleep(self.watchdog / 2)

    def _send(self, message: str) -> None:
        if self._notifier is not None:
            self._notifier.notify(message)
