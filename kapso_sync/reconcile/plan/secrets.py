"""Plans the changes of a function's secrets from desired digests, known digests, and the names on Kapso. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from kapso_sync.dataclass import dataclass
from kapso_sync.model.api_facts import ApiFacts
from kapso_sync.model.desired import DesiredFunction
from kapso_sync.model.functions import DeploymentStatus, RemoteFunction, RemoteSecret, SecretType
from kapso_sync.model.plan import Modify, SecretChanges
from kapso_sync.model.policies import UnknownSecrets
from kapso_sync.model.state import InventoryRecord, KnownSecrets

MAX_LISTING_AGE = timedelta(days=1)
"""Names are listed at least this often: somebody may have removed one, and nothing else would show it."""


@dataclass(frozen=True, slots=True)
class SecretListing:
    """The names of the function's own secrets at one time; ``inherited`` ones are the project's.

    ``supported`` False: this API base has no secrets.
    """

    names: frozenset[str]
    at: datetime
    supported: bool = True
    inherited: frozenset[str] = frozenset()


def listing_from(secrets: Iterable[RemoteSecret], at: datetime) -> SecretListing:
    """Return a listing from Kapso's answer."""
    own = {secret.name for secret in secrets if secret.type is not SecretType.INHERITED}
    inherited = {secret.name for secret in secrets if secret.type is SecretType.INHERITED}
    return SecretListing(frozenset(own), at, inherited=frozenset(inherited))


def listing_needed(want: DesiredFunction, remote: RemoteFunction, owned: InventoryRecord | None, now: datetime) -> bool:
    """Return whether names must be listed: something is unsettled, somebody changed the function, or it is time.

    A change of git's policy to ``exact`` counts as unsettled as well.
    """
    unchecked = owned is not None and owned.secrets.unchecked
    named = want.secrets or want.kept or want.entry.exact_secrets or unchecked
    if remote.status is not DeploymentStatus.DEPLOYED or not want.entry.deploy or not named:
        return False
    if owned is None:
        return True
    known = owned.secrets
    unknown = [name for name in want.secrets if name not in known.unverified and not _comparable(want, name, known)]
    due = known.listed_at is None or not timedelta(0) <= now - known.listed_at < MAX_LISTING_AGE
    stricter = want.entry.exact_secrets and not known.exact
    return bool(known.unchecked or known.rewriting or unknown or due or stricter or remote.updated_at != owned.updated_at)


def _comparable(want: DesiredFunction, name: str, known: KnownSecrets) -> bool:
    """Return whether the digest of a secret was made with the present key."""
    digest = known.digests.get(name)
    return digest is not None and digest.partition(":")[0] == want.secrets[name].digest.partition(":")[0]


def secret_changes(want: DesiredFunction, known: KnownSecrets, listing: SecretListing | None, *, reset: bool) -> SecretChanges:
    """Return the secrets to set, to change and to remove. With ``reset``, secrets that cannot be compared are set as well."""
    if not want.entry.deploy:
        return SecretChanges()
    names = listing.names if listing is not None else None
    setting, rewriting, unverified = list[str](), list[str](), list[str]()
    for name in sorted(want.secrets):
        there = name in names if names is not None else name in known.digests or name in known.unverified
        same = _comparable(want, name, known) and known.digests[name] == want.secrets[name].digest
        if name in known.rewriting:
            (rewriting if names is None or there else setting).append(name)
        elif same and (names is None or there):
            continue
        elif not there:
            setting.append(name)
        elif _comparable(want, name, known) or reset:
            rewriting.append(name)
        else:
            unverified.append(name)
    present = names if names is not None else known.digests.keys()
    doomed = sorted(present - want.entry.secrets.keys()) if want.entry.exact_secrets else []
    return SecretChanges(tuple(setting), tuple(rewriting), tuple(doomed), tuple(unverified))


