"""Defines the reconciler's state: the functions we own, and the writes that were begun and not yet confirmed.

Memory only: losing it may cost calls, never a function.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from kapso_sync.model.api_facts import ApiFacts
from kapso_sync.model.functions import Content, Version


@dataclass(frozen=True, slots=True)
class LiveContent:
    """What was confirmed to run: the stored content that was deployed, and the server's ``last_deployed_at`` then."""

    content: Content
    deployed_at: datetime | None


class QuarantineReason(enum.StrEnum):
    """What code did wrong to be quarantined; also the reason of the function's condition."""

    CHECK = "CheckFailed"
    DEPLOYMENT = "DeploymentFailed"


@dataclass(frozen=True, slots=True)
class Quarantine:
    """What failed, and is not tried again until git changes or a person asks; what ran before it was put back.

    ``attempt`` is `DesiredFunction.attempt`. ``error`` is one line. ``code`` and ``restored`` are the hashes of the code that
    failed and of that which was put back; ``at`` is an ISO time.
    """

    attempt: str
    fault: QuarantineReason
    error: str
    code: str
    restored: str
    at: str


@dataclass(frozen=True, slots=True)
class KnownSecrets:
    """What we know of a function's secrets. Values are never kept: ``digests`` are keyed, by name, of those that we set.

    ``unverified`` were there when we first looked, and are left alone. ``rewriting`` names those whose setting was begun and
    not confirmed. ``undeployed``: some were set since the last deployment. ``listed_at``: when Kapso was last asked for names;
    ``exact``: no others were to be there then. ``unchecked``: a deployment ended after which nobody has looked at the names;
    ``before`` are those that were there before it.
    """

    digests: Mapping[str, str] = field(default_factory=dict)
    unverified: tuple[str, ...] = ()
    rewriting: tuple[str, ...] = ()
    undeployed: bool = False
    listed_at: datetime | None = None
    exact: bool = False
    unchecked: bool = False
    before: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class InventoryRecord:
    """What we last wrote of a function that we own: the base of the three-way comparison.

    ``wanted`` is what git said, ``stored`` what Kapso answered to it (a server may normalise). ``corrections`` counts the drift
    corrections since a look last found the function in sync. ``refused_slug`` is a slug that Kapso would not change to.
    ``check_requests`` are digests of the requests that its checks send. ``other_style_tried`` is the attempt that failed in one
    style and was tried in the other.
    ``unproven``: what was deployed last has not passed its checks. ``quarantine``: git's content failed, and was taken back.
    """

    slug: str
    function_id: str
    wanted: Content
    stored: Content
    updated_at: datetime | None = None
    live: LiveContent | None = None
    protected: bool = False
    corrections: int = 0
    refused_slug: str | None = None
    unproven: bool = False
    quarantine: Quarantine | None = None
    secrets: KnownSecrets = KnownSecrets()
    check_requests: tuple[str, ...] = ()
    other_style_tried: str | None = None

    @classmethod
    def new(cls, slug: str, function_id: str) -> InventoryRecord:
        """Return the record of a function that we know nothing of yet."""
        return cls(slug, function_id, wanted={}, stored={})

    def after_write(
        self, slug: str, *, wanted: Content, stored: Content, updated_at: datetime | None, protected: bool
    ) -> InventoryRecord:
        """Return the record after a write: what git wanted, and what Kapso stored of it. Everything else stays."""
        return replace(self, slug=slug, wanted=wanted, stored=stored, updated_at=updated_at, protected=protected)

    def observed(
        self, slug: str, *, wanted: Content, stored: Content, updated_at: datetime | None, protected: bool
    ) -> InventoryRecord:
        """Return the record after the function was found in sync: no correction was undone, and nothing is in quarantine."""
        written = self.after_write(slug, wanted=wanted, stored=stored, updated_at=updated_at, protected=protected)
        return replace(written, corrections=0, quarantine=None)


class IntentKind(enum.StrEnum):
    """The writes whose answer may be lost."""

    CREATE = "create"
    UPDATE = "update"
    DEPLOY = "deploy"


@dataclass(frozen=True, slots=True)
class Intent:
    """A write that was begun. It stays open until its result is confirmed; a pass starts by settling open ones.

    ``wanted`` is what git said. ``content`` is what was sent (for a deployment: what Kapso had stored when it was asked).
    ``baseline`` is, for a deployment, the server's ``last_deployed_at`` before it.
    """

    kind: IntentKind
    slug: str
    function_id: str | None
    wanted: Content
    content: Content
    baseline: datetime | None = None
    protected: bool = False
    id: int = 0


@dataclass(frozen=True, slots=True)
class RenameRecord:
    """What became of a ``moved_from``: ``sources`` is what git said, ``function_id`` who takes the slug, ``was`` by what name.

    Without a ``function_id`` it is settled: the function has arrived, or there was none to move.
    """

    sources: tuple[str, ...]
    function_id: str | None = None
    was: str | None = None


@dataclass(frozen=True, slots=True)
class MissingFunction:
    """A function of ours that git does not list. ``suspects`` are functions of git that may be it under a new name.

    ``since`` when it was to be deleted, at every pass up to ``seen``; None: it is not to be. ``tick`` is ``seen`` on the
    monotonic clock of that ``session``.
    """

    function_id: str
    slug: str
    suspects: tuple[str, ...] = ()
    since: datetime | None = None
    seen: datetime | None = None
    tick: float = 0.0
    session: str = ""

    @property
    def seconds(self) -> float:
        """For how long it was to be deleted."""
        return (self.seen - self.since).total_seconds() if self.since is not None and self.seen is not None else 0.0


@dataclass(frozen=True, slots=True)
class QuotaRefusal:
    """Kapso refused a deployment because the project's Workers are used up; ``fits`` were deployed at that time."""

    fits: int
    message: str
    at: str


@dataclass(frozen=True, slots=True)
class ReconcilerState:
    """Everything the state folder holds that a plan depends on. ``owned`` is by function id.

    ``versions`` holds what ran before, by function id, where something is in quarantine. ``moves`` holds by slug what became of
    each ``moved_from``; None: nothing is known of that. ``absences`` is by function id.
    """

    owned: Mapping[str, InventoryRecord] = field(default_factory=dict)
    intents: tuple[Intent, ...] = ()
    quota: QuotaRefusal | None = None
    manifest_present: bool = False
    project_id: str | None = None
    versions: Mapping[str, Version] = field(default_factory=dict)
    renames: Mapping[str, RenameRecord] | None = None
    missing: Mapping[str, MissingFunction] = field(default_factory=dict)
    facts: ApiFacts = field(default_factory=ApiFacts)
