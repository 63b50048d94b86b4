"""Holds Kapso's list at one moment, together with the reconciler's state."""

from __future__ import annotations

import enum
import functools
import hashlib
from collections.abc import Mapping
from dataclasses import field, replace

from kapso_sync.dataclass import dataclass
from kapso_sync.model.functions import CODE, DESCRIPTION, Content, GarbledRecord, RemoteFunction
from kapso_sync.model.names import is_id, is_slug
from kapso_sync.model.ownership import check_of, comparable_owner
from kapso_sync.model.state import Intent, InventoryRecord, ReconcilerState
from kapso_sync.reconcile.plan.secrets import SecretListing


class Claim(enum.Enum):
    """Who owns a function, by its mark and by our inventory."""

    OURS = enum.auto()
    FREE = enum.auto()
    FOREIGN = enum.auto()
    COPIED = enum.auto()


@dataclass(frozen=True)
class Observed:
    """Kapso's list at one moment, and our state with every open intent settled against it.

    ``owner`` is who we are. ``uncertain`` holds, by function id, the deployments that were requested and not seen to end.
    ``secrets`` holds the names of secrets of those functions that Kapso was asked for. ``garbled`` are records that cannot be
    believed: nothing is done about the functions that they may be. ``digest`` is as in `FunctionList`.
    """

    functions: tuple[RemoteFunction, ...]
    owner: str
    state: ReconcilerState
    uncertain: Mapping[str, tuple[Intent, ...]]
    closed_intents: tuple[int, ...] = ()
    secrets: Mapping[str, SecretListing] = field(default_factory=dict)
    garbled: tuple[GarbledRecord, ...] = ()
    digest: str = ""

    def with_secrets(self, secrets: Mapping[str, SecretListing]) -> Observed:
        """Return the observation with these names of secrets; what was derived from everything else still holds."""
        again = replace(self, secrets=secrets)
        again.__dict__.update({name: value for name, value in self.__dict__.items() if name not in again.__dict__})
        return again

    @functools.cached_property
    def by_slug(self) -> Mapping[str, RemoteFunction]:
        """The records by slug; slugs are unique in a project."""
        return {function.slug: function for function in self.functions}

    @functools.cached_property
    def by_id(self) -> Mapping[str, RemoteFunction]:
        """The records by id."""
        return {function.id: function for function in self.functions}

    @functools.cached_property
    def owned_by_slug(self) -> Mapping[str, InventoryRecord]:
        """The inventory records by git's slug."""
        return {owned.slug: owned for owned in self.state.owned.values()}

    def find(self, slug: str) -> RemoteFunction | None:
        """Return the function with this slug: on Kapso, or in our inventory if it has another slug on Kapso."""
        if slug in self.by_slug:
            return self.by_slug[slug]
        known = self.owned_by_slug.get(slug)
        return None if known is None else self.by_id.get(known.function_id)

    def garbled_record_of(self, slug: str) -> GarbledRecord | None:
        """Return the garbled record that may be git's function of this slug, or None.

        It is known by its slug, by an id of our inventory, or by our mark. A record with neither an id nor a slug that can be
        may be any function of ours that the list does not show: creating that one again would make a second one.
        """
        if not self.garbled:
            return None
        known, check = self.owned_by_slug.get(slug), check_of(self.owner, slug)
        for record in self.garbled:
            if record.slug == slug or (known is not None and record.id == known.function_id):
                return record
            if slug not in self.by_slug and record.mark is not None and record.mark.check == check:
                return record
        if known is None or known.function_id in self.by_id:
            return None
        return next((record for record in self.garbled if not (is_id(record.id) or is_slug(record.slug))), None)

    def content(self, remote: RemoteFunction) -> Content:
        """Return the record as comparable content: description without mark, code as a hash."""
        return stored_content(remote, self.state.owned.get(remote.id))

    @functools.cached_property
    def ours(self) -> tuple[RemoteFunction, ...]:
        """The functions that we own."""
        return tuple(remote for remote in self.functions if self.claim(remote) is Claim.OURS)

    def other_owner(self, remote: RemoteFunction) -> str | None:
        """Return the other owner that a function's marks name, or None.

        Beside a mark of ours, another owner's counts only if it was made for the function's slug: then two owners claim it.
        """
        ours = self._our_names
        if remote.mark is not None and comparable_owner(remote.mark.owner) not in ours:
            return remote.mark.owner
        if len(remote.marks) < 2:
            return None
        marks = (mark for mark in remote.marks if mark.valid_for(remote.slug))
        others = (mark for mark in marks if comparable_owner(mark.owner) not in ours)
        return next((mark.owner for mark in others), None)

    def is_our_name(self, owner: str) -> bool:
        """Return whether this is our owner, or one that we had before."""
        return comparable_owner(owner) in self._our_names

    @functools.cached_property
    def _our_names(self) -> frozenset[str]:
        """Our owner and our former ones, in the spelling in which owners are compared."""
        return frozenset(comparable_owner(owner) for owner in (self.owner, *self.state.owners))

    def claim(self, remote: RemoteFunction) -> Claim:
        """Return who owns a function. One in our inventory stays ours if its mark was removed or its slug changed."""
        return self._claims[remote.id] if self.by_id.get(remote.id) is remote else self._claim(remote)

    @functools.cached_property
    def _claims(self) -> Mapping[str, Claim]:
        """Who owns each function of the list, by id: many rules ask."""
        return {remote.id: self._claim(remote) for remote in self.by_id.values()}

    def _claim(self, remote: RemoteFunction) -> Claim:
        mark, remembered = remote.mark, remote.id in self.state.owned
        if mark is None:
            return Claim.OURS if remembered else Claim.FREE
        if self.other_owner(remote) is not None:
            return Claim.FOREIGN
        if mark.valid_for(remote.slug) or remembered or is_parked(remote):
            return Claim.OURS
        return Claim.COPIED


_PARKING = "kapso-sync-moving-"


def parking_slug(function_id: str, check: str) -> str:
    """Return the slug of a parked function; it is derived from the function's id and the mark's ``check``."""
    return _PARKING + hashlib.sha256(f"{function_id}\n{check}".encode()).hexdigest()[:12]


def is_parked(remote: RemoteFunction) -> bool:
    """Return whether a function is parked: its mark was made for the slug that it is going to get."""
    mark = remote.mark
    return mark is not None and remote.slug.startswith(_PARKING) and remote.slug == parking_slug(remote.id, mark.check)


def stored_content(remote: RemoteFunction, owned: InventoryRecord | None = None) -> Content:
    """Return a record as comparable content; if it has no code, the hash of our last write is used."""
    content = dict(remote.fields)
    if DESCRIPTION in content or remote.description is not None:
        content[DESCRIPTION] = remote.text
    if remote.code is not None:
        content[CODE] = remote.code_hash
    elif owned is not None and CODE in owned.stored:
        content[CODE] = owned.stored[CODE]
    return content
