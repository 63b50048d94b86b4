"""Carrying out a plan: the only writer. Functions go in parallel, and one function's failure never stops another."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from kapso_sync.errors import (
    ApiConflict,
    ApiGarbled,
    ApiRateLimited,
    ApiUnauthorized,
    ApiUnavailable,
    KapsoSyncError,
    SecretRoutesUnavailable,
    StateUnusable,
)
from kapso_sync.model import events
from kapso_sync.model.clock import Clock
from kapso_sync.model.functions import FunctionType, RemoteFunction, Status
from kapso_sync.model.plan import (
    Blocked,
    Create,
    Delete,
    Invalid,
    Keep,
    Overwrite,
    Plan,
    PutBack,
    Rename,
    Step,
    UnknownSecrets,
    Write,
    held_back,
)
from kapso_sync.model.report import Outcome, Report, Result
from kapso_sync.model.state import Memory
from kapso_sync.reconcile.caution import Caution
from kapso_sync.reconcile.checks import CheckPace, ChecksFailed, Prover
from kapso_sync.reconcile.delivery import Crew, Delivery
from kapso_sync.reconcile.departures import Usher, between_slugs
from kapso_sync.reconcile.deployments import DeploymentWatch, Pace
from kapso_sync.reconcile.function_users import look_up_usage
from kapso_sync.reconcile.keeper import SecretKeeper
from kapso_sync.reconcile.moves import wait_for_departures
from kapso_sync.reconcile.observed import Observed
from kapso_sync.reconcile.ports import FunctionsApi, Store
from kapso_sync.reconcile.rollout import DeploymentFailed, Rollout, Superseded
from kapso_sync.reconcile.secretplan import LOST_HINT, blocks_deployment, lost_text
from kapso_sync.reconcile.usage import deletion_block
from kapso_sync.reconcile.writer import FunctionWriter

AT_RISK = (
    "its deployment may lose secrets whose values are not known here: this base was just seen to drop them",
    "give git their values under `secrets`, or set KAPSO_SYNC_UNKNOWN_SECRETS=allow",
)

MAX_REPLANS = 3
"""So often one function is planned again in a pass because somebody saved it meanwhile."""

Replan = Callable[[RemoteFunction, Memory], Step | None]
"""Plans one function again from its record and our memory as they are now."""

PATIENCE = 3
"""After so many functions in a row that Kapso did not answer for, the rest of the pass is not tried."""

_UNANSWERED = (ApiUnavailable, ApiRateLimited, ApiGarbled)
_NOT_ITS_OWN = (*_UNANSWERED, ApiUnauthorized, StateUnusable)


@dataclass(frozen=True, slots=True)
class ExecutorSettings:
    """``concurrency`` counts functions in the works, deployments included; times are in seconds."""

    concurrency: int = 8
    deploy_timeout: float = 180.0
    pace: Pace = field(default_factory=Pace)
    checks: CheckPace = field(default_factory=CheckPace)
    unknown_secrets: UnknownSecrets = UnknownSecrets.AUTO
    prune_idle: float = 0.0


class Executor:
    """Carries out plans, one at a time. ``redact`` takes secrets out of what functions answer to checks."""

    def __init__(
        self,
        api: FunctionsApi,
        store: Store,
        clock: Clock,
        listener: events.Listener,
        settings: ExecutorSettings,
        redact: Callable[[str], str] = str,
    ) -> None:
        self._api = api
        self._store = store
        self._clock = clock
        self._emit = listener
        self._settings = settings
        self._redact = redact

    async def execute(self, plan: Plan, observed: Observed, superseded: asyncio.Event, replan: Replan) -> Report:
        """Carry out the plan and return what came of it, one outcome a step.

        Once ``superseded`` is set, nothing new is begun and no deployment is waited for. ``replan`` plans one function again
        where somebody changed it after the plan was made.

        Failures of single functions are outcomes. What concerns all of them (a rejected key, a state folder that cannot be
        written, an API that is down) halts the pass: what runs is finished, nothing new is begun.
        """
        if observed.closed_intents:
            self._store.settle(observed.memory, observed.closed_intents)
        if plan.moves != observed.memory.moves:
            self._store.remember_moves(plan.moves)
        if plan.absences != tuple(observed.memory.absences.values()):
            self._store.remember_absences(plan.absences)
        plan = replace(plan, steps=wait_for_departures(plan.steps, plan.departures))
        learned = [step.memory for step in plan.steps if isinstance(step, Keep) and step.memory is not None]
        learned += between_slugs(observed)
        if learned:
            self._store.remember(*learned)
        timeout, pace = self._settings.deploy_timeout, self._settings.pace
        async with DeploymentWatch(self._api, self._clock, timeout, pace, superseded) as watch:
            rollout = Rollout(self._api, self._store, watch, self._clock, self._emit)
            rollout.start_with(_deployed_workers(observed), observed.memory.quota)
            prover = Prover(self._api, self._clock, self._emit, self._settings.checks, superseded, self._redact)
            writer = FunctionWriter(self._api, self._store, self._emit)
            keeper = SecretKeeper(self._api, self._store, self._clock, self._emit, observed.memory.facts)
            crew = Crew(writer, rollout, keeper, prover, self._store)
            delivery = Delivery(crew, self._clock, self._emit, plan.owner, self._settings.concurrency, superseded)
            # Where failures are counted, a function counts as under way until its checks have passed.
            lanes = (
                contextlib.nullcontext() if plan.rollout.max_failures is None else asyncio.Semaphore(self._settings.concurrency)
            )
            again = functools.partial(self._planned_again, replan)
            usage = functools.partial(self._usage, observed)
            run = _Pass(self._emit, delivery, lanes, superseded, Caution(plan.rollout), _Looks(again, usage))
            run.may_lose_secrets = lambda: not blocks_deployment(self._settings.unknown_secrets, keeper.facts)
            outcomes = await run.carry_out(plan, Usher(self._api, self._store, self._emit))
        for function_id in plan.forget:
            self._store.forget(function_id)
        overtaken = superseded.is_set() and any(outcome.result is Result.SKIPPED for outcome in outcomes)
        return Report(plan, outcomes, halted=run.halted, superseded=overtaken)

    async def _usage(self, observed: Observed, deletions: Sequence[Delete]) -> Callable[[Delete], tuple[str, str] | None]:
        """Look up once more who uses what is to be deleted: the plan may be old. Returns what blocks a deletion."""
        idle = self._settings.prune_idle
        usages = await look_up_usage(self._api, observed, deletions, idle)
        now = self._clock.now()
        return lambda step: deletion_block(step, usages[step.remote.id], now, idle)

    async def _planned_again(self, replan: Replan, function_id: str) -> Step | None:
        """Look at one function again and plan it from what it is now; its content is saved before anything replaces it."""
        return replan(await self._api.get_function(function_id), self._store.recall())


@dataclass(frozen=True, slots=True)
class _Looks:
    """What a pass asks of Kapso before it writes: one function again by id, and who uses those that are to be deleted."""

    planned_again: Callable[[str], Awaitable[Step | None]]
    usage: Callable[[Sequence[Delete]], Awaitable[Callable[[Delete], tuple[str, str] | None]]]


class _Pass:
    """One pass: what was halted, and how patient we still are."""

    def __init__(
        self,
        listener: events.Listener,
        delivery: Delivery,
        lanes: contextlib.AbstractAsyncContextManager[None],
        superseded: asyncio.Event,
        caution: Caution,
        looks: _Looks,
    ) -> None:
        self._looks = looks
        self._parked: dict[str, RemoteFunction] = {}
        self._emit = listener
        self._delivery = delivery
        self._lanes = lanes
        self._superseded = superseded
        self._unanswered = 0
        self._caution = caution
        self._in_the_way: dict[str, KapsoSyncError] = {}
        self.halted: KapsoSyncError | None = None
        self.may_lose_secrets: Callable[[], bool] = lambda: True

    async def carry_out(self, plan: Plan, usher: Usher) -> tuple[Outcome, ...]:
        """Write and deploy first, the canary before all others; delete last. Whose slug another takes leaves it before.

        What failed in earlier passes is known before anything begins, and what they left to be taken back waits for no canary.
        """
        still = [step for step in plan.steps if isinstance(step, Keep | Blocked | Invalid)]
        first = [step for step in plan.changes if step.slug == plan.rollout.canary or isinstance(step, PutBack)]
        rest = [step for step in plan.changes if not isinstance(step, Delete) and step not in first]
        # What cannot lose a secret for good goes first: it shows whether deployments drop secrets here.
        safe = [step for step in rest if not (isinstance(step, Write) and step.secrets_at_risk)]
        risky = [step for step in rest if step not in safe]
        told = await self._all(still)
        outcomes: list[Outcome] = []
        for steps in (first, safe, risky):
            await self._make_way(plan, usher, {step.slug for step in steps if isinstance(step, Create | Rename)}, outcomes)
            outcomes += await self._all(steps)
        deletions = [step for step in plan.steps if isinstance(step, Delete) and step not in first]
        if deletions:
            outcomes += await self._delete(deletions)
        return tuple(sorted((*told, *outcomes), key=lambda outcome: outcome.step.slug))

    async def _make_way(self, plan: Plan, usher: Usher, slugs: set[str], before: Sequence[Outcome]) -> None:
        """Let those leave whose slugs are needed now, unless their own steps have brought them away already."""
        gone = {outcome.step.function_id for outcome in before}
        for departure in plan.departures:
            if departure.frees not in slugs or departure.remote.id in gone or self._not_now() is not None:
                continue
            try:
                self._parked[departure.remote.id] = await usher.depart(departure)
            except KapsoSyncError as error:
                self._in_the_way[departure.frees] = error

    async def _all(self, steps: Iterable[Step]) -> list[Outcome]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._guarded(step), name=step.slug) for step in steps]
        return [task.result() for task in tasks]

    async def _delete(self, deletions: Sequence[Delete]) -> list[Outcome]:
        """Delete what nothing uses; who uses it is looked up again, right before."""
        try:
            blocked_by = await self._looks.usage(deletions)
        except KapsoSyncError as error:
            return [self._failed(step, error) for step in deletions]
        steps: list[Step] = []
        for step in deletions:
            block = blocked_by(step)
            if block is not None:
                self._emit(events.PruneBlocked(slugs=(step.slug,), reason=block[0], hint=block[1]))
            steps.append(step if block is None else held_back(step, *block))
        return await self._all(steps)

    async def _guarded(self, step: Step) -> Outcome:
        outcome = await self._outcome(step)
        self._caution.learn(outcome)
        return outcome

    async def _outcome(self, step: Step) -> Outcome:
        if isinstance(step, Keep):
            return self._kept(step)
        if isinstance(step, Blocked | Invalid):
            return self._not_done(step)
        try:
            async with self._lanes:
                outcome = await self._newest(step)
        except Superseded as error:
            written = isinstance(step, Write) and not isinstance(step, PutBack)
            return Outcome(
                step, Result.SKIPPED, step.function_id, error=error.message, hint=error.hint, blameless=True, applied=written
            )
        except KapsoSyncError as error:
            return self._failed(step, error)
        self._unanswered = 0
        return outcome

    async def _newest(self, step: Step) -> Outcome:
        """Carry out a step; where somebody saved the function after it was planned, plan it again from what it is now."""
        for _ in range(MAX_REPLANS):
            try:
                return await self._one(step)
            except ApiConflict as conflict:
                if isinstance(step, Delete) or step.function_id is None:
                    raise
                again = await self._looks.planned_again(step.function_id)
                if again is None or again.slug != step.slug or isinstance(again, Delete):
                    raise
                self._emit(events.PlannedAgain(slug=step.slug, function_id=step.function_id, error=conflict.message))
                step = again
            if isinstance(step, Keep):
                return self._kept(step)
            if isinstance(step, Blocked | Invalid):
                return self._not_done(step)
        return await self._one(step)

    async def _one(self, step: Step) -> Outcome:
        async with self._delivery.slots:
            reason = self._not_now(step)
            if reason is not None:
                return Outcome(step, Result.SKIPPED, step.function_id, error=f"not tried: {reason}", blameless=True)
            if step.slug in self._in_the_way:
                raise self._in_the_way[step.slug]
            if isinstance(step, Write) and step.secrets_at_risk and not self.may_lose_secrets():
                return self._not_done(held_back(step, *AT_RISK))
            if step.drifted:
                self._emit(events.DriftDetected(slug=step.slug, function_id=step.function_id, fields=step.fields))
            match step:
                case Delete():
                    return await self._delivery.remove(step)
                case PutBack():
                    return await self._delivery.take_back(step)
                case Create() | Overwrite():
                    begun = await self._delivery.begin(self._since_parked(step))
                case _:
                    raise AssertionError(step)
        # Where the other style was tried, the outcome is still that of the step that was asked for.
        return replace(await self._delivery.finish(begun), step=step)

    def _since_parked(self, step: Create | Overwrite) -> Create | Overwrite:
        """Return the step with the version that our own move to a parking slug left, so that it is no conflict."""
        parked = self._parked.get(step.function_id or "")
        if parked is None or not isinstance(step, Overwrite):
            return step
        return replace(step, remote=replace(step.remote, lock_version=parked.lock_version))

    def _not_now(self, step: Step | None = None) -> str | None:
        """Return why nothing new is begun any more, or None. Caution never stops what takes back a failure."""
        if self.halted is not None:
            return self.halted.message
        if self._superseded.is_set():
            return "a newer revision came"
        return None if isinstance(step, PutBack) else self._caution.reason

    def _failed(self, step: Step, error: KapsoSyncError) -> Outcome:
        if isinstance(error, ApiUnauthorized | StateUnusable):
            self.halted = error
        elif isinstance(error, _UNANSWERED) and not isinstance(error, SecretRoutesUnavailable):
            self._unanswered += 1
            if self._unanswered >= PATIENCE:
                self.halted = error
        told = isinstance(error, DeploymentFailed | ChecksFailed)
        if not told:
            self._emit(
                events.FunctionFailed(
                    slug=step.slug,
                    function_id=step.function_id,
                    error=error.message,
                    error_type=type(error).__name__,
                    hint=error.hint,
                )
            )
        return Outcome(
            step,
            Result.FAILED,
            step.function_id,
            error=error.message,
            hint=error.hint,
            blameless=isinstance(error, _NOT_ITS_OWN) and not isinstance(error, SecretRoutesUnavailable),
            never_ran=told and _never_ran(step),
        )

    def _kept(self, step: Keep) -> Outcome:
        if not step.lost_secrets:
            return Outcome(step, Result.UNCHANGED, step.function_id)
        self._emit_lost(step.slug, step.function_id, step.lost_secrets)
        return Outcome(step, Result.FAILED, step.function_id, error=lost_text(step.lost_secrets), hint=LOST_HINT)

    def _emit_lost(self, slug: str, function_id: str | None, names: tuple[str, ...]) -> None:
        self._emit(events.SecretLost(slug=slug, function_id=function_id, names=names, hint=LOST_HINT))

    def _not_done(self, step: Blocked | Invalid) -> Outcome:
        error = step.reasons[0] if step.reasons else None
        if isinstance(step, Invalid):
            for problem in step.problems:
                location = str(problem.location) if problem.location else None
                self._emit(events.FunctionInvalid(slug=step.slug, error=problem.message, location=location, hint=problem.hint))
            return Outcome(step, Result.INVALID, step.function_id, error=error)
        hint = step.reasons[1] if len(step.reasons) > 1 else None
        slug, function_id, fields = step.slug, step.function_id, step.fields
        if step.oscillating:
            self._emit(events.FunctionOscillating(slug=slug, function_id=function_id, fields=fields, hint=hint))
        elif step.reported:
            self._emit(events.DriftDetected(slug=slug, function_id=function_id, fields=fields))
            self._emit(events.DriftIgnored(slug=slug, function_id=function_id, fields=fields))
        elif step.lost_secrets:
            self._emit_lost(slug, function_id, step.lost_secrets)
        elif step.quarantine is not None or step.refused:
            self._emit(events.FunctionStalled(slug=slug, function_id=function_id, reason=error or "in quarantine", hint=hint))
        elif step.wanted != "delete" and not (step.deferred or step.explained):
            self._emit(events.FunctionConflict(slug=slug, function_id=function_id, reason=error or "blocked"))
        return Outcome(step, Result.BLOCKED, step.function_id, error=error, hint=hint)


def _never_ran(step: Step) -> bool:
    """Tell whether there is nothing to go back to."""
    return not isinstance(step, Overwrite) or step.remote.last_deployed_at is None


def _deployed_workers(observed: Observed) -> set[str]:
    return {
        remote.id
        for remote in observed.functions
        if remote.status is Status.DEPLOYED and remote.fields.get("function_type") != FunctionType.SUPABASE_FUNCTION
    }
