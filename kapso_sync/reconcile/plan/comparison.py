"""Compares one function three ways: git's content, Kapso's content, and the last applied content. Pure."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from datetime import timedelta

from kapso_sync.dataclass import dataclass
from kapso_sync.model.desired import DesiredFunction, SecretValue
from kapso_sync.model.functions import (
    CODE,
    DESCRIPTION,
    EXACT_FIELDS,
    FIELDS,
    RUNTIME_CONTENT,
    SLUG,
    Content,
    DeploymentStatus,
    RemoteFunction,
    Version,
    agree,
)
from kapso_sync.model.json_values import Json, canonical_json, same_json
from kapso_sync.model.ownership import AppliedDigests, Mark, comparable_owner, is_marked, mark_for
from kapso_sync.model.plan import Origin, SecretChanges
from kapso_sync.model.state import NO_SECRETS, Intent, InventoryRecord, KnownSecrets, LiveContent
from kapso_sync.reconcile.plan.last_applied import applied_by, changing_secrets_digest
from kapso_sync.reconcile.plan.line_ends import comparable_content
from kapso_sync.reconcile.plan.secrets import SecretListing, learned_secrets, secret_changes, secrets_at_risk

CHANGED_LINES_LIMIT = 2_000
"""Beyond this many changed lines on either side no line-by-line diff is computed: difflib takes quadratic time."""


def content_diff(
    slug: str,
    old: tuple[Content, str | None],
    new: tuple[Content, str | None],
    fields: Sequence[str],
    sides: tuple[str, str] = ("kapso", "git"),
) -> str:
    """Return the diff of the named fields and, where ``code`` is among them, of the code.

    ``old`` and ``new`` are a content and the code's text (None: not there, or unknown), and ``sides`` are their names. The
    result is empty or ends with a newline.
    """
    left, right = (f"{side}/{slug}" for side in sides)
    names = [name for name in fields if name != CODE]
    before = [line for name in names for line in _field_lines(old[0], name)]
    after = [line for name in names for line in _field_lines(new[0], name)]
    parts = [_unified(before, after, f"{left} (fields)", f"{right} (fields)")]
    if CODE in fields:
        parts.append(_unified(_lines(old[1]), _lines(new[1]), f"{left} (code)", f"{right} (code)"))
    return "".join(parts)


def file_diff(path: str, old: str | None, new: str) -> str:
    """Return the diff from one text of a file to another (``old`` None: there is no file); empty or ending with a newline."""
    return _unified(_lines(old), _lines(new), f"a/{path}", f"b/{path}")


def _field_lines(content: Content, name: str) -> list[str]:
    if name not in content:
        return []
    value = content[name]
    if isinstance(value, str) and "\n" in value:  # whose second line could look like a change of something else
        return [f"{name}: |\n", *(f"  {line}\n" for line in value.splitlines())]
    return [f"{name}: {value if isinstance(value, str) else canonical_json(value)}\n"]


def _lines(text: str | None) -> list[str]:
    """Split at newlines only: other line separators are part of the line, and must not be hidden."""
    if not text:
        return []
    lines = [f"{line}\n" for line in text.split("\n")]
    if text.endswith("\n"):
        lines.pop()
    else:
        lines[-1] += "\\ No newline at end of file\n"
    return lines


def _unified(old: list[str], new: list[str], old_name: str, new_name: str) -> str:
    if old == new:
        return ""
    from_name, to_name = (old_name if old else "/dev/null"), (new_name if new else "/dev/null")
    head = _common(old, new)
    tail = _common(old[head:][::-1], new[head:][::-1])
    changed = max(len(old), len(new)) - head - tail
    if old and new and changed > CHANGED_LINES_LIMIT:
        removed, added = len(old) - head - tail, len(new) - head - tail
        return f"--- {from_name}\n+++ {to_name}\n@@ {removed} lines replaced by {added}, too many to compare line by line @@\n"
    import difflib  # noqa: PLC0415 - most passes find no difference

    return "".join(difflib.unified_diff(old, new, from_name, to_name))


def _common(old: Sequence[str], new: Sequence[str]) -> int:
    count = 0
    for left, right in zip(old, new, strict=False):
        if left != right:
            break
        count += 1
    return count


LIVE_SLACK = timedelta(seconds=5)
"""After a deployment both times were seen equal to the second; further apart they belong to two events."""


@dataclass(frozen=True, slots=True)
class Difference:
    """The differences of a function's managed content, in the order in which fields are shown, and who made them.

    ``refused`` are fields that were sent and that Kapso kept as they were: they are not sent again until git or Kapso changes.
    ``unknown`` are fields that the record lacks: they are not compared.
    """

    fields: tuple[str, ...]
    by_git: frozenset[str]
    on_kapso: frozenset[str]
    based: bool
    refused: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()

    @property
    def origin(self) -> Origin | None:
        """The origin of the difference; if there is no last applied content, any difference is a conflict."""
        if not self.fields:
            return None
        if not self.based or (self.by_git and self.on_kapso):
            return Origin.CONFLICT
        return Origin.DRIFT if self.on_kapso else Origin.GIT


def compare(wanted: Content, stored: Content, last_applied: InventoryRecord | None) -> Difference:
    """Return which managed fields must be written.

    Code or a text that neither side changed since our last write is in sync even where its value is not the one we sent:
    Kapso stores some values in its own spelling. Any other field of that kind was refused.

    >>> last_applied.wanted["public_endpoint"], last_applied.stored["public_endpoint"]   # sent, and kept as it was
    (True, False)
    >>> compare({"public_endpoint": True}, {"public_endpoint": False}, last_applied).refused
    ('public_endpoint',)
    """
    ordered = [name for name in (CODE, *FIELDS) if name in wanted]
    fields, by_git, on_kapso, refused, unknown = [], set(), set(), [], []
    for name in ordered:
        if name not in stored and name not in (CODE, DESCRIPTION):
            unknown.append(name)
            continue
        if _same(wanted, stored, name):
            continue
        git_changed = last_applied is not None and not (
            name in last_applied.wanted and _same(wanted, last_applied.wanted, name)
        )
        kapso_changed = last_applied is not None and not _same(stored, last_applied.stored, name)
        if last_applied is not None and not git_changed and not kapso_changed:
            if name in EXACT_FIELDS:
                refused.append(name)
            continue
        fields.append(name)
        if git_changed:
            by_git.add(name)
        if kapso_changed:
            on_kapso.add(name)
    return Difference(
        tuple(fields),
        frozenset(by_git),
        frozenset(on_kapso),
        based=last_applied is not None,
        refused=tuple(refused),
        unknown=tuple(unknown),
    )


def _same(left: Content, right: Content, name: str) -> bool:
    if name == DESCRIPTION:
        return (left.get(name) or "") == (right.get(name) or "")
    return (name in left) == (name in right) and same_json(left.get(name), right.get(name))


@dataclass(frozen=True, slots=True)
class Liveness:
    """Whether the stored content runs. ``reason`` says why not; ``live`` is the record of it if it runs."""

    reason: str | None
    live: LiveContent | None = None


def liveness(remote: RemoteFunction, stored: Content, last_applied: InventoryRecord | None) -> Liveness:
    """Return whether the stored content runs, and if not, why.

    If a deployment was confirmed, it must be of the same content, with no deployment since. A deployment that we did not
    request proves nothing of content that we saved after the confirmed one. Otherwise the server's times decide.

    Saved at 12:00:30, deployed at 12:00:00, and no deployment confirmed: 30 s is more than `LIVE_SLACK`, so older code may
    run. Saved at 12:00:03: one deployment moves both times within seconds, so the stored code runs.
    """
    runtime = runtime_content(stored, remote.slug)
    if remote.status is DeploymentStatus.DRAFT:
        return Liveness("saved on Kapso, never deployed")
    if remote.status is DeploymentStatus.ERROR:
        return Liveness("the last deployment failed: the function is down")
    confirmed = last_applied.live if last_applied is not None else None
    if confirmed is not None and confirmed.deployed_at == remote.last_deployed_at:
        if not _same_runtime(confirmed.content, runtime):
            return Liveness("saved on Kapso, not live yet")
        if not agree(confirmed.content, runtime, (SLUG,)):
            return Liveness("its slug changed after the last deployment: the script that runs bears the former one")
        return Liveness(None, confirmed)
    if remote.last_deployed_at is None:
        return Liveness("Kapso knows no deployment of it")
    if _is_marked_as_saved(remote) or (last_applied is not None and _only_saved(last_applied)):
        # The deployment since then may have run already when we saved, with older content.
        return Liveness("saved on Kapso, and not deployed by us since: what runs may be older")
    if remote.updated_at is not None and remote.updated_at - remote.last_deployed_at > LIVE_SLACK:
        return Liveness("saved after the last deployment: what runs may be older")
    return Liveness(None, LiveContent(runtime, remote.last_deployed_at))


def _only_saved(last_applied: InventoryRecord) -> bool:
    """Return whether our last write was not seen to go live."""
    return last_applied.live is not None and not _same_runtime(last_applied.live.content, last_applied.stored)


def _is_marked_as_saved(remote: RemoteFunction) -> bool:
    """Return whether the mark does not name the code yet: it was saved, and its deployment was not seen to end."""
    return remote.mark is not None and remote.mark.applied is not None and remote.mark.applied.code is None


def runtime_content(content: Content, slug: str) -> Content:
    """Return the part of a content that needs a deployment to take effect, with the slug, which the script's name holds."""
    return {**{name: content[name] for name in RUNTIME_CONTENT if name in content}, SLUG: slug}


