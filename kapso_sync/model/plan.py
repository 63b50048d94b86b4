"""Defines a plan: one step for each function, with its origin and its reasons. The kinds of steps are types."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Mapping
from dataclasses import field, replace
from datetime import datetime
from typing import ClassVar

from kapso_sync.advice import Advise
from kapso_sync.dataclass import dataclass
from kapso_sync.errors import Notice, Problem
from kapso_sync.model.desired import BundledPackage, DesiredFunction, RolloutPolicy, SecretValue, WatchPolicy
from kapso_sync.model.evidence import Evidence
from kapso_sync.model.functions import DESCRIPTION, RemoteFunction, code_hash, content_hash
from kapso_sync.model.json_values import Json, canonical_json
from kapso_sync.model.ownership import without_digests
from kapso_sync.model.policies import AdoptPolicy, DriftPolicy, PassOverrides, UnknownSecrets
from kapso_sync.model.source import Revision
from kapso_sync.model.state import (
    NO_SECRETS,
    InventoryRecord,
    KnownSecrets,
    LiveContent,
    MissingFunction,
    Quarantine,
    RenameRecord,
)


class Origin(enum.StrEnum):
    """The cause of a difference."""

    GIT = "git"
    DRIFT = "drift"
    CONFLICT = "conflict"
    RECOVERY = "recovery"
    NEW = "new"


@dataclass(frozen=True, slots=True)
class Policy:
    """The policies of the settings and the command line. The sets name slugs or owners, for this pass only."""

    owner: str
    adopt: AdoptPolicy = AdoptPolicy.IDENTICAL
    drift: DriftPolicy = DriftPolicy.CORRECT
    prune: bool = False
    delete: frozenset[str] = frozenset()
    overwrite: frozenset[str] = frozenset()
    take_from: frozenset[str] = frozenset()
    reset_secrets: bool = False
    retry: frozenset[str] = frozenset()
    unknown_secrets: UnknownSecrets = UnknownSecrets.AUTO

    def overridden(self, by: PassOverrides) -> Policy:
        """Return the policy of a pass for which a person allows more."""
        return replace(
            self,
            retry=self.retry | by.retry,
            overwrite=self.overwrite | by.overwrite,
            take_from=self.take_from | by.take_from,
            delete=self.delete | by.delete,
            reset_secrets=self.reset_secrets or by.reset_secrets,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """The planned action for one function. ``fields`` are the differing ones; ``diff`` is unified, from Kapso to git.

    ``reasons`` say why; ``hint`` says what a person can do if the step is blocked.
    """

    action: ClassVar[str]

    slug: str
    function_id: str | None = None
    origin: Origin | None = None
    fields: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    hint: str | None = None
    file: str | None = None
    desired_hash: str | None = None
    remote_hash: str | None = None
    diff: str = field(default="", repr=False)

    @property
    def explanation(self) -> tuple[str, ...]:
        """The reasons and the hint, as lines for people."""
        return self.reasons if self.hint is None else (*self.reasons, self.hint)

    @property
    def deploys(self) -> bool:
        """Return whether the step includes a deployment."""
        return False

    @property
    def writes(self) -> Mapping[str, Json]:
        """The attributes that will be sent to Kapso, by name."""
        return {}

    @property
    def in_git(self) -> bool:
        """Return whether git lists the function."""
        return True

    @property
    def drifted(self) -> bool:
        """Return whether Kapso shows other content than our last write."""
        return self.origin in (Origin.DRIFT, Origin.CONFLICT) and bool(self.fields)


@dataclass(frozen=True, slots=True)
class SecretChanges:
    """The names of secrets that a step sets, replaces (``rewrites``) and removes.

    ``unverified`` exist and are not known to be ours: they are left alone, since replacing them would leave a gap.
    """

    sets: tuple[str, ...] = ()
    rewrites: tuple[str, ...] = ()
    removes: tuple[str, ...] = ()
    unverified: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Return whether there is any change."""
        return bool(self.sets or self.rewrites or self.removes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Write(Step):
    """Base of the steps that send content: ``payload`` is exactly what is sent, ``desired`` what git says.

    ``deploy`` says that the content must be deployed; once it runs, ``secrets`` follow, with a deployment of their own.

    ``unconfirmed`` numbers earlier deployments that were not seen to end. ``overlapped`` of them are of other content, and
    the end of each may be taken for that of a later one, so as many deployments must follow this one.

    ``secret_values`` are all values from git, also for a rollback: a deployment may drop secrets.
    ``listed_secrets`` are the names that were on Kapso before; ``secrets_at_risk`` are those without a value in git.
    ``attach_to`` is the WhatsApp Flow whose data endpoint it becomes, once it runs and its checks have passed.
    """

    desired: DesiredFunction = field(repr=False)
    payload: Mapping[str, Json] = field(repr=False)
    deploy: bool = True
    protected: bool = False
    secrets: SecretChanges = SecretChanges()
    secret_values: Mapping[str, SecretValue] = field(default_factory=dict, repr=False)
    listed_secrets: frozenset[str] = frozenset()
    secrets_at_risk: tuple[str, ...] = ()
    unconfirmed: tuple[int, ...] = ()
    overlapped: int = 0
    attach_to: str | None = None

    @property
    def deploys(self) -> bool:
        """Return whether a deployment follows the write."""
        return self.deploy or bool(self.secrets)

    @property
    def writes(self) -> Mapping[str, Json]:
        """The attributes that will be sent."""
        return self.payload


@dataclass(frozen=True, slots=True, kw_only=True)
class Create(Write):
    """Make a function that is not on Kapso. ``recreate``: we owned one, and it is gone."""

    action: ClassVar[str] = "create"
    recreate: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Modify(Write):
    """Base of the steps that change an existing function; ``remote`` is its record now, ``last_applied`` our last write.

    ``live`` is the content that is confirmed to run, if the stored content runs. ``quarantine`` is the failed attempt that is
    rolled back, or stays rolled back, and ``held_back`` is the diff from what runs then to git. ``reset_secrets``: those that
    are not known to be ours are set as well. ``refused`` are fields that Kapso did not take before, and are not sent again.
    ``lost_secrets`` are as in `NoChange`; ``known_secrets`` has them until they are reported.
    """

    remote: RemoteFunction = field(repr=False)
    last_applied: InventoryRecord | None = field(default=None, repr=False)
    live: LiveContent | None = field(default=None, repr=False)
    known_secrets: KnownSecrets = field(default=NO_SECRETS, repr=False)
    quarantine: Quarantine | None = None
    held_back: str = field(default="", repr=False)
    reset_secrets: bool = False
    refused: tuple[str, ...] = ()
    lost_secrets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Update(Modify):
    """Write the differences."""

    action: ClassVar[str] = "update"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rename(Modify):
    """Give a function its slug from git, and write all other differences; id, URL and secrets stay."""

    action: ClassVar[str] = "rename"


@dataclass(frozen=True, slots=True, kw_only=True)
class Adopt(Modify):
    """Take over a function that is unowned, or that another owner hands over, and write the differences."""

    action: ClassVar[str] = "adopt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Deploy(Modify):
    """Nothing to write, but the stored content does not run."""

    action: ClassVar[str] = "deploy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollback(Modify):
    """Restore the previous version, which is ``desired``; ``desired_hash`` is still that of git's content."""

    action: ClassVar[str] = "update"


@dataclass(frozen=True, slots=True, kw_only=True)
class Delete(Step):
    """Remove a function that we own and that left git. ``confirmed``: a person named it."""

    action: ClassVar[str] = "delete"
    remote: RemoteFunction = field(repr=False)
    confirmed: bool = False

    @property
    def in_git(self) -> bool:
        """Return False: it left git."""
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class NoChange(Step):
    """Nothing to do. ``record`` is the new inventory record, if the observation changed it.

    ``lost_secrets`` were dropped by an earlier deployment, and cannot be set again because their values are not in git.
    """

    action: ClassVar[str] = "none"
    record: InventoryRecord | None = field(default=None, repr=False)
    lost_secrets: tuple[str, ...] = ()

    @property
    def in_git(self) -> bool:
        """Return whether git lists the function; one that left git and is kept has no desired content."""
        return self.desired_hash is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeferredDelete(NoChange):
    """A deletion within its grace period: the first pass after ``at``, in ``seconds``, carries it out."""

    remote: RemoteFunction = field(repr=False)
    at: datetime
    seconds: float


class BlockedBy(enum.Enum):
    """The rule or the missing ability that keeps a step from being carried out."""

    OWNERSHIP = enum.auto()
    """The function carries a mark that is not ours, or one of ours that was made for another slug."""
    ADOPTION = enum.auto()
    """The function is unowned, and the adopt policy does not adopt it."""
    DRIFT_POLICY = enum.auto()
    """It was changed on Kapso, and drift is only reported."""
    UNKNOWN_BASE = enum.auto()
    """It differs from git, nothing is known of our last write, and drift is only reported."""
    OSCILLATION = enum.auto()
    """Every correction so far was undone on Kapso."""
    BACK_OFF = enum.auto()
    """It failed before, and is retried later."""
    QUARANTINE = enum.auto()
    """This content failed, and is not tried again until git changes or a person asks."""
    REFUSED_FIELD = enum.auto()
    """Kapso refused a field, and nothing else differs."""
    NO_SECRET_ROUTES = enum.auto()
    """The manifest names secrets, and this API base has none; a warning of the plan says so for all functions at once."""
    FAILING = enum.auto()
    """Its invocations fail since its deployment, and there is no earlier version to restore."""
    LOST_SECRET = enum.auto()
    """Git says that a secret exists on Kapso, and it does not."""
    UNKNOWN_SECRET = enum.auto()
    """The deployment may drop a secret that has no value in git."""
    RENAME = enum.auto()
    """A function cannot get its slug: another function has it, or Kapso or git prevents it."""
    GARBLED = enum.auto()
    """Kapso's record of it is malformed."""
    BUILD = enum.auto()
    """Its code needs a build that is not available here."""
    DELETION = enum.auto()
    """A deletion or recreation that would be too large, too early, or would hit something that is used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocked(Step):
    """A change that a rule forbids; ``hint`` says what would allow it. ``wanted`` is the action in question.

    ``quarantine`` is the failed attempt, and ``evidence`` what a failure left behind that is in no quarantine. ``refused`` are
    the fields that Kapso refused. ``lost_secrets`` are the names of secrets that are gone from Kapso. ``max_delete`` is the
    limit that would allow this deletion, if the limit forbids it. ``record`` is the new inventory record, if the observation
    changed it.
    """

    action: ClassVar[str] = "blocked"
    by: BlockedBy
    wanted: str = ""
    refused: tuple[str, ...] = ()
    lost_secrets: tuple[str, ...] = ()
    max_delete: int | None = None
    quarantine: Quarantine | None = None
    evidence: Evidence | None = None
    record: InventoryRecord | None = field(default=None, repr=False)

    @property
    def in_git(self) -> bool:
        """Return whether git lists the function."""
        return self.wanted != "delete"


def block(step: Step, by: BlockedBy, reason: str, hint: str | None) -> Blocked:
    """Return the step as a blocked one, with the reason; nothing is written of its function."""
    return Blocked(
        by=by,
        slug=step.slug,
        function_id=step.function_id,
        origin=step.origin,
        fields=step.fields,
        reasons=(reason,),
        hint=hint,
        file=step.file,
        desired_hash=step.desired_hash,
        remote_hash=step.remote_hash,
        diff=step.diff,
        wanted=step.action,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Invalid(Step):
    """Git's version cannot be used; what is on Kapso stays."""

    action: ClassVar[str] = "invalid"
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class SlugVacation:
    """A function that must leave the slug ``frees`` before another one takes it.

    It gets ``slug``, and ``description`` as a whole. ``target`` is the slug that a step of this plan gives it afterwards;
    None: it keeps ``slug``, as a function that git does not list.
    """

    remote: RemoteFunction = field(repr=False)
    slug: str
    description: str
    target: str | None = None
    last_applied: InventoryRecord | None = field(default=None, repr=False)

    @property
    def frees(self) -> str:
        """The slug that the function leaves."""
        return self.remote.slug


ACTIONS = ("create", "update", "rename", "deploy", "delete", "adopt", "none", "blocked", "invalid")


@dataclass(frozen=True, slots=True)
class Plan:
    """All steps, sorted by slug.

    ``owned`` counts our functions, vanished ones included; limits in percent refer to it. ``project_id`` is the project that
    the key opens, if Kapso says so, and ``named_project`` the one that the repository names. ``forget`` holds the ids of
    functions that are gone from git and from Kapso. ``missing`` are our functions that git does not list. ``vacations`` are
    functions that must leave their slug for another one. ``renames`` is the journal of each ``moved_from``, written before
    anything else. ``misnamed`` is as in `Desired`. ``packages`` are the npm packages in the code of functions, and ``watched``
    what fails a function that git wants to be watched, by slug.
    """

    source: str
    revision: Revision
    owner: str
    steps: tuple[Step, ...]
    owned: int = 0
    manifest_present: bool = True
    project_id: str | None = None
    named_project: str | None = None
    notices: tuple[Notice, ...] = ()
    forget: tuple[str, ...] = ()
    rollout: RolloutPolicy = field(default_factory=RolloutPolicy)
    missing: tuple[MissingFunction, ...] = ()
    vacations: tuple[SlugVacation, ...] = ()
    renames: Mapping[str, RenameRecord] = field(default_factory=dict)
    misnamed: tuple[str, ...] = ()
    packages: Mapping[str, tuple[BundledPackage, ...]] = field(default_factory=dict)
    watched: Mapping[str, WatchPolicy] = field(default_factory=dict)

    @property
    def in_sync(self) -> bool:
        """Return whether there is nothing to do and no problem."""
        return all(isinstance(step, NoChange) and not step.lost_secrets for step in self.steps)

    @property
    def broken(self) -> bool:
        """Return whether some function is blocked or invalid."""
        return any(isinstance(step, Blocked | Invalid) for step in self.steps)

    @property
    def changes(self) -> tuple[Step, ...]:
        """The steps that write to Kapso."""
        return tuple(step for step in self.steps if not isinstance(step, NoChange | Blocked | Invalid))

    @property
    def deletions(self) -> tuple[Delete, ...]:
        """The deletions that are due."""
        return tuple(step for step in self.steps if isinstance(step, Delete))

    @property
    def deferred_deletions(self) -> tuple[DeferredDelete, ...]:
        """The deletions that are within their grace period."""
        return tuple(step for step in self.steps if isinstance(step, DeferredDelete))

    @property
    def summary(self) -> Mapping[str, int]:
        """How many steps there are of each action, in a fixed order."""
        counts = Counter(step.action for step in self.steps)
        return {action: counts[action] for action in ACTIONS}

    def advised(self, advise: Advise) -> Plan:
        """Return the plan with the commands in its hints and warnings completed; its digest stays."""
        steps = (replace(step, hint=advise(step.hint)) if step.hint else step for step in self.steps)
        notices = (replace(notice, message=advise(notice.message)) for notice in self.notices)
        return replace(self, steps=tuple(steps), notices=tuple(notices))

    @property
    def digest(self) -> str:
        """``sha256:…`` over everything that would be written, and over the content that it would replace."""
        return code_hash(canonical_json([self.owner, *(_fingerprint(step) for step in self.changes)]))


def _fingerprint(step: Step) -> Json:
    names: list[Json] = []
    if isinstance(step, Write) and step.secrets:
        names = [[*group] for group in (step.secrets.sets, step.secrets.rewrites, step.secrets.removes)]
    writes = dict(step.writes)
    if isinstance(text := writes.get(DESCRIPTION), str):
        # What the mark says of the last write depends on what this process remembers of it; the rest does not.
        writes[DESCRIPTION] = without_digests(text)
    return [step.slug, step.action, step.function_id, step.deploys, content_hash(writes), step.remote_hash, *names]
