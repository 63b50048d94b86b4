"""Asks an API base what its documentation leaves open, with one temporary function."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import field, replace

from kapso_sync.dataclass import dataclass
from kapso_sync.errors import ApiError, ApiRejected, KapsoSyncError, LockVersionRefused, SecretNameTaken
from kapso_sync.model.api_facts import ApiFacts
from kapso_sync.model.clock import Clock
from kapso_sync.model.desired import MODULE_TAIL
from kapso_sync.model.functions import DeploymentStatus, Invocation, InvokeRequest, RemoteFunction, SecretType
from kapso_sync.model.json_values import Json
from kapso_sync.model.ports import FunctionsApi
from kapso_sync.reconcile.apply.checks import failed_invocation_id
from kapso_sync.reconcile.apply.deployment_poller import POLL_INTERVALS, DeploymentState, deployment_state
from kapso_sync.retry import Backoff

SLUG_PREFIX = "kapso-sync-doctor-"
MARKER = "Throw-away function of kapso-sync doctor: it may be deleted."
SECRET = "DOCTOR_SECRET"  # noqa: S105 - a name
SCRIPT = "async function handler(request, env) {\n  return new Response('script');\n}\n"
NOT_FOUND = "async function handler(request, env) {\n  return new Response('no', { status: 404 });\n}\n"
HEADER = "X-Kapso-Sync-Doctor"
ECHOED = "header: "
ECHO = f"async function handler(request, env) {{\n  return new Response('{ECHOED}' + request.headers.get('{HEADER}'));\n}}\n"
QUESTION_TIMEOUT = 300.0
"""Longest time of one question, in seconds; a deployment takes 10 to 60 of them."""

EDGE_TIMEOUT = 60.0
"""Seconds for which the edge may still answer with the previous code."""

Connect = Callable[[str | None, str | None], AbstractAsyncContextManager[FunctionsApi]]
"""Opens a client of another base URL, or with another User-Agent; None means the settings' own."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One question with its answer, the evidence, and what kapso-sync does because of it. ``answer`` None: it stays open."""

    question: str
    answer: str | None
    evidence: str = ""
    consequence: str = ""


@dataclass(frozen=True, slots=True)
class DoctorReport:
    """All findings in order, and the facts about the base from now on."""

    findings: tuple[Finding, ...]
    facts: ApiFacts


@dataclass(slots=True)
class _Probe:
    """The temporary function as it was last read, and the facts learned with it."""

    record: RemoteFunction
    facts: ApiFacts
    findings: list[Finding] = field(default_factory=list)


