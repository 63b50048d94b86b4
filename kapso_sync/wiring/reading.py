"""Reading a source for whoever wants to know what it says, and nothing of Kapso."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from kapso_sync.api import parse_base_url
from kapso_sync.build import check_types
from kapso_sync.clock import SystemClock
from kapso_sync.errors import ManifestInvalid, Problem
from kapso_sync.model.desired import Desired, Notice
from kapso_sync.model.state import ReconcilerState
from kapso_sync.settings import Settings
from kapso_sync.store.builds import BuildFolder
from kapso_sync.telemetry import EventBus
from kapso_sync.wiring.building import find_packages, make_desired_builder
from kapso_sync.wiring.source import resolve_source


@dataclass(frozen=True, slots=True)
class SourceReport:
    """What a source says, and everything that is wrong with it; ``desired`` is None where the manifest is broken.

    ``inside`` is the functions folder as seen from the root of its repository, empty for the root itself.
    """

    desired: Desired | None
    problems: tuple[Problem, ...] = ()
    notices: tuple[Notice, ...] = ()
    inside: str = ""


async def read_source(settings: Settings, logging: EventBus, *, types: bool = False) -> SourceReport:
    """Return what the source says, for the settings' API base; asks Kapso nothing. ``types``: its own `tsc` is run as well."""
    base_url = parse_base_url(settings.api_base_url, allow_http=settings.allow_http)
    logging.redactor.add(settings.git_password())
    with tempfile.TemporaryDirectory(prefix="kapso-sync-") as git_home:
        place = await resolve_source(settings, base_url, logging.emit, Path(git_home))
        snapshot = await place.source.fetch()
    packages = find_packages(place.spec, snapshot)
    inside = snapshot.path if packages is None else packages.inside.removeprefix(".")
    builds = BuildFolder(place.folder, SystemClock().now(), writes=False)
    try:
        desired = await make_desired_builder(settings, place.spec, builds)(snapshot, ReconcilerState())
    except ManifestInvalid as error:
        return SourceReport(None, error.problems, (), inside)
    problems = tuple(problem for function in desired.unusable for problem in function.problems)
    wrong, untold = await check_types(packages, os.environ.get("PATH", os.defpath)) if types else ((), ())
    return SourceReport(desired, (*problems, *wrong), (*desired.notices, *untold), inside)
