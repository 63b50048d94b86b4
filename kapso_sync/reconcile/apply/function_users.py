"""Looks up who uses the functions that are to be deleted: workflows, Flows, webhooks, other functions, recent callers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace

from kapso_sync.errors import ApiError, ApiRateLimited, ApiUnauthorized
from kapso_sync.model.functions import RemoteFunction
from kapso_sync.model.plan import Delete
from kapso_sync.model.ports import FunctionsApi
from kapso_sync.model.users import FunctionUser
from kapso_sync.reconcile.plan.function_usage import FunctionUsage, functions_that_name, last_invoked, upcoming_users
from kapso_sync.reconcile.plan.observed import Observed

INVOCATIONS = 20
"""As many as Kapso lists in one answer."""


async def look_up_usage(
    api: FunctionsApi, observed: Observed, deletions: Sequence[Delete], idle: float, upcoming: Mapping[str, str]
) -> Mapping[str, FunctionUsage]:
    """Return what is known of each function that is to be deleted, by its id.

    ``idle`` is in seconds; with 0 no invocations are read. ``upcoming`` is the code that git wants, by slug: this pass deploys
    it, so a function that it names is used as well. A look-up that fails leaves `FunctionUsage.unknown`; a rejected key or a
    rate limit beyond our patience is raised.
    """
    if not deletions:
        return {}
    doomed = [step.remote for step in deletions]
    found, coded = await asyncio.gather(_users(api, doomed), _with_code(api, observed, doomed))
    usages = {}
    for remote in doomed:
        usage = found if isinstance(found, FunctionUsage) else FunctionUsage(users=found[remote.id])
        if isinstance(coded, FunctionUsage):
            usage = replace(usage, unknown=usage.unknown or coded.unknown)
        else:
            named = (*functions_that_name(remote, coded), *upcoming_users(remote, upcoming))
            usage = replace(usage, users=(*usage.users, *dict.fromkeys(named)))
        usages[remote.id] = usage
    if idle > 0:
        invoked = await asyncio.gather(*(_invoked(api, observed, remote, usages[remote.id]) for remote in doomed))
        usages = {remote.id: usage for remote, usage in zip(doomed, invoked, strict=True)}
    return usages


async def _users(api: FunctionsApi, doomed: Sequence[RemoteFunction]) -> Mapping[str, tuple[FunctionUser, ...]] | FunctionUsage:
    try:
        return await api.find_users(doomed)
    except (ApiUnauthorized, ApiRateLimited):
        raise
    except ApiError as error:
        return FunctionUsage(unknown=error.message)


async def _with_code(
    api: FunctionsApi, observed: Observed, doomed: Sequence[RemoteFunction]
) -> Sequence[RemoteFunction] | FunctionUsage:
    """Return the functions that stay, with their code; those that are deleted in the same pass use nothing any more."""
    leaving = {remote.id for remote in doomed}
    staying = [remote for remote in observed.functions if remote.id not in leaving]
    bare = [remote.id for remote in staying if remote.code is None]
    try:
        full = await asyncio.gather(*map(api.get_function, bare))
    except (ApiUnauthorized, ApiRateLimited):
        raise
    except ApiError as error:
        return FunctionUsage(unknown=f"the code of another function could not be read: {error.message}")
    return [*(remote for remote in staying if remote.code is not None), *full]


async def _invoked(api: FunctionsApi, observed: Observed, remote: RemoteFunction, usage: FunctionUsage) -> FunctionUsage:
    try:
        records = await api.list_invocations(remote.id, limit=INVOCATIONS)
    except (ApiUnauthorized, ApiRateLimited):
        raise
    except ApiError as error:
        return replace(usage, unknown=usage.unknown or f"its invocations could not be read: {error.message}")
    if any(record.created_at is None for record in records):
        return replace(usage, unknown=usage.unknown or "when it was invoked last is not known: an invocation has no time")
    return replace(usage, invoked_at=last_invoked(records, remote, observed.state.owned.get(remote.id)))
