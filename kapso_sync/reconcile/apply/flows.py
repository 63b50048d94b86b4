"""Makes a function the data endpoint of the WhatsApp Flow that git names, once it runs and its checks have passed.

Kapso can attach a function and never detach it, so nothing here takes an attachment back.
"""

from __future__ import annotations

from dataclasses import replace

from kapso_sync.errors import ApiNotFound, Call
from kapso_sync.model import events
from kapso_sync.model.plan import Write
from kapso_sync.model.ports import FunctionsApi, Store
from kapso_sync.reconcile.apply.writer import Written

_ATTACH = Call("PATCH", "/whatsapp/flows/{id}/data_endpoint")
REPUBLISH_HINT = "publish the Flow once more in Kapso's dashboard; the function is attached"
NO_FLOW_HINT = "correct `whatsapp_flow` in git: Kapso's dashboard shows the ids of the project's Flows"


class FlowAttacher:
    """Attaches functions to WhatsApp Flows, and remembers to which."""

    def __init__(self, api: FunctionsApi, store: Store, emit: events.Listener) -> None:
        self._api = api
        self._store = store
        self._emit = emit

    async def attach(self, step: Write, written: Written) -> None:
        """Attach the function if the step says so, and the Flow has another one; raises `ApiError` and `StateUnusable`.

        The Flow is read first, because each attachment publishes the Flow once more. So nothing is written after a lost state
        folder, and if the process dies behind the write, the next pass finds the function attached, and remembers it.
        """
        flow_id = step.attach_to
        if flow_id is None:
            return
        function_id = written.record.id
        flow = await self._api.find_flow(flow_id)
        if flow is None:
            raise ApiNotFound(f"there is no WhatsApp Flow {flow_id} in this project", call=_ATTACH, hint=NO_FLOW_HINT)
        if flow.function_id != function_id:
            warning = await self._api.attach_flow(flow_id, function_id)
            attached = events.FlowAttached(slug=step.slug, function_id=function_id, flow=flow_id, previous=flow.function_id)
            self._emit(attached)
            if warning is not None:
                self._emit(
                    events.FlowNotRepublished(
                        slug=step.slug, function_id=function_id, flow=flow_id, warning=warning, hint=REPUBLISH_HINT
                    )
                )
        self._store.remember(replace(written.owned, unproven=False, whatsapp_flow=flow_id))
