"""Learns from the first create which project the key opens, if no listed record shows it."""

from __future__ import annotations

from kapso_sync.errors import StateForeign
from kapso_sync.model.functions import RemoteFunction
from kapso_sync.model.plan import Plan
from kapso_sync.model.ports import FunctionsApi
from kapso_sync.reconcile.plan.observed import Observed
from kapso_sync.reconcile.plan.project import require_same_project


class UnseenProject:
    """The project of an empty list. While it is ``unseen``, one function is created at a time, and nothing else is written.

    The list of an empty project does not show its id; the answer to a create does. It is seen from the start if the list has
    records, or if neither the repository nor the state folder names a project that it could be compared with.
    """

    def __init__(self, api: FunctionsApi, plan: Plan, observed: Observed) -> None:
        self._api = api
        self._named = plan.named_project
        self._state = observed.state
        self.unseen = not observed.functions and (self._named is not None or self._state.project_id is not None)

    async def require(self, created: RemoteFunction) -> None:
        """Raise `StateForeign` if a function was just created in another project; raises `ApiError`."""
        if not self.unseen:
            return
        shown = created if created.project_id is not None else await self._api.get_function(created.id)
        self.unseen = False
        try:
            require_same_project((shown,), self._state, self._named)
        except StateForeign as error:
            raise StateForeign(
                f"{error.message}; its list was empty, so only the creation of `{created.slug}` ({created.id}) showed it",
                hint=f"delete `{created.slug}` there in Kapso's dashboard, then {error.hint}",
            ) from None