def missing_kept(want: DesiredFunction, listing: SecretListing | None) -> tuple[str, ...]:
    """Return the names that git marks as kept and that Kapso does not list; empty if Kapso was not asked."""
    if listing is None or not want.entry.deploy:
        return ()
    return tuple(sorted(want.kept - listing.names - listing.inherited))


def lost_since(want: DesiredFunction, known: KnownSecrets, listing: SecretListing | None) -> tuple[str, ...]:
    """Return the names that a deployment lost and that were not reported yet: a process died, or the call failed.

    Under ``exact``, names that the manifest does not have are no loss: they were to be removed.
    """
    if listing is None or not known.unchecked:
        return ()
    before = {*known.before} & want.entry.secrets.keys() if want.entry.exact_secrets else {*known.before}
    return tuple(sorted(before - listing.names - listing.inherited - want.secrets.keys()))


def secrets_at_risk(want: DesiredFunction, listing: SecretListing | None, values: Collection[str]) -> tuple[str, ...]:
    """Return the names of secrets on Kapso that a deployment may drop; those with ``values`` in git are set again."""
    if listing is None:
        return ()
    removed = listing.names - want.entry.secrets.keys() if want.entry.exact_secrets else frozenset[str]()
    return tuple(sorted(listing.names - {*values} - removed))


def blocks_deployment(policy: UnknownSecrets, facts: ApiFacts) -> bool:
    """Return whether a deployment is blocked that may drop secrets which have no value in git."""
    return policy is UnknownSecrets.BLOCK or (policy is UnknownSecrets.AUTO and facts.secrets_survive is False)


def risk_text(step: Modify) -> str:
    """Return the error text for a deployment that may lose secrets.

    ``TOKEN, which git no longer names`` is one that we set; by the policy ``leave`` it stays on Kapso until somebody decides.
    """
    unknown, dropped = _at_risk(step)
    groups = ((unknown, "whose value is not known here"), (dropped, "which git no longer names"))
    return "a deployment may lose secret " + ", and ".join(f"{', '.join(names)}, {what}" for names, what in groups if names)


def risk_hint(step: Modify) -> str:
    """Return what lets the deployment go on. If git dropped all of them on purpose, nothing that puts others at risk."""
    unknown, dropped = _at_risk(step)
    if not dropped:
        return f"give git its value under `secrets`, or set {_ALLOW}"
    if not unknown:
        return (
            "give git its value again, or delete it in Kapso's dashboard; `secrets_policy: exact` under `defaults` removes it, "
            "and every other secret that the manifest does not name"
        )
    return (
        f"{', '.join(unknown)}: give git its value under `secrets`, or set {_ALLOW}; "
        f"{', '.join(dropped)}: give git its value again, or delete it in Kapso's dashboard"
    )


_ALLOW = "KAPSO_SYNC_UNKNOWN_SECRETS=allow"


def _at_risk(step: Modify) -> tuple[list[str], list[str]]:
    """Return the names of secrets at risk that are unknown, and of those that we set and that git no longer names."""
    ours = {*step.known_secrets.digests, *step.known_secrets.rewriting} - step.desired.entry.secrets.keys()
    names = step.secrets_at_risk
    return [name for name in names if name not in ours], [name for name in names if name in ours]


def lost_text(names: Iterable[str]) -> str:
    """Return the error text for lost secrets that have no value in git."""
    return f"lost secret {', '.join(names)}: it is gone from Kapso, and its value is not known here"


LOST_HINT = "set it in Kapso's dashboard, or give git its value with `secrets: {NAME: {env: …}}`"


def learned_secrets(known: KnownSecrets, changes: SecretChanges, listing: SecretListing | None, *, exact: bool) -> KnownSecrets:
    """Return the known secrets before anything is changed; ``exact``: other names are going to be removed."""
    if listing is None:
        return known
    gone = known.digests.keys() - listing.names
    digests: Mapping[str, str] = {name: digest for name, digest in known.digests.items() if name not in gone}
    return replace(
        known,
        digests=digests,
        unverified=changes.unverified,
        listed_at=listing.at,
        exact=exact,
        unchecked=False,
        before=(),
    )
