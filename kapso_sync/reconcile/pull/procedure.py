"""One pull, restore or proposal: read the folder, observe Kapso, plan the files, and check that they will read back as planned.

It writes nothing: `cli.pull` and `cli.init` write the files of the plans that it returns. `planner` and `proposal` beside it
decide, `folder_editor` edits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace

from kapso_sync.build.graph import Graph
from kapso_sync.build.shapes import Shapes
from kapso_sync.dataclass import dataclass
from kapso_sync.errors import ApiNotFound, ApiUnsupported, EmptySource, InvalidSource, KapsoSyncError, Notice, UsageError
from kapso_sync.manifest.id_registry import RegisteredFunction
from kapso_sync.manifest.layout import read_layout
from kapso_sync.manifest.reader import looks_like_a_function
from kapso_sync.model.clock import Clock
from kapso_sync.model.desired import Desired, DesiredFunction
from kapso_sync.model.functions import DeploymentStatus, RemoteFunction, RemoteSecret
from kapso_sync.model.ports import FunctionsApi
from kapso_sync.model.pull import MappedFunction, PullPlan, Taken, files_of
from kapso_sync.model.source import DEFAULT_FOLDER, FUNCTION_FILE, MANIFEST_NAMES, Snapshot
from kapso_sync.model.state import ReconcilerState
from kapso_sync.reconcile.observe import observe, with_code
from kapso_sync.reconcile.plan.comparison import compare
from kapso_sync.reconcile.plan.observed import Claim, Observed
from kapso_sync.reconcile.plan.project import require_same_project
from kapso_sync.reconcile.plan.warnings import garbled_notices
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
from kapso_sync.reconcile.pull.proposal import CodeFile, Proposal
from kapso_sync.reconcile.pull.proposal import propose as propose_manifest


@dataclass(frozen=True, slots=True)
class PullDeps:
    """The inputs of a pull: the folder, the owner of its functions, our state, and the builder of a snapshot."""

    snapshot: Snapshot
    owner: str
    state: ReconcilerState
    build: Callable[[Snapshot, ReconcilerState], Awaitable[Desired]]
    clock: Clock
    environment: str | None = None


async def pull(deps: PullDeps, api: FunctionsApi, options: PullOptions) -> PullPlan:
    """Return what a pull would write into the folder.

    Raises `UsageError` for unknown slugs, `ManifestInvalid` for a manifest that is broken already, `ApiError`, and
    `KapsoSyncError` if the folder could not be read afterwards.
    """
    desired = await _desired(deps, deps.snapshot)
    observed = await observe(api, deps.state, desired, deps.owner, deps.clock.now())
    _check_slugs(options, observed)
    inputs = PullInputs(deps.snapshot, desired, observed, environment=deps.environment)
    chosen = candidates(inputs, options)
    observed = await with_code(api, observed, (remote.id for remote in chosen))
    secrets, notices = await _list_secrets_of(api, chosen)
    inputs = replace(inputs, observed=observed, secrets=secrets)
    plan = plan_pull(inputs, options)
    after = await _desired_after(deps, plan)
    modules = compiled(after, observed) - desired.slugs
    if modules:
        plan = plan_pull(replace(inputs, modules=modules), options)
        after = await _desired_after(deps, plan)
    plan = verify(plan, after, observed)
    mapped = _map(plan, after, observed, with_changes(deps.snapshot, plan.changes), everything=options.everything)
    return replace(plan, notices=(*garbled_notices(observed), *notices, *plan.notices), mapped=mapped)


def _map(
    plan: PullPlan, after: Desired, observed: Observed, snapshot: Snapshot, *, everything: bool
) -> tuple[MappedFunction, ...]:
    """Return the functions that the folder has as Kapso has them once the plan's files are written.

    What git lists was compared with Kapso only if ``everything`` is rewritten.
    """
    code = {function.slug: function.entry.file for function in after.functions}
    known = (Taken.NEW, Taken.CHANGED, *([Taken.SAME] if everything else []))
    return tuple(
        MappedFunction(observed.by_id[pulled.function_id], files_of(code[pulled.slug], snapshot.files))
        for pulled in plan.functions
        if pulled.taken in known and not pulled.incomplete and pulled.slug in code
    )


async def restore(deps: PullDeps, remote: RemoteFunction, *, force: bool) -> PullPlan:
    """Return the plan that restores a version of a function in the folder; raises like `pull`, and makes no API call."""
    observed = Observed((remote,), deps.owner, deps.state, {})
    inputs = PullInputs(deps.snapshot, await _desired(deps, deps.snapshot), observed, environment=deps.environment)
    plan = plan_restore(inputs, remote, force=force)
    return verify(plan, await _desired_after(deps, plan), observed)


async def propose(deps: PullDeps, api: FunctionsApi | None, registered: Sequence[RegisteredFunction] = ()) -> Proposal:
    """Return a manifest for a folder that has code and none; ``api`` None matches it with nothing.

    ``registered`` are the functions whose ids a deploy script has noted. Raises `UsageError` if there is a manifest, or
    if the folder is that of one function of the Kapso CLI, `EmptySource` if there is no code, and `ApiError`.
    """
    layout = read_layout(deps.snapshot.files)
    if layout.manifest is not None:
        raise UsageError(f"{layout.manifest} is there already", hint="a proposal never changes a manifest that exists")
    inner = next((name for name in MANIFEST_NAMES if f"{DEFAULT_FOLDER}/{name}" in deps.snapshot.files), None)
    if inner is not None:
        raise UsageError(f"{DEFAULT_FOLDER}/{inner} is there already", hint=f"name the folder {DEFAULT_FOLDER} as the source")
    if FUNCTION_FILE in deps.snapshot.files:
        raise UsageError(
            f"{FUNCTION_FILE} is there: this is the folder of one function of the Kapso CLI",
            hint="name the folder above it as the source",
        )
    code = await _read_code(deps.snapshot)
    functions = await api.list_functions() if api is not None else None
    proposal = propose_manifest(code, frozenset(layout.folders), functions, registered)
    if proposal.change is None and not layout.folders:
        raise _no_function(deps.snapshot, proposal)
    desired = await _desired(deps, with_changes(deps.snapshot, () if proposal.change is None else (proposal.change,)))
    faults = {function.slug: f"kapso-sync will not deploy this code: {function.problems[0]}" for function in desired.unusable}
    compared: Mapping[str, str] = {}
    if api is not None and functions is not None:
        require_same_project(functions, deps.state, desired.project_id)
        named = [remote.id for remote in functions if remote.slug in desired.slugs]
        observed = await with_code(api, Observed(functions, deps.owner, deps.state, {}), named)
        compared = _compare_with_kapso(desired, observed)
        proposal = replace(proposal, elsewhere=tuple(sorted(observed.by_slug.keys() - desired.slugs)))
    found = {function.slug: function for function in proposal.functions}
    return replace(
        proposal,
        functions=tuple(
            replace(function, remarks=(*function.remarks, *(said[slug] for said in (compared, faults) if slug in said)))
            for slug, function in found.items()
        ),
    )


def _compare_with_kapso(desired: Desired, observed: Observed) -> Mapping[str, str]:
    """Return, by slug, what there is on Kapso for each usable function, and what a sync makes of it."""

    def told(function: DesiredFunction) -> str:
        remote = observed.by_slug.get(function.slug)
        if remote is None:
            return "not on Kapso: a sync creates it"
        if observed.claim(remote) is Claim.FOREIGN:
            return f"on Kapso, and owned by {observed.other_owner(remote)}"
        differing = compare(function.content, observed.content(remote), None).fields
        if differing and observed.claim(remote) is Claim.OURS:
            return f"on Kapso and ours, with other {' and '.join(differing)}: a sync overwrites it, after a backup"
        if differing:
            return f"on Kapso, with other {' and '.join(differing)}: a plan shows the difference, and a sync waits for you"
        return "on Kapso, the same: a sync adopts it"

    return {function.slug: told(function) for function in desired.functions}


def _no_function(snapshot: Snapshot, proposal: Proposal) -> EmptySource:
    where, files = snapshot.path or snapshot.source, list(proposal.left_out.items())
    if not files:
        return EmptySource(
            f"{where} has no code", hint="name a folder with `.js` or `.ts` files; `kapso-sync pull` writes what Kapso has"
        )
    more = f", and {len(files) - 1} more" if len(files) > 1 else ""
    return EmptySource(
        f"{where} has no function: {files[0][0]} is left out: {files[0][1]}{more}",
        hint="a function declares `async function handler(request, env)`, or exports it as default; name the folder of yours",
    )


async def _read_code(snapshot: Snapshot) -> tuple[CodeFile, ...]:
    """Return every code file outside folders of the Kapso CLI, with the files that import it."""
    cli_folders = {path.partition("/")[0] for path in snapshot.files if path.partition("/")[2] == FUNCTION_FILE}
    shapes = Shapes()
    graph = Graph(snapshot.files, shapes, None, snapshot.above)
    contents: dict[str, bytes] = {}
    importers: dict[str, list[str]] = {}
    for path, file in sorted(snapshot.files.items()):
        if looks_like_a_function(path) and file.content is not None:
            for target in (await graph.links(path)).files:
                importers.setdefault(target, []).append(path)
            if path.partition("/")[0] not in cli_folders:
                contents[path] = file.content
    return tuple(
        [CodeFile(path, await shapes.read(path, content), tuple(importers.get(path, ()))) for path, content in contents.items()]
    )


async def _desired(deps: PullDeps, snapshot: Snapshot) -> Desired:
    """Return the desired state of a folder; an empty folder is allowed here."""
    if read_layout(snapshot.files).empty:
        return Desired(snapshot.source, snapshot.revision, ())
    return await deps.build(snapshot, ReconcilerState())


async def _desired_after(deps: PullDeps, plan: PullPlan) -> Desired:
    """Return the desired state of the folder after the pull; a folder that could not be read again is never written."""
    try:
        return await _desired(deps, with_changes(deps.snapshot, plan.changes))
    except InvalidSource as error:
        raise KapsoSyncError(
            f"nothing is written: the folder could not be read afterwards: {error.message}",
            hint="enter the function by hand; this is a mistake in kapso-sync",
        ) from error


def _check_slugs(options: PullOptions, observed: Observed) -> None:
    unknown = [slug for slug in options.only if slug not in observed.by_slug]
    if unknown:
        known = ", ".join(sorted(observed.by_slug)[:20]) or "none at all"
        raise UsageError(f"not on Kapso: {', '.join(unknown)}", hint=f"functions there: {known}")


async def _list_secrets_of(
    api: FunctionsApi, functions: tuple[RemoteFunction, ...]
) -> tuple[Mapping[str, tuple[RemoteSecret, ...]], tuple[Notice, ...]]:
    """Return the secrets, names only, by function id; Kapso lists them for deployed functions only."""
    deployed = [remote.id for remote in functions if remote.status is not DeploymentStatus.DRAFT]
    lists = await asyncio.gather(*(_list_secrets(api, function_id) for function_id in deployed))
    found = {function_id: listed for function_id, listed in zip(deployed, lists, strict=True) if listed is not None}
    text = "Kapso does not list the names of secrets here: enter `secrets` by hand"
    return found, (Notice("no-secrets", text),) if len(found) < len(deployed) else ()


async def _list_secrets(api: FunctionsApi, function_id: str) -> tuple[RemoteSecret, ...] | None:
    try:
        return tuple(await api.list_secrets(function_id))
    except (ApiNotFound, ApiUnsupported):
        return None
