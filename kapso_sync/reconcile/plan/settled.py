"""Remembers what was found in sync, so that the next plan looks only at what has changed, or is not made at all. Pure.

A step is used again only if everything that it was made from is the same: git's entry and code, Kapso's record, our record of
it, and what holds for all functions, such as the policy. A function with secrets, or with anything else under way, is always
planned.
"""

from __future__ import annotations

import hashlib
from typing import TypeVar

from kapso_sync.dataclass import dataclass
from kapso_sync.model.desired import CodeStyle, Desired, DesiredFunction, Entry
from kapso_sync.model.functions import CODE, RemoteFunction
from kapso_sync.model.json_values import Json
from kapso_sync.model.plan import NoChange, Plan, Policy
from kapso_sync.model.settled import SettledPass
from kapso_sync.model.state import InventoryRecord
from kapso_sync.reconcile.plan.code_style import preferred_style
from kapso_sync.reconcile.plan.observed import Observed

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class _Settled:
    """A step, and what it was made from: ``wanted`` is the hash of git's code, ``remote`` what `_identity` returned."""

    step: NoChange
    entry: Entry
    style: CodeStyle | None
    wanted: Json
    remote: tuple[object, ...]
    known: InventoryRecord


class SettledSteps:
    """The steps of functions found in sync by the last plan, for the next one of the same process."""

    def __init__(self) -> None:
        self._circumstances: tuple[object, ...] = ()
        self._steps: dict[str, _Settled] = {}
        self._before: dict[str, _Settled] = {}

    def begin(self, policy: Policy, observed: Observed) -> None:
        """Begin a plan; if what holds for all functions is not the same as before, nothing is used again."""
        state = observed.state
        # Of the facts, only what a step is made from: others are learned with the first deployment on a base.
        circumstances = (policy, observed.owner, state.owners, state.facts.secrets_survive, preferred_style(state.facts))
        self._before = self._steps if circumstances == self._circumstances else {}
        self._circumstances, self._steps = circumstances, {}

    def find(self, want: DesiredFunction, remote: RemoteFunction, observed: Observed) -> NoChange | None:
        """Return the step of a function if it must be the same again, or None."""
        settled = self._before.get(want.slug)
        if (
            settled is None
            # Equality would take `1` for `true`.
            or settled.entry is not want.entry
            or settled.known is not observed.state.owned.get(remote.id)
            or settled.style is not want.style
            or want.secrets
            or _under_way(remote, observed)
            or settled.wanted != want.content[CODE]
            or settled.remote != _identity(remote, settled.wanted, settled.known)
        ):
            return None
        self._steps[want.slug] = settled
        return settled.step

    def keep(self, want: DesiredFunction, remote: RemoteFunction, observed: Observed, step: NoChange) -> None:
        """Remember the step of a function that needs nothing, if nothing else than `find` compares decided that."""
        known = observed.state.owned.get(remote.id)
        if known is None or step.record is not None or want.entry.secrets or step.lost_secrets or _under_way(remote, observed):
            return
        wanted = _one_object(want.content[CODE], known.wanted.get(CODE))
        self._steps[want.slug] = _Settled(step, want.entry, want.style, wanted, _identity(remote, wanted, known), known)

    def cover(self, plan: Plan) -> bool:
        """Return whether the last plan that was made consists of steps that `find` may return, and no time changes any of them.

        Names of secrets are listed again every day where git's are to be the only ones, or Kapso has yet to confirm them.
        """
        listed = any(known.entry.exact_secrets or known.known.secrets.unchecked for known in self._steps.values())
        return not listed and self._steps.keys() == {step.slug for step in plan.steps}


def settled_pass(steps: SettledSteps, plan: Plan, desired: Desired, observed: Observed, snapshot: str) -> SettledPass | None:
    """Return what a whole pass was made from if it must find the same again while that is the same, or None.

    ``plan`` is the plan that was made last with ``steps``, and ``snapshot`` the digest of what ``desired`` was built from.
    """
    if not plan.steps or not steps.cover(plan):
        return None
    to_do = plan.missing or plan.forget or plan.vacations or plan.renames or observed.closed_intents
    to_report = plan.notices or observed.garbled or desired.misnamed
    if to_do or to_report or not desired.self_contained or not observed.digest:
        return None
    return SettledPass(len(plan.steps), snapshot, observed.digest)


def _under_way(remote: RemoteFunction, observed: Observed) -> bool:
    """Return whether a deployment, a watch, or an answer about secrets may decide as well."""
    return remote.id in observed.uncertain or remote.id in observed.secrets or remote.id in observed.state.watches


def _identity(remote: RemoteFunction, wanted: Json, known: InventoryRecord) -> tuple[object, ...]:
    """Return what tells a record from all others of the function that we have this record of, and want this code of.

    Thousands of them are kept, so they hold nothing that is kept anyway, and texts only as a digest. It is one of their
    spelling, since equality would take `1` for `true`.
    """
    texts = (remote.slug, remote.project_id, remote.worker_address, remote.fields)
    digest = hashlib.blake2b(repr(texts).encode("utf-8", "surrogatepass"), digest_size=16).digest()
    live = known.live.deployed_at if known.live is not None else None
    return (
        remote.status,
        _one_object(remote.code_hash, wanted),
        _one_object(remote.last_deployed_at, live),
        _one_object(remote.updated_at, known.updated_at),
        remote.created_at,
        remote.lock_version,
        digest,
    )


def _one_object(value: _T, same: object) -> _T:
    """Return the second value in place of the first if they are equal and of one type, so that one of them is kept."""
    return same if type(same) is type(value) and same == value else value
