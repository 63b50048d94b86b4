"""The three-way comparison of one function: what git wants, what Kapso has, what we last wrote. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from kapso_sync.model.functions import (
    CODE,
    DESCRIPTION,
    EXACT_FIELDS,
    FIELDS,
    RUNTIME_CONTENT,
    SLUG,
    Content,
    DeploymentStatus,
    RemoteFunction,
    agree,
    same_json,
)
from kapso_sync.model.plan import Origin
from kapso_sync.model.state import InventoryRecord, LiveContent

LIVE_SLACK = timedelta(seconds=5)
"""After a deployment both times were seen equal to the second; further apart they tell of two events."""


@dataclass(frozen=True, slots=True)
class Difference:
    """What differs of a function's managed content, in the order fields are shown, and who changed it.

    ``refused`` are fields that were written and that Kapso kept as they were: they are not written again until git or Kapso
    changes. ``unknown`` are fields that the record does not have at all: they are not compared.
    """

    fields: tuple[str, ...]
    by_git: frozenset[str]
    on_kapso: frozenset[str]
    based: bool
    refused: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()

    @property
    def origin(self) -> Origin | None:
        """The origin of the difference; without a base any difference counts as a conflict."""
        if not self.fields:
            return None
        if not self.based or (self.by_git and self.on_kapso):
            return Origin.CONFLICT
        return Origin.DRIFT if self.on_kapso else Origin.GIT


def compare(wanted: Content, stored: Content, last_applied: InventoryRecord | None) -> Difference:
    """Return which managed fields must be written.

    Code or a text that neither side changed since our last write is in sync even where its value is not the one we sent:
    Kapso stores some things in a spelling of its own. Any other field of that kind was refused.

    >>> base.wanted["public_endpoint"], base.stored["public_endpoint"]   # sent, and kept as it was
    (True, False)
    >>> compare({"public_endpoint": True}, {"public_endpoint": False}, base).refused
    ('public_endpoint',)
    """
    ordered = [name for name in (CODE, *FIELDS) if name in wanted]
    fields, by_git, on_kapso, refused, unknown = [], set(), set(), [], []
    for name in ordered:
        if name not in stored and name not in (CODE, DESCRIPTION):
            unknown.append(name)
            continue
        if _same(wanted, stored, name):
            continue
        git_changed = last_applied is not None and not (
            name in last_applied.wanted and _same(wanted, last_applied.wanted, name)
        )
        kapso_changed = last_applied is not None and not _same(stored, last_applied.stored, name)
        if last_applied is not None and not git_changed and not kapso_changed:
            if name in EXACT_FIELDS:
                refused.append(name)
            continue
        fields.append(name)
        if git_changed:
            by_git.add(name)
        if kapso_changed:
            on_kapso.add(name)
    return Difference(
        tuple(fields),
        frozenset(by_git),
        frozenset(on_kapso),
        based=last_applied is not None,
        refused=tuple(refused),
        unknown=tuple(unknown),
    )


def _same(left: Content, right: Content, name: str) -> bool:
    if name == DESCRIPTION:
        return (left.get(name) or "") == (right.get(name) or "")
    return (name in left) == (name in right) and same_json(left.get(name), right.get(name))


@dataclass(frozen=True, slots=True)
class Liveness:
    """Whether the stored content is what runs. ``reason`` says why not; ``live`` what to remember when it is."""

    reason: str | None
    live: LiveContent | None = None


def liveness(remote: RemoteFunction, stored: Content, last_applied: InventoryRecord | None) -> Liveness:
    """Judge whether the code that runs is the code that is stored.

    With a confirmation of our own it must be the same content, and no deployment since; else the server's times decide.
    """
    runtime = runtime_content(stored, remote.slug)
    if remote.status is DeploymentStatus.DRAFT:
        return Liveness("saved on Kapso, never deployed")
    if remote.status is DeploymentStatus.ERROR:
        return Liveness("the last deployment failed: the function is down")
    confirmed = last_applied.live if last_applied is not None else None
    if confirmed is not None and confirmed.deployed_at == remote.last_deployed_at:
        if not agree(confirmed.content, runtime, RUNTIME_CONTENT):
            return Liveness("saved on Kapso, not live yet")
        if not agree(confirmed.content, runtime, (SLUG,)):
            return Liveness("its slug changed after the last deployment: the script that runs bears the former one")
        return Liveness(None, confirmed)
    if remote.last_deployed_at is None:
        return Liveness("Kapso knows no deployment of it")
    if remote.updated_at is not None and remote.updated_at - remote.last_deployed_at > LIVE_SLACK:
        return Liveness("saved after the last deployment: what runs may be older")
    return Liveness(None, LiveContent(runtime, remote.last_deployed_at))


def runtime_content(content: Content, slug: str) -> Content:
    """Return the part of a content that needs a deployment to take effect, with the slug, which the script's name holds."""
    return {**{name: content[name] for name in RUNTIME_CONTENT if name in content}, SLUG: slug}
