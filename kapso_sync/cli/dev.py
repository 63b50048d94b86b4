"""``kapso-sync dev``: runs functions locally on workerd, and shows their answer after every save."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import field

import httpx

from kapso_sync.aio import run_loop
from kapso_sync.build.stack_trace import frames_in, own_frames
from kapso_sync.cli.console import Console, whole
from kapso_sync.cli.context import CommandContext
from kapso_sync.cli.invoke import request_body
from kapso_sync.cli.runner import print_problems, until_stopped
from kapso_sync.cli.workerd import HOW_TO_GET_IT, Workerd, find_workerd
from kapso_sync.dataclass import dataclass
from kapso_sync.emulator.options import Behaviour, EmulatorOptions
from kapso_sync.emulator.records import Function
from kapso_sync.emulator.server import EmbeddedEmulator, embedded_emulator
from kapso_sync.errors import ConfigError, ExitCode, KapsoSyncError, ManifestInvalid, Problem
from kapso_sync.local_folder import LocalFolder
from kapso_sync.model.desired import Desired, DesiredFunction, KeepSecret
from kapso_sync.model.json_values import Json
from kapso_sync.sources.secrets import SecretMissing
from kapso_sync.visible import visible_code, visible_lines
from kapso_sync.wiring.local import open_local_folder

INVOKE_TIMEOUT = 660.0
"""Seconds to wait for an answer: functions have deadlines of their own."""
BASE_URL = "http://localhost/platform/v1"
"""What functions see as the beginning of their URL."""
UNLIMITED = 1_000_000


@dataclass(frozen=True, slots=True)
class DevArgs:
    """The options of the command: one function or all, and the request."""

    slug: str | None
    data: str
    context: CommandContext
    runtime: str


def dev(args: DevArgs) -> int:
    """Run functions whenever a file is saved, until a signal; raises `ConfigError` without workerd, and `UsageError`."""
    request_body(args.data)
    settings = args.context.load_settings()
    workerd = find_workerd(args.runtime)
    if workerd is None:
        raise ConfigError("`dev` runs functions on workerd, and there is none here", hint=f"get it with: {HOW_TO_GET_IT}")

    async def work() -> int:
        local = await open_local_folder(settings, args.context.event_bus(settings, level="warning"))
        await until_stopped(_work(local, workerd, args))
        return int(ExitCode.OK)

    return run_loop(work())


async def _work(local: LocalFolder, workerd: Workerd, args: DevArgs) -> None:
    console = args.context.stdout()
    async with _bench(workerd, args, console, local) as bench:
        console.line(
            *(
                "Functions of ",
                whole(str(local.where)),
                f" on workerd {workerd.version}. Save a file to run them again; Ctrl-C ends.",
            )
        )
        saved = asyncio.Event()
        watching = asyncio.create_task(local.watch(saved.set))
        try:
            while True:
                await saved.wait()  # the first time comes when the watch has begun, so that no save is missed
                saved.clear()
                await bench.look()
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)


@contextlib.asynccontextmanager
async def _bench(workerd: Workerd, args: DevArgs, console: Console, local: LocalFolder) -> AsyncIterator[_Bench]:
    # Who works on a function wants to see its own answer, whatever its status, and not the envelope around a failure.
    behaviour = Behaviour(invoke_failure="passthrough")
    options = EmulatorOptions(deploy_delay=0.0, rate_limit=UNLIMITED, workerd=workerd.path, network=True, behaviour=behaviour)
    # It holds the real values of secrets, so it has no socket that others could call.
    async with (
        embedded_emulator(options) as kapso,
        httpx.AsyncClient(
            transport=httpx.ASGITransport(kapso.app),
            base_url=BASE_URL,
            headers={"X-API-Key": kapso.key},
            timeout=INVOKE_TIMEOUT,
        ) as http,
    ):
        yield _Bench(kapso, http, args, console, local)


class _Bench:
    """Deploys changed functions on its own emulator, and shows their answers."""

    def __init__(
        self, kapso: EmbeddedEmulator, http: httpx.AsyncClient, args: DevArgs, console: Console, local: LocalFolder
    ) -> None:
        self._kapso = kapso
        self._http = http
        self._args = args
        self._console = console
        self._local = local
        self._ran: dict[str, object] = {}
        self._warned: set[str] = set()

    async def look(self) -> None:
        """Read the folder and run changed functions, or the one that was requested; show all problems."""
        try:
            desired = await self._local.read()
            data = json.dumps(request_body(self._args.data))
        except ManifestInvalid as error:
            for problem in error.problems:
                show_problem(self._console, problem)
        except KapsoSyncError as error:
            self._console.blank()
            self._console.error(error.message, error.hint)
        else:
            await self._run(desired, data)

    async def _run(self, desired: Desired, data: str) -> None:
        chosen = self._args.slug
        for broken in desired.unusable:
            if chosen in (None, broken.slug) and self._news(broken.slug, broken.problems):
                for problem in broken.problems:
                    show_problem(self._console, problem)
        for function in desired.functions:
            if chosen in (None, function.slug):
                await self._try(function, data)
        slugs = {item.slug for item in desired.functions} | {item.slug for item in desired.unusable}
        if chosen is not None and chosen not in slugs:
            self._console.blank()
            self._console.error(f"there is no function `{chosen}` in the source")

    async def _try(self, wanted: DesiredFunction, data: str) -> None:
        secrets = dict(self._secrets(wanted))
        changed = self._news(wanted.slug, (wanted.content, secrets, data))
        if not changed and self._args.slug is None:
            return
        function = self._find(wanted.slug)
        if changed or function is None:
            function = await self._deploy(wanted, secrets)
        if function.failure is not None:
            show_failure(self._console, DidNotStart(wanted.slug, function.failure, wanted.code))
            return
        begun = time.monotonic()
        answer = await self._http.post(
            f"/functions/{function.id}/invoke", content=data, headers={"Content-Type": "application/json"}
        )
        seconds = time.monotonic() - begun
        lines = tuple((str(line[0]), str(line[1])) for line in self._kapso.log.entries[-1].console if isinstance(line, list))
        content_type = answer.headers.get("content-type", "")
        show_answer(
            self._console,
            InvocationResult(wanted.slug, answer.status_code, content_type, answer.content, seconds, lines, wanted.code),
        )

    async def _deploy(self, wanted: DesiredFunction, secrets: Mapping[str, Json]) -> Function:
        """Create the function again, so that nothing of the previous one is left; the values in ``env.KV`` stay."""
        world = self._kapso.world
        former = self._find(wanted.slug)
        if former is not None:
            world.delete(former)
        function = world.create({"name": wanted.slug, **wanted.entry.fields, "slug": wanted.slug, "code": wanted.code})
        world.seed_secrets(function, secrets)
        await self._kapso.parts.deployer.deploy(function)
        return world.function(function.id)

    def _find(self, slug: str) -> Function | None:
        return next((item for item in self._kapso.world.functions.values() if item.slug == slug), None)

    def _secrets(self, wanted: DesiredFunction) -> Iterator[tuple[str, Json]]:
        for name, source in wanted.entry.secrets.items():
            if isinstance(source, KeepSecret):
                self._warn_once(f"env.{name} is not set: its value is on Kapso alone")
                continue
            try:
                yield name, self._local.secrets.read(source)
            except SecretMissing as missing:
                self._warn_once(f"env.{name} is not set: it {missing.message}; {missing.hint}")

    def _warn_once(self, text: str) -> None:
        if text not in self._warned:
            self._warned.add(text)
            self._console.blank()
            self._console.warning(text)

    def _news(self, slug: str, what: object) -> bool:
        """Return whether this differs from the last report of the function."""
        before = self._ran.get(slug)
        self._ran[slug] = what
        return before != what


MAX_BODY = 4000
MAX_LINE = 160
CONTEXT = 2
"""Number of lines of code shown before the failing one."""

_LEVELS = {"error": "red", "warn": "yellow", "debug": "dim", "trace": "dim"}


@dataclass(frozen=True, slots=True)
class InvocationResult:
    """One answer. ``lines`` are the console's lines, by level; ``code`` is the code that ran."""

    slug: str
    status: int
    content_type: str
    body: bytes = field(repr=False)
    seconds: float
    lines: tuple[tuple[str, str], ...]
    code: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class DidNotStart:
    """Code that the runtime refused, and its message."""

    slug: str
    failure: str
    code: str = field(repr=False)


