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
from kapso_sync.model.state import Intent, KnownSecrets, Owned
from kapso_sync.reconcile.compare import Difference, Liveness, compare, liveness
from kapso_sync.reconcile.diff import content_diff
from kapso_sync.reconcile.observed import mark_of
from kapso_sync.reconcile.secretplan import Listing, learned_secrets, secret_changes, secrets_at_risk

SECRETS = "secrets"
OWNERSHIP = "ownership"
"""Stand among a step's fields for its secrets, and for the mark in the description; diffs never show either."""


@dataclass(frozen=True)
class Match:
    """What git wants, what Kapso has (``stored`` is its comparable content), what we last wrote, and how they differ.

    ``uncertain`` are earlier deployments that were not seen to end. ``listing`` holds the names of its secrets, where Kapso was
    asked for them; ``reset_secrets``: those that are not known to be ours are set as well.
    ``secret_values`` are git's, whatever content is compared.
    """

    owner: str
    want: DesiredFunction
    remote: RemoteFunction
    base: Owned | None
    stored: Content
    difference: Difference
    uncertain: tuple[Intent, ...] = ()
    listing: Listing | None = None
    reset_secrets: bool = False
    secret_values: Mapping[str, SecretValue] = field(default_factory=dict, repr=False)

    @property
    def renames(self) -> bool:
        """Tell whether the slug on Kapso is another than in git."""
        return self.want.slug != self.remote.slug

    @functools.cached_property
    def mark(self) -> Mark:
        """The ownership mark that the function should carry. Protection stays until the manifest lifts it."""
        said = self.want.entry.protected
        return mark_for(self.owner, self.want.slug, protected=self.protected_before if said is None else said)

    @property
    def protected_before(self) -> bool:
        """Tell whether the function was protected, by its mark or by our memory."""
        mark = mark_of(self.remote)
        return (mark is not None and mark.protected) or (self.base is not None and self.base.protected)

    @property
    def mark_differs(self) -> bool:
        """Tell whether the description must be written for its mark."""
        return self.mark != mark_of(self.remote)

    @functools.cached_property
    def liveness(self) -> Liveness:
        """Whether what is stored is what runs."""
        judged = liveness(self.remote, self.stored, self.base)
        if judged.reason is None and any(not _same_runtime(intent.content, self.stored) for intent in self.uncertain):
            return Liveness("a deployment of older content was not seen to end: what runs may be older")
        if judged.reason is None and self.unproven:
            return Liveness("deployed, and its checks have not passed yet")
        if judged.reason is None and self.known_secrets.undeployed and not self.secrets:
            return Liveness("secrets were set after the last deployment")
        return judged

    @property
    def known_secrets(self) -> KnownSecrets:
        """What we remember of its secrets."""
        return self.base.secrets if self.base is not None else KnownSecrets()

    @property
    def learned_secrets(self) -> KnownSecrets:
        """What is known of its secrets after this look."""
        return learned_secrets(self.known_secrets, self.secrets, self.listing, exact=self.want.entry.exact_secrets)

    @functools.cached_property
    def secrets(self) -> SecretChanges:
        """What is to be done about its secrets."""
        return secret_changes(self.want, self.known_secrets, self.listing, reset=self.reset_secrets)

    @property
    def secrets_at_risk(self) -> tuple[str, ...]:
        """The names of secrets that a deployment may drop for good."""
        return secrets_at_risk(self.want, self.listing)

    @property
    def unproven(self) -> bool:
        """Tell whether git has checks for what was deployed last that have not passed."""
        return bool(self.want.entry.checks) and self.base is not None and self.base.unproven

    @property
    def overlapped(self) -> bool:
        """Tell whether a deployment of other content than git's may still end, after the one that will be asked for."""
        wanted = {**self.stored, **self.want.content}
        return any(not _same_runtime(intent.content, wanted) for intent in self.uncertain)

    @property
    def touches_runtime(self) -> bool:
        """Tell whether what will be written needs a deployment to take effect."""
        return any(name in RUNTIME_CONTENT for name in self.difference.fields)

    @property
    def deploys(self) -> bool:
        """Tell whether a deployment must follow."""
        return self.want.entry.deploy and (self.touches_runtime or self.liveness.reason is not None or self.renames)

    @property
    def payload(self) -> dict[str, Json]:
        """The attributes to send, by name."""
        entry, fields = self.want.entry, self.difference.fields
        payload: dict[str, Json] = {name: entry.fields[name] for name in fields if name != CODE}
        if CODE in fields:
            payload[CODE] = self.want.code
        if DESCRIPTION in fields or self.mark_differs:
            text = entry.fields.get(DESCRIPTION, split_description(self.remote.description)[0])
            payload[DESCRIPTION] = f"{text or ''}{self.mark}"
        if self.renames:
            payload[SLUG] = self.want.slug
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
        new = {**self.stored, **self.want.content}
        return content_diff(self.want.slug, (self.stored, self.remote.code), (new, self.want.code), self.difference.fields)

    def restoring(self, version: Version, *, keep_secrets: bool = False) -> Match:
        """Return the same function beside what ran before, in place of what git wants of it.

        Its secrets are left alone, or with ``keep_secrets`` are git's, and none is removed: the old code may need it.
        """
        fields = {name: version.fields[name] for name in self.want.entry.fields if name in version.fields}
        sources = self.want.entry.secrets if keep_secrets else {}
        entry = replace(self.want.entry, fields=fields, checks=(), secrets=sources, exact_secrets=False)
        want = DesiredFunction(entry, version.code, self.want.secrets if keep_secrets else {})
        return replace(self, want=want, difference=compare(want.content, self.stored, self.base))

    def learned(self) -> Owned:
        """Return what to remember of a function that was found in sync."""
        mark = mark_of(self.remote)
        return Owned(
            slug=self.want.slug,
            function_id=self.remote.id,
            wanted=self.want.content,
            stored=self.stored,
            updated_at=self.remote.updated_at,
            live=self.liveness.live or (self.base.live if self.base else None),
            protected=mark is not None and mark.protected,
            refused_slug=self.base.refused_slug if self.base else None,
            unproven=self.unproven,
            secrets=self.learned_secrets,
            check_requests=self.base.check_requests if self.base else (),
            other_style_tried=self.base.other_style_tried if self.base else None,
        )


def _same_runtime(left: Content, right: Content) -> bool:
    return agree(left, right, RUNTIME_CONTENT)
