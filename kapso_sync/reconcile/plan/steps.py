"""Builds steps from a comparison. The planner uses it, and `apply` for a rollback, so that both say the same. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TypeVar

from kapso_sync.model.desired import DesiredFunction
from kapso_sync.model.functions import CODE, FIELDS, Content, Version, code_hash, content_hash
from kapso_sync.model.json_values import canonical_json
from kapso_sync.model.plan import (
    Adopt,
    Blocked,
    BlockedBy,
    Modify,
    Origin,
    Rename,
    Rollback,
    SecretChanges,
    Update,
)
from kapso_sync.model.state import Quarantine, QuarantineReason, WatchFinding
from kapso_sync.reconcile.plan.comparison import Difference, FunctionComparison, content_diff

_Kind = TypeVar("_Kind", bound=Modify)


def rolling_back(comparison: FunctionComparison, version: Version, quarantine: Quarantine) -> Rollback:
    """Return the step that restores the previous version; it writes nothing if that is stored already."""
    restored = comparison.restoring(version)
    step = overwriting(Rollback, restored, Origin.RECOVERY, (f"{quarantine.error}; the previous version is restored",))
    return _holding_back(step, comparison, restored, quarantine)


def _holding_back(step: _Kind, comparison: FunctionComparison, restored: FunctionComparison, quarantine: Quarantine) -> _Kind:
    """Return a step after which the previous version runs, with what git says and does not get: its hash and the diff."""
    want, runs = comparison.desired, restored.desired
    names = [name for name in (*FIELDS, CODE) if name in want.content and want.content[name] != runs.content.get(name)]
    held_back = content_diff(want.slug, (runs.content, runs.code), (want.content, want.code), names)
    return replace(step, desired_hash=content_hash(want.content), quarantine=quarantine, held_back=held_back)


def watch_quarantine(want: DesiredFunction, found: WatchFinding, version: Version) -> Quarantine:
    """Return the quarantine of a version whose invocations failed after its deployment."""
    return Quarantine(
        attempt=want.attempt,
        fault=QuarantineReason.WATCH,
        error=found.error,
        code=code_hash(want.code),
        restored=code_hash(version.code),
        at=found.at,
        evidence=found.evidence,
    )


def beside_quarantine(comparison: FunctionComparison, version: Version, quarantine: Quarantine) -> Modify | None:
    """Return the step for the slug and the secrets of a quarantined function, or None if they do not change."""
    held = comparison.restoring(version, keep_secrets=True)
    if not (held.renames or held.secrets):
        return None
    reasons = (f"moved_from: {comparison.remote.slug}",) if held.renames else ()
    step = overwriting(Rename if held.renames else Update, held, Origin.GIT, (*reasons, f"in quarantine: {quarantine.error}"))
    return _holding_back(step, comparison, held, quarantine)


def adopting(comparison: FunctionComparison, reason: str, origin: Origin) -> Adopt:
    """Return the step that adopts a function and writes the differences."""
    return overwriting(Adopt, comparison, origin, (reason,))


def overwriting(kind: type[_Kind], comparison: FunctionComparison, origin: Origin, reasons: tuple[str, ...]) -> _Kind:
    """Return a step that changes an existing function, with the reason for its deployment if the write does not explain it."""
    stale = comparison.liveness.reason
    if comparison.deploys and stale is not None and not comparison.touches_runtime:
        reasons = (*reasons, stale)
    reasons = (*reasons, *secret_reasons(comparison.secrets), *flow_reasons(comparison.attach_to))
    return kind(
        slug=comparison.desired.slug,
        function_id=comparison.remote.id,
        origin=origin,
        fields=comparison.fields,
        reasons=reasons,
        file=comparison.desired.entry.file,
        desired_hash=content_hash(comparison.desired.content),
        remote_hash=content_hash(comparison.remote_content),
        diff=comparison.diff,
        desired=comparison.desired,
        payload=comparison.payload,
        deploy=comparison.deploys,
        protected=comparison.mark.protected,
        secrets=comparison.secrets,
        known_secrets=comparison.learned_secrets,
        reset_secrets=comparison.reset_secrets,
        refused=comparison.difference.refused,
        secret_values=comparison.secret_values,
        listed_secrets=comparison.listing.names if comparison.listing is not None else frozenset(),
        secrets_at_risk=comparison.secrets_at_risk,
        remote=comparison.remote,
        last_applied=comparison.last_applied,
        live=comparison.liveness.live,
        unconfirmed=tuple(intent.id for intent in comparison.uncertain),
        overlapped=comparison.overlapped if comparison.deploys else 0,
        attach_to=comparison.attach_to,
    )


def blocking(comparison: FunctionComparison, by: BlockedBy, reason: str, hint: str | None) -> Blocked:
    """Return the blocked step, with the reason and with what would allow it."""
    return Blocked(
        by=by,
        hint=hint,
        slug=comparison.desired.slug,
        function_id=comparison.remote.id,
        origin=comparison.difference.origin,
        fields=comparison.difference.fields,
        reasons=(reason,),
        file=comparison.desired.entry.file,
        desired_hash=content_hash(comparison.desired.content),
        remote_hash=content_hash(comparison.remote_content),
        diff=comparison.diff,
        wanted="rename" if comparison.renames else "update",
    )


def refusing(comparison: FunctionComparison) -> Blocked:
    """Return the step for a function that differs only by refused fields; nothing is written again."""
    fields = comparison.difference.refused
    reason, hint = refusal_text(comparison.remote_content, fields), refusal_hint(fields)
    blocked = blocking(comparison, BlockedBy.REFUSED_FIELD, reason, hint)
    return replace(blocked, fields=fields, refused=fields)


def refusal_text(remote_content: Content, fields: Iterable[str]) -> str:
    """Return the values that Kapso kept, such as ``Kapso kept public_endpoint=false``."""
    return "Kapso kept " + ", ".join(f"{name}={canonical_json(remote_content.get(name))}" for name in fields)


def refusal_hint(fields: Iterable[str]) -> str:
    """Return what a person can do about refused fields."""
    names = ", ".join(f"`{name}`" for name in fields)
    return f"change it in Kapso's dashboard, or take {names} out of git; it is sent again once git or Kapso changes"


def secret_reasons(changes: SecretChanges) -> tuple[str, ...]:
    """Return the changes of secrets, by name."""
    groups = (("sets", changes.sets), ("changes", changes.rewrites), ("removes", changes.removes))
    return tuple(f"{verb} secret {', '.join(names)}" for verb, names in groups if names)


def flow_reasons(flow: str | None) -> tuple[str, ...]:
    """Return the reason for attaching a function to a WhatsApp Flow, if it is to be."""
    return () if flow is None else (f"becomes the data endpoint of WhatsApp Flow {flow}",)


def difference_reasons(difference: Difference) -> tuple[str, ...]:
    """Return the reasons: which fields git changed, and which Kapso."""
    if not difference.fields:
        return ()
    if not difference.based:
        return (f"differs from git, and our last write is unknown: {', '.join(difference.fields)}",)
    git = [name for name in difference.fields if name in difference.by_git]
    there = [name for name in difference.fields if name in difference.on_kapso]
    return (
        *((f"changed in git: {', '.join(git)}",) if git else ()),
        *((f"changed on Kapso: {', '.join(there)}",) if there else ()),
    )
