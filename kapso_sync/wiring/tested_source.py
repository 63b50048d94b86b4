"""Reads a source to run its checks on this machine: everything built, with source maps, and what changed since a revision."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from kapso_sync.api.base_url import parse_base_url
from kapso_sync.dataclass import dataclass
from kapso_sync.errors import Location, ManifestInvalid, UsageError
from kapso_sync.files import read_small
from kapso_sync.invocations.places import Code
from kapso_sync.manifest.fixtures import contents_of
from kapso_sync.model.builds import Built, NoBuilds
from kapso_sync.model.desired import MODULE_TAIL, Desired, DesiredFunction
from kapso_sync.model.source import LOCK_FILE, LOCK_LIMIT, Snapshot
from kapso_sync.model.state import ReconcilerState
from kapso_sync.reconcile.desired import Reader
from kapso_sync.settings import Settings
from kapso_sync.sources.identity import find_work_tree
from kapso_sync.sources.spec import SourceKind, SourceSpec
from kapso_sync.telemetry.event_bus import EventBus
from kapso_sync.wiring.building import FindPackages, find_npm_packages, find_packages, make_desired_builder, make_secret_reader
from kapso_sync.wiring.network import find_network
from kapso_sync.wiring.source import resolve_source

if TYPE_CHECKING:
    from git import Commit

PACKAGE_FILES = ("package.json", LOCK_FILE, "npm-shrinkwrap.json", "pnpm-lock.yaml", "yarn.lock")
"""Files that say which packages there are."""


_NOWHERE = Location("")


class BuildMaps(NoBuilds):
    """Keeps the source maps of one process's builds, by their code."""

    def __init__(self) -> None:
        self._maps: dict[str, str | None] = {}

    def put(self, key: str, built: Built) -> None:  # noqa: ARG002 - the code is what is asked for
        """Keep the map of a build."""
        self._maps[built.code] = built.source_map

    def code(self, text: str) -> Code:
        """Return code with its source map, if it has one."""
        return Code(text, self._maps.get(text) or self._maps.get(text.removesuffix(MODULE_TAIL)))


@dataclass(frozen=True, slots=True)
class TestedSource:
    """A source whose checks can be run.

    ``inside`` is the functions folder relative to the root of its repository. ``touched`` are the slugs that changed since a
    revision; None: nobody asked.
    """

    __test__ = False

    desired: Desired
    snapshot: Snapshot
    maps: BuildMaps
    secrets: Reader
    inside: str = ""
    touched: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class _Read:
    """A revision of the source: ``desired`` None if its manifest cannot be used."""

    spec: SourceSpec
    snapshot: Snapshot
    desired: Desired
    inside: str
    maps: BuildMaps = field(default_factory=BuildMaps)


async def read_tested_source(settings: Settings, bus: EventBus, *, since: str | None = None) -> TestedSource:
    """Read and build the settings' source, and find what changed since the revision ``since``; makes no API call.

    Raises `ManifestInvalid`, `UsageError` for a revision that is not there, and what `resolve_source` raises.
    """
    now = await _read(settings, bus)
    touched = None
    if since is not None:
        touched = await _touched(settings, bus, now, since)
    secrets = make_secret_reader(settings, bus.redactor)
    return TestedSource(now.desired, now.snapshot, now.maps, secrets, now.inside, touched)


async def _read(settings: Settings, bus: EventBus, packages: FindPackages | None = None) -> _Read:
    """Read and build one revision; ``packages`` replaces the npm packages of the source itself."""
    base_url = parse_base_url(settings.api_base_url, allow_http=settings.allow_http)
    network = find_network(settings, bus.redactor)
    bus.redactor.add(settings.git_password())
    with tempfile.TemporaryDirectory(prefix="kapso-sync-") as git_home:
        place = await resolve_source(settings, network, base_url, bus.emit, Path(git_home))
        snapshot = await place.source.fetch()
        found = find_packages(place.spec, snapshot)
        on_disk = found.on_disk if found is not None else None
        inside = snapshot.path if on_disk is None else on_disk.inside.removeprefix(".")
        npm_packages = packages or find_npm_packages(settings, network, place.spec, place.folder, Path(git_home), online=False)
        maps = BuildMaps()
        build = make_desired_builder(settings, place.spec, maps, npm_packages=npm_packages)
        return _Read(place.spec, snapshot, await build(snapshot, ReconcilerState()), inside, maps)


async def _touched(settings: Settings, bus: EventBus, now: _Read, since: str) -> frozenset[str]:
    """Return the functions that are otherwise than at a revision: their code as it is built, their entries, their fixtures.

    What cannot be compared counts as changed: a manifest that was broken then, and npm packages whose files differ.
    """
    if now.spec.kind is not SourceKind.FOLDER:
        raise UsageError("--changed-since compares a work tree with a revision", hint="name a folder of a git repository")
    root = Path(now.spec.location)
    tree = find_work_tree(root)
    if tree is None:
        raise UsageError(f"{root} is in no git repository", hint="without --changed-since every function is tested")
    commit, packages = _look_into(tree.root, root, since)
    try:
        installed = find_packages(now.spec, now.snapshot)
        then = await _read(replace(settings, ref=commit, branch=None), bus, lambda _: installed)
    except ManifestInvalid:
        return now.desired.slugs
    before = {function.slug: _fingerprint(function, then.snapshot) for function in then.desired.functions}
    return frozenset(
        function.slug
        for function in now.desired.functions
        if before.get(function.slug) != _fingerprint(function, now.snapshot) or (function.packages and packages)
    ) | frozenset(function.slug for function in now.desired.unusable)


def _fingerprint(function: DesiredFunction, snapshot: Snapshot) -> object:
    entry = replace(function.entry, location=_NOWHERE, secret_locations={})
    return function.code, entry, tuple(contents_of(entry.slug, entry.file, snapshot.files))


def _look_into(root: Path, folder: Path, since: str) -> tuple[str, bool]:
    """Return the id of a revision's commit, and whether the files that name packages have changed since."""
    import git  # noqa: PLC0415 - a folder needs nothing of git

    if not since.strip():
        raise UsageError("--changed-since names no revision", hint="is the variable set that names it?")
    repository = git.Repo(root, expand_vars=False)
    try:
        found = repository.git.rev_parse("--verify", "--quiet", "--end-of-options", since)  # GitPython knows few spellings
        commit = repository.commit(f"{found}^0")
        names = [str(path.relative_to(root) / name) for path in _up_to(folder, root) for name in PACKAGE_FILES]
        return commit.hexsha, any(_differs(commit, name, root / name) for name in names)
    except (ValueError, KeyError, IndexError, git.exc.GitError, git.exc.ODBError) as error:
        raise UsageError(
            f"there is no revision {since} in {root}",
            hint="name one commit, such as main or HEAD~1; a shallow checkout lacks older ones (in CI: fetch-depth: 0)",
        ) from error
    finally:
        repository.close()


def _up_to(folder: Path, root: Path) -> Iterator[Path]:
    """Yield a folder and those above it, up to the root of its work tree."""
    yield folder
    for parent in folder.parents:
        if parent.is_relative_to(root):
            yield parent


def _differs(commit: Commit, name: str, path: Path) -> bool:
    """Return whether a file differs from that in a commit; a link, a device or a file that is too large always does."""
    try:
        then = commit.tree / name
    except KeyError:
        return os.path.lexists(path)
    try:
        now = read_small(path, LOCK_LIMIT)
    except OSError:
        return True
    blob = f"blob {len(now)}\0".encode() + now
    return bool(then.hexsha != hashlib.sha1(blob, usedforsecurity=False).hexdigest())  # git's own name for the content
