"""Builds the daemon's server from the address that it listens on."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from kapso_sync.errors import ConfigError
from kapso_sync.model.clock import Clock
from kapso_sync.server.app import make_app
from kapso_sync.server.control import DaemonControl, ServerLimits
from kapso_sync.server.serve import serving
from kapso_sync.urls import is_loopback


@contextlib.asynccontextmanager
async def open_server(address: str, control: DaemonControl, clock: Clock) -> AsyncIterator[str | None]:
    """Serve what the daemon shows and accepts, and yield the URL; None if the address is empty.

    Raises `ConfigError` for an invalid address, and for one that is not available.
    """
    address = address.strip()
    if not address:
        yield None
        return
    host, port = parse_listen(address)
    limits = ServerLimits()
    app = make_app(control, clock, public=not is_loopback(host), limits=limits)
    async with contextlib.AsyncExitStack() as stack:
        try:
            url = await stack.enter_async_context(serving(app, host, port, head_timeout=limits.head_timeout))
        except OSError as error:
            raise ConfigError(
                f"KAPSO_SYNC_LISTEN {address} cannot be opened: {error.strerror or error}",
                hint="is another daemon running there?",
            ) from error
        yield url


def parse_listen(text: str) -> tuple[str, int]:
    """Return host and port of ``HOST:PORT``, ``:PORT`` or ``[V6]:PORT``; raises `ConfigError`."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise ConfigError(f"KAPSO_SYNC_LISTEN {text!r}: expected HOST:PORT", hint="an example: 127.0.0.1:8321")
    return host.removeprefix("[").removesuffix("]") or "0.0.0.0", int(port)  # noqa: S104 - asked for, and then the token is needed
