"""Resolves open intents by Kapso's list: the answer of each write was lost. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from kapso_sync.model.functions import CODE, EXACT_FIELDS, RUNTIME_CONTENT, Content, DeploymentStatus, RemoteFunction, agree
from kapso_sync.model.json_values import same_json
from kapso_sync.model.state import Intent, IntentKind, InventoryRecord, LiveContent, ReconcilerState
from kapso_sync.reconcile.plan.comparison import LIVE_SLACK, runtime_content
from kapso_sync.reconcile.plan.observed import Claim, Observed, stored_content

NOT_STORED: Content = {CODE: "unknown"}
"""Stands for the running content if it is only known to differ from the stored content."""


def resolve_intents(functions: Sequence[RemoteFunction], state: ReconcilerState, owner: str) -> Observed:
    """Return the observation, and the state with every open intent applied, dropped, or kept as uncertain.

    The process sent an update of `greet` and died before the answer. Kapso shows the sent code: it counts as applied, and the
    plan deploys it. Kapso shows the old code: the intent is dropped, and the plan updates `greet` again.

    A create or update that shows on Kapso becomes our last write; a deployment that ended becomes live. A deployment that was
    not seen to end stays open until a later one is confirmed: it may never have started, or may end at any time, with the
    content that was stored when it was requested. So may one that we requested and forgot, with our memory.
    """
    by_id = {function.id: function for function in functions}
    by_slug = {function.slug: function for function in functions}
    owned = dict(state.owned)
    deployments: dict[str, list[Intent]] = {}
    for intent in state.intents:
        remote = by_id.get(intent.function_id) if intent.function_id else by_slug.get(intent.slug)
        if remote is None:
            continue
        if intent.kind is IntentKind.DEPLOY:
            deployments.setdefault(remote.id, []).append(intent)
        elif _arrived(intent, remote, owner):
            owned[remote.id] = _written(intent, remote, owned.get(remote.id))
    uncertain: dict[str, tuple[Intent, ...]] = {}
    for function_id, intents in deployments.items():
        known, remote = owned.get(function_id), by_id[function_id]
        if known is not None and all(_deployed(intent, remote) for intent in intents):
            owned[function_id] = replace(known, live=LiveContent(intents[-1].content, remote.last_deployed_at), unproven=True)
        elif known is not None:
            uncertain[function_id] = tuple(intents)
    still_open = {intent.id for intents in uncertain.values() for intent in intents}
    settled = replace(state, owned=owned, intents=tuple(intent for intent in state.intents if intent.id in still_open))
    closed = tuple(intent.id for intent in state.intents if intent.id not in still_open)
    observed = Observed(tuple(functions), owner, settled, {}, closed)
    return replace(observed, uncertain={**_forgotten(observed), **uncertain})


def _forgotten(observed: Observed) -> Mapping[str, tuple[Intent, ...]]:
    """Return, by function id, the deployments that we may have requested before our memory was lost. They have no number.

    Our mark is on a draft that we know nothing of: a process of ours created it, and may have died while it was deployed. If
    git has other code by now, the end of that deployment must not be taken for the end of the next one.
    """
    unknown = [
        remote
        for remote in observed.functions
        if remote.mark is not None and remote.id not in observed.state.owned and not _runs(remote)
    ]
    return {
        remote.id: (
            Intent(
                IntentKind.DEPLOY,
                remote.slug,
                remote.id,
                wanted={},
                content=runtime_content(stored_content(remote), remote.slug),
                baseline=remote.last_deployed_at,
            ),
        )
        for remote in unknown
        if observed.claim(remote) is Claim.OURS
    }


def _runs(remote: RemoteFunction) -> bool:
    """Return whether Kapso's record says that what it stores was deployed."""
    if remote.status is not DeploymentStatus.DEPLOYED or None in (remote.updated_at, remote.last_deployed_at):
        return False
    return remote.updated_at - remote.last_deployed_at <= LIVE_SLACK  # type: ignore[operator]


def _deployed(intent: Intent, remote: RemoteFunction) -> bool:
    if remote.status is not DeploymentStatus.DEPLOYED or remote.last_deployed_at is None:
        return False
    moved = intent.baseline is None or remote.last_deployed_at > intent.baseline
    return moved and agree(intent.content, stored_content(remote), RUNTIME_CONTENT)


def _arrived(intent: Intent, remote: RemoteFunction, owner: str) -> bool:
    """Return whether the record shows what was sent, slug included; a record without code proves nothing.

    Fields that Kapso may refuse prove nothing either way: `_written` leaves those that differ to be written again.
    """
    mark = remote.mark
    if remote.slug != intent.slug or (mark is not None and mark.owner != owner):
        return False
    content = stored_content(remote)
    seen = CODE in content or CODE not in intent.content
    return seen and agree(intent.content, content, tuple(name for name in intent.content if name not in EXACT_FIELDS))


def _written(intent: Intent, remote: RemoteFunction, known: InventoryRecord | None) -> InventoryRecord:
    stored = {**(known.stored if known else {}), **stored_content(remote, known)}
    wanted = {
        name: value
        for name, value in intent.wanted.items()
        if name not in EXACT_FIELDS or (name in stored and same_json(stored[name], value))
    }
    written = (known or InventoryRecord.new(intent.slug, remote.id)).after_write(
        intent.slug, wanted=wanted, stored=stored, updated_at=remote.updated_at, protected=intent.protected
    )
    written = replace(written, applied=intent.applied or written.applied)
    touches_runtime = any(name in RUNTIME_CONTENT for name in intent.content)
    if touches_runtime and (written.live is None or written.live.deployed_at != intent.baseline):
        # The write needed a deployment, and the code that ran before it is not the code that we saw go live. So the running
        # content is unknown, but it is not the stored content.
        return replace(written, live=LiveContent(NOT_STORED, intent.baseline))
    return written
