"""What is told of single functions: writes, drift, deployments."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from kapso_sync.model.events.base import Event, FunctionEvent, Level


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionAdopted(FunctionEvent):
    """A function that was nobody's is ours now."""

    name: ClassVar[str] = "function.adopted"


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionCreated(FunctionEvent):
    """A function was created on Kapso; it is a draft until its deployment."""

    name: ClassVar[str] = "function.created"


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionUpdated(FunctionEvent):
    """Code or fields were written to Kapso."""

    name: ClassVar[str] = "function.updated"
    fields: tuple[str, ...]
    origin: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionRenamed(FunctionEvent):
    """A function got another slug; id, URL and secrets stay."""

    name: ClassVar[str] = "function.renamed"
    previous: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SlugVacated(FunctionEvent):
    """A function left its slug, which another one takes: on its way to ``target``, or for good, as ``became``."""

    name: ClassVar[str] = "function.gave_way"
    became: str
    target: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionDeleted(FunctionEvent):
    """A function was deleted from Kapso; ``backup`` names the copy that was saved before."""

    name: ClassVar[str] = "function.deleted"
    backup: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionBackedUp(FunctionEvent):
    """What is about to be overwritten or deleted was saved."""

    name: ClassVar[str] = "function.backed_up"
    backup: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionConflict(FunctionEvent):
    """Git wants a function that we must not touch, or that changed on both sides."""

    name: ClassVar[str] = "function.conflict"
    level: ClassVar[Level] = Level.WARNING
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionFailed(FunctionEvent):
    """A write about this function failed; it is tried again at the next pass."""

    name: ClassVar[str] = "function.failed"
    level: ClassVar[Level] = Level.ERROR
    error: str
    error_type: str
    hint: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftDetected(FunctionEvent):
    """Kapso shows something else than what we last wrote."""

    name: ClassVar[str] = "drift.detected"
    level: ClassVar[Level] = Level.WARNING
    fields: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftCorrected(FunctionEvent):
    """Git's version was written back."""

    name: ClassVar[str] = "drift.corrected"
    fields: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftIgnored(FunctionEvent):
    """The drift policy is ``report``: nothing was written."""

    name: ClassVar[str] = "drift.ignored"
    level: ClassVar[Level] = Level.WARNING
    fields: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionOscillating(FunctionEvent):
    """Each of three writes was undone on Kapso: we stop writing until git changes or a person asks."""

    name: ClassVar[str] = "function.oscillating"
    level: ClassVar[Level] = Level.ERROR
    fields: tuple[str, ...]
    hint: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionStalled(FunctionEvent):
    """The same code failed again and again, and is tried at the slowest pace; or it is in quarantine, and is not (no time)."""

    name: ClassVar[str] = "function.stalled"
    level: ClassVar[Level] = Level.ERROR
    reason: str
    retry_in_s: float | None = None
    hint: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneBlocked(Event):
    """Deletions or recreations were held back; ``hint`` names the setting that allows them."""

    name: ClassVar[str] = "prune.blocked"
    level: ClassVar[Level] = Level.WARNING
    slugs: tuple[str, ...]
    reason: str
    hint: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PrunePending(FunctionEvent):
    """A function left git, and is deleted at the first pass after ``at``, unless it comes back."""

    name: ClassVar[str] = "prune.pending"
    level: ClassVar[Level] = Level.WARNING
    at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployStarted(FunctionEvent):
    """Kapso accepted a deployment."""

    name: ClassVar[str] = "deploy.started"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploySucceeded(FunctionEvent):
    """The code that git wants is the code that runs."""

    name: ClassVar[str] = "deploy.succeeded"
    duration_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployFailed(FunctionEvent):
    """A deployment ended in ``error``, or was refused."""

    name: ClassVar[str] = "deploy.failed"
    level: ClassVar[Level] = Level.ERROR
    error: str
    hint: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployTimedOut(FunctionEvent):
    """A deployment did not end in time; it counts as failed."""

    name: ClassVar[str] = "deploy.timed_out"
    level: ClassVar[Level] = Level.ERROR
    timeout_s: float
    hint: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckPassed(FunctionEvent):
    """What was deployed answers as the manifest expects."""

    name: ClassVar[str] = "check.passed"
    checks: int
    duration_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckFailed(FunctionEvent):
    """What was deployed does not answer as the manifest expects, and the edge had time to take it up."""

    name: ClassVar[str] = "check.failed"
    level: ClassVar[Level] = Level.ERROR
    check: int
    expected: str
    answer: str
    error: str
    hint: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RollbackStarted(FunctionEvent):
    """What ran before is put back: its code's hash is ``restored``, that of what failed is ``code``."""

    name: ClassVar[str] = "rollback.started"
    level: ClassVar[Level] = Level.WARNING
    reason: str
    code: str
    restored: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RollbackSucceeded(FunctionEvent):
    """What ran before runs again; what failed is in quarantine until git changes or a person asks."""

    name: ClassVar[str] = "rollback.succeeded"
    level: ClassVar[Level] = Level.WARNING
    code: str
    restored: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RollbackFailed(FunctionEvent):
    """What ran before could not be put back. Where it would not go live either, git's code is tried again with patience."""

    name: ClassVar[str] = "rollback.failed"
    level: ClassVar[Level] = Level.ERROR
    code: str
    restored: str
    error: str
    hint: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretSet(FunctionEvent):
    """A secret got its value; the value itself is never told."""

    name: ClassVar[str] = "secret.set"
    secret: str = field(metadata={"key": "name"})


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionReplanned(FunctionEvent):
    """Somebody saved the function after it was planned; it was looked at and planned again, in the same pass."""

    name: ClassVar[str] = "function.replanned"
    level: ClassVar[Level] = Level.WARNING
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretLost(FunctionEvent):
    """A deployment dropped secrets whose values are not known here, so they cannot be set again."""

    name: ClassVar[str] = "secret.lost"
    level: ClassVar[Level] = Level.ERROR
    names: tuple[str, ...]
    hint: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldRefused(FunctionEvent):
    """Kapso answered a write with another value of a field than was sent; it is not sent again until something changes."""

    name: ClassVar[str] = "field.refused"
    level: ClassVar[Level] = Level.ERROR
    field_name: str = field(metadata={"key": "field"})
    wanted: str
    got: str
    hint: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretRemoved(FunctionEvent):
    """A secret that the manifest does not name was removed, as ``secrets_policy: exact`` wants it."""

    name: ClassVar[str] = "secret.removed"
    secret: str = field(metadata={"key": "name"})
