"""The Lease: answers of the API server as JSON, and what anybody may write into its annotations."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from kapso_sync.daemon.lease import Lease
from kapso_sync.daemon.lease_notes import kept_notes, request_notes, requests_in, suspension_in, suspension_note
from kapso_sync.model.json_values import is_nested_within
from tests.fuzz.grammar import TIMES, Draw, dumps
from tests.fuzz.kit import printed
from tests.fuzz.promises import BrokenPromise
from tests.fuzz.target import Target

MAX_DEPTH = 100
"""The API server checks Leases against their schema, so that none is deep."""

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def run(data: bytes) -> None:
    """Read the Lease, its requests and its suspension, and write back what must be kept."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return
    if not isinstance(document, dict) or not is_nested_within(document, MAX_DEPTH):
        return
    lease = Lease(document)
    annotations = lease.annotations
    requests = requests_in(annotations)
    for request in requests.values():
        again = requests_in({k: v for k, v in request_notes(request, "n").items() if v is not None})
        if list(again.values()) != [request]:
            raise BrokenPromise(f"a request does not come back: {request}")
    suspension = suspension_in(annotations, NOW)
    if suspension is not None:
        if len(suspension.reason) > 500 or "\n" in suspension.reason:
            raise BrokenPromise(f"a reason that is long or has lines: {suspension.reason!r}")
        note = suspension_note(suspension)
        if suspension_in({k: v for k, v in note.items() if v is not None}, NOW) != suspension:
            raise BrokenPromise(f"a suspension does not come back: {suspension}")
        printed(lambda console: console.line(suspension.reason), lines=1)
    kept_notes(annotations, tuple(annotations.items())[:1], NOW)
    for changed in (lease.claimed("pod-2", NOW, 15.0), lease.released(NOW), lease.annotated(annotations)):
        json.dumps(changed.document)
        if changed.annotations != annotations:
            raise BrokenPromise("an update of the Lease loses annotations")
    _ = lease.claim, lease.holder


def make(draw: Draw) -> bytes:
    """A Lease as the API server shows it, with our annotations."""
    moment: Callable[[], Any] = lambda: draw.pick(TIMES)  # noqa: E731
    overrides = {
        "id": "n",
        "retry": ["greet"],
        "overwrite": [draw.text()],
        "take_from": ["a"],
        "delete": [1],
        "allow_recreate": True,
        "reset_secrets": "yes",
    }
    suspended = {"reason": draw.text, "since": moment, "until": moment}
    notes = {
        "kapso-sync/suspended": lambda: draw.pick((dumps(draw.object(suspended, odd=0.3)).decode(), draw.text())),
        "kapso-sync/webhook": lambda: dumps(draw.json()).decode(),
        "kapso-sync/reconcile-n": lambda: dumps(draw.object(overrides, odd=0.3)).decode(),
        "kapso-sync/resumed": "x",
        "kapso-sync/reconcile-": draw.text,
        "other": "kept",
    }
    spec = {
        "holderIdentity": lambda: draw.pick(("pod-1", "", draw.text())),
        "leaseDurationSeconds": lambda: draw.pick((15, 0, -1)),
        "acquireTime": moment,
        "renewTime": moment,
        "leaseTransitions": lambda: draw.pick((0, 3)),
    }
    return dumps(
        draw.object(
            {
                "kind": "Lease",
                "apiVersion": "coordination.k8s.io/v1",
                "metadata": lambda: draw.object(
                    {"resourceVersion": "1", "annotations": lambda: draw.object(notes, odd=0.3)}, odd=0.1
                ),
                "spec": lambda: draw.object(spec, odd=0.3),
            }
        )
    )


TOKENS = (
    b'"holderIdentity":',
    b'"annotations":',
    b'"kapso-sync/suspended":',
    b'"kapso-sync/webhook":',
    b'"reason":',
    b'"until":',
)
TARGETS = (Target("lease", run, make, TOKENS, share=0.5),)
