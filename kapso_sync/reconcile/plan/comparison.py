"""A function of git laid beside its record on Kapso: everything that a plan needs to know of the pair. Pure."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from kapso_sync.model.desired import DesiredFunction, SecretValue
from kapso_sync.model.functions import (
    CODE,
    DESCRIPTION,
    RUNTIME_CONTENT,
    SLUG,
    Content,
    Json,
    RemoteFunction,
    Version,
    agree,
)
from kapso_sync.model.ownership import Mark, mark_for, split_description
from kapso_sync.model.plan import SecretChanges
from kapso_sync.model.state import Intent, InventoryRecord, KnownSecrets
from kapso_sync.reconcile.plan.diff import content_diff
from kapso_sync.reconcile.plan.difference import Difference, Liveness, compare, liveness
from kapso_sync.reconcile.plan.observed import mark_of
from kapso_sync.reconcile.plan.secrets import SecretListing, learned_secrets, secret_changes, secrets_at_risk

SECRETS = "secrets"
OWNERSHIP = "ownership"
"""Stand among a step's fields for its secrets, and for the mark in the description; diffs never show either."""


@dataclass(frozen=True)
class FunctionComparison:
    """What git wants, what Kapso has (``remote_content`` is its comparable content), what we last wrote, and how they differ.

    ``uncertain`` are earlier deployments that were not seen to end. ``listing`` holds the names of its secrets, where Kapso was
    asked for them; ``reset_secrets``: those that are not known to be ours are set as well.
    ``secret_values`` are git's, whatever content is compared.
    """

    owner: str
    desired: DesiredFunction
    remote: RemoteFunction
    last_applied: InventoryRecord | None
    remote_content: Content
    difference: Difference
    uncertain: tuple[Intent, ...] = ()
    listing: SecretListing | None = None
    reset_secrets: bool = False
    secret_values: Mapping[str, SecretValue] = field(default_factory=dict, repr=False)

    @property
    def renames(self) -> bool:
        """Tell whether the slug on Kapso is another than in git."""
        return self.desired.slug != self.remote.slug

    @functools.cached_property
    def mark(self) -> Mark:
        """The ownership mark that the function should carry. Protection stays until the manifest lifts it."""
        said = self.desired.entry.protected
        return mark_for(self.owner, self.desired.slug, protected=self.protected_before if said is None else said)

    @property
    def protected_before(self) -> bool:
        """Tell whether the function was protected, by its mark or by our memory."""
        mark = mark_of(self.remote)
        return (mark is not None and mark.protected) or (self.last_applied is not None and self.last_applied.protected)

    @property
    def mark_differs(self) -> bool:
        """Tell whether the description must be written for its mark."""
        return self.mark != mark_of(self.remote)

    @functools.cached_property
    def liveness(self) -> Liveness:
        """Whether what is stored is what runs."""
        judged = liveness(self.remote, self.remote_content, self.last_applied)
        if judged.reason is None and any(not _same_runtime(intent.content, self.remote_content) for intent in self.uncertain):
            return Liveness("a deployment of older content was not seen to end: what runs may be older")
        if judged.reason is None and self.unproven:
            return Liveness("deployed, and its checks have not passed yet")
        if judged.reason is None and self.known_secrets.undeployed and not self.secrets:
            return Liveness("secrets were set after the last deployment")
        return judged

    @property
    def known_secrets(self) -> KnownSecrets:
        """What we remember of its secrets."""
        return self.last_applied.secrets if self.last_applied is not None else KnownSecrets()

    @property
    def learned_secrets(self) -> KnownSecrets:
        """What is known of its secrets after this look."""
        return learned_secrets(self.known_secrets, self.secrets, self.listing, exact=self.desired.entry.exact_secrets)

    @functools.cached_property
    def secrets(self) -> SecretChanges:
        """What is to be done about its secrets."""
        return secret_changes(self.desired, self.known_secrets, self.listing, reset=self.reset_secrets)

    @property
    def secrets_at_risk(self) -> tuple[str, ...]:
        """The names of secrets that a deployment may drop for good."""
        return secrets_at_risk(self.desired, self.listing)

    @property
    def unproven(self) -> bool:
        """Tell whether git has checks for what was deployed last that have not passed."""
        return bool(self.desired.entry.checks) and self.last_applied is not None and self.last_applied.unproven

    @property
    def overlapped(self) -> bool:
        """Tell whether a deployment of other content than git's may still end, after the one that will be asked for."""
        wanted = {**self.remote_content, **self.desired.content}
        return any(not _same_runtime(intent.content, wanted) for intent in self.uncertain)

    @property
    def touches_runtime(self) -> bool:
        """Tell whether what will be written needs a deployment to take effect."""
        return any(name in RUNTIME_CONTENT for name in self.difference.fields)

    @property
    def deploys(self) -> bool:
        """Tell whether a deployment must follow."""
        return self.desired.entry.deploy and (self.touches_runtime or self.liveness.reason is not None or self.renames)

    @property
    def payload(self) -> dict[str, Json]:
        """The attributes to send, by name."""
        entry, fields = self.desired.entry, self.difference.fields
        payload: dict[str, Json] = {name: entry.fields[name] for name in fields if name != CODE}
        if CODE in fields:
            payload[CODE] = self.desired.code
        if DESCRIPTION in fields or self.mark_differs:
            text = entry.fields.get(DESCRIPTION, split_description(self.remote.description)[0])
            payload[DESCRIPTION] = f"{text or ''}{self.mark}"
        if self.renames:
            payload[SLUG] = self.desired.slug
        return payload

    @property
    def fields(self) -> tuple[str, ...]:
        """The names of what differs, as people should read them."""
        marked = self.mark_differs and DESCRIPTION not in self.difference.fields
        extra = (*((OWNERSHIP,) if marked else ()), *((SECRETS,) if self.secrets else ()))
        return (*((SLUG,) if self.renames else ()), *self.difference.fields, *extra)

    @property
    def diff(self) -> str:
        """The unified diff from Kapso's version to git's."""
        new = {**self.remote_content, **self.desired.content}
        return content_diff(
            self.desired.slug, (self.remote_content, self.remote.code), (new, self.desired.code), self.difference.fields
        )

    def restoring(self, version: Version, *, keep_secrets: bool = False) -> FunctionComparison:
        """Return the same function beside what ran before, in place of what git wants of it.

        Its secrets are left alone, or with ``keep_secrets`` are git's, and none is removed: the old code may need it.
        """
        fields = {name: version.fields[name] for name in self.desired.entry.fields if name in version.fields}
        sources = self.desired.entry.secrets if keep_secrets else {}
        entry = replace(self.desired.entry, fields=fields, checks=(), secrets=sources, exact_secrets=False)
        desired = DesiredFunction(entry, version.code, self.desired.secrets if keep_secrets else {})
        return replace(self, desired=desired, difference=compare(desired.content, self.remote_content, self.last_applied))

    def learned(self) -> InventoryRecord:
        """Return what to remember of a function that was found in sync."""
        mark = mark_of(self.remote)
        return InventoryRecord(
            slug=self.desired.slug,
            function_id=self.remote.id,
            wanted=self.desired.content,
            stored=self.remote_content,
            updated_at=self.remote.updated_at,
            live=self.liveness.live or (self.last_applied.live if self.last_applied else None),
            protected=mark is not None and mark.protected,
            refused_slug=self.last_applied.refused_slug if self.last_applied else None,
            unproven=self.unproven,
            secrets=self.learned_secrets,
            check_requests=self.last_applied.check_requests if self.last_applied else (),
            other_style_tried=self.last_applied.other_style_tried if self.last_applied else None,
        )


def _same_runtime(left: Content, right: Content) -> bool:
    return agree(left, right, RUNTIME_CONTENT)
