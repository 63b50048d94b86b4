"""A client's view of an emulator, for tests: short calls, and a clock to turn."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import httpx

from kapso_sync.emulator.options import EmulatorOptions
from kapso_sync.emulator.runtime import Runtime
from kapso_sync.emulator.server import Emulator, running_emulator
from tests.clock import VirtualClock

CODE = "async function handler(request, env) {\n  return new Response('hello');\n}\n"
BROKEN = "async function handler(request) {\n  return (;\n}\n"
DELAY = 10.0

NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Without authorities, which take longer to read than a test to run."""

WORKER = {"function_type": "cloudflare_worker"}
"""What a create has to say."""


@dataclass(frozen=True, slots=True)
class Kapso:
    """An emulator, a client with the right key on one of its bases, one without, and the clock that rules it."""

    emulator: Emulator
    http: httpx.AsyncClient
    bare: httpx.AsyncClient
    clock: VirtualClock

    async def control(self, method: str, path: str, body: object = None) -> httpx.Response:
        url = f"{self.emulator.url}/_emulator{path}"
        return await self.http.request(method, url, json=body, headers=self.emulator.control_headers)

    async def faults(self, *rules: dict[str, object]) -> None:
        answer = await self.control("PUT", "/faults", {"faults": list(rules)})
        assert answer.status_code == 200, answer.text

    async def behave(self, **changes: object) -> None:
        answer = await self.control("PUT", "/behaviour", changes)
        assert answer.status_code == 200, answer.text

    async def create(self, slug: str = "hello", code: str = CODE, **fields: object) -> str:
        body = {"function": {"name": slug.title(), "slug": slug, "code": code, **WORKER, **fields}}
        answer = await self.http.post("/functions", json=body)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["data"]["id"])

    async def record(self, function_id: str) -> dict[str, Any]:
        answer = await self.http.get(f"/functions/{function_id}")
        assert answer.status_code == 200, answer.text
        record: dict[str, Any] = answer.json()["data"]
        return record

    async def update(self, function_id: str, **fields: object) -> httpx.Response:
        return await self.http.patch(f"/functions/{function_id}", json={"function": fields})

    async def deploy(self, function_id: str) -> httpx.Response:
        return await self.http.post(f"/functions/{function_id}/deploy")

    async def deployed(self, slug: str = "hello", code: str = CODE, **fields: object) -> str:
        function_id = await self.create(slug, code, **fields)
        await self.deploy(function_id)
        await self.clock.sleep(DELAY)
        return function_id

    def live(self, slug: str = "hello") -> str | None:
        return self.emulator.world.live_code()[slug]


async def until(condition: Callable[[], object]) -> None:
    """Return once the condition holds; what it waits for happens on real sockets, within moments."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - the emulator has no event for each thing a test may wait for
            await asyncio.sleep(0.001)


@contextlib.asynccontextmanager
async def opened(
    options: EmulatorOptions | None = None,
    *,
    base: str = "/platform/v1",
    clock: VirtualClock | None = None,
    runtime: Runtime | None = None,
) -> AsyncIterator[Kapso]:
    """Run an emulator whose deployments take DELAY seconds of a clock that stands still until the test turns it."""
    clock = clock or VirtualClock()
    async with (
        running_emulator(options or EmulatorOptions(deploy_delay=DELAY), clock=clock, runtime=runtime) as emulator,
        httpx.AsyncClient(
            base_url=emulator.base(base), headers={"X-API-Key": emulator.key}, verify=NO_TLS, trust_env=False, timeout=20
        ) as http,
        httpx.AsyncClient(verify=NO_TLS, trust_env=False, timeout=20) as bare,
    ):
        yield Kapso(emulator, http, bare, clock)
