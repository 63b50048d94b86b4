"""A session over several passes, as a daemon holds one."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from kapso_sync.errors import ConfigError
from kapso_sync.model.policies import PassOverrides
from kapso_sync.reconcile.cycle import PassRequest
from kapso_sync.settings import load_settings
from kapso_sync.telemetry.event_bus import EventBus
from kapso_sync.telemetry.logs import LogSettings
from kapso_sync.telemetry.redact import Redactor
from kapso_sync.wiring.engine import open_session
from tests.clock import VirtualClock
from tests.program import answering
from tests.served import Served

pytestmark = pytest.mark.e2e


async def test_a_pass_after_one_that_failed_reads_the_source_again(
    kapso: Served, folder: Path, environment: dict[str, str]
) -> None:
    """The daemon asks if the source moved, which keeps what was found; then the pass fails before it takes that."""
    settings = load_settings({"source": str(folder)}, environment={**environment, "KAPSO_SYNC_DEPLOY_POLL": "20ms"})
    bus = EventBus(LogSettings(), io.StringIO(), VirtualClock(), Redactor())
    async with open_session(settings, bus, writes=True) as session:
        await session.sync(PassRequest("sync"))
        (folder / "greet.js").write_text(answering("bad"), encoding="utf-8")
        assert await session.moved()
        with pytest.raises(ConfigError, match="deletions need a known owner"):
            await session.sync(PassRequest("api", overrides=PassOverrides(delete=frozenset({"greet"}))))
        (folder / "greet.js").write_text(answering("good"), encoding="utf-8")
        await session.sync(PassRequest("resume"))
    assert "good" in str(kapso.world.live_code()["greet"])
