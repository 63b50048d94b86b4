"""The targets, by name."""

from __future__ import annotations

from collections.abc import Mapping

from tests.fuzz.target import Target
from tests.fuzz.targets import (
    api,
    checks,
    code,
    events,
    fixtures,
    folder,
    git,
    http,
    lease,
    manifest,
    marks,
    pull,
    secrets,
    services,
    settings,
    webhook,
)

_MODULES = (
    api,
    checks,
    code,
    events,
    fixtures,
    folder,
    git,
    http,
    lease,
    manifest,
    marks,
    pull,
    secrets,
    services,
    settings,
    webhook,
)

TARGETS: Mapping[str, Target] = {target.name: target for module in _MODULES for target in module.TARGETS}
