"""Runs one workerd process under a guard that ends it with us, and calls it over a private socket."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import httpx

from kapso_sync.emulator.values import JsonObject, dump_json, parse_json

CONFIG = Path(__file__).with_name("config.capnp")
START_TIMEOUT = 30.0
"""Longest time until it listens, in seconds; a tenth of a second is usual, but a machine may be busy."""
ALIVE_TIMEOUT = 1.0
"""Seconds in which a process that is not stuck answers, however busy it is."""
KILL_TIMEOUT = 2.0
"""Seconds that the guard may take to end everything."""
EPITAPH = 4096
"""Maximum number of bytes kept of its output."""

GUARD = """
exec 3<&0 </dev/null
"$@" 3<&- & child=$!
{ read -r _; kill -KILL "$child"; } <&3 >/dev/null 2>&1 & reader=$!
exec 3<&-
wait "$child"
kill "$reader"
wait
kill -KILL 0
"""
"""Ends workerd once standard input does: we hold the other end, so it closes with us, however we end.

It waits for what it started, so that no zombie is left to process 1 of a container; what those started in
turn dies with the group.
"""


class Gone(Exception):
    """The process ended without an answer, or did not start; ``message`` is its last output."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class Late(Exception):
    """There was no answer in time."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The dispatcher's answer: its JSON, and the body."""

    json: JsonObject
    body: bytes


class Process:
    """A running process. ``isolates`` is the number of isolates it was asked to make; ``busy`` the number of its callers."""

    def __init__(self, process: asyncio.subprocess.Process, socket: Path) -> None:
        assert process.stdin  # noqa: S101 - it was started with pipes
        assert process.stdout  # noqa: S101
        assert process.stderr  # noqa: S101
        self._process = process
        self._guarded = process.stdin
        self._socket = socket
        self._said = bytearray()
        self._readers = [asyncio.ensure_future(self._read(stream)) for stream in (process.stdout, process.stderr)]
        self._killed = False
        # A connection for each call, as one that a cancelled call leaves behind in a pool is never given back.
        self._http = httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(
                uds=str(socket),
                verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
            ),
            base_url="http://workerd",
        )
        self.isolates: set[str] = set()
        self.busy = 0

    @property
    def pid(self) -> int:
        """The id of the process group: the guard's."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Return whether it runs, as far as is known without calling it."""
        return self._process.returncode is None and not self._killed

    async def ask(self, job: JsonObject, code: str, body: bytes = b"", *, timeout: float) -> Answer:
        """Return the dispatcher's answer; raises Late after ``timeout`` seconds, and Gone when the process ends first."""
        head, text = dump_json(job), code.encode("utf-8", "replace")
        try:
            answer = await self._http.post(
                "/",
                content=head + text + body,
                headers={"x-lengths": f"{len(head)},{len(text)}"},
                timeout=httpx.Timeout(START_TIMEOUT, read=timeout),
            )
            length = int(answer.headers["x-length"])
            value = parse_json(answer.content[:length])
        except httpx.ReadTimeout:
            raise Late from None
        except (httpx.TransportError, KeyError, ValueError) as error:
            await self.kill()
            raise Gone(self.last_words() or str(error)) from error
        return Answer(value if isinstance(value, dict) else {}, answer.content[length:])

    async def stuck(self) -> bool:
        """Return whether it does not answer at all, for example because code that it runs never returns."""
        try:
            await self._http.get("/", timeout=ALIVE_TIMEOUT)
        except httpx.TransportError:
            return True
        return False

    async def kill(self) -> None:
        """Kill it and its guard; pending calls end with Gone."""
        if not self._killed:
            self._killed = True
            self._guarded.close()
            self._socket.unlink(missing_ok=True)
            try:
                await asyncio.wait_for(self._process.wait(), KILL_TIMEOUT)
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.pid, signal.SIGKILL)
        await self._process.wait()
        await asyncio.gather(*self._readers)
        await self._http.aclose()

    def last_words(self) -> str:
        """Return the last line of its output, without addresses of its own code, or an empty text."""
        said = self._said.decode("utf-8", "replace").strip().splitlines()
        lines = [line for line in said if not line.startswith("stack:")]
        return lines[-1][:300] if lines else ""

    async def _read(self, stream: asyncio.StreamReader) -> None:
        while part := await stream.read(EPITAPH):
            self._said += part
            del self._said[:-EPITAPH]


