"""From a function of git beside its record on Kapso to the step that one of the planner's rules asks for. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TypeVar

from kapso_sync.model.functions import Content, Version, canonical_json, content_hash
from kapso_sync.model.plan import Adopt, Blocked, Origin, Overwrite, PutBack, Rename, SecretChanges, Update
from kapso_sync.model.state import Quarantine
from kapso_sync.reconcile.compare import Difference
from kapso_sync.reconcile.match import Match

_Kind = TypeVar("_Kind", bound=Overwrite)


def put_back(match: Match, version: Version, quarantine: Quarantine) -> PutBack:
    """Return the step that takes back what failed; it writes nothing where what ran before is stored already."""
    step = overwriting(
        PutBack, match.restoring(version), Origin.RECOVERY, (f"{quarantine.error}; what ran before is put back",)
    )
    return replace(step, desired_hash=content_hash(match.want.content), quarantine=quarantine)


def beside_quarantine(match: Match, version: Version, quarantine: Quarantine) -> Overwrite | None:
    """Return the step for what concerns a quarantined function, and not what failed: its slug and its secrets; else None."""
    held = match.restoring(version, keep_secrets=True)
    if not (held.renames or held.secrets):
        return None
    reasons = (f"moved_from: {match.remote.slug}",) if held.renames else ()
    step = overwriting(Rename if held.renames else Update, held, Origin.GIT, (*reasons, f"in quarantine: {quarantine.error}"))
    return replace(step, desired_hash=content_hash(match.want.content), quarantine=quarantine)


def adopting(match: Match, reason: str, origin: Origin) -> Adopt:
    """Return the step that takes over a function, writing what differs."""
    return overwriting(Adopt, match, origin, (reason,))


def overwriting(kind: type[_Kind], match: Match, origin: Origin, reasons: tuple[str, ...]) -> _Kind:
    """Return a step that changes an existing function; why it must be deployed joins the reasons where the write does not."""
    stale = match.liveness.reason
    if match.deploys and stale is not None and not match.touches_runtime:
        reasons = (*reasons, stale)
    reasons = (*reasons, *secret_reasons(match.secrets))
    return kind(
        slug=match.want.slug,
        function_id=match.remote.id,
        origin=origin,
        fields=match.fields,
        reasons=reasons,
        file=match.want.entry.file,
        desired_hash=content_hash(match.want.content),
        remote_hash=content_hash(match.stored),
        diff=match.diff,
        desired=match.want,
        payload=match.payload,
        deploy=match.deploys,
        protected=match.mark.protected,
        secrets=match.secrets,
        known_secrets=match.learned_secrets,
        reset_secrets=match.reset_secrets,
        secret_values=match.secret_values,
        listed_secrets=match.listing.names if match.listing is not None else frozenset(),
        secrets_at_risk=match.secrets_at_risk,
        remote=match.remote,
        base=match.base,
        live=match.liveness.live,
        unconfirmed=tuple(intent.id for intent in match.uncertain),
        overlapped=match.overlapped and match.deploys,
    )


def blocking(match: Match, *reasons: str) -> Blocked:
    """Return the step that says why nothing is done, and what would allow it."""
    return Blocked(
        slug=match.want.slug,
        function_id=match.remote.id,
        origin=match.difference.origin,
        fields=match.difference.fields,
        reasons=reasons,
        file=match.want.entry.file,
        desired_hash=content_hash(match.want.content),
        remote_hash=content_hash(match.stored),
        diff=match.diff,
        wanted="rename" if match.renames else "update",
    )


def refusing(match: Match) -> Blocked:
    """Return the step for a function whose only difference is what Kapso did not take; nothing is written again."""
    fields = match.difference.refused
    blocked = blocking(match, refusal_text(match.stored, fields), refusal_hint(fields))
    return replace(blocked, fields=fields, refused=fields)


def refusal_text(stored: Content, fields: Iterable[str]) -> str:
    """Return what Kapso kept, such as ``Kapso kept public_endpoint=false``."""
    return "Kapso kept " + ", ".join(f"{name}={canonical_json(stored.get(name))}" for name in fields)


def refusal_hint(fields: Iterable[str]) -> str:
    """Return what a person can do about fields that Kapso did not take."""
    names = ", ".join(f"`{name}`" for name in fields)
    return f"change it in Kapso's dashboard, or take {names} out of git; it is sent again once git or Kapso changes"


def secret_reasons(changes: SecretChanges) -> tuple[str, ...]:
    """Return what is done about secrets, by name."""
    groups = (("sets", changes.sets), ("changes", changes.rewrites), ("removes", changes.removes))
    return tuple(f"{verb} secret {', '.join(names)}" for verb, names in groups if names)


def difference_reasons(difference: Difference) -> tuple[str, ...]:
    """Return who changed what."""
    if not difference.fields:
        return ()
    if not difference.based:
        return (f"differs from git, and nothing is known of our last write: {', '.join(difference.fields)}",)
    git = [name for name in difference.fields if name in difference.by_git]
    there = [name for name in difference.fields if name in difference.on_kapso]
    return (
        *((f"changed in git: {', '.join(git)}",) if git else ()),
        *((f"changed on Kapso: {', '.join(there)}",) if there else ()),
    )
