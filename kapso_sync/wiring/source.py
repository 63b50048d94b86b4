"""Builds the reader of the settings' source, and finds its owner and its state folder."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import platformdirs

from kapso_sync.api import parse_base_url
from kapso_sync.build import check_types
from kapso_sync.build.packages import NOT_CACHED
from kapso_sync.clock import SystemClock
from kapso_sync.errors import ConfigError, ManifestInvalid, Notice, Problem
from kapso_sync.model import events
from kapso_sync.model.desired import Desired, UnusableFunction
from kapso_sync.model.source import SourceFile
from kapso_sync.model.state import ReconcilerState
from kapso_sync.network import Network
from kapso_sync.permissions import describe_owner
from kapso_sync.session import ResolvedSource
from kapso_sync.settings import Settings
from kapso_sync.sources import FolderSource, SourceKind, SourceSpec, find_work_tree, parse_source
from kapso_sync.sources.identity import find_origin, owner_of_folder, state_folder_name
from kapso_sync.store.builds import BuildFolder
from kapso_sync.store.database import read_state
from kapso_sync.store.folder import require_private
from kapso_sync.telemetry import EventBus
from kapso_sync.wiring.building import find_npm_packages, find_packages, make_desired_builder
from kapso_sync.wiring.network import find_network


def source_spec(settings: Settings) -> SourceSpec:
    """Return the parsed source of the settings; raises like `parse_source`, and `StateExposed` like `state_folder`."""
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
    """Return the state folder of a source and an API base; raises `StateExposed` if others may have written it."""
    parts = {"base": base_url, "source": spec.location, "path": spec.path, "env": settings.env, "branch": spec.branch}
    folder = state_root(settings) / state_folder_name(parts)
    require_private(folder)
    return folder


def state_root(settings: Settings) -> Path:
    """Return the folder that holds the state folders, absolute; raises `ConfigError` if there is none, or it is closed."""
    if settings.state_dir is not None:
        return _readable(settings.state_dir.absolute())  # git runs in another folder than this process
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


async def resolve_source(
    settings: Settings, network: Network, base_url: str, emit: events.Listener, git_home: Path | None
) -> ResolvedSource:
    """Return the reader of the source, its owner and its state folder; ``git_home`` replaces the git folder in the latter."""
    spec = source_spec(settings)
    folder = state_folder(settings, base_url, spec)
    refuse_unverifiable(settings, spec)
    if spec.kind is SourceKind.FOLDER:
        return await _resolve_folder(settings, spec, folder, emit)
    from kapso_sync.wiring.git_source import resolve_repository  # noqa: PLC0415 - a folder needs nothing of git

    return await resolve_repository(settings, spec, folder, git_home or folder / "git", network, emit)


def refuse_unverifiable(settings: Settings, spec: SourceSpec) -> None:
    """Raise `ConfigError` if signatures are wanted of a folder: it has none, and to read it all the same would deceive."""
    if settings.verify_file is None or spec.kind is not SourceKind.FOLDER:
        return
    raise ConfigError(
        f"KAPSO_SYNC_VERIFY_FILE is set, and nobody can sign the folder {spec.location}: its files need not be those of a "
        "commit, also where it is a work tree, or git-sync published it",
        hint="to deploy, name the repository by its URL: kapso-sync then fetches the commit and verifies it; "
        "leave KAPSO_SYNC_VERIFY_FILE unset for a folder that you work in",
    )


async def _resolve_folder(settings: Settings, spec: SourceSpec, folder: Path, emit: events.Listener) -> ResolvedSource:
    root = Path(spec.location)
    tree = find_work_tree(root)
    describe: Callable[[], str | None] = lambda: found.head if (found := find_work_tree(root)) else None  # noqa: E731
    source = FolderSource(root, spec.path, top=tree.root if tree else None, emit=emit, describe=describe)
    origin = await find_origin(tree) if tree is not None and not settings.owner else None
    owner, stable = owner_of_folder(root, tree, origin, source.home, named=settings.owner, env=settings.env)
    return ResolvedSource(spec, source, owner, folder, owner_is_stable=stable, home=source.home)


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