def show_answer(console: Console, answered: InvocationResult) -> None:
    """Print status, type and time, the console's lines, and the body; for an exception the place in the code."""
    good = answered.status < 400
    kind = answered.content_type.partition(";")[0]
    time = (f"  {kind + '  ' if kind else ''}{answered.seconds * 1000:.0f} ms", "dim")
    console.blank()
    console.line((answered.slug, "bold"), "  ", (str(answered.status), "green" if good else "bold red"), time)
    for level, text in answered.lines:
        first, *rest = visible_lines(text)
        for label, line in ((level, first), *(("", line) for line in rest)):
            console.verbatim(f"{label:<5} {line}", _LEVELS.get(level, ""), indent=2)
    thrown = next((text for level, text in reversed(answered.lines) if level == "error"), "") if answered.status == 500 else ""
    _show_frame(console, answered.slug, thrown, answered.code)
    for line in _body(answered):
        console.verbatim(line, indent=2)


def show_failure(console: Console, failed: DidNotStart) -> None:
    """Print why code did not start, and the place in it."""
    console.blank()
    console.line((failed.slug, "bold"), "  ", ("does not start", "bold red"))
    for line in visible_lines(failed.failure):
        console.verbatim(line, indent=2)
    _show_frame(console, failed.slug, failed.failure, failed.code)


def show_problem(console: Console, problem: Problem) -> None:
    """Print a problem of a file, its line, and the hint."""
    console.blank()
    print_problems(console, [problem])


def _show_frame(console: Console, slug: str, words: str, code: str) -> None:
    for line in _frame(slug, words, code):
        console.verbatim(line, "dim", indent=2)


def _frame(slug: str, words: str, code: str) -> Iterator[str]:
    """Yield the lines of code around the first position in it that an error names, and a mark below the column."""
    own = own_frames(frames_in([words]), slug)
    lines = code.splitlines()
    if not own or not 0 < own[0].line <= len(lines):
        return
    last, column = own[0].line, own[0].column
    for number in range(max(1, last - CONTEXT), last + 1):
        yield f"{number:>4} | {visible_code(lines[number - 1][:MAX_LINE])}".rstrip()
    if column <= MAX_LINE:
        yield " " * (7 + column - 1) + "^"


def _body(answered: InvocationResult) -> list[str]:
    kind = answered.content_type.partition(";")[0].strip()
    try:
        text = answered.body.decode("utf-8")
    except UnicodeDecodeError:
        return [f"({len(answered.body)} bytes of {kind or 'something that is not text'})"]
    if kind.endswith("json"):
        with contextlib.suppress(ValueError, RecursionError):
            text = json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    lines = visible_lines(text[:MAX_BODY]) if text else ["(empty)"]
    return [*lines, f"… and {len(text) - MAX_BODY} characters more"] if len(text) > MAX_BODY else lines