async def start(binary: Path, socket: Path, kv: Path, db: Path) -> Process:
    """Start workerd and return it once it listens on ``socket``; its key-value store is at ``kv``, its database at ``db``.

    Raises Gone.
    """
    serve = [str(binary), "serve", str(CONFIG), "config", "--experimental", f"--socket-addr=calls=unix:{socket}"]
    pipe = asyncio.subprocess.PIPE
    try:
        child = await asyncio.create_subprocess_exec(
            *(
                "/bin/sh",
                "-c",
                GUARD,
                "workerd-guard",
                *serve,
                f"--external-addr=kv=unix:{kv}",
                f"--external-addr=db=unix:{db}",
            ),
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            env={},
            cwd=socket.parent,
            start_new_session=True,
        )
    except OSError as error:
        raise Gone(str(error)) from error
    process = Process(child, socket)
    try:
        async with asyncio.timeout(START_TIMEOUT):
            await _listening(process)
    except TimeoutError:
        await process.kill()
        raise Gone(f"workerd did not listen within {START_TIMEOUT:g} s") from None
    except BaseException:
        await process.kill()
        raise
    return process


async def _listening(process: Process) -> None:
    while await process.stuck():
        if not process.alive:
            raise Gone(process.last_words() or "workerd ended at once")
        await asyncio.sleep(0.01)


INITIAL_DELAY = 0.1
MAX_DELAY = 5.0

Start = Callable[[Path], Awaitable[Process]]
"""Starts a process that listens on the given socket; raises Gone."""


class ProcessPool:
    """Keeps one process ready. After ``most`` isolates another one replaces it, since isolates are never unloaded.

    Processes listen at the path ``sockets``, with a number each. When processes keep ending, the pauses between starts grow.
    When one does not start at all, callers get its last output at once.
    """

    def __init__(self, start: Start, sockets: Path, *, most: int) -> None:
        self._start = start
        self._sockets = sockets
        self._most = most
        self._numbers = itertools.count(1)
        self._current: Process | None = None
        self._all: set[Process] = set()
        self._starting = asyncio.Lock()
        self._deaths = 0
        self._refusal = ""
        self._not_before = 0.0
        self._closing = asyncio.Event()

    @property
    def current(self) -> Process | None:
        """The process for the next caller, unless it has ended meanwhile; None before the first."""
        return self._current

    @contextlib.asynccontextmanager
    async def held(self, isolate: str) -> AsyncIterator[Process]:
        """Yield a process for calls about one isolate; raises Gone when none starts."""
        process = await self._ready(isolate)
        process.isolates.add(isolate)
        process.busy += 1
        try:
            yield process
            self._deaths = 0
        except Gone:
            self._died(process)
            raise
        finally:
            process.busy -= 1
            await self._leave(process)

    async def close(self) -> None:
        """End all processes for good; callers that ask or wait get `Gone`."""
        self._closing.set()
        async with self._starting:
            await asyncio.gather(*(process.kill() for process in self._all))

    async def _ready(self, isolate: str) -> Process:
        async with self._starting:
            process = self._current
            if process and process.alive and (isolate in process.isolates or len(process.isolates) < self._most):
                return process
            if process and not process.alive:
                self._died(process)
            self._current = None
            if process:
                await self._leave(process)
            await self._wait()
            try:
                self._current = await self._start(self._sockets.with_name(f"{self._sockets.name}-{next(self._numbers)}"))
            except Gone as gone:
                self._refusal = gone.message
                self._pause()
                raise
            self._refusal = ""
            self._all.add(self._current)
            return self._current

    async def _wait(self) -> None:
        """Wait until another process may be started; raises Gone if there is nothing to wait for."""
        pause = self._not_before - asyncio.get_running_loop().time()
        if pause > 0 and self._refusal:
            raise Gone(self._refusal)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._closing.wait(), max(pause, 0.0))
        if self._closing.is_set():
            raise Gone("the emulator ends")

    def _died(self, process: Process) -> None:
        if process is self._current:
            self._current = None
            self._pause()

    def _pause(self) -> None:
        pause = min(INITIAL_DELAY * 2**self._deaths, MAX_DELAY)
        self._deaths += 1
        self._not_before = asyncio.get_running_loop().time() + pause

    async def _leave(self, process: Process) -> None:
        if process is not self._current and not process.busy and process in self._all:
            self._all.discard(process)
            await process.kill()