SECRETS = "secrets"
OWNERSHIP = "ownership"
"""Names in a step's fields for its secrets, and for the mark in the description; diffs never show either."""


@dataclass(frozen=True)
class FunctionComparison:
    """Git's version of a function, Kapso's record, the last applied content, and the differences.

    ``remote_content`` is the record as comparable content. ``uncertain`` are earlier deployments that were not seen to end.
    ``listing`` holds the names of its secrets, if Kapso was asked for them. With ``reset_secrets``, secrets that are not known
    to be ours are set as well. ``secret_values`` are git's values, whichever content is compared. ``former_owners`` are owners
    that the state folder had. ``restores``: in place of git's version, ``desired`` is the one that ran before.
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
    former_owners: frozenset[str] = frozenset()
    restores: bool = False

    @property
    def renames(self) -> bool:
        """Return whether the slug on Kapso differs from git's."""
        return self.desired.slug != self.remote.slug

    @functools.cached_property
    def mark(self) -> Mark:
        """The ownership mark that the function should have."""
        return replace(self._claim, applied=self.applied)

    @functools.cached_property
    def _claim(self) -> Mark:
        """The mark without what was applied, which takes hashes. It stays protected until the manifest says otherwise."""
        said = self.desired.entry.protected
        protected = self.protected_before if said is None else said
        return mark_for(self.owner, self.desired.slug, protected=protected)

    @functools.cached_property
    def applied(self) -> AppliedDigests:
        """The digests of what Kapso has after the write; secrets follow it, so theirs are those of the last write yet."""
        changed = self.difference.fields
        fields = {name: value for name, value in self.remote_content.items() if name not in changed}
        code = self.desired.code if CODE in changed or self.remote.code is None else self.remote.code
        running = not self.deploys and not self.secrets and self.liveness.reason is None and self.desired.entry.deploy
        return applied_by(self.desired, fields, code, self.applied_secrets, running=running)

    @property
    def applied_secrets(self) -> str | None:
        """The digest of the secrets that are on Kapso, what stands for it while they change, or None if it is not known."""
        known = self.known_secrets.digests
        set_already = all(known.get(name) == value.digest for name, value in self.desired.secrets.items())
        if set_already and not self.secrets and self.desired.secrets_digest is not None:
            return self.desired.secrets_digest
        changing = changing_secrets_digest(self.desired, self.secrets, self.known_secrets, self.remote, self.last_applied)
        if changing is not None:
            return changing
        before = self.remote.mark.applied if self.remote.mark is not None and self.last_applied is not None else None
        return before.secrets if before is not None else None

    @property
    def protected_before(self) -> bool:
        """Return whether the function was protected, by its mark or by our inventory."""
        mark = self.remote.mark
        return (mark is not None and mark.protected) or (self.last_applied is not None and self.last_applied.protected)

    @property
    def mark_differs(self) -> bool:
        """Return whether the description must be written for its mark."""
        return not (is_marked(self.remote.description, self._claim) or self.former_mark)

    @property
    def former_mark(self) -> bool:
        """Return whether the function has the mark of a former owner of ours, or of ours in another spelling.

        Its next write brings the new one.
        """
        mark = self.remote.mark
        if mark is None or mark.owner == self.owner:
            return False
        if mark.owner not in self.former_owners and comparable_owner(mark.owner) != comparable_owner(self.owner):
            return False
        expected = mark_for(mark.owner, self.desired.slug, protected=self._claim.protected)
        return is_marked(self.remote.description, expected)

    @functools.cached_property
    def liveness(self) -> Liveness:
        """Whether the stored content runs, and if not, why."""
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
        """The secrets as of the last pass."""
        return self.last_applied.secrets if self.last_applied is not None else NO_SECRETS

    @property
    def learned_secrets(self) -> KnownSecrets:
        """The secrets as of this observation."""
        return learned_secrets(self.known_secrets, self.secrets, self.listing, exact=self.desired.entry.exact_secrets)

    @functools.cached_property
    def secrets(self) -> SecretChanges:
        """The changes of its secrets."""
        return secret_changes(self.desired, self.known_secrets, self.listing, reset=self.reset_secrets)

    @property
    def secrets_at_risk(self) -> tuple[str, ...]:
        """The names of secrets that a deployment may drop for good; git's values are set again, also after a rollback."""
        return secrets_at_risk(self.desired, self.listing, self.secret_values)

    @property
    def unproven(self) -> bool:
        """Return whether git has checks that the last deployment has not passed."""
        return bool(self.desired.entry.checks) and self.last_applied is not None and self.last_applied.unproven

    @property
    def attach_to(self) -> str | None:
        """The WhatsApp Flow that git names and that we have not attached the function to; None while it stays a draft.

        Which function a Flow has is not read at each pass: it would be one more call, for every project.
        """
        flow = self.desired.entry.whatsapp_flow
        attached = self.last_applied.whatsapp_flow if self.last_applied is not None else None
        return flow if self.desired.entry.deploy and flow != attached else None

    @property
    def overlapped(self) -> int:
        """Return how many earlier deployments of other content may still end after the next one was requested."""
        wanted = {**self.remote_content, **self.desired.content}
        return sum(not _same_runtime(intent.content, wanted) for intent in self.uncertain)

    @property
    def touches_runtime(self) -> bool:
        """Return whether the changes need a deployment to take effect."""
        return any(name in RUNTIME_CONTENT for name in self.difference.fields)

    @property
    def deploys(self) -> bool:
        """Return whether a deployment must follow."""
        return self.desired.entry.deploy and (self.touches_runtime or self.liveness.reason is not None or self.renames)

    @property
    def payload(self) -> dict[str, Json]:
        """The attributes to send, by name."""
        entry, fields = self.desired.entry, self.difference.fields
        payload: dict[str, Json] = {name: entry.fields[name] for name in fields if name != CODE}
        if CODE in fields:
            payload[CODE] = self.desired.code
        if fields or self.renames or self.mark_differs:
            text = entry.fields.get(DESCRIPTION, self.remote.text)
            payload[DESCRIPTION] = f"{text or ''}{self.mark}"
        if self.renames:
            payload[SLUG] = self.desired.slug
        return payload

    @property
    def fields(self) -> tuple[str, ...]:
        """The names of the differences, for people."""
        marked = self.mark_differs and DESCRIPTION not in self.difference.fields
        extra = (*((OWNERSHIP,) if marked else ()), *((SECRETS,) if self.secrets else ()))
        return (*((SLUG,) if self.renames else ()), *self.difference.fields, *extra)

    @property
    def diff(self) -> str:
        """The unified diff from Kapso's version to the one that is to be there."""
        new = {**self.remote_content, **self.desired.content}
        return content_diff(
            self.desired.slug,
            (self.remote_content, self.remote.code),
            (new, self.desired.code),
            self.difference.fields,
            ("kapso", "previous" if self.restores else "git"),
        )

    def restoring(self, version: Version, *, keep_secrets: bool = False) -> FunctionComparison:
        """Return the comparison of the previous version, instead of git's, with Kapso's record.

        Secrets are left alone, or with ``keep_secrets`` are git's. None is removed: the old code may need it.
        """
        fields = {name: version.fields[name] for name in self.desired.entry.fields if name in version.fields}
        sources = self.desired.entry.secrets if keep_secrets else {}
        flow = self.last_applied.whatsapp_flow if self.last_applied is not None else None
        kept = replace(self.desired.entry, checks=(), watch=None, whatsapp_flow=flow)
        entry = replace(kept, fields=fields, secrets=sources, exact_secrets=False)
        desired = DesiredFunction(entry, version.code, self.desired.secrets if keep_secrets else {})
        content = comparable_content(desired, self.remote, self.last_applied)
        difference = compare(content, self.remote_content, self.last_applied)
        return replace(self, desired=desired, difference=difference, restores=True)

    def learned(self) -> InventoryRecord:
        """Return the inventory record of a function that was found in sync; the same object if nothing is new."""
        mark = self.remote.mark
        before = self.last_applied or InventoryRecord.new(self.desired.slug, self.remote.id)
        return before.observed(
            self.desired.slug,
            wanted=self.desired.content,
            stored=self.remote_content,
            updated_at=self.remote.updated_at,
            protected=mark is not None and mark.protected,
            applied=mark.applied if mark is not None and mark.applied is not None else before.applied,
            whatsapp_flow=before.whatsapp_flow if self.desired.entry.whatsapp_flow is not None else None,
            live=self.liveness.live or before.live,
            unproven=self.unproven,
            secrets=self.learned_secrets,
        )


def _same_runtime(left: Content, right: Content) -> bool:
    return agree(left, right, RUNTIME_CONTENT)
