"""Deploys stored code: requests a deployment, waits for its end, and records that it is live."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from kapso_sync.dataclass import dataclass
from kapso_sync.errors import ApiError, ApiRejected, Call, KapsoSyncError
from kapso_sync.model import events
from kapso_sync.model.clock import Clock
from kapso_sync.model.evidence import Evidence
from kapso_sync.model.functions import RUNTIME_CONTENT, RemoteFunction, agree
from kapso_sync.model.plan import Write
from kapso_sync.model.ports import EvidenceCollector, FunctionsApi, LocalStart, StartLocally, Store
from kapso_sync.model.state import Intent, IntentKind, KnownSecrets, LiveContent, QuotaRefusal
from kapso_sync.reconcile.apply.deployment_poller import DeploymentPoller, DeploymentState, EndedDeployment
from kapso_sync.reconcile.apply.writer import Written, certainly_not_done
from kapso_sync.reconcile.plan.comparison import runtime_content
from kapso_sync.reconcile.plan.function_usage import request_digest
from kapso_sync.reconcile.plan.observed import stored_content

MAX_CHECK_REQUESTS = 50
"""Maximum number of digests of check requests that are kept of one function."""

RETRIES = 1
"""Number of retries, within a pass, of a deployment that ended in ``error``: the failure may be temporary."""

_QUOTA = re.compile(
    r"quota|worker limit|limit (?:was |has been )?(?:reached|exceeded)|upgrade your plan|too many workers"
    r"|distinct worker scripts|free projects",
    re.IGNORECASE,
)
QUOTA_HINT = (
    "Kapso's plan counts distinct Worker scripts, and a former slug's script may go on counting: "
    "delete functions that are not needed, or upgrade the plan"
)
IMMEDIATE_FAILURE_S = 3.0
"""First deployments that failed this fast, in seconds, were seen in projects that deploy no function created with a key."""


class DeploymentFailed(KapsoSyncError):
    """A deployment was refused, ended in ``error``, did not end, or its function vanished.

    It is reported where it happens. ``down`` is the function's record if it ended in ``error``: it cannot be invoked then.
    ``evidence`` is what this machine's runtime said of the code.
    """

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        down: RemoteFunction | None = None,
        evidence: Evidence | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.down = down
        self.evidence = evidence


class Superseded(KapsoSyncError):
    """A newer revision came while a deployment was running: the next pass continues with it."""


@dataclass(frozen=True, slots=True)
class LocalTrial:
    """What is tried with code whose deployment ended in ``error``: Kapso gives no reason, and the local runtime often does.

    ``start`` starts it on this machine; ``evidence`` leads the places in the runtime's words back to the source.
    """

    start: StartLocally | None = None
    evidence: EvidenceCollector | None = None

    async def result(self, slug: str, file: str, code: str | None) -> tuple[LocalStart | None, Evidence | None]:
        """Return the result of the start, None if there was none, and the evidence of an error."""
        if self.start is None or code is None:
            return None, None
        tried = await self.start(slug, code)
        if tried is None or tried.error is None or self.evidence is None:
            return tried, None
        return tried, await self.evidence.of_start(slug, file, code, tried.error)


@dataclass(frozen=True, slots=True)
class _Reason:
    """Why a deployment ended in ``error``."""

    message: str
    hint: str
    evidence: Evidence | None = None


class Deployer:
    """Deploys functions of one pass, and counts how many fit into the project's plan."""

    def __init__(
        self,
        api: FunctionsApi,
        store: Store,
        watch: DeploymentPoller,
        clock: Clock,
        emit: events.Listener,
        trial: LocalTrial,
    ) -> None:
        self._api = api
        self._store = store
        self._watch = watch
        self._clock = clock
        self._emit = emit
        self._trial = trial
        self._fitting: set[str] = set()
        self._quota: QuotaRefusal | None = None
        self._project_id: str | None = None

    def load(self, deployed: set[str], quota: QuotaRefusal | None) -> None:
        """Set the ids of the Workers that run already, and Kapso's last refusal for the quota."""
        self._fitting = set(deployed)
        self._quota = quota

    async def deploy(self, step: Write, written: Written) -> Written:
        """Deploy until the stored content is confirmed to run. Raises `ApiError`, `DeploymentFailed` or `Superseded`.

        Kapso does not say which deployment ended. If ``overlapped`` older ones of other content may still run, as many more are
        requested. An example with two: of the three ends that are then seen, two may be those of the older ones, and the third
        is ours, since deployments end in the order in which they were requested.
        """
        record = written.record
        ended, number = await self._deploy(step.slug, written, record)
        for _ in range(RETRIES):
            if ended.verdict is DeploymentState.FAILED and ended.record is not None:
                self._store.close(number)
                ended, number = await self._deploy(step.slug, written, ended.record)
        closes = [*step.unconfirmed, number]
        for _ in range(step.overlapped):
            if ended.verdict is DeploymentState.LIVE and ended.record is not None:
                ended, number = await self._deploy(step.slug, written, ended.record)
                closes.append(number)
        if ended.verdict is DeploymentState.SUPERSEDED:
            raise Superseded("a newer revision came while it was deployed", hint="the next pass resumes here")
        if ended.verdict is not DeploymentState.LIVE or ended.record is None:
            raise await self._failed(step, written, ended, number)
        return self._confirm(step, written, await self._with_code(written, ended.record), closes, ended.seconds)

    async def _with_code(self, written: Written, record: RemoteFunction) -> RemoteFunction:
        """Return a deployed function's record with its code, unless its ``lock_version`` shows that nobody saved it since.

        A list without code does not show whether somebody saved other code between our write and the deployment.
        """
        unchanged = record.lock_version is not None and record.lock_version == written.record.lock_version
        return record if record.code is not None or unchanged else await self._api.get_function(record.id)

    async def _deploy(self, slug: str, written: Written, baseline: RemoteFunction) -> tuple[EndedDeployment, int]:
        owned = written.owned
        content = runtime_content(owned.stored, written.record.slug)
        number = self._store.begin(
            Intent(IntentKind.DEPLOY, slug, owned.function_id, owned.wanted, content, baseline.last_deployed_at)
        )
        try:
            await self._api.deploy_function(owned.function_id)
        except ApiError as error:
            if certainly_not_done(error):
                self._store.close(number)
            if isinstance(error, ApiRejected):
                if _QUOTA.search(error.message):
                    error.hint = QUOTA_HINT
                self._refused(slug, owned.function_id, error)
                raise DeploymentFailed(error.message, hint=error.hint) from error
            raise
        self._fitting.add(owned.function_id)
        self._emit(events.DeployStarted(slug=slug, function_id=owned.function_id))
        return await self._watch.wait_for_end(baseline), number

    def _refused(self, slug: str, function_id: str, error: ApiRejected) -> None:
        if _QUOTA.search(error.message):
            self._quota = QuotaRefusal(len(self._fitting), error.message, self._clock.now().isoformat(timespec="seconds"))
            self._store.remember_quota(self._quota)
        self._emit(events.DeployFailed(slug=slug, function_id=function_id, error=error.message, hint=error.hint))

    async def _failed(self, step: Write, written: Written, ended: EndedDeployment, number: int) -> DeploymentFailed:
        """Report a deployment that did not go live, and return the error to raise."""
        slug, function_id = step.slug, written.record.id
        self._fitting.discard(function_id)
        call = Call("POST", "/functions/{id}/deploy")
        if ended.verdict is DeploymentState.TIMED_OUT:
            # It may still end: its intent stays open, so that the next pass does not take its end for that of another.
            hint = "a larger KAPSO_SYNC_DEPLOY_TIMEOUT waits longer; the next pass deploys again"
            self._emit(events.DeployTimedOut(slug=slug, function_id=function_id, timeout_s=round(ended.seconds, 1), hint=hint))
            return DeploymentFailed(f"the deployment did not end within {ended.seconds:.0f} s", hint=hint)
        self._store.close(number)
        if ended.verdict is DeploymentState.GONE:
            why = _Reason("the function vanished from Kapso while it was deployed", "the next pass tries again")
        else:
            why = await self._why(step, written, ended)
            first = ended.record is not None and ended.record.last_deployed_at is None
            if first and ended.seconds <= IMMEDIATE_FAILURE_S:
                hint = f"{why.hint}; where nothing that a key created deploys, create it in the dashboard and let it be adopted"
                why = replace(why, hint=hint)
        evidence = why.evidence or Evidence()
        self._emit(
            events.DeployFailed(
                slug=slug,
                function_id=function_id,
                error=f"{why.message} ({call})",
                hint=why.hint,
                place=evidence.place,
                console=evidence.console or None,
            )
        )
        down = ended.record if ended.verdict is DeploymentState.FAILED else None
        return DeploymentFailed(why.message, hint=why.hint, down=down, evidence=why.evidence)

    async def _why(self, step: Write, written: Written, ended: EndedDeployment) -> _Reason:
        """Return why a deployment ended in ``error``, with the local runtime's words if it has any."""
        slug, entry = step.slug, step.desired.entry
        message = f"the deployment ended in `error`, {1 + RETRIES} times"
        code = written.record.code or (ended.record.code if ended.record is not None else None)
        tried, evidence = await self._trial.result(slug, entry.file, code)
        elsewhere = "look at the dashboard, and at the project's Worker quota"
        dev = f"`kapso-sync dev {slug}` starts it on this machine at each save, and shows the line"
        if tried is None:
            return _Reason(message, f"Kapso gives no reason in its API: {dev}; else {elsewhere}")
        if tried.error is None:
            return _Reason(message, f"the code starts on this machine's runtime: {elsewhere}")
        if evidence is not None and evidence.place is not None:
            said = next(iter(tried.error.splitlines()), "")
            return _Reason(f"{message}; on this machine: {said} at {evidence.place}", f"fix the code; {dev}", evidence)
        words = " ".join(tried.error.split())
        place = "on this machine, in lines of the built code" if step.desired.compiled else "on this machine"
        return _Reason(f"{message}; {place}: {words}", f"fix the code; {dev}", evidence)

    def _confirm(self, step: Write, written: Written, record: RemoteFunction, closes: Sequence[int], seconds: float) -> Written:
        slug, owned = step.slug, written.owned
        if record.project_id is not None and record.project_id != self._project_id:
            # The answer to a create need not have it; in an empty project the list is then the first that shows it.
            self._project_id = record.project_id
            self._store.remember_project(record.project_id)
        if not agree(owned.stored, stored_content(record), RUNTIME_CONTENT):
            raise DeploymentFailed("changed on Kapso while it was deployed", hint="the next pass tries again")
        live = LiveContent(runtime_content(owned.stored, record.slug), record.last_deployed_at)
        checks = step.desired.entry.checks
        requests = tuple(sorted({*owned.check_requests, *(request_digest(check.sent) for check in checks)}))
        owned = replace(
            owned, live=live, updated_at=record.updated_at, unproven=bool(checks), check_requests=requests[:MAX_CHECK_REQUESTS]
        )
        owned = replace(owned, secrets=_not_looked_after(owned.secrets, step, written))
        self._store.remember(owned, closes=closes)
        if self._quota is not None and len(self._fitting) > self._quota.fits:
            self._quota = None
            self._store.remember_quota(None)
        self._emit(events.DeploySucceeded(slug=slug, function_id=record.id, duration_ms=round(seconds * 1000)))
        return replace(written, record=record, owned=owned)


def _not_looked_after(known: KnownSecrets, step: Write, written: Written) -> KnownSecrets:
    """Return the known secrets right after a deployment: the names before it, and that they were not listed since."""
    before = {*written.present_secrets, *known.digests, *known.before}
    return replace(known, undeployed=False, unchecked=bool(before or step.desired.kept), before=tuple(sorted(before)))
