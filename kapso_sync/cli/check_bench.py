"""Runs the checks of functions on workerd, each function with its own fixtures and a few of them at the same time."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import field
from pathlib import Path

from kapso_sync.cli.fixtures import load_script, load_values, outbound_of
from kapso_sync.dataclass import dataclass
from kapso_sync.emulator.clock import SystemClock
from kapso_sync.emulator.runtime import Call, Result
from kapso_sync.emulator.values import JsonObject
from kapso_sync.emulator.workerd import workerd_runtime
from kapso_sync.emulator.workerd.runtime import TIMEOUT, WorkerdRuntime
from kapso_sync.errors import ManifestInvalid, Problem
from kapso_sync.invocations.evidence import evidence_of, place_in
from kapso_sync.manifest.fixtures import Fixtures, read_fixtures
from kapso_sync.model.desired import Check, DesiredFunction, EnvSecret, FileSecret, KeepSecret
from kapso_sync.model.evidence import Evidence
from kapso_sync.model.functions import ConsoleLine, FunctionType, Invocation, InvocationRecord
from kapso_sync.model.json_values import Json, canonical_json, parse_json_text
from kapso_sync.reconcile.apply.checks import ShownAnswer, check_mismatch, shown_answer
from kapso_sync.sources.secrets import SecretMissing
from kapso_sync.telemetry.redact import Redactor
from kapso_sync.wiring.tested_source import TestedSource

URL = "https://api.kapso.ai/platform/v1/functions/{slug}/invoke"
"""What a function sees as its URL; nothing is sent there."""

MAX_ANSWER = 1024 * 1024
"""Most bytes of an answer, as after a deployment."""

MOST_AT_ONCE = 4
"""Most functions that are tested at the same time: each has a process of workerd."""

NOT_RUN = "it runs on Deno, which this machine's runtime is not"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of one check: its number in the manifest, from 1, and why it failed, or None.

    ``answer`` None: the function gave none.
    """

    number: int
    seconds: float
    answer: ShownAnswer | None = None
    error: str | None = None
    evidence: Evidence = field(default_factory=Evidence)

    @property
    def name(self) -> str:
        """What reports call it."""
        return f"check {self.number}"


@dataclass(frozen=True, slots=True)
class FunctionResult:
    """The results of one function's checks. ``problems`` are those of its fixtures, and ``skipped`` is why none was run."""

    function: DesiredFunction
    checks: tuple[CheckResult, ...] = ()
    problems: tuple[Problem, ...] = ()
    skipped: str | None = None

    @property
    def failed(self) -> tuple[CheckResult, ...]:
        """The checks that failed."""
        return tuple(check for check in self.checks if check.error is not None)


