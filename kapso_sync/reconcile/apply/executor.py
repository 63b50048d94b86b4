"""Executes a plan; the only writer. Functions run in parallel, and the failure of one does not stop another."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Awaitable, Callable, Collection, Generator, Iterable, Mapping, Sequence
from dataclasses import field, replace

from kapso_sync.aio import in_slices
from kapso_sync.dataclass import dataclass
from kapso_sync.errors import (
    ApiConflict,
    ApiGarbled,
    ApiRateLimited,
    ApiUnauthorized,
    ApiUnavailable,
    KapsoSyncError,
    NotLeading,
    SecretRoutesUnavailable,
    StateForeign,
    StateUnusable,
)
from kapso_sync.model import events
from kapso_sync.model.clock import Clock
from kapso_sync.model.functions import DESCRIPTION, DeploymentStatus, FunctionType, RemoteFunction
from kapso_sync.model.plan import (
    Blocked,
    BlockedBy,
    Create,
    Delete,
    Invalid,
    Modify,
    NoChange,
    Plan,
    Rename,
    Rollback,
    Step,
    Write,
    block,
)
from kapso_sync.model.policies import UnknownSecrets
from kapso_sync.model.ports import EvidenceCollector, FunctionsApi, StartLocally, Store
from kapso_sync.model.report import Outcome, Report, Result
from kapso_sync.model.state import ReconcilerState
from kapso_sync.reconcile.apply.checks import CheckDeps, CheckPace, CheckRunner, ChecksFailed
from kapso_sync.reconcile.apply.deployer import Deployer, DeploymentFailed, LocalTrial, Superseded
from kapso_sync.reconcile.apply.deployment_poller import POLL_INTERVALS, DeploymentPoller, PollPace
from kapso_sync.reconcile.apply.flows import FlowAttacher
from kapso_sync.reconcile.apply.function import ApplyDeps, FunctionApplier, Slots
from kapso_sync.reconcile.apply.function_users import deletion_rounds, look_up_usage
from kapso_sync.reconcile.apply.rollout_gate import RolloutGate
from kapso_sync.reconcile.apply.secrets import SecretApplier
from kapso_sync.reconcile.apply.slug_parking import SlugParker, parked_records
from kapso_sync.reconcile.apply.unseen_project import UnseenProject
from kapso_sync.reconcile.apply.watches import WatchKeeper
from kapso_sync.reconcile.apply.writer import FunctionWriter
from kapso_sync.reconcile.plan.function_usage import reason_against_deletion
from kapso_sync.reconcile.plan.observed import Observed
from kapso_sync.reconcile.plan.renames import block_without_free_slug
from kapso_sync.reconcile.plan.secrets import LOST_HINT, blocks_deployment, lost_text, risk_hint, risk_text
from kapso_sync.retry import Backoff

MAX_REPLANS = 3
"""Maximum number of times that one function is planned again in a pass because somebody saved it meanwhile."""

Replan = Callable[[RemoteFunction, ReconcilerState], Step | None]
"""Plans one function again from its record and our state as they are now."""

MAX_UNANSWERED = 3
"""After this many functions in a row without an answer from Kapso, the rest of the pass is skipped."""

_UNANSWERED = (ApiUnavailable, ApiRateLimited, ApiGarbled)
_HALTING = (ApiUnauthorized, StateForeign, StateUnusable)
_NOT_ITS_OWN = (*_UNANSWERED, *_HALTING)


def _no_secret(_: str) -> None:
    """Do nothing with a secret, where nothing is shown to anybody."""


@dataclass(frozen=True, slots=True)
class ExecutorSettings:
    """Limits of one pass; times are in seconds.

    ``concurrency`` is the number of functions written at the same time, ``deploying`` of those written or deployed.

    ``start_locally`` starts code that Kapso did not, to find the reason: Kapso's API gives none. ``evidence`` collects
    what a function wrote to its console. ``conceal`` tells what redacts texts one more secret: the signature of a check.
    ``watch_edge`` is as in `WatchKeeper`.
    """

    concurrency: int = 8
    deploying: int = 50
    deploy_timeout: float = 180.0
    poll_intervals: Backoff = POLL_INTERVALS
    checks: CheckPace = field(default_factory=CheckPace)
    unknown_secrets: UnknownSecrets = UnknownSecrets.AUTO
    prune_idle: float = 0.0
    start_locally: StartLocally | None = None
    watch_edge: float | None = None
    evidence: EvidenceCollector | None = None
    conceal: Callable[[str], None] = _no_secret


class Executor:
    """Executes plans, one at a time. ``redact`` removes secrets from the answers of checks."""

    def __init__(
        self,
        api: FunctionsApi,
        store: Store,
        clock: Clock,
        emit: events.Listener,
        settings: ExecutorSettings,
        redact: Callable[[str], str] = str,
    ) -> None:
        self._api = api
        self._store = store
        self._clock = clock
        self._emit = emit
        self._settings = settings
        self._redact = redact

    async def execute(self, plan: Plan, observed: Observed, superseded: asyncio.Event, replan: Replan) -> Report:
        """Execute the plan and return one outcome for each step.

        Once ``superseded`` is set, nothing new starts and no deployment is awaited. ``replan`` plans one function again that
        somebody changed after the plan was made.

        Failures of single functions are outcomes. A failure that concerns all of them (a rejected key, a key of another
        project, a state folder that cannot be written, an API that is down) halts the pass: running steps finish, and nothing
        new starts.
        """
        if observed.closed_intents:
            self._store.settle(observed.state, observed.closed_intents)
        if plan.project_id is not None and plan.project_id != observed.state.project_id:
            self._store.remember_project(plan.project_id)
        if plan.renames != observed.state.renames:
            self._store.remember_renames(plan.renames)
        if plan.missing != tuple(observed.state.missing.values()):
            self._store.remember_missing(plan.missing)
        steps = block_without_free_slug(plan.steps, plan.vacations)
        plan = replace(plan, steps=tuple(self._journaled(step, observed) for step in steps))
        learned = [step.record for step in plan.steps if isinstance(step, NoChange | Blocked) and step.record is not None]
        learned += parked_records(observed)
        if learned:
            self._store.remember(*learned)
        watches = WatchKeeper(self._api, self._store, self._clock, self._emit, self._settings.watch_edge)
        await watches.settle(plan, observed)
        timeout, pace = (
            self._settings.deploy_timeout,
            PollPace(self._settings.poll_intervals, observed.state.facts.deploy_seconds),
        )
        async with DeploymentPoller(self._api, self._clock, timeout, pace, superseded) as watch:
            tried = LocalTrial(self._settings.start_locally, self._settings.evidence)
            rollout = Deployer(self._api, self._store, watch, self._clock, self._emit, tried)
            rollout.load(_deployed_workers(observed), observed.state.quota)
            check_deps = CheckDeps(
                self._settings.checks,
                self._redact,
                self._settings.conceal,
                self._settings.evidence,
                headers_reach=observed.state.facts.headers_reach is not False,
            )
            checks = CheckRunner(self._api, self._clock, self._emit, check_deps, superseded)
            project = UnseenProject(self._api, plan, observed)
            writer = FunctionWriter(
                self._api, self._store, self._clock, self._emit, {*observed.by_id, *observed.state.owned}, project
            )
            secrets = SecretApplier(self._api, self._store, self._clock, self._emit, observed.state.facts)
            secrets.learn_from_losses(plan)
            flows = FlowAttacher(self._api, self._store, self._emit)
            deps = ApplyDeps(writer, rollout, secrets, checks, flows, watches, self._store)
            slots = Slots(self._settings.concurrency, self._settings.deploying)
            applier = FunctionApplier(deps, self._clock, self._emit, plan.owner, slots, superseded)
            # If the rollout limits failures, a function keeps its slot until its checks have passed.
            lanes = (
                contextlib.nullcontext() if plan.rollout.max_failures is None else asyncio.Semaphore(self._settings.concurrency)
            )
            again = functools.partial(self._planned_again, replan)
            upcoming = {step.slug: step.desired.code for step in plan.steps if isinstance(step, Write)}
            usage = functools.partial(self._usage, observed, upcoming)
            rounds = functools.partial(deletion_rounds, self._api)
            looks = _Looks(again, rounds, usage, project)
            run = _Pass(self._emit, applier, lanes, superseded, RolloutGate(plan.rollout), looks)
            run.may_lose_secrets = lambda: not blocks_deployment(self._settings.unknown_secrets, secrets.facts)
            outcomes = await run.carry_out(plan, SlugParker(self._api, self._store, self._emit))
            with contextlib.suppress(StateUnusable):  # losing it costs a few polls
                secrets.learn(replace(secrets.facts, deploy_seconds=watch.pace.typical))
        for function_id in plan.forget:
            self._store.forget(function_id)
        overtaken = superseded.is_set() and any(outcome.result is Result.SKIPPED for outcome in outcomes)
        return Report(plan, outcomes, halted=run.halted, superseded=overtaken)

    def _journaled(self, step: Step, observed: Observed) -> Step:
        """Return a step after the deployments that may still run beside it, and that nothing was known of, are in the journal.

        If this process dies as well, the next one must still know of them.
        """
        if not isinstance(step, Write) or 0 not in step.unconfirmed or step.function_id is None:
            return step
        intents = observed.uncertain[step.function_id]
        return replace(step, unconfirmed=tuple(intent.id or self._store.begin(intent) for intent in intents))

    async def _usage(
        self,
        observed: Observed,
        upcoming: Mapping[str, str],
        deletions: Sequence[Delete],
        later: Sequence[Delete],
        gone: Collection[str],
    ) -> Callable[[Delete], tuple[str, str] | None]:
        """Read the users of functions to delete again, since the plan may be old. Returns why a deletion is blocked.

        ``later`` are deletions that follow; ``gone`` are the ids of functions that this pass has deleted.
        """
        idle = self._settings.prune_idle
        # Code that was saved since the plan was made counts: deployments may have taken minutes.
        known = {remote.id: remote for remote in observed.functions}
        listed = await self._api.list_records()
        fresh = (_newest(remote, known.get(remote.id)) for remote in listed.functions)
        left = replace(observed, functions=tuple(remote for remote in fresh if remote.id not in gone), garbled=listed.garbled)
        usages = await look_up_usage(self._api, left, deletions, idle, upcoming, later)
        now = self._clock.now()
        return lambda step: reason_against_deletion(step, usages[step.remote.id], now, idle)

    async def _planned_again(self, replan: Replan, function_id: str) -> Step | None:
        """Read one function again and plan it from its present content, which is backed up before it is replaced."""
        return replan(await self._api.get_function(function_id), self._store.load_state())


@dataclass(frozen=True, slots=True)
class _Looks:
    """The reads of Kapso before writes: one function by id, the order of deletions, and the users of functions to delete.

    ``project`` says whether the first create must show the project.
    """

    planned_again: Callable[[str], Awaitable[Step | None]]
    rounds: Callable[[Sequence[Delete]], Awaitable[Sequence[Sequence[Delete]]]]
    usage: Callable[
        [Sequence[Delete], Sequence[Delete], Collection[str]], Awaitable[Callable[[Delete], tuple[str, str] | None]]
    ]
    project: UnseenProject


class _Pass:
    """The state of one pass: why it was halted, and how many functions in a row got no answer."""

    def __init__(
        self,
        emit: events.Listener,
        applier: FunctionApplier,
        lanes: contextlib.AbstractAsyncContextManager[None],
        superseded: asyncio.Event,
        gate: RolloutGate,
        looks: _Looks,
    ) -> None:
        self._looks = looks
        self._parked: dict[str, RemoteFunction] = {}
        self._emit = emit
        self._applier = applier
        self._lanes = lanes
        self._superseded = superseded
        self._unanswered = 0
        self._gate = gate
        self._in_the_way: dict[str, KapsoSyncError] = {}
        self.halted: KapsoSyncError | None = None
        self.may_lose_secrets: Callable[[], bool] = lambda: True

    async def carry_out(self, plan: Plan, parker: SlugParker) -> tuple[Outcome, ...]:
        """Write and deploy, the canary before all others, and delete last; slugs are vacated before others take them.

        Of the others, functions that are down go first, then changed ones, then new ones: so many may be deployed at once that
        the last ones wait.

        Failures of earlier passes count before anything starts, and unfinished rollbacks do not wait for the canary.

        A plan with the canary `ping`, an update of `greet` with known secrets, an update of `pay` with an unknown secret, and
        a deletion of `old` runs in this order: `ping`; then `greet`, which shows whether this base drops secrets; then `pay`,
        if it does not; then `old`, after its users were read again.
        """
        unchanged = [step for step in plan.steps if isinstance(step, NoChange) and not step.lost_secrets]
        still = [
            step
            for step in plan.steps
            if isinstance(step, Blocked | Invalid) or (isinstance(step, NoChange) and step.lost_secrets)
        ]
        first = [step for step in plan.changes if step.slug == plan.rollout.canary or isinstance(step, Rollback)]
        rest = sorted((step for step in plan.changes if not isinstance(step, Delete) and step not in first), key=_urgency)
        # Steps that cannot lose a secret for good go first: they show whether deployments drop secrets on this base.
        risky = [step for step in rest if isinstance(step, Write) and step.secrets_at_risk]
        safe = [step for step in rest if not (isinstance(step, Write) and step.secrets_at_risk)]
        told = await in_slices(self._settled_in_slices(still))
        outcomes: list[Outcome] = []
        for steps in (first, safe, risky):
            await self._make_way(plan, parker, {step.slug for step in steps if isinstance(step, Create | Rename)}, outcomes)
            outcomes += await self._write(steps)
        deletions = [step for step in plan.steps if isinstance(step, Delete) and step not in first]
        if deletions:
            outcomes += await self._delete(deletions)
        told += await in_slices(self._settled_in_slices(unchanged))  # No write waits for what there is to say of these.
        return tuple(sorted((*told, *outcomes), key=lambda outcome: outcome.step.slug))

    async def _make_way(self, plan: Plan, parker: SlugParker, slugs: set[str], before: Sequence[Outcome]) -> None:
        """Park the functions that have a slug which is needed now, unless their own steps have renamed them already."""
        gone = {outcome.step.function_id for outcome in before}
        for vacation in plan.vacations:
            if vacation.frees not in slugs or vacation.remote.id in gone or self._not_now() is not None:
                continue
            try:
                self._parked[vacation.remote.id] = await parker.park(vacation)
            except KapsoSyncError as error:
                self._in_the_way[vacation.frees] = error

    async def _write(self, steps: Sequence[Step]) -> list[Outcome]:
        """Execute steps at once; one after the other, while it is not known whether the key opens the right project."""
        outcomes: list[Outcome] = []
        while steps and self._looks.project.unseen:
            alone, *steps = steps
            outcomes += await self._all([alone])
        return outcomes + await self._all(steps)

    async def _all(self, steps: Iterable[Step]) -> list[Outcome]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._guarded(step), name=step.slug) for step in steps]
        return [task.result() for task in tasks]

    async def _delete(self, deletions: Sequence[Delete]) -> list[Outcome]:
        """Delete unused functions, users before the functions that they use; users are read again before each round."""
        try:
            rounds = list(await self._looks.rounds(deletions))
        except KapsoSyncError as error:
            return [self._failed(step, error) for step in deletions]
        outcomes: list[Outcome] = []
        while rounds:
            current, *rounds = rounds
            gone = {outcome.step.function_id or "" for outcome in outcomes if outcome.result is Result.DONE}
            later = [step for steps in rounds for step in steps]
            outcomes += await self._delete_round(current, later, gone)
        return outcomes

    async def _delete_round(self, deletions: Sequence[Delete], later: Sequence[Delete], gone: Collection[str]) -> list[Outcome]:
        try:
            blocked_by = await self._looks.usage(deletions, later, gone)
        except KapsoSyncError as error:
            return [self._failed(step, error) for step in deletions]
        steps: list[Step] = []
        for step in deletions:
            against = blocked_by(step)
            if against is not None:
                self._emit(events.PruneBlocked(slugs=(step.slug,), reason=against[0], hint=against[1]))
            steps.append(step if against is None else block(step, BlockedBy.DELETION, *against))
        return await self._all(steps)

    def _settled_in_slices(self, steps: Iterable[NoChange | Blocked | Invalid]) -> Generator[None, None, list[Outcome]]:
        """Return the outcomes of steps that do nothing, and pause after each."""
        outcomes = []
        for step in steps:
            outcomes.append(self._settled(step))
            yield
        return outcomes

    def _settled(self, step: NoChange | Blocked | Invalid) -> Outcome:
        """Return the outcome of a step that does nothing."""
        outcome = self._kept(step) if isinstance(step, NoChange) else self._not_done(step)
        self._gate.learn(outcome)
        return outcome

    async def _guarded(self, step: Step) -> Outcome:
        outcome = await self._outcome(step)
        self._gate.learn(outcome)
        return outcome

    async def _outcome(self, step: Step) -> Outcome:
        if isinstance(step, NoChange):
            return self._kept(step)
        if isinstance(step, Blocked | Invalid):
            return self._not_done(step)
        try:
            async with self._lanes:
                outcome = await self._newest(step)
        except Superseded as error:
            written = isinstance(step, Write) and not isinstance(step, Rollback)
            return Outcome(
                step, Result.SKIPPED, step.function_id, error=error.message, hint=error.hint, blameless=True, applied=written
            )
        except KapsoSyncError as error:
            return self._failed(step, error)
        self._unanswered = 0
        return outcome

    async def _newest(self, step: Step) -> Outcome:
        """Execute a step. If somebody saved the function after it was planned, plan it again first."""
        for _ in range(MAX_REPLANS):
            try:
                return await self._one(step)
            except ApiConflict as conflict:
                if isinstance(step, Delete) or step.function_id is None:
                    raise
                again = await self._looks.planned_again(step.function_id)
                if again is None or again.slug != step.slug or isinstance(again, Delete):
                    raise
                self._emit(events.FunctionReplanned(slug=step.slug, function_id=step.function_id, error=conflict.message))
                step = again
            if isinstance(step, NoChange):
                return self._kept(step)
            if isinstance(step, Blocked | Invalid):
                return self._not_done(step)
        return await self._one(step)

    async def _one(self, step: Step) -> Outcome:
        slots = self._applier.slots
        async with slots.deploying:
            if isinstance(step, Rollback):
                return self._kept_back(step) or await self._applier.roll_back(step)
            async with slots.writing:
                kept_back = self._kept_back(step)
                if kept_back is not None:
                    return kept_back
                match step:
                    case Delete():
                        return await self._applier.delete(step)
                    case Create() | Modify():
                        applied = await self._applier.write(self._since_parked(step))
                    case _:
                        raise AssertionError(step)
            applied = await self._applier.deliver(applied)
        # If the other style was tried, the outcome still belongs to the original step.
        return replace(await self._applier.complete(applied), step=step)

    def _kept_back(self, step: Step) -> Outcome | None:
        """Return the outcome of a step that may not start now, or None. Raises the error that its slug met on the way."""
        reason = self._not_now(step)
        if reason is not None:
            return Outcome(step, Result.SKIPPED, step.function_id, error=f"not tried: {reason}", blameless=True)
        if step.slug in self._in_the_way:
            raise self._in_the_way[step.slug]
        if isinstance(step, Modify) and step.secrets_at_risk and not self.may_lose_secrets():
            reason = f"{risk_text(step)}: this base was just seen to drop secrets"
            blocked = block(step, BlockedBy.UNKNOWN_SECRET, reason, risk_hint(step))
            return self._not_done(replace(blocked, lost_secrets=step.lost_secrets))
        if step.drifted:
            self._emit(events.DriftDetected(slug=step.slug, function_id=step.function_id, fields=step.fields))
        return None

    def _since_parked(self, step: Create | Modify) -> Create | Modify:
        """Return the step with the record that our own move to a parking slug left, so that it is not a conflict."""
        parked = self._parked.get(step.function_id or "")
        if parked is None or not isinstance(step, Modify):
            return step
        fields = {**step.remote.fields, DESCRIPTION: parked.description}
        remote = replace(step.remote, fields=fields, lock_version=parked.lock_version, updated_at=parked.updated_at)
        return replace(step, remote=remote)

    def _not_now(self, step: Step | None = None) -> str | None:
        """Return why nothing new may start, or None. The rollout gate never stops a rollback."""
        if self.halted is not None:
            return self.halted.message
        if self._superseded.is_set():
            return "a newer revision came"
        return None if isinstance(step, Rollback) else self._gate.reason

    def _failed(self, step: Step, error: KapsoSyncError) -> Outcome:
        if isinstance(error, NotLeading):
            self._superseded.set()
            return Outcome(step, Result.SKIPPED, step.function_id, error=error.message, hint=error.hint, blameless=True)
        if isinstance(error, _HALTING):
            self.halted = error
        elif isinstance(error, _UNANSWERED) and not isinstance(error, SecretRoutesUnavailable):
            self._unanswered += 1
            if self._unanswered >= MAX_UNANSWERED:
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
            applied=isinstance(error, StateForeign),
            evidence=error.evidence if isinstance(error, DeploymentFailed | ChecksFailed) else None,
        )

    def _kept(self, step: NoChange) -> Outcome:
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
            hint = next((problem.hint for problem in step.problems if problem.hint), None)
            return Outcome(step, Result.INVALID, step.function_id, error=error, hint=hint)
        slug, function_id, fields, hint = step.slug, step.function_id, step.fields, step.hint
        match step.by:
            case BlockedBy.OSCILLATION:
                self._emit(events.FunctionOscillating(slug=slug, function_id=function_id, fields=fields, hint=hint))
            case BlockedBy.DRIFT_POLICY:
                self._emit(events.DriftDetected(slug=slug, function_id=function_id, fields=fields))
                self._emit(events.DriftIgnored(slug=slug, function_id=function_id, fields=fields))
            case BlockedBy.QUARANTINE | BlockedBy.REFUSED_FIELD | BlockedBy.FAILING:
                self._emit(
                    events.FunctionStalled(slug=slug, function_id=function_id, reason=error or "in quarantine", hint=hint)
                )
            case BlockedBy.BACK_OFF | BlockedBy.NO_SECRET_ROUTES | BlockedBy.LOST_SECRET:
                pass  # the failure itself, or a warning of the plan, was logged; a loss is logged below
            case _ if step.wanted != "delete":
                self._emit(events.FunctionConflict(slug=slug, function_id=function_id, reason=error or "blocked"))
            case _:
                pass  # the guard logged why the deletion is held
        if step.lost_secrets:
            self._emit_lost(slug, function_id, step.lost_secrets)
        evidence = step.quarantine.evidence if step.quarantine is not None else step.evidence
        return Outcome(step, Result.BLOCKED, step.function_id, error=error, hint=hint, evidence=evidence)


def _newest(remote: RemoteFunction, before: RemoteFunction | None) -> RemoteFunction:
    """Return a listed record, with the code that it had before if the list has none and it was not saved since."""
    unchanged = before is not None and remote.updated_at is not None and remote.updated_at == before.updated_at
    return replace(remote, code=before.code) if before is not None and unchanged and remote.code is None else remote


def _urgency(step: Step) -> int:
    """Return the rank of a step among those that wait: what is down is 0, what changes 1, what is new 2."""
    if not isinstance(step, Modify):
        return 2
    return 0 if step.remote.status is DeploymentStatus.ERROR else 1


def _never_ran(step: Step) -> bool:
    """Return whether there is no previous version to restore."""
    return not isinstance(step, Modify) or step.remote.last_deployed_at is None


def _deployed_workers(observed: Observed) -> set[str]:
    return {
        remote.id
        for remote in observed.functions
        if remote.status is DeploymentStatus.DEPLOYED and remote.fields.get("function_type") != FunctionType.SUPABASE_FUNCTION
    }
