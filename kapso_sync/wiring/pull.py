"""A pull, put together: the folder as it is, Kapso as it is, and the plan between them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from kapso_sync.api import parse_base_url
from kapso_sync.clock import SystemClock
from kapso_sync.errors import (
    ApiNotFound,
    ApiUnsupported,
    InvalidSource,
    KapsoSyncError,
    SourceMissing,
    UsageError,
)
from kapso_sync.manifest.layout import read_layout
from kapso_sync.model.desired import Desired, Notice
from kapso_sync.model.functions import DeploymentStatus, RemoteFunction, RemoteSecret
from kapso_sync.model.ports import FunctionsApi
from kapso_sync.model.pull import PullPlan
from kapso_sync.model.source import Revision, Snapshot, folder_digest
from kapso_sync.model.state import ReconcilerState
from kapso_sync.reconcile.desired import DesiredBuilder
from kapso_sync.reconcile.observe import observe, with_code
from kapso_sync.reconcile.plan.observed import Observed
from kapso_sync.reconcile.pull.planner import (
    PullInputs,
    PullOptions,
    candidates,
    compiled,
    plan_pull,
    plan_restore,
    verify,
    with_changes,
)
from kapso_sync.settings import Settings
from kapso_sync.sources import FolderSource, SourceKind, SourceSpec, find_work_tree
from kapso_sync.sources.file_rules import DEFAULT_FOLDER
from kapso_sync.sources.owner import owner_of_folder
from kapso_sync.store.backups import Backup
from kapso_sync.store.builds import BuildFolder
from kapso_sync.store.database import read_state
from kapso_sync.telemetry import EventBus
from kapso_sync.wiring.building import make_desired_builder
from kapso_sync.wiring.engine import open_api
from kapso_sync.wiring.source import source_spec, state_folder


@dataclass(frozen=True, slots=True)
class FolderTarget:
    """The functions folder that is written to, which need not be there yet, and the state folder that knows of it."""

    spec: SourceSpec
    home: Path
    snapshot: Snapshot
    owner: str
    state: Path


async def plan_a_pull(settings: Settings, wish: PullOptions, logging: EventBus) -> tuple[FolderTarget, PullPlan]:
    """Return the folder, and what a pull would write into it; writes nothing.

    Raises `UsageError` for a source that is no folder and for unknown slugs, `ManifestInvalid` for a manifest that is broken
    already, `ApiError`, and `KapsoSyncError` when what would be written could not be read again.
    """
    base_url = parse_base_url(settings.api_base_url, allow_http=settings.allow_http)
    shelf = await open_folder_target(settings, base_url, logging)
    memory = await asyncio.to_thread(read_state, shelf.state)
    desire = _make_desire(settings, shelf)
    async with open_api(settings, logging) as api:
        desired = await _desired(desire, shelf.snapshot)
        observed = await observe(api, memory, desired, shelf.owner, SystemClock().now())
        _check_slugs(wish, observed)
        sides = PullInputs(shelf.snapshot, desired, observed, shelf.owner, environment=settings.env)
        asked = candidates(sides, wish)
        observed = await with_code(api, observed, (remote.id for remote in asked))
        secrets, notices = await _secrets(api, asked)
    sides = replace(sides, observed=observed, secrets=secrets)
    plan = plan_pull(sides, wish)
    proof = await _proof(desire, shelf.snapshot, plan)
    modules = compiled(proof, observed) - desired.slugs
    if modules:
        plan = plan_pull(replace(sides, modules=modules), wish)
        proof = await _proof(desire, shelf.snapshot, plan)
    plan = verify(plan, proof, observed)
    return shelf, replace(plan, notices=(*settings.notices, *notices, *plan.notices))


async def plan_a_restore(
    settings: Settings, backup: Backup, logging: EventBus, *, force: bool
) -> tuple[FolderTarget, PullPlan]:
    """Return the folder, and what takes it back to a backup; writes nothing, asks Kapso nothing, raises like `plan_a_pull`."""
    base_url = parse_base_url(settings.api_base_url, allow_http=settings.allow_http)
    shelf = await open_folder_target(settings, base_url, logging)
    memory = await asyncio.to_thread(read_state, shelf.state)
    desire = _make_desire(settings, shelf)
    known = next((owned.function_id for owned in memory.owned.values() if owned.slug == backup.slug), backup.function_id)
    remote = RemoteFunction(known, backup.slug, DeploymentStatus.DEPLOYED, backup.code, backup.fields)
    observed = Observed((remote,), memory, {})
    sides = PullInputs(shelf.snapshot, await _desired(desire, shelf.snapshot), observed, shelf.owner, environment=settings.env)
    plan = plan_restore(sides, remote, force=force)
    return shelf, verify(plan, await _proof(desire, shelf.snapshot, plan), observed)


def _make_desire(settings: Settings, shelf: FolderTarget) -> DesiredBuilder:
    return make_desired_builder(settings, shelf.spec, BuildFolder(shelf.state, SystemClock().now(), writes=False))


async def _proof(desire: DesiredBuilder, snapshot: Snapshot, plan: PullPlan) -> Desired:
    """Return what the folder will say; what could not be read again is never written."""
    try:
        return await _desired(desire, with_changes(snapshot, plan))
    except InvalidSource as error:
        raise KapsoSyncError(
            f"nothing is written: the folder could not be read afterwards: {error.message}",
            hint="enter the function by hand; this is a mistake in kapso-sync",
        ) from error


async def _desired(desire: DesiredBuilder, snapshot: Snapshot) -> Desired:
    """Return what a folder says; one that says nothing yet is no mistake here."""
    if read_layout(snapshot.files).empty:
        return Desired(snapshot.source, snapshot.revision, ())
    return await desire(snapshot, ReconcilerState())


def _check_slugs(wish: PullOptions, observed: Observed) -> None:
    unknown = [slug for slug in wish.only if slug not in observed.by_slug]
    if unknown:
        known = ", ".join(sorted(observed.by_slug)[:20]) or "none at all"
        raise UsageError(f"not on Kapso: {', '.join(unknown)}", hint=f"functions there: {known}")


async def _secrets(
    api: FunctionsApi, functions: tuple[RemoteFunction, ...]
) -> tuple[Mapping[str, tuple[RemoteSecret, ...]], tuple[Notice, ...]]:
    """Return the secrets, names only, by function id; Kapso lists them for deployed functions only."""
    deployed = [remote.id for remote in functions if remote.status is not DeploymentStatus.DRAFT]
    lists = await asyncio.gather(*(_list_secrets(api, function_id) for function_id in deployed))
    told = {function_id: found for function_id, found in zip(deployed, lists, strict=True) if found is not None}
    text = "Kapso does not tell the names of secrets here: enter `secrets` by hand"
    return told, (Notice("no-secrets", text),) if len(told) < len(deployed) else ()


async def _list_secrets(api: FunctionsApi, function_id: str) -> tuple[RemoteSecret, ...] | None:
    try:
        return tuple(await api.list_secrets(function_id))
    except (ApiNotFound, ApiUnsupported):
        return None


async def open_folder_target(settings: Settings, base_url: str, logging: EventBus) -> FolderTarget:
    """Return the functions folder of the settings' source, read; raises `UsageError` for a repository."""
    spec = _folder_spec(settings)
    root = Path(spec.location)
    tree = find_work_tree(root)
    source = FolderSource(root, spec.path, top=tree.root if tree else None, emit=logging.emit)
    try:
        path = source.home()
        snapshot = await source.fetch()
    except SourceMissing:
        if not _yet_to_be_made(root, spec.path or ""):
            raise
        path, snapshot = _nothing(spec)
    else:
        if not path and spec.path is None and tree is not None and tree.root == root and read_layout(snapshot.files).empty:
            path, snapshot = _nothing(replace(spec, path=DEFAULT_FOLDER))
    owner, _ = owner_of_folder(root, tree, lambda: path, named=settings.owner, env=settings.env)
    return FolderTarget(spec, _real(root) / path, snapshot, owner, state_folder(settings, base_url, spec))


def _yet_to_be_made(root: Path, path: str) -> bool:
    """Tell whether there is nothing at the functions folder's place, inside its source."""
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
        raise UsageError(f"a pull writes into a folder, and {text} is a git repository", hint="clone it, and name the clone")
    return spec
