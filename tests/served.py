"""An emulator in a thread of its own, for tests that run the program itself, in this process or in another."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx

from kapso_sync.emulator.options import EmulatorOptions
from kapso_sync.emulator.server import Emulator, running_emulator
from kapso_sync.emulator.values import JsonObject
from kapso_sync.emulator.world import EmulatedProject

T = TypeVar("T")
QUICK = EmulatorOptions(deploy_delay=0.02, rate_limit=1_000_000)
"""Nothing that is not tested is waited for: with the usual limit, looks at deployments have a share of two in three seconds."""


@dataclass(frozen=True, slots=True)
class Served:
    """A running emulator and a client of its control API."""

    emulator: Emulator
    http: httpx.Client
    loop: asyncio.AbstractEventLoop

    @property
    def world(self) -> EmulatedProject:
        """The project itself, for when nothing calls the emulator: it has no locks, and belongs to the emulator's thread."""
        return self.emulator.world

    def look(self, question: Callable[[EmulatedProject], T]) -> T:
        """Ask the project something between two requests, while a program may be calling the emulator."""

        async def ask() -> T:
            return question(self.emulator.world)

        return asyncio.run_coroutine_threadsafe(ask(), self.loop).result(20)

    def live_code(self) -> dict[str, str | None]:
        """What really runs, by slug, as `look` sees it."""
        return self.look(EmulatedProject.live_code)

    def secrets(self, slug: str) -> JsonObject:
        """The secrets of a function now; none of one that is not there."""
        return self.look(
            lambda world: {
                name: value for each in world.functions.values() if each.slug == slug for name, value in each.secrets.items()
            }
        )

    def environment(self, state: Path) -> dict[str, str]:
        """The variables with which kapso-sync talks to this emulator, impatiently."""
        return {
            "KAPSO_API_BASE_URL": self.emulator.base("/api/v1"),
            "KAPSO_API_KEY": self.emulator.key,
            "KAPSO_SYNC_STATE_DIR": str(state),
            "KAPSO_SYNC_DEPLOY_POLL": "20ms",
            "KAPSO_SYNC_LOG_FORMAT": "json",
        }

    def control(self, method: str, path: str, body: object = None) -> Any:
        answer = self.http.request(method, f"/_emulator{path}", json=body, headers=self.emulator.control_headers)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def faults(self, *rules: Mapping[str, object]) -> None:
        """Let these faults be the ones in force; none ends them all."""
        self.control("PUT", "/faults", {"faults": list(rules)})

    def requests(self) -> list[dict[str, Any]]:
        """What was asked since `forget_requests`, in order."""
        found: list[dict[str, Any]] = self.control("GET", "/requests")["requests"]
        return found

    def calls(self) -> list[str]:
        """The same, as ``POST /functions/{id}/deploy``."""
        return [f"{request['method']} {request['route']}" for request in self.requests()]

    def forget_requests(self) -> None:
        self.control("DELETE", "/requests")

    def edit(self, slug: str, *, deploy: bool = False, **fields: object) -> None:
        """Change a function as the dashboard would."""
        self.control("PATCH", f"/functions/{slug}", {"function": fields, "deploy": deploy})


@contextlib.contextmanager
def served(options: EmulatorOptions = QUICK) -> Iterator[Served]:
    """Serve an emulator on a free port until the block ends."""
    ready: list[Emulator] = []
    up, down = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        try:
            async with running_emulator(options) as emulator:
                ready.append(emulator)
                up.set()
                await down.wait()
        finally:
            up.set()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), name="emulator")
    thread.start()
    try:
        up.wait(20)
        (emulator,) = ready
        with httpx.Client(base_url=emulator.url, trust_env=False, timeout=10) as http:
            yield Served(emulator, http, loop)
    finally:
        loop.call_soon_threadsafe(down.set)
        thread.join(20)
        loop.close()
