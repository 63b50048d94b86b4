"""Fixtures for tests that talk to a Kapso Functions API."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from kapso_sync.emulator.server import Emulator, running_emulator
from tests.served import QUICK


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    """An emulator of the test's own, with deployments of 20 ms."""
    async with running_emulator(QUICK) as running:
        yield running
