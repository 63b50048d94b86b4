"""A bench for each test."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.clock import VirtualClock
from tests.reconcile.passes import Bench
from tests.world import WorldApi, new_world


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    clock = VirtualClock()
    return Bench(tmp_path / "state", clock, WorldApi(new_world(clock)))
