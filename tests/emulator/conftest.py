"""Fixtures of the emulator's own tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.emulator.kapso import Kapso, opened


@pytest.fixture
async def kapso() -> AsyncIterator[Kapso]:
    """The Platform API, on a clock that the test turns."""
    async with opened() as running:
        yield running


@pytest.fixture
async def older() -> AsyncIterator[Kapso]:
    """The older base, on a clock that the test turns."""
    async with opened(base="/api/v1") as running:
        yield running
