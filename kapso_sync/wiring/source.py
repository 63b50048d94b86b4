"""Builds the reader of the settings' source, and reports on a source offline."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path

from kapso_sync.api.base_url import parse_base_url
from kapso_sync.build import check_types
from kapso_sync.build.packages import NOT_CACHED
from kapso_sync.clock import SystemClock
from kapso_sync.dataclass import dataclass
from kapso_sync.errors import ManifestInvalid, Notice, Problem
from kapso_sync.model import events
from kapso_sync.model.desired import Desired, UnusableFunction
from kapso_sync.model.source import SourceFile
from kapso_sync.model.state import ReconcilerState
from kapso_sync.network import Network
from kapso_sync.settings import Settings
from kapso_sync.sources.resolved import ResolvedSource
from kapso_sync.sources.spec import SourceKind
from kapso_sync.store.builds import BuildFolder
from kapso_sync.telemetry.event_bus import EventBus
from kapso_sync.wiring.building import find_npm_packages, find_packages, make_desired_builder
from kapso_sync.wiring.folder import refuse_unverifiable, resolve_folder, source_spec, state_folder
from kapso_sync.wiring.network import find_network


async def resolve_source(
    settings: Settings, network: Network, base_url: str, emit: events.Listener, git_home: Path | None
) -> ResolvedSource:
    """Return the reader of the source, its owner and its state folder; ``git_home`` replaces the git folder in the latter."""
    spec = source_spec(settings)
    folder = state_folder(settings, base_url, spec)
    refuse_unverifiable(settings, spec)
    if spec.kind is SourceKind.FOLDER:
        return await resolve_folder(settings, spec, folder, emit)
    from kapso_sync.wiring.git_source import resolve_repository  # noqa: PLC0415 - a folder needs nothing of git

    return await resolve_repository(settings, spec, folder, git_home or folder / "git", network, emit)


@dataclass(frozen=True, slots=True)
class SourceReport:
    """The desired state of a source, and all its problems; ``desired`` is None if the manifest is broken.

    ``inside`` is the functions folder relative to the root of its repository, empty for the root itself. ``files`` are those of
    the functions folder by their paths.
    """

    desired: Desired | None
    problems: tuple[Problem, ...] = ()
    notices: tuple[Notice, ...] = ()
    inside: str = ""
    files: Mapping[str, SourceFile] = field(default_factory=dict, repr=False)


async def read_source(settings: Settings, logging: EventBus, *, types: bool = False) -> SourceReport:
    """Return the report on the source, for the settings' API base; makes no API call. ``types``: run its own `tsc` as well."""
    base_url = parse_base_url(settings.api_base_url, allow_http=settings.allow_http)
    network = find_network(settings, logging.redactor)
    logging.redactor.add(settings.git_password())
    with tempfile.TemporaryDirectory(prefix="kapso-sync-") as git_home:
        place = await resolve_source(settings, network, base_url, logging.emit, Path(git_home))
        snapshot = await place.source.fetch()
        found = find_packages(place.spec, snapshot)
        packages = found.on_disk if found is not None else None
        inside = snapshot.path if packages is None else packages.inside.removeprefix(".")
        builds = BuildFolder(place.folder, SystemClock().now(), writes=False)
        npm_packages = find_npm_packages(settings, network, place.spec, place.folder, Path(git_home), online=False)
        build = make_desired_builder(settings, place.spec, builds, npm_packages=npm_packages)
        try:
            desired = await build(snapshot, ReconcilerState())
        except ManifestInvalid as error:
            return SourceReport(None, error.problems, (), inside)
    unbuilt = tuple(notice for function in desired.unusable if (notice := _unbuilt_notice(function)) is not None)
    problems = tuple(
        problem for function in desired.unusable if _unbuilt_notice(function) is None for problem in function.problems
    )
    wrong, untold = await check_types(packages, os.environ.get("PATH", os.defpath)) if types else ((), ())
    return SourceReport(desired, (*problems, *wrong), (*desired.notices, *unbuilt, *untold), inside, snapshot.files)


def _unbuilt_notice(function: UnusableFunction) -> Notice | None:
    """Return a warning if a function was not built only because no request may be made for its packages, or None."""
    if any(problem.code != NOT_CACHED for problem in function.problems):
        return None
    first, more = function.problems[0], len(function.problems) - 1
    others = f" (nor {'is' if more == 1 else 'are'} {more} more)" if more else ""
    return Notice(first.code, f"it was not built: {first.message}{others}; {first.hint}", first.location)