@dataclass(frozen=True, slots=True)
class CheckBench:
    """Runs checks on the workerd at ``binary``. ``network``: what no fixture answers goes out to public addresses."""

    binary: Path
    source: TestedSource
    redactor: Redactor
    network: bool = False
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    async def run(
        self, functions: Sequence[DesiredFunction], on_result: Callable[[FunctionResult], None]
    ) -> tuple[FunctionResult, ...]:
        """Return the results in the order of the functions; ``on_result`` gets each as it comes."""
        results: dict[str, FunctionResult] = {}
        waiting = iter(functions)

        async def work(runtime: WorkerdRuntime) -> None:
            for function in waiting:
                result = await self._function(runtime, function)
                results[function.slug] = result
                on_result(result)

        at_once = min(os.cpu_count() or 1, MOST_AT_ONCE, len(functions))
        async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
            for _ in range(at_once):
                made = workerd_runtime(self.binary, clock=SystemClock(), network=self.network)
                group.create_task(work(await stack.enter_async_context(made)))
        return tuple(results[function.slug] for function in functions)

    async def _function(self, runtime: WorkerdRuntime, function: DesiredFunction) -> FunctionResult:
        if function.entry.function_type is FunctionType.SUPABASE_FUNCTION:
            return FunctionResult(function, skipped=NOT_RUN)
        runtime.forget()
        try:
            fixtures = read_fixtures(function.slug, function.entry.file, self.source.snapshot.files)
            await asyncio.to_thread(load_script, runtime.database, fixtures)
        except ManifestInvalid as error:
            return FunctionResult(function, problems=error.problems)
        load_values(runtime.values, fixtures)
        secrets = self._secrets(function)
        deployment = str(next(self._numbers))
        numbered = enumerate(function.entry.checks, 1)
        checks = [await self._check(runtime, function, fixtures, secrets, deployment, n, check) for n, check in numbered]
        return FunctionResult(function, tuple(checks))

    async def _check(  # noqa: PLR0917 - a check, and what all checks of its function share
        self,
        runtime: WorkerdRuntime,
        function: DesiredFunction,
        fixtures: Fixtures,
        secrets: dict[str, Json],
        deployment: str,
        number: int,
        check: Check,
    ) -> CheckResult:
        request = check.to_request(secrets)
        for value in check.confidential(request, secrets):
            self.redactor.add(value)
        has_body = bool(request.body)
        call = Call(
            function_id=function.slug,
            slug=function.slug,
            deployment=deployment,
            code=function.code,
            fields=_with_deadline(function, check),
            secrets={name: value if isinstance(value, str) else canonical_json(value) for name, value in secrets.items()},
            url=URL.format(slug=function.slug),
            headers={**request.headers, **({"Content-Type": request.content_type} if has_body else {})},
            body=request.body,
            method=check.method,
            outbound=None if self.network and not fixtures.answers else outbound_of(fixtures, network=self.network),
        )
        started = time.monotonic()
        result = await runtime.run(call)
        seconds = time.monotonic() - started
        answer = Invocation(result.status, result.content_type, result.body[:MAX_ANSWER].decode("utf-8", "replace"))
        expected = await asyncio.to_thread(check_mismatch, check, answer, wrapped=False)
        if len(result.body) > MAX_ANSWER:
            expected = f"an answer of at most {MAX_ANSWER // 1024**2} MiB"
        shown = shown_answer(answer, self.redactor.text)
        own = None if result.failed else shown
        if expected is None:
            return CheckResult(number, seconds, own)
        return CheckResult(number, seconds, own, f"expected {expected}, got {shown}", self._evidence(function, result))

    def _evidence(self, function: DesiredFunction, result: Result) -> Evidence:
        console = tuple(ConsoleLine(level, text) for level, text in result.console)
        error = _message(result.body.decode("utf-8", "replace")) if result.failed else None
        record = InvocationRecord("", result.status, error=error, console=console)
        placed = place_in(record, function.slug, self.source.maps.code(function.code))
        return evidence_of(placed, function.slug, function.entry.file, self.redactor.text)

    def _secrets(self, function: DesiredFunction) -> dict[str, Json]:
        """Return the values of a function's secrets; one that is not here has a stand-in."""
        values: dict[str, Json] = {}
        for name, source in function.entry.secrets.items():
            is_json = isinstance(source, EnvSecret | FileSecret) and source.json
            values[name] = {} if is_json else f"stand-in for {name}"
            if not isinstance(source, KeepSecret):
                try:
                    values[name] = self.source.secrets.read(source)
                except SecretMissing:
                    continue
        return values


def _with_deadline(function: DesiredFunction, check: Check) -> JsonObject:
    """Return the function's fields, with the timeout that ends first: its own, or that of the check."""
    config = function.entry.fields.get("runtime_config")
    own = config.get("timeout") if isinstance(config, dict) else None
    seconds = float(own) if isinstance(own, int | float) and not isinstance(own, bool) and own > 0 else TIMEOUT
    return {**function.entry.fields, "runtime_config": {"timeout": min(seconds, check.timeout)}}


def _message(body: str) -> str:
    """Return the text of the runtime's own answer to a failure."""
    value = parse_json_text(body)
    return str(value["error"]) if isinstance(value, dict) and "error" in value else body
