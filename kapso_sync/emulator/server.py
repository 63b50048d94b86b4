"""Runs an emulator: without a socket, inside a test's own loop, or in the foreground until a signal comes."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field

from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import ASGIApp

from kapso_sync.emulator.access import TOKEN_HEADER, NameCheck
from kapso_sync.emulator.clock import Clock, SystemClock
from kapso_sync.emulator.control import Control
from kapso_sync.emulator.deps import Deployer, EmulatorDeps
from kapso_sync.emulator.faults import Faults, Rule, read_fault_file
from kapso_sync.emulator.limiter import FixedWindow
from kapso_sync.emulator.middleware import ApiMiddleware
from kapso_sync.emulator.options import EmulatorError, EmulatorOptions
from kapso_sync.emulator.requestlog import RequestLog
from kapso_sync.emulator.routes import FunctionsApi
from kapso_sync.emulator.runtime import Runtime
from kapso_sync.emulator.serving import serving
from kapso_sync.emulator.storage import MemoryStorage, SqliteStorage, Storage
from kapso_sync.emulator.wire import Hangs
from kapso_sync.emulator.workerd import workerd_runtime
from kapso_sync.emulator.world import EmulatedProject


@dataclass(frozen=True, slots=True)
class EmbeddedEmulator:
    """An emulator without a socket: ``app`` serves the Functions API, without the control API, to who holds this object."""

    app: ASGIApp
    key: str
    parts: EmulatorDeps

    @property
    def world(self) -> EmulatedProject:
        """The functions, secrets, deployments and workflows."""
        return self.parts.world

    @property
    def log(self) -> RequestLog:
        """The request log."""
        return self.parts.log


@dataclass(frozen=True, slots=True)
class Emulator:
    """A running emulator: its URL, and its parts for direct assertions. ``url`` is ``http://HOST:PORT``.

    ``control_headers`` are the headers that open the control API.
    """

    url: str
    key: str
    control_token: str = field(repr=False)
    parts: EmulatorDeps

    @property
    def control_headers(self) -> Mapping[str, str]:
        """The headers of a request to the control API."""
        return {TOKEN_HEADER: self.control_token}

    @property
    def world(self) -> EmulatedProject:
        """The functions, secrets, deployments and workflows."""
        return self.parts.world

    @property
    def log(self) -> RequestLog:
        """The request log."""
        return self.parts.log

    @property
    def faults(self) -> Faults:
        """The fault rules."""
        return self.parts.faults

    def base(self, path: str) -> str:
        """Return the base URL for ``/api/v1`` or ``/platform/v1``."""
        return self.url + path


@contextlib.asynccontextmanager
async def embedded_emulator(
    options: EmulatorOptions, *, clock: Clock | None = None, runtime: Runtime | None = None
) -> AsyncIterator[EmbeddedEmulator]:
    """Yield an emulator that nothing outside this process can call; raises like `running_emulator`."""
    async with contextlib.AsyncExitStack() as stack:
        parts, _ = await _open(stack, stack, options, clock or SystemClock(), runtime)
        yield EmbeddedEmulator(_api(parts, options), options.api_key, parts)


@contextlib.asynccontextmanager
async def running_emulator(
    options: EmulatorOptions | None = None, *, clock: Clock | None = None, runtime: Runtime | None = None
) -> AsyncIterator[Emulator]:
    """Serve an emulator in the running loop, without touching signals; it ends at once, hanging requests included.

    ``runtime`` compiles and runs code, in place of the one in the options. Raises EmulatorError when the port, the data folder
    or the fault file cannot be used.
    """
    options = options or EmulatorOptions()
    async with contextlib.AsyncExitStack() as held, contextlib.AsyncExitStack() as running:
        listener = held.enter_context(_listen(options.host, options.port))
        parts, rules = await _open(held, running, options, clock or SystemClock(), runtime)
        control = Control(parts, rules).app(options.control_token)
        app = Starlette(routes=[Mount("/_emulator", app=control), Mount("/", app=_api(parts, options))])
        async with serving(NameCheck(app, (options.host, *options.names)), listener):
            try:
                yield Emulator(_url(listener), options.api_key, options.control_token, parts)
            finally:
                # Code that runs ends before the connections do: then its callers have an answer, and nothing is cut off.
                await running.aclose()


async def _open(
    held: contextlib.AsyncExitStack,
    running: contextlib.AsyncExitStack,
    options: EmulatorOptions,
    clock: Clock,
    runtime: Runtime | None,
) -> tuple[EmulatorDeps, tuple[Rule, ...]]:
    """Open an emulator's parts, and return them with the first fault rules. ``running`` ends the code that runs."""
    rules = read_fault_file(options.faults) if options.faults else ()
    storage: Storage = held.enter_context(contextlib.closing(SqliteStorage(options.data) if options.data else MemoryStorage()))
    if runtime is None and options.workerd is not None:
        runtime = await running.enter_async_context(workerd_runtime(options.workerd, clock=clock, network=options.network))
    world = EmulatedProject(options, clock=clock, storage=storage, project_id=_project_of(options.port))
    parts = EmulatorDeps(
        world=world,
        faults=Faults(rules),
        limiter=FixedWindow(options.rate_limit, options.window, clock),
        log=RequestLog(),
        hangs=Hangs(),
        clock=clock,
        deployer=Deployer(world, runtime),
    )
    return parts, rules


def _api(parts: EmulatorDeps, options: EmulatorOptions) -> ASGIApp:
    return ApiMiddleware(parts, FunctionsApi(parts.world, parts.deployer), options.api_key)


async def serve(options: EmulatorOptions, on_ready: Callable[[Emulator], None]) -> None:
    """Serve an emulator until cancelled, or until SIGINT or SIGTERM; ``on_ready`` gets it. Raises EmulatorError."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    signals = (signal.SIGINT, signal.SIGTERM)
    async with running_emulator(options) as emulator:
        for number in signals:
            loop.add_signal_handler(number, stop.set)
        try:
            on_ready(emulator)
            await stop.wait()
        finally:
            for number in signals:
                loop.remove_signal_handler(number)


@contextlib.contextmanager
def _listen(host: str, port: int) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns Nagle's algorithm off only where the protocol is named; with it, each answer takes 40 ms.
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen()
        except (OSError, OverflowError) as error:
            raise EmulatorError(f"cannot listen on {host}:{port}: {error}", hint="choose another --port") from error
        yield listener


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _project_of(port: int) -> str | None:
    """Return the id of a port's project: the same after a restart, so that a client recognises the project. None for port 0."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"http://127.0.0.1:{port}")) if port else None
