"""Builds a pull, a restore or a proposal from settings: the functions folder, its state, and the API."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from kapso_sync.api.base_url import parse_base_url
from kapso_sync.clock import SystemClock
from kapso_sync.dataclass import dataclass
from kapso_sync.errors import SourceMissing, UsageError
from kapso_sync.manifest import json_schema
from kapso_sync.manifest.id_registry import read_id_registry
from kapso_sync.manifest.layout import EMPTY_MANIFEST, SCHEMA_FILE, read_layout
from kapso_sync.model.functions import DeploymentStatus, RemoteFunction
from kapso_sync.model.pull import FileChange, PullPlan
from kapso_sync.model.source import DEFAULT_FOLDER, MANIFEST_NAMES, Revision, Snapshot, folder_digest
from kapso_sync.reconcile.pull import procedure
from kapso_sync.reconcile.pull.planner import PullOptions
from kapso_sync.reconcile.pull.proposal import Proposal
from kapso_sync.settings import Settings
from kapso_sync.sources.folder import FolderSource, read_json_files
from kapso_sync.sources.identity import find_origin, find_work_tree, owner_of_folder
from kapso_sync.sources.spec import SourceKind, SourceSpec
from kapso_sync.sources.writing import write_file
from kapso_sync.store.backups import Backup
from kapso_sync.store.builds import BuildFolder
from kapso_sync.store.database import read_state
from kapso_sync.telemetry.event_bus import EventBus
from kapso_sync.wiring.building import make_desired_builder
from kapso_sync.wiring.engine import open_api
from kapso_sync.wiring.folder import refuse_unverifiable, source_spec, state_folder


@dataclass(frozen=True, slots=True)
class FolderTarget:
    """The functions folder to write to, which may be missing, and its state folder."""

    spec: SourceSpec
    home: Path
    snapshot: Snapshot
    owner: str
    state: Path


async def plan_a_pull(settings: Settings, options: PullOptions, bus: EventBus) -> tuple[FolderTarget, PullPlan]:
    """Return the folder and the plan of a pull; writes nothing.

    Raises `UsageError` for a source that is not a folder, and what `procedure.pull` raises.
    """
    target = await open_folder_target(settings, bus)
    async with open_api(settings, bus) as api:
        plan = await procedure.pull(await _pull_deps(settings, target), api, options)
    return target, replace(plan, changes=with_schema(target.home, plan.changes), notices=(*settings.notices, *plan.notices))


async def plan_an_init(settings: Settings, bus: EventBus) -> tuple[FolderTarget, Proposal]:
    """Return the folder and a manifest for its code, matched with Kapso's functions if there is an API key; writes nothing.

    Raises `UsageError` for a source that is not a folder, and what `procedure.propose` raises.
    """
    target = await open_folder_target(settings, bus, may_be_missing=False)
    deps = await _pull_deps(settings, target)
    tree = find_work_tree(target.home)
    registries = await asyncio.to_thread(read_json_files, target.home, target.home if tree is None else tree.root)
    registered = [each for name, content in registries.items() for each in read_id_registry(name, content)]
    if not settings.has_key:
        return target, await procedure.propose(deps, None, registered)
    async with open_api(settings, bus) as api:
        return target, await procedure.propose(deps, api, registered)


async def plan_a_restore(settings: Settings, backup: Backup, bus: EventBus, *, force: bool) -> tuple[FolderTarget, PullPlan]:
    """Return the folder and the plan that restores a backup; writes nothing, makes no API call, raises like `plan_a_pull`."""
    target = await open_folder_target(settings, bus)
    deps = await _pull_deps(settings, target)
    records = deps.state.owned.values()
    known = next((record.function_id for record in records if record.slug == backup.slug), backup.function_id)
    status = DeploymentStatus.DEPLOYED if backup.deployed else DeploymentStatus.DRAFT
    remote = RemoteFunction(known, backup.slug, status, backup.code, backup.fields)
    plan = await procedure.restore(deps, remote, force=force)
    return target, replace(plan, changes=with_schema(target.home, plan.changes))


async def _pull_deps(settings: Settings, target: FolderTarget) -> procedure.PullDeps:
    clock = SystemClock()
    builds = BuildFolder(target.state, clock.now(), writes=False)
    return procedure.PullDeps(
        snapshot=target.snapshot,
        owner=target.owner,
        state=await asyncio.to_thread(read_state, target.state),
        build=make_desired_builder(settings, target.spec, builds),
        clock=clock,
        environment=settings.env,
    )


def write_files(home: Path, changes: Iterable[FileChange]) -> None:
    """Write the files of a plan below the functions folder ``home``; raises like `write_file`."""
    for change in changes:
        write_file(home, change)


def with_schema(home: Path, changes: Sequence[FileChange]) -> tuple[FileChange, ...]:
    """Return the changes with the schema that the first line of a new manifest names, unless there is a file of that name."""
    first_line = EMPTY_MANIFEST.partition("\n")[0].encode()
    new = any(each.path in MANIFEST_NAMES and each.old is None and each.new.startswith(first_line) for each in changes)
    if not new or os.path.lexists(home / SCHEMA_FILE):
        return tuple(changes)
    schema = FileChange(SCHEMA_FILE, None, f"{json.dumps(json_schema(), indent=2)}\n".encode())
    return (*changes[:-1], schema, changes[-1])  # the manifest comes last


async def open_folder_target(settings: Settings, bus: EventBus, *, may_be_missing: bool = True) -> FolderTarget:
    """Return the functions folder of the settings' source, read; raises `UsageError` for a repository.

    ``may_be_missing``: a folder that does not exist is one that is yet to be made, and so is the functions folder of a
    repository that has none; otherwise `SourceMissing` is raised, and the repository's root is read.
    """
    base_url = parse_base_url(settings.api_base_url, allow_http=settings.allow_http)
    spec = _folder_spec(settings)
    refuse_unverifiable(settings, spec)
    root = Path(spec.location)
    tree = find_work_tree(root)
    source = FolderSource(root, spec.path, top=tree.root if tree else None, emit=bus.emit)
    try:
        path = source.home()
        snapshot = await source.fetch()
    except SourceMissing:
        if not may_be_missing or not _yet_to_be_made(root, spec.path or ""):
            raise
        path, snapshot = _nothing(spec)
    else:
        whole_tree = not path and spec.path is None and tree is not None and tree.root == root
        if may_be_missing and whole_tree and read_layout(snapshot.files).empty:
            path, snapshot = _nothing(replace(spec, path=DEFAULT_FOLDER))
    origin = await find_origin(tree) if tree is not None and not settings.owner else None
    owner, _ = owner_of_folder(root, tree, origin, lambda: path, named=settings.owner, env=settings.env)
    return FolderTarget(spec, _real(root) / path, snapshot, owner, state_folder(settings, base_url, spec))


def _yet_to_be_made(root: Path, path: str) -> bool:
    """Return whether the functions folder is missing inside its source."""
    return not (root / path).exists() and _real(root / path).is_relative_to(_real(root))


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))


def _nothing(spec: SourceSpec) -> tuple[str, Snapshot]:
    path = spec.path or ""
    return path, Snapshot(spec.location, Revision(folder_digest({})), path)


def _folder_spec(settings: Settings) -> SourceSpec:
    text = settings.source or "."
    try:
        spec = source_spec(settings)
    except SourceMissing:
        if "://" in text:
            raise
        # A folder that is yet to be made.
        spec = SourceSpec(SourceKind.FOLDER, str(Path(Path.cwd(), text).absolute()), path=settings.path)
    if spec.kind is SourceKind.GIT:
        raise UsageError(
            f"{text} is a git repository, and files are written into a folder", hint="clone it, and name the clone"
        )
    return spec
