"""Objects that the API and the control API of one emulator share, and the code that starts a deployment."""

from __future__ import annotations

from dataclasses import dataclass

from kapso_sync.emulator.clock import Clock
from kapso_sync.emulator.faults import Faults
from kapso_sync.emulator.limiter import FixedWindow
from kapso_sync.emulator.records import CLOUDFLARE, Deployment, Function
from kapso_sync.emulator.requestlog import RequestLog
from kapso_sync.emulator.runtime import Runtime
from kapso_sync.emulator.wire import Hangs
from kapso_sync.emulator.world import EmulatedProject


class Deployer:
    """Starts deployments. ``runtime`` None: only the code's syntax is checked."""

    def __init__(self, world: EmulatedProject, runtime: Runtime | None) -> None:
        self._world = world
        self.runtime = runtime

    async def deploy(
        self, function: Function, *, delay: float | None = None, failure: str | None = None, ends: bool = True
    ) -> Deployment:
        """Start a deployment like `EmulatedProject.deploy`, and return it when it is known whether the code starts.

        It uses the code and fields at the time of the call, and keeps its order among other deployments of the function.
        """
        runtime = self.runtime if function.function_type == CLOUDFLARE else None
        deployment = self._world.deploy(function, delay=delay, failure=failure, ends=ends, held=runtime is not None)
        if runtime is not None:
            verdict = None if deployment.failure else await runtime.check(function.slug, deployment.code)
            self._world.release(deployment, verdict)
        return deployment


@dataclass(frozen=True, slots=True)
class EmulatorDeps:
    """The emulated project, the request log, the fault rules, the rate limiter, and the deployer."""

    world: EmulatedProject
    faults: Faults
    limiter: FixedWindow
    log: RequestLog
    hangs: Hangs
    clock: Clock
    deployer: Deployer
