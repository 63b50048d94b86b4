"""Defines the reconciler's state: the functions we own, and the writes in progress.

Losing it may cost calls, never a function.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import field, replace
from datetime import datetime

from kapso_sync.dataclass import dataclass
from kapso_sync.model.api_facts import ApiFacts
from kapso_sync.model.desired import WatchPolicy
from kapso_sync.model.evidence import Evidence
from kapso_sync.model.functions import Content, Version
from kapso_sync.model.ownership import AppliedDigests


@dataclass(frozen=True, slots=True)
class LiveContent:
    """The content that was confirmed to run, and the server's ``last_deployed_at`` of its deployment."""

    content: Content
    deployed_at: datetime | None


class QuarantineReason(enum.StrEnum):
    """The reason of a quarantine; also the reason of the function's condition."""

    CHECK = "CheckFailed"
    DEPLOYMENT = "DeploymentFailed"
    WATCH = "WatchFailed"


@dataclass(frozen=True, slots=True)
class Quarantine:
    """A failed attempt, which is not tried again until git changes or a person asks; the previous version was restored.

    ``attempt`` is `DesiredFunction.attempt`. ``error`` is one line. ``code`` and ``restored`` are the hashes of the failed code
    and of the restored code; ``at`` is an ISO time. ``evidence`` is what the failure left behind.
    """

    attempt: str
    fault: QuarantineReason
    error: str
    code: str
    restored: str
    at: str
    evidence: Evidence | None = None


@dataclass(frozen=True, slots=True)
class KnownSecrets:
    """The known secrets of a function. Values are never stored: ``digests`` holds keyed digests, by name, of those that we set.

    ``unverified`` existed at our first list of names, and are left alone. ``rewriting`` are being set; that is not confirmed
    yet. ``undeployed``: some were set since the last deployment. ``listed_at`` is the time of the last list of names;
    ``exact``: no other names were allowed then. ``unchecked``: names were not listed since the last deployment was
    requested, or what it lost was not reported yet; ``before`` are the names before it, or those that it lost.
    """

    digests: Mapping[str, str] = field(default_factory=dict)
    unverified: tuple[str, ...] = ()
    rewriting: tuple[str, ...] = ()
    undeployed: bool = False
    listed_at: datetime | None = None
    exact: bool = False
    unchecked: bool = False
    before: tuple[str, ...] = ()


NO_SECRETS = KnownSecrets()
"""The known secrets of most functions."""


