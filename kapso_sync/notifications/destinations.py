"""Reads the destinations of messages from a mounted file, and sends messages to them with Apprise."""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import json
import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import field
from pathlib import Path

from kapso_sync.dataclass import dataclass
from kapso_sync.errors import ConfigError
from kapso_sync.mounted_files import read_mounted_text
from kapso_sync.notifications.messages import Message
from kapso_sync.process import run_process

MAX_FILE_BYTES = 64 * 1024
"""Maximum size of the file with addresses, in bytes."""

MAX_DESTINATIONS = 20
"""Maximum number of addresses in it."""

MAX_PROCESSES = 2
"""Maximum number of messages that are sent at the same time; the process of each takes 45 MB."""

_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "VIRTUAL_ENV")
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]{0,20})://", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Destination:
    """One address, which is a credential: people see ``label`` in its place, and files hold ``key``."""

    url: str = field(repr=False)
    label: str
    key: str


def read_destinations(path: Path) -> tuple[Destination, ...]:
    """Return the addresses of a file: one per line; empty lines and lines that begin with # are ignored.

    Raises `ConfigError` if the file cannot be read.
    """
    place, missing = f"KAPSO_SYNC_NOTIFY_URLS_FILE {path}", "mount a file there, one address a line"
    text = read_mounted_text(place, path, missing=missing, limit=MAX_FILE_BYTES)
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1)]
    addresses = [(number, line) for number, line in lines if line and not line.startswith("#")]
    if len(addresses) > MAX_DESTINATIONS:
        raise ConfigError(
            f"KAPSO_SYNC_NOTIFY_URLS_FILE {path} holds more than {MAX_DESTINATIONS} addresses",
            hint="let a chat pass the message on",
        )
    found: dict[str, Destination] = {}
    for number, url in addresses:
        match = _SCHEME.match(url)
        label = f"{match[1].lower()} (line {number})" if match else f"line {number}"
        destination = Destination(url, label, _key(url))
        found.setdefault(destination.key, destination)
    return tuple(found.values())


def _key(url: str) -> str:
    """Return a short digest: long enough to distinguish a few addresses, too short to recover a password."""
    return hashlib.sha256(url.encode("utf-8", "surrogatepass")).hexdigest()[:5]


def require_apprise() -> None:
    """Raise `ConfigError` where apprise is not installed."""
    if importlib.util.find_spec("apprise") is None:
        raise ConfigError(
            "KAPSO_SYNC_NOTIFY_URLS_FILE is set, and apprise, which sends the messages, is not installed",
            hint="pip install 'kapso-sync[notify]'",
        )


class AppriseSender:
    """Sends messages with Apprise, each in a process of its own, which is killed when it takes too long.

    Apprise blocks, and so do the libraries below it, which take proxies and authorities from the environment alone.
    ``environment`` returns that of the process; ``deadline`` is in seconds.
    """

    def __init__(self, environment: Callable[[], Mapping[str, str]] = dict, deadline: float = 30.0) -> None:
        self._environment = environment
        self._deadline = deadline
        self._slots = asyncio.Semaphore(MAX_PROCESSES)

    async def send(self, destination: Destination, message: Message) -> str | None:
        """Return the error, in words that quote nothing, or None; never raises."""
        request = {"url": destination.url, "title": message.title, "body": message.body, "kind": str(message.kind)}
        async with self._slots:
            try:
                ended = await run_process(
                    [sys.executable, "-m", "kapso_sync.notifications.apprise_process"],
                    environment={**_inherited(), **self._environment()},
                    cwd=Path.cwd(),
                    deadline=self._deadline,
                    stdin=json.dumps(request).encode("ascii"),
                )
                answer = json.loads(ended.output)
                error = answer["error"]
            except ConfigError as wrong:
                return wrong.message
            except TimeoutError:
                return f"no answer within {self._deadline:.0f} s"
            except (OSError, ValueError, LookupError, TypeError) as failure:
                return f"apprise failed: {type(failure).__name__}"
        return None if error is None else str(error)


def _inherited() -> dict[str, str]:
    """Return what a Python process needs of our environment; no credential of ours is among it."""
    return {name: os.environ[name] for name in _INHERITED if name in os.environ}
