"""Collects the warnings of a plan: orphans, likely renames, quota, secrets, headers, unknown fields. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kapso_sync.errors import Notice
from kapso_sync.model.api_facts import ApiFacts
from kapso_sync.model.desired import Desired, DesiredFunction
from kapso_sync.model.functions import DeploymentStatus, FunctionType, RemoteFunction
from kapso_sync.model.plan import NoChange, Step
from kapso_sync.model.source import REMOTE_MAP
from kapso_sync.reconcile.plan.observed import Claim, Observed

NAMED = 5
"""Maximum number of slugs that a warning names; it counts the rest."""


def some_of(slugs: Sequence[str]) -> str:
    """Return the first slugs, and how many more there are."""
    more = len(slugs) - NAMED
    return ", ".join(slugs[:NAMED]) + (f" and {more} more" if more > 0 else "")


def orphan_notices(steps: Sequence[Step]) -> tuple[Notice, ...]:
    """Warn of our functions that left git and are kept, in groups by reason."""
    kept: dict[str, list[str]] = {}
    for step in steps:
        if isinstance(step, NoChange) and step.desired_hash is None:
            kept.setdefault(step.reasons[0], []).append(step.slug)
    return tuple(Notice("orphan", f"{reason}: {some_of(slugs)}") for reason, slugs in sorted(kept.items()))


def former_owner_notices(observed: Observed, steps: Sequence[Step]) -> tuple[Notice, ...]:
    """Warn of functions with the mark of a former owner of ours, which this plan does not write."""
    written = {step.function_id for step in steps if step.writes}
    marked: dict[str, list[str]] = {}
    for remote in observed.ours:
        mark = remote.mark
        if mark is not None and remote.id not in written and mark.owner in observed.state.owners - {observed.owner}:
            marked.setdefault(mark.owner, []).append(remote.slug)
    return tuple(
        Notice(
            "owner-changed",
            f"only this state folder knows that functions marked by {owner} are ours: {some_of(sorted(slugs))}; their next "
            f"write brings the new mark, and `kapso-sync sync --take-from {owner}` brings it now",
        )
        for owner, slugs in sorted(marked.items())
    )


def quota_notices(desired: Desired, observed: Observed) -> tuple[Notice, ...]:
    """Warn when git has more Workers than were seen to fit the project's plan."""
    quota = observed.state.quota
    if quota is None:
        return ()
    wanted = {f.slug for f in desired.functions if f.entry.deploy and _is_worker(f, observed.by_slug.get(f.slug))}
    deployed = {f.slug for f in observed.functions if f.status is DeploymentStatus.DEPLOYED and _remote_is_worker(f)}
    total = len(wanted | deployed)
    if total <= quota.fits:
        return ()
    said = f"Kapso said “{quota.message}” at {quota.at}"
    return (Notice("quota", f"{total} functions want to be deployed, {quota.fits} are known to fit: {said}"),)


def secret_notices(
    without: Sequence[str], unverified: Mapping[str, Sequence[str]], at_risk: Mapping[str, Sequence[str]]
) -> tuple[Notice, ...]:
    """Warn of secrets that cannot be set, that cannot be compared, and that a deployment may lose."""
    notices = []
    if at_risk:
        names = some_of([f"{slug} {', '.join(secrets)}" for slug, secrets in sorted(at_risk.items())])
        text = f"a deployment may lose secrets whose values are not known here: {names}"
        notices.append(Notice("secrets-at-risk", f"{text}; give git their values, or set KAPSO_SYNC_UNKNOWN_SECRETS=block"))
    if without:
        notices.append(Notice("no-secrets", f"this API base has no secrets; blocked for that: {some_of(without)}"))
    if unverified:
        names = some_of([f"{slug} {', '.join(secrets)}" for slug, secrets in sorted(unverified.items())])
        text = f"secrets that were there already cannot be compared, and are left alone: {names}"
        notices.append(Notice("unverified-secret", f"{text}; `kapso-sync sync --reset-secrets` sets them"))
    return tuple(notices)


def header_notices(desired: Desired, facts: ApiFacts) -> tuple[Notice, ...]:
    """Warn of checks with headers where those were seen not to reach a function: they are not sent."""
    slugs = [
        function.slug
        for function in desired.functions
        if function.entry.deploy and any(check.after_deployment and check.has_headers for check in function.entry.checks)
    ]
    if facts.headers_reach is not False or not slugs:
        return ()
    text = "headers of an invocation do not reach functions on this API base, as doctor saw"
    return (Notice("headers-lost", f"{text}; checks with `headers` or `sign` are not sent: {some_of(slugs)}"),)


def unknown_field_notices(fields: Mapping[str, Sequence[str]]) -> tuple[Notice, ...]:
    """Warn of managed fields that this API does not show: they are sent with a create, and never compared."""
    return tuple(
        Notice("unknown-field", f"this API shows no `{name}`, so it is not compared: {some_of(slugs)}")
        for name, slugs in sorted(fields.items())
    )


def garbled_notices(observed: Observed) -> tuple[Notice, ...]:
    """Warn of records that cannot be believed; they are left alone."""
    if not observed.garbled:
        return ()
    named = some_of([f"{ascii(record.slug or record.id)[:60]} ({record.reason})" for record in observed.garbled])
    return (Notice("unreadable-record", f"garbled records on Kapso are left alone: {named}"),)


def rename_notices(desired: Desired, observed: Observed) -> tuple[Notice, ...]:
    """Warn of functions that may have been renamed on Kapso, by the ids in the map of a Kapso CLI."""
    notices = []
    for slug, function_id in sorted(desired.remote_ids.items()):
        remote = observed.by_id.get(function_id)
        missing = slug in desired.slugs and slug not in observed.by_slug and slug not in observed.owned_by_slug
        if not missing or remote is None or remote.slug in desired.slugs:
            continue
        if observed.claim(remote) in (Claim.FREE, Claim.OURS):
            text = f"`{slug}` is not on Kapso, but {REMOTE_MAP} knows it by the id of `{remote.slug}`: was it renamed there?"
            notices.append(Notice("renamed-on-kapso", f"{text} Give git the slug `{remote.slug}`, or rename it back"))
    return tuple(notices)


def _is_worker(function: DesiredFunction, remote: RemoteFunction | None) -> bool:
    if "function_type" in function.entry.fields or remote is None:
        return function.entry.function_type is FunctionType.CLOUDFLARE_WORKER
    return _remote_is_worker(remote)


def _remote_is_worker(remote: RemoteFunction) -> bool:
    return remote.fields.get("function_type") != FunctionType.SUPABASE_FUNCTION
