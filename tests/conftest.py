"""What all tests share."""

from __future__ import annotations

import os

from hypothesis import settings

from kapso_sync.network import AUTHORITY_VARIABLES, PROXY_VARIABLES

pytest_plugins = ["tests.fixtures_emulator"]

# An example's time depends on what else the machine does: a deadline would only make tests flaky.
settings.register_profile("kapso-sync", deadline=None)
settings.load_profile("kapso-sync")

# Tests reach nothing but loopback. With this machine's authorities each command would read all public ones as well.
for name in (*PROXY_VARIABLES, *AUTHORITY_VARIABLES):
    os.environ.pop(name, None)
    os.environ.pop(name.lower(), None)
