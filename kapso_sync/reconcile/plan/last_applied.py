"""Finds what was last applied to a function: by the state folder, or by the digests in its mark, which outrank it. Pure.

A process without memory, or with an old one, so tells a change in git from a change on Kapso. `comparison` takes the result as
the base of its three-way comparison.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import replace

from kapso_sync.model.desired import CodeStyle, DesiredFunction
from kapso_sync.model.functions import (
    CODE,
    DESCRIPTION,
    FIELDS,
    RUNTIME_CONTENT,
    SLUG,
    Content,
    RemoteFunction,
    agree,
    code_hash,
    normal_code,
)
from kapso_sync.model.json_values import Json, canonical_json
from kapso_sync.model.ownership import AppliedDigests
from kapso_sync.model.plan import SecretChanges
from kapso_sync.model.state import NO_SECRETS, InventoryRecord, KnownSecrets, LiveContent

_CHANGING = "00"
"""What a digest of secrets begins with that no key made: they are being changed."""

_STALE = "changed"
"""Stands for the digest of a secret whose value was another one when the mark was written."""


def code_digest(code: str) -> str:
    """Return the digest of code in a mark: ten hex digits, the same for any line ends and any number of final newlines."""
    return hashlib.sha256(normal_code(code).encode("utf-8", "surrogatepass")).hexdigest()[:10]


def fields_digest(fields: Mapping[str, Json]) -> str | None:
    """Return the digest of managed fields in a mark, eight hex digits, or None if there are none."""
    if not fields:
        return None
    spelled = canonical_json({name: (value or "") if name == DESCRIPTION else value for name, value in fields.items()})
    return hashlib.sha256(spelled.encode("utf-8", "surrogatepass")).hexdigest()[:8]


def find_last_applied(
    want: DesiredFunction, remote: RemoteFunction, stored: Content, known: InventoryRecord | None
) -> InventoryRecord | None:
    """Return our last write of a function of ours, or None if nothing is known of it.

    ``known`` is the state folder's record, and ``stored`` the record on Kapso as comparable content. Where the mark says that
    something else was applied since, another process of ours wrote it, and the mark decides.

    The state folder says that A was applied; the mark says B; Kapso has B, and git says C: the change from B to C is git's, and
    nothing was changed on Kapso.
    """
    applied = remote.mark.applied if remote.mark is not None else None
    if applied is None or (known is not None and applied == known.applied):
        return known
    base = known or InventoryRecord.new(want.slug, remote.id)
    wanted, was_stored = _base(want, remote, stored, applied)
    live = base.live if base.live is not None and base.live.deployed_at == remote.last_deployed_at else None
    at_home = remote.mark is not None and remote.mark.valid_for(remote.slug)
    if applied.running and at_home and CODE in was_stored and agree(was_stored, stored, RUNTIME_CONTENT):
        runtime = {name: stored[name] for name in RUNTIME_CONTENT if name in stored}
        live = LiveContent({**runtime, SLUG: remote.slug}, remote.last_deployed_at)
    quarantine = base.quarantine
    if quarantine is not None and was_stored.get(CODE) == quarantine.code:
        quarantine = None  # another process tried it again, and it is live
    return replace(
        base,
        wanted=wanted,
        stored=was_stored,
        updated_at=None,
        live=live,
        corrections=0,
        quarantine=quarantine,
        undecided=None,
        contested=base.contested + 1 if known is not None and _replaced(want, known, wanted, applied) else 0,
        secrets=_secrets(want, applied, known),
        applied=applied,
        replaced_secrets=_replaced_secrets(want, applied, base),
        outdated_version=base.outdated_version or (known is not None and not _is_same_code(remote, stored, known)),
    )


def _is_same_code(remote: RemoteFunction, stored: Content, known: InventoryRecord) -> bool:
    """Return whether the mark is of the code of our last write, whatever it says of fields and secrets.

    Our mark may have been written before the deployment, without the code's digest: then the code on Kapso shows it.
    """
    applied = remote.mark.applied if remote.mark is not None else None
    if known.applied is None or applied is None:
        return False
    if known.applied.code is None and stored.get(CODE) == known.stored.get(CODE) and remote.code is not None:
        return applied.code in (None, code_digest(remote.code))
    return known.applied.code == applied.code


def _replaced(want: DesiredFunction, known: InventoryRecord, wanted: Content, applied: AppliedDigests) -> bool:
    """Return whether other content or secrets were applied, although git says here what it said at our last write."""
    styles = [dict(want.in_style(style).content) for style in CodeStyle]
    if dict(known.wanted) not in styles:
        return False
    others = _is_set(want, known) and _key_of(applied) == _key_of_git(want) and applied.secrets != want.secrets_digest
    return others or dict(wanted) not in styles


def _base(want: DesiredFunction, remote: RemoteFunction, stored: Content, applied: AppliedDigests) -> tuple[Content, Content]:
    """Return what git said at the last write, and what Kapso stored then; values that neither side has now are left out.

    A mark without the code's digest is that of code which was saved and not deployed yet: it is what Kapso has.
    """
    fields = _fields_of(want, stored, applied.fields)
    wanted: dict[str, Json] = dict(fields or {})
    was_stored: dict[str, Json] = {} if fields is None else {**{n: stored[n] for n in FIELDS if n in stored}, **fields}
    codes = [want.in_style(style).code for style in CodeStyle]
    in_git = next((code_hash(code) for code in codes if code_digest(code) == applied.code), None)
    is_there = applied.code is None or (remote.code is not None and code_digest(remote.code) == applied.code)
    there = stored.get(CODE) if is_there else None
    if there is not None or in_git is not None:
        wanted[CODE] = in_git if in_git is not None else there
        was_stored[CODE] = there if there is not None else in_git
    return wanted, was_stored


def _fields_of(want: DesiredFunction, stored: Content, digest: str | None) -> dict[str, Json] | None:
    """Return the managed fields with this digest, each as git or Kapso has it now, or None if a value of theirs is in neither.

    Six fields with three possibilities each (not managed, Kapso's value, git's value) are 729 digests at most.
    """
    if digest is None:
        return {}
    return next((fields for fields in _candidates(want.entry.fields, stored) if fields_digest(fields) == digest), None)


def _candidates(wanted: Mapping[str, Json], stored: Content) -> Iterator[dict[str, Json]]:
    managed = [name for name in FIELDS if name in wanted]
    yield {name: stored[name] for name in managed if name in stored}
    yield {name: wanted[name] for name in managed}
    choices = [[side[name] for side in (stored, wanted) if name in side] for name in FIELDS]
    for chosen in itertools.product(*([None, *range(len(values))] for values in choices)):
        yield {name: values[number] for name, values, number in zip(FIELDS, choices, chosen, strict=True) if number is not None}


def _secrets(want: DesiredFunction, applied: AppliedDigests, known: InventoryRecord | None) -> KnownSecrets:
    """Return the known secrets: those of git if they are what was last applied; otherwise all of them changed since.

    What another process set with another API key cannot be compared. Where we had set git's values, they are set again, once:
    if the same digest is back afterwards, both most likely set the same values, and would do so in turn for ever.

    What a deployment of ours may have lost is still to be looked for.
    """
    if known is not None and known.applied is not None and known.applied.secrets == applied.secrets:
        return known.secrets
    if known is not None and _is_set(want, known) and applied.secrets == known.replaced_secrets is not None:
        return known.secrets
    pending = NO_SECRETS
    if known is not None and known.secrets.unchecked:
        pending = KnownSecrets(unchecked=True, before=known.secrets.before)
    if applied.secrets is None or want.secrets_digest is None:
        return pending
    same = applied.secrets == want.secrets_digest
    digests = {name: value.digest if same else _changed(value.digest) for name, value in want.secrets.items()}
    return replace(pending, digests=digests)


def _replaced_secrets(want: DesiredFunction, applied: AppliedDigests, base: InventoryRecord) -> str | None:
    """Return the digest of another key that the mark has, or the one that it had last."""
    return base.replaced_secrets if _key_of(applied) in (None, _CHANGING, _key_of_git(want)) else applied.secrets


def _is_set(want: DesiredFunction, known: InventoryRecord) -> bool:
    """Return whether our last write left Kapso with git's secrets."""
    digests = known.secrets.digests
    return bool(want.secrets) and all(digests.get(name) == value.digest for name, value in want.secrets.items())


