"""Setting a function's secrets: what is begun is remembered first, so that no crash leaves one missing and forgotten."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from kapso_sync.errors import ApiError, ApiNotFound, ApiUnsupported
from kapso_sync.model import events
from kapso_sync.model.clock import Clock
from kapso_sync.model.desired import SecretValue
from kapso_sync.model.plan import Overwrite, SecretChanges, Write
from kapso_sync.model.state import KnownSecrets
from kapso_sync.reconcile.ports import FunctionsApi, Store
from kapso_sync.reconcile.secretplan import Listing, learned_secrets, secret_changes
from kapso_sync.reconcile.writer import Written

NO_SECRETS = "does this API base have secrets? https://api.kapso.ai/platform/v1 has"


class SecretKeeper:
    """Carries out a step's changes of secrets; the function must be deployed."""

    def __init__(self, api: FunctionsApi, store: Store, clock: Clock, listener: events.Listener) -> None:
        self._api = api
        self._store = store
        self._clock = clock
        self._emit = listener

    async def apply(self, step: Write, written: Written) -> Written:
        """Remove, rewrite and set; return the function as we know it then. Raises `ApiError` and `StateUnusable`."""
        changes, secrets = step.secrets, step.desired.secrets
        if changes and isinstance(step, Overwrite) and written.owned.secrets.listed_at is None:
            changes, written = await self._look(step, written)
        if changes.removes:
            written = await self._remove(step.slug, changes.removes, written)
        for name in (*changes.rewrites, *changes.sets):
            written = await self._set(step.slug, name, secrets, written, there=name in changes.rewrites)
        return written

    async def _look(self, step: Overwrite, written: Written) -> tuple[SecretChanges, Written]:
        """Ask for names that Kapso did not tell before the function ran: what is there already is not ours to set."""
        try:
            names = await self._api.list_secrets(written.record.id)
        except (ApiNotFound, ApiUnsupported) as error:
            error.hint = NO_SECRETS
            raise
        listing = Listing(frozenset(secret.name for secret in names), self._clock.now())
        known = written.owned.secrets
        changes = secret_changes(step.desired, known, listing, reset=step.reset_secrets)
        return changes, self._remember(
            written, learned_secrets(known, changes, listing, exact=step.desired.entry.exact_secrets)
        )

    async def _remove(self, slug: str, names: Sequence[str], written: Written) -> Written:
        for name in names:
            await self._drop(written.record.id, name)
            known = written.owned.secrets
            written = self._remember(written, replace(known, digests=_without(known.digests, name), undeployed=True))
            self._emit(events.SecretRemoved(slug=slug, function_id=written.record.id, secret=name))
        return written

    async def _set(self, slug: str, name: str, secrets: Mapping[str, SecretValue], written: Written, *, there: bool) -> Written:
        """Set one; a value that is there can only be changed by taking it away first."""
        known, function_id, secret = written.owned.secrets, written.record.id, secrets[name]
        begun = replace(known, digests=_without(known.digests, name), rewriting=_with(known.rewriting, name), undeployed=True)
        written = self._remember(written, begun)
        try:
            if there:
                await self._drop(function_id, name)
            await self._api.set_secret(function_id, name, secret.value)
        except ApiError as error:
            # Kapso may quote what it refuses.
            error.message = error.message.replace(secret.value, "[redacted]")
            if isinstance(error, ApiNotFound | ApiUnsupported):
                error.hint = NO_SECRETS
            raise
        done = replace(
            begun,
            digests={**begun.digests, name: secret.digest},
            rewriting=tuple(other for other in begun.rewriting if other != name),
        )
        self._emit(events.SecretSet(slug=slug, function_id=function_id, secret=name))
        return self._remember(written, done)

    async def _drop(self, function_id: str, name: str) -> None:
        try:
            await self._api.drop_secret(function_id, name)
        except ApiNotFound:
            if any(secret.name == name for secret in await self._api.list_secrets(function_id)):
                raise

    def _remember(self, written: Written, secrets: KnownSecrets) -> Written:
        if secrets.listed_at is None:
            secrets = replace(secrets, listed_at=self._clock.now())
        owned = replace(written.owned, secrets=secrets)
        self._store.remember(owned)
        return replace(written, owned=owned)


def _without(digests: Mapping[str, str], name: str) -> dict[str, str]:
    return {other: digest for other, digest in digests.items() if other != name}


def _with(names: tuple[str, ...], name: str) -> tuple[str, ...]:
    return names if name in names else (*names, name)
