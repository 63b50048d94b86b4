"""Sets a function's secrets, and lists their names after every deployment, since a deployment may drop them.

Each change is recorded before it starts, so that no crash leaves a secret missing and forgotten.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from kapso_sync.dataclass import dataclass
from kapso_sync.errors import ApiError, ApiNotFound, ApiUnsupported, SecretNameTaken
from kapso_sync.model import events
from kapso_sync.model.api_facts import ApiFacts
from kapso_sync.model.clock import Clock
from kapso_sync.model.desired import SecretValue
from kapso_sync.model.functions import RemoteFunction, RemoteSecret
from kapso_sync.model.plan import Modify, NoChange, Plan, Rename, SecretChanges, Write
from kapso_sync.model.ports import FunctionsApi, Store
from kapso_sync.model.state import KnownSecrets
from kapso_sync.reconcile.apply.writer import Written
from kapso_sync.reconcile.plan.secrets import LOST_HINT, SecretListing, learned_secrets, listing_from, secret_changes

NO_SECRETS = "does this API base have secrets? https://api.kapso.ai/platform/v1 has"


@dataclass(frozen=True, slots=True)
class _Target:
    """The function that gets secrets: its slug, its record, and the values from git."""

    slug: str
    record: RemoteFunction
    values: Mapping[str, SecretValue]


class SecretApplier:
    """Applies a step's changes of secrets; the function must be deployed.

    ``facts`` is the observed behaviour of this API base; new observations of this pass are added and stored.
    """

    def __init__(self, api: FunctionsApi, store: Store, clock: Clock, emit: events.Listener, facts: ApiFacts) -> None:
        self._api = api
        self._store = store
        self._clock = clock
        self._emit = emit
        self.facts = facts

    async def apply(self, step: Write, written: Written) -> Written:
        """Remove, change and set secrets; return the updated function. Raises `ApiError` and `StateUnusable`."""
        changes = step.secrets
        if changes and isinstance(step, Modify) and written.owned.secrets.listed_at is None:
            changes, written = await self._look(step, written)
        for name in changes.removes:
            written = await self._remove(step.slug, name, written)
        target = _Target(step.slug, written.record, step.secret_values)
        for name in (*changes.rewrites, *changes.sets):
            written = await self._set(target, name, written)
        return written

    def before_deployment(self, step: Write, written: Written) -> Written:
        """Record the names before a deployment, if it may lose one for good. Raises `StateUnusable`.

        Deployments take long: if the process dies meanwhile, or the deployment fails, the next pass looks for these names.
        """
        known = written.owned.secrets
        before = {*written.present_secrets, *known.digests, *known.before}
        if before <= step.secret_values.keys() or (known.unchecked and before == {*known.before}):
            return written
        return self._remember(written, replace(known, unchecked=True, before=tuple(sorted(before))))

    async def after_deployment(self, step: Write, written: Written) -> Written:
        """List the names after a deployment, set dropped secrets with a value in git again, and report the lost ones.

        Raises `ApiError` and `StateUnusable`; then the next pass lists the names, since the deployment is recorded as
        unchecked.

        A function that had A (git has its value) and B (set by hand in the dashboard), on a base that drops secrets: the list
        is empty after the deployment, A is set again, and B is reported as lost.
        """
        before = {*written.present_secrets, *written.owned.secrets.digests, *written.owned.secrets.before}
        expected = before | step.desired.kept
        if not expected:
            return written
        listing = listing_from(await self._list(written.record.id), self._clock.now())
        self._learn(step, written.present_secrets, listing)
        pending = {*step.secrets.sets, *step.secrets.rewrites} - written.owned.secrets.digests.keys()
        dropped = sorted((before & step.secret_values.keys()) - listing.names - pending)
        lost = sorted(expected - listing.names - listing.inherited - step.secret_values.keys() - {*step.secrets.removes})
        written = self._remember(written, _without(written.owned.secrets, (*dropped, *lost)))
        target = _Target(step.slug, written.record, step.secret_values)
        for name in dropped:
            written = await self._set(target, name, written)
        if lost:
            self._tell_lost(step, written, tuple(lost))
        known = replace(written.owned.secrets, undeployed=False, unchecked=False, before=(), listed_at=listing.at)
        written = self._remember(written, known)
        return replace(written, present_secrets=listing.names | {*dropped}, lost_secrets=(*written.lost_secrets, *lost))

    def after_write(self, step: Write, written: Written) -> Written:
        """Report what an earlier deployment lost, unless a deployment of this step was followed by that report."""
        if not isinstance(step, Modify) or not step.lost_secrets or not written.owned.secrets.unchecked:
            return written
        self._tell_lost(step, written, step.lost_secrets)
        written = self._remember(written, replace(written.owned.secrets, unchecked=False, before=()))
        return replace(written, lost_secrets=step.lost_secrets)

    def settled_without_deployment(self, written: Written) -> Written:
        """Return the function with its new secrets, without a deployment: on a base that drops secrets, it would lose them."""
        return self._remember(written, replace(written.owned.secrets, undeployed=False))

    def _learn(self, step: Write, before: frozenset[str], listing: SecretListing) -> None:
        """Store whether this base keeps secrets; a rename proves nothing, since it changes the script as well."""
        if not before or isinstance(step, Rename):
            return
        self.learn(replace(self.facts, secrets_survive=before - {*step.secrets.removes} <= listing.names))

    def learn_from_losses(self, plan: Plan) -> None:
        """Store that this base drops secrets, if nothing else is known and one that was there before a deployment is gone.

        Where a deployment was seen to keep them, a person may have removed it, or a change of slug. Raises `StateUnusable`.
        """
        lost = any(isinstance(step, NoChange | Modify) and step.lost_secrets for step in plan.steps)
        if lost and self.facts.secrets_survive is None:
            self.learn(replace(self.facts, secrets_survive=False))

    def learn(self, facts: ApiFacts) -> None:
        """Store the observed behaviour of this API base, if it is new. Raises `StateUnusable`."""
        if facts != self.facts:
            self.facts = facts
            self._store.learn(facts)

    def _tell_lost(self, step: Write, written: Written, names: tuple[str, ...]) -> None:
        self._emit(events.SecretLost(slug=step.slug, function_id=written.record.id, names=names, hint=LOST_HINT))

    async def _look(self, step: Modify, written: Written) -> tuple[SecretChanges, Written]:
        """List the names, which Kapso does not show before the function runs; existing ones are not ours to set."""
        listing = listing_from(await self._list(written.record.id), self._clock.now())
        known = written.owned.secrets
        changes = secret_changes(step.desired, known, listing, reset=step.reset_secrets)
        written = replace(written, present_secrets=listing.names)
        return changes, self._remember(
            written, learned_secrets(known, changes, listing, exact=step.desired.entry.exact_secrets)
        )

    async def _list(self, function_id: str) -> Sequence[RemoteSecret]:
        try:
            return await self._api.list_secrets(function_id)
        except (ApiNotFound, ApiUnsupported) as error:
            error.hint = NO_SECRETS
            raise

    async def _remove(self, slug: str, name: str, written: Written) -> Written:
        await self._drop(written.record.id, name)
        written = self._remember(written, replace(_without(written.owned.secrets, (name,)), undeployed=True))
        self._emit(events.SecretRemoved(slug=slug, function_id=written.record.id, secret=name))
        return replace(written, present_secrets=written.present_secrets - {name})

    async def _set(self, target: _Target, name: str, written: Written) -> Written:
        """Set one secret. The old value is deleted first only if Kapso calls the name taken."""
        known, function_id, secret = written.owned.secrets, target.record.id, target.values[name]
        begun = replace(_without(known, (name,)), rewriting=_with(known.rewriting, name), undeployed=True)
        written = self._remember(written, begun)
        try:
            try:
                await self._api.set_secret(function_id, name, secret.value)
            except SecretNameTaken:
                await self._drop(function_id, name)
                await self._api.set_secret(function_id, name, secret.value)
        except ApiError as error:
            if isinstance(error, ApiNotFound | ApiUnsupported):
                error.hint = NO_SECRETS
            raise
        done = replace(
            begun,
            digests={**begun.digests, name: secret.digest},
            rewriting=tuple(other for other in begun.rewriting if other != name),
        )
        self._emit(events.SecretSet(slug=target.slug, function_id=function_id, secret=name))
        written = self._remember(written, done)
        return replace(written, present_secrets=written.present_secrets | {name})

    async def _drop(self, function_id: str, name: str) -> None:
        try:
            await self._api.delete_secret(function_id, name)
        except ApiNotFound:
            if any(secret.name == name for secret in await self._api.list_secrets(function_id)):
                raise

    def _remember(self, written: Written, secrets: KnownSecrets) -> Written:
        if secrets.listed_at is None:
            secrets = replace(secrets, listed_at=self._clock.now())
        owned = replace(written.owned, secrets=secrets)
        self._store.remember(owned)
        return replace(written, owned=owned)


def _without(known: KnownSecrets, names: Iterable[str]) -> KnownSecrets:
    gone = {*names}
    return replace(
        known,
        digests={name: digest for name, digest in known.digests.items() if name not in gone},
        unverified=tuple(name for name in known.unverified if name not in gone),
    )


def _with(names: tuple[str, ...], name: str) -> tuple[str, ...]:
    return names if name in names else (*names, name)