def _key_of(applied: AppliedDigests) -> str | None:
    return None if applied.secrets is None else applied.secrets[:2]


def _key_of_git(want: DesiredFunction) -> str | None:
    return None if want.secrets_digest is None else want.secrets_digest[:2]


def _changed(digest: str) -> str:
    key, colon, _ = digest.partition(":")
    return f"{key}{colon}{_STALE}"


def changing_secrets_digest(
    want: DesiredFunction,
    changes: SecretChanges,
    known: KnownSecrets,
    remote: RemoteFunction | None,
    last: InventoryRecord | None,
) -> str | None:
    """Return what a mark says in place of the digest of secrets while they are being changed, or None if nothing else is to.

    No values have this digest, so each process that finds it sets them all. Without it, a process that died between the first
    secret and the last would leave the digest of the former values, and a process without memory would believe that Kapso has
    those.

    What a process remembers of an earlier change proves nothing of a later one, so each has a digest of its own, by the time of
    Kapso's record. A change that we began ourselves and that failed goes on with the same one.

    Secrets that may have been there before us are not ours to set, so their function has none. ``remote`` is Kapso's record,
    and ``last`` our last write; None: the function is new.
    """
    if want.secrets_digest is None or not changes or changes.unverified:
        return None
    if remote is None:
        return _new_change(want, "")
    if known.listed_at is None and not want.secrets.keys() <= known.digests.keys():
        return None
    before = remote.mark.applied if remote.mark is not None else None
    goes_on = last is not None and last.applied == before and last.updated_at == remote.updated_at
    if goes_on and before is not None and _key_of(before) == _CHANGING:
        return before.secrets
    return _new_change(want, str(remote.updated_at))


def _new_change(want: DesiredFunction, since: str) -> str:
    return _CHANGING + hashlib.sha256(f"{want.secrets_digest} since {since}".encode()).hexdigest()[:6]


def applied_by(want: DesiredFunction, stored: Content, code: str, secrets: str | None, *, running: bool) -> AppliedDigests:
    """Return what a mark says after a write of ``want``: ``code`` and the values of ``stored`` are what Kapso has then."""
    fields = {name: stored.get(name, value) for name, value in want.entry.fields.items()}
    return AppliedDigests(code_digest(code), fields_digest(fields), secrets, running)
