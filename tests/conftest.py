"""What all tests share."""

from __future__ import annotations

from hypothesis import settings

pytest_plugins = ["tests.fixtures_emulator"]

# An example's time depends on what else the machine does: a deadline would only make tests flaky.
settings.register_profile("kapso-sync", deadline=None)
settings.load_profile("kapso-sync")
