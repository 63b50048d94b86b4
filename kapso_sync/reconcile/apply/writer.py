"""Writes one function: backs it up, journals the intent, sends it, and records Kapso's answer."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Mapping
from dataclasses import replace
from datetime import timedelta

from kapso_sync.dataclass import dataclass
from kapso_sync.errors import (
    ApiConflict,
    ApiError,
    ApiGarbled,
    ApiNotFound,
    ApiRateLimited,
    ApiRejected,
    ApiUnauthorized,
    ApiUnavailable,
    ApiUnsupported,
    Call,
    StateForeign,
)
from kapso_sync.model import events
from kapso_sync.model.clock import Clock
from kapso_sync.model.functions import (
    CODE,
    DESCRIPTION,
    EXACT_FIELDS,
    RUNTIME_CONTENT,
    SLUG,
    Content,
    RemoteFunction,
    agree,
    code_hash,
)
from kapso_sync.model.json_values import Json, canonical_json, same_json
from kapso_sync.model.ownership import AppliedDigests, Mark, split_description
from kapso_sync.model.plan import Adopt, Create, Delete, Modify, Origin, Rename, Rollback, Write
from kapso_sync.model.ports import FunctionsApi, Store
from kapso_sync.model.state import Intent, IntentKind, InventoryRecord, LiveContent
from kapso_sync.reconcile.apply.unseen_project import UnseenProject
from kapso_sync.reconcile.apply.update import update_unchanged
from kapso_sync.reconcile.plan.comparison import OWNERSHIP, SECRETS
from kapso_sync.reconcile.plan.intents import NOT_STORED
from kapso_sync.reconcile.plan.last_applied import applied_by, changing_secrets_digest
from kapso_sync.reconcile.plan.observed import stored_content
from kapso_sync.reconcile.plan.steps import refusal_hint

RECENT_DEPLOYMENT = timedelta(minutes=1)
"""For how long after a deployment a write may be taken for a part of it, by its time alone; clocks differ."""

CREATE_ATTEMPTS = 3
"""Maximum number of attempts of a create, if each answer is lost and the list does not show the function."""

_CREATE = Call("POST", "/functions")
_LIST = Call("GET", "/functions")
_LIST_DECIDES = "the next pass decides by Kapso's list"


@dataclass(frozen=True, slots=True)
class Written:
    """A function after its write: Kapso's answer, our inventory record, and the backup's name, if one was made.

    ``refused`` names fields that have another value in the answer than was sent. ``present_secrets`` are known to be on Kapso
    now, by name; ``lost_secrets`` were dropped by a deployment, and have no value in git.
    """

    record: RemoteFunction
    owned: InventoryRecord
    backup: str | None = None
    refused: tuple[str, ...] = ()
    present_secrets: frozenset[str] = frozenset()
    lost_secrets: tuple[str, ...] = ()


class FunctionWriter:
    """Writes one function at a time. Raises `ApiError` if the function fails, `StateUnusable` if the state folder does.

    ``known_ids`` are the ids of functions that there were before the pass: no new function has one of them.
    """

    def __init__(
        self,
        api: FunctionsApi,
        store: Store,
        clock: Clock,
        emit: events.Listener,
        known_ids: Iterable[str],
        project: UnseenProject,
    ) -> None:
        self._api = api
        self._store = store
        self._clock = clock
        self._emit = emit
        self._known_ids = set(known_ids)
        self._project = project

    async def create(self, step: Create) -> Written:
        """Create a function; if the answer is lost, the list is read before the request is sent again.

        Raises `StateForeign` if it was created in another project than ours; then it is not remembered as ours.
        """
        content = sent_content(step.payload)
        applied = _sent_digests(step.payload)
        intent = Intent(
            IntentKind.CREATE, step.slug, None, step.desired.content, content, protected=step.protected, applied=applied
        )
        number = self._store.begin(intent)
        record = await self._journaled(number, self._create(step))
        try:
            await self._project.require(record)
        except StateForeign:
            self._store.close(number)
            self._emit(events.FunctionCreated(slug=step.slug, function_id=record.id))
            raise
        left = self._left_to_update(step, record)
        # Fields that still need an update are not recorded as wanted yet. If the pass dies before that update, the next pass
        # must not treat them as refused.
        owned = InventoryRecord.new(step.slug, record.id).after_write(
            step.slug,
            wanted={name: value for name, value in step.desired.content.items() if name not in left},
            stored={**content, **stored_content(record)},
            updated_at=record.updated_at,
            protected=step.protected,
        )
        refused_slug = step.slug if record.slug != step.slug else None
        owned = replace(owned, refused_slug=refused_slug, applied=applied)
        self._store.remember(owned, closes=(number,))
        if record.project_id is not None:
            # In an empty project, this answer is the first that shows the project's id.
            self._store.remember_project(record.project_id)
        self._emit(events.FunctionCreated(slug=step.slug, function_id=record.id))
        _require_slug(step, record, _CREATE)
        written = Written(record, owned, refused=self._refusals(step.slug, record, step.payload))
        return await self._complete(step, written, left) if left else written

    def _left_to_update(self, step: Create, record: RemoteFunction) -> dict[str, Json]:
        """Return the managed fields that a create does not take, and that differ from git in the record."""
        fields = step.desired.entry.fields
        return {
            name: fields[name]
            for name in fields
            if name not in step.payload and name in record.fields and not same_json(record.fields[name], fields[name])
        }

    async def _complete(self, step: Create, written: Written, payload: Mapping[str, Json]) -> Written:
        """Update a new function with the fields that its create did not take."""
        record, owned, wanted = written.record, written.owned, step.desired.content
        applied = owned.applied
        if record.mark is not None and record.mark.applied is not None:
            now = applied_by(step.desired, {**owned.stored, **payload}, step.desired.code, None, running=False)
            mark = replace(record.mark, applied=replace(now, code=record.mark.applied.code))
            payload, applied = {**payload, DESCRIPTION: f"{record.text}{mark}"}, mark.applied
        content = sent_content(payload)
        intent = Intent(IntentKind.UPDATE, step.slug, record.id, wanted, content, protected=step.protected, applied=applied)
        number = self._store.begin(intent)
        call = update_unchanged(self._api, record, payload)
        record = await self._journaled(number, call)
        stored = {**owned.stored, **stored_content(record)}
        owned = replace(owned, wanted=wanted, stored=stored, updated_at=record.updated_at, applied=applied)
        self._store.remember(owned, closes=(number,))
        return Written(record, owned, refused=(*written.refused, *self._refusals(step.slug, record, payload)))

    def _refusals(self, slug: str, record: RemoteFunction, payload: Mapping[str, Json]) -> tuple[str, ...]:
        """Return, and report, the fields that have another value in the answer than was sent; a missing one is unknown."""
        refused = tuple(
            name
            for name in EXACT_FIELDS
            if name in payload and name in record.fields and not same_json(record.fields[name], payload[name])
        )
        for name in refused:
            wanted, got = canonical_json(payload[name]), canonical_json(record.fields[name])
            self._emit(
                events.FieldRefused(
                    slug=slug,
                    function_id=record.id,
                    field_name=name,
                    wanted=wanted,
                    got=got,
                    hint=refusal_hint((name,)),
                )
            )
        return refused

    async def _create(self, step: Create) -> RemoteFunction:
        for attempt in range(1, CREATE_ATTEMPTS + 1):
            try:
                record = await self._api.create_function(step.payload)
            except (ApiUnavailable, ApiGarbled):
                found = await self._find_created(step)
                if found is None and attempt == CREATE_ATTEMPTS:
                    raise
            else:
                found = record if self._is_created(step, record) else await self._find_created(step)
                if found is None:
                    raise ApiGarbled("POST /functions answered about another function", call=_CREATE, hint=_LIST_DECIDES)
            if found is not None:
                self._known_ids.add(found.id)
                return found
        raise AssertionError(step.slug)

    def _is_created(self, step: Create, record: RemoteFunction) -> bool:
        """Return whether an answer is about the function that was just created.

        A server that changes the slug still shows our mark for the slug that was sent.
        """
        mark = _sent_mark(step.payload)
        marked = (
            mark is not None and record.mark is not None and (record.mark.owner, record.mark.check) == (mark.owner, mark.check)
        )
        return record.id not in self._known_ids and (record.slug == step.slug or marked)

    async def _find_created(self, step: Create) -> RemoteFunction | None:
        """Return the function of a create whose answer is lost, or None if the list does not show it.

        Raises `ApiGarbled` if the list does not say, and `ApiConflict` if another function has the slug.
        """
        listed = await self._api.list_records()
        if any(record.slug == step.slug for record in listed.garbled):
            raise ApiGarbled(f"GET /functions shows `{step.slug}` with a garbled record", call=_LIST, hint=_LIST_DECIDES)
        found = next((record for record in listed.functions if record.slug == step.slug), None)
        if found is None:
            return None
        if not self._is_created(step, found) or (DESCRIPTION in found.fields and found.mark is None):
            raise ApiConflict("another function got its slug meanwhile", call=_LIST, hint=_LIST_DECIDES)
        return found if found.code is not None else await self._api.get_function(found.id)

    async def overwrite(self, step: Modify) -> Written:
        """Write the differences (nothing, for a step that only deploys)."""
        if not step.payload:
            return Written(step.remote, self._base_of(step), present_secrets=step.listed_secrets)
        step = self._marked_as_saved(step)
        full = await self._whole(step)
        keeps = step.live is not None and step.quarantine is None and _touches_runtime(step) and not self._is_watched(step)
        if keeps:
            self._store.keep_version(full)
        backup = self._back_up(step, full)
        content = sent_content(step.payload)
        intent = Intent(
            IntentKind.UPDATE,
            step.slug,
            step.remote.id,
            step.desired.content,
            content,
            step.remote.last_deployed_at,
            protected=step.protected,
            applied=_sent_digests(step.payload),
        )
        number = self._store.begin(intent)
        # If somebody saved the function since the plan was made, that is a conflict, and the function is planned again.
        record = await self._journaled(number, update_unchanged(self._api, step.remote, step.payload))
        planned = stored_content(step.remote, step.last_applied)
        answered = stored_content(record)
        raced = CODE not in step.payload and not agree(planned, answered, (CODE,))
        refused = SLUG in step.payload and record.slug != step.slug
        before = step.last_applied or InventoryRecord.new(step.slug, record.id)
        owned = before.after_write(
            step.slug,
            wanted=step.desired.content,
            # The answer counts only for the fields that were sent. Any other new value in it is somebody's edit, and must show
            # as one.
            stored={**answered, **planned, **content, **{name: answered[name] for name in content if name in answered}},
            updated_at=None if raced else record.updated_at,
            protected=step.protected,
        )
        owned = replace(
            owned,
            live=_live_after(step),
            corrections=before.corrections + 1 if step.last_applied and step.origin is Origin.DRIFT else 0,
            refused_slug=step.slug if refused else None,
            quarantine=step.quarantine,
            secrets=step.known_secrets,
            outdated_version=before.outdated_version and not keeps,
        ).marked(_sent_digests(step.payload))
        self._store.remember(owned, closes=(number,))
        if raced:
            raise ApiConflict("its code was changed during the update", call=Call("PATCH", "/functions/{id}"))
        self._tell(step, record, refused=refused)
        if refused:
            _require_slug(step, record, Call("PATCH", "/functions/{id}"))
        refusals = self._refusals(step.slug, record, step.payload)
        return Written(record, owned, backup, refusals, present_secrets=step.listed_secrets)

    def _marked_as_saved(self, step: Modify) -> Modify:
        """Return the step with a mark that does not name the code yet, if Kapso's times cannot show that it was only saved.

        V3 was deployed a second ago, or its deployment has not ended, and V4 is saved. If the process dies here, a process
        without memory would find V4 beside the time of V3's deployment, which is as if V4 was deployed. Without the code's
        digest it deploys V4; after the deployment, `settle_mark` adds the digest.
        """
        mark, deployed_at = _sent_mark(step.payload), step.remote.last_deployed_at
        if mark is None or mark.applied is None or not step.deploy or step.quarantine or not _touches_runtime(step):
            return step
        recent = deployed_at is not None and abs(self._clock.now() - deployed_at) < RECENT_DEPLOYMENT
        if not (recent or step.unconfirmed or step.live is None):
            return step
        text = split_description(str(step.payload[DESCRIPTION]))[0]
        unnamed = replace(mark, applied=replace(mark.applied, code=None))
        return replace(step, payload={**step.payload, DESCRIPTION: f"{text}{unnamed}"})

    def _is_watched(self, step: Modify) -> bool:
        """Return whether what runs was still watched: until it has stood that, the version before it is the one to restore."""
        watch = self._store.watch(step.remote.id)
        return watch is not None and watch.deployed_at is not None and watch.deployed_at == step.remote.last_deployed_at

    def _base_of(self, step: Modify) -> InventoryRecord:
        """Return the inventory record of a function that is only deployed; its stored content is git's already."""
        remote = step.remote
        before = step.last_applied or InventoryRecord.new(step.slug, remote.id)
        kept = before.after_write(
            before.slug,
            wanted=step.desired.content,
            stored=stored_content(remote, step.last_applied),
            updated_at=remote.updated_at,
            protected=step.last_applied.protected if step.last_applied else step.protected,
        )
        mark = remote.mark
        applied = before.applied if mark is None or mark.applied is None else mark.applied
        return replace(kept, quarantine=step.quarantine, secrets=step.known_secrets, applied=applied)

    async def _whole(self, step: Modify) -> RemoteFunction:
        """Return the record, with its code if it is going to be backed up."""
        if step.remote.code is not None or not (_lost(step) or _touches_runtime(step)):
            return step.remote
        return await self._with_code(step.remote.id, "overwritten")

    async def _with_code(self, function_id: str, what: str) -> RemoteFunction:
        record = await self._api.get_function(function_id)
        if record.code is None:
            call = Call("GET", "/functions/{id}")
            raise ApiGarbled(f"{call} answered without code: nothing is {what} without a copy", call=call)
        return record

    def _back_up(self, step: Modify, full: RemoteFunction) -> str | None:
        if not _lost(step):
            return None
        reasons = {Origin.DRIFT: "drift", Origin.CONFLICT: "conflict"}
        kinds: dict[type[Modify], str] = {Adopt: "adopted", Rollback: "failed"}
        reason = kinds.get(type(step)) or reasons.get(step.origin or Origin.GIT, "changed in git")
        return self._save(step.slug, full, reason, keep=step.origin not in (Origin.GIT, Origin.RECOVERY))

    def _save(self, slug: str, remote: RemoteFunction, reason: str, *, keep: bool) -> str:
        name = self._store.back_up(remote, reason, keep=keep)
        self._emit(events.FunctionBackedUp(slug=slug, function_id=remote.id, backup=name, reason=reason))
        return name

    def _tell(self, step: Modify, record: RemoteFunction, *, refused: bool) -> None:
        if isinstance(step, Adopt):
            self._emit(events.FunctionAdopted(slug=step.slug, function_id=record.id))
        if isinstance(step, Rename) and not refused:
            self._emit(events.FunctionRenamed(slug=step.slug, function_id=record.id, previous=step.remote.slug))
        fields = tuple(name for name in step.fields if name not in (SLUG, SECRETS))
        if fields and not (isinstance(step, Adopt) and fields == (OWNERSHIP,)):
            origin = str(step.origin or Origin.GIT)
            self._emit(events.FunctionUpdated(slug=step.slug, function_id=record.id, fields=fields, origin=origin))
        if step.drifted and not refused:
            self._emit(events.DriftCorrected(slug=step.slug, function_id=record.id, fields=step.fields))

    async def settle_mark(self, step: Write, written: Written) -> Written:
        """Write the mark once more if its digests do not say what Kapso has.

        That is so after secrets were set, and where code or a field was stored otherwise than it was sent. It is not journaled:
        if the answer is lost, the mark itself shows whether it arrived. Raises like `overwrite`.
        """
        record, mark = written.record, written.record.mark
        if record.code is None and written.owned.stored.get(CODE) != code_hash(step.desired.code):
            record = await self._api.get_function(record.id)
            written = replace(written, record=record)
        if mark is None or mark.applied is None or not mark.valid_for(step.slug):
            return written
        now = self._digests(step, written, mark.applied)
        return written if replace(now, running=mark.applied.running) == mark.applied else await self._mark(written, mark, now)

    async def open_mark(self, step: Write, written: Written) -> Written:
        """Write into the mark that secrets are being changed, if it does not say so yet; `settle_mark` takes that out again.

        Raises like `overwrite`.
        """
        mark = written.record.mark
        if not isinstance(step, Modify) or mark is None or mark.applied is None or not mark.valid_for(step.slug):
            return written
        known = written.owned.secrets
        changing = changing_secrets_digest(step.desired, step.secrets, known, step.remote, step.last_applied)
        if changing is None or changing == mark.applied.secrets:
            return written
        return await self._mark(written, mark, replace(mark.applied, secrets=changing))

    async def _mark(self, written: Written, mark: Mark, applied: AppliedDigests) -> Written:
        record = written.record
        answer = await update_unchanged(self._api, record, {DESCRIPTION: f"{record.text}{replace(mark, applied=applied)}"})
        answer = answer if answer.code is not None else replace(answer, code=record.code)
        owned = replace(written.owned.marked(applied), updated_at=answer.updated_at)
        self._store.remember(owned)
        return replace(written, record=answer, owned=owned)

    def _digests(self, step: Write, written: Written, before: AppliedDigests) -> AppliedDigests:
        """Return the digests of what the answers to our own writes showed; somebody's edit since then must show as one."""
        record, owned, want = written.record, written.owned, step.desired
        known = owned.secrets
        ours = all(known.digests.get(name) == value.digest for name, value in want.secrets.items())
        secrets = want.secrets_digest if ours and want.secrets_digest is not None and not known.rewriting else before.secrets
        running = step.deploys and owned.live is not None and owned.live.deployed_at == record.last_deployed_at
        code = want.code if record.code is None else record.code
        if code_hash(code) != owned.stored.get(CODE):
            return replace(applied_by(want, owned.stored, "", secrets, running=running), code=before.code)
        return applied_by(want, owned.stored, code, secrets, running=running)

    async def delete(self, step: Delete) -> str:
        """Read the function again, save a copy that is never dropped, then delete it; return the copy's name."""
        full = await self._unchanged(step)
        backup = self._save(step.slug, full, "deleted", keep=True)
        try:
            await self._api.delete_function(step.remote.id)
        except ApiNotFound:
            listed = await self._api.list_records()
            if step.remote.id in {*(each.id for each in listed.functions), *(each.id for each in listed.garbled)}:
                raise
        self._store.forget(step.remote.id)
        self._emit(events.FunctionDeleted(slug=step.slug, function_id=step.remote.id, backup=backup))
        return backup

    async def _unchanged(self, step: Delete) -> RemoteFunction:
        """Return the record as it is now: changes since the plan was made must be in the copy."""
        try:
            record = await self._with_code(step.remote.id, "deleted")
        except ApiNotFound:
            if step.remote.code is None:
                raise
            return step.remote
        if record.slug != step.slug or record.mark != step.remote.mark:
            text = "it was renamed, or its ownership mark changed, since the plan was made"
            raise ApiConflict(text, call=Call("GET", "/functions/{id}"), hint="the next pass tries again")
        return record

    async def _journaled(self, number: int, call: Awaitable[RemoteFunction]) -> RemoteFunction:
        try:
            return await call
        except ApiError as error:
            if certainly_not_done(error):
                self._store.close(number)
            raise


