"""Applies one function's step: write, deploy, set secrets, run checks, and roll back if that fails."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from kapso_sync.dataclass import dataclass
from kapso_sync.errors import KapsoSyncError, NotLeading
from kapso_sync.model import events
from kapso_sync.model.clock import Clock
from kapso_sync.model.desired import CodeStyle
from kapso_sync.model.functions import Version, code_hash
from kapso_sync.model.plan import Create, Delete, Modify, Rollback, Write
from kapso_sync.model.ports import Store
from kapso_sync.model.report import Outcome, Result
from kapso_sync.model.state import Quarantine, QuarantineReason
from kapso_sync.reconcile.apply.checks import CheckRunner, ChecksFailed
from kapso_sync.reconcile.apply.deployer import Deployer, DeploymentFailed, Superseded
from kapso_sync.reconcile.apply.flows import FlowAttacher
from kapso_sync.reconcile.apply.secrets import SecretApplier
from kapso_sync.reconcile.apply.watches import WatchKeeper
from kapso_sync.reconcile.apply.writer import FunctionWriter, Written
from kapso_sync.reconcile.plan.code_style import learned_style, other_style_step
from kapso_sync.reconcile.plan.comparison import FunctionComparison, compare
from kapso_sync.reconcile.plan.observed import stored_content
from kapso_sync.reconcile.plan.secrets import LOST_HINT, lost_text
from kapso_sync.reconcile.plan.steps import refusal_hint, refusal_text, rolling_back


@dataclass(frozen=True, slots=True)
class ApplyDeps:
    """The objects that do the parts of a step."""

    writer: FunctionWriter
    rollout: Deployer
    secrets: SecretApplier
    checks: CheckRunner
    flows: FlowAttacher
    watches: WatchKeeper
    store: Store


@dataclass(frozen=True, slots=True)
class Applied:
    """A step that was written and, once it was delivered, deployed; ``failure`` says why it does not run.

    ``started`` is when its delivery began, on the monotonic clock.
    """

    step: Write
    written: Written
    failure: DeploymentFailed | None = None
    started: float = 0.0


class Slots:
    """How many functions are worked on at once: ``writing`` of them are written, ``deploying`` are written or deployed.

    Deployments take long and cost no call while they run, so many of them may run at once. Rollbacks use their own semaphore,
    so they never queue behind new work.
    """

    def __init__(self, writing: int, deploying: int) -> None:
        self.writing = asyncio.Semaphore(writing)
        self.deploying = asyncio.Semaphore(deploying)
        self.rolling_back = asyncio.Semaphore(deploying)


class FunctionApplier:
    """Applies the steps of ``owner``'s functions in one pass. The caller takes a slot where a method says so."""

    def __init__(
        self,
        deps: ApplyDeps,
        clock: Clock,
        emit: events.Listener,
        owner: str,
        slots: Slots,
        superseded: asyncio.Event,
    ) -> None:
        self.slots = slots
        self._deps = deps
        self._clock = clock
        self._emit = emit
        self._owner = owner
        self._superseded = superseded

    async def delete(self, step: Delete) -> Outcome:
        """Delete a function after a backup. The caller holds a slot to write. Raises `ApiError` and `StateUnusable`."""
        backup = await self._deps.writer.delete(step)
        return Outcome(step, Result.DONE, step.function_id, backup=backup)

    async def write(self, step: Create | Modify) -> Applied:
        """Write a step's content; the caller holds a slot to write. Raises `ApiError` and `StateUnusable`."""
        writer = self._deps.writer
        return Applied(step, await (writer.overwrite(step) if isinstance(step, Modify) else writer.create(step)))

    async def deliver(self, applied: Applied) -> Applied:
        """Deploy what was written, set secrets and deploy those; the caller holds a slot to deploy.

        Raises `ApiError`, `StateUnusable` and `Superseded`.
        """
        step, written, started = applied.step, applied.written, self._clock.monotonic()
        if step.deploys:
            await self._deps.watches.prepare(step, written.owned)
        if step.deploy:
            written = self._deps.secrets.before_deployment(step, written)
        written = await self._deps.writer.open_mark(step, written)
        try:
            written = await self._deps.writer.settle_mark(step, await self._deliver(step, written))
            return Applied(step, written, started=started)
        except DeploymentFailed as failure:
            return replace(await self._try_other_style(Applied(step, written, failure)), started=started)

    async def _deliver(self, step: Write, written: Written) -> Written:
        """Deploy the written content, set secrets, and deploy those; report secrets that an earlier deployment lost."""
        if step.deploy:
            written = await self._make_live(step, written)
            self._learn_style(step)
        written = await self._deps.secrets.apply(step, written)
        if step.secrets and written.owned.secrets.undeployed:
            written = await self._with_secrets_live(step, written)
        return self._deps.secrets.after_write(step, written)

    async def _try_other_style(self, failed: Applied) -> Applied:
        """Deploy code that ended in ``error`` once more in the other style, before it counts as failed.

        It is not documented which style an API base runs. The style that goes live is recorded for the base.
        """
        down = failed.failure.down if failed.failure is not None else None
        if down is None:
            return failed
        secrets, owned = self._deps.secrets, failed.written.owned
        step = other_style_step(failed.step, down, owned, secrets.facts)
        if step is None:
            return failed
        written = await self._deps.writer.overwrite(step)
        written = replace(written, backup=failed.written.backup, refused=failed.written.refused)
        try:
            written = await self._deliver(step, written)
        except DeploymentFailed as failure:
            return Applied(step, written, failure)
        self._learn_style(step, failed=failed.step.desired.style)
        return Applied(step, await self._deps.writer.settle_mark(step, written))

    def _learn_style(self, step: Write, *, failed: CodeStyle | None = None) -> None:
        style = step.desired.style
        if style is not None:
            self._deps.secrets.learn(learned_style(self._deps.secrets.facts, style, failed=failed))

    async def _make_live(self, step: Write, written: Written) -> Written:
        """Deploy, then list the function's secrets: no deployment may be the last call without that list."""
        written = self._deps.secrets.before_deployment(step, written)
        return await self._deps.secrets.after_deployment(step, await self._deps.rollout.deploy(step, written))

    async def _with_secrets_live(self, step: Write, written: Written) -> Written:
        """Deploy once more so that changed secrets take effect, unless this base is known to drop secrets by it.

        Kapso documents that a secret works at once on a running function; the extra deployment is a precaution.
        """
        if self._deps.secrets.facts.secrets_survive is False:
            return self._deps.secrets.settled_without_deployment(written)
        return await self._make_live(step, written)

    async def complete(self, applied: Applied) -> Outcome:
        """Run the checks of a deployment, and roll back if one fails. It may take long, so the caller holds no slot.

        Raises like `deliver`, and `DeploymentFailed` or `ChecksFailed` if there is no previous version.
        """
        step, written = applied.step, applied.written
        failure: DeploymentFailed | ChecksFailed | None = applied.failure
        if failure is None and step.deploys and step.desired.entry.checks:
            failure = await self._prove(step, written)
        if failure is None and isinstance(step, Modify) and step.quarantine is not None:
            return _quarantined(step, step.quarantine)
        if failure is None:
            if step.deploys:
                written = self._watch_or_keep(applied)
            self._tell_refused_before(applied)
            await self._deps.flows.attach(step, written)
            return _done(applied)
        back = self._way_back(applied, failure)
        if back is None:
            raise failure
        async with self.slots.rolling_back:
            outcome = await self.roll_back(back)
        return replace(outcome, step=step, backup=written.backup)

    async def _prove(self, step: Write, written: Written) -> ChecksFailed | None:
        try:
            await self._deps.checks.run(written.record, step.desired)
        except ChecksFailed as failure:
            return failure
        self._deps.store.remember(replace(written.owned, unproven=False))
        return None

    def _tell_refused_before(self, applied: Applied) -> None:
        """Report fields that an earlier pass sent in vain: they still differ, whatever else was written now."""
        step, record = applied.step, applied.written.record
        if isinstance(step, Modify) and step.refused:
            reason, hint = refusal_text(record.fields, step.refused), refusal_hint(step.refused)
            self._emit(events.FunctionStalled(slug=step.slug, function_id=record.id, reason=reason, hint=hint))

    def _watch_or_keep(self, applied: Applied) -> Written:
        """Keep the live version, which passed its checks, as the version to roll back to; return what was written.

        While it is watched, the one before it stays that version.
        """
        written, record, store = applied.written, applied.written.record, self._deps.store
        whole = replace(record, code=applied.step.desired.code if record.code is None else record.code)
        watched = self._deps.watches.begin(whole, applied.written.owned, self._clock.monotonic() - applied.started)
        if watched and store.version(record.id) is not None:
            return written
        store.keep_version(whole)
        if not written.owned.outdated_version:
            return written
        # The record was written before the checks, which have passed.
        owned = replace(written.owned, unproven=False, outdated_version=False)
        store.remember(owned)
        return replace(written, owned=owned)

    def _way_back(self, applied: Applied, failure: DeploymentFailed | ChecksFailed) -> Rollback | None:
        """Return the rollback, or None if nothing ran before, if the same content ran before, or if that is not stored here.

        Content that ran well before and fails now is not at fault: a secret is, or a service that it depends on.

        Code B replaced code A, and B's check answers 500: the rollback writes and deploys A. Code A was only deployed again,
        for a new secret, and its check fails: there is no rollback, because it would deploy A once more.
        """
        step, owned = applied.step, applied.written.owned
        record = applied.written.record if isinstance(failure, ChecksFailed) else failure.down
        version = self._deps.store.version(record.id) if record is not None else None
        if record is None or version is None or owned.outdated_version:
            return None
        stored = stored_content(record, owned)
        match = FunctionComparison(
            self._owner,
            step.desired,
            record,
            owned,
            stored,
            compare(step.desired.content, stored, owned),
            secret_values=step.secret_values,
        )
        if not match.restoring(version).touches_runtime:
            return None
        back = rolling_back(match, version, self._quarantine(step, failure, version))
        return replace(back, listed_secrets=applied.written.present_secrets)

    def _quarantine(self, step: Write, failure: DeploymentFailed | ChecksFailed, version: Version) -> Quarantine:
        return Quarantine(
            attempt=step.desired.attempt,
            fault=QuarantineReason.CHECK if isinstance(failure, ChecksFailed) else QuarantineReason.DEPLOYMENT,
            error=failure.message,
            code=code_hash(step.desired.code),
            restored=code_hash(version.code),
            at=self._clock.now().isoformat(timespec="seconds"),
            evidence=failure.evidence,
        )

    async def roll_back(self, step: Rollback) -> Outcome:
        """Write and deploy the previous version; the caller holds a slot to deploy or to roll back.

        The failed content is quarantined before anything is written: if the process dies here, the next pass resumes the
        rollback. If not even the previous content goes live, the platform is at fault, and the quarantine is lifted. Raises
        like `deliver`, and `DeploymentFailed`.
        """
        quarantine, owned = step.quarantine, step.last_applied
        if quarantine is None or owned is None:
            raise AssertionError(step)
        slug, function_id = step.slug, step.remote.id
        code, restored = quarantine.code, quarantine.restored
        self._deps.store.remember(replace(owned, quarantine=quarantine))
        self._deps.watches.forget(function_id)
        if self._superseded.is_set():
            raise Superseded("a newer revision came before it was rolled back", hint="the next pass resumes here")
        self._emit(
            events.RollbackStarted(slug=slug, function_id=function_id, reason=quarantine.error, code=code, restored=restored)
        )
        written = None
        try:
            written = await self._deps.writer.overwrite(step)
            written = await self._make_live(step, written)
        except (Superseded, NotLeading):
            raise
        except KapsoSyncError as error:
            if written is not None and isinstance(error, DeploymentFailed) and error.down is not None:
                self._deps.store.remember(replace(written.owned, quarantine=None))
            self._emit(
                events.RollbackFailed(
                    slug=slug, function_id=function_id, code=code, restored=restored, error=error.message, hint=error.hint
                )
            )
            raise
        self._emit(events.RollbackSucceeded(slug=slug, function_id=function_id, code=code, restored=restored))
        return _quarantined(step, quarantine)


def _done(applied: Applied) -> Outcome:
    """Return the outcome of a step that went live; a refused field or a lost secret makes it a failure that took effect."""
    step, written = applied.step, applied.written
    outcome = Outcome(step, Result.DONE, written.record.id, deployed=step.deploys, backup=written.backup)
    refused = (*written.refused, *(step.refused if isinstance(step, Modify) else ()))
    if refused:
        text, hint = refusal_text(written.record.fields, refused), refusal_hint(refused)
        return replace(outcome, result=Result.FAILED, error=text, hint=hint, applied=True, refused=refused)
    if written.lost_secrets:
        text = lost_text(written.lost_secrets)
        return replace(outcome, result=Result.FAILED, error=text, hint=LOST_HINT, applied=True)
    return outcome


def _quarantined(step: Modify, quarantine: Quarantine) -> Outcome:
    hint = f"the previous version was restored; push a fix, or try again with `kapso-sync sync --retry {step.slug}`"
    return Outcome(
        step,
        Result.FAILED,
        step.function_id,
        error=quarantine.error,
        hint=hint,
        quarantine=quarantine,
        evidence=quarantine.evidence,
        held_back=step.held_back,
    )
