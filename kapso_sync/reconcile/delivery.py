"""Bringing one function from git to running code: write, deploy, prove; and back to what ran before, when that fails."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from kapso_sync.errors import KapsoSyncError
from kapso_sync.model import events
from kapso_sync.model.clock import Clock
from kapso_sync.model.desired import CodeStyle
from kapso_sync.model.functions import Version, code_hash
from kapso_sync.model.plan import Create, Delete, Overwrite, PutBack, Write
from kapso_sync.model.report import Outcome, Result
from kapso_sync.model.state import Fault, Quarantine
from kapso_sync.reconcile.checks import ChecksFailed, Prover
from kapso_sync.reconcile.compare import compare
from kapso_sync.reconcile.keeper import SecretKeeper
from kapso_sync.reconcile.match import Match
from kapso_sync.reconcile.observed import stored_content
from kapso_sync.reconcile.ports import Store
from kapso_sync.reconcile.rollout import DeploymentFailed, Rollout, Superseded
from kapso_sync.reconcile.secretplan import LOST_HINT, lost_text
from kapso_sync.reconcile.steps import put_back, refusal_hint, refusal_text
from kapso_sync.reconcile.styles import learned_style, other_style_step
from kapso_sync.reconcile.writer import FunctionWriter, Written


@dataclass(frozen=True, slots=True)
class Crew:
    """Who does the single jobs of a delivery."""

    writer: FunctionWriter
    rollout: Rollout
    keeper: SecretKeeper
    prover: Prover
    store: Store


@dataclass(frozen=True, slots=True)
class Begun:
    """A step that was written and, unless it failed, deployed."""

    step: Write
    written: Written
    failure: DeploymentFailed | None = None


class Delivery:
    """Delivers ``owner``'s functions of one pass, ``concurrency`` at a time.

    What is taken back waits for nobody who has yet to begin: it has slots of its own.
    """

    def __init__(
        self,
        crew: Crew,
        clock: Clock,
        listener: events.Listener,
        owner: str,
        concurrency: int,
        superseded: asyncio.Event,
    ) -> None:
        self.slots = asyncio.Semaphore(concurrency)
        self._returning = asyncio.Semaphore(concurrency)
        self._crew = crew
        self._clock = clock
        self._emit = listener
        self._owner = owner
        self._superseded = superseded

    async def remove(self, step: Delete) -> Outcome:
        """Delete a function, after a copy was saved; the caller holds a slot. Raises `ApiError` and `StateUnusable`."""
        backup = await self._crew.writer.delete(step)
        return Outcome(step, Result.DONE, step.function_id, backup=backup)

    async def begin(self, step: Create | Overwrite) -> Begun:
        """Write, deploy, set secrets and deploy those; the caller holds a slot.

        Raises `ApiError`, `StateUnusable` and `Superseded`.
        """
        writer = self._crew.writer
        written = await (writer.overwrite(step) if isinstance(step, Overwrite) else writer.create(step))
        try:
            return Begun(step, await self._deliver(step, written))
        except DeploymentFailed as failure:
            return await self._try_other_style(Begun(step, written, failure))

    async def _deliver(self, step: Write, written: Written) -> Written:
        """Deploy what was written, set secrets, and deploy those."""
        if step.deploy:
            written = await self._make_live(step, written)
            self._learn_style(step)
        written = await self._crew.keeper.apply(step, written)
        if step.secrets and written.owned.secrets.undeployed:
            written = await self._with_secrets_live(step, written)
        return written

    async def _try_other_style(self, failed: Begun) -> Begun:
        """Deploy code that ended in ``error`` once more in the other style, before it counts as failed.

        Which style an API base runs is not documented beyond doubt. What goes live is remembered for the base.
        """
        down = failed.failure.down if failed.failure is not None else None
        if down is None:
            return failed
        keeper, owned = self._crew.keeper, failed.written.owned
        step = other_style_step(failed.step, down, owned, keeper.facts)
        if step is None:
            return failed
        written = await self._crew.writer.overwrite(step)
        written = replace(written, backup=failed.written.backup, refused=failed.written.refused)
        try:
            written = await self._deliver(step, written)
        except DeploymentFailed as failure:
            return Begun(step, written, failure)
        self._learn_style(step, failed=failed.step.desired.style)
        return Begun(step, written)

    def _learn_style(self, step: Write, *, failed: CodeStyle | None = None) -> None:
        style = step.desired.style
        if style is not None:
            self._crew.keeper.learn(learned_style(self._crew.keeper.facts, style, failed=failed))

    async def _make_live(self, step: Write, written: Written) -> Written:
        """Deploy, and look after the function's secrets: never end on a deployment without that look."""
        return await self._crew.keeper.after_deployment(step, await self._crew.rollout.make_live(step, written))

    async def _with_secrets_live(self, step: Write, written: Written) -> Written:
        """Make changed secrets take effect by one more deployment, unless this base is known to drop secrets by it.

        By its documentation, a secret works at once on a running function; people deploy once more all the same.
        """
        if self._crew.keeper.facts.secrets_survive is False:
            return self._crew.keeper.settled_without_deployment(written)
        return await self._make_live(step, written)

    async def finish(self, begun: Begun) -> Outcome:
        """Prove what was deployed, and take it back where it failed; waits for long, so that the caller holds no slot.

        Raises like `begin`, and `DeploymentFailed` or `ChecksFailed` where there is nothing to go back to.
        """
        step, written = begun.step, begun.written
        failure: DeploymentFailed | ChecksFailed | None = begun.failure
        if failure is None and step.deploys and step.desired.entry.checks:
            failure = await self._prove(step, written)
        if failure is None and isinstance(step, Overwrite) and step.quarantine is not None:
            return _quarantined(step, step.quarantine)
        if failure is None:
            if step.deploys:
                self._keep(begun)
            return _done(begun)
        back = self._way_back(begun, failure)
        if back is None:
            raise failure
        async with self._returning:
            outcome = await self.take_back(back)
        return replace(outcome, step=step, backup=written.backup)

    async def _prove(self, step: Write, written: Written) -> ChecksFailed | None:
        try:
            await self._crew.prover.prove(step.slug, written.record, step.desired.entry.checks)
        except ChecksFailed as failure:
            return failure
        self._crew.store.remember(replace(written.owned, unproven=False))
        return None

    def _keep(self, begun: Begun) -> None:
        """Keep what is live, and as good as its checks can tell, as the version to go back to."""
        record = begun.written.record
        self._crew.store.keep_version(replace(record, code=begun.step.desired.code if record.code is None else record.code))

    def _way_back(self, begun: Begun, failure: DeploymentFailed | ChecksFailed) -> PutBack | None:
        """Return the step that takes back what failed, or None where nothing ran before, or this very content did.

        What ran well before and fails now is not at fault: a secret is, or somebody it depends on.
        """
        step, owned = begun.step, begun.written.owned
        record = begun.written.record if isinstance(failure, ChecksFailed) else failure.down
        version = self._crew.store.version(record.id) if record is not None else None
        if record is None or version is None:
            return None
        stored = stored_content(record, owned)
        match = Match(
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
        back = put_back(match, version, self._quarantine(step, failure, version))
        return replace(back, listed_secrets=begun.written.present_secrets)

    def _quarantine(self, step: Write, failure: DeploymentFailed | ChecksFailed, version: Version) -> Quarantine:
        return Quarantine(
            attempt=step.desired.attempt,
            fault=Fault.CHECK if isinstance(failure, ChecksFailed) else Fault.DEPLOYMENT,
            error=failure.message,
            code=code_hash(step.desired.code),
            restored=code_hash(version.code),
            at=self._clock.now().isoformat(timespec="seconds"),
        )

    async def take_back(self, step: PutBack) -> Outcome:
        """Put back what ran before and make it live; the caller holds a slot.

        What failed is in quarantine before anything is written: whoever dies here is followed by somebody who goes on. Where
        not even what ran before goes live, the platform is at fault, and git's content is free again. Raises like `begin`,
        and `DeploymentFailed`.
        """
        quarantine, owned = step.quarantine, step.base
        if quarantine is None or owned is None:
            raise AssertionError(step)
        slug, function_id = step.slug, step.remote.id
        code, restored = quarantine.code, quarantine.restored
        self._crew.store.remember(replace(owned, quarantine=quarantine))
        if self._superseded.is_set():
            raise Superseded("a newer revision came before it was taken back", hint="the next pass goes on from here")
        self._emit(
            events.RollbackStarted(slug=slug, function_id=function_id, reason=quarantine.error, code=code, restored=restored)
        )
        written = None
        try:
            written = await self._crew.writer.overwrite(step)
            written = await self._make_live(step, written)
        except Superseded:
            raise
        except KapsoSyncError as error:
            if written is not None and isinstance(error, DeploymentFailed) and error.down is not None:
                self._crew.store.remember(replace(written.owned, quarantine=None))
            self._emit(
                events.RollbackFailed(
                    slug=slug, function_id=function_id, code=code, restored=restored, error=error.message, hint=error.hint
                )
            )
            raise
        self._emit(events.RollbackSucceeded(slug=slug, function_id=function_id, code=code, restored=restored))
        return _quarantined(step, quarantine)


def _done(begun: Begun) -> Outcome:
    """Return the outcome of what went live; where Kapso refused a field or lost a secret, it is a failure that took effect."""
    step, written = begun.step, begun.written
    outcome = Outcome(step, Result.DONE, written.record.id, deployed=step.deploys, backup=written.backup)
    if written.refused:
        text, hint = refusal_text(written.record.fields, written.refused), refusal_hint(written.refused)
        return replace(outcome, result=Result.FAILED, error=text, hint=hint, applied=True)
    if written.lost_secrets:
        text = lost_text(written.lost_secrets)
        return replace(outcome, result=Result.FAILED, error=text, hint=LOST_HINT, applied=True)
    return outcome


def _quarantined(step: Overwrite, quarantine: Quarantine) -> Outcome:
    hint = f"what ran before was put back; push a fix, or try again with `kapso-sync sync --retry {step.slug}`"
    return Outcome(step, Result.FAILED, step.function_id, error=quarantine.error, hint=hint, quarantine=quarantine)
