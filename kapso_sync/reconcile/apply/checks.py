"""Runs the manifest's checks after a deployment, and retries while the edge may still answer with old code."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import regex

from kapso_sync.aio import Interrupted, unless
from kapso_sync.errors import ApiError, ApiGarbled, ApiUnavailable, KapsoSyncError
from kapso_sync.model import events
from kapso_sync.model.clock import Clock
from kapso_sync.model.desired import Check
from kapso_sync.model.functions import Invocation, InvokeMode, Json, RemoteFunction, canonical_json, same_json
from kapso_sync.model.ports import FunctionsApi
from kapso_sync.reconcile.apply.deployer import Superseded
from kapso_sync.retry import Backoff

_T = TypeVar("_T")

MAX_INVOCATIONS = 20
"""Maximum number of invocations that Kapso lists in one answer."""

CHECK_INCONCLUSIVE = frozenset({429, 502, 503, 504})
"""Statuses that may come from Kapso rather than from the function: before they count, the API itself is called."""


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
        super().__init__(f"{first}{rest}", hint="look at the function's code, or at the check")
        self.failures = tuple(failures)


class CheckRunner:
    """Runs checks. ``redact`` removes secrets from answers before they are shown."""

    def __init__(
        self,
        api: FunctionsApi,
        clock: Clock,
        emit: events.Listener,
        pace: CheckPace,
        superseded: asyncio.Event,
        redact: Callable[[str], str],
    ) -> None:
        self._api = api
        self._clock = clock
        self._emit = emit
        self._pace = pace
        self._superseded = superseded
        self._redact = redact
        self._searching = asyncio.Lock()

    async def run(self, slug: str, record: RemoteFunction, checks: Sequence[Check]) -> None:
        """Return when every check passed; raises `ChecksFailed`, `Superseded`, or `ApiError` when Kapso does not answer."""
        started = self._clock.monotonic()
        await self._unless_superseded(self._clock.sleep(self._pace.delay))
        for attempt in itertools.count(1):
            failures = await self._unless_superseded(self._ask(record, checks))
            elapsed = self._clock.monotonic() - started
            if not failures:
                passed = events.CheckPassed(
                    slug=slug, function_id=record.id, checks=len(checks), duration_ms=round(elapsed * 1000)
                )
                return self._emit(passed)
            if elapsed >= self._pace.window:
                self._report(slug, record, failures)
                raise ChecksFailed(failures, len(checks))
            pause = min(self._pace.intervals.delay(attempt), self._pace.window - elapsed)
            await self._unless_superseded(self._clock.sleep(pause))
        raise AssertionError(slug)

    async def _ask(self, record: RemoteFunction, checks: Sequence[Check]) -> list[Failure]:
        failures = []
        for number, check in enumerate(checks, 1):
            failure = await self._one(record, number, check)
            if failure is not None:
                failures.append(failure)
        return failures

    async def _one(self, record: RemoteFunction, number: int, check: Check) -> Failure | None:
        wrapped = record.fields.get("invoke_response_mode") == InvokeMode.WRAPPED
        try:
            answer = await self._api.invoke_function(record.id, check.request, timeout=check.timeout)
        except (ApiUnavailable, ApiGarbled) as error:
            # Either the function hangs or answers without end, or Kapso is down. If Kapso is down, this list call fails too.
            await self._api.list_functions()
            return Failure(number, "an answer", self._redact(error.message))
        answer = await self._opened(record, answer)
        # Not on the event loop: a regular expression may take its whole time limit, and health must be answered meanwhile. One
        # at a time: each may take 20 MB, and with all threads busy no source of a fix could be read.
        async with self._searching if check.matches is not None else contextlib.nullcontext():
            expected = await asyncio.to_thread(check_mismatch, check, answer, wrapped=wrapped)
        if expected is None:
            return None
        if answer.status in CHECK_INCONCLUSIVE:
            await self._api.list_functions()
        return Failure(number, expected, self._shown(answer))

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

    def _shown(self, answer: Invocation) -> str:
        return describe(Invocation(answer.status, answer.content_type, self._redact(answer.text[:REDACTED])))

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
                    hint="look at the function's code, or at the check",
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
"""Number of characters of an answer that are redacted before they are cut to those that are shown."""

SEARCHED = 64 * 1024
PATIENCE = 1.0
"""Number of characters of an answer that a regular expression is tried on, and its time limit in seconds: some never end.

One that tries again and again remembers about 200 bytes for each character."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A check that failed: its number in the manifest, from 1, the expected and the actual answer."""

    number: int
    expected: str
    answer: str

    def __str__(self) -> str:
        return f"check {self.number} failed: expected {self.expected}, got {self.answer}"


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


def describe(answer: Invocation) -> str:
    """Return an answer in a few words."""
    return (
        f"status {answer.status}, {short(answer.text)!r}" if answer.text.strip() else f"status {answer.status}, an empty body"
    )


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