@dataclass(frozen=True, slots=True)
class InventoryRecord:
    """Our last write of a function that we own: the base of the three-way comparison.

    ``wanted`` is git's content, ``stored`` Kapso's answer to it (a server may normalise). ``corrections`` counts the drift
    corrections since the function was last found in sync. ``refused_slug`` is a slug that Kapso would not change to.
    ``check_requests`` are digests of the requests that its checks send. ``other_style_tried`` is the attempt that failed in one
    style and was tried in the other.
    ``unproven``: the last deployment has not passed its checks. ``quarantine``: git's content failed, and was rolled back.
    ``applied`` are the digests in the mark as we wrote or saw it last. ``undecided``: nothing is known of our last
    write, and Kapso differs from git's content with this hash; `wanted` and `stored` are empty then.
    ``whatsapp_flow`` is the WhatsApp Flow that we attached it to.
    ``contested`` counts how often, since the function was last found in sync, another process of this owner replaced the same
    content of git with its own.
    ``replaced_secrets`` is the digest of the last secrets that another process set with another API key, and that we replaced.
    ``outdated_version``: another process of this owner wrote other code since the version to roll back to was stored, so that
    is not the one that ran before.
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
    secrets: KnownSecrets = NO_SECRETS
    check_requests: tuple[str, ...] = ()
    other_style_tried: str | None = None
    applied: AppliedDigests | None = None
    undecided: str | None = None
    contested: int = 0
    whatsapp_flow: str | None = None
    outdated_version: bool = False
    replaced_secrets: str | None = None

    @classmethod
    def new(cls, slug: str, function_id: str) -> InventoryRecord:
        """Return an empty record of a function."""
        return cls(slug, function_id, wanted={}, stored={})

    def after_write(
        self, slug: str, *, wanted: Content, stored: Content, updated_at: datetime | None, protected: bool
    ) -> InventoryRecord:
        """Return the record after a write: what git wanted, and what Kapso stored of it. Everything else stays."""
        return replace(
            self, slug=slug, wanted=wanted, stored=stored, updated_at=updated_at, protected=protected, undecided=None
        )

    def marked(self, applied: AppliedDigests | None) -> InventoryRecord:
        """Return the record after a write whose mark has these digests; None: the write had no mark."""
        return self if applied is None else replace(self, applied=applied)

    def observed(  # noqa: PLR0913 - the fields that an observation shows
        self,
        slug: str,
        *,
        wanted: Content,
        stored: Content,
        updated_at: datetime | None,
        protected: bool,
        applied: AppliedDigests | None,
        whatsapp_flow: str | None,
        live: LiveContent | None,
        unproven: bool,
        secrets: KnownSecrets,
    ) -> InventoryRecord:
        """Return the record after the function was found in sync: no correction was undone, and nothing is in quarantine.

        It is the same object if nothing is new: a copy of each would be most of what a plan without a change costs.
        """
        seen: dict[str, object] = {
            "slug": slug,
            "wanted": wanted,
            "stored": stored,
            "updated_at": updated_at,
            "protected": protected,
            "applied": applied,
            "whatsapp_flow": whatsapp_flow,
            "live": live,
            "unproven": unproven,
            "secrets": secrets,
            "undecided": None,
            "corrections": 0,
            "contested": 0,
            "quarantine": None,
        }
        if all(getattr(self, name) == value for name, value in seen.items()):
            return self
        return replace(self, **seen)  # type: ignore[arg-type]


class IntentKind(enum.StrEnum):
    """The kinds of writes that are journaled, since their answer may be lost."""

    CREATE = "create"
    UPDATE = "update"
    DEPLOY = "deploy"


@dataclass(frozen=True, slots=True)
class Intent:
    """A write in progress. It stays open until its result is confirmed; a pass starts by resolving open intents.

    ``wanted`` is git's content. ``content`` is the content that was sent (for a deployment: that Kapso had stored then).
    ``baseline`` is, for a deployment, the server's ``last_deployed_at`` before it. ``applied`` are the digests in the mark that
    was sent. ``id`` is its number in the journal; 0: it is not there yet.
    """

    kind: IntentKind
    slug: str
    function_id: str | None
    wanted: Content
    content: Content
    baseline: datetime | None = None
    protected: bool = False
    applied: AppliedDigests | None = None
    id: int = 0


@dataclass(frozen=True, slots=True)
class RenameRecord:
    """The journal entry of a ``moved_from``.

    ``sources`` is its value in git, ``function_id`` the function that takes the slug, and ``was`` the slug that it had. Without
    a ``function_id`` it is settled: the function was renamed, or there was none to rename.
    """

    sources: tuple[str, ...]
    function_id: str | None = None
    was: str | None = None


@dataclass(frozen=True, slots=True)
class MissingFunction:
    """An owned function that git does not list. ``suspects`` are functions of git that may be it under a new slug.

    Its deletion was due at every pass from ``since`` to ``seen``; None: it is not due. ``tick`` is ``seen`` on the monotonic
    clock of that ``session``. ``term`` is the term of leadership of that pass; empty: there was no election. ``updated_at`` is
    the time of Kapso's record that was seen.
    """

    function_id: str
    slug: str
    suspects: tuple[str, ...] = ()
    since: datetime | None = None
    seen: datetime | None = None
    tick: float = 0.0
    session: str = ""
    term: str = ""
    updated_at: datetime | None = None

    @property
    def seconds(self) -> float:
        """For how long, in seconds, its deletion was due."""
        return (self.seen - self.since).total_seconds() if self.since is not None and self.seen is not None else 0.0


@dataclass(frozen=True, slots=True)
class Tally:
    """How many invocations there were, and how many of them failed."""

    total: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class WatchFinding:
    """Why a watched deployment counts as failed: ``error`` in one line, and the ``evidence`` of an invocation.

    Both are bounded and without secrets. ``at`` is an ISO time.
    """

    error: str
    at: str
    evidence: Evidence | None = None


@dataclass(frozen=True, slots=True)
class DeploymentWatch:
    """A deployment whose invocations are read for a while. ``code`` is the hash of the code that Kapso stored.

    It is prepared before the deployment, and open from the time when that is confirmed: then it has all times. ``until`` is on
    our clock. The others are Kapso's: ``deployed_at``, and ``since`` of the deployment before; up to ``edge_until`` the version
    before may have answered, up to ``checks_until`` our own checks were invoked, and what is later than ``horizon`` is not
    counted.

    ``before`` counts the version before it (None: it could not be read), ``early`` what followed up to ``edge_until``, and
    ``after`` the rest. ``inherited``: the version before it had not stood its watch, so ``before`` is that of the one before
    that, which would be restored; ``former_failed``: the version before it was seen to fail. ``seen`` are the invocations that
    were counted last, and none older than ``oldest`` is counted any more. ``missed``: maybe more were made than Kapso lists.
    ``looked_at`` is the time of the last look, on our clock. ``check_requests`` are as in `InventoryRecord`. ``finding``: it
    failed.
    """

    slug: str
    function_id: str
    policy: WatchPolicy
    code: str
    prepared_at: datetime
    since: datetime | None = None
    until: datetime | None = None
    deployed_at: datetime | None = None
    edge_until: datetime | None = None
    checks_until: datetime | None = None
    horizon: datetime | None = None
    check_requests: tuple[str, ...] = ()
    before: Tally | None = None
    inherited: bool = False
    former_failed: bool = False
    early: Tally = Tally()
    after: Tally = Tally()
    seen: tuple[str, ...] = ()
    oldest: datetime | None = None
    missed: bool = False
    looked_at: datetime | None = None
    finding: WatchFinding | None = None


@dataclass(frozen=True, slots=True)
class QuotaRefusal:
    """Kapso refused a deployment because the project's Workers are used up; ``fits`` were deployed at that time."""

    fits: int
    message: str
    at: str


@dataclass(frozen=True, slots=True)
class ReconcilerState:
    """Everything in the state folder that a plan depends on. ``owned`` holds inventory records by function id.

    ``owners`` are all owners that this state folder had, the present one included: a folder that got a git remote has a new
    one. ``versions`` holds the previous version, by function id, of functions in quarantine, and of those that a watch found
    failing. ``renames`` holds the journal of each ``moved_from`` by slug; None: there is no journal. ``missing`` and
    ``watches`` are by function id.
    """

    owned: Mapping[str, InventoryRecord] = field(default_factory=dict)
    intents: tuple[Intent, ...] = ()
    quota: QuotaRefusal | None = None
    manifest_present: bool = False
    project_id: str | None = None
    owners: frozenset[str] = frozenset()
    versions: Mapping[str, Version] = field(default_factory=dict)
    renames: Mapping[str, RenameRecord] | None = None
    missing: Mapping[str, MissingFunction] = field(default_factory=dict)
    watches: Mapping[str, DeploymentWatch] = field(default_factory=dict)
    facts: ApiFacts = field(default_factory=ApiFacts)
