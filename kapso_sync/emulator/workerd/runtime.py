"""Compiles and runs functions on workerd: one process tries deployed code, another one runs all live code."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import re
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from kapso_sync.emulator.clock import Clock
from kapso_sync.emulator.runtime import Call, ConsoleLine, Result
from kapso_sync.emulator.syntax import is_module
from kapso_sync.emulator.values import Json, JsonObject, dump_json, is_int, is_number
from kapso_sync.emulator.workerd.d1 import Database, serving_db
from kapso_sync.emulator.workerd.kv import KeyValues, serving_kv
from kapso_sync.emulator.workerd.process import Answer, Gone, Late, ProcessPool, start

SCRIPT_HEAD = "module.exports = (function (module, exports, require) {"
"""The text that the dispatcher puts before a script, on the same line."""

_FAILED = "Failed to start Worker:\n"
_FRAME = re.compile(r"^ +at .*?(?P<file>[\w:.-]+):(?P<line>\d+):(?P<column>\d+)")


@dataclass(frozen=True, slots=True)
class Code:
    """Code by the name of its file in the isolate; ``module`` tells its style."""

    file: str
    text: str
    module: bool

    def placed(self, words: str) -> str:
        """Return an error's text with positions in the code only, lines and columns counted from 1."""
        words = words.removeprefix(_FAILED)
        # A syntax error has no stack: workerd adds its place, and counts columns from 0 there.
        shift = int(words.startswith("Uncaught SyntaxError"))
        lines = (self._line(line, shift) for line in words.splitlines())
        return "\n".join(line for line in lines if line is not None)

    def _line(self, line: str, shift: int) -> str | None:
        frame = _FRAME.match(line)
        if frame is None:
            return line
        number, column = int(frame["line"]), int(frame["column"]) + shift
        if frame["file"] != self.file or number > self.text.count("\n") + 1:
            return None
        if number == 1 and not self.module:
            column -= len(SCRIPT_HEAD)
        return f"{line[: frame.start('line')]}{number}:{column}{line[frame.end('column') :]}"


START_LIMIT = 5.0
"""Longest start of code, in seconds. Cloudflare allows one, on machines that do nothing else."""
TIMEOUT = 30.0
"""Default timeout of a call, in seconds."""
LONGEST_TIMEOUT = 600.0
MARGIN = 1.0
"""Seconds to wait beyond the timeout, which the isolate keeps itself unless its code loops."""
MOST_TRIED = 64
MOST_LIVE = 256
"""Maximum number of isolates of one process; each takes about 2 MB."""


