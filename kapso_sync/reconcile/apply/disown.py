"""Takes our marks off functions, and forgets them: the way out. `cli.disown` runs it through a session."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from kapso_sync.dataclass import dataclass
from kapso_sync.errors import ApiError, ApiNotFound
from kapso_sync.model import events
from kapso_sync.model.functions import DESCRIPTION, RemoteFunction
from kapso_sync.model.ports import FunctionsApi, Store
from kapso_sync.reconcile.apply.update import update_unchanged


@dataclass(frozen=True, slots=True)
class Disowned:
    """The result for one function; ``error`` is None if it is unowned now."""

    slug: str
    function_id: str
    error: str | None = None


async def disown(
    api: FunctionsApi, store: Store, emit: events.Listener, functions: Iterable[RemoteFunction]
) -> tuple[Disowned, ...]:
    """Make functions unowned: write their descriptions without any mark of ours, and change nothing else.

    Each is forgotten once its mark is gone, so that a run that was interrupted is finished by the next one. The failure of one
    does not stop the others. Raises `StateUnusable`.
    """
    results = []
    for remote in functions:
        try:
            if remote.mark is not None:
                await _remove_mark(api, remote)
        except ApiError as error:
            results.append(Disowned(remote.slug, remote.id, error.message))
            continue
        store.forget(remote.id)
        emit(events.FunctionDisowned(slug=remote.slug, function_id=remote.id))
        results.append(Disowned(remote.slug, remote.id))
    return tuple(results)


async def _remove_mark(api: FunctionsApi, remote: RemoteFunction) -> None:
    with contextlib.suppress(ApiNotFound):  # then the function is gone, and its mark with it
        await update_unchanged(api, remote, {DESCRIPTION: remote.text or None})
