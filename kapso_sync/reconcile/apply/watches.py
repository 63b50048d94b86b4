"""Begins and ends the watches of deployments; the daemon reads the invocations in between."""

from __future__ import annotations

import contextlib

from kapso_sync.errors import ApiError
from kapso_sync.model import events
from kapso_sync.model.clock import Clock
from kapso_sync.model.desired import WatchPolicy
from kapso_sync.model.functions import CODE, RemoteFunction, code_hash
from kapso_sync.model.plan import Modify, NoChange, Plan, Step, Write
from kapso_sync.model.ports import FunctionsApi, Store
from kapso_sync.model.state import DeploymentWatch, InventoryRecord
from kapso_sync.reconcile.plan.observed import Observed
from kapso_sync.reconcile.plan.watching import MAX_LISTED, opened, prepare, with_invocations, with_policy


class WatchKeeper:
    """Keeps the watches of one state folder in step with the deployments.

    ``edge`` is for how many seconds the version before a deployment may still answer; None: nothing is watched here, since no
    daemon would read the invocations.
    """

    def __init__(self, api: FunctionsApi, store: Store, clock: Clock, emit: events.Listener, edge: float | None) -> None:
        self._api = api
        self._store = store
        self._clock = clock
        self._emit = emit
        self._edge = edge

    async def prepare(self, step: Write, owned: InventoryRecord) -> None:
        """Read what the version before a deployment did, and journal that it is going to be watched.

        It is read now because on a busy function the newest 20 invocations would all be of the new version.
        """
        policy = step.desired.entry.watch
        if policy is None or self._edge is None:
            self.forget(owned.function_id)
            return
        before = step.remote if isinstance(step, Modify) else None
        watch = prepare(owned, policy, before, self._clock.now(), self._unproven(owned.function_id))
        if watch.before is None:
            # What cannot be read does not hold up a deployment, and a later look may reach back as far.
            with contextlib.suppress(ApiError):
                watch = with_invocations(watch, await self._api.list_invocations(owned.function_id, limit=MAX_LISTED))
        self._store.remember_watch(watch)

    def _unproven(self, function_id: str) -> DeploymentWatch | None:
        """Return the watch that ends now, unless what it watched is the only version to go back to."""
        watch, version = self._store.watch(function_id), self._store.version(function_id)
        return watch if watch is not None and version is not None and code_hash(version.code) != watch.code else None

    def begin(self, record: RemoteFunction, owned: InventoryRecord, elapsed: float) -> bool:
        """Open the watch of a deployment that is live and passed its checks; return whether there is one.

        ``record`` must have its code; ``elapsed`` is as in `opened`.
        """
        watch = self._store.watch(owned.function_id)
        if watch is None or self._edge is None or record.last_deployed_at is None or watch.code != owned.stored.get(CODE):
            return False
        if watch.since is not None and record.last_deployed_at <= watch.since:
            self.forget(owned.function_id)  # secrets were set without a deployment
            return False
        now, requests = self._clock.now(), owned.check_requests
        watch = opened(watch, record.last_deployed_at, requests, now=now, elapsed=elapsed, edge=self._edge)
        self._store.remember_watch(watch, record)
        until = now if watch.until is None else watch.until
        self._emit(
            events.WatchStarted(slug=watch.slug, function_id=watch.function_id, until=until.isoformat(timespec="seconds"))
        )
        return True

    async def settle(self, plan: Plan, observed: Observed) -> None:
        """End watches whose deployment does not run any more, and open those that a crash left unopened."""
        steps = {step.function_id: step for step in plan.steps if step.function_id is not None}
        for planned in observed.state.watches.values():
            watch = self._store.watch(planned.function_id)  # it may have been looked at since the state was loaded
            if watch is None:
                continue
            remote = observed.by_id.get(watch.function_id)
            step = steps.get(watch.function_id)
            if self._edge is None:
                self._end_left(watch)
            elif remote is None or step is None:
                continue  # this list does not say what became of it
            elif watch.deployed_at is None:
                await self._resume(watch, remote, step, observed.state.owned.get(remote.id))
            elif watch.deployed_at != remote.last_deployed_at:
                self.forget(watch.function_id)
            else:
                accepted = planned.finding is not None and isinstance(step, NoChange)
                self._settle_open(watch, step, plan.watched.get(step.slug), accepted=accepted)

    async def _resume(self, watch: DeploymentWatch, remote: RemoteFunction, step: Step, owned: InventoryRecord | None) -> None:
        """Open the watch of a deployment that ended while no process of ours was there to see it."""
        if not isinstance(step, NoChange) or owned is None or owned.live is None or owned.live.deployed_at is None:
            return
        if owned.live.deployed_at == remote.last_deployed_at and owned.live.content.get(CODE) == watch.code:
            try:
                whole = remote if remote.code is not None else await self._api.get_function(remote.id)
            except ApiError:
                return  # the next pass tries again
            self.begin(whole, owned, (self._clock.now() - watch.prepared_at).total_seconds())

    def _end_left(self, watch: DeploymentWatch) -> None:
        """End a watch that a daemon left and that is over; before that, a daemon may still come back and go on."""
        if watch.finding is None and watch.until is not None and watch.until <= self._clock.now():
            self._store.end_watch(watch.function_id, proven=True)

    def _settle_open(self, watch: DeploymentWatch, step: Step, policy: WatchPolicy | None, *, accepted: bool) -> None:
        """End a watch that git does not want any more, or whose failure a person ``accepted``; follow git's thresholds."""
        if accepted or (policy is None and isinstance(step, NoChange | Write)):
            self._store.end_watch(watch.function_id, proven=True)
        elif policy is not None and (changed := with_policy(watch, policy)) is not watch:
            self._store.remember_watch(changed)

    def forget(self, function_id: str) -> None:
        """End the watch of a version that does not run any more, or is rolled back; it has not stood it."""
        if self._store.watch(function_id) is not None:
            self._store.end_watch(function_id, proven=False)
