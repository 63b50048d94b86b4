"""Builds the objects with which `doctor` asks an API base, and stores the answers."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncIterator
from dataclasses import replace

from kapso_sync import __version__
from kapso_sync.api.base_url import parse_base_url, sibling_base
from kapso_sync.api.client import KapsoClient
from kapso_sync.clock import SystemClock
from kapso_sync.dataclass import dataclass
from kapso_sync.doctor.api_questions import ApiDoctor
from kapso_sync.model.ports import FunctionsApi
from kapso_sync.settings import Settings
from kapso_sync.store.api_facts import ApiFactsFile
from kapso_sync.telemetry.event_bus import EventBus
from kapso_sync.wiring.executor import poll_intervals
from kapso_sync.wiring.folder import state_root
from kapso_sync.wiring.network import find_network
from kapso_sync.wiring.transport import make_transport

AGENTS = (f"kapso-sync/{__version__}", "python-httpx/0.28.1", "curl/8.5.0")


@dataclass(frozen=True, slots=True)
class DoctorSession:
    """The doctor, its API base, and the file of the answers."""

    doctor: ApiDoctor
    base_url: str
    facts: ApiFactsFile


@contextlib.asynccontextmanager
async def open_doctor(settings: Settings, logging: EventBus) -> AsyncIterator[DoctorSession]:
    """Open a doctor of the settings' API base. Raises `ConfigError` if there is no key."""
    base_url = parse_base_url(settings.api_base_url, allow_http=settings.allow_http)
    clock = SystemClock()
    network = find_network(settings, logging.redactor)
    logging.redactor.add(settings.key())

    @contextlib.asynccontextmanager
    async def connect(base: str | None, agent: str | None) -> AsyncIterator[FunctionsApi]:
        chosen = settings if agent is None else replace(settings, user_agent=agent)
        async with make_transport(
            chosen, network, base or base_url, clock, emit=logging.emit, redactor=logging.redactor
        ) as transport:
            yield KapsoClient(transport)

    async with connect(None, None) as api:
        doctor = ApiDoctor(
            api,
            connect,
            clock,
            token=secrets.token_hex(4),
            other_base=sibling_base(base_url),
            agents=AGENTS,
            poll_intervals=poll_intervals(settings),
        )
        yield DoctorSession(doctor, base_url, ApiFactsFile.for_base(state_root(settings), base_url))