class ApiDoctor:
    """Asks each question; one that fails or hangs stays open and does not stop the others.

    ``token`` makes slug and secret unique; ``bases`` are the base in use and Kapso's other one; ``agents`` are values of
    User-Agent to try.
    """

    def __init__(  # noqa: PLR0913 - each is a seam that tests turn
        self,
        api: FunctionsApi,
        connect: Connect,
        clock: Clock,
        *,
        token: str,
        other_base: str,
        agents: tuple[str, ...],
        timeout: float = QUESTION_TIMEOUT,
        edge_timeout: float = EDGE_TIMEOUT,
        poll_intervals: Backoff = POLL_INTERVALS,
    ) -> None:
        self._api = api
        self._connect = connect
        self._clock = clock
        self._token = token
        self._other_base = other_base
        self._agents = agents
        self._timeout = timeout
        self._edge_timeout = edge_timeout
        self._poll_intervals = poll_intervals

    async def delete_leftovers(self) -> int:
        """Delete temporary functions that an earlier run left behind because it died; return their number. Raises `ApiError`.

        Both slug and description must be exactly ours: nothing else is deleted.
        """
        functions = await self._api.list_functions()
        left = [f for f in functions if f.slug.startswith(SLUG_PREFIX) and f.description == MARKER]
        for function in left:
            await self._api.delete_function(function.id)
        return len(left)

    async def ask_all(self, facts: ApiFacts) -> DoctorReport:
        """Ask all questions, delete the function in any case, and return the findings. Raises `ApiError` for the create."""
        first, record = await self._create()
        probe = _Probe(record, facts, [first])
        try:
            for question, ask in self._questions():
                probe.findings.append(await self._answered(question, ask, probe))
        finally:
            await asyncio.shield(self._api.delete_function(record.id))
        return DoctorReport(tuple(probe.findings), probe.facts)

    def _questions(self) -> tuple[tuple[str, Callable[[_Probe], Awaitable[Finding]]], ...]:
        return (
            ("does a script go live", self._script_runs),
            ("does a POST overwrite a secret", self._post_overwrites),
            ("do secrets survive a deployment", self._secrets_survive),
            ("does lock_version move on updates and deployments", self._lock_version),
            ("is public_endpoint kept", self._public_endpoint),
            ("does a module (export default) go live", self._module_runs),
            ("which status has a function that answers 404", self._outer_status),
            ("do headers of an invocation reach the function", self._headers_reach),
            ("do secrets survive a change of slug", self._slug_change),
            ("may code have more than 1,000,000 bytes", self._code_limit),
            ("do inherited secrets appear", self._inherited),
            ("does the other base answer", self._other_base_answers),
            ("which User-Agents are turned away", self._user_agents),
            ("does the old script stay after a change of slug", self._old_script),
        )

    async def _answered(self, question: str, ask: Callable[[_Probe], Awaitable[Finding]], probe: _Probe) -> Finding:
        try:
            async with asyncio.timeout(self._timeout):
                return replace(await ask(probe), question=question)
        except TimeoutError:
            return Finding(question, None, f"no answer within {self._timeout:g} s")
        except KapsoSyncError as error:
            return Finding(question, None, error.message)

    async def _create(self) -> tuple[Finding, RemoteFunction]:
        slug = f"{SLUG_PREFIX}{self._token}"
        payload: dict[str, Json] = {"slug": slug, "name": slug, "description": MARKER, "code": SCRIPT}
        question, consequence = "does a create need function_type", "it is always sent"
        try:
            record = await self._api.create_function(payload)
        except ApiRejected as error:
            record = await self._api.create_function({**payload, "function_type": "cloudflare_worker"})
            return Finding(question, "yes", error.message, consequence), record
        return Finding(question, "no", "a create without it was accepted", consequence), record

    async def _update(self, probe: _Probe, **fields: Json) -> RemoteFunction:
        function_id, version = probe.record.id, probe.record.lock_version
        try:
            probe.record = await self._api.update_function(
                function_id, fields, lock_version=version if self._api.takes_lock_version else None
            )
        except LockVersionRefused:
            probe.record = await self._api.update_function(function_id, fields)
        return probe.record

    async def _deploy(self, probe: _Probe) -> bool:
        """Deploy the stored code, and return whether it went live. Raises `ApiError`."""
        baseline, started = await self._api.get_function(probe.record.id), self._clock.monotonic()
        await self._api.deploy_function(baseline.id)
        for poll in itertools.count(1):
            await self._clock.sleep(self._poll_intervals.delay(poll))
            probe.record = await self._api.get_function(baseline.id)
            verdict = deployment_state(baseline, probe.record, self._clock.monotonic() - started, self._timeout)
            if verdict is not None:
                return verdict is DeploymentState.LIVE
        raise AssertionError(baseline.id)

    async def _names(self, probe: _Probe) -> set[str]:
        return {secret.name for secret in await self._api.list_secrets(probe.record.id)}

    async def _require_running(self, probe: _Probe) -> None:
        """Ensure that the function runs, as a script. Raises `ApiError`, and `ApiRejected` if it does not run."""
        if probe.record.status is not DeploymentStatus.DEPLOYED or probe.record.code != SCRIPT:
            await self._update(probe, code=SCRIPT)
            if not await self._deploy(probe):
                raise _Unanswerable("no script goes live here, so this cannot be seen")

    async def _script_runs(self, probe: _Probe) -> Finding:
        runs = await self._deploy(probe)
        probe.facts = replace(probe.facts, script_runs=runs)
        return Finding("", _yes(runs), f"status {probe.record.status}", "code goes up as a script where scripts run")

    async def _module_runs(self, probe: _Probe) -> Finding:
        await self._update(probe, code=SCRIPT + MODULE_TAIL)
        runs = await self._deploy(probe)
        probe.facts = replace(probe.facts, module_runs=runs)
        return Finding("", _yes(runs), f"status {probe.record.status}", "code goes up as a module where only modules run")

    async def _post_overwrites(self, probe: _Probe) -> Finding:
        await self._require_running(probe)
        await self._api.set_secret(probe.record.id, SECRET, f"one-{self._token}")
        try:
            await self._api.set_secret(probe.record.id, SECRET, f"two-{self._token}")
        except SecretNameTaken:
            probe.facts = replace(probe.facts, post_overwrites_secret=False)
            return Finding("", "no", "422: the name is taken", "a changed secret is deleted and set again")
        probe.facts = replace(probe.facts, post_overwrites_secret=True)
        return Finding("", "yes", "the second POST was accepted", "a changed secret is set by one POST")

    async def _secrets_survive(self, probe: _Probe) -> Finding:
        await self._require_running(probe)
        if SECRET not in await self._names(probe):
            await self._api.set_secret(probe.record.id, SECRET, f"one-{self._token}")
        if not await self._deploy(probe):
            raise _Unanswerable("the deployment failed")
        survive = SECRET in await self._names(probe)
        probe.facts = replace(probe.facts, secrets_survive=survive)
        consequence = "names are listed after each deployment" + ("" if survive else ", and dropped secrets are set again")
        return Finding("", _yes(survive), "its name was listed before and after", consequence)

    async def _slug_change(self, probe: _Probe) -> Finding:
        await self._require_running(probe)
        if SECRET not in await self._names(probe):
            await self._api.set_secret(probe.record.id, SECRET, f"one-{self._token}")
        slug = f"{SLUG_PREFIX}{self._token}-b"
        if (await self._update(probe, slug=slug)).slug != slug:
            return Finding("", "slugs do not change", "the answer kept the old one", "a rename is blocked, and said")
        if not await self._deploy(probe):
            raise _Unanswerable("the deployment under the new slug failed")
        kept = SECRET in await self._names(probe)
        return Finding("", _yes(kept), "its name was listed after the deployment", "names are listed after a rename")

    async def _lock_version(self, probe: _Probe) -> Finding:
        before = (await self._api.get_function(probe.record.id)).lock_version
        if before is None:
            return Finding("", "there is none", "records lack it", "updates are not protected from concurrent edits")
        probe.record = replace(probe.record, lock_version=before)
        updated = (await self._update(probe, name=f"{probe.record.slug} 2")).lock_version
        await self._require_running(probe)
        written = probe.record.lock_version
        if not await self._deploy(probe):
            raise _Unanswerable("the deployment failed")
        moved = probe.record.lock_version != written
        probe.facts = replace(probe.facts, lock_version_moves_on_deploy=moved)
        answer = f"on updates: {_yes(updated != before)}; on deployments: {_yes(moved)}"
        return Finding("", answer, f"{before}, then {updated}", "the one last read goes with each update")

    async def _public_endpoint(self, probe: _Probe) -> Finding:
        try:
            kept = (await self._update(probe, public_endpoint=True)).fields.get("public_endpoint") is True
        finally:
            await self._update(probe, public_endpoint=False)
        return Finding(
            "", _yes(kept), "true was sent, and the answer read", "a field that is not kept is reported as field.refused"
        )

    async def _outer_status(self, probe: _Probe) -> Finding:
        await self._update(probe, code=NOT_FOUND)
        if not await self._deploy(probe):
            raise _Unanswerable("the deployment failed")
        answer = await self._answer_of_new_code(probe, InvokeRequest.of_json({}), lambda answer: answer.status != 200)
        wrapped = failed_invocation_id(answer) is not None
        said = f"{answer.status}, in Kapso's envelope" if wrapped else str(answer.status)
        return Finding("", said, "it was invoked", "checks look into the envelope")

    async def _headers_reach(self, probe: _Probe) -> Finding:
        await self._update(probe, code=ECHO)
        if not await self._deploy(probe):
            raise _Unanswerable("the deployment failed")
        request = replace(InvokeRequest.of_json({}), headers={HEADER: self._token})
        answer = await self._answer_of_new_code(probe, request, lambda answer: answer.status != 200 or ECHOED in answer.text)
        if ECHOED not in answer.text:
            raise _Unanswerable(f"its answer, with status {answer.status}, does not say")
        reach = f"{ECHOED}{self._token}" in answer.text
        probe.facts = replace(probe.facts, headers_reach=reach)
        consequence = "checks with `headers` or `sign` work" if reach else "a plan warns of checks with `headers` or `sign`"
        return Finding("", _yes(reach), "it was invoked with one, and answered with what it got", consequence)

    async def _answer_of_new_code(
        self, probe: _Probe, request: InvokeRequest, is_new: Callable[[Invocation], bool]
    ) -> Invocation:
        """Return the first answer that is not the previous code's, which the edge may still give for a while; else the last."""
        started = self._clock.monotonic()
        while True:
            answer = await self._api.invoke_function(probe.record.id, request, timeout=30.0)
            if is_new(answer) or self._clock.monotonic() - started >= self._edge_timeout:
                return answer
            await self._clock.sleep(self._poll_intervals.initial)

    async def _code_limit(self, probe: _Probe) -> Finding:
        code = SCRIPT + "// " + "x" * (1_000_100 - len(SCRIPT) - 4) + "\n"
        try:
            await self._update(probe, code=code)
        except ApiRejected as error:
            return Finding("", "no", error.message, "above 1,000,000 bytes is a warning, above 1,048,576 an error")
        return Finding("", "yes", "1,000,100 bytes were accepted", "above 1,048,576 bytes is an error before any call")

    async def _inherited(self, probe: _Probe) -> Finding:
        await self._require_running(probe)
        secrets = await self._api.list_secrets(probe.record.id)
        names = [secret.name for secret in secrets if secret.type is SecretType.INHERITED]
        return Finding("", _yes(bool(names)), f"{len(names)} listed", "inherited secrets are never removed, nor missing")

    async def _other_base_answers(self, probe: _Probe) -> Finding:
        async with self._connect(self._other_base, None) as api:
            found = any(function.id == probe.record.id for function in await api.list_functions())
        evidence = "it lists the same function" if found else "it answers, and lists other functions"
        return Finding("", _yes(found), f"{self._other_base}: {evidence}", "none: the base that is set is used")

    async def _user_agents(self, _patient: _Probe) -> Finding:
        refused = []
        for agent in self._agents:
            async with self._connect(None, agent) as api:
                try:
                    await api.list_functions()
                except ApiError as error:
                    if error.status != 403:
                        raise
                    refused.append(agent)
        return Finding("", ", ".join(refused) or "none", f"tried {', '.join(self._agents)}", "KAPSO_SYNC_USER_AGENT sets ours")

    async def _old_script(self, _patient: _Probe) -> Finding:
        return Finding("", None, "not asked: only a project at its cap of scripts shows it", "it is taken to stay and to count")


class _Unanswerable(KapsoSyncError):
    """A question cannot be asked, since something before it failed."""


def _yes(value: bool) -> str:
    return "yes" if value else "no"