class WorkerdRuntime:
    """A `Runtime` on workerd, with two processes: code that loops while it is tried must not block live functions.

    ``network``: functions reach public addresses; otherwise nothing at all. ``values`` and ``database`` are what functions see
    as ``env.KV`` and ``env.DB``.
    """

    def __init__(
        self, trying: ProcessPool, running: ProcessPool, values: KeyValues, database: Database, *, network: bool
    ) -> None:
        self._trying = trying
        self._running = running
        self.values = values
        self.database = database
        self._network = network
        self._one_at_a_time = asyncio.Lock()
        self._numbers = itertools.count(1)

    @property
    def processes(self) -> tuple[ProcessPool, ProcessPool]:
        """The pools of the process that tries code and of the one that runs it."""
        return self._trying, self._running

    async def check(self, slug: str, code: str) -> str | None:
        """Start the code once and return workerd's error if it does not start, or None."""
        source = _source(slug, code)
        job = self._job("check", source)
        # One at a time, so that it is known whose code it is that does not end.
        async with self._one_at_a_time:
            try:
                answer = await self._try(job, source)
            except Late:
                return f"The code did not start within {START_LIMIT:g} s"
            except Gone as gone:
                return f"The runtime ended while the code started: {gone.message}"
        failed = answer.json.get("failed")
        return None if failed is None else source.placed(str(failed))

    async def run(self, call: Call) -> Result:
        """Run the code and return its answer; a call is repeated once if its process was ended for another call."""
        loop = asyncio.get_running_loop()
        timeout = _timeout(call)
        source = _source(call.slug, call.code)
        job = self._job("run", source) | {
            "id": f"{call.function_id} {call.deployment}",
            "secrets": dict(call.secrets),
            "outbound": call.outbound,
            "call": {
                "method": call.method,
                "url": call.url,
                "headers": dict(call.headers),
                "timeout": timeout,
                "ctx": call.ctx,
            },
        }
        ends = loop.time() + timeout + MARGIN
        for last in (False, True):
            try:
                answer = await self._ask(job, call, max(ends - loop.time(), 0.0))
            except Late:
                break
            except Gone as gone:
                if last or loop.time() >= ends:
                    return _failure(500, f"The runtime ended: {gone.message}")
            else:
                return _late(timeout, answer) if answer.json.get("late") else _result(answer, source)
        return _late(timeout)

    def forget(self) -> None:
        """Empty the key-value store and the database."""
        self.values.clear()
        self.database.clear()

    async def _try(self, job: JsonObject, source: Code) -> Answer:
        for last in (False, True):
            try:
                async with self._trying.held(str(next(self._numbers))) as process:
                    try:
                        return await process.ask(job, source.text, timeout=START_LIMIT)
                    except Late:
                        await process.kill()
                        raise
            except Gone:
                if last:
                    raise
        raise AssertionError

    async def _ask(self, job: JsonObject, call: Call, seconds: float) -> Answer:
        async with self._running.held(str(job["id"])) as process:
            try:
                return await process.ask(job, call.code, call.body, timeout=seconds)
            except Late:
                if await process.stuck():
                    await process.kill()
                raise

    def _job(self, what: str, source: Code) -> JsonObject:
        return {"do": what, "name": source.file, "module": source.module, "network": self._network}


@contextlib.asynccontextmanager
async def workerd_runtime(binary: Path, *, clock: Clock, network: bool = False) -> AsyncIterator[WorkerdRuntime]:
    """Yield a runtime on this workerd; its processes start when they are needed, and end with it."""
    with tempfile.TemporaryDirectory(prefix="kapso-workerd-") as name:
        folder = Path(name)
        values, database = KeyValues(clock), Database()
        async with serving_kv(values, folder / "kv"), serving_db(database, folder / "db"):
            begin = functools.partial(start, binary, kv=folder / "kv", db=folder / "db")
            trying, running = (
                ProcessPool(begin, folder / "try", most=MOST_TRIED),
                ProcessPool(begin, folder / "run", most=MOST_LIVE),
            )
            try:
                yield WorkerdRuntime(trying, running, values, database, network=network)
            finally:
                await asyncio.gather(trying.close(), running.close())


def _source(slug: str, code: str) -> Code:
    return Code(f"{slug}.js", code, is_module(code))


def _timeout(call: Call) -> float:
    config = call.fields.get("runtime_config")
    seconds = config.get("timeout") if isinstance(config, dict) else None
    return min(float(seconds), LONGEST_TIMEOUT) if is_number(seconds) and seconds > 0 else TIMEOUT


def _late(timeout: float, answer: Answer | None = None) -> Result:
    return _failure(504, f"The function did not answer within {timeout:g} s", _console(answer) if answer else ())


def _result(answer: Answer, source: Code) -> Result:
    said = answer.json
    console = tuple((level, source.placed(text)) for level, text in _console(answer))
    if "failed" in said or "thrown" in said:
        return _failure(500, source.placed(str(said.get("failed") or said["thrown"])), console)
    status, content_type = said.get("status"), said.get("type")
    return Result(
        status if is_int(status) else 500,
        answer.body,
        content_type if isinstance(content_type, str) and content_type.isascii() else "",
        console=console,
    )


def _failure(status: int, message: str, console: tuple[ConsoleLine, ...] = ()) -> Result:
    return Result(status, dump_json({"error": message}), failed=True, console=console)


def _console(answer: Answer) -> tuple[ConsoleLine, ...]:
    lines: Json = answer.json.get("console")
    return tuple((str(line[0]), str(line[1])) for line in lines if isinstance(line, list)) if isinstance(lines, list) else ()
