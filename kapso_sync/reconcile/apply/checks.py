"""Runs the manifest's checks after a deployment, and retries while the edge may still answer with old code."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import field, replace
from typing import Any, TypeVar

from kapso_sync.aio import Interrupted, unless
from kapso_sync.dataclass import dataclass
from kapso_sync.errors import ApiError, ApiGarbled, ApiUnavailable, KapsoSyncError
from kapso_sync.model import events
from kapso_sync.model.clock import Clock
from kapso_sync.model.desired import Check, DesiredFunction, UnsignedCheck
from kapso_sync.model.evidence import Evidence, redacted_start
from kapso_sync.model.functions import Invocation, InvocationRecord, InvokeMode, InvokeRequest, RemoteFunction
from kapso_sync.model.json_values import Json, canonical_json, same_json
from kapso_sync.model.ports import EvidenceCollector, FunctionsApi
from kapso_sync.reconcile.apply.deployer import Superseded
from kapso_sync.reconcile.plan.function_usage import request_digest
from kapso_sync.retry import Backoff

_T = TypeVar("_T")

MAX_INVOCATIONS = 20
"""Maximum number of invocations that Kapso lists in one answer."""

CHECK_INCONCLUSIVE = frozenset({429, 502, 503, 504})
"""Statuses that may come from Kapso rather than from the function: before they count, the API itself is called."""


HINT = "look at the function's code, or at the check"

CHECK_INTERVALS = Backoff(initial=5.0, maximum=20.0)


@dataclass(frozen=True, slots=True)
class CheckPace:
    """When checks run, in seconds after the deployment: the first time, how long failures are retried, and the interval."""

    delay: float = 20.0
    window: float = 60.0
    intervals: Backoff = CHECK_INTERVALS


class ChecksFailed(KapsoSyncError):
    """The running code does not answer as expected. The failure is reported where it is found."""

    def __init__(self, failures: Sequence[Failure], total: int) -> None:
        first, more = failures[0], len(failures) - 1
        rest = f"; {len(failures)} of {total} checks failed" if more else ""
        super().__init__(f"{first}{rest}", hint=HINT)
        self.failures = tuple(failures)

    @property
    def evidence(self) -> Evidence | None:
        """What is known of the first failure."""
        return self.failures[0].evidence


@dataclass(frozen=True, slots=True)
class CheckDeps:
    """What a runner of checks needs besides the API.

    ``redact`` removes secrets from answers before they are shown, and ``conceal`` tells it one more. ``evidence`` is collected
    of a failed check's invocation; None: it shows none. ``headers_reach`` False: checks with headers are not sent, since they
    would take good code back.
    """

    pace: CheckPace
    redact: Callable[[str], str]
    conceal: Callable[[str], None]
    evidence: EvidenceCollector | None = None
    headers_reach: bool = True


class CheckRunner:
    """Runs the checks of deployed functions."""

    def __init__(
        self, api: FunctionsApi, clock: Clock, emit: events.Listener, deps: CheckDeps, superseded: asyncio.Event
    ) -> None:
        self._api = api
        self._clock = clock
        self._emit = emit
        self._deps = deps
        self._superseded = superseded
        self._searching = asyncio.Lock()

    async def run(self, record: RemoteFunction, wanted: DesiredFunction) -> None:
        """Run the checks whose requests Kapso can pass on, and return when every one passed.

        Raises `ChecksFailed`, `Superseded`, or `ApiError` when Kapso does not answer.
        """
        started = self._clock.monotonic()
        asked = [
            _Asked.of(number, check, wanted)
            for number, check in enumerate(wanted.entry.checks, 1)
            if check.after_deployment and (self._deps.headers_reach or not check.has_headers)
        ]
        if not asked:
            return None
        secrets = {name: secret.value for name, secret in wanted.secrets.items()}
        for each in asked:
            for value in each.check.confidential(each.request, secrets):
                self._deps.conceal(value)
        await self._unless_superseded(self._clock.sleep(self._deps.pace.delay))
        for attempt in itertools.count(1):
            failures, last = await self._unless_superseded(self._ask(record, asked))
            elapsed = self._clock.monotonic() - started
            if not failures:
                passed = events.CheckPassed(
                    slug=wanted.slug,
                    function_id=record.id,
                    checks=len(asked),
                    duration_ms=round(elapsed * 1000),
                    answer=None if last is None else str(shown_answer(last, self._deps.redact)),
                )
                return self._emit(passed)
            if elapsed >= self._deps.pace.window:
                failures = await self._with_evidence(record, wanted.entry.file, failures)
                self._report(wanted.slug, record, failures)
                raise ChecksFailed(failures, len(asked))
            pause = min(self._deps.pace.intervals.delay(attempt), self._deps.pace.window - elapsed)
            await self._unless_superseded(self._clock.sleep(pause))
        raise AssertionError(wanted.slug)

    async def _ask(self, record: RemoteFunction, asked: Sequence[_Asked]) -> tuple[list[Failure], Invocation | None]:
        """Return the failures, and the answer to the last check that passed."""
        results = [await self._one(record, each) for each in asked]
        answers = [result for result in results if isinstance(result, Invocation)]
        return [result for result in results if isinstance(result, Failure)], answers[-1] if answers else None

    async def _one(self, record: RemoteFunction, asked: _Asked) -> Failure | Invocation:
        wrapped = record.fields.get("invoke_response_mode") == InvokeMode.WRAPPED
        check, number = asked.check, asked.number
        try:
            answer = await self._api.invoke_function(record.id, asked.request, timeout=check.timeout)
        except (ApiUnavailable, ApiGarbled) as error:
            # Either the function hangs or answers without end, or Kapso is down. If Kapso is down, this list call fails too.
            await self._api.list_functions()
            return Failure(number, "an answer", self._deps.redact(error.message), Trace(check.sent))
        trace = Trace(check.sent, None if failed_invocation_id(answer) else answer.status, failed_invocation_id(answer))
        answer = await self._opened(record, answer)
        # Not on the event loop: a regular expression may take its whole time limit, and health must be answered meanwhile. One
        # at a time: each may take 20 MB, and with all threads busy no source of a fix could be read.
        async with self._searching if check.matches is not None else contextlib.nullcontext():
            expected = await asyncio.to_thread(check_mismatch, check, answer, wrapped=wrapped)
        if expected is None:
            return answer
        if answer.status in CHECK_INCONCLUSIVE:
            await self._api.list_functions()
        return Failure(number, expected, str(shown_answer(answer, self._deps.redact)), trace)

    async def _with_evidence(self, record: RemoteFunction, file: str, failures: Sequence[Failure]) -> list[Failure]:
        """Return the failures with the console's lines of their invocations, for one call; as they are where it fails."""
        if self._deps.evidence is None:
            return list(failures)
        try:
            listed = await self._api.list_invocations(record.id, limit=MAX_INVOCATIONS)
        except ApiError:
            return list(failures)
        with_evidence = []
        for failure in failures:
            found, evidence = invocation_of(failure.trace, listed, record), None
            if found is not None:
                # Whatever is wrong with what this machine remembers, the check has failed all the same.
                with contextlib.suppress(KapsoSyncError, OSError):
                    evidence = await self._deps.evidence.of_invocation(record, file, found)
            with_evidence.append(replace(failure, evidence=evidence))
        return with_evidence

    async def _opened(self, record: RemoteFunction, answer: Invocation) -> Invocation:
        """Return a function's own answer from the envelope that Kapso may put around a failed one.

        The envelope names the invocation; its record has the status and the body. If it cannot be read, the envelope counts.
        """
        invocation_id = failed_invocation_id(answer)
        if invocation_id is None:
            return answer
        try:
            records = await self._api.list_invocations(record.id, limit=MAX_INVOCATIONS)
        except ApiError:
            return answer
        found = next((item for item in records if item.id == invocation_id), None)
        if found is None or found.status_code is None:
            return answer
        body = found.response_body
        if body is None:
            return replace(answer, status=found.status_code)
        return Invocation(found.status_code, "application/json", body if isinstance(body, str) else canonical_json(body))

    def _report(self, slug: str, record: RemoteFunction, failures: Sequence[Failure]) -> None:
        for failure in failures:
            self._emit(
                events.CheckFailed(
                    slug=slug,
                    function_id=record.id,
                    check=failure.number,
                    expected=failure.expected,
                    answer=failure.answer,
                    error=str(failure),
                    hint=HINT,
                    place=failure.evidence.place if failure.evidence is not None else None,
                    console=(failure.evidence.console or None) if failure.evidence is not None else None,
                )
            )

    async def _unless_superseded(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Return the result of the work, or raise `Superseded` if a newer revision comes first."""
        try:
            return await unless(self._superseded, work)
        except Interrupted:
            raise Superseded("a newer revision came while it was checked", hint="the next pass resumes here") from None


SHOWN = 200
"""Maximum number of characters of an expectation and of an answer that are shown."""

REDACTED = 16 * 1024
"""Number of characters of an answer that are redacted before they are cut to those that are shown: more would take long."""

SEARCHED = 64 * 1024
PATIENCE = 1.0
"""Number of characters of an answer that a regular expression is tried on, and its time limit in seconds: some never end.

One that tries again and again remembers about 200 bytes for each character."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """A check with its number in the manifest, from 1, and its request, signed."""

    number: int
    check: Check
    request: InvokeRequest

    @staticmethod
    def of(number: int, check: Check, wanted: DesiredFunction) -> _Asked:
        try:
            request = check.to_request({name: secret.value for name, secret in wanted.secrets.items()})
        except UnsignedCheck as reason:
            raise ChecksFailed([Failure(number, "a signed request", str(reason))], len(wanted.entry.checks)) from reason
        return _Asked(number, check, request)


@dataclass(frozen=True, slots=True)
class Trace:
    """How the invocation of a check is found among others: what was sent, the status if it is the function's own, or the id."""

    sent: Json = field(repr=False)
    status: int | None = None
    invocation_id: str | None = None


@dataclass(frozen=True, slots=True)
class ShownAnswer:
    """An answer as people see it: the beginning of its body, on one line and without secrets."""

    status: int
    body: str

    def __str__(self) -> str:
        return f"status {self.status}, {self.body!r}" if self.body else f"status {self.status}, an empty body"


@dataclass(frozen=True, slots=True)
class Failure:
    """A check that failed: its number in the manifest, from 1, the expected and the actual answer, and what is known of it."""

    number: int
    expected: str
    answer: str
    trace: Trace = field(default=Trace(None), repr=False, compare=False)
    evidence: Evidence | None = None

    def __str__(self) -> str:
        return f"check {self.number} failed: expected {self.expected}, got {self.answer}"


def invocation_of(trace: Trace, listed: Sequence[InvocationRecord], record: RemoteFunction) -> InvocationRecord | None:
    """Return the invocation of a check: the one that Kapso named, else the newest with the same request and status.

    Older ones than the last deployment are those of other code.
    """
    if trace.invocation_id is not None:
        return next((item for item in listed if item.id == trace.invocation_id), None)
    wanted = request_digest(trace.sent)
    return next(
        (
            item
            for item in listed
            if request_digest(item.request_body) == wanted
            and (trace.status is None or item.status_code is None or item.status_code == trace.status)
            and not (item.created_at and record.last_deployed_at and item.created_at < record.last_deployed_at)
        ),
        None,
    )


def check_mismatch(check: Check, answer: Invocation, *, wrapped: bool) -> str | None:
    """Return the expectation that an answer does not meet, or None. ``wrapped``: Kapso puts the answer into ``data``."""
    if check.status is None and not 200 <= answer.status < 300:
        return "a success"
    if check.status is not None and answer.status != check.status:
        return f"status {check.status}"
    value, text = _read(answer, wrapped=wrapped)
    if check.json is not None and not includes(check.json, value):
        return f"JSON with {short(canonical_json(check.json))}"
    if check.text is not None and check.text not in text:
        return f"the text {short(check.text)!r}"
    if check.matches is not None:
        import regex  # noqa: PLC0415 - as in `compile_pattern`

        try:
            found = regex.search(check.matches, text[:SEARCHED], timeout=PATIENCE, concurrent=True) is not None
        except (TimeoutError, MemoryError):
            return f"a match of {short(check.matches)!r} within {PATIENCE:g} s"
        if not found:
            return f"a match of {short(check.matches)!r}"
    return None


def failed_invocation_id(answer: Invocation) -> str | None:
    """Return the invocation id in Kapso's envelope around a failed answer, or None if the answer is the function's own.

    Source: Kapso's documentation: ``500 {"error", "detail"?, "invocation_id"?}``.
    """
    if answer.status != 500:
        return None
    try:
        value = json.loads(answer.text)
    except (ValueError, RecursionError):
        return None
    found = value.get("invocation_id") if isinstance(value, dict) and "error" in value else None
    return found if isinstance(found, str) and found else None


def shown_answer(answer: Invocation, redact: Callable[[str], str]) -> ShownAnswer:
    """Return an answer as it may be shown."""
    start, more = redacted_start(answer.text, redact, REDACTED), "…" if len(answer.text) > REDACTED else ""
    return ShownAnswer(answer.status, short(f"{start}{more}"))


def includes(wanted: Json, given: Json) -> bool:
    """Return whether ``given`` contains ``wanted``: lists must have the same length, objects may have more keys.

    It goes no deeper than ``wanted``, which comes from a manifest of limited depth, however deep ``given`` is.
    """
    if isinstance(wanted, dict):
        return isinstance(given, dict) and all(name in given and includes(wanted[name], given[name]) for name in wanted)
    if isinstance(wanted, list):
        return (
            isinstance(given, list)
            and len(wanted) == len(given)
            and all(includes(one, other) for one, other in zip(wanted, given, strict=True))
        )
    return same_json(wanted, given)


def short(text: str) -> str:
    """Return a text on one line, cut."""
    line = " ".join(text.split())
    return line if len(line) <= SHOWN else f"{line[: SHOWN - 1]}…"


def _read(answer: Invocation, *, wrapped: bool) -> tuple[Json, str]:
    try:
        value: Json = json.loads(answer.text)
        if not (wrapped and isinstance(value, dict) and "data" in value):
            return value, answer.text
        inner = value["data"]
        return inner, inner if isinstance(inner, str) else canonical_json(inner)
    except (ValueError, RecursionError):
        return None, answer.text
