"""Parks functions under a third slug during a swap, since slugs are unique on Kapso."""

from __future__ import annotations

from dataclasses import replace

from kapso_sync.errors import ApiRejected, Call
from kapso_sync.model import events
from kapso_sync.model.functions import DESCRIPTION, SLUG, RemoteFunction
from kapso_sync.model.plan import SlugVacation
from kapso_sync.model.ports import FunctionsApi, Store
from kapso_sync.model.state import InventoryRecord
from kapso_sync.reconcile.apply.update import update_unchanged
from kapso_sync.reconcile.plan.observed import Observed, is_parked


class SlugParker:
    """Gives functions a parking slug. Raises `ApiError` and `StateUnusable`.

    A parked function carries the mark of the slug that it is going to get. If the process dies here, the next pass sees on
    Kapso where each function belongs, even without a state folder.
    """

    def __init__(self, api: FunctionsApi, store: Store, emit: events.Listener) -> None:
        self._api = api
        self._store = store
        self._emit = emit

    async def park(self, vacation: SlugVacation) -> RemoteFunction:
        """Give a function its parking slug, and return its record; the running code, id and secrets stay."""
        remote, last_applied = vacation.remote, vacation.last_applied
        payload = {SLUG: vacation.slug, DESCRIPTION: vacation.description}
        record = await update_unchanged(self._api, remote, payload)
        if record.slug != vacation.slug:
            restored = {DESCRIPTION: remote.description or ""}
            await update_unchanged(self._api, record, restored)
            if last_applied is not None:
                self._store.remember(replace(last_applied, refused_slug=vacation.target))
            raise ApiRejected(
                f"Kapso does not change the slug `{record.slug}`, which another function needs",
                call=Call("PATCH", "/functions/{id}"),
                hint="keep the slugs in git as they are, or rename the functions in Kapso's dashboard",
            )
        if last_applied is not None:
            applied = last_applied.applied
            if applied is not None and remote.mark is not None and applied == remote.mark.applied:
                # The mark says the same of the new slug, but not that this content runs under it.
                applied = replace(applied, running=False)
            self._store.remember(replace(last_applied, slug=vacation.slug, updated_at=record.updated_at, applied=applied))
        self._emit(events.SlugVacated(slug=vacation.frees, function_id=remote.id, became=vacation.slug, target=vacation.target))
        return record


def parked_records(observed: Observed) -> tuple[InventoryRecord, ...]:
    """Return the records of functions that were parked by a pass which died before it could record that."""
    owned = observed.state.owned
    waiting = [remote for remote in observed.functions if remote.id in owned and is_parked(remote)]
    return tuple(replace(owned[remote.id], slug=remote.slug) for remote in waiting if owned[remote.id].slug != remote.slug)
