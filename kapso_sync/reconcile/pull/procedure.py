"""One pull or restore: read the folder, observe Kapso, plan the files, and check that the folder will read back as planned.

It writes nothing: `cli.pull` writes the files of the plan that it returns. `planner` beside it decides, `folder_editor` edits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace

from kapso_sync.errors import ApiNotFound, ApiUnsupported, InvalidSource, KapsoSyncError, UsageError
from kapso_sync.manifest.layout import read_layout
from kapso_sync.model.clock import Clock
from kapso_sync.model.desired import Desired, Notice
from kapso_sync.model.functions import DeploymentStatus, RemoteFunction, RemoteSecret
from kapso_sync.model.ports import FunctionsApi
from kapso_sync.model.pull import PullPlan
from kapso_sync.model.source import Snapshot
from kapso_sync.model.state import ReconcilerState
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
    return replace(plan, notices=(*notices, *plan.notices))


async def restore(deps: PullDeps, remote: RemoteFunction, *, force: bool) -> PullPlan:
    """Return the plan that restores a version of a function in the folder; raises like `pull`, and makes no API call."""
    observed = Observed((remote,), deps.owner, deps.state, {})
    inputs = PullInputs(deps.snapshot, await _desired(deps, deps.snapshot), observed, environment=deps.environment)
    plan = plan_restore(inputs, remote, force=force)
    return verify(plan, await _desired_after(deps, plan), observed)


async def _desired(deps: PullDeps, snapshot: Snapshot) -> Desired:
    """Return the desired state of a folder; an empty folder is allowed here."""
    if read_layout(snapshot.files).empty:
        return Desired(snapshot.source, snapshot.revision, ())
    return await deps.build(snapshot, ReconcilerState())


async def _desired_after(deps: PullDeps, plan: PullPlan) -> Desired:
    """Return the desired state of the folder after the pull; a folder that could not be read again is never written."""
    try:
        return await _desired(deps, with_changes(deps.snapshot, plan))
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
