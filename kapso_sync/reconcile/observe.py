"""Read the current state of Kapso: one list call, and single records only if the list has no code."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Self

from kapso_sync.dataclass import dataclass
from kapso_sync.errors import ApiNotFound, ApiUnsupported
from kapso_sync.model import events
from kapso_sync.model.clock import Clock
from kapso_sync.model.desired import Desired
from kapso_sync.model.functions import CODE, DeploymentStatus, FunctionList, RemoteFunction
from kapso_sync.model.plan import Modify, Plan
from kapso_sync.model.ports import FunctionsApi
from kapso_sync.model.state import ReconcilerState
from kapso_sync.reconcile.plan.intents import resolve_intents
from kapso_sync.reconcile.plan.observed import Observed
from kapso_sync.reconcile.plan.project import require_not_emptied, require_same_project
from kapso_sync.reconcile.plan.renames import resolve_renames, with_slugs_of_others
from kapso_sync.reconcile.plan.secrets import SecretListing, listing_from, listing_needed

MAX_LIST_AGE = 30.0
"""Seconds after which a list that was read ahead is read again: somebody may have changed a function since."""


@dataclass(frozen=True, slots=True)
class EarlierList:
    """What was asked of Kapso before a pass, to learn that it is due: the events of it, and the list, if there is one.

    ``read_at`` is a time of the monotonic clock. ``is_current`` returns whether nobody has written to the state since: a list
    from before would lack what the state has.
    """

    happened: tuple[events.Event, ...] = ()
    functions: FunctionList | None = None
    read_at: float = 0.0
    is_current: Callable[[], bool] = lambda: False

    @property
    def calls(self) -> int:
        """The number of calls."""
        return events.count_calls(self.happened)


class ListAhead:
    """Kapso's list, which is read while git transfers a revision, or while its code is built: neither waits for the other.

    ``earlier`` may have it already. What was read ahead and not taken is dropped at the end of the block.
    """

    def __init__(self, api: FunctionsApi, clock: Clock, earlier: EarlierList) -> None:
        self._api = api
        self._clock = clock
        self._earlier = earlier
        self._reading: asyncio.Task[FunctionList] | None = None
        self._read_at = 0.0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)

    def begin(self) -> None:
        """Start to read the list, unless it is being read already, or there may be an earlier one."""
        if self._reading is None and self._earlier.functions is None:
            self._reading = asyncio.create_task(self._read(), name="list-ahead")

    async def _read(self) -> FunctionList:
        found = await self._api.list_records()
        self._read_at = self._clock.monotonic()
        return found

    async def take(self) -> FunctionList:
        """Return the list, read earlier, ahead or now; it follows the state, which is loaded already. Raises `ApiError`."""
        found, read_at = None, 0.0
        if self._reading is not None:
            found, read_at = await self._reading, self._read_at
        elif self._earlier.is_current():
            found, read_at = self._earlier.functions, self._earlier.read_at
        if found is None or self._clock.monotonic() - read_at > MAX_LIST_AGE:
            return await self._api.list_records()
        return found


async def observe(  # noqa: PLR0913 - what a pass has at hand
    api: FunctionsApi,
    state: ReconcilerState,
    desired: Desired,
    owner: str,
    now: datetime,
    *,
    ahead: ListAhead | None = None,
    allow_recreate: bool = False,
) -> Observed:
    """Return the functions on Kapso, with open intents resolved.

    ``ahead`` may have the list already. ``now`` is the time of the observation. Raises `ApiError` when the list cannot be read.
    Raises `StateForeign` when the API key opens another project than that of the state folder or of the repository, or opens an
    empty project although we own functions; ``allow_recreate`` accepts the empty project.
    """
    listed = await (api.list_records() if ahead is None else ahead.take())
    functions = listed.functions
    require_same_project(functions, state, desired.project_id)
    if not (functions or listed.garbled or allow_recreate):
        require_not_emptied(state)
    bare = [remote for remote in functions if remote.code is None]
    if bare:
        wanted = {function.slug: str(function.content[CODE]) for function in desired.functions}
        bare = [remote for remote in bare if _code_needed(remote, state, wanted)]
        full = {remote.id: remote for remote in await asyncio.gather(*(api.get_function(remote.id) for remote in bare))}
        functions = tuple(full.get(remote.id, remote) for remote in functions)
    observed = with_slugs_of_others(desired, resolve_intents(functions, state, owner))
    if listed.garbled or listed.digest:
        observed = replace(observed, garbled=listed.garbled, digest="" if bare else listed.digest)
    await asyncio.sleep(0)  # what follows takes some milliseconds for a thousand functions, as what is above does
    secrets = await _secrets(api, observed, desired, now)
    return observed.with_secrets(secrets)


async def _secrets(api: FunctionsApi, observed: Observed, desired: Desired, now: datetime) -> Mapping[str, SecretListing]:
    """Return the names of secrets for each function where they are needed, by function id.

    A function that is going to be renamed is looked up under its new slug.
    """
    moving = resolve_renames(desired, observed).sources
    await asyncio.sleep(0)
    found = {want.slug: moving.get(want.slug) or observed.find(want.slug) for want in desired.functions}
    asked = [
        remote.id
        for want in desired.functions
        if (remote := found[want.slug]) is not None and listing_needed(want, remote, observed.state.owned.get(remote.id), now)
    ]
    listings = await asyncio.gather(*(_names(api, function_id, now) for function_id in asked))
    return dict(zip(asked, listings, strict=True))


async def list_secrets_before(api: FunctionsApi, observed: Observed, plan: Plan, now: datetime) -> Observed:
    """Return the observation with the secret names of every running function that the plan deploys.

    A deployment may lose secrets, so their names must be known before it. Kapso is not asked if the names are known already. It
    is not asked about a function that does not run either: an empty answer proves nothing.
    """
    asked = [
        step.remote.id
        for step in plan.changes
        if isinstance(step, Modify)
        and step.deploys
        and step.remote.status is DeploymentStatus.DEPLOYED
        and step.remote.id not in observed.secrets
    ]
    listings = await asyncio.gather(*(_names(api, function_id, now) for function_id in asked))
    known = {found: listing for found, listing in zip(asked, listings, strict=True) if listing.supported}
    return observed.with_secrets({**observed.secrets, **known})


async def _names(api: FunctionsApi, function_id: str, now: datetime) -> SecretListing:
    try:
        return listing_from(await api.list_secrets(function_id), now)
    except (ApiNotFound, ApiUnsupported):
        return SecretListing(frozenset(), now, supported=False)


async def observe_owned(api: FunctionsApi, state: ReconcilerState, owner: str) -> tuple[RemoteFunction, ...]:
    """Return the functions on Kapso that we own, by slug.

    Raises `ApiError` when the list cannot be read, and `StateForeign` when the API key opens another project.
    """
    functions = await api.list_functions()
    require_same_project(functions, state, None)
    return tuple(sorted(resolve_intents(functions, state, owner).ours, key=lambda remote: remote.slug))


async def with_code(api: FunctionsApi, observed: Observed, ids: Iterable[str]) -> Observed:
    """Return the observation with the code of these functions, if the list came without it; raises `ApiError`."""
    bare = [function_id for function_id in ids if observed.by_id[function_id].code is None]
    full = {remote.id: remote for remote in await asyncio.gather(*map(api.get_function, bare))}
    return replace(observed, functions=tuple(full.get(remote.id, remote) for remote in observed.functions))


def _code_needed(remote: RemoteFunction, state: ReconcilerState, wanted: Mapping[str, str]) -> bool:
    owned = state.owned.get(remote.id)
    if owned is None:
        return remote.slug in wanted or remote.mark is not None
    moved = remote.updated_at is None or remote.updated_at != owned.updated_at
    if remote.mark is not None and remote.mark.applied is not None and owned.applied != remote.mark.applied:
        return True
    return moved or wanted.get(owned.slug) != owned.wanted.get(CODE)