def certainly_not_done(error: ApiError) -> bool:
    """Return whether the server refused the request or never received it: then nothing must be resolved later."""
    if isinstance(error, ApiUnavailable):
        return not error.sent
    refusals = (ApiRejected, ApiConflict, ApiNotFound, ApiUnauthorized, ApiRateLimited, ApiUnsupported)
    return isinstance(error, refusals)


def sent_content(payload: Mapping[str, Json]) -> Content:
    """Return a payload as comparable content: code as a hash, description without mark, no slug."""
    content = {name: value for name, value in payload.items() if name != SLUG}
    if isinstance(code := content.get(CODE), str):
        content[CODE] = code_hash(code)
    if isinstance(text := content.get(DESCRIPTION), str):
        content[DESCRIPTION] = split_description(text)[0]
    return content


def _sent_digests(payload: Mapping[str, Json]) -> AppliedDigests | None:
    """Return the digests of what is applied, as the mark in a payload has them."""
    mark = _sent_mark(payload)
    return mark.applied if mark is not None else None


def _sent_mark(payload: Mapping[str, Json]) -> Mark | None:
    text = payload.get(DESCRIPTION)
    return split_description(text)[1] if isinstance(text, str) else None


def _live_after(step: Modify) -> LiveContent | None:
    """Return the content that is known to run after a write that is not deployed yet."""
    if not _touches_runtime(step):
        return step.live or (step.last_applied.live if step.last_applied else None)
    known = step.live or (step.last_applied.live if step.last_applied else None)
    if known is not None and known.deployed_at == step.remote.last_deployed_at:
        return known
    return LiveContent(NOT_STORED, step.remote.last_deployed_at)


def _touches_runtime(step: Modify) -> bool:
    return any(name in RUNTIME_CONTENT for name in step.payload)


def _lost(step: Modify) -> bool:
    """Return whether the write replaces content that people would miss."""
    return any(name not in (OWNERSHIP, SECRETS, SLUG) for name in step.fields)


def _require_slug(step: Write, record: RemoteFunction, call: Call) -> None:
    if record.slug == step.slug:
        return
    raise ApiRejected(
        f"Kapso answered with the slug `{record.slug}` where `{step.slug}` was sent",
        call=call,
        hint=f"use `{record.slug}` in git, or rename the function in Kapso's dashboard; it is not created again",
    )
