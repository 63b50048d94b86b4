"""Builds the reader of the settings' source, and finds its owner and its state folder."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import platformdirs

from kapso_sync.api import parse_base_url
from kapso_sync.build import check_types
from kapso_sync.clock import SystemClock
from kapso_sync.errors import ConfigError, ManifestInvalid, Problem
from kapso_sync.model import events
from kapso_sync.model.desired import Desired, Notice
from kapso_sync.model.state import ReconcilerState
from kapso_sync.permissions import describe_owner
from kapso_sync.session import ResolvedSource
from kapso_sync.settings import Settings
from kapso_sync.sources import (
    FolderSource,
    Git,
    GitCredentials,
    GitSource,
    SourceKind,
    SourceSpec,
    find_work_tree,
    parse_source,
)
from kapso_sync.sources.identity import owner_of_folder, owner_of_repository, state_folder_name
from kapso_sync.store.builds import BuildFolder
from kapso_sync.store.database import read_state
from kapso_sync.telemetry import EventBus
from kapso_sync.wiring.building import find_packages, make_desired_builder

GIT_TIMEOUT_FACTOR = 4
"""Factor by which a git transfer may take longer than an API request."""


def source_spec(settings: Settings) -> SourceSpec:
    """Return the parsed source of the settings; raises like `parse_source`."""
    where = settings.source or "."
    spec = parse_source(where, branch=settings.branch, ref=settings.ref, path=settings.path, cwd=Path.cwd())
    if spec.given is None:
        return spec
    itself = replace(spec, location=spec.given, given=None)
    base_url = parse_base_url(settings.api_base_url, allow_http=settings.allow_http)
    before = read_state(state_folder(settings, base_url, itself))
    # A manifest that vanished from it is an error, and no reason to read another one.
    return itself if before.manifest_present or before.owned else spec


def find_state_folder(settings: Settings) -> Path:
    """Return the state folder of the settings' source and API base, without reading the source."""
    return state_folder(settings, parse_base_url(settings.api_base_url, allow_http=settings.allow_http), source_spec(settings))


def state_folder(settings: Settings, base_url: str, spec: SourceSpec) -> Path:
    """Return the state folder of a source and an API base."""
    parts = {"base": base_url, "source": spec.location, "path": spec.path, "env": settings.env, "branch": spec.branch}
    return state_root(settings) / state_folder_name(parts)


def state_root(settings: Settings) -> Path:
    """Return the folder that holds the state folders; raises `ConfigError` if there is no home folder or it cannot be read."""
    if settings.state_dir is not None:
        return _readable(settings.state_dir)
    try:
        return _readable(platformdirs.user_state_path("kapso-sync"))
    except RuntimeError as error:
        raise ConfigError(
            f"the user {os.getuid()} has no home folder, so there is no place for the state",
            hint="set KAPSO_SYNC_STATE_DIR to a folder that this user may write, or HOME",
        ) from error


def _readable(root: Path) -> Path:
    if root.is_dir() and not os.access(root, os.R_OK | os.X_OK):
        raise ConfigError(
            f"the state folder {root} cannot be read: {describe_owner(root)}",
            hint="run as its owner, or set KAPSO_SYNC_STATE_DIR to a folder that this user may write",
        )
    return root


async def resolve_source(settings: Settings, base_url: str, emit: events.Listener, git_home: Path | None) -> ResolvedSource:
    """Return the reader of the source, its owner and its state folder; ``git_home`` replaces the git folder in the latter."""
    spec = source_spec(settings)
    folder = state_folder(settings, base_url, spec)
    if spec.kind is SourceKind.FOLDER:
        return _resolve_folder(settings, spec, folder, emit)
    credentials = GitCredentials(
        settings.git_password, settings.git_username, settings.git_ssh_key_file, settings.git_known_hosts_file
    )
    timeout = settings.request_timeout * GIT_TIMEOUT_FACTOR
    home = git_home or folder / "git"
    git = Git(protocol=spec.protocol, location=spec.location, home=home, credentials=credentials, deadline=timeout)
    source = GitSource(spec, home / "mirror", git, emit)
    path = "" if settings.owner else await source.home()
    other_branch = None
    if spec.branch is not None and not settings.owner and spec.branch != await source.default_branch():
        other_branch = spec.branch
    owner = owner_of_repository(spec.location, path, named=settings.owner, branch=other_branch, env=settings.env)
    return ResolvedSource(spec, source, owner, folder)


def _resolve_folder(settings: Settings, spec: SourceSpec, folder: Path, emit: events.Listener) -> ResolvedSource:
    root = Path(spec.location)
    tree = find_work_tree(root)
    describe: Callable[[], str | None] = lambda: found.head if (found := find_work_tree(root)) else None  # noqa: E731
    source = FolderSource(root, spec.path, top=tree.root if tree else None, emit=emit, describe=describe)
    owner, stable = owner_of_folder(root, tree, source.home, named=settings.owner, env=settings.env)
    return ResolvedSource(spec, source, owner, folder, owner_is_stable=stable, home=source.home)


@dataclass(frozen=True, slots=True)
class SourceReport:
    """The desired state of a source, and all its problems; ``desired`` is None if the manifest is broken.

    ``inside`` is the functions folder relative to the root of its repository, empty for the root itself.
    """

    desired: Desired | None
    problems: tuple[Problem, ...] = ()
    notices: tuple[Notice, ...] = ()
    inside: str = ""


async def read_source(settings: Settings, logging: EventBus, *, types: bool = False) -> SourceReport:
    """Return the report on the source, for the settings' API base; makes no API call. ``types``: run its own `tsc` as well."""
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
