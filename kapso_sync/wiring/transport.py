"""Builds the connection to Kapso of the settings."""

from __future__ import annotations

import random
from collections.abc import Callable

from kapso_sync import __version__
from kapso_sync.api.rate_limiter import RateLimiter
from kapso_sync.api.transport import Transport, TransportSettings
from kapso_sync.model import events
from kapso_sync.model.clock import Clock
from kapso_sync.network import Network
from kapso_sync.settings import Settings
from kapso_sync.telemetry.redact import Redactor

MayCall = Callable[[], None]
"""Raises `NotLeading` if no request may be sent to Kapso now."""


def make_transport(  # noqa: PLR0913 - each is something that another caller decides
    settings: Settings,
    network: Network,
    base_url: str,
    clock: Clock,
    *,
    emit: events.Listener,
    redactor: Redactor,
    may_call: MayCall | None = None,
    attempts: int = 5,
    not_before: float | None = None,
) -> Transport:
    """Return the connection to Kapso; the key is read again for each request.

    ``may_call`` is as in `Transport`, ``attempts`` as in `TransportSettings`, and ``not_before`` as in `RateLimiter`.
    """

    def key() -> str:
        value = settings.key()
        redactor.add(value)
        return value

    def on_wait(seconds: float, limit: int, remaining: int) -> None:
        emit(events.RateLimitWaiting(wait_s=round(seconds, 1), limit=limit, remaining=remaining))

    return Transport(
        base_url,
        key,
        clock=clock,
        emit=emit,
        random=random.random,
        pacer=RateLimiter(
            clock, share=settings.rate_share, window=settings.rate_window, on_wait=on_wait, not_before=not_before
        ),
        settings=TransportSettings(
            deadline=settings.request_timeout,
            attempts=attempts,
            concurrency=settings.concurrency,
            user_agent=settings.user_agent or f"kapso-sync/{__version__}",
            key_source=settings.key_source,
            network=network,
        ),
        scrub=redactor.text,
        may_call=may_call,
    )


def new_id() -> str:
    """Return a new id for a session, or for the log lines of a pass."""
    return f"{random.getrandbits(48):012x}"
