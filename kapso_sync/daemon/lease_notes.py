"""What replicas write for each other into the Lease's annotations: requests for a pass, and the suspension. Pure.

A request is an annotation that the leader reads with its next renewal, and removes once its pass has ended: a leader that
is lost before that leaves it to the next one. The suspension stays until somebody resumes. `kubectl annotate` may set it
too; then the text is the reason.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import field
from datetime import datetime
from typing import Any

from kapso_sync.daemon.triggers import Trigger
from kapso_sync.dataclass import dataclass
from kapso_sync.model.policies import PassOverrides
from kapso_sync.model.status import Suspension

SUSPENDED = "kapso-sync/suspended"
WEBHOOK = "kapso-sync/webhook"
RECONCILE = "kapso-sync/reconcile"
RESUMED = "kapso-sync/resumed"

MAX_REASON = 500
"""Characters of a suspension's reason that are shown, as many as the daemon's own endpoint takes."""

_LISTS = ("retry", "overwrite", "take_from", "delete")
_FLAGS = ("allow_recreate", "reset_secrets")
_TRIGGERS = {WEBHOOK: Trigger.WEBHOOK, RECONCILE: Trigger.PERSON, RESUMED: Trigger.RESUME}


@dataclass(frozen=True, slots=True)
class ReplicaRequest:
    """A request that reached a replica: a pass for this reason, with what a person allows for it."""

    trigger: Trigger
    overrides: PassOverrides = field(default_factory=PassOverrides)


def request_notes(request: ReplicaRequest, nonce: str) -> Mapping[str, str | None]:
    """Return the annotations of a request; ``nonce`` is random, so that the same request later is another one.

    Requests of a kind replace each other, but those with overrides have a key of their own, since none of them may be lost.
    """
    key = next(key for key, trigger in _TRIGGERS.items() if trigger is request.trigger)
    if request.overrides == PassOverrides():
        return {key: json.dumps({"id": nonce})}
    allowed: dict[str, Any] = {name: sorted(getattr(request.overrides, name)) for name in _LISTS}
    allowed |= {name: getattr(request.overrides, name) for name in _FLAGS}
    return {f"{key}-{nonce}": json.dumps({"id": nonce, **{name: value for name, value in allowed.items() if value}})}


def requests_in(annotations: Mapping[str, str]) -> Mapping[str, ReplicaRequest]:
    """Return the requests among the annotations, by their keys; what cannot be read asks for a pass and allows nothing."""
    found = {}
    for key, text in sorted(annotations.items()):
        kind = next((kind for kind in _TRIGGERS if key == kind or key.startswith(f"{kind}-")), None)
        if kind is not None:
            found[key] = ReplicaRequest(_TRIGGERS[kind], _overrides(_object(text)))
    return found


def suspension_note(suspension: Suspension | None) -> Mapping[str, str | None]:
    """Return the annotation of a suspension; None removes it."""
    if suspension is None:
        return {SUSPENDED: None}
    until = suspension.until.isoformat() if suspension.until else None
    return {SUSPENDED: json.dumps({"reason": suspension.reason, "since": suspension.since.isoformat(), "until": until})}


def suspension_in(annotations: Mapping[str, str], now: datetime) -> Suspension | None:
    """Return the suspension among the annotations, unless its time is over; one without a time begins ``now``."""
    text = annotations.get(SUSPENDED)
    if text is None:
        return None
    kept = _object(text)
    reason = " ".join(str(kept.get("reason") or text).split())[:MAX_REASON] or "by an annotation of the Lease"
    until = _moment(kept.get("until"))
    if until is not None and until <= now:
        return None
    return Suspension(reason, _moment(kept.get("since")) or now, until)


def kept_notes(annotations: Mapping[str, str], settled: Collection[tuple[str, str]], now: datetime) -> Mapping[str, str]:
    """Return the annotations without the requests in ``settled`` (keys and texts), and without a suspension that is over."""
    return {
        key: text
        for key, text in annotations.items()
        if (key, text) not in settled and (key != SUSPENDED or suspension_in(annotations, now) is not None)
    }


def _object(text: str) -> Mapping[str, Any]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _overrides(kept: Mapping[str, Any]) -> PassOverrides:
    def named(name: str) -> frozenset[str]:
        texts = kept.get(name)
        return frozenset(text for text in texts if isinstance(text, str)) if isinstance(texts, list) else frozenset()

    return PassOverrides(
        retry=named("retry"),
        overwrite=named("overwrite"),
        take_from=named("take_from"),
        delete=named("delete"),
        allow_recreate=kept.get("allow_recreate") is True,
        reset_secrets=kept.get("reset_secrets") is True,
    )


def _moment(text: object) -> datetime | None:
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else None
