"""Reads the destinations of messages from a mounted file, and sends messages to them with Apprise."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib.util
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from kapso_sync.errors import ConfigError
from kapso_sync.mounted_files import read_mounted_text
from kapso_sync.notifications.messages import Message

MAX_FILE_BYTES = 64 * 1024
"""Maximum size of the file with addresses, in bytes."""

MAX_DESTINATIONS = 20
"""Maximum number of addresses in it."""

_STATUS_IN_LOG = re.compile(r"error=(\d{3})\b")
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
    text = read_mounted_text(place, path, missing=missing, most=MAX_FILE_BYTES + 1)
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1)]
    addresses = [(number, line) for number, line in lines if line and not line.startswith("#")]
    if len(text) > MAX_FILE_BYTES or len(addresses) > MAX_DESTINATIONS:
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


def send_with_apprise(url: str, message: Message) -> str | None:
    """Send a message, without a time limit; return the error in words that quote nothing, or None."""
    import apprise  # noqa: PLC0415 - an optional part, and slow to import

    asset = apprise.AppriseAsset(
        app_id="kapso-sync",
        app_desc="kapso-sync",
        async_mode=False,
        http_redirects=False,
        storage_mode=apprise.PersistentStoreMode.MEMORY,
        pgp_autogen=False,
        pem_autogen=False,
    )
    sender = apprise.Apprise(asset=asset)
    # What apprise logs may quote the address: it is caught, and of it only a status code leaves this function.
    with apprise.LogCapture() as said:  # type: ignore[no-untyped-call]
        if not sender.add(url):
            return "Apprise does not know such an address"
        sent = sender.notify(
            body=message.body,
            title=message.title,
            notify_type=apprise.NotifyType(str(message.kind)),
            body_format=apprise.NotifyFormat.TEXT,
        )
        answer = _STATUS_IN_LOG.search(said.getvalue())
    if sent:
        return None
    return f"it answered {answer[1]}" if answer else "it cannot be reached, or refused the message"


class AppriseSender:
    """Sends messages, each in a thread, which is abandoned when it takes too long: a blocking call cannot be cancelled.

    ``send`` blocks, and returns the error or None; ``deadline`` is in seconds.
    """

    def __init__(self, send: Callable[[str, Message], str | None] = send_with_apprise, deadline: float = 30.0) -> None:
        self._send = send
        self._deadline = deadline
        self._threads: dict[str, threading.Thread] = {}

    async def send(self, destination: Destination, message: Message) -> str | None:
        """Return the error, or None; never raises, and never keeps more than one thread for a destination."""
        before = self._threads.get(destination.key)
        if before is not None and before.is_alive():
            return "the message before is still on its way"
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[str | None] = loop.create_future()

        def settle(error: str | None) -> None:
            if not answer.done():
                answer.set_result(error)

        def work() -> None:
            try:
                error = self._send(destination.url, message)
            except Exception as failure:  # noqa: BLE001 - whatever a plugin raises; its text may quote the address
                error = f"apprise failed: {type(failure).__name__}"
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(settle, error)

        thread = threading.Thread(target=work, name="notify", daemon=True)
        self._threads[destination.key] = thread
        thread.start()
        try:
            async with asyncio.timeout(self._deadline):
                return await answer
        except TimeoutError:
            return f"no answer within {self._deadline:.0f} s"
