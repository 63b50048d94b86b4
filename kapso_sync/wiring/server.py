"""The daemon's server, wired to the daemon: where it listens, and what it may ask."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from kapso_sync.errors import ConfigError
from kapso_sync.server.app import ServerDeps, make_app
from kapso_sync.server.serve import serving

if TYPE_CHECKING:
    from kapso_sync.wiring.daemon import Daemon


@contextlib.asynccontextmanager
async def open_server(daemon: Daemon) -> AsyncIterator[str | None]:
    """Serve what the daemon shows and takes, and yield the URL; None where the settings want no server.

    Raises `ConfigError` for an address that makes no sense or cannot be had.
    """
    listen = daemon.settings.listen.strip()
    if not listen:
        yield None
        return
    host, port = parse_listen(listen)
    deps = ServerDeps(
        status=daemon.status,
        unhealthy=daemon.unhealthy,
        ready=lambda: daemon.looked,
        metrics=daemon.metrics.exposition,
        changed=daemon.board.changed,
        passed=daemon.board.passed,
        webhook_secret=lambda: daemon.settings.webhook_key(),  # noqa: PLW0108 - settings are replaced when they are read again
        admin_token=daemon.admin_token,
        trigger=daemon.trigger,
        lift=daemon.lift,
        suspend=daemon.suspend,
        resume=daemon.resume,
        watched=lambda: (daemon.board.source, daemon.settings.branch or daemon.settings.ref),
        clock=daemon.clock,
        public=not _is_loopback(host),
    )
    async with contextlib.AsyncExitStack() as stack:
        try:
            url = await stack.enter_async_context(serving(make_app(deps), host, port))
        except OSError as error:
            raise ConfigError(
                f"KAPSO_SYNC_LISTEN {listen} cannot be had: {error.strerror or error}", hint="is another daemon running there?"
            ) from error
        yield url


def parse_listen(text: str) -> tuple[str, int]:
    """Return host and port of ``HOST:PORT``, ``:PORT`` or ``[V6]:PORT``; raises `ConfigError`."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise ConfigError(f"KAPSO_SYNC_LISTEN {text!r}: expected HOST:PORT", hint="an example: 127.0.0.1:8321")
    return host.removeprefix("[").removesuffix("]") or "0.0.0.0", int(port)  # noqa: S104 - asked for, and then the token is needed


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
