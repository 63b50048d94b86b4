"""Reads the users of functions to delete: workflows, Flows, webhooks, other functions, and recent invocations."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace

from kapso_sync.errors import ApiError, ApiRateLimited, ApiUnauthorized, UsersUnknown
from kapso_sync.model.functions import RemoteFunction
from kapso_sync.model.plan import Delete
from kapso_sync.model.ports import FunctionsApi
from kapso_sync.model.users import FoundUsers
from kapso_sync.reconcile.plan.function_usage import FunctionUsage, functions_that_name, last_invoked, upcoming_users
from kapso_sync.reconcile.plan.observed import Observed

_GARBLED = "another function's record on Kapso is garbled, so its code could not be read"

INVOCATIONS = 20
"""Maximum number of invocations that Kapso lists in one answer."""


async def look_up_usage(
    api: FunctionsApi,
    observed: Observed,
    deletions: Sequence[Delete],
    idle: float,
    upcoming: Mapping[str, str],
    later: Sequence[Delete] = (),
) -> Mapping[str, FunctionUsage]:
    """Return the known use of each function to delete, by its id.

    ``idle`` is in seconds; with 0 no invocations are read. ``upcoming`` is the code that git wants, by slug: this pass deploys
    it, so it counts as a user as well. ``later`` are deletions that follow these; their code does not count. A failed call is
    reported in `FunctionUsage.unknown`; a rejected key or an exhausted rate limit is raised.
    """
    if not deletions:
        return {}
    doomed = [step.remote for step in deletions]
    leaving = {step.remote.id for step in (*deletions, *later)}
    staying = [remote for remote in observed.functions if remote.id not in leaving]
    found, coded = await asyncio.gather(_users(api, doomed), _with_code(api, staying))
    usages = {}
    for remote in doomed:
        unknown = None if found.unknown is None else found.unknown.message
        usage = FunctionUsage(users=found.users.get(remote.id, ()), unknown=unknown)
        if isinstance(coded, FunctionUsage):
            usage = replace(usage, unknown=usage.unknown or coded.unknown)
        else:
            named = (*functions_that_name(remote, coded), *upcoming_users(remote, upcoming))
            usage = replace(usage, users=(*usage.users, *dict.fromkeys(named)))
        if observed.garbled:
            usage = replace(usage, unknown=usage.unknown or _GARBLED)
        usages[remote.id] = usage
    if idle > 0:
        invoked = await asyncio.gather(*(_invoked(api, observed, remote, usages[remote.id]) for remote in doomed))
        usages = {remote.id: usage for remote, usage in zip(doomed, invoked, strict=True)}
    return usages


async def _users(api: FunctionsApi, doomed: Sequence[RemoteFunction]) -> FoundUsers:
    try:
        return await api.find_users(doomed)
    except (ApiUnauthorized, ApiRateLimited):
        raise
    except ApiError as error:
        return FoundUsers({}, UsersUnknown(error.message, call=error.call, status=error.status, hint=error.hint))


async def deletion_rounds(api: FunctionsApi, deletions: Sequence[Delete]) -> Sequence[Sequence[Delete]]:
    """Return the deletions in rounds: a function comes after its users, so that it stays if one of them has to stay.

    `b` calls `a`, and both left git: `b` goes first. If that fails, `b` still runs, and `a` is not deleted. Functions that
    call each other go one by one. If a code cannot be read, each deletion is a round of its own.
    """
    if len(deletions) == 1:
        return [deletions]
    coded = await _with_code(api, [step.remote for step in deletions])
    if isinstance(coded, FunctionUsage):
        return [[step] for step in deletions]
    rounds, left = [], list(deletions)
    while left:
        ids = {step.remote.id for step in left}
        users = [remote for remote in coded if remote.id in ids]
        unused = [step for step in left if not functions_that_name(step.remote, users)] or left[:1]
        rounds.append(unused)
        left = [step for step in left if step not in unused]
    return rounds


async def _with_code(api: FunctionsApi, functions: Sequence[RemoteFunction]) -> Sequence[RemoteFunction] | FunctionUsage:
    """Return the functions with their code, or the reason why it is unknown."""
    bare = [remote.id for remote in functions if remote.code is None]
    try:
        full = await asyncio.gather(*map(api.get_function, bare))
    except (ApiUnauthorized, ApiRateLimited):
        raise
    except ApiError as error:
        return FunctionUsage(unknown=f"the code of another function could not be read: {error.message}")
    return [*(remote for remote in functions if remote.code is not None), *full]


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
